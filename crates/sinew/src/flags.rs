//! Flags the way Go programs take them, on top of clap: `--flag=false`, `1m30s`, and values from the environment.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Arg, ArgAction, Command};

/// Lets every switch of `command` and its subcommands take a value too (`--prefix=false`), and be repeated.
pub(crate) fn go_style(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let mut command = command.args_override_self(true).mut_args(switch);
    for name in names {
        command = command.mut_subcommand(name, go_style);
    }
    command
}

fn switch(argument: Arg) -> Arg {
    if !matches!(argument.get_action(), ArgAction::SetTrue) {
        return argument;
    }
    argument
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_value("false")
        .default_missing_value("true")
        .value_parser(go_bool)
        .hide_default_value(true)
        .hide_possible_values(true)
        .value_name("BOOL")
}

/// Reads a truth value.
pub(crate) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// Reads a duration: numbers with units, `5s`, `1m30s`, `1.5h`, `300ms`.
pub(crate) fn go_duration(text: &str) -> Result<Duration, String> {
    const ADVICE: &str = "write a number and a unit, for example 500ms, 5s or 1m30s";
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(ADVICE.to_owned());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| ADVICE.to_owned())?;
        rest = &rest[digits..];
        let end = rest.find(|character: char| character.is_ascii_digit() || character == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(ADVICE.to_owned()),
        };
        seconds += number * unit;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| "the duration is too long".to_owned())
}

/// Inserts `--flag=value` at position `at` of `arguments` for every long flag of `command` that stands in the
/// environment under one of `prefixes` (the first that has it wins) and not in `arguments`. Returns the new arguments
/// and the names of the variables used.
pub(crate) fn with_environment(
    arguments: Vec<OsString>,
    at: usize,
    command: &Command,
    prefixes: &[&str],
    lookup: &dyn Fn(&str) -> Option<OsString>,
) -> (Vec<OsString>, Vec<String>) {
    let mut inserted = Vec::new();
    let mut used = Vec::new();
    for argument in command.get_arguments() {
        let Some(long) = argument.get_long() else { continue };
        if matches!(long, "help" | "version") || is_given(&arguments, long, argument.get_short()) {
            continue;
        }
        let variable = long.replace('-', "_").to_uppercase();
        for prefix in prefixes {
            let name = format!("{prefix}{variable}");
            if let Some(value) = lookup(&name).filter(|value| !value.is_empty()) {
                let mut flag = OsString::from(format!("--{long}="));
                flag.push(value);
                inserted.push(flag);
                used.push(name);
                break;
            }
        }
    }
    let mut arguments = arguments;
    let at = at.min(arguments.len());
    arguments.splice(at..at, inserted);
    (arguments, used)
}

fn is_given(arguments: &[OsString], long: &str, short: Option<char>) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| {
        let Some(text) = argument.to_str() else { return false };
        if let Some(flag) = text.strip_prefix("--") {
            return flag == long || flag.strip_prefix(long).is_some_and(|rest| rest.starts_with('='));
        }
        match (text.strip_prefix('-'), short) {
            (Some(flag), Some(short)) => flag.starts_with(short),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        assert_eq!(go_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(go_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(go_duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(go_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(go_duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "5", "s", "5 s", "-5s", "5s3", "1..5s", "5d", "99999999999999999999999h"] {
            assert!(go_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn switches_take_values_and_may_be_repeated() {
        let command =
            || go_style(Command::new("x").arg(Arg::new("a").long("a").action(ArgAction::SetTrue)).arg(Arg::new("k")));
        let parse = |words: &[&str]| {
            let matches = command().try_get_matches_from(words)?;
            Ok::<_, clap::Error>((matches.get_flag("a"), matches.get_one::<String>("k").cloned()))
        };
        assert_eq!(parse(&["x"]).unwrap(), (false, None));
        assert_eq!(parse(&["x", "--a", "k"]).unwrap(), (true, Some("k".to_owned())));
        assert_eq!(parse(&["x", "--a=false", "--a=true", "--a=F"]).unwrap(), (false, None));
        assert!(parse(&["x", "--a=maybe"]).is_err());
    }

    #[test]
    fn environment_fills_what_the_command_line_leaves_open() {
        let command = Command::new("x").arg(Arg::new("name").long("name")).arg(Arg::new("w").long("out").short('w'));
        let lookup = |name: &str| match name {
            "SINEW_NAME" => Some("one".into()),
            "ETCD_NAME" => Some("two".into()),
            "ETCD_OUT" => Some("json".into()),
            _ => None,
        };
        let expand = |words: &[&str]| {
            let words = words.iter().map(OsString::from).collect();
            with_environment(words, 1, &command, &["SINEW_", "ETCD_"], &lookup)
        };
        let (arguments, used) = expand(&["x", "--", "--name"]);
        assert_eq!(arguments, ["x", "--name=one", "--out=json", "--", "--name"]);
        assert_eq!(used, ["SINEW_NAME", "ETCD_OUT"]);
        assert_eq!(expand(&["x", "--name=a", "-wfields"]).0, ["x", "--name=a", "-wfields"]);
        assert_eq!(expand(&["x", "--name", "a", "--outer"]).0, ["x", "--out=json", "--name", "a", "--outer"]);
    }
}
