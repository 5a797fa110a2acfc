//! A chat for browsers and terminals on one port. `cargo run --release --features websocket --example web_chat`, then open
//! <http://127.0.0.1:8080> in a browser, and `nc 127.0.0.1 8080` in a terminal: type a name first, then what you have to
//! say.
//!
//! The first bytes of a connection tell what it is: an HTTP request is answered with the page, or becomes a WebSocket,
//! whose messages are packets; anything else is lines. The handler does not tell them apart.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::time::Duration;

use framewire::{
    Channel, CloseReason, Handled, PacketHandler, Separator, Server, Session, SessionInfo, Sniff, WorkerPool,
    websocket::{CloseFrame, MessageKind, Request, Response, WebSocket},
};

const PAGE: &str = include_str!("page.html");
/// The longest name, in bytes.
const MAX_NAME: usize = 20;
/// The longest line that a member may send, in bytes.
const MAX_LINE: usize = 500;

#[derive(Clone)]
struct Chat {
    room: Channel,
}

impl PacketHandler for Chat {
    type State = Option<String>; // The name, once there is one.

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<Option<String>> {
        session.send("* your name?")?;
        Ok(None)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, name: &mut Option<String>, line: &[u8]) -> Handled {
        // A message of a browser may have several lines, which are one for the others.
        let line = std::str::from_utf8(line)?.trim().replace(char::is_control, " ");
        match name {
            None if line.is_empty() || line.len() > MAX_NAME => session.send("* 1 to 20 bytes, please")?,
            None => {
                session.send(format_args!("* welcome, {line}"))?;
                self.room.publish(format_args!("* {line} joins"))?;
                self.room.join(&session.handle())?;
                *name = Some(line);
            }
            // A browser is told the code; a terminal sees that the connection ends.
            Some(_) if line == "/quit" => return Err(CloseFrame::new(4000, "goodbye").into()),
            Some(_) if line.len() > MAX_LINE => session.send("* too long")?,
            Some(name) => drop(self.room.publish(format_args!("{name}: {line}"))?),
        }
        Ok(())
    }

    fn on_closing(&mut self, _: &SessionInfo, name: &mut Option<String>, _: &CloseReason) {
        if let Some(name) = name {
            // It has left the channel by now.
            let _ = self.room.publish(format_args!("* {name} leaves"));
        }
    }
}

/// Takes WebSockets of the page itself, and of programs that are no browsers.
fn check(request: &Request) -> Result<(), Response> {
    let host = request.header("Host").unwrap_or_default();
    let is_own = |origin: &str| origin.split_once("://").is_some_and(|(_, from)| from == host);
    match request.path() {
        "/chat" if request.origin().is_none_or(is_own) => Ok(()),
        "/chat" => Err(Response::new(403)),
        _ => Err(Response::new(404)),
    }
}

fn page(request: &Request) -> Response {
    match request.path() {
        "/" => Response::new(200)
            .header(
                "Content-Security-Policy",
                "default-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'",
            )
            .header("X-Content-Type-Options", "nosniff")
            .body("text/html; charset=utf-8", PAGE),
        _ => Response::new(404).body("text/plain; charset=utf-8", "There is a page at / and nothing else.\n"),
    }
}

fn main() -> Result<(), framewire::ServeError> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let websocket = WebSocket::new().send_as(MessageKind::Text).check(check).http(page);
    let running = Server::bind(addr)?
        .framing(Separator::lines().max(MAX_LINE + MAX_NAME + 20))
        .sniff(Sniff::new().websocket(websocket))
        .strategy(WorkerPool::per_core())
        .stop_on_signal(Duration::from_secs(5))
        .spawn(Chat { room: Channel::new() })?;
    running.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    running.wait()
}
