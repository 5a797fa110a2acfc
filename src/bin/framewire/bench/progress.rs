use indicatif::{ProgressBar, ProgressStyle};

use super::text::grouped;

/// A bar on standard error with what is going on; nothing at all where that is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    doing: String,
}

impl Progress {
    /// A bar for `runs` runs.
    pub(crate) fn new(runs: usize) -> Self {
        let bar = ProgressBar::new(runs as u64);
        let style = ProgressStyle::with_template(
            "{bar:24.cyan/black.bright} {pos}/{len} {elapsed_precise} (left {eta})\n  {msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self { bar, doing: String::new() }
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
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
