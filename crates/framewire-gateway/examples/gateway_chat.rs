//! A chat that is served directly or behind a gateway, by the same handler: one line is different.
//!
//! - Behind a gateway: `cargo run --release -p framewire-gateway -- --open-to-all`, and in another terminal
//!   `cargo run --release -p framewire-gateway --example gateway_chat`: type lines. `.. --example gateway_chat -- join` in a third
//!   one takes part as well. The first one is the server of the chat, with the ID 1, and takes part; the addresses of the gateway's
//!   two sides may follow as arguments: `.. gateway_chat -- both 127.0.0.1:7000 127.0.0.1:7001`.
//! - Directly: `.. --example gateway_chat -- direct 127.0.0.1:7000`, and `nc 127.0.0.1 7000` in other terminals.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

use std::{
    error::Error,
    io::{BufRead, stdin},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use framewire::{Channel, CloseReason, Handled, PacketHandler, Separator, Server, Session, SessionInfo};
use framewire_gateway::{
    ServerEndpoint, Virtual,
    blocking::{Endpoint, EndpointError},
};

/// The ID of the chat's server.
const CHAT: u32 = 1;
/// The empty key, which a gateway takes that is open to all.
const KEY: &str = "";
const PATIENCE: Duration = Duration::from_secs(10);
/// Who waits for longer than this is asked again.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Passes on what one member says to all of them. Knows nothing of gateways but how to call their clients.
#[derive(Clone, Default)]
struct Chat {
    room: Channel,
}

impl PacketHandler for Chat {
    type State = String;

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<String> {
        let name = match Virtual::of(session) {
            Some(member) => format!("client {}", member.remote),
            None => session.peer_addr().to_string(),
        };
        self.room.join(&session.handle())?;
        self.room.publish(format!("* {name} has joined"))?;
        Ok(name)
    }

    fn on_packet(&mut self, _: &mut Session<'_>, name: &mut String, line: &[u8]) -> Handled {
        self.room.publish(format!("{name}: {}", String::from_utf8_lossy(line)))?;
        Ok(())
    }

    fn on_closing(&mut self, _: &SessionInfo, name: &mut String, _: &CloseReason) {
        // It has left the room by now.
        let _ = self.room.publish(format!("* {name} has left"));
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

/// The gateway does not say when it knows a server: a dial that comes too early is refused, and tried again.
fn join_when_known(clients: &str) -> Result<(), EndpointError> {
    for _ in 0..50 {
        match join(clients) {
            Err(EndpointError::Refused { .. }) => thread::sleep(Duration::from_millis(100)),
            done => return done,
        }
    }
    join(clients)
}

fn run(role: &str, mut addr: impl FnMut(&str) -> String) -> Result<(), Box<dyn Error>> {
    let chat = Chat::default();
    match role {
        "direct" => {
            let server = Server::bind(addr("127.0.0.1:7000"))?.framing(Separator::lines());
            println!("* {:?}", server.local_addrs());
            server.serve(chat)?;
        }
        "both" => {
            let (clients, servers) = (addr("127.0.0.1:7000"), addr("127.0.0.1:7001"));
            let _running = ServerEndpoint::new([servers], CHAT, KEY).spawn(chat)?;
            join_when_known(&clients)?;
        }
        _ => join(&addr("127.0.0.1:7000"))?,
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let role = args.next().unwrap_or_else(|| "both".to_owned());
    if !["both", "join", "direct"].contains(&role.as_str()) {
        eprintln!("gateway_chat [both | join | direct] [ADDR OF CLIENTS] [ADDR OF SERVERS]");
        return 2.into();
    }
    match run(&role, |default| args.next().unwrap_or_else(|| default.to_owned())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error}");
            ExitCode::FAILURE
        }
    }
}
