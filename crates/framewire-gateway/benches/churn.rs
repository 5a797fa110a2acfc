//! Clients that come and go: what they leave behind in a gateway, and how long its clients are without a server that is
//! killed and started again.
//!
//! `cargo bench -p framewire-gateway --bench churn -- --minutes 10` connects 30,000 clients a minute; each opens a
//! virtual connection, sends a message, waits until it comes back, and leaves in one of three ways. `--minutes M`
//! (default 1), `--rate N` clients a minute. Fails if a client, a connection, a descriptor or memory is left.
//!
//! Then a server with 1,000 clients is killed and started again, `--rounds N` times (default 5).
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a program for people who measure"
)]

#[path = "support/peers.rs"]
mod peers;
#[path = "support/process.rs"]
mod process;

use std::{
    net::Shutdown,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use framewire_gateway::protocol::Command;
use peers::{Client, serve};
use process::Gateway;

const SERVERS: [u32; 3] = [1, 2, 3];
/// Threads of clients.
const THREADS: u64 = 8;
/// Clients that come and go before memory is looked at for the first time.
const WARM_UP: u64 = 2_000;
/// Bytes that the gateway may hold more after the churn than after the warm-up: caches, not clients.
const TOLERANCE: u64 = 4 << 20;
/// Clients of the server that is killed.
const CLIENTS: usize = 1_000;

struct Args {
    minutes: f64,
    rate: u64,
    rounds: usize,
}

fn args() -> Args {
    let mut args = Args { minutes: 1.0, rate: 30_000, rounds: 5 };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut value = || given.next().unwrap_or_else(|| panic!("{name} needs a value"));
        match name.as_str() {
            "--minutes" => args.minutes = value().parse().expect("a number"),
            "--rate" => args.rate = value().parse().expect("a number"),
            "--rounds" => args.rounds = value().parse().expect("a number"),
            // Given by cargo.
            "--bench" => {}
            _ => panic!("{name}: --minutes M, --rate N, --rounds N"),
        }
    }
    args
}

/// One client: comes, is served, and goes.
fn visit(gateway: &Gateway, number: u64) -> std::io::Result<()> {
    let mut client = Client::connect(gateway.clients)?;
    let conn = client.dial(SERVERS[number as usize % SERVERS.len()])?;
    let conn = conn.ok_or(std::io::ErrorKind::ConnectionRefused)?;
    client.echo(conn, &number.to_le_bytes())?;
    if number % 3 == 0 {
        client.send(Command::Close { conn })?;
        client.frame()?;
    } else if number % 3 == 1 {
        // Half a frame is the last that comes.
        client.send(Command::Close { conn })?;
    }
    Ok(())
}

/// Lets so many clients come and go, evenly spread over the time. Returns how many were not served.
fn churn(gateway: &Gateway, clients: u64, time: Duration) -> u64 {
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= clients {
                        return;
                    }
                    let due = time.mul_f64(number as f64 / clients as f64);
                    thread::sleep(due.saturating_sub(began.elapsed()));
                    if visit(gateway, number).is_err() {
                        failed.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    failed.into_inner()
}

/// Waits until no client is left; `false` if some stay.
fn is_left_by_all(gateway: &Gateway) -> bool {
    let began = Instant::now();
    while began.elapsed() < process::PATIENCE {
        let status = gateway.status();
        if status["clients"] == 0 && status["connections"] == 0 {
            return true;
        }
        thread::sleep(Duration::from_millis(100));
    }
    false
}

fn come_and_go(args: &Args) -> bool {
    let gateway = Gateway::start();
    let links = SERVERS.map(|id| gateway.server(id));
    let servers = links.each_ref().map(|link| serve(link.try_clone().expect("a descriptor")));
    thread::sleep(Duration::from_millis(200));
    let mut failed = churn(&gateway, WARM_UP, Duration::ZERO);
    let mut is_empty = is_left_by_all(&gateway);
    let (memory, descriptors) = (gateway.process.memory(), gateway.process.descriptors());
    let mut minutes = args.minutes;
    while minutes > 0.0 {
        let part = minutes.min(1.0);
        let (began, cpu) = (Instant::now(), gateway.process.cpu());
        let clients = (args.rate as f64 * part) as u64;
        failed += churn(&gateway, clients, Duration::from_secs_f64(60.0 * part));
        println!(
            "{clients} clients in {:.0} s, {failed} not served so far; {:.1} us of processor time for each, {} KiB, \
             {} descriptors",
            began.elapsed().as_secs_f64(),
            (gateway.process.cpu() - cpu) as f64 / 1000.0 / clients as f64,
            gateway.process.memory() / 1024,
            gateway.process.descriptors(),
        );
        minutes -= part;
    }
    is_empty &= is_left_by_all(&gateway);
    let (opened, closed) = (gateway.counter("opened"), gateway.counter("closed"));
    let more = gateway.process.memory().saturating_sub(memory);
    let left = gateway.process.descriptors().saturating_sub(descriptors);
    println!(
        "{opened} connections opened, {closed} closed; {left} descriptors and {} KiB more than before, clients left: {}",
        more / 1024,
        !is_empty
    );
    links.iter().for_each(|link| link.shutdown(Shutdown::Both).expect("shut down"));
    servers.into_iter().for_each(|server| server.join().expect("no panic"));
    is_empty && failed == 0 && opened == closed && left == 0 && more <= TOLERANCE
}

/// A server that is killed, and started again at once: how long until all clients know, and until all are served.
fn restart(args: &Args) {
    const ID: u32 = 1;
    let gateway = Gateway::start();
    let mut link = gateway.server(ID);
    let mut serving = serve(link.try_clone().expect("a descriptor"));
    thread::sleep(Duration::from_millis(200));
    let clients = (0..CLIENTS).map(|_| {
        let mut client = Client::connect(gateway.clients).expect("connected");
        let conn = client.dial(ID).expect("an answer").expect("accepted");
        (client, conn)
    });
    let mut clients: Vec<_> = clients.collect();
    for round in 1..=args.rounds {
        let began = Instant::now();
        link.shutdown(Shutdown::Both).expect("shut down");
        serving.join().expect("no panic");
        for (client, conn) in &mut clients {
            assert_eq!(client.frame().expect("a frame")[..], Command::Close { conn: *conn }.frame()[..]);
        }
        let known = began.elapsed();
        link = gateway.server(ID);
        serving = serve(link.try_clone().expect("a descriptor"));
        for (client, conn) in &mut clients {
            *conn = loop {
                // Refused until the gateway has seen the server's digest.
                if let Some(conn) = client.dial(ID).expect("an answer") {
                    break conn;
                }
            };
            client.echo(*conn, b"again").expect("an echo");
        }
        let served = began.elapsed();
        println!(
            "{round}: all of {CLIENTS} clients know after {known:?}, and are served again after {served:?}"
        );
    }
}

fn main() -> ExitCode {
    let args = args();
    let is_clean = come_and_go(&args);
    restart(&args);
    if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
