//! A chat behind a gateway. `cargo run --release -p framewire-gateway -- --open-to-all`, and in another terminal
//! `cargo run --release -p framewire-gateway --example gateway_chat`: type lines. `.. --example gateway_chat -- join` in a third one
//! takes part as well.
//!
//! The first one is the server of the chat, with the ID 1, and takes part; the addresses of the gateway's two sides may
//! follow as arguments: `.. gateway_chat -- both 127.0.0.1:7000 127.0.0.1:7001`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

use std::{
    collections::BTreeMap,
    io::{BufRead, stdin},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use framewire_gateway::{
    Dialect,
    blocking::{Connection, Endpoint, EndpointError},
};

/// The ID of the chat's server.
const CHAT: u32 = 1;
/// The empty key, which a gateway takes that is open to all.
const KEY: &[u8] = b"";
const PATIENCE: Duration = Duration::from_secs(10);
/// Who waits for longer than this is asked again.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Who takes part, by the ID of their connection.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<BTreeMap<u32, Arc<Connection>>>>);

impl Room {
    fn members(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Connection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, text: &str) {
        let members: Vec<_> = self.members().values().cloned().collect();
        for member in members {
            // One that is gone is about to be taken out.
            let _ = member.send(text.as_bytes());
        }
    }

    /// Passes on what one member says, until it leaves.
    fn listen(&self, member: &Connection) {
        let name = format!("client {}", member.remote());
        self.tell(&format!("* {name} has joined"));
        loop {
            match member.recv(FOR_EVER) {
                Ok(Some(line)) => self.tell(&format!("{name}: {}", String::from_utf8_lossy(&line))),
                Err(EndpointError::TimedOut(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.members().remove(&member.id());
        self.tell(&format!("* {name} has left"));
    }
}

/// Serves the chat, with a thread for each member.
fn serve(link: &Endpoint) -> Result<(), EndpointError> {
    let room = Room::default();
    loop {
        let member = match link.accept(FOR_EVER) {
            Ok(member) => Arc::new(member),
            Err(EndpointError::TimedOut(_)) => continue,
            Err(error) => return Err(error),
        };
        room.members().insert(member.id(), member.clone());
        let room = room.clone();
        thread::spawn(move || room.listen(&member));
    }
}

/// Takes part: says what is typed, and shows what is said.
fn join(gateway: &str) -> Result<(), EndpointError> {
    let link = Endpoint::client(gateway)?;
    let chat = Arc::new(link.dial(CHAT, PATIENCE)?);
    let hears = chat.clone();
    let listening = thread::spawn(move || {
        loop {
            match hears.recv(FOR_EVER) {
                Ok(Some(line)) => println!("{}", String::from_utf8_lossy(&line)),
                Err(EndpointError::TimedOut(_)) => {}
                Ok(None) => return println!("* the chat is over"),
                Err(error) => return eprintln!("{error}"),
            }
        }
    });
    for line in stdin().lock().lines().map_while(Result::ok) {
        chat.send(line.as_bytes())?;
    }
    chat.close();
    let _ = listening.join();
    Ok(())
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let role = args.next().unwrap_or_else(|| "both".to_owned());
    let mut addr = |default: &str| args.next().unwrap_or_else(|| default.to_owned());
    let (clients, servers) = (addr("127.0.0.1:7000"), addr("127.0.0.1:7001"));
    let done = match role.as_str() {
        "join" => join(&clients),
        "both" => Endpoint::server(&servers, CHAT, KEY, Dialect::Md5).and_then(|link| {
            let serving = link.clone();
            thread::spawn(move || serve(&serving));
            dial_when_known(&clients)
        }),
        _ => {
            eprintln!("gateway_chat [both | join] [ADDR OF CLIENTS] [ADDR OF SERVERS]");
            return 2.into();
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The gateway does not say when it knows a server: a dial that comes too early is refused, and tried again.
fn dial_when_known(clients: &str) -> Result<(), EndpointError> {
    for _ in 0..50 {
        match join(clients) {
            Err(EndpointError::Refused { .. }) => thread::sleep(Duration::from_millis(100)),
            done => return done,
        }
    }
    join(clients)
}
