//! A server that ends well. `cargo run --release --example graceful_shutdown`, then `nc 127.0.0.1 7000`, type, and
//! press ctrl-c in the server's terminal: each session gets what was sent to it and a farewell, then the figures are
//! printed. A second ctrl-c does not wait.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{error::Error, time::Duration};

use framewire::{CloseKind, Handled, PacketHandler, Separator, Server, Session, Then, WorkerPool};

/// How long the sessions have to deliver their last bytes; then they are cut.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Shout;

impl PacketHandler for Shout {
    type State = ();

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, _state: &mut (), line: &[u8]) -> Handled {
        Ok(session.send(line.to_ascii_uppercase())?)
    }

    fn on_shutdown(&mut self, session: &mut Session<'_>, _state: &mut ()) -> Handled<Then> {
        // A peer that cannot take a farewell is closed without one.
        let _ = session.send("goodbye");
        Ok(Then::Close)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let server = Server::bind(addr)?.framing(Separator::lines().max(1000)).strategy(WorkerPool::per_core());
    let running = server.stop_on_signal(GRACE).spawn(Shout)?;
    running.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));

    let server = running.handle();
    running.wait()?;

    let metrics = server.metrics();
    println!("{} sessions, {} closed by the shutdown", metrics.opened, metrics.closed(CloseKind::Shutdown));
    println!("{} packets in, {} packets out", metrics.packets_in, metrics.packets_out);
    Ok(())
}
