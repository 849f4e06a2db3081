//! The moving line on a terminal; silent everywhere else.
//!
//! Invariant: nothing goes to standard output, which belongs to the report. Used by [`super::load`].

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::load::Drive;
use super::report::grouped;

/// Shows how far one phase is.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A line that begins with `title`; nothing if standard error is not a terminal.
    pub(super) fn new(title: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::silent();
        }
        let style = ProgressStyle::with_template("{prefix:24} [{bar:40}] {percent:>3}%  {msg}")
            .expect("the template is valid")
            .progress_chars("=> ");
        let bar = ProgressBar::new(1000).with_style(style).with_prefix(title.to_owned());
        Self { bar: Some(bar) }
    }

    /// Shows nothing.
    pub(super) fn silent() -> Self {
        Self { bar: None }
    }

    /// Moves the line.
    pub(super) fn show(&self, elapsed: Duration, drive: &Drive, done: u64) {
        let Some(bar) = &self.bar else { return };
        let of_time = elapsed.as_secs_f64() / drive.duration.as_secs_f64();
        let of_total = drive.total.map_or(0.0, |total| done as f64 / total as f64);
        bar.set_position((of_time.max(of_total).min(1.0) * 1000.0) as u64);
        bar.set_message(format!("{} ops/s", grouped((done as f64 / elapsed.as_secs_f64()) as u64)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
