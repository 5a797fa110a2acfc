//! What a forwarded message costs, and what an idle client and a virtual connection hold, beside an echo server.
//!
//! `cargo bench -p framewire-gateway --bench forward` runs 5 rounds of 1,000 clients with 2 virtual connections each, 64
//! bytes, and 3 servers that echo, with 1 and 16 messages in flight on each client; before that as many rounds of idle
//! clients with 16 virtual connections each, for their memory, each in a gateway of its own. Arguments behind `--`:
//! `--clients N`, `--rounds N`, `--seconds S` for each run, and `--echo COMMAND`: an echo server to compare with, which
//! speaks a big-endian u32 of length and the payload on `{port}`. Without it the comparison is `lab_echo`, the echo of
//! framewire's own examples (`cargo build --release --example lab_echo` first).
//!
//! Gateway and echo server are processes of their own; what is measured is their processor time, over replies that were
//! counted, in rounds that alternate. A forwarded message is one way, so an echo through the gateway is two of them.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a program for people who measure"
)]

#[path = "forward/load.rs"]
mod load;
#[path = "support/process.rs"]
mod process;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use load::Load;
use process::{Gateway, Measured};

/// IDs of the servers behind the gateway.
const SERVERS: [u32; 3] = [1, 2, 3];
const PER_CLIENT: usize = 2;
/// The virtual connections of each client that idles.
const IDLE_PER_CLIENT: usize = 16;
const IN_FLIGHT: [usize; 2] = [1, 16];

struct Args {
    clients: usize,
    rounds: usize,
    seconds: f64,
    echo: Option<String>,
}

fn args() -> Args {
    let mut args = Args { clients: 1000, rounds: 5, seconds: 1.0, echo: None };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut value = || given.next().unwrap_or_else(|| panic!("{name} needs a value"));
        match name.as_str() {
            "--clients" => args.clients = value().parse().expect("a number"),
            "--rounds" => args.rounds = value().parse().expect("a number"),
            "--seconds" => args.seconds = value().parse().expect("a number"),
            "--echo" => args.echo = Some(value()),
            // Given by cargo.
            "--bench" => {}
            _ => panic!("{name}: --clients N, --rounds N, --seconds S, --echo COMMAND"),
        }
    }
    args
}

fn echo(command: &str) -> (Measured, SocketAddr) {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let command = command.replace("{port}", &port.to_string());
    let mut words = command.split_whitespace();
    let child = Command::new(words.next().expect("a command")).args(words).stdout(Stdio::null()).spawn();
    let measured = Measured { child: child.unwrap_or_else(|error| panic!("{command}: {error}")) };
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let began = Instant::now();
    while TcpStream::connect(addr).is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "{command}: it does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    (measured, addr)
}

fn lab_echo() -> String {
    let target = Path::new(env!("CARGO_BIN_EXE_framewire-gateway")).parent().expect("a directory");
    format!("{} --port {{port}}", target.join("examples/lab_echo").display())
}

/// Connects servers and clients, who have no virtual connections yet.
fn connect(gateway: &Gateway, count: usize) -> Load {
    let servers: Vec<TcpStream> = SERVERS.iter().map(|id| gateway.server(*id)).collect();
    thread::sleep(Duration::from_millis(200));
    Load::of_gateway(gateway.clients, servers, count)
}

/// Bytes for each idle client, for each of its idle virtual connections, and for each client after all have left.
fn idle_memory(count: usize) -> [u64; 3] {
    let gateway = Gateway::start();
    let empty = gateway.process.memory();
    let mut idle = connect(&gateway, count);
    let links = gateway.process.memory();
    idle.dial(IDLE_PER_CLIENT, &SERVERS);
    let connections = gateway.process.memory();
    drop(idle);
    thread::sleep(Duration::from_secs(1));
    let left = gateway.process.memory();
    let count = count as u64;
    [
        links.saturating_sub(empty) / count,
        connections.saturating_sub(links) / (count * IDLE_PER_CLIENT as u64),
        left.saturating_sub(empty) / count,
    ]
}

fn main() {
    let args = args();
    let rounds: Vec<_> = (0..args.rounds).map(|_| idle_memory(args.clients)).collect();
    for (what, at) in
        [("an idle client", 0), ("an idle virtual connection", 1), ("a client that has left", 2)]
    {
        let mut bytes: Vec<u64> = rounds.iter().map(|round| round[at]).collect();
        bytes.sort_unstable();
        let (least, most) = (bytes[0], bytes[bytes.len() - 1]);
        println!(
            "{} clients with {IDLE_PER_CLIENT} each: {} B for {what} ({least} to {most}, {} rounds)",
            args.clients,
            bytes[bytes.len() / 2],
            args.rounds
        );
    }
    let gateway = Gateway::start();
    let (echo, echo_addr) = echo(&args.echo.clone().unwrap_or_else(lab_echo));
    let empty = gateway.process.memory();
    let mut through = connect(&gateway, args.clients);
    through.dial(PER_CLIENT, &SERVERS);
    let before = gateway.process.memory();
    println!(
        "before the load: {} B for a client with its connections",
        (before - empty) / args.clients as u64
    );
    let mut direct = Load::of_echo(echo_addr, args.clients);
    for in_flight in IN_FLIGHT {
        let mut ratios = Vec::new();
        for _ in 0..args.rounds {
            let forwarded = cost(&gateway.process, &mut through, in_flight, args.seconds) / 2.0;
            let echoed = cost(&echo, &mut direct, in_flight, args.seconds);
            println!(
                "{in_flight:>3} in flight: {forwarded:6.0} ns a forwarded message, {echoed:6.0} ns an echo"
            );
            ratios.push(forwarded / echoed);
        }
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        let median = ratios[ratios.len() / 2];
        println!(
            "{in_flight:>3} in flight: {median:.2} x an echo ({least:.2} to {most:.2}, {} rounds)",
            args.rounds
        );
    }
    let after = gateway.process.memory();
    println!("after the load: {} B for a client with its connections", (after - empty) / args.clients as u64);
}

/// Nanoseconds of the process's time for each reply.
fn cost(process: &Measured, load: &mut Load, in_flight: usize, seconds: f64) -> f64 {
    let before = process.cpu();
    let replies = load.run(in_flight, Duration::from_secs_f64(seconds));
    (process.cpu() - before) as f64 / replies as f64
}
