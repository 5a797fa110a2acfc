//! The page: one file, no network, no script, light and dark.

mod bars;
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
        "<h1>Servers side by side</h1>\n<p class=\"lead\">{present} servers, {} loads, {} of {:.2} s behind each figure, \
         every reply compared byte for byte. Measured by <code>framewire bench</code> {} on {}: {}.</p>\n",
        results.cases.len(),
        results.rounds(),
        results.settings.duration_seconds,
        Escaped(&environment.framewire),
        date(environment.started),
        Escaped(environment.machine()),
    );
    for note in results.notes() {
        let _ = writeln!(page, "<p class=\"note\">{}</p>", Escaped(note));
    }
    if mostly_noisy(results) {
        page.push_str(
            "<p class=\"note\">Other processes kept the machine busy during most runs (marked ~): throughput and \
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
         when other processes are busy. <b>Throughput</b> and <b>latency</b> in a closed loop depend on both sides. \
         In the open loop latency counts from when a message was due, so that a stall is not hidden.</p>\n\
         <p>Every figure, bar, point and curve is the median over its rounds, and <b>n</b> is their number; ± is how far \
         the farthest round was from it, and the thin line on a bar goes from the lowest to the highest. One round has no \
         ±. <b>Ratio</b> is the quotient of the CPU per message (idle: bytes per connection) in the same table and that of \
         the first server; its ± is that of the quotients within each round, where what the machine does over minutes \
         cancels out. What lies within ± is a tie.</p>\n\
         <p>In a round all servers run on the same load one right after the other; the rounds of a load are spread over \
         the whole benchmark. A run that other processes disturbed is done once more, if there is time, and the less \
         disturbed of the two counts, whatever its result; nothing else is left out. Memory is the process's proportional \
         set size.</p>\n\
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::case::{Case, Kind};
    use crate::bench::results::{CaseResult, ContestantInfo, LeftOut, Row, Run};
    use crate::bench::summary::summarize;

    /// Two contestants on one load, of whose runs these are.
    fn results(runs: [Vec<Run>; 2]) -> Results {
        let names = ["first", "second"].map(str::to_owned);
        let row =
            |(name, runs): (&String, _)| Row { contestant: name.clone(), summary: None, error: None, runs };
        let mut rows: Vec<Row> = names.iter().zip(runs).map(row).collect();
        summarize(&mut rows);
        let case = Case { kind: Kind::Echo, connections: 1, silent: 0, size: 8, pipeline: 1, rate: None };
        let case =
            CaseResult { title: case.title(), says: String::new(), unit: "messages".into(), case, rows };
        let settings = Settings {
            duration_seconds: 0.5,
            warm_up_seconds: 0.1,
            repeats: 3,
            server_cpus: "0".into(),
            load_cpus: "1".into(),
            load_threads: 1,
            notes: Vec::new(),
        };
        let present = |name| ContestantInfo { name, about: String::new(), skipped: None };
        Results {
            format: 0,
            ok: true,
            interrupted: false,
            environment: Environment::look(None, false),
            settings,
            contestants: names.map(present).to_vec(),
            cases: vec![case],
        }
    }

    fn runs(cpu: &[f64], marks: &[Mark]) -> Vec<Run> {
        let run = |(round, cpu): (usize, &f64)| Run {
            round,
            cpu_ns: Some(*cpu),
            marks: marks.to_vec(),
            ..Run::default()
        };
        cpu.iter().enumerate().map(run).collect()
    }

    #[test]
    fn a_sign_is_explained_where_it_is_shown_and_nowhere_else() {
        let marks = [Mark::GeneratorBound, Mark::Noisy];
        let page = render(&results([runs(&[1.0, 1.0], &marks), runs(&[2.0, 2.0], &[])])).unwrap();
        let (_, page) = page.split_once("At a glance").unwrap();
        let (glance, case) = page.split_once("</section>").unwrap();
        assert!(glance.contains(Mark::Noisy.explained()) && case.contains(Mark::Noisy.explained()));
        let generator = Mark::GeneratorBound.explained();
        assert!(!glance.contains(generator), "which says nothing of CPU time");
        assert!(case.contains(generator));
    }

    #[test]
    fn the_page_says_how_many_rounds_there_are_and_what_was_left_out() {
        let mut first = runs(&[1.0, 1.0, 1.0], &[]);
        first.push(Run { left_out: Some(LeftOut::Disturbed), ..first[0].clone() });
        let page = render(&results([first, runs(&[2.0, 2.2], &[])])).unwrap();
        assert!(page.contains("2 to 3 rounds of 0.50 s behind each figure"));
        assert!(page.contains("left out: 1 of 6 runs"));
        assert!(
            page.contains("<td>2.10 <span class=\"sign\"></span><span class=\"spread\">±5 %</span></td>"),
            "{page}"
        );
    }

    #[test]
    fn bold_is_only_what_lies_outside_of_the_spread() {
        let bold = |page: &str| page.matches("class=\"best\"").count();
        let page = render(&results([runs(&[1.0, 1.1, 1.0], &[]), runs(&[1.2, 1.3, 1.2], &[])])).unwrap();
        assert_eq!(bold(&page), 1);
        let page = render(&results([runs(&[1.0, 1.3, 1.0], &[]), runs(&[1.2, 1.1, 1.2], &[])])).unwrap();
        assert_eq!(bold(&page), 0);
    }
}
