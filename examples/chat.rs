//! Chat rooms, with a kick. `cargo run --release --example chat`, then `nc 127.0.0.1 7000` in two terminals: type a name
//! first, then what you have to say, or `/join ROOM`, `/who`, `/kick NAME`. The one who opened a room may kick.
//!
//! All sessions live on one reactor, so one handler has them all, and its list of names needs no lock. The rooms are
//! channels, which work across threads too. On a `WorkerPool` each worker would have a list of names of its own: put it
//! behind an `Arc<Mutex<..>>` there.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{collections::BTreeMap, time::Duration};

use framewire::{
    Channel, Channels, CloseReason, Failure, Handled, JoinError, Left, PacketHandler, Separator,
};
use framewire::{Server, Session, SessionHandle, SessionInfo, SingleReactor};

const MAX_MEMBERS: usize = 1000;
/// The longest name of a member or a room, in bytes.
const MAX_NAME: usize = 20;
/// The longest line that a member may send, in bytes. It is sent on after the name.
const MAX_LINE: usize = 500;

#[derive(Clone, Default)]
struct Chat {
    rooms: Channels,
    names: BTreeMap<String, SessionHandle>,
}

/// One who has told a name.
struct Member {
    name: String,
    room: Channel,
    /// The room was empty before: this member may kick.
    has_opened_it: bool,
}

impl Chat {
    fn welcome(&mut self, session: &mut Session<'_>, name: &str) -> Handled<Option<Member>> {
        let refusal = match name {
            "" => "* say something",
            name if name.len() > MAX_NAME => "* 20 bytes at most",
            name if self.names.contains_key(name) => "* that name is taken",
            _ if self.names.len() == MAX_MEMBERS => return Err(Failure::because("the chat is full")),
            name => {
                session.send(format!("* welcome, {name}"))?;
                let mut member = Member { name: name.into(), room: Channel::new(), has_opened_it: false };
                self.enter(session, &mut member, "lobby")?;
                self.names.insert(name.into(), session.handle());
                return Ok(Some(member));
            }
        };
        session.send(refusal)?;
        Ok(None)
    }

    /// Leaves the room for another, which exists from now on and for as long as it has members.
    fn enter(&self, session: &mut Session<'_>, member: &mut Member, room: &str) -> Handled {
        let me = session.handle();
        member.room.leave(&me);
        member.room = self.rooms.get(room);
        member.has_opened_it = member.room.is_empty();
        member.room.publish(format_args!("* {} joins", member.name))?;
        let (name, left) = (member.name.clone(), self.rooms.clone());
        let room = room.to_owned();
        // However the member leaves: by `/join`, by a kick, or with the connection.
        let on_leave = move |_, how| {
            let what = if how == Left::Kicked { "was kicked" } else { "leaves" };
            // Best effort: a member that is closed meanwhile misses nothing.
            let _ = left.find(&room).map(|room| room.publish(format_args!("* {name} {what}")));
        };
        match member.room.join_with(&me, on_leave) {
            // Closed meanwhile: `on_closing` comes next.
            Ok(()) | Err(JoinError::Closed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn kick(&self, session: &mut Session<'_>, member: &Member, name: &str) -> Handled {
        match self.names.get(name) {
            _ if !member.has_opened_it => session.send("* only the one who opened the room may kick")?,
            Some(other) if member.room.kick(other) => other.send("* you were kicked: /join another room")?,
            _ => session.send("* no such member")?,
        }
        Ok(())
    }
}

impl PacketHandler for Chat {
    type State = Option<Member>; // Once there is a name.

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<Self::State> {
        session.send("* your name?")?;
        Ok(None)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, state: &mut Self::State, line: &[u8]) -> Handled {
        let line = std::str::from_utf8(line)?;
        let Some(member) = state else {
            *state = self.welcome(session, line)?;
            return Ok(());
        };
        match line.split_once(' ').unwrap_or((line, "")) {
            _ if line.len() > MAX_LINE => session.send("* too long")?,
            ("/who", "") => {
                for (name, _) in self.names.iter().filter(|(_, other)| member.room.has(*other)) {
                    session.send(format!("* {name}"))?;
                }
            }
            ("/join", room) if room.is_empty() || room.len() > MAX_NAME => {
                session.send("* 1 to 20 bytes for a room")?;
            }
            ("/join", room) => {
                self.enter(session, member, room)?;
                session.send(format!("* you are in {room}"))?;
            }
            _ if !member.room.has(&session.handle()) => session.send("* you are in no room: /join one")?,
            ("/kick", name) => self.kick(session, member, name)?,
            _ => {
                // A member that does not read is closed: a chat with gaps is worse than none.
                member.room.publish_except(&session.handle(), format_args!("{}: {line}", member.name))?;
            }
        }
        Ok(())
    }

    // Not in `on_close`, which a peer can delay: the name is free at once. The room knows already.
    fn on_closing(&mut self, _: &SessionInfo, state: &mut Self::State, _: &CloseReason) {
        if let Some(member) = state {
            self.names.remove(&member.name);
        }
    }
}

fn main() -> Result<(), framewire::ServeError> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let running = Server::bind(addr)?
        .framing(Separator::lines().max(MAX_LINE + MAX_NAME + 20))
        .strategy(SingleReactor::new())
        .stop_on_signal(Duration::from_secs(5))
        .spawn(Chat::default())?;
    running.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    running.wait()
}
