//! Requests and replies behind a length of two bytes, with a login. `cargo run --release --example request_reply`, then
//! `printf '\0\7HELLO 1\0\20LOGIN ann secret\0\6ADD 42' | nc -q1 127.0.0.1 7000`, or
//! `nc 127.0.0.1 7001` and type `HELLO 1`: at that port a request is a line.
//!
//! Each session is a state machine: Hello → Login → Ready. A request out of place gets an error as its reply.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use framewire::{Failure, Handled, LengthPrefix, PacketHandler, Separator, Server, Session, TimerId};
use std::time::Duration;

const MAX_REQUEST: usize = 1024;
const TRIES: u8 = 3;
const LOGIN_TIMER: TimerId = TimerId(1);
const LOGIN_WITHIN: Duration = Duration::from_secs(30);

type Done = Handled;

/// The state of a session.
enum Phase {
    /// The peer has sent nothing yet.
    Hello,
    /// The versions agree; the user is not known yet.
    Login { tries_left: u8 },
    /// Logged in, with a sum of its own.
    Ready { sum: i64 },
}

#[derive(Clone)]
struct Desk;

impl PacketHandler for Desk {
    type State = Phase;

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<Phase> {
        session.set_timer(LOGIN_TIMER, LOGIN_WITHIN)?;
        Ok(Phase::Hello)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, phase: &mut Phase, packet: &[u8]) -> Done {
        let text = String::from_utf8_lossy(packet);
        let words: Vec<&str> = text.split(' ').take(4).collect();
        match (&mut *phase, &words[..]) {
            (Phase::Hello, ["HELLO", "1"]) => {
                *phase = Phase::Login { tries_left: TRIES };
                session.send("HELLO 1")?;
            }
            (Phase::Login { .. }, ["LOGIN", _user, "secret"]) => {
                *phase = Phase::Ready { sum: 0 };
                session.cancel_timer(LOGIN_TIMER);
                session.send("WELCOME")?;
            }
            (Phase::Login { tries_left }, ["LOGIN", ..]) => {
                *tries_left -= 1;
                session.send(format!("DENIED {tries_left} tries left"))?;
                if *tries_left == 0 {
                    return Err(Failure::because("wrong password"));
                }
            }
            (Phase::Ready { sum }, ["ADD", number]) => {
                let new = number.parse().ok().and_then(|number| sum.checked_add(number));
                *sum = new.unwrap_or(*sum);
                session.send(new.map_or("ERROR no number".into(), |sum| format!("SUM {sum}")))?;
            }
            (_, ["QUIT"]) => session.close(),
            _ => session.send("ERROR not now")?,
        }
        Ok(())
    }

    fn on_timer(&mut self, _: &mut Session<'_>, _: &mut Phase, _: TimerId) -> Done {
        Err(Failure::because("no login in time"))
    }
}

fn main() -> Result<(), framewire::ServeError> {
    let mut args = std::env::args().skip(1);
    let binary = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let typed = args.next().unwrap_or_else(|| "127.0.0.1:7001".to_owned());
    let server = Server::bind(binary)?.framing(LengthPrefix::u16_be().max(MAX_REQUEST));
    let running = server.also(typed, Separator::lines().max(MAX_REQUEST))?.spawn(Desk)?;
    running.local_addrs().iter().skip(1).for_each(|addr| println!("typed requests at {addr}"));
    running.local_addrs().iter().take(1).for_each(|addr| println!("listening on {addr}"));
    running.wait()
}
