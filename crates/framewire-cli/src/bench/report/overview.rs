use std::fmt::Write;

use super::html::{Escaped, signs_explained};
use super::palette;
use crate::bench::overview::{self, Cell};
use crate::bench::results::{CaseResult, Mark, Results};
use crate::bench::table;

/// What each contestant costs as a multiple of what the first one costs, load by load.
pub(super) fn write(page: &mut String, results: &Results) {
    let Some(base) = results.cases.first().and_then(|case| case.rows.first()) else { return };
    let _ = write!(
        page,
        "<section>\n<h2>At a glance</h2>\n<p class=\"says\">CPU time per message (idle: bytes per connection) as a \
         multiple of <b>{}</b>'s; lower is better. ± is how far the farthest round was from the figure; bold is what was \
         below all others in each of three or more rounds. Where nothing is bold, the best cannot be told apart.</p>\n\
         <div class=\"scroll\"><table class=\"overview\">\n<thead><tr><th></th>",
        Escaped(&base.contestant)
    );
    for case in &results.cases {
        page.push_str("<th>");
        for line in overview::heading(case) {
            let _ = write!(page, "<span>{}</span>", Escaped(line));
        }
        page.push_str("</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (index, name) in overview::contestants(results).enumerate() {
        let _ = write!(
            page,
            "<tr><th><span class=\"chip {}\"></span>{}</th>",
            palette::class(index),
            Escaped(name)
        );
        for case in &results.cases {
            page.push_str(&cell(case, name));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n");
    let rows = results.cases.iter().flat_map(|case| &case.rows);
    let mut marks: Vec<Mark> = rows.flat_map(overview::marks).collect();
    marks.sort_unstable();
    marks.dedup();
    page.push_str(&signs_explained(&marks));
    page.push_str("</section>\n");
}

fn cell(case: &CaseResult, name: &str) -> String {
    let (figure, class) = match overview::cell(case, name) {
        Cell::Nothing => return "<td>-</td>".into(),
        Cell::Failed => return "<td class=\"bad\">failed</td>".into(),
        Cell::Ratio { figure, is_clearly_best: true } => (figure, " class=\"best\""),
        Cell::Ratio { figure, is_clearly_best: false } => (figure, ""),
    };
    let row = case.rows.iter().find(|row| row.contestant == name);
    let signs: String = row.into_iter().flat_map(overview::marks).map(Mark::sign).collect();
    let text = table::ratio(figure);
    let (ratio, spread) = text.split_once(' ').unwrap_or((&text, ""));
    format!(
        "<td{class}>{ratio} <span class=\"sign\">{signs}</span><span class=\"spread\">{spread}</span></td>"
    )
}
