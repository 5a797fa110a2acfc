//! A line to log in, then binary packets on the same connection. `cargo run --release --example upgrade`, then
//! `printf 'LOGIN ann\n\0\0\0\2hi' | nc -q1 127.0.0.1 7000 | xxd`.
//!
//! What the client sent after its line goes to the new framing, however it was split on arrival.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::time::Duration;

use framewire::{Failure, Handled, LengthPrefix, Limits, Separator, Server, Session, session_fn};

const MAX_LINE: usize = 100;
const MAX_PACKET: usize = 64 * 1024;

/// Which framing is in force.
enum Stage {
    Lines,
    Binary { user: String },
}

fn greet(session: &mut Session<'_>) -> Handled<Stage> {
    session.send("LOGIN please")?;
    Ok(Stage::Lines)
}

fn answer(session: &mut Session<'_>, stage: &mut Stage, packet: &[u8]) -> Handled {
    match stage {
        Stage::Lines => {
            let line = std::str::from_utf8(packet).unwrap_or_default();
            let Some(user) = line.strip_prefix("LOGIN ").filter(|user| !user.is_empty()) else {
                session.send("NO")?;
                return Err(Failure::because("no login"));
            };
            // The reply is still a line; everything after it is binary, in both directions.
            session.send("OK")?;
            session.set_framing(LengthPrefix::u32_be().max(MAX_PACKET));
            *stage = Stage::Binary { user: user.to_owned() };
        }
        Stage::Binary { user } => {
            session.send(&*user)?;
            session.send(packet)?;
        }
    }
    Ok(())
}

fn main() -> Result<(), framewire::ServeError> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let limits = Limits::default().first_packet_timeout(Duration::from_secs(10));
    let server = Server::bind(addr)?.framing(Separator::lines().max(MAX_LINE)).limits(limits);
    let running = server.spawn(session_fn(greet, answer))?;
    running.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    running.wait()
}
