//! `framewire bench`: servers side by side, on the user's machine.

mod allowance;
mod args;
mod case;
mod child;
mod contestant;
mod environment;
mod error;
mod gateway;
mod interrupt;
mod load;
mod machine;
mod markdown;
mod outfile;
mod overview;
mod plan;
mod process;
mod progress;
mod report;
mod results;
mod rounds;
mod run;
mod summary;
mod table;
mod text;

pub(crate) use args::BenchArgs;
pub(crate) use error::BenchError;
pub(crate) use gateway::{DriveArgs, drive};

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use contestant::Roster;
use interrupt::Interrupt;
use outfile::OutFile;
use plan::Plan;
use results::Results;
use rounds::Rounds;

/// How a benchmark that could be run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every contestant replied correctly to every message.
    AllRight,
    /// At least one did not; the table says which.
    SomeFailed,
    /// It was interrupted; what was measured until then was kept.
    Interrupted,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::AllRight => Self::SUCCESS,
            Verdict::SomeFailed => 1.into(),
            Verdict::Interrupted => interrupt::STATUS.into(),
        }
    }
}

/// Does what the options say.
pub(crate) fn run(args: &BenchArgs) -> Result<Verdict, BenchError> {
    if args.schema {
        return print(results::SCHEMA);
    }
    if let Some(program) = &args.gateway {
        return gateway::run(args, program);
    }
    let roster = Roster::gather(args)?;
    if args.list {
        return print(&listing(&roster));
    }
    let interrupt = Interrupt::catch().map_err(BenchError::Interrupt)?;
    let plan = Plan::new(args, &roster, interrupt)?;
    let json = OutFile::open(&args.json)?;
    let html = if args.no_html { None } else { Some(OutFile::open(&args.html)?) };
    let results = match Rounds::carry_out(plan, roster) {
        Err(error @ BenchError::NothingMeasured) => {
            progress::say(&error.to_string());
            return Ok(Verdict::Interrupted);
        }
        results => results?,
    };
    let text = if args.markdown { markdown::render(&results) } else { table::render(&results) };
    show(&text, json.is_stdout())?;
    let text = serde_json::to_string_pretty(&results).map_err(|error| args.write_error(error))?;
    let mut written = vec![json.write(&text)?];
    if let Some(html) = html {
        written.push(html.write(&report::render(&results)?)?);
    }
    for path in written.into_iter().flatten() {
        progress::say(&format!("wrote {path}"));
    }
    Ok(results.verdict())
}

impl Results {
    fn verdict(&self) -> Verdict {
        match self {
            Self { interrupted: true, .. } => Verdict::Interrupted,
            Self { ok: false, .. } => Verdict::SomeFailed,
            _ => Verdict::AllRight,
        }
    }
}

fn show(text: &str, json_on_stdout: bool) -> Result<(), BenchError> {
    let written =
        if json_on_stdout { io::stderr().lock().write_all(text.as_bytes()) } else { write_out(text) };
    unless_closed(written).map_err(|source| BenchError::Write { path: "the table".into(), source })
}

fn print(text: &str) -> Result<Verdict, BenchError> {
    unless_closed(write_out(&format!("{}\n", text.trim_end())))
        .map(|()| Verdict::AllRight)
        .map_err(|source| BenchError::Write { path: "standard output".into(), source })
}

fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// A reader that has seen enough (`| head`) is no failure: the files are written all the same.
fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
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
