use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::{Args, ValueEnum};
use framewire::{
    CloseReason, Handled, Limits, PacketHandler, ServeError, Server, ServerHandle, Session, SessionInfo,
    SingleReactor, ThreadPerConnection, WorkerPool,
};
use thiserror::Error;

use crate::show::{self, Show};
use crate::spec::{self, FramingSpec};
use crate::trace::{Direction, Trace};

/// Options of `framewire echo`.
#[derive(Debug, Args)]
#[command(
    about = "Serve an echo: every packet goes back to who sent it",
    after_help = spec::HELP,
    after_long_help = format!("{}\n\n{LONG_HELP}", spec::HELP)
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
    /// Show each connection, what it sends and how it ends; packets as text unless told
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, default_missing_value = "text")]
    show: Option<Show>,
    /// Show at most so many bytes of each packet
    #[arg(long, value_name = "BYTES", default_value_t = Trace::MOST)]
    show_bytes: usize,
    /// Most bytes of a packet [default: 1048576]
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

const LONG_HELP: &str = "\
Examples:
  framewire echo --framing lines --show
  framewire echo 127.0.0.1:7000 '[::1]:7000' unix:/tmp/echo.sock --show hex

It says on standard output where it listens, and serves until it is
interrupted, or until nobody reads any more what --show prints.
Try it with `framewire probe`.
Exit status: 2 when it could not serve, and why on standard error.";

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
    #[error("cannot write to standard output: {0}")]
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
    let show = args.show.map(|show| Shown {
        trace: Trace::new(show, Some(args.show_bytes)),
        server: server.handle(),
        failed: Arc::default(),
    });
    let failed = show.as_ref().map(|show| show.failed.clone());
    let running = server.spawn(Echo { show })?;
    let mut out = io::stdout().lock();
    for addr in running.handle().local_addrs() {
        writeln!(out, "listening on {addr}").map_err(EchoError::Out)?;
    }
    out.flush().map_err(EchoError::Out)?;
    drop(out);
    running.wait()?;
    match failed.and_then(Arc::into_inner).and_then(OnceLock::into_inner) {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(EchoError::Out(error)),
        _ => Ok(()),
    }
}

/// Sends every packet back.
#[derive(Clone)]
struct Echo {
    show: Option<Shown>,
}

/// What happens, on standard output.
#[derive(Clone)]
struct Shown {
    trace: Trace,
    /// To be stopped when standard output is gone.
    server: ServerHandle,
    /// Why it is gone.
    failed: Arc<OnceLock<io::Error>>,
}

/// For what is still to be sent when standard output is gone.
const GRACE: Duration = Duration::from_secs(1);

impl Echo {
    fn show(&self, line: impl FnOnce(&Trace) -> io::Result<()>) {
        let Some(shown) = &self.show else { return };
        if let Err(error) = line(&shown.trace) {
            if shown.failed.set(error).is_ok() {
                shown.server.shutdown(GRACE);
            }
        }
    }
}

impl PacketHandler for Echo {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        self.show(|trace| {
            // the path of a Unix peer is of its own choice
            let peer = show::text(session.peer_addr().to_string().as_bytes());
            trace.line(format_args!("{} + {peer}", session.id()))
        });
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        self.show(|trace| trace.packet_of(session.id(), Direction::Received, packet));
        Ok(session.send(packet)?)
    }

    fn on_close(&mut self, session: &SessionInfo, (): (), reason: &CloseReason) {
        self.show(|trace| {
            trace.line(format_args!("{} - {}", session.id, show::text(reason.to_string().as_bytes())))
        });
    }
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
    // colours are for people: not for a file, a pipe, or one who has asked for none (no-color.org)
    let wants_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(wants_colours && io::stderr().is_terminal())
        .with_writer(io::stderr)
        // or it would panic when standard error is closed
        .log_internal_errors(false)
        .init();
}
