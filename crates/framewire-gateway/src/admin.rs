//! The page of a gateway: who is connected, for people and for programs.
//!
//! A little of HTTP/1.1: the lines of a request's head are packets, and the connection is closed behind the reply.

use std::{fmt::Write, sync::Arc, time::Instant};

use framewire::{Failure, Handled, Limits, PacketHandler, Raw, Separator, Session};
use serde::Serialize;

use crate::{
    counters::GatewayMetrics,
    registry::{GatewaySnapshot, ServerEntry},
    threads::Shared,
};

/// The longest line of a request, in bytes, and the most lines.
const MAX_LINE: usize = 8 * 1024;
const MAX_LINES: usize = 100;
/// Connections to the page at the same time.
const READERS: usize = 64;
const PAGE: &str = include_str!("page.html");

/// Replies to requests for the page.
#[derive(Clone)]
pub(crate) struct Admin {
    shared: Arc<Shared>,
    started: Instant,
}

impl Admin {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, started: Instant::now() }
    }

    pub(crate) fn framing() -> Separator {
        Separator::crlf().max(MAX_LINE)
    }

    pub(crate) fn limits() -> Limits {
        let patience = std::time::Duration::from_secs(10);
        Limits::default().connections(READERS).first_packet_timeout(patience).max_age(3 * patience)
    }

    /// Returns the reply to a request that begins with this line.
    fn reply(&self, line: &[u8]) -> Vec<u8> {
        let mut words = line.split(|byte| *byte == b' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let is_head = method == b"HEAD";
        if !is_head && method != b"GET" {
            return response("405 Method Not Allowed", "text/plain", "only GET and HEAD\n", false);
        }
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        match path {
            b"/" => response("200 OK", "text/html; charset=utf-8", PAGE, is_head),
            b"/status.json" => match serde_json::to_string(&self.status()) {
                Ok(status) => response("200 OK", "application/json", &status, is_head),
                Err(error) => {
                    response("500 Internal Server Error", "text/plain", &error.to_string(), is_head)
                }
            },
            b"/metrics" => {
                let text = prometheus(&self.shared.registry.snapshot(), &self.shared.metrics());
                response("200 OK", "text/plain; version=0.0.4; charset=utf-8", &text, is_head)
            }
            _ => response("404 Not Found", "text/plain", "/, /status.json and /metrics are here\n", is_head),
        }
    }

    fn status(&self) -> Status {
        let GatewaySnapshot { clients, connections, servers } = self.shared.registry.snapshot();
        let metrics = self.shared.metrics();
        let counters = metrics.samples().map(|(name, _, value)| (name, value)).collect();
        let servers = servers.iter().map(ServerStatus::from).collect();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            clients,
            connections,
            servers,
            counters,
        }
    }
}

impl PacketHandler for Admin {
    type State = Head;

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled<Head> {
        Ok(Head::default())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, head: &mut Head, line: &[u8]) -> Handled {
        head.lines += 1;
        if head.lines > MAX_LINES {
            return Err(Failure::because("too many lines in the head of a request"));
        }
        if head.lines == 1 {
            head.first = line.into();
        }
        if line.is_empty() {
            // A reply ends with its body, without the separator of lines.
            session.set_framing(Raw::new());
            session.send(self.reply(&head.first))?;
            session.close();
        }
        Ok(())
    }
}

/// What has come of a request.
#[derive(Debug, Default)]
pub(crate) struct Head {
    first: Box<[u8]>,
    lines: usize,
}

/// What the page shows.
#[derive(Serialize)]
struct Status {
    version: &'static str,
    uptime_ms: u64,
    clients: usize,
    connections: usize,
    servers: Vec<ServerStatus>,
    counters: std::collections::BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct ServerStatus {
    id: u32,
    takes_dials: bool,
    connections: usize,
    frames: u64,
    bytes: u64,
}

impl From<&ServerEntry> for ServerStatus {
    fn from(server: &ServerEntry) -> Self {
        let ServerEntry { id, takes_dials, connections, frames, bytes } = *server;
        Self { id, takes_dials, connections, frames, bytes }
    }
}

fn response(status: &str, kind: &str, body: &str, is_head: bool) -> Vec<u8> {
    let len = body.len();
    let mut reply = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len}\r\ncache-control: no-store\r\n\
         x-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
    );
    if !is_head {
        reply.push_str(body);
    }
    reply.into_bytes()
}

/// Returns the text that Prometheus reads.
fn prometheus(snapshot: &GatewaySnapshot, metrics: &GatewayMetrics) -> String {
    let mut text = String::new();
    let mut put = |name: &str, kind: &str, help: &str, rows: &[(String, u64)]| {
        let _ =
            writeln!(text, "# HELP framewire_gateway_{name} {help}\n# TYPE framewire_gateway_{name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(text, "framewire_gateway_{name}{labels} {value}");
        }
    };
    let one = |value: usize| [(String::new(), value as u64)];
    put("connected_clients", "gauge", "Clients that are connected.", &one(snapshot.clients));
    put("connected_servers", "gauge", "Server links.", &one(snapshot.servers.len()));
    put("connections", "gauge", "Virtual connections.", &one(snapshot.connections));
    let newest = snapshot.servers.iter().filter(|server| server.takes_dials);
    let rows: Vec<_> = newest
        .map(|server| {
            let same = snapshot.servers.iter().filter(|other| other.id == server.id);
            (format!("{{server=\"{}\"}}", server.id), same.map(|other| other.connections as u64).sum())
        })
        .collect();
    put("server_connections", "gauge", "Virtual connections of the links with a server ID.", &rows);
    for (name, help, value) in metrics.samples() {
        put(&format!("{name}_total"), "counter", help.trim(), &[(String::new(), value)]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limits::GatewayLimits, registry::LinkAddr};

    fn admin() -> Admin {
        let shared = Arc::new(Shared::new(GatewayLimits::default()));
        for slot in 0..2 {
            shared.registry.add_server(7, LinkAddr { thread: 0, slot, generation: 0 }, Arc::default());
        }
        let (_, thread) = shared.add_thread();
        thread.counters.frames.add(5);
        Admin::new(shared)
    }

    fn reply(line: &str) -> (String, String) {
        let reply = String::from_utf8(admin().reply(line.as_bytes())).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn the_page_the_status_and_the_metrics_are_there_and_nothing_else() {
        let (head, body) = reply("GET / HTTP/1.1");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && body == PAGE);
        assert!(head.contains(&format!("content-length: {}\r\n", PAGE.len())));
        assert!(reply("GET /etc/passwd HTTP/1.1").0.starts_with("HTTP/1.1 404 "));
        assert!(reply("POST / HTTP/1.1").0.starts_with("HTTP/1.1 405 "));
        for nonsense in ["", " ", "GET", "\u{fffd}"] {
            assert!(reply(nonsense).0.starts_with("HTTP/1.1 40"), "{nonsense:?}");
        }
        let (head, body) = reply("HEAD /metrics?now HTTP/1.1");
        assert!(head.starts_with("HTTP/1.1 200 OK") && body.is_empty());
    }

    #[test]
    fn the_status_is_json() {
        let (_, body) = reply("GET /status.json HTTP/1.1");
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status["servers"][0]["id"], 7);
        assert_eq!(status["servers"][1]["takes_dials"], false);
        assert_eq!(status["counters"]["frames"], 5);
    }

    #[test]
    fn the_metrics_have_each_a_help_and_a_type() {
        let (_, text) = reply("GET /metrics HTTP/1.1");
        assert!(text.contains("\nframewire_gateway_frames_total 5\n"), "{text}");
        assert!(text.contains("\nframewire_gateway_server_connections{server=\"7\"} 0\n"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(
                text.contains(&format!("# TYPE {name} ")) && text.contains(&format!("# HELP {name} ")),
                "{line}"
            );
        }
    }
}
