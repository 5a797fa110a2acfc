//! An echo server on UDP, on every core. `cargo run --release --example udp_echo`, then `nc -u 127.0.0.1 7000` and type: each
//! datagram comes back behind its number.
//!
//! A peer is a session, which is forgotten after 10 s of silence. A new peer then has room; if there are 100,000, the one
//! that was silent for longest makes room. The first argument chooses another address:
//! `cargo run --release --example udp_echo -- 127.0.0.1:0`.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::time::Duration;

use framewire::{Beyond, Limits, ServeError, Server, WorkerPool, session_fn};

/// The longest datagram that nearly every path carries in one piece: 1,280 bytes, the least of IPv6, less its headers.
const LONGEST: usize = 1_232;

fn main() -> Result<(), ServeError> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let limits = Limits::default().frame(LONGEST).connections(100_000).idle_timeout(Duration::from_secs(10));
    let echo = session_fn(
        |_session| Ok(0_u32),
        |session, count, datagram| {
            *count = count.wrapping_add(1);
            // The reply is no longer than what it replies to, plus the number: no help for those who forge addresses.
            let text = String::from_utf8_lossy(datagram);
            Ok(session.send(format_args!("{count} {text}"))?)
        },
    );
    let running = Server::bind_udp(addr)?
        .limits(limits)
        .beyond(Beyond::ForgetIdlest)
        .strategy(WorkerPool::per_core()) // or SingleReactor::new()
        .spawn(echo)?;
    for addr in running.local_addrs() {
        println!("listening on {addr}");
    }
    running.wait()
}
