//! cargo bench --bench reconnect [-- SESSIONS]
//!
//! How the clients of a server that is killed find it again: 10,000 sessions (or another number), which one thread of this
//! process dials, to a server in a process of its own. That is killed, stays away for three seconds and comes back.
//! Printed are the times from the moment in which it listens again until each session is open, as a histogram: by then the
//! random pauses have grown to as much as 4 s, over which the clients are spread. Each process needs a descriptor per
//! session: where the limit is lower, there are fewer sessions, and that is said.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

use std::{
    env,
    error::Error,
    io::{self, Read},
    process::ExitCode,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use framewire::{
    Dial, Handled, LengthPrefix, Limits, PacketHandler, Reconnect, Server, Session, Upstream, UpstreamState,
    packet_fn,
};

const SESSIONS: usize = 10_000;
/// Descriptors that are needed for other things.
const SPARE: usize = 100;
/// The longest of the first pauses, and of all.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
const AWAY: Duration = Duration::from_secs(3);
/// Everything that is waited for happens within this time, or the run has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a line of the histogram counts.
const STEP: Duration = Duration::from_millis(500);
/// The word that makes this program the server.
const SERVE: &str = "serve";

#[path = "support/descriptors.rs"]
mod descriptors;
#[path = "support/process.rs"]
mod process;

use descriptors::within_descriptors;
use process::Process;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    // Without Cargo's own argument.
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [SERVE, addr, sessions] => serve(addr, sessions),
        [] => run(SESSIONS),
        [sessions] => sessions.parse().map_err(Into::into).and_then(run),
        _ => Err("usage: cargo bench --bench reconnect [-- SESSIONS]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reconnect: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The other process: prints its address, and serves until it is killed or its input ends.
fn serve(addr: &str, sessions: &str) -> Outcome<()> {
    let sessions = within_descriptors(sessions.parse()?, SPARE);
    let running = Server::bind(addr)?
        .framing(LengthPrefix::u32_be())
        .limits(Limits::default().connections(sessions))
        .spawn(packet_fn(|session, packet| Ok(session.send(packet)?)))?;
    println!("{}", running.local_addr().ok_or("it is not TCP")?);
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Tells when each session is open.
#[derive(Clone)]
struct Opened(Sender<Instant>);

impl PacketHandler for Opened {
    type State = ();

    fn on_open(&mut self, _: &mut Session<'_>) -> Handled {
        Ok(self.0.send(Instant::now())?)
    }

    fn on_packet(&mut self, _: &mut Session<'_>, (): &mut (), _: &[u8]) -> Handled {
        Ok(())
    }
}

fn run(wanted: usize) -> Outcome<()> {
    let sessions = within_descriptors(wanted, SPARE);
    if sessions == 0 {
        return Err("there are no sessions to be dialled".into());
    }
    if sessions < wanted {
        println!("the limit of descriptors allows {sessions} sessions, not {wanted}");
    }
    let mut first = Process::start(&[SERVE, "127.0.0.1:0", &sessions.to_string()])?;
    let (tell, opened) = channel();
    let client = Server::unbound()
        .framing(LengthPrefix::u32_be())
        .limits(Limits::default().connections(sessions).dials(sessions))
        .spawn(Opened(tell))?;
    let begun = Instant::now();
    let dial = Dial::to(first.addr).reconnect(Reconnect::exponential(FIRST_PAUSE, LONGEST_PAUSE));
    let upstreams = (0..sessions).map(|_| Ok(client.connect(dial.clone())?)).collect::<Outcome<Vec<_>>>()?;
    times(&opened, begun, sessions)?;
    println!("{sessions} sessions were dialled in {:.1?}", begun.elapsed());

    first.child.kill()?;
    first.child.wait()?;
    until_lost(&upstreams)?;
    thread::sleep(AWAY);
    let second = Process::start(&[SERVE, &first.addr.to_string(), &sessions.to_string()])?;
    let back = Instant::now();
    let mut found = times(&opened, back, sessions)?;
    found.sort_unstable();
    print(&found);
    drop(second);
    client.abort();
    client.wait()?;
    Ok(())
}

/// Waits until so many sessions were opened. Returns how long after `since` each was.
fn times(opened: &Receiver<Instant>, since: Instant, sessions: usize) -> Outcome<Vec<Duration>> {
    let mut times = Vec::with_capacity(sessions);
    while times.len() < sessions {
        let left = PATIENCE.saturating_sub(since.elapsed());
        let at = opened.recv_timeout(left).map_err(|_| {
            format!("only {} of {sessions} sessions were opened within {PATIENCE:?}", times.len())
        })?;
        times.push(at.saturating_duration_since(since));
    }
    Ok(times)
}

fn until_lost(upstreams: &[Upstream]) -> Outcome<()> {
    let since = Instant::now();
    while upstreams.iter().any(|upstream| upstream.state() != UpstreamState::Connecting) {
        if since.elapsed() > PATIENCE {
            return Err("sessions have outlived their server".into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Prints sorted times.
fn print(found: &[Duration]) {
    let at = |share: usize| found.get((found.len() - 1) * share / 100).copied().unwrap_or_default();
    println!(
        "connected again after {:.2?} (first), {:.2?} (half), {:.2?} (99 %), {:.2?} (last)",
        at(0),
        at(50),
        at(99),
        at(100),
    );
    println!("in the fullest 100 ms: {}", fullest(found, Duration::from_millis(100)));
    let most = fullest(found, STEP).max(1);
    let mut left = found;
    for step in 1.. {
        if left.is_empty() {
            break;
        }
        let within = left.partition_point(|time| *time < STEP * step);
        let bar = "#".repeat((within * 60).div_ceil(most));
        println!("{:>6.1} s {within:>6} {bar}", (STEP * (step - 1)).as_secs_f64());
        left = left.get(within..).unwrap_or_default();
    }
}

/// Returns the most sorted times that fall within one span of this length.
fn fullest(times: &[Duration], span: Duration) -> usize {
    let from =
        |(number, first): (usize, &Duration)| times.partition_point(|time| *time < *first + span) - number;
    times.iter().enumerate().map(from).max().unwrap_or_default()
}
