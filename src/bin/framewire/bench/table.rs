use std::io::{self, Write};

use super::case::Kind;
use super::results::{CaseResult, Figure, Latency, Mark, Results, Row, Summary};
use super::text::{duration, grouped, memory, short};

/// A column: its heading, and what it says of a row.
type Column = (&'static str, fn(&Summary) -> String);

/// Columns of cases with traffic.
const LOADED: &[Column] = &[
    ("per second", |s| with_spread(s.per_second, grouped)),
    ("CPU-ns each", |s| with_spread(s.cpu_ns, grouped)),
    ("ratio", |s| median(s.ratio, |n| format!("{n:.2}"))),
    ("CPUs", |s| median(s.server_cpus, |n| format!("{n:.2}"))),
    ("p50", |s| quantile(s, |l| l.p50)),
    ("p90", |s| quantile(s, |l| l.p90)),
    ("p99", |s| quantile(s, |l| l.p99)),
    ("p99.9", |s| quantile(s, |l| l.p999)),
    ("max", |s| quantile(s, |l| l.max)),
    ("memory", |s| median(s.memory_bytes, memory)),
    ("switches", |s| median(s.context_switches, short)),
];

/// Columns of cases without.
const IDLE: &[Column] = &[
    ("bytes each", |s| with_spread(s.bytes_per_connection, grouped)),
    ("ratio", |s| median(s.ratio, |n| format!("{n:.2}"))),
    ("after close", |s| median(s.bytes_after_close, grouped)),
    ("memory", |s| median(s.memory_bytes, memory)),
    ("connects/s", |s| median(s.per_second, grouped)),
    ("CPUs", |s| median(s.server_cpus, |n| format!("{n:.3}"))),
];

/// The headings of a case, for the table and for the page.
pub(crate) fn headings(case: &CaseResult) -> impl Iterator<Item = &'static str> {
    columns(case).iter().map(|(heading, _)| *heading)
}

/// The cells of a row, in the order of the headings; `None` when there is nothing to say.
pub(crate) fn cells(case: &CaseResult, row: &Row) -> Option<Vec<String>> {
    let summary = row.summary.as_ref()?;
    Some(columns(case).iter().map(|(_, cell)| cell(summary)).collect())
}

/// The signs behind a name.
pub(crate) fn signs(row: &Row) -> String {
    let marks = row.summary.iter().flat_map(|summary| &summary.marks);
    marks.map(|mark| mark.sign()).collect()
}

/// The marks that occur, each with its explanation.
pub(crate) fn legend(results: &Results) -> Vec<Mark> {
    let rows = results.cases.iter().flat_map(|case| &case.rows);
    let summaries = rows.filter_map(|row| row.summary.as_ref());
    let mut marks: Vec<Mark> = summaries.flat_map(|summary| summary.marks.iter().copied()).collect();
    marks.sort_unstable();
    marks.dedup();
    marks
}

/// All cases as text.
pub(crate) fn print(out: &mut dyn Write, results: &Results) -> io::Result<()> {
    for case in &results.cases {
        writeln!(out, "{}", case.title)?;
        print_case(out, case)?;
        writeln!(out)?;
    }
    for mark in legend(results) {
        writeln!(out, "{}  {}", mark.sign(), mark.explained())?;
    }
    for missing in results.contestants.iter().filter(|contestant| contestant.skipped.is_some()) {
        writeln!(out, "skipped {}: {}", missing.name, missing.skipped.as_deref().unwrap_or_default())?;
    }
    for note in &results.settings.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

fn print_case(out: &mut dyn Write, case: &CaseResult) -> io::Result<()> {
    let mut lines = vec![std::iter::once("").chain(headings(case)).map(str::to_owned).collect::<Vec<_>>()];
    for row in &case.rows {
        let name = format!("{} {}", row.contestant, signs(row)).trim_end().to_owned();
        lines.push(std::iter::once(name).chain(cells(case, row).unwrap_or_default()).collect());
    }
    let mut widths = vec![0; lines.iter().map(Vec::len).max().unwrap_or_default()];
    for (width, cell) in lines.iter().flat_map(|line| line.iter().enumerate()) {
        if let Some(known) = widths.get_mut(width) {
            *known = cell.chars().count().max(*known);
        }
    }
    for (line, row) in lines.iter().zip(std::iter::once(None).chain(case.rows.iter().map(Some))) {
        let mut text = String::new();
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count());
            text.push_str(&if at == 0 { format!("  {cell}{padding}") } else { format!("  {padding}{cell}") });
        }
        writeln!(out, "{}", text.trim_end())?;
        if let Some(error) = row.and_then(|row| row.error.as_ref()) {
            writeln!(out, "      FAILED: {error}")?;
        }
    }
    Ok(())
}

fn columns(case: &CaseResult) -> &'static [Column] {
    if case.case.kind == Kind::Idle { IDLE } else { LOADED }
}

fn median(figure: Option<Figure>, text: fn(f64) -> String) -> String {
    figure.map_or_else(|| "-".into(), |figure| text(figure.median))
}

fn with_spread(figure: Option<Figure>, text: fn(f64) -> String) -> String {
    figure.map_or_else(
        || "-".into(),
        |figure| format!("{} ±{:.0} %", text(figure.median), figure.spread() * 100.0),
    )
}

fn quantile(summary: &Summary, of: fn(&Latency) -> f64) -> String {
    summary.latency.as_ref().map_or_else(|| "-".into(), |latency| duration(of(latency)))
}
