//! Logs of `serve` and `demo`, through `tracing`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::ctl::Failure;

/// Installs the logger for the whole process. `outputs` is a comma list of `stderr`, `stdout` and file names.
///
/// # Errors
/// A value that makes no sense, or a file that cannot be opened.
pub(crate) fn install(level: &str, format: &str, outputs: &str) -> Result<(), Failure> {
    let level = parse_level(level).map_err(Failure::Usage)?;
    let is_json = match format {
        "console" => false,
        "json" => true,
        other => return Err(Failure::Usage(format!("--log-format: '{other}' is unknown; write console or json"))),
    };
    let outputs = Outputs::open(outputs).map_err(Failure::Usage)?;
    let builder = tracing_subscriber::fmt().with_max_level(level).with_ansi(outputs.is_terminal()).with_writer(outputs);
    let installed = if is_json { builder.json().try_init() } else { builder.try_init() };
    installed.map_err(|error| Failure::Request(format!("cannot start the log: {error}")))
}

/// etcd knows levels above error, which end the program there; here they only mean: nothing but errors.
fn parse_level(text: &str) -> Result<LevelFilter, String> {
    match text {
        "trace" => Ok(LevelFilter::TRACE),
        "debug" => Ok(LevelFilter::DEBUG),
        "info" => Ok(LevelFilter::INFO),
        "warn" => Ok(LevelFilter::WARN),
        "error" | "dpanic" | "panic" | "fatal" => Ok(LevelFilter::ERROR),
        other => Err(format!("--log-level: '{other}' is unknown; write debug, info, warn or error")),
    }
}

/// Everything a log line goes to.
struct Outputs {
    writers: Mutex<Vec<Box<dyn Write + Send>>>,
    only_terminal: bool,
}

impl Outputs {
    fn open(list: &str) -> Result<Self, String> {
        let mut writers: Vec<Box<dyn Write + Send>> = Vec::new();
        let mut only_terminal = true;
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "stderr" | "default" => {
                    only_terminal &= io::IsTerminal::is_terminal(&io::stderr());
                    writers.push(Box::new(io::stderr()));
                }
                "stdout" => {
                    only_terminal &= io::IsTerminal::is_terminal(&io::stdout());
                    writers.push(Box::new(io::stdout()));
                }
                "systemd/journal" => {
                    return Err("--log-outputs: the journal takes what goes to stderr; write stderr".to_owned());
                }
                path => {
                    only_terminal = false;
                    let file = OpenOptions::new().create(true).append(true).open(path);
                    let file = file.map_err(|error| format!("--log-outputs: cannot open {path}: {error}"))?;
                    writers.push(Box::new(file));
                }
            }
        }
        if writers.is_empty() {
            return Err("--log-outputs is empty; write stderr".to_owned());
        }
        Ok(Self { writers: Mutex::new(writers), only_terminal })
    }

    fn is_terminal(&self) -> bool {
        self.only_terminal
    }
}

impl<'a> MakeWriter<'a> for Outputs {
    type Writer = Tee<'a>;

    fn make_writer(&'a self) -> Tee<'a> {
        Tee(self)
    }
}

/// Writes to all outputs. One that fails (a closed pipe, a full disk) must not silence the others, so the first error
/// is reported only after all had their turn.
struct Tee<'a>(&'a Outputs);

impl Write for Tee<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.each(|writer| writer.write_all(line)).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.each(Write::flush)
    }
}

impl Tee<'_> {
    fn each(&self, mut act: impl FnMut(&mut Box<dyn Write + Send>) -> io::Result<()>) -> io::Result<()> {
        let mut writers = self.0.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = Ok(());
        for writer in writers.iter_mut() {
            let outcome = act(writer);
            if result.is_ok() {
                result = outcome;
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_etcd_are_understood() {
        assert_eq!(parse_level("warn"), Ok(LevelFilter::WARN));
        assert_eq!(parse_level("fatal"), Ok(LevelFilter::ERROR));
        assert!(parse_level("loud").is_err());
    }

    #[test]
    fn lines_go_to_every_output() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| directory.path().join(name).to_str().expect("text").to_owned();
        let outputs = Outputs::open(&format!("{},{}", path("a"), path("b"))).expect("opens");
        assert!(!outputs.is_terminal());
        outputs.make_writer().write_all(b"line\n").expect("writes");
        for name in ["a", "b"] {
            assert_eq!(std::fs::read(path(name)).expect("readable"), b"line\n");
        }
        assert!(Outputs::open("/nowhere/at/all").is_err());
        assert!(Outputs::open("").is_err());
    }
}
