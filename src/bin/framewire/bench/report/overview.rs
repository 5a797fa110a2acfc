use std::fmt::Write;

use super::html::Escaped;
use super::palette;
use crate::bench::case::Kind;
use crate::bench::results::{CaseResult, Results, Row};
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
        let _ = write!(page, "<th>{}</th>", Escaped(heading(case)));
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
    for mark in table::legend(results) {
        let _ = writeln!(
            page,
            "<p class=\"muted\"><span class=\"sign\">{}</span> {}</p>",
            mark.sign(),
            mark.explained()
        );
    }
    page.push_str("</section>\n");
}

fn heading(case: &CaseResult) -> String {
    let load = &case.case;
    let connections = grouped(load.connections as f64);
    match load.kind {
        Kind::Echo => format!("{connections} conns, {} B, pipeline {}", load.size, load.pipeline),
        Kind::Open => {
            format!("{connections} conns, {} B, {}/s", load.size, grouped(load.rate.unwrap_or_default()))
        }
        Kind::Active => format!("{connections} of {} conns, {} B", grouped(load.total() as f64), load.size),
        Kind::Churn => format!("churn, {connections} at a time"),
        Kind::Idle => format!("memory, {} idle conns", grouped(load.silent as f64)),
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
    let signs: String = table::signs(row).chars().filter(|&sign| sign != 'g').collect();
    format!("<td{class}>{ratio:.2} <span class=\"sign\">{signs}</span></td>")
}

fn median(row: &Row) -> Option<f64> {
    Some(row.summary.as_ref()?.ratio?.median)
}
