//! cargo bench --bench instructions [-- OPTIONS OF lab_echo]
//!
//! User-space instructions per message of 64 bytes, with one and with sixteen in flight on each of 64 connections, counted
//! by callgrind: for one that is echoed, and for one that goes to another connection because the two are linked. System
//! calls count as what they cost in user space. Options go to the server: `-- --layers 1` counts what a layer costs.
//!
//! | column | |
//! |---|---|
//! | per message | beside a busy machine a poll brings more events, so that this is less: ±10 % |
//! | per event | for one connection with all that it has in flight; noise does not move it |
//! | per turn | for a poll and all that is done once for it, however many events it brings; noise does not move it |
//! | in layers | per message, in the code for layers: 0 for sessions that have none |
//!
//! The server runs for few and for many rounds; the difference of the totals is divided by the messages between. A third
//! pair of runs has messages on one connection only, so that each turn has one event: with the polls counted as well,
//! that tells what an event costs, and what a turn. Needs valgrind.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

use std::{
    collections::HashMap,
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

const CONNECTIONS: usize = 64;
const PAYLOAD: usize = 64;
/// Messages on all connections together, at least: after the first ones every buffer has its size.
const FEW: usize = 2_000;
const MANY: usize = 60_000;
/// Turns with one event each.
const FEW_TURNS: usize = 200;
const MANY_TURNS: usize = 2_200;
/// What each turn calls once.
const POLL: &str = "MioSys as framewire::reactor::sys::Sys>::poll";
/// Where the code for layers is.
const LAYERS: [&str; 3] = ["/src/layer/", "/src/session/layer", "/src/shard/layers"];

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    // Cargo's own argument.
    let options: Vec<String> = env::args().skip(1).filter(|option| option != "--bench").collect();
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: valgrind is not installed");
        return Ok(());
    }
    let server = build()?;
    println!("| | in flight | per message | per event | per turn | in layers |\n|---|--:|--:|--:|--:|--:|");
    for (mode, in_flight) in [(Mode::Echo, 1), (Mode::Echo, 16), (Mode::Link, 1), (Mode::Link, 16)] {
        let count = |connections, rounds| {
            Count::take(&server, &options, Load { mode, connections, in_flight, rounds })
        };
        let rounds = |messages: usize| messages.div_ceil(CONNECTIONS * in_flight);
        let all = count(CONNECTIONS, rounds(MANY))?.since(&count(CONNECTIONS, rounds(FEW))?);
        let alone = count(1, MANY_TURNS)?.since(&count(1, FEW_TURNS)?);
        let messages = all.events * in_flight as f64;
        let both = alone.instructions / alone.turns;
        let event = (all.instructions - all.turns * both) / (all.events - all.turns);
        println!(
            "| {} | {in_flight} | {:.0} | {event:.0} | {:.0} | {:.0} |",
            mode.name(),
            all.instructions / messages,
            both - event,
            all.in_layers / messages,
        );
    }
    Ok(())
}

/// Builds the server as its users do, and returns its path.
fn build() -> Outcome<PathBuf> {
    let args = ["build", "--release", "--example", "lab_echo", "--message-format", "json-render-diagnostics"];
    let built = Command::new(env!("CARGO")).args(args).stderr(Stdio::inherit()).output()?;
    let messages = String::from_utf8(built.stdout)?;
    let mut paths =
        messages.lines().filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next());
    Ok(paths.next_back().filter(|_| built.status.success()).ok_or("lab_echo was not built")?.into())
}

/// What the server does with a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It goes back.
    Echo,
    /// It goes to the connection that was made next.
    Link,
}

impl Mode {
    /// As the server knows it.
    fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Link => "link",
        }
    }
}

/// What is sent to the server.
#[derive(Clone, Copy)]
struct Load {
    mode: Mode,
    /// Those that send.
    connections: usize,
    in_flight: usize,
    rounds: usize,
}

/// What runs of the server have cost.
struct Count {
    /// Connections served, each with what it had in flight.
    events: f64,
    turns: f64,
    instructions: f64,
    in_layers: f64,
}

impl Count {
    /// From the start of the server to its end.
    fn take(server: &Path, options: &[String], load: Load) -> Outcome<Self> {
        let path = env::temp_dir().join(format!("framewire-instructions-{}", std::process::id()));
        let mut command = Command::new("valgrind");
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", path.display()));
        command.arg(server).args(["--port", "0", "--mode", load.mode.name()]).args(options);
        let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
        let driven = running.port().and_then(|port| drive(port, load));
        let ended = running.end();
        let text = driven.and(ended).and_then(|()| Ok(fs::read_to_string(&path)?));
        let _ = fs::remove_file(&path);
        let profile = Profile::read(&text?);
        if profile.polls == 0 {
            return Err(format!("the profile has no {POLL}").into());
        }
        Ok(Self {
            events: (load.connections * load.rounds) as f64,
            turns: profile.polls as f64,
            instructions: profile.instructions as f64,
            in_layers: profile.in_layers as f64,
        })
    }

    /// What this run has cost beyond the other.
    fn since(self, other: &Self) -> Self {
        Self {
            events: self.events - other.events,
            turns: self.turns - other.turns,
            instructions: self.instructions - other.instructions,
            in_layers: self.in_layers - other.in_layers,
        }
    }
}

/// What is read of callgrind's file: <https://valgrind.org/docs/manual/cl-format.html>.
#[derive(Default)]
struct Profile {
    instructions: u64,
    in_layers: u64,
    polls: u64,
}

impl Profile {
    fn read(text: &str) -> Self {
        let mut profile = Self::default();
        // Of each number that stands for a file or a function, whether it is one of those that are looked for.
        let (mut layers, mut polls) = (HashMap::new(), HashMap::new());
        let (mut in_layers, mut to_poll, mut is_call) = (false, false, false);
        for line in text.lines() {
            match line.split_once('=') {
                Some(("fl" | "fi" | "fe", name)) => {
                    in_layers =
                        knows(&mut layers, name, |file| LAYERS.iter().any(|part| file.contains(part)));
                }
                Some(("cfi" | "cfl", name)) => {
                    knows(&mut layers, name, |file| LAYERS.iter().any(|part| file.contains(part)));
                }
                Some(("fn", name)) => {
                    knows(&mut polls, name, |function| function.contains(POLL));
                }
                Some(("cfn", name)) => to_poll = knows(&mut polls, name, |function| function.contains(POLL)),
                Some(("calls", count)) => {
                    let calls = count.split(' ').next().and_then(|calls| calls.parse().ok()).unwrap_or(0);
                    profile.polls += if to_poll { calls } else { 0 };
                    is_call = true;
                }
                Some(_) => {}
                // The line behind a call has the costs of the function that was called.
                None if std::mem::take(&mut is_call) => {}
                None if line.starts_with(|first: char| "+-*".contains(first) || first.is_ascii_digit()) => {
                    let cost = line.split(' ').nth(1).and_then(|cost| cost.parse().ok()).unwrap_or(0);
                    profile.instructions += cost;
                    profile.in_layers += if in_layers { cost } else { 0 };
                }
                None => {}
            }
        }
        profile
    }
}

/// Whether this is one of those that are looked for: `(number) name`, or `(number)` where that was seen before.
fn knows<'t>(known: &mut HashMap<&'t str, bool>, entry: &'t str, is_one: impl Fn(&str) -> bool) -> bool {
    let (number, name) = entry.split_once(' ').unwrap_or((entry, ""));
    if name.is_empty() {
        known.get(number) == Some(&true)
    } else {
        *known.entry(number).or_insert(is_one(name))
    }
}

/// The server; killed if it is dropped before its end.
struct Running(Child);

impl Running {
    fn port(&mut self) -> Outcome<u16> {
        let output = self.0.stdout.take().ok_or("the server has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        port.ok_or_else(|| format!("the server says {line:?}, and not where it listens").into())
    }

    /// Asks the server to stop, and waits for it.
    fn end(&mut self) -> Outcome<()> {
        let asked = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status()?;
        let status = self.0.wait()?;
        if asked.success() && status.success() {
            Ok(())
        } else {
            Err(format!("the server ended with {status}").into())
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends what is in flight on each connection that sends, then reads it where it comes back, and so on. The others are
/// idle.
fn drive(port: u16, load: Load) -> Outcome<()> {
    let mut message = (PAYLOAD as u32).to_be_bytes().to_vec();
    message.resize(4 + PAYLOAD, b'x');
    let batch = message.repeat(load.in_flight);
    let mut heard = vec![0; batch.len()];
    let connect = |_| {
        let peer = TcpStream::connect(("127.0.0.1", port))?;
        peer.set_nodelay(true)?;
        Ok::<_, std::io::Error>(peer)
    };
    let each = if load.mode == Mode::Link { 2 } else { 1 };
    let mut peers = (0..CONNECTIONS * each).map(connect).collect::<Result<Vec<_>, _>>()?;
    for _ in 0..load.rounds {
        let peers = &mut peers[..load.connections * each];
        for peer in peers.iter_mut().step_by(each) {
            peer.write_all(&batch)?;
        }
        for peer in peers.iter_mut().skip(each - 1).step_by(each) {
            peer.read_exact(&mut heard)?;
            if heard != batch {
                return Err("what comes back is not what was sent".into());
            }
        }
    }
    Ok(())
}
