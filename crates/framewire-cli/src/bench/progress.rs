use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::text::grouped;

/// What is going on, on standard error: a bar, or a line for each load of each round where that is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    doing: String,
    start: Instant,
    has_bar: bool,
}

impl Progress {
    /// A bar for `runs` runs.
    pub(crate) fn new(runs: usize) -> Self {
        let bar = ProgressBar::new(runs as u64);
        let style = ProgressStyle::with_template(
            "{bar:24.cyan/black.bright} {pos}/{len} {elapsed_precise} (left {eta})\n  {wide_msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self { bar, doing: String::new(), start: Instant::now(), has_bar: io::stderr().is_terminal() }
    }

    /// A load begins, in one of the rounds.
    pub(crate) fn load(&self, round: &str, title: &str) {
        if !self.has_bar {
            let seconds = self.start.elapsed().as_secs();
            say(&format!("{}:{:02}  {round}  {title}", seconds / 60, seconds % 60));
        }
    }

    /// A run begins.
    pub(crate) fn begin(&mut self, contestant: &str, case: &str) {
        self.doing = format!("{contestant:18} {case}");
        self.bar.set_message(self.doing.clone());
    }

    /// The throughput of the run so far.
    pub(crate) fn glance(&self, per_second: f64, unit: &str) {
        self.bar.set_message(format!("{}: {} {unit}/s", self.doing, grouped(per_second)));
    }

    /// A run has ended.
    pub(crate) fn end(&self) {
        self.bar.inc(1);
    }

    /// A line that stays, above the bar.
    pub(crate) fn say(&self, line: &str) {
        self.bar.suspend(|| say(line));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Prints a line on standard error; a closed standard error is no reason to end.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
