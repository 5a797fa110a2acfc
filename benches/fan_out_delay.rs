//! cargo bench --bench fan_out_delay [-- SESSIONS [ROUNDS]]
//!
//! How long a packet of one session waits because others are sent a broadcast: 15,000 sessions (or another number), which
//! one thread of this process dials, to a server on one thread of another process. One more session sends a packet again
//! and again, as soon as it has the reply: in each round 2,000 times while nothing else happens, and then as long as ten
//! broadcasts of 128 bytes take, each of which begins when the one before has reached all. Two figures for each packet:
//!
//! | | |
//! |---|---|
//! | processor | what the server's thread has worked between two packets, by its own clock: what it did for others before it came to this one, and before that was sent, where this process had to wait for a processor. The aim is that broadcasts add no more than 2 ms |
//! | wall | from the send to the reply: also what the kernel and every other program of the machine took |
//!
//! Each process needs a descriptor per session: where the limit is lower, there are fewer sessions, and that is said.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

use std::{
    env,
    error::Error,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use framewire::{
    Dial, Handled, LengthPrefix, Limits, PacketHandler, Server, ServerHandle, Session, packet_fn,
};

const SESSIONS: usize = 15_000;
const ROUNDS: usize = 5;
const QUIET_PROBES: usize = 2_000;
const BROADCASTS: usize = 10;
const PAYLOAD: [u8; 128] = [b'x'; 128];
/// Descriptors that are needed for other things.
const SPARE: usize = 100;
/// Everything that is waited for happens within this time, or the run has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// The word that makes this program the server.
const SERVE: &str = "serve";
/// A packet that asks for a broadcast; all others are answered.
const BROADCAST: &[u8] = b"broadcast";

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
        [SERVE, sessions] => serve(sessions),
        [] => run(SESSIONS, ROUNDS),
        [sessions] => sessions.parse().map_err(Into::into).and_then(|sessions| run(sessions, ROUNDS)),
        [sessions, rounds] => {
            let numbers = sessions.parse().and_then(|sessions| Ok((sessions, rounds.parse()?)));
            numbers.map_err(Into::into).and_then(|(sessions, rounds)| run(sessions, rounds))
        }
        _ => Err("usage: cargo bench --bench fan_out_delay [-- SESSIONS [ROUNDS]]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fan_out_delay: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Broadcasts, or replies with the time that its thread has worked since it last did, in nanoseconds.
#[derive(Clone)]
struct Probed {
    server: ServerHandle,
    replied: Duration,
}

impl PacketHandler for Probed {
    type State = ();

    fn on_open(&mut self, _: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        if packet == BROADCAST {
            self.server.broadcast(PAYLOAD)?;
            return Ok(());
        }
        let now = worked();
        let since = u64::try_from(now.saturating_sub(self.replied).as_nanos())?;
        self.replied = now;
        Ok(session.send(since.to_be_bytes())?)
    }
}

/// How long this thread has used a processor.
#[cfg(unix)]
fn worked() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(not(unix))]
fn worked() -> Duration {
    Duration::ZERO
}

/// The other process: prints its address, and serves until it is killed or its input ends.
fn serve(sessions: &str) -> Outcome<()> {
    let sessions = within_descriptors(sessions.parse()?, SPARE);
    let server = Server::bind("127.0.0.1:0")?
        .framing(LengthPrefix::u32_be())
        .limits(Limits::default().connections(sessions));
    let handler = Probed { server: server.handle(), replied: Duration::ZERO };
    let running = server.spawn(handler)?;
    println!("{}", running.local_addr().ok_or("it is not TCP")?);
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn run(wanted: usize, rounds: usize) -> Outcome<()> {
    // The session that is probed, and the one that asks for broadcasts.
    let sessions = within_descriptors(wanted.saturating_add(2), SPARE).saturating_sub(2);
    if sessions == 0 || rounds == 0 {
        return Err("there are no sessions to be dialled, or no rounds".into());
    }
    if sessions < wanted {
        println!("the limit of descriptors allows {sessions} sessions, not {wanted}");
    }
    let server = Process::start(&[SERVE, &(sessions + 2).to_string()])?;
    let received = Arc::<AtomicUsize>::default();
    let count = received.clone();
    let client = Server::unbound()
        .framing(LengthPrefix::u32_be())
        .limits(Limits::default().connections(sessions).dials(sessions))
        .spawn(packet_fn(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }))?;
    for _ in 0..sessions {
        client.connect(Dial::to(server.addr))?;
    }
    until(|| client.session_count() == sessions)?;
    println!("{sessions} sessions on one thread; a broadcast of {} bytes; times in ms\n", PAYLOAD.len());
    println!("| round | while | packets | processor p50 | p99 | most | wall p50 | p99 | most |");
    println!("|--:|---|--:|--:|--:|--:|--:|--:|--:|");
    let (mut probe, mut asks) = (Peer::connect(server.addr)?, Peer::connect(server.addr)?);
    // What is sent to these two as well is read and left out.
    for round in 1..=rounds {
        // The first tells what the thread has worked before.
        probe.probe()?;
        let quiet = (0..QUIET_PROBES).map(|_| probe.probe()).collect::<Outcome<Vec<_>>>()?;
        print(round, "quiet", quiet);
        let mut busy = Vec::new();
        let mut reached = received.load(Ordering::Relaxed);
        for _ in 0..BROADCASTS {
            asks.say(BROADCAST)?;
            reached += sessions;
            let since = Instant::now();
            while received.load(Ordering::Relaxed) < reached {
                busy.push(probe.probe()?);
                if since.elapsed() > PATIENCE {
                    return Err("a broadcast does not reach all".into());
                }
            }
        }
        asks.skip(BROADCASTS)?;
        print(round, "broadcasts", busy);
    }
    client.abort();
    client.wait()?;
    Ok(())
}

/// What one packet has waited for.
#[derive(Clone, Copy)]
struct Waited {
    processor: Duration,
    wall: Duration,
}

fn print(round: usize, phase: &str, waited: Vec<Waited>) {
    let columns = |of: fn(&Waited) -> Duration| {
        let mut times: Vec<Duration> = waited.iter().map(of).collect();
        times.sort_unstable();
        let at = |share: usize| times.get(times.len().saturating_sub(1) * share / 100).copied();
        let shown = |share| format!("{:.2}", at(share).unwrap_or_default().as_secs_f64() * 1_000.0);
        [50, 99, 100].map(shown).join(" | ")
    };
    let (processor, wall) = (columns(|one| one.processor), columns(|one| one.wall));
    println!("| {round} | {phase} | {} | {processor} | {wall} |", waited.len());
}

fn until(holds: impl Fn() -> bool) -> Outcome<()> {
    let since = Instant::now();
    while !holds() {
        if since.elapsed() > PATIENCE {
            return Err("not all sessions are connected".into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A connection of this thread.
struct Peer(TcpStream);

impl Peer {
    fn connect(addr: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    fn say(&mut self, packet: &[u8]) -> Outcome<()> {
        let header = u32::try_from(packet.len())?.to_be_bytes();
        Ok(self.0.write_all(&[&header, packet].concat())?)
    }

    fn hear(&mut self) -> Outcome<Vec<u8>> {
        let mut header = [0; 4];
        self.0.read_exact(&mut header)?;
        let mut packet = vec![0; u32::from_be_bytes(header) as usize];
        self.0.read_exact(&mut packet)?;
        Ok(packet)
    }

    /// Reads so many broadcasts.
    fn skip(&mut self, packets: usize) -> Outcome<()> {
        (0..packets).try_for_each(|_| self.hear().map(drop))
    }

    /// Sends a packet and waits for the reply to it.
    fn probe(&mut self) -> Outcome<Waited> {
        let since = Instant::now();
        self.say(b"?")?;
        loop {
            // A broadcast may come first.
            if let Ok(reply) = <[u8; 8]>::try_from(&*self.hear()?) {
                let processor = Duration::from_nanos(u64::from_be_bytes(reply));
                return Ok(Waited { processor, wall: since.elapsed() });
            }
        }
    }
}
