//! One table for everything: what each contestant costs as a multiple of what the first one costs, load by load.

use super::case::Kind;
use super::results::{CaseResult, Figure, Mark, Results, Row};
use super::table;
use super::text::grouped;

/// What the overview says of one contestant on one load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell {
    /// It took no part, or nothing came of it.
    Nothing,
    Failed,
    Ratio {
        figure: Figure,
        /// Below all others in each of at least three rounds.
        is_clearly_best: bool,
    },
}

/// The cell of `contestant` in a column.
pub(crate) fn cell(case: &CaseResult, contestant: &str) -> Cell {
    let Some(row) = case.rows.iter().find(|row| row.contestant == contestant) else { return Cell::Nothing };
    if row.error.is_some() {
        return Cell::Failed;
    }
    let Some(figure) = ratio(row) else { return Cell::Nothing };
    let mut others =
        case.rows.iter().filter(|other| other.contestant != contestant).filter_map(ratio).peekable();
    let is_clearly_best = others.peek().is_some() && others.all(|other| figure.is_clearly_below(&other));
    Cell::Ratio { figure, is_clearly_best }
}

/// The marks of a row that say something of CPU time, which a generator that is the bottleneck does not change.
pub(crate) fn marks(row: &Row) -> impl Iterator<Item = Mark> {
    let marks = row.summary.iter().flat_map(|summary| summary.marks.iter().copied());
    marks.filter(|mark| *mark != Mark::GeneratorBound)
}

/// The names of those who took part.
pub(crate) fn contestants(results: &Results) -> impl Iterator<Item = &str> {
    let present = results.contestants.iter().filter(|contestant| contestant.skipped.is_none());
    present.map(|contestant| contestant.name.as_str())
}

/// The case in lines of a few letters.
pub(crate) fn heading(case: &CaseResult) -> Vec<String> {
    let load = &case.case;
    let (active, silent) = (grouped(load.connections as f64), grouped(load.silent as f64));
    let size = format!("{} B", grouped(load.size as f64));
    let mut lines = match load.kind {
        Kind::Echo => {
            vec!["echo".into(), format!("{active} conns"), size, format!("pipeline {}", load.pipeline)]
        }
        Kind::Open => {
            let rate = format!("{}/s", grouped(load.rate.unwrap_or_default()));
            vec!["open loop".into(), format!("{active} conns"), size, rate]
        }
        Kind::Active => vec!["active".into(), format!("{active} conns"), format!("+ {silent} idle"), size],
        Kind::Churn => vec!["churn".into(), format!("{active} at a time"), size],
        Kind::Broadcast => {
            let in_flight = format!("{} in flight", load.pipeline);
            vec!["broadcast".into(), format!("to {active}"), size, in_flight]
        }
        Kind::Idle => vec!["memory".into(), format!("{silent} idle")],
    };
    lines.push(table::rounds(case.rows.iter()));
    lines
}

fn ratio(row: &Row) -> Option<Figure> {
    row.summary.as_ref().filter(|_| row.error.is_none())?.ratio
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::case::Case;
    use crate::bench::results::Run;
    use crate::bench::summary::summarize;

    /// A case of which each contestant has these CPU times, round by round.
    fn case(lists: &[(&str, &[f64])]) -> CaseResult {
        let run = |(round, cpu_ns): (usize, &f64)| Run { round, cpu_ns: Some(*cpu_ns), ..Run::default() };
        let mut rows: Vec<Row> = lists
            .iter()
            .map(|(name, list)| Row {
                contestant: (*name).to_owned(),
                summary: None,
                error: None,
                runs: list.iter().enumerate().map(run).collect(),
            })
            .collect();
        summarize(&mut rows);
        let case = Case { kind: Kind::Echo, connections: 1, silent: 0, size: 8, pipeline: 1, rate: None };
        CaseResult { title: case.title(), says: String::new(), unit: String::new(), case, rows }
    }

    fn is_bold(case: &CaseResult, name: &str) -> bool {
        matches!(cell(case, name), Cell::Ratio { is_clearly_best: true, .. })
    }

    #[test]
    fn only_who_is_below_all_others_in_every_round_stands_out() {
        let clear = case(&[("a", &[10.0; 3]), ("b", &[11.0, 12.0, 12.0]), ("c", &[20.0, 30.0, 20.0])]);
        assert!(is_bold(&clear, "a") && !is_bold(&clear, "b"));
        let tie = case(&[("a", &[10.0; 3]), ("b", &[9.0, 12.0, 12.0]), ("c", &[20.0, 30.0, 20.0])]);
        assert!(!is_bold(&tie, "a") && !is_bold(&tie, "b"), "nobody does where two cannot be told apart");
    }

    #[test]
    fn nobody_stands_out_after_two_rounds_or_alone() {
        assert!(!is_bold(&case(&[("a", &[10.0; 2]), ("b", &[20.0; 2])]), "a"));
        assert!(!is_bold(&case(&[("a", &[10.0; 3])]), "a"));
    }
}
