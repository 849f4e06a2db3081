//! The moving line on a terminal; silent everywhere else. Nothing goes to standard output: that is the verdict's.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::recorder::Counts;

/// Shows how far the run is.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(super) fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let style = ProgressStyle::with_template("[{bar:30}] {percent:>3}%  {msg}")
            .expect("the template is valid")
            .progress_chars("=> ");
        Self(Some(ProgressBar::new(1000).with_style(style)))
    }

    pub(super) fn show(&self, elapsed: Duration, of: Duration, counts: &Counts, leader: &str) {
        let Some(bar) = &self.0 else { return };
        bar.set_position((elapsed.as_secs_f64() / of.as_secs_f64().max(0.001) * 1000.0).min(1000.0) as u64);
        let Counts { done, failed, unknown, .. } = counts;
        bar.set_message(format!("{done} done, {failed} failed, {unknown} unknown; leader {leader}"));
    }

    /// Writes a line above the moving one; where there is none, to standard error all the same.
    pub(super) fn say(&self, text: &str) {
        match &self.0 {
            Some(bar) => bar.println(text),
            None => {
                // If standard error is closed there is nobody left to tell.
                let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{text}\n"));
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
