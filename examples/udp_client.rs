//! Asks servers on UDP and shows what they reply. Start `cargo run --release --example udp_echo` in another terminal, then
//! `cargo run --release --example udp_client`: it asks each second, and again and again while nobody is there.
//!
//! The arguments are other servers to ask, each by a session of its own: `cargo run --release --example udp_client --
//! 127.0.0.1:7000 [::1]:7000`.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{error::Error, time::Duration};

use framewire::{
    CloseReason, Dial, Handled, Limits, PacketHandler, Reconnect, Server, Session, SessionInfo, TimerId,
};

/// A server that has said nothing for so long is taken for gone.
const SILENCE: Duration = Duration::from_secs(5);
const EVERY: Duration = Duration::from_secs(1);
const ASK: TimerId = TimerId(1);

#[derive(Clone)]
struct Asker;

impl PacketHandler for Asker {
    /// How often it was asked.
    type State = u32;

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<u32> {
        // Nothing was sent so far: that a session is open does not say that a server is there.
        session.send("question 1")?;
        session.set_timer(ASK, EVERY)?;
        Ok(1)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, _asked: &mut u32, reply: &[u8]) -> Handled {
        println!("{}: {}", session.peer_addr(), reply.escape_ascii());
        Ok(())
    }

    fn on_timer(&mut self, session: &mut Session<'_>, asked: &mut u32, _timer: TimerId) -> Handled {
        *asked = asked.wrapping_add(1);
        session.send(format_args!("question {asked}"))?;
        Ok(session.set_timer(ASK, EVERY)?)
    }

    fn on_close(&mut self, session: &SessionInfo, _asked: u32, reason: &CloseReason) {
        println!("{}: {reason}", session.peer);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut servers: Vec<String> = std::env::args().skip(1).collect();
    if servers.is_empty() {
        servers.push("127.0.0.1:7000".to_owned());
    }
    let running = Server::unbound_udp().limits(Limits::default().idle_timeout(SILENCE)).spawn(Asker)?;
    // For ever: after random pauses of up to 0.2 s, 0.4 s … 5 s.
    let again = Reconnect::exponential(Duration::from_millis(200), SILENCE);
    for server in servers {
        running.connect(Dial::to_udp(server).reconnect(again.clone()))?;
    }
    Ok(running.wait()?)
}
