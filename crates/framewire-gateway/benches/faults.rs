//! How long others' messages take while peers of a gateway misbehave.
//!
//! `cargo bench -p framewire-gateway --bench faults` measures round trips of one client and its server, who do nothing
//! wrong, for a second in peace and a second beside each fault, in rounds that alternate; `--rounds N` (default 5),
//! `--seconds S`. What is told is the median round trip beside each fault, as a multiple of that in peace.
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
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use framewire_gateway::{Dialect, protocol::Command};
use peers::{Client, serve};
use process::Gateway;

/// IDs of servers: of the peers that are measured, and of those that misbehave.
const MEASURED: u32 = 1;
const FLOODED: u32 = 2;
const STOPPED: u32 = 3;
const KILLED: u32 = 4;
const LARGE: usize = 60_000;

/// Does one thing wrong, again and again until it is told to stop.
type Fault = fn(&Gateway, &AtomicBool);

const FAULTS: [(&str, Fault); 7] = [
    ("wrong digests, 1,000 a second", wrong_digests),
    ("broken frames, 500 links a second", broken_frames),
    ("20 writers of one byte, 2,000 a second", one_byte_writers),
    ("a client that does not read, flooded", closed_window),
    ("a server that does not read, flooded", stopped_server),
    ("clients killed, 200 a second", killed_clients),
    ("a server with 20 clients killed, 20 times a second", killed_server),
];

struct Args {
    rounds: usize,
    seconds: f64,
}

fn args() -> Args {
    let mut args = Args { rounds: 5, seconds: 1.0 };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut value = || given.next().unwrap_or_else(|| panic!("{name} needs a value"));
        match name.as_str() {
            "--rounds" => args.rounds = value().parse().expect("a number"),
            "--seconds" => args.seconds = value().parse().expect("a number"),
            // Given by cargo.
            "--bench" => {}
            _ => panic!("{name}: --rounds N, --seconds S"),
        }
    }
    args
}

/// Calls it at a rate until it is told to stop. What is late is not made up for.
fn at_rate(each: Duration, is_over: &AtomicBool, mut act: impl FnMut()) {
    while !is_over.load(Relaxed) {
        let began = Instant::now();
        act();
        thread::sleep(each.saturating_sub(began.elapsed()));
    }
}

/// Reads until the gateway has ended the link.
fn see_the_end(mut link: TcpStream) {
    let _ = link.read_to_end(&mut Vec::new());
}

fn wrong_digests(gateway: &Gateway, is_over: &AtomicBool) {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                at_rate(Duration::from_millis(4), is_over, || {
                    let mut link = TcpStream::connect(gateway.servers).expect("connected");
                    let answer = Dialect::Md5.answer(&[0; 8], &[0; 16], b"not the key", MEASURED);
                    link.write_all(&answer).expect("written");
                    see_the_end(link);
                });
            });
        }
    });
}

fn broken_frames(gateway: &Gateway, is_over: &AtomicBool) {
    const BROKEN: [&[u8]; 4] =
        [&[0; 4], &[4, 0, 0, 0, 0, 0, 0, 0], &[5, 0, 0, 0, 0, 0, 0, 0, 9], &[255, 255, 255, 255]];
    let mut kinds = BROKEN.iter().cycle();
    at_rate(Duration::from_millis(2), is_over, || {
        let mut link = TcpStream::connect(gateway.clients).expect("connected");
        link.write_all(kinds.next().expect("endless")).expect("written");
        see_the_end(link);
    });
}

fn one_byte_writers(gateway: &Gateway, is_over: &AtomicBool) {
    let link = gateway.server(FLOODED);
    let mut clients: Vec<_> =
        (0..20).map(|_| TcpStream::connect(gateway.clients).expect("connected")).collect();
    clients.iter().for_each(|client| client.set_nodelay(true).expect("an option"));
    let ping = Command::Ping.frame();
    let mut at = 0;
    at_rate(Duration::from_millis(10), is_over, || {
        clients.iter_mut().for_each(|client| client.write_all(&ping[at..=at]).expect("written"));
        at = (at + 1) % ping.len();
    });
    drop(link);
}

/// Opens a connection of a client that will not read, and returns it with its frame of a server that floods it.
fn dialed(gateway: &Gateway, server: u32) -> (Client, Vec<u8>) {
    let mut client = Client::connect(gateway.clients).expect("connected");
    let conn = loop {
        // Refused until the server is known.
        if let Some(conn) = client.dial(server).expect("an answer") {
            break conn;
        }
    };
    let length = LARGE as u32 + 4;
    (client, [&length.to_le_bytes()[..], &conn.to_le_bytes(), &[9; LARGE]].concat())
}

fn closed_window(gateway: &Gateway, is_over: &AtomicBool) {
    let mut server = gateway.server(FLOODED);
    let (_client, frame) = dialed(gateway, FLOODED);
    // 60 MB a second; those behind the Close are discarded.
    at_rate(Duration::from_millis(1), is_over, || server.write_all(&frame).expect("written"));
}

fn stopped_server(gateway: &Gateway, is_over: &AtomicBool) {
    let _server = gateway.server(STOPPED);
    let (mut client, frame) = dialed(gateway, STOPPED);
    let is_held = gateway.counter("holds");
    while gateway.counter("holds") == is_held {
        client.write(&frame).expect("written");
    }
    at_rate(Duration::from_millis(10), is_over, || {});
}

fn killed_clients(gateway: &Gateway, is_over: &AtomicBool) {
    let serving = serve(gateway.server(KILLED));
    at_rate(Duration::from_millis(5), is_over, || drop(dialed(gateway, KILLED)));
    drop(serving);
}

fn killed_server(gateway: &Gateway, is_over: &AtomicBool) {
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(gateway.clients).expect("connected")).collect();
    at_rate(Duration::from_millis(50), is_over, || {
        let link = gateway.server(KILLED);
        for client in &mut clients {
            while client.dial(KILLED).expect("an answer").is_none() {}
        }
        drop(link);
        clients.iter_mut().for_each(|client| drop(client.frame().expect("a Close")));
    });
}

/// Measures round trips for a while. Returns the median and the 99th of 100, in microseconds.
fn round_trips(client: &mut Client, conn: u32, time: Duration) -> (f64, f64) {
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        let sent = Instant::now();
        client.echo(conn, &[7; 64]).expect("an echo");
        took.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    took.sort_by(f64::total_cmp);
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let args = args();
    let gateway = Gateway::start();
    let serving = serve(gateway.server(MEASURED));
    let mut client = Client::connect(gateway.clients).expect("connected");
    let conn = loop {
        if let Some(conn) = client.dial(MEASURED).expect("an answer") {
            break conn;
        }
    };
    let time = Duration::from_secs_f64(args.seconds);
    round_trips(&mut client, conn, time);
    for (name, fault) in FAULTS {
        let (mut ratios, mut far) = (Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            let (peace, peace_far) = round_trips(&mut client, conn, time);
            let is_over = AtomicBool::new(false);
            let (beside, beside_far) = thread::scope(|scope| {
                scope.spawn(|| fault(&gateway, &is_over));
                thread::sleep(Duration::from_millis(200));
                let beside = round_trips(&mut client, conn, time);
                is_over.store(true, Relaxed);
                beside
            });
            println!(
                "{name}: {beside:.0} us, in peace {peace:.0} us; 99 of 100 within {beside_far:.0} us, in peace {peace_far:.0} us"
            );
            ratios.push(beside / peace);
            far.push(beside_far / peace_far);
        }
        let (middle, far) = (median(&mut ratios), median(&mut far));
        println!(
            "{name}: {middle:.2} x ({:.2} to {:.2}, {} rounds), 99 of 100: {far:.2} x",
            ratios[0],
            ratios[ratios.len() - 1],
            args.rounds
        );
    }
    drop(gateway);
    serving.join().expect("no panic");
}
