//! An admin port beside a binary user port, on the same threads. `cargo run --release --example admin_port`, then
//! `nc 127.0.0.1 7001` and type `users`, `say TEXT` or `kick NUMBER`; a user is
//! `printf '\0\0\0\5hello' | nc -q9 127.0.0.1 7000 | xxd`.
//!
//! Arguments choose other addresses: first that of the users, then that of the administrators.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use framewire::{Addr, CloseReason, Handled, LengthPrefix, PacketHandler, Reactor, Separator, Server};
use framewire::{Session, SessionId, SessionInfo, WorkerPool};

const MAX_LINE: usize = 500;

/// The connected users, by a number that can be typed; shared by both services and all threads.
#[derive(Clone, Default)]
struct Users(Arc<Mutex<BTreeMap<u64, (SessionId, Addr)>>>);

impl Users {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (SessionId, Addr)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PacketHandler for Users {
    type State = u64;

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<u64> {
        let mut users = self.lock();
        let number = users.last_key_value().map_or(1, |(last, _)| last + 1);
        users.insert(number, (session.id(), session.peer_addr()));
        Ok(number)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, _number: &mut u64, packet: &[u8]) -> Handled {
        Ok(session.send(packet)?)
    }

    fn on_closing(&mut self, _session: &SessionInfo, number: &mut u64, _reason: &CloseReason) {
        self.lock().remove(number);
    }
}

/// Replies to administrators.
#[derive(Clone)]
struct Admin(Users);

impl PacketHandler for Admin {
    type State = ();

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), line: &[u8]) -> Handled {
        let line = std::str::from_utf8(line)?;
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let users = self.0.lock();
        match (command, rest) {
            ("users", "") => {
                for (number, (id, peer)) in users.iter() {
                    session.send(format!("{number} {peer} (session {id})"))?;
                }
                session.send(format!("{} users", users.len()))?;
            }
            ("say", text) => {
                for (user, _) in users.values() {
                    session.send_to(*user, text)?;
                }
                session.send(format!("told {} users", users.len()))?;
            }
            ("kick", number) => match number.parse().ok().and_then(|number: u64| users.get(&number)) {
                Some((user, peer)) => {
                    session.close_session(*user)?;
                    session.send(format!("closing {peer}"))?;
                }
                None => session.send(format!("no user {number:?}"))?,
            },
            _ => session.send("users | say TEXT | kick NUMBER")?,
        }
        Ok(())
    }
}

fn main() -> Result<(), framewire::ServeError> {
    let mut args = std::env::args().skip(1);
    let mut addr = |default: &str| args.next().unwrap_or_else(|| default.to_owned());
    let users = Server::bind(addr("127.0.0.1:7000"))?.framing(LengthPrefix::u32_be());
    let admin = Server::bind(addr("127.0.0.1:7001"))?.framing(Separator::lines().max(MAX_LINE));
    admin.local_addrs().iter().for_each(|addr| println!("administrators at {addr}"));
    users.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    let known = Users::default();
    Reactor::new(WorkerPool::per_core()).service(users, known.clone()).service(admin, Admin(known)).run()
}
