//! `framewire bench`: servers side by side, on the user's machine.

mod allowance;
mod args;
mod case;
mod child;
mod contestant;
mod environment;
mod error;
mod load;
mod machine;
mod outfile;
mod plan;
mod process;
mod progress;
mod report;
mod results;
mod run;
mod summary;
mod table;
mod text;

pub(crate) use args::BenchArgs;
pub(crate) use error::BenchError;

use std::io::{self, Write};

use contestant::Roster;
use outfile::OutFile;
use plan::Plan;
use results::Results;

/// How a benchmark that could be run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every contestant answered every message correctly.
    AllRight,
    /// At least one did not; the table says which.
    SomeFailed,
}

/// Does what the options say.
pub(crate) fn run(args: &BenchArgs) -> Result<Verdict, BenchError> {
    if args.schema {
        return print(results::SCHEMA);
    }
    let roster = Roster::gather(args)?;
    if args.list {
        return print(&listing(&roster));
    }
    let plan = Plan::new(args, &roster)?;
    let json = OutFile::open(&args.json)?;
    let html = if args.no_html { None } else { Some(OutFile::open(&args.html)?) };
    let results = plan.carry_out(roster)?;
    let json_on_stdout = json.is_stdout();
    show(&results, json_on_stdout)?;
    let text = serde_json::to_string_pretty(&results).map_err(|error| args.write_error(error))?;
    let mut written = vec![json.write(&text)?];
    if let Some(html) = html {
        written.push(html.write(&report::render(&results)?)?);
    }
    for path in written.into_iter().flatten() {
        eprintln!("wrote {path}");
    }
    Ok(if results.ok { Verdict::AllRight } else { Verdict::SomeFailed })
}

fn show(results: &Results, json_on_stdout: bool) -> Result<(), BenchError> {
    let mut out: Box<dyn Write> =
        if json_on_stdout { Box::new(io::stderr().lock()) } else { Box::new(io::stdout().lock()) };
    table::print(&mut *out, results)
        .and_then(|()| out.flush())
        .map_err(|source| BenchError::Write { path: "the table".into(), source })
}

fn print(text: &str) -> Result<Verdict, BenchError> {
    writeln!(io::stdout(), "{}", text.trim_end())
        .map(|()| Verdict::AllRight)
        .map_err(|source| BenchError::Write { path: "standard output".into(), source })
}

fn listing(roster: &Roster) -> String {
    let lines = roster.infos().into_iter().map(|info| match info.skipped {
        None => format!("{:18} {}\n", info.name, info.about),
        Some(reason) => format!("{:18} {} [skipped: {reason}]\n", info.name, info.about),
    });
    lines.collect()
}

impl BenchArgs {
    fn write_error(&self, error: serde_json::Error) -> BenchError {
        BenchError::Write { path: self.json.display().to_string(), source: error.into() }
    }
}
