//! The page: one file, no network, no script, light and dark.

mod charts;
mod html;
mod overview;
mod palette;
mod sections;

use std::fmt::Write;

use html::{Escaped, date};
use palette::Scheme;

use super::error::BenchError;
use super::results::{Environment, Mark, Results, Settings};
use super::text::memory;

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(crate) fn render(results: &Results) -> Result<String, BenchError> {
    let mut page = String::new();
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>framewire bench</title>\n<style>\n{STYLE}{}@media (prefers-color-scheme:dark){{\n{}}}\n</style>\n\
         </head>\n<body>\n<main>\n",
        palette::rules(Scheme::Light),
        palette::rules(Scheme::Dark),
    );
    head(&mut page, results);
    overview::write(&mut page, results);
    sections::over_connections(&mut page, results)?;
    for case in &results.cases {
        sections::case(&mut page, case)?;
    }
    how_to_read(&mut page);
    environment(&mut page, results);
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(page)
}

fn head(page: &mut String, results: &Results) {
    let environment = &results.environment;
    let present = results.contestants.iter().filter(|contestant| contestant.skipped.is_none()).count();
    let _ = write!(
        page,
        "<h1>Servers side by side</h1>\n<p class=\"lead\">{present} servers, {} loads, {} rounds each, every reply \
         compared byte for byte. Measured by <code>framewire bench</code> {} on {}{}.</p>\n",
        results.cases.len(),
        results.settings.repeats,
        Escaped(&environment.framewire),
        date(environment.started),
        environment.cpu.as_ref().map(|cpu| format!(", {}", Escaped(cpu))).unwrap_or_default(),
    );
    for note in &results.settings.notes {
        let _ = writeln!(page, "<p class=\"note\">{}</p>", Escaped(note));
    }
    if mostly_noisy(results) {
        page.push_str(
            "<p class=\"note\">Somebody else kept the machine busy during most runs (marked ~): throughput and \
             latency are worth little here, CPU time per message somewhat more. Repeat it on a quiet machine.</p>\n",
        );
    }
    if !results.ok {
        page.push_str(
            "<p class=\"note bad\">Not every message was answered correctly: see the rows marked so.</p>\n",
        );
    }
    for missing in &results.contestants {
        if let Some(reason) = &missing.skipped {
            let _ = writeln!(
                page,
                "<p class=\"note\">Skipped: <b>{}</b>, {}. Reason: {}.</p>",
                Escaped(&missing.name),
                Escaped(&missing.about),
                Escaped(reason)
            );
        }
    }
}

fn mostly_noisy(results: &Results) -> bool {
    let summaries = results.cases.iter().flat_map(|case| &case.rows).filter_map(|row| row.summary.as_ref());
    let (noisy, quiet): (Vec<_>, Vec<_>) =
        summaries.partition(|summary| summary.marks.contains(&Mark::Noisy));
    noisy.len() > quiet.len()
}

fn how_to_read(page: &mut String) {
    page.push_str(
        "<section>\n<h2>How to read this</h2>\n\
         <p><b>CPU per message</b> is the time that all threads of the server process spent on a CPU, kernel included, \
         over the messages whose replies were right. On a shared machine it is the figure to trust: it changes little \
         when somebody else is busy. <b>Throughput</b> and <b>latency</b> in a closed loop depend on both sides. \
         In the open loop latency counts from when a message was due, so that a stall is not hidden.</p>\n\
         <p>Bars are medians over the rounds; the thin line on a bar goes from the lowest to the highest round. \
         <b>Ratio</b> is CPU per message (idle: bytes per connection) over that of the first server in the same round. \
         Differences below the spread, and below about 5 %, are ties. Memory is the process's proportional set size.</p>\n\
         <p>Everything here ran over loopback on one machine. There the sender's CPU also does the receiver's share \
         of the kernel's work, and no network is in between. Ratios carry over to other machines better than figures, and neither replaces a \
         measurement of your own load on your own machine.</p>\n\
         </section>\n",
    );
}

fn environment(page: &mut String, results: &Results) {
    page.push_str("<section>\n<h2>To repeat it</h2>\n<dl>\n");
    for (name, text) in facts(&results.environment, &results.settings) {
        let _ = writeln!(page, "<dt>{name}</dt><dd>{}</dd>", Escaped(text));
    }
    page.push_str("</dl>\n</section>\n");
}

/// The words as a shell takes them.
fn command(words: &[String]) -> String {
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}

fn facts(environment: &Environment, settings: &Settings) -> Vec<(&'static str, String)> {
    let version = |(name, version): &(String, String)| format!("{name} {version}");
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
    let mut facts = vec![
        ("Command", command(&environment.command)),
        (
            "System",
            format!("{} {}, {}", environment.os, or_unknown(&environment.kernel), environment.architecture),
        ),
        ("CPU", format!("{}, {} cores", or_unknown(&environment.cpu), environment.cores)),
        ("Versions", environment.versions.iter().map(version).collect::<Vec<_>>().join(", ")),
        ("Cores", format!("servers {}; load {}", settings.server_cpus, settings.load_cpus)),
        (
            "Each run",
            format!("{:.2} s measured after {:.2} s", settings.duration_seconds, settings.warm_up_seconds),
        ),
        ("Took", format!("{:.0} s", environment.seconds)),
    ];
    facts.extend(environment.memory_bytes.map(|bytes| ("Memory", memory(bytes as f64))));
    facts.extend(environment.descriptor_limit.map(|limit| ("Descriptor limit", limit.to_string())));
    facts
}
