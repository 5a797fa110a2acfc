use std::fmt::Write;

use super::html::Escaped;
use super::palette;
use crate::bench::case::Kind;
use crate::bench::results::{CaseResult, Mark, Results, Row};
use crate::bench::table;
use crate::bench::text::grouped;

/// One table for everything: who costs how much of what the first one costs, case by case.
pub(super) fn write(page: &mut String, results: &Results) {
    let Some(base) = results.cases.first().and_then(|case| case.rows.first()) else { return };
    let _ = write!(
        page,
        "<section>\n<h2>At a glance</h2>\n<p class=\"says\">CPU time per message (idle: bytes per connection) as a \
         multiple of <b>{}</b>'s; lower is better, and whoever is within 5 % of the best is set in bold.</p>\n\
         <div class=\"scroll\"><table class=\"overview\">\n<thead><tr><th></th>",
        Escaped(&base.contestant)
    );
    for case in &results.cases {
        page.push_str("<th>");
        for line in heading(case) {
            let _ = write!(page, "<span>{}</span>", Escaped(line));
        }
        page.push_str("</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    let names = results.contestants.iter().filter(|contestant| contestant.skipped.is_none());
    for (index, contestant) in names.enumerate() {
        let _ = write!(
            page,
            "<tr><th><span class=\"chip {}\"></span>{}</th>",
            palette::class(index),
            Escaped(&contestant.name)
        );
        for case in &results.cases {
            let row = case.rows.iter().find(|row| row.contestant == contestant.name);
            page.push_str(&cell(case, row));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n");
    let explained = table::legend(results)
        .into_iter()
        .map(|mark| format!("<span class=\"sign\">{}</span> {}", mark.sign(), Escaped(mark.explained())));
    let _ = writeln!(
        page,
        "<p class=\"muted signs\">{}</p>\n</section>",
        explained.collect::<Vec<_>>().join(" &nbsp; ")
    );
}

/// The case in lines of a few letters.
fn heading(case: &CaseResult) -> Vec<String> {
    let load = &case.case;
    let (active, silent) = (grouped(load.connections as f64), grouped(load.silent as f64));
    let size = format!("{} B", grouped(load.size as f64));
    match load.kind {
        Kind::Echo => {
            vec!["echo".into(), format!("{active} conns"), size, format!("pipeline {}", load.pipeline)]
        }
        Kind::Open => {
            let rate = format!("{}/s", grouped(load.rate.unwrap_or_default()));
            vec!["open loop".into(), format!("{active} conns"), size, rate]
        }
        Kind::Active => vec!["active".into(), format!("{active} conns"), format!("+ {silent} idle"), size],
        Kind::Churn => vec!["churn".into(), format!("{active} at a time"), size],
        Kind::Idle => vec!["memory".into(), format!("{silent} idle")],
    }
}

fn cell(case: &CaseResult, row: Option<&Row>) -> String {
    let Some(row) = row else { return "<td>-</td>".into() };
    if row.error.is_some() {
        return "<td class=\"bad\">failed</td>".into();
    }
    let Some(ratio) = median(row) else { return "<td>-</td>".into() };
    let best = case.rows.iter().filter(|row| row.error.is_none()).filter_map(median).fold(f64::MAX, f64::min);
    let class = if ratio <= best * 1.05 { " class=\"best\"" } else { "" };
    let signs = table::signs(row).replace(Mark::GeneratorBound.sign(), ""); // the ratio is of CPU time, which stands
    format!("<td{class}>{ratio:.2} <span class=\"sign\">{signs}</span></td>")
}

fn median(row: &Row) -> Option<f64> {
    Some(row.summary.as_ref()?.ratio?.median)
}
