use std::fmt::Write;

use super::bars::{self, Bar};
use super::charts::{self, Line};
use super::html::{Escaped, signs_explained};
use super::palette;
use crate::bench::case::Kind;
use crate::bench::error::BenchError;
use crate::bench::results::{CaseResult, Figure, Results, Row, Summary};
use crate::bench::table;
use crate::bench::text::{duration, grouped, memory};

type Result = std::result::Result<(), BenchError>;

/// One case: what it is and says, its charts, its table.
pub(super) fn case(page: &mut String, case: &CaseResult) -> Result {
    let _ = write!(
        page,
        "<section>\n<h2>{}</h2>\n<p class=\"says\">{}</p>\n<div class=\"charts\">\n",
        Escaped(&case.title),
        Escaped(&case.says)
    );
    let one = case.unit.trim_end_matches('s');
    if case.case.kind == Kind::Idle {
        let text = |n: f64| format!("{} B", grouped(n));
        bars(
            page,
            case,
            "Memory per idle connection",
            "bytes, lower is better",
            |s| s.bytes_per_connection,
            text,
        );
        bars(page, case, "Memory of the process", "lower is better", |s| s.memory_bytes, memory);
    } else {
        page.push_str("<div class=\"stack\">\n");
        let cpu = format!("CPU per {one}");
        bars(page, case, &cpu, "server process, ns, lower is better", |s| s.cpu_ns, grouped);
        if case.case.kind == Kind::Open {
            // the rate is given: what differs is how late the slow ones are
            bars(page, case, "Latency of the slowest 1 %", "p99, lower is better", p99, duration);
        } else {
            let throughput = format!("{} per second", capitalized(&case.unit));
            bars(page, case, &throughput, "higher is better", |s| s.per_second, grouped);
        }
        page.push_str("</div>\n");
        latency(page, case)?;
    }
    page.push_str("</div>\n");
    table(page, case);
    page.push_str("</section>\n");
    Ok(())
}

/// CPU and throughput over connections, for every size and pipeline with more than one number of connections.
pub(super) fn over_connections(page: &mut String, results: &Results) -> Result {
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for case in results.cases.iter().filter(|case| case.case.kind == Kind::Echo) {
        let key = (case.case.size, case.case.pipeline);
        if !groups.contains(&key) {
            groups.push(key);
        }
    }
    for (size, pipeline) in groups {
        let echo = |case: &&CaseResult| {
            case.case.kind == Kind::Echo && (case.case.size, case.case.pipeline) == (size, pipeline)
        };
        let cases: Vec<&CaseResult> = results.cases.iter().filter(echo).collect();
        if cases.len() > 1 {
            let _ = write!(
                page,
                "<section>\n<h2>Over connections: {} B, pipeline {pipeline}</h2>\n<p class=\"says\">Shows what more \
                 connections cost when the work per connection stays the same. Does not show connections that are \
                 mostly idle.</p>\n",
                grouped(size as f64)
            );
            legend(page, &cases);
            page.push_str("<div class=\"charts\">\n");
            lines(page, &cases, "CPU per message", "server process, ns, lower is better", |s| s.cpu_ns)?;
            lines(page, &cases, "Messages per second", "higher is better", |s| s.per_second)?;
            page.push_str("</div>\n</section>\n");
        }
    }
    Ok(())
}

fn bars(
    page: &mut String,
    case: &CaseResult,
    title: &str,
    unit: &str,
    of: fn(&Summary) -> Option<Figure>,
    text: fn(f64) -> String,
) {
    let bars: Vec<Bar<'_>> = case
        .rows
        .iter()
        .enumerate()
        .filter_map(|(colour, row)| {
            let figure = of(row.summary.as_ref()?)?;
            let text = table::with_spread(Some(figure), text);
            Some(Bar { name: &row.contestant, colour, figure, text })
        })
        .collect();
    if !bars.is_empty() {
        figure(page, title, unit, &bars::render(&bars));
    }
}

fn p99(summary: &Summary) -> Option<Figure> {
    summary.latency.as_ref().map(|latency| latency.p99)
}

fn latency(page: &mut String, case: &CaseResult) -> Result {
    let line = |(index, row): (usize, &Row)| {
        let points = row.summary.as_ref()?.latency_curve.clone();
        (!points.is_empty()).then(|| Line { colour: palette::series(index), points })
    };
    let lines: Vec<Line> = case.rows.iter().enumerate().filter_map(line).collect();
    if !lines.is_empty() {
        let from = match case.case.kind {
            Kind::Open => "from when each message was due",
            Kind::Churn => "from connecting to the whole reply",
            Kind::Broadcast => "from send to each whole delivery",
            _ => "from send to the whole reply",
        };
        let mut svg = charts::latency(&lines)?;
        legend(&mut svg, &[case]);
        figure(page, "Latency", &format!("{from}, at or below which a share of all lies"), &svg);
    }
    Ok(())
}

fn lines(
    page: &mut String,
    cases: &[&CaseResult],
    title: &str,
    unit: &str,
    of: fn(&Summary) -> Option<Figure>,
) -> Result {
    let rows = cases.first().map(|case| case.rows.len()).unwrap_or_default();
    let line = |index: usize| {
        let point = |case: &&CaseResult| {
            let summary = case.rows.get(index)?.summary.as_ref()?;
            Some((case.case.connections as f64, of(summary)?.median))
        };
        let mut points: Vec<(f64, f64)> = cases.iter().filter_map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Line { colour: palette::series(index), points }
    };
    let lines: Vec<Line> = (0..rows).map(line).filter(|line| !line.points.is_empty()).collect();
    if !lines.is_empty() {
        figure(page, title, unit, &charts::over_connections(&lines)?);
    }
    Ok(())
}

fn figure(page: &mut String, title: &str, unit: &str, svg: &str) {
    let _ = writeln!(
        page,
        "<figure><figcaption>{} <span>({})</span></figcaption>{svg}</figure>",
        Escaped(title),
        Escaped(unit)
    );
}

fn legend(page: &mut String, cases: &[&CaseResult]) {
    page.push_str("<ul class=\"legend\">");
    for (index, row) in cases.first().iter().flat_map(|case| &case.rows).enumerate() {
        let _ = write!(
            page,
            "<li><span class=\"chip {}\"></span>{}</li>",
            palette::class(index),
            Escaped(&row.contestant)
        );
    }
    page.push_str("</ul>\n");
}

fn table(page: &mut String, case: &CaseResult) {
    page.push_str("<div class=\"scroll\"><table>\n<thead><tr><th></th>");
    let mut columns = 0;
    for heading in table::headings(case) {
        columns += 1;
        let _ = write!(page, "<th>{heading}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in &case.rows {
        let _ = write!(
            page,
            "<tr><th>{} <span class=\"sign\">{}</span></th>",
            Escaped(&row.contestant),
            table::signs(row)
        );
        match (&row.error, table::cells(case, row)) {
            (Some(error), _) => {
                let _ = write!(page, "<td class=\"bad\" colspan=\"{columns}\">{}</td>", Escaped(error));
            }
            (None, Some(cells)) => {
                for cell in cells {
                    let _ = write!(page, "<td>{}</td>", Escaped(cell));
                }
            }
            (None, None) => {
                let _ = write!(page, "<td colspan=\"{columns}\">not measured</td>");
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n");
    page.push_str(&signs_explained(&table::legend(case.rows.iter())));
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
