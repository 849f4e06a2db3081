//! The flags every client verb takes, and what they mean once checked.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use clap::Args;

use super::Failure;
use crate::flags::{go_bool, go_duration};
use crate::print::{Format, Style};

/// Flags of every client verb. Each can come from the environment too: `SINEW_ENDPOINTS`, `ETCDCTL_ENDPOINTS`, ...
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of all client verbs (also SINEW_ENDPOINTS or ETCDCTL_ENDPOINTS and so on)")]
pub(crate) struct Globals {
    /// Where to reach the cluster; one is enough, more are tried in turn
    #[arg(long, global = true, value_delimiter = ',', value_name = "HOST:PORT,...")]
    endpoints: Vec<String>,
    /// Output format: simple, fields, json, table or protobuf
    #[arg(long, short = 'w', global = true, value_name = "FORMAT")]
    write_out: Option<String>,
    /// Print keys and values in hexadecimal
    #[arg(long, global = true)]
    hex: bool,
    /// How long to try to connect [default: 2s]
    #[arg(long, global = true, value_parser = go_duration, value_name = "DURATION")]
    dial_timeout: Option<Duration>,
    /// How long to wait for the answer [default: 5s]
    #[arg(long, global = true, value_parser = go_duration, value_name = "DURATION")]
    command_timeout: Option<Duration>,
    /// Write only while KEY is the one created at revision TOKEN: for the holder of a lock
    #[arg(long, global = true, value_name = "KEY=TOKEN")]
    fence: Vec<OsString>,
    /// Who asks: name, or name:password
    #[arg(long, global = true)]
    user: Option<String>,
    /// Password, if it is not part of --user
    #[arg(long, global = true)]
    password: Option<String>,
    /// Token to send as it is, instead of --user
    #[arg(long, global = true, value_name = "TOKEN", hide = true)]
    auth_jwt_token: Option<String>,
    #[arg(long, global = true, hide = true)]
    cacert: Option<String>,
    #[arg(long, global = true, hide = true)]
    cert: Option<String>,
    #[arg(long, global = true, hide = true)]
    key: Option<String>,
    #[arg(long, short = 'd', global = true, hide = true)]
    discovery_srv: Option<String>,
    #[arg(long, global = true, hide = true)]
    discovery_srv_name: Option<String>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = go_bool)]
    insecure_transport: Option<bool>,
    // These change nothing without TLS or discovery, or tune the Go client only.
    #[arg(long, global = true, hide = true)]
    insecure_skip_tls_verify: bool,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = go_bool)]
    insecure_discovery: Option<bool>,
    #[arg(long, global = true, hide = true)]
    debug: bool,
    #[arg(long, global = true, hide = true, value_parser = go_duration)]
    keepalive_time: Option<Duration>,
    #[arg(long, global = true, hide = true, value_parser = go_duration)]
    keepalive_timeout: Option<Duration>,
    #[arg(long, global = true, hide = true)]
    max_request_bytes: Option<usize>,
    #[arg(long, global = true, hide = true)]
    max_recv_bytes: Option<usize>,
}

/// Checked [`Globals`].
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// As the user wrote them; at least one.
    pub(crate) endpoints: Vec<String>,
    /// How to print.
    pub(crate) style: Style,
    /// How long to try to connect.
    pub(crate) dial_timeout: Duration,
    /// How long to wait for an answer.
    pub(crate) command_timeout: Duration,
    /// Who asks.
    pub(crate) identity: Identity,
    /// What must hold for a write to be done: `KEY=TOKEN`.
    pub(crate) fences: Vec<Vec<u8>>,
    /// Largest answer accepted, in bytes.
    pub(crate) receive_bytes_max: usize,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Nobody in particular.
    Anonymous,
    /// A user, to be traded for a token.
    Password { name: String, password: String },
    /// A token got elsewhere.
    Token(String),
}

impl Globals {
    /// Checks the flags.
    ///
    /// # Errors
    /// A value that makes no sense, or a wish this version cannot fulfil.
    pub(crate) fn settings(self) -> Result<Settings, Failure> {
        self.refuse_what_is_missing()?;
        let format = match self.write_out.as_deref().unwrap_or("simple") {
            "simple" => Format::Simple,
            "fields" => Format::Fields,
            "json" => Format::Json,
            "table" => Format::Table,
            "protobuf" => Format::Protobuf,
            other => {
                return Err(Failure::Usage(format!(
                    "unsupported output format '{other}'; write simple, fields, json, table or protobuf"
                )));
            }
        };
        let identity = self.identity()?;
        let mut endpoints = self.endpoints;
        endpoints.retain(|endpoint| !endpoint.is_empty());
        if endpoints.is_empty() {
            endpoints.push("127.0.0.1:2379".to_owned());
        }
        Ok(Settings {
            endpoints,
            style: Style { format, hex: self.hex, values_only: false },
            dial_timeout: self.dial_timeout.unwrap_or(Duration::from_secs(2)),
            command_timeout: self.command_timeout.unwrap_or(Duration::from_secs(5)),
            identity,
            fences: self.fence.iter().map(|fence| fence.as_bytes().to_vec()).collect(),
            // etcdctl's default is the largest 32-bit number as well.
            receive_bytes_max: self.max_recv_bytes.filter(|&bytes| bytes > 0).unwrap_or(i32::MAX as usize),
        })
    }

    /// Ignoring these would send in clear what was meant to be secret, or ask the wrong cluster.
    fn refuse_what_is_missing(&self) -> Result<(), Failure> {
        let tls = [("--cacert", &self.cacert), ("--cert", &self.cert), ("--key", &self.key)];
        for (flag, value) in tls {
            if value.is_some() {
                return Err(Failure::Usage(format!("{flag}: TLS is not available yet; use plain http:// endpoints")));
            }
        }
        if self.insecure_transport == Some(false) {
            return Err(Failure::Usage("--insecure-transport=false: TLS is not available yet".to_owned()));
        }
        if self.discovery_srv.is_some() || self.discovery_srv_name.is_some() {
            return Err(Failure::Usage(
                "--discovery-srv is not available; name the endpoints with --endpoints".to_owned(),
            ));
        }
        Ok(())
    }

    fn identity(&self) -> Result<Identity, Failure> {
        if let Some(token) = &self.auth_jwt_token {
            if self.user.is_some() || self.password.is_some() {
                return Err(Failure::Usage("--auth-jwt-token excludes --user and --password".to_owned()));
            }
            return Ok(Identity::Token(token.clone()));
        }
        let Some(user) = &self.user else {
            return match self.password {
                Some(_) => Err(Failure::Usage("--password needs --user".to_owned())),
                None => Ok(Identity::Anonymous),
            };
        };
        let (name, password) = match (&self.password, user.split_once(':')) {
            (Some(password), _) => (user.as_str(), password.as_str()),
            (None, Some(both)) => both,
            (None, None) => {
                return Err(Failure::Usage("no password: write --user name:password or add --password".to_owned()));
            }
        };
        Ok(Identity::Password { name: name.to_owned(), password: password.to_owned() })
    }
}
