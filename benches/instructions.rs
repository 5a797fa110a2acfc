//! cargo bench --bench instructions [-- OPTIONS OF lab_echo]
//!
//! User-space instructions per echoed message of 64 bytes on 64 connections, with one and with sixteen in flight on each,
//! counted by callgrind: noise moves them by a few percent, through the number of events that a poll brings. System calls
//! count as what they cost in user space. Options go to the server: `-- --layers 1` counts what a layer costs.
//!
//! The server runs twice for each figure, for few and for many rounds; the difference of the totals is divided by the
//! messages between. Needs valgrind.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

use std::{
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
    println!("| in flight | instructions per message |\n|--:|--:|");
    for in_flight in [1, 16] {
        let few = Count::take(&server, &options, in_flight, FEW)?;
        let many = Count::take(&server, &options, in_flight, MANY)?;
        let instructions = many.instructions.saturating_sub(few.instructions);
        println!("| {in_flight} | {} |", instructions / (many.messages - few.messages));
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

/// What one run of the server has cost, from its start to its end.
struct Count {
    messages: u64,
    instructions: u64,
}

impl Count {
    fn take(server: &Path, options: &[String], in_flight: usize, least: usize) -> Outcome<Self> {
        let rounds = least.div_ceil(CONNECTIONS * in_flight);
        let totals = env::temp_dir().join(format!("framewire-instructions-{}", std::process::id()));
        let mut command = Command::new("valgrind");
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", totals.display()));
        command.arg(server).args(["--port", "0"]).args(options);
        let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
        let driven = running.port().and_then(|port| drive(port, in_flight, rounds));
        let ended = running.end();
        let text = driven.and(ended).and_then(|()| Ok(fs::read_to_string(&totals)?));
        let _ = fs::remove_file(&totals);
        let text = text?;
        let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
        Ok(Self {
            messages: (CONNECTIONS * in_flight * rounds) as u64,
            instructions: totals.ok_or("callgrind has written no totals")?.trim().parse()?,
        })
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

/// Sends `in_flight` messages on each connection, then reads all echoes, and so on.
fn drive(port: u16, in_flight: usize, rounds: usize) -> Outcome<()> {
    let mut message = (PAYLOAD as u32).to_be_bytes().to_vec();
    message.resize(4 + PAYLOAD, b'x');
    let batch = message.repeat(in_flight);
    let mut echo = vec![0; batch.len()];
    let connect = |_| {
        let peer = TcpStream::connect(("127.0.0.1", port))?;
        peer.set_nodelay(true)?;
        Ok::<_, std::io::Error>(peer)
    };
    let mut peers = (0..CONNECTIONS).map(connect).collect::<Result<Vec<_>, _>>()?;
    for _ in 0..rounds {
        for peer in &mut peers {
            peer.write_all(&batch)?;
        }
        for peer in &mut peers {
            peer.read_exact(&mut echo)?;
            if echo != batch {
                return Err("an echo is not what was sent".into());
            }
        }
    }
    Ok(())
}
