//! A line echo behind a proxy, which knows who its clients are. `cargo run --example behind_proxy`, then
//! `printf 'PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\nhello\n' | nc -q1 127.0.0.1 7000`; or with HAProxy in front:
//! `server echo 127.0.0.1:7000 send-proxy-v2`.
//!
//! The first argument chooses another address, the others the networks of the proxies: `127.0.0.1` unless there are any.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use framewire::{
    CloseReason, Handled, Limits, PacketHandler, ProxyProtocol, Separator, Server, Session, SessionInfo,
    WorkerPool,
};

/// Connections that one client may have; the proxy may have any number.
const PER_CLIENT: usize = 100;

#[derive(Clone)]
struct Echo;

impl PacketHandler for Echo {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        let header = session.proxied();
        let to = header.and_then(|header| header.destination()).map(ToString::to_string);
        let host = header.and_then(|header| header.authority()).unwrap_or("no host");
        println!("{} has connected to {} for {host}", session.peer_addr(), to.as_deref().unwrap_or("us"));
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), line: &[u8]) -> Handled {
        Ok(session.send(line)?)
    }

    fn on_close(&mut self, session: &SessionInfo, (): (), reason: &CloseReason) {
        println!("{} has left: {reason}", session.peer);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let mut proxies: Vec<String> = args.collect();
    if proxies.is_empty() {
        proxies.push("127.0.0.1".to_owned());
    }
    let running = Server::bind(addr)?
        .framing(Separator::lines())
        .limits(Limits::default().connections_per_peer(PER_CLIENT))
        .proxy_protocol(ProxyProtocol::trusting(proxies)?)
        .strategy(WorkerPool::per_core())
        .spawn(Echo)?;
    for addr in running.local_addrs() {
        println!("listening on {addr}");
    }
    Ok(running.wait()?)
}
