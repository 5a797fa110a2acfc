//! A line chat on every core. `cargo run --release --example chat`, then `nc 127.0.0.1 7000` in two terminals: type a
//! name first, then what you have to say; `/who` lists the members.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use framewire::{CloseReason, Failure, Handled, PacketHandler, SendError, Separator, Server, SessionInfo};
use framewire::{Session, SessionHandle, WorkerPool};

const MAX_MEMBERS: usize = 1000;
const MAX_NAME: usize = 20;
/// The longest line that a member may send, in bytes. It is sent on after the name.
const MAX_LINE: usize = 500;

type Done = Handled;
type Room = BTreeMap<String, SessionHandle>;

/// The members of the room, by name; shared by all shards.
#[derive(Clone, Default)]
struct Chat(Arc<Mutex<Room>>);

fn lock(room: &Mutex<Room>) -> MutexGuard<'_, Room> {
    room.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends to all members but one. A member that does not read is cut off: a chat with gaps is worse than none.
fn tell(room: &Room, except: &str, line: &str) {
    for (_, member) in room.iter().filter(|(name, _)| *name != except) {
        if !matches!(member.send(line), Ok(()) | Err(SendError::Closed)) {
            let _ = member.abort(); // An error means that it is gone already.
        }
    }
}

impl PacketHandler for Chat {
    type State = Option<String>; // The name, once there is one.

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<Self::State> {
        Ok(session.send("* your name?").map(|()| None)?)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, state: &mut Self::State, line: &[u8]) -> Done {
        let line = std::str::from_utf8(line)?;
        let mut room = lock(&self.0);
        match (&*state, line) {
            (_, line) if line.len() > MAX_LINE => session.send("* too long")?,
            (Some(_), "/who") => room.keys().try_for_each(|name| session.send(format!("* {name}")))?,
            (Some(name), line) => tell(&room, name, &format!("{name}: {line}")),
            (None, _) if room.len() == MAX_MEMBERS => return Err(Failure::because("the room is full")),
            (None, name) if room.contains_key(name) => session.send("* that name is taken")?,
            (_, "") => session.send("* say something")?,
            (None, name) if name.len() > MAX_NAME => session.send("* 20 bytes at most")?,
            (None, name) => {
                session.send(format!("* welcome, {name}"))?;
                room.insert(name.to_owned(), session.handle());
                tell(&room, name, &format!("* {name} joins"));
                *state = Some(name.to_owned());
            }
        }
        Ok(())
    }

    // Not in `on_close`, which a peer can delay: a member that was cut off leaves the room at once.
    fn on_closing(&mut self, _session: &SessionInfo, state: &mut Self::State, _reason: &CloseReason) {
        if let Some(name) = state.take() {
            let mut room = lock(&self.0);
            room.remove(&name);
            tell(&room, &name, &format!("* {name} leaves"));
        }
    }
}

fn main() -> Result<(), framewire::ServeError> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let server = Server::bind(addr)?.framing(Separator::lines().max(MAX_LINE + MAX_NAME + 20));
    let running = server.strategy(WorkerPool::per_core()).spawn(Chat::default())?;
    running.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    running.wait()
}
