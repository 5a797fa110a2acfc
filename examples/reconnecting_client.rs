//! A client that survives its server. `cargo run --release --example echo`, and in another terminal
//! `cargo run --release --example reconnecting_client`: end the server and start it again.
//!
//! It sends a numbered line every second, and prints what comes back. While there is no connection the lines are kept, up
//! to 64 KiB; it connects again after random pauses that grow up to 5 s. `ADDRESS MILLISECONDS` choose another server, and
//! another time between lines.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{env, error::Error, thread, time::Duration};

use framewire::{
    CloseReason, Dial, Handled, PacketHandler, Reconnect, Separator, Server, Session, SessionInfo, WhileDown,
};

const ADDR: &str = "127.0.0.1:7000";
const MILLIS: &str = "1000";
const MAX_LINE: usize = 1024;

#[derive(Clone)]
struct Printer;

impl PacketHandler for Printer {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        println!("connected to {}", session.peer_addr());
        Ok(())
    }

    fn on_packet(&mut self, _: &mut Session<'_>, (): &mut (), line: &[u8]) -> Handled {
        println!("heard {}", line.escape_ascii());
        Ok(())
    }

    fn on_close(&mut self, session: &SessionInfo, (): (), reason: &CloseReason) {
        println!("lost {}: {reason}", session.peer);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| ADDR.to_owned());
    let every = Duration::from_millis(args.next().as_deref().unwrap_or(MILLIS).parse()?);

    let client = Server::unbound().framing(Separator::lines().max(MAX_LINE)).spawn(Printer)?;
    let dial = Dial::to(addr)
        .reconnect(Reconnect::exponential(Duration::from_millis(100), Duration::from_secs(5)))
        .while_down(WhileDown::Keep { bytes: 64 * 1024 });
    let upstream = client.connect(dial)?;
    for number in 1_u64.. {
        if let Err(error) = upstream.send(format_args!("line {number}")) {
            println!("line {number} is not sent: {error}");
        }
        thread::sleep(every);
    }
    Ok(())
}
