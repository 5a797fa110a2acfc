use std::fmt::Write;

use super::overview::{self, Cell};
use super::results::Results;
use super::table;

/// The ratios as a table in Markdown, with what a reader needs to judge them.
pub(crate) fn render(results: &Results) -> String {
    let mut text = String::new();
    let first = results.cases.first().and_then(|case| case.rows.first());
    let _ = writeln!(
        text,
        "CPU time per message of the server process (memory: bytes per connection) as a multiple of `{}`'s, lower is \
         better. The last line of each heading says how many rounds of {:.2} s are behind it; ± is how far the farthest of \
         them was from the figure, and bold is what was below all others in each of three or more. {}.\n",
        first.map(|row| row.contestant.as_str()).unwrap_or_default(),
        results.settings.duration_seconds,
        results.environment.machine()
    );
    text.push_str("| server |");
    for case in &results.cases {
        let _ = write!(text, " {} |", overview::heading(case).join("<br>"));
    }
    text.push_str("\n|---|");
    text.push_str(&"--:|".repeat(results.cases.len()));
    for name in overview::contestants(results) {
        let _ = write!(text, "\n| {name} |");
        for case in &results.cases {
            let _ = write!(text, " {} |", cell(overview::cell(case, name)));
        }
    }
    text.push('\n');
    for note in results.notes() {
        let _ = write!(text, "\nNote: {note}.\n");
    }
    text
}

fn cell(cell: Cell) -> String {
    match cell {
        Cell::Nothing => "–".into(),
        Cell::Failed => "failed".into(),
        Cell::Ratio { figure, is_clearly_best: true } => format!("**{}**", table::ratio(figure)),
        Cell::Ratio { figure, is_clearly_best: false } => table::ratio(figure),
    }
}
