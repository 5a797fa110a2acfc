//! An echo whose numbers Prometheus scrapes. `cargo run --release --features prometheus --example prometheus_endpoint`,
//! then `nc 127.0.0.1 7000` and type some lines, and `curl -s 127.0.0.1:9100/metrics`.
//!
//! The page comes from framewire too, as a second service on the same threads: the head of a request is a packet that ends
//! with an empty line. Arguments choose other addresses: first that of the echo, then that of the page.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{sync::Arc, time::Duration};

use framewire::{
    Handled, Limits, PacketHandler, Raw, Reactor, Separator, Server, Session, WorkerPool, packet_fn,
};
use prometheus_client::{encoding::text, registry::Registry};

/// A request has no body, and its head is no longer than this.
const MAX_HEAD: usize = 8 * 1024;
/// Prometheus needs one connection, and people a few.
const MAX_CONNECTIONS: usize = 64;
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Replies to `GET /metrics`, once per connection.
#[derive(Clone)]
struct Page {
    registry: Arc<Registry>,
}

impl Page {
    fn reply(&self, head: &[u8]) -> Result<String, &'static str> {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        match line.split(|byte| *byte == b' ').collect::<Vec<_>>()[..] {
            [b"GET", b"/metrics", b"HTTP/1.0" | b"HTTP/1.1"] => {
                let mut page = String::new();
                text::encode(&mut page, &self.registry).map_err(|_| "500 Internal Server Error")?;
                Ok(page)
            }
            [b"GET", _, b"HTTP/1.0" | b"HTTP/1.1"] => Err("404 Not Found"),
            [_, _, b"HTTP/1.0" | b"HTTP/1.1"] => Err("405 Method Not Allowed\r\nAllow: GET"),
            _ => Err("400 Bad Request"),
        }
    }
}

impl PacketHandler for Page {
    type State = ();

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), head: &[u8]) -> Handled {
        let (status, body) = match self.reply(head) {
            Ok(page) => ("200 OK", page),
            Err(status) => (status, String::new()),
        };
        // The framing adds the empty line; what follows is no packet.
        session.send(format!(
            "HTTP/1.1 {status}\r\nContent-Type: {TYPE}\r\nContent-Length: {}\r\nConnection: close",
            body.len()
        ))?;
        session.set_framing(Raw::new());
        if !body.is_empty() {
            session.send(body)?;
        }
        session.close();
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = |default: &str| args.next().unwrap_or_else(|| default.into());
    let echo = Server::bind(next("127.0.0.1:7000"))?.framing(Separator::lines());
    let page = Server::bind(next("127.0.0.1:9100"))?.framing(Separator::bytes("\r\n\r\n")?).limits(
        Limits::default()
            .frame(MAX_HEAD)
            .connections(MAX_CONNECTIONS)
            .first_packet_timeout(Duration::from_secs(5)),
    );
    let mut registry = Registry::default();
    for (name, server) in [("echo", echo.handle()), ("page", page.handle())] {
        let labelled = registry.sub_registry_with_label(("server".into(), name.into()));
        labelled.register_collector(Box::new(server));
    }
    page.local_addrs().iter().for_each(|addr| println!("metrics at http://{addr}/metrics"));
    echo.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    Reactor::new(WorkerPool::new(2))
        .service(echo, packet_fn(|session, line| Ok(session.send(line)?)))
        .service(page, Page { registry: Arc::new(registry) })
        .run()?;
    Ok(())
}
