use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use framewire::{Limits, ServeError, Server, SingleReactor, ThreadPerConnection, WorkerPool, packet_fn};
use thiserror::Error;

use crate::spec::{self, FramingSpec};

/// Options of `framewire echo`.
#[derive(Debug, Args)]
#[command(
    about = "Serve an echo: every packet goes back to who sent it",
    after_help = spec::HELP,
    after_long_help = format!("{}\n\nIt serves until it is interrupted. Try it with `framewire probe`.", spec::HELP)
)]
pub(crate) struct EchoArgs {
    /// Where to listen: host:port, [v6]:port or unix:/path; port 0 takes a free one
    #[arg(default_value = "127.0.0.1:7000")]
    addr: Vec<String>,
    /// How packets are cut from the stream
    #[arg(short, long, default_value = "u32-be", value_name = "SPEC")]
    framing: FramingSpec,
    /// Where connections live
    #[arg(short, long, value_enum, default_value_t = Strategy::Pool)]
    strategy: Strategy,
    /// Threads of the pool [default: one per core]
    #[arg(short, long, value_name = "N")]
    workers: Option<usize>,
    /// Most bytes of a packet
    #[arg(long, value_name = "BYTES")]
    max: Option<usize>,
    /// Connections at once
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// End a session after so many seconds without a byte from it
    #[arg(long, value_name = "SECONDS")]
    idle: Option<u64>,
    /// Say more on standard error: -v what sessions do, -vv everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Strategy {
    /// one thread for everything
    Single,
    /// a pool of threads
    Pool,
    /// a thread per connection
    Threads,
}

/// Why the echo could not serve.
#[derive(Debug, Error)]
pub(crate) enum EchoError {
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("can not write to standard output: {0}")]
    Out(io::Error),
}

/// Connections at once of a thread per connection, unless `--connections` says otherwise.
const THREADS: usize = 1024;

/// Serves until interrupted.
pub(crate) fn run(args: &EchoArgs) -> Result<(), EchoError> {
    log_to_stderr(args.verbose);
    let framing = match args.max {
        Some(max) => args.framing.clone().max(max),
        None => args.framing.clone(),
    };
    let server = Server::bind(args.addr.clone())?.framing(framing).limits(args.limits());
    let server = match args.strategy {
        Strategy::Single => server.strategy(SingleReactor::new()),
        Strategy::Pool => server.strategy(args.workers.map_or_else(WorkerPool::per_core, WorkerPool::new)),
        Strategy::Threads => server.strategy(ThreadPerConnection::max(args.connections.unwrap_or(THREADS))),
    };
    let running = server.spawn(packet_fn(|session, packet| session.send(packet)))?;
    let mut out = io::stdout().lock();
    for addr in running.handle().local_addrs() {
        writeln!(out, "listening on {addr}").map_err(EchoError::Out)?;
    }
    out.flush().map_err(EchoError::Out)?;
    drop(out);
    Ok(running.wait()?)
}

impl EchoArgs {
    fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        if let Some(max) = self.max {
            limits = limits.frame(max);
        }
        if let Some(connections) = self.connections {
            limits = limits.connections(connections);
        }
        if let Some(seconds) = self.idle {
            limits = limits.idle_timeout(Duration::from_secs(seconds));
        }
        limits
    }
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    // colours are for people: not for a file, a pipe, or whoever has asked for none (no-color.org)
    let wants_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let colours = wants_colours && io::stderr().is_terminal();
    tracing_subscriber::fmt().with_max_level(level).with_ansi(colours).with_writer(io::stderr).init();
}
