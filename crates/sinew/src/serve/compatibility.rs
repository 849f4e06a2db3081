//! etcd's flags that have no effect here: all are accepted, none silently.
//!
//! Invariant: a flag whose loss would change what the operator asked for (secrecy, another disk, another cluster) is an
//! error; any other is a warning. A flag set to the value that describes what Sinew does anyway is neither.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// Nothing, or `=true` and `=false`.
    Switch,
    /// Any text.
    Value,
}
use Takes::{Switch, Value};

/// What happens when it is set.
#[derive(Clone, Copy)]
enum Fate {
    /// A warning.
    Warn,
    /// An error with this advice.
    Refuse(&'static str),
}
use Fate::{Refuse, Warn};

const NO_TLS: &str = "TLS is not available yet; remove the flag and use http:// URLs on a network you trust";
const NO_DISCOVERY: &str = "discovery is not available; list the members with --initial-cluster";
const NO_V2: &str = "the v2 API and proxy are gone; use the v3 API";
const NO_PRUNING: &str =
    "the log lies in the data directory; remove the flag, or put the whole --data-dir on that disk";
const NO_FILE: &str = "configuration files are not available yet; write the settings as flags or SINEW_ variables";
const NO_FORCE: &str = "a cluster cannot be rebuilt from one member in this version; restore a majority of the members";
const NO_TOKEN: &str = "authentication is not available yet; only 'simple' is accepted";
const NO_WHITELIST: &str =
    "host names are not checked in this version; remove the flag and restrict access by firewall";
const NO_HTTP: &str = "gRPC and HTTP share one port; add the URL to --listen-client-urls instead";

/// Flag, what it takes, what happens, and the values that describe what Sinew does anyway.
type Row = (&'static str, Takes, Fate, &'static [&'static str]);

const OFF: &[&str] = &["false"];
const ON: &[&str] = &["true"];
const NONE: &[&str] = &[""];

const TABLE: &[Row] = &[
    // Secrecy and access.
    ("cert-file", Value, Refuse(NO_TLS), NONE),
    ("key-file", Value, Refuse(NO_TLS), NONE),
    ("client-cert-file", Value, Refuse(NO_TLS), NONE),
    ("client-key-file", Value, Refuse(NO_TLS), NONE),
    ("trusted-ca-file", Value, Refuse(NO_TLS), NONE),
    ("client-cert-auth", Switch, Refuse(NO_TLS), OFF),
    ("client-crl-file", Value, Refuse(NO_TLS), NONE),
    ("client-cert-allowed-hostname", Value, Refuse(NO_TLS), NONE),
    ("auto-tls", Switch, Refuse(NO_TLS), OFF),
    ("peer-cert-file", Value, Refuse(NO_TLS), NONE),
    ("peer-key-file", Value, Refuse(NO_TLS), NONE),
    ("peer-client-cert-file", Value, Refuse(NO_TLS), NONE),
    ("peer-client-key-file", Value, Refuse(NO_TLS), NONE),
    ("peer-trusted-ca-file", Value, Refuse(NO_TLS), NONE),
    ("peer-client-cert-auth", Switch, Refuse(NO_TLS), OFF),
    ("peer-crl-file", Value, Refuse(NO_TLS), NONE),
    ("peer-cert-allowed-cn", Value, Refuse(NO_TLS), NONE),
    ("peer-cert-allowed-hostname", Value, Refuse(NO_TLS), NONE),
    ("peer-auto-tls", Switch, Refuse(NO_TLS), OFF),
    ("peer-skip-client-san-verification", Switch, Warn, OFF),
    ("experimental-peer-skip-client-san-verification", Switch, Warn, OFF),
    ("tls-min-version", Value, Warn, NONE),
    ("tls-max-version", Value, Warn, NONE),
    ("cipher-suites", Value, Warn, NONE),
    ("self-signed-cert-validity", Value, Warn, NONE),
    ("auth-token", Value, Refuse(NO_TOKEN), &["simple"]),
    ("auth-token-ttl", Value, Warn, NONE),
    ("bcrypt-cost", Value, Warn, NONE),
    ("host-whitelist", Value, Refuse(NO_WHITELIST), &["*", ""]),
    ("cors", Value, Warn, &["*", ""]),
    // Which cluster, which disk.
    ("config-file", Value, Refuse(NO_FILE), NONE),
    ("force-new-cluster", Switch, Refuse(NO_FORCE), OFF),
    ("wal-dir", Value, Refuse(NO_PRUNING), NONE),
    ("discovery", Value, Refuse(NO_DISCOVERY), NONE),
    ("discovery-token", Value, Refuse(NO_DISCOVERY), NONE),
    ("discovery-endpoints", Value, Refuse(NO_DISCOVERY), NONE),
    ("discovery-srv", Value, Refuse(NO_DISCOVERY), NONE),
    ("discovery-srv-name", Value, Refuse(NO_DISCOVERY), NONE),
    ("discovery-proxy", Value, Warn, NONE),
    ("discovery-fallback", Value, Warn, NONE),
    ("discovery-dial-timeout", Value, Warn, NONE),
    ("discovery-request-timeout", Value, Warn, NONE),
    ("discovery-keepalive-time", Value, Warn, NONE),
    ("discovery-keepalive-timeout", Value, Warn, NONE),
    ("discovery-insecure-transport", Switch, Warn, ON),
    ("discovery-insecure-skip-tls-verify", Switch, Warn, OFF),
    ("discovery-cert", Value, Warn, NONE),
    ("discovery-key", Value, Warn, NONE),
    ("discovery-cacert", Value, Warn, NONE),
    ("discovery-user", Value, Warn, NONE),
    ("discovery-password", Value, Warn, NONE),
    ("proxy", Value, Refuse(NO_V2), &["off"]),
    ("proxy-failure-wait", Value, Warn, NONE),
    ("proxy-refresh-interval", Value, Warn, NONE),
    ("proxy-dial-timeout", Value, Warn, NONE),
    ("proxy-write-timeout", Value, Warn, NONE),
    ("proxy-read-timeout", Value, Warn, NONE),
    ("enable-v2", Switch, Refuse(NO_V2), OFF),
    ("experimental-enable-v2v3", Value, Refuse(NO_V2), NONE),
    ("v2-deprecation", Value, Warn, &["gone"]),
    ("listen-client-http-urls", Value, Refuse(NO_HTTP), NONE),
    ("listen-metrics-urls", Value, Warn, NONE),
    // How it works inside.
    ("strict-reconfig-check", Switch, Warn, ON),
    ("pre-vote", Switch, Warn, ON),
    ("initial-election-tick-advance", Switch, Warn, ON),
    ("max-learners", Value, Warn, NONE),
    ("snapshot-count", Value, Warn, NONE),
    ("snapshot-catchup-entries", Value, Warn, NONE),
    ("experimental-snapshot-catchup-entries", Value, Warn, NONE),
    ("max-snapshots", Value, Warn, NONE),
    ("max-wals", Value, Warn, NONE),
    ("raft-read-timeout", Value, Warn, NONE),
    ("raft-write-timeout", Value, Warn, NONE),
    ("backend-batch-interval", Value, Warn, NONE),
    ("backend-batch-limit", Value, Warn, NONE),
    ("backend-bbolt-freelist-type", Value, Warn, NONE),
    ("bootstrap-defrag-threshold-megabytes", Value, Warn, NONE),
    ("experimental-bootstrap-defrag-threshold-megabytes", Value, Warn, NONE),
    ("memory-mlock", Switch, Warn, OFF),
    ("experimental-memory-mlock", Switch, Warn, OFF),
    ("experimental-txn-mode-write-with-shared-buffer", Switch, Warn, NONE),
    ("feature-gates", Value, Warn, NONE),
    ("downgrade-check-time", Value, Warn, NONE),
    ("experimental-downgrade-check-time", Value, Warn, NONE),
    // History.
    ("compaction-batch-limit", Value, Warn, NONE),
    ("compaction-sleep-interval", Value, Warn, NONE),
    ("experimental-compaction-batch-limit", Value, Warn, NONE),
    ("experimental-compaction-sleep-interval", Value, Warn, NONE),
    ("experimental-enable-lease-checkpoint", Switch, Warn, OFF),
    ("experimental-enable-lease-checkpoint-persist", Switch, Warn, OFF),
    // Checks.
    ("compact-hash-check-time", Value, Warn, NONE),
    ("experimental-compact-hash-check-enabled", Switch, Warn, OFF),
    ("experimental-compact-hash-check-time", Value, Warn, NONE),
    ("experimental-initial-corrupt-check", Switch, Warn, OFF),
    // Connections.
    ("socket-reuse-port", Switch, Warn, OFF),
    ("socket-reuse-address", Switch, Warn, OFF),
    ("grpc-keepalive-min-time", Value, Warn, NONE),
    ("grpc-keepalive-interval", Value, Warn, NONE),
    ("grpc-keepalive-timeout", Value, Warn, NONE),
    ("enable-grpc-gateway", Switch, Warn, ON),
    ("experimental-stop-grpc-service-on-defrag", Switch, Warn, OFF),
    // Observation.
    ("metrics", Value, Warn, &["basic"]),
    ("enable-pprof", Switch, Warn, OFF),
    ("logger", Value, Warn, &["zap"]),
    ("enable-log-rotation", Switch, Warn, OFF),
    ("log-rotation-config-json", Value, Warn, NONE),
    ("warning-apply-duration", Value, Warn, NONE),
    ("experimental-warning-apply-duration", Value, Warn, NONE),
    ("warning-unary-request-duration", Value, Warn, NONE),
    ("experimental-warning-unary-request-duration", Value, Warn, NONE),
    ("enable-distributed-tracing", Switch, Warn, OFF),
    ("experimental-enable-distributed-tracing", Switch, Warn, OFF),
    ("distributed-tracing-address", Value, Warn, NONE),
    ("distributed-tracing-service-name", Value, Warn, NONE),
    ("distributed-tracing-instance-id", Value, Warn, NONE),
    ("distributed-tracing-sampling-rate", Value, Warn, NONE),
    ("experimental-distributed-tracing-address", Value, Warn, NONE),
    ("experimental-distributed-tracing-service-name", Value, Warn, NONE),
    ("experimental-distributed-tracing-instance-id", Value, Warn, NONE),
    ("experimental-distributed-tracing-sampling-rate", Value, Warn, NONE),
];

/// Teaches `command` the flags of the table. They stay out of `--help`, which shows what has an effect.
pub(crate) fn with_compatibility(command: Command) -> Command {
    TABLE.iter().fold(command, |command, (name, takes, fate, harmless)| {
        let argument = Arg::new(*name).long(*name).hide(true);
        let (fate, harmless, name) = (*fate, *harmless, *name);
        let check = move |value: &str| match fate {
            Refuse(advice) if !harmless.contains(&value) => Err(format!("--{name}: {advice}")),
            Refuse(_) | Warn => Ok(value.to_owned()),
        };
        command.arg(match takes {
            Value => argument.action(ArgAction::Set).allow_hyphen_values(true).value_parser(check),
            Switch => argument
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(move |value: &str| {
                    let value = crate::flags::go_bool(value)?.to_string();
                    check(&value)
                }),
        })
    })
}

/// The flags that were set to something this version does not do.
pub(crate) fn ignored_flags(matches: &ArgMatches) -> Vec<&'static str> {
    let is_set = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
    let says_something =
        |row: &&Row| matches.get_one::<String>(row.0).is_some_and(|value| !row.3.contains(&value.as_str()));
    TABLE.iter().filter(|row| is_set(row.0)).filter(says_something).map(|row| row.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Vec<&'static str>, String> {
        let command = with_compatibility(Command::new("serve")).no_binary_name(true);
        command.try_get_matches_from(words).map(|matches| ignored_flags(&matches)).map_err(|error| error.to_string())
    }

    #[test]
    fn harmless_flags_are_reported() {
        let words = ["--snapshot-count=10", "--pre-vote=false", "--enable-pprof", "--cors", "x"];
        assert_eq!(parse(&words), Ok(vec!["cors", "pre-vote", "snapshot-count", "enable-pprof"]));
    }

    #[test]
    fn flags_that_ask_for_what_is_done_anyway_are_not_reported() {
        let words = ["--pre-vote", "--logger=zap", "--client-cert-auth=false", "--auth-token=simple", "--cert-file="];
        assert_eq!(parse(&words), Ok(vec![]));
    }

    #[test]
    fn flags_that_must_not_be_lost_are_refused_with_advice() {
        for (word, advice) in [
            ("--cert-file=a.pem", "TLS is not available"),
            ("--client-cert-auth", "TLS is not available"),
            ("--auth-token=jwt,x", "authentication is not available"),
            ("--force-new-cluster", "restore a majority"),
            ("--config-file=x", "SINEW_ variables"),
            ("--discovery-srv=x", "--initial-cluster"),
            ("--wal-dir=/fast", "--data-dir"),
            ("--host-whitelist=a", "firewall"),
        ] {
            let error = parse(&[word]).expect_err(word);
            assert!(error.contains(advice), "{word}: {error}");
        }
        assert!(parse(&["--pre-vote=maybe"]).is_err());
    }

    #[test]
    fn the_table_names_each_flag_once() {
        let mut names: Vec<&str> = TABLE.iter().map(|row| row.0).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
