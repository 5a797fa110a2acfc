//! A process of peers, which the benchmark starts and tells what to do.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::peers::Peers;
use super::wire::Wire;
use super::{EACH, SERVERS, servers};

/// Peers of a gateway or of an echo server, until standard input ends. Clients do one run for each line there: messages
/// in flight on each of them, and milliseconds; a line with the number of replies answers it.
#[derive(Debug, Args)]
pub(crate) struct DriveArgs {
    /// What they are
    role: Role,
    /// Where they connect to
    to: SocketAddr,
    /// How many
    count: usize,
    /// Bytes of a message
    size: usize,
}

/// What peers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Clients of a gateway
    Clients,
    /// Servers behind a gateway, which send everything back
    Servers,
    /// Clients of an echo server
    Echo,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Servers => "servers",
            Self::Echo => "echo",
        }
    }
}

/// Drives peers until standard input ends.
pub(crate) fn drive(args: &DriveArgs) -> io::Result<()> {
    let mut peers = match args.role {
        Role::Servers => return servers::serve(args.to, args.count, || say("ready")),
        Role::Clients => {
            let mut peers = Peers::connect(args.to, args.count, Wire::Gateway)?;
            peers.dial(EACH, SERVERS, args.size)?;
            peers
        }
        Role::Echo => {
            let mut peers = Peers::connect(args.to, args.count, Wire::Echo)?;
            peers.prepare(args.size);
            peers
        }
    };
    say("ready")?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        let (Some(pipeline), Some(millis)) = (numbers.next(), numbers.next()) else {
            return Err(io::Error::other(format!("{line:?} are no messages in flight and milliseconds")));
        };
        let replies = peers.run(pipeline as usize, Duration::from_millis(millis))?;
        say(&replies.to_string())?;
    }
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
