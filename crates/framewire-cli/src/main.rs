//! `framewire`: measure servers, serve an echo, talk to a framed port.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line program speaks there")]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod bench;
mod contestants;
mod echo;
mod hex;
mod probe;
mod show;
mod spec;
mod target;
mod trace;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Servers that hold very many framed connections: measure them, try them, talk to them.
#[derive(Debug, Parser)]
#[command(name = "framewire", version, max_term_width = 110, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(Box<bench::BenchArgs>),
    Echo(Box<echo::EchoArgs>),
    Probe(Box<probe::ProbeArgs>),
    /// Run one contestant of the benchmark until standard input ends
    #[command(hide = true)]
    ServeContestant(contestants::ServeArgs),
    /// Run a command, say its process id, and end it when standard input ends
    #[command(hide = true)]
    Keep(contestants::KeepArgs),
    /// Drive peers of a gateway or of an echo server, as standard input says
    #[command(hide = true)]
    Drive(bench::DriveArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(args) => match bench::run(&args) {
            Ok(verdict) => verdict.into(),
            Err(error) => fail(&error),
        },
        Command::Echo(args) => echo::run(&args).map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS),
        Command::Probe(args) => match probe::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                fail(&error);
                error.status().into()
            }
        },
        Command::ServeContestant(args) => contestants::serve(&args).map_or_else(|e| fail(&e), |()| 0.into()),
        Command::Drive(args) => bench::drive(&args).map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS),
        Command::Keep(args) => contestants::keep(&args).unwrap_or_else(|error| fail(&error)),
    }
}

/// Exit status 2: it could not even begin.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    say(format_args!("framewire: {error}"));
    2.into()
}

/// Prints a line on standard error; an error is ignored, since there is nowhere left to report it.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
