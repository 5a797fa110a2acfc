//! A line echo server on every core. `cargo run --release --example echo`, then `nc 127.0.0.1 7000` and type.
//!
//! The first argument chooses another address: `cargo run --release --example echo -- 127.0.0.1:0`.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use framewire::{Separator, Server, WorkerPool, packet_fn};

fn main() -> Result<(), framewire::ServeError> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let running = Server::bind(addr)?
        .framing(Separator::lines())
        // The line to change: SingleReactor::new(), WorkerPool::new(4), ThreadPerConnection::max(1024).
        .strategy(WorkerPool::per_core())
        .spawn(packet_fn(|session, packet| Ok(session.send(packet)?)))?;
    for addr in running.local_addrs() {
        println!("listening on {addr}");
    }
    running.wait()
}
