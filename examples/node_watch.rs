//! A master that watches nodes by their heartbeats. `cargo run --release --example node_watch`, and in other terminals
//! `cargo run --release --example node_watch -- node alpha`: end and start them, and the master too. Or
//! `nc 127.0.0.1 7000` and type `NODE beta`, then nothing; or `NODES`.
//!
//! A node beats every second, and the master replies to each beat: each side finds out when the other is gone, however it
//! has gone. A node that has lost its master connects again, after a random time that grows up to 10 s, so that a master
//! that comes back is not overrun. `master ADDRESS MILLISECONDS` and `node NAME ADDRESS MILLISECONDS` choose another
//! address, and another time between beats.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{
    collections::BTreeMap,
    error::Error,
    hash::{BuildHasher, RandomState},
    thread,
    time::Duration,
};

use framewire::{
    CloseReason, Failure, Handled, Heartbeat, Limits, PacketHandler, Separator, Server, Session, SessionId,
    SessionInfo, SingleReactor,
    blocking::{Client, ClientError},
};

const ADDR: &str = "127.0.0.1:7000";
const MAX_LINE: usize = 80;
const BEAT_MILLIS: &str = "1000";
/// Beats without a sign of the other side.
const LOST_AFTER: u16 = 3;
/// How long a node waits before it connects again, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// All nodes live on one reactor, so the list needs no lock.
#[derive(Clone, Default)]
struct Master(BTreeMap<String, SessionId>);

impl Master {
    fn welcome(&mut self, session: &mut Session<'_>, name: &str) -> Handled<Option<String>> {
        if name.is_empty() {
            return Err(Failure::because("no name"));
        }
        // A node that comes back before its old connection was found dead takes its place.
        if let Some(old) = self.0.insert(name.to_owned(), session.id()) {
            session.close_session(old)?;
        }
        println!("{name} is here: {} nodes", self.0.len());
        session.send("WELCOME")?;
        Ok(Some(name.to_owned()))
    }
}

impl PacketHandler for Master {
    type State = Option<String>; // The name, once there is one.

    fn on_open(&mut self, _: &mut Session<'_>) -> Handled<Self::State> {
        Ok(None)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, name: &mut Self::State, line: &[u8]) -> Handled {
        match (std::str::from_utf8(line)?, &name) {
            ("NODES", _) => {
                let names: Vec<_> = self.0.keys().map(String::as_str).collect();
                session.send(names.join(" "))?;
            }
            ("BEAT", Some(_)) => session.send("SEEN")?,
            (line, None) => *name = self.welcome(session, line.strip_prefix("NODE ").unwrap_or_default())?,
            _ => return Err(Failure::because("no line of a node")),
        }
        Ok(())
    }

    fn on_closing(&mut self, session: &SessionInfo, name: &mut Self::State, reason: &CloseReason) {
        if let Some(name) = name.take_if(|name| self.0.get(name) == Some(&session.id)) {
            self.0.remove(&name);
            println!("{name} is lost: {reason}");
        }
    }
}

fn lead(addr: &str, beat: Duration) -> Result<(), Box<dyn Error>> {
    let running = Server::bind(addr)?
        .framing(Separator::lines().max(MAX_LINE))
        .limits(Limits::default().idle_timeout(beat * LOST_AFTER.into()))
        .strategy(SingleReactor::new())
        .stop_on_signal(Duration::from_secs(1))
        .spawn(Master::default())?;
    running.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    Ok(running.wait()?)
}

/// One connection, until it ends. `wait` is as at first once there is a master that knows this node.
fn follow(name: &str, addr: &str, beat: &Heartbeat, wait: &mut Duration) -> Result<(), ClientError> {
    // No timeout: that the master is gone is found out by the beats.
    let mut master = Client::connect(addr, Separator::lines().max(MAX_LINE))?.timeout(None);
    master.send(format_args!("NODE {name}"))?;
    master.set_heartbeat(beat.clone());
    while let Some(line) = master.recv()? {
        if line == b"WELCOME" {
            println!("{addr} watches {name}");
            *wait = FIRST_WAIT;
        }
    }
    Ok(())
}

fn serve_as_node(name: &str, addr: &str, beat: Duration) -> Result<(), Box<dyn Error>> {
    let beat = Heartbeat::every(beat, "BEAT")?.lost_after(LOST_AFTER);
    let mut wait = FIRST_WAIT;
    loop {
        let why = follow(name, addr, &beat, &mut wait)
            .map_or_else(|error| error.to_string(), |()| "it has ended".into());
        println!("no master: {why}");
        // Anything up to the whole time: nodes that were lost together do not come back together.
        let share = RandomState::new().hash_one(name) % 1000;
        thread::sleep(wait * (1 + share as u32) / 1000);
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |at: usize, default: &'static str| args.get(at).map_or(default, String::as_str);
    let beat = |at| Ok::<_, std::num::ParseIntError>(Duration::from_millis(arg(at, BEAT_MILLIS).parse()?));
    match arg(0, "master") {
        "master" => lead(arg(1, ADDR), beat(2)?),
        "node" => serve_as_node(args.get(1).ok_or("a node needs a name")?, arg(2, ADDR), beat(3)?),
        other => Err(format!("no role {other:?}; use master or node").into()),
    }
}
