use std::fmt::Write;

use super::case::Kind;
use super::results::{CaseResult, Figure, Latencies, Mark, Results, Row, Summary};
use super::text::{counted, duration, grouped, memory, plus_minus, short};

/// A column: its heading, and what it says of a row.
type Column = (&'static str, fn(&Summary) -> String);

/// Columns of cases with traffic, on the page.
const LOADED: &[Column] = &[
    RATIO,
    ("CPU-ns each", |s| with_spread(s.cpu_ns, grouped)),
    ("per second", |s| with_spread(s.per_second, grouped)),
    ("CPUs", |s| median(s.server_cpus, |n| format!("{n:.2}"))),
    ("p50", |s| quantile(s, |l| l.p50)),
    ("p90", |s| quantile(s, |l| l.p90)),
    ("p99", |s| quantile_with_spread(s, |l| l.p99)),
    ("p99.9", |s| quantile(s, |l| l.p999)),
    ("max", |s| quantile(s, |l| l.max)),
    ("memory", |s| median(s.memory_bytes, memory)),
    ("switches", |s| median(s.context_switches, short)),
    ROUNDS,
];

/// Of these what fits 80 letters.
const LOADED_IN_TEXT: &[Column] = &[
    RATIO,
    ("CPU-ns each", |s| with_spread(s.cpu_ns, grouped)),
    ("per second", |s| with_spread(s.per_second, grouped)),
    ("p99", |s| quantile(s, |l| l.p99)),
    ROUNDS,
];

/// Columns of cases without traffic.
const IDLE: &[Column] = &[
    RATIO,
    ("bytes each", |s| with_spread(s.bytes_per_connection, grouped)),
    ("after close", |s| median(s.bytes_after_close, grouped)),
    ("memory", |s| median(s.memory_bytes, memory)),
    ("connects/s", |s| median(s.per_second, grouped)),
    ROUNDS,
];

/// Of these what fits 80 letters.
const IDLE_IN_TEXT: &[Column] = &[
    RATIO,
    ("bytes each", |s| with_spread(s.bytes_per_connection, grouped)),
    ("after close", |s| median(s.bytes_after_close, grouped)),
    ("memory", |s| median(s.memory_bytes, memory)),
    ROUNDS,
];

const RATIO: Column = ("ratio", |s| s.ratio.map_or_else(|| "-".into(), ratio));
const ROUNDS: Column = ("n", |s| s.rounds.to_string());

/// What the columns and `±` say, for a first reader.
pub(crate) const EXPLAINED: &str = "n: rounds behind each figure, which is their median; ±: how far the farthest of them is from it; ratio: CPU \
     time each (idle: bytes each) over that of the first server, ± within the same round";

/// The headings of a case on the page.
pub(crate) fn headings(case: &CaseResult) -> impl Iterator<Item = &'static str> {
    on_page(case).iter().map(|(heading, _)| *heading)
}

/// The cells of a row on the page, in the order of the headings; `None` when there is nothing to say.
pub(crate) fn cells(case: &CaseResult, row: &Row) -> Option<Vec<String>> {
    row.summary.as_ref().map(|summary| on_page(case).iter().map(|(_, cell)| cell(summary)).collect())
}

/// A ratio and its spread; that of the first server to itself is no figure and has none.
pub(crate) fn ratio(figure: Figure) -> String {
    let is_of_itself = figure.min == 1.0 && figure.max == 1.0;
    let spread = figure.spread().filter(|_| !is_of_itself).map(plus_minus);
    join(format!("{:.2}", figure.median), spread)
}

/// The signs behind a name.
pub(crate) fn signs(row: &Row) -> String {
    let marks = row.summary.iter().flat_map(|summary| &summary.marks);
    marks.map(|mark| mark.sign()).collect()
}

/// The marks that occur in some rows, each once.
pub(crate) fn legend<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Mark> {
    let summaries = rows.filter_map(|row| row.summary.as_ref());
    let mut marks: Vec<Mark> = summaries.flat_map(|summary| summary.marks.iter().copied()).collect();
    marks.sort_unstable();
    marks.dedup();
    marks
}

/// All cases as text of 80 columns.
pub(crate) fn render(results: &Results) -> String {
    let mut text = String::new();
    for case in &results.cases {
        let _ = writeln!(text, "{}", case.title);
        write_case(&mut text, case);
        text.push('\n');
    }
    for line in wrapped(EXPLAINED) {
        let _ = writeln!(text, "{line}");
    }
    for mark in legend(results.cases.iter().flat_map(|case| &case.rows)) {
        let _ = writeln!(text, "{}: {}", mark.sign(), mark.explained());
    }
    for missing in results.contestants.iter().filter(|contestant| contestant.skipped.is_some()) {
        let _ =
            writeln!(text, "skipped {}: {}", missing.name, missing.skipped.as_deref().unwrap_or_default());
    }
    for note in results.notes() {
        for line in wrapped(&format!("note: {note}")) {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

impl Results {
    /// What a reader has to know before trusting a figure: what was changed, and what was left out.
    pub(crate) fn notes(&self) -> Vec<String> {
        let runs = || self.cases.iter().flat_map(|case| &case.rows).flat_map(|row| &row.runs);
        let left_out = |why| runs().filter(|run| run.left_out == Some(why)).count();
        let mut notes = self.settings.notes.clone();
        if let disturbed @ 1.. = left_out(super::results::LeftOut::Disturbed) {
            notes.push(format!(
                "left out: {disturbed} of {}; other processes used the machine, so they were done twice, and the less \
                 disturbed of the two counts, whatever its result",
                counted(runs().count(), "run")
            ));
        }
        if let incomplete @ 1.. = left_out(super::results::LeftOut::Incomplete) {
            notes.push(format!("left out: {} of the round that was interrupted", counted(incomplete, "run")));
        }
        notes
    }

    /// How many rounds are behind the figures, from the fewest to the most: `5 rounds`, `3 to 5 rounds`.
    pub(crate) fn rounds(&self) -> String {
        rounds(self.cases.iter().flat_map(|case| &case.rows))
    }
}

/// How many rounds are behind some rows: `5 rounds`, `3 to 5 rounds`.
pub(crate) fn rounds<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let counts: Vec<usize> = rows.filter_map(|row| Some(row.summary.as_ref()?.rounds)).collect();
    match (counts.iter().min(), counts.iter().max()) {
        (Some(fewest), Some(most)) if fewest < most => format!("{fewest} to {most} rounds"),
        (_, most) => counted(most.copied().unwrap_or_default(), "round"),
    }
}

fn write_case(text: &mut String, case: &CaseResult) {
    let columns = if case.case.kind == Kind::Idle { IDLE_IN_TEXT } else { LOADED_IN_TEXT };
    let headings = columns.iter().map(|(heading, _)| (*heading).to_owned());
    let mut lines = vec![std::iter::once(String::new()).chain(headings).collect::<Vec<_>>()];
    for row in &case.rows {
        let name = format!("{} {}", row.contestant, signs(row)).trim_end().to_owned();
        let summary = row.summary.as_ref();
        let cells = summary.into_iter().flat_map(|summary| columns.iter().map(|(_, cell)| cell(summary)));
        lines.push(std::iter::once(name).chain(cells).collect());
    }
    let mut widths = vec![0; columns.len() + 1];
    for (width, cell) in lines.iter().flat_map(|line| widths_of(line)) {
        if let Some(known) = widths.get_mut(width) {
            *known = cell.max(*known);
        }
    }
    for (line, row) in lines.iter().zip(std::iter::once(None).chain(case.rows.iter().map(Some))) {
        let _ = writeln!(text, "{}", aligned(line, &widths).trim_end());
        match row {
            Some(Row { error: Some(error), .. }) => {
                let _ = writeln!(text, "      FAILED: {error}");
            }
            Some(Row { summary: None, .. }) => text.push_str("      not measured\n"),
            _ => {}
        }
    }
}

fn widths_of(line: &[String]) -> impl Iterator<Item = (usize, usize)> {
    line.iter().map(|cell| cell.chars().count()).enumerate()
}

fn aligned(line: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (at, (cell, width)) in line.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width - cell.chars().count());
        text.push_str(&if at == 0 { format!("  {cell}{padding}") } else { format!("  {padding}{cell}") });
    }
    text
}

/// Lines of at most 80 letters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < 80 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn on_page(case: &CaseResult) -> &'static [Column] {
    if case.case.kind == Kind::Idle { IDLE } else { LOADED }
}

fn median(figure: Option<Figure>, text: fn(f64) -> String) -> String {
    figure.map_or_else(|| "-".into(), |figure| text(figure.median))
}

/// A figure and its spread, as the table has it.
pub(crate) fn with_spread(figure: Option<Figure>, text: fn(f64) -> String) -> String {
    let cell = |figure: Figure| join(text(figure.median), figure.spread().map(plus_minus));
    figure.map_or_else(|| "-".into(), cell)
}

fn join(figure: String, spread: Option<String>) -> String {
    std::iter::once(figure).chain(spread).collect::<Vec<_>>().join(" ")
}

fn quantile(summary: &Summary, of: fn(&Latencies) -> Figure) -> String {
    median(summary.latency.as_ref().map(of), duration)
}

fn quantile_with_spread(summary: &Summary, of: fn(&Latencies) -> Figure) -> String {
    with_spread(summary.latency.as_ref().map(of), duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(median: f64, min: f64, max: f64, rounds: usize) -> Figure {
        Figure { median, min, max, rounds }
    }

    #[test]
    fn one_round_is_printed_without_a_spread() {
        assert_eq!(with_spread(Some(figure(1234.0, 1234.0, 1234.0, 1)), grouped), "1,234");
        assert_eq!(with_spread(Some(figure(1000.0, 900.0, 1050.0, 2)), grouped), "1,000 ±10 %");
        assert_eq!(ratio(figure(1.25, 1.25, 1.25, 1)), "1.25");
        assert_eq!(ratio(figure(1.25, 1.2, 1.5, 3)), "1.25 ±20 %");
        assert_eq!(ratio(figure(1.0, 1.0, 1.0, 3)), "1.00", "the first server against itself");
    }

    #[test]
    fn lines_are_wrapped_between_words() {
        let lines = wrapped(EXPLAINED);
        assert!(lines.len() > 1 && lines.iter().all(|line| line.chars().count() <= 80), "{lines:?}");
        assert_eq!(lines.join(" "), EXPLAINED);
    }
}
