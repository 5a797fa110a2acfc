//! A proxy that changes the framing. `cargo run --release --example proxy -- 127.0.0.1:7000 127.0.0.1:7001`, with
//! `cargo run --release --example lab_echo -- --port 7001` as the server behind; then `nc 127.0.0.1 7000` and type.
//!
//! Its clients speak lines, the server behind speaks lengths of four bytes.
//! With `--raw` behind the addresses its clients speak lengths of four bytes too: the same work as that of a proxy for plain
//! TCP, to compare costs.
//!
//! With `--proxy-header` there instead, the server behind is told for whom each connection is made.
//!
//! A client is not read from until the server behind is there. Then the two sessions are linked: their packets go to each
//! other without a callback, a peer that does not read holds up the other, and each end is passed on.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{collections::HashMap, time::Duration};

use framewire::{
    CloseReason, Dial, DialError, DialId, EncodeError, Failure, Handled, LengthPrefix, Limits, Origin,
    PacketHandler, ProxyHeader, Separator, Server, Session, SessionId, SessionInfo, ShardContext, WorkerPool,
};

/// The longest packet.
const MAX: usize = 64 * 1024;
/// How long the server behind may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

#[derive(Clone)]
struct Proxy {
    /// The server behind.
    behind: String,
    /// It is told who the client is, before anything else.
    says_who: bool,
    /// Clients that wait for their connections to it. All of one thread: a client and its connection share it.
    waiting: HashMap<DialId, SessionId>,
}

impl PacketHandler for Proxy {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        match session.origin() {
            Origin::Accepted { .. } => {
                session.pause();
                let mut dial =
                    Dial::to(&self.behind).framing(LengthPrefix::u32_be().max(MAX)).timeout(CONNECT_WITHIN);
                if self.says_who {
                    dial = dial.proxy_header(header(session)?);
                }
                let dial = session.connect(dial)?;
                self.waiting.insert(dial, session.id());
            }
            Origin::Dialled(dial) => {
                let client = self.waiting.remove(&dial).ok_or(Failure::because("the client has left"))?;
                session.link(client)?;
            }
            _ => return Err(Failure::because("a session of unknown origin")),
        }
        Ok(())
    }

    fn on_packet(&mut self, _: &mut Session<'_>, (): &mut (), _: &[u8]) -> Handled {
        Err(Failure::because("a packet of a session that is not linked"))
    }

    fn on_dial_failed(&mut self, shard: &mut ShardContext<'_, ()>, dial: DialId, error: &DialError) {
        if let Some(client) = self.waiting.remove(&dial) {
            shard.close_with(client, error.to_string());
        }
    }

    fn on_closing(&mut self, session: &SessionInfo, (): &mut (), _: &CloseReason) {
        self.waiting.retain(|_, client| *client != session.id);
    }
}

/// Who the client is, with an id by which both sides can name the connection in their logs.
fn header(session: &Session<'_>) -> Result<ProxyHeader, EncodeError> {
    let header = ProxyHeader::v2(session.peer_addr(), session.local_addr());
    Ok(header.with_tlv(ProxyHeader::UNIQUE_ID, session.id().to_string())?.with_checksum())
}

fn main() -> Result<(), framewire::ServeError> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let behind = args.next().unwrap_or_else(|| "127.0.0.1:7001".to_owned());
    let option = args.next().unwrap_or_default();
    let (is_raw, says_who) = (option == "--raw", option == "--proxy-header");
    let (server, proxy) = (Server::bind(addr)?, Proxy { behind, says_who, waiting: HashMap::new() });
    let limits = Limits::default().frame(MAX);
    // A client and its connection live on one thread, under any of the strategies that share threads.
    let running = if is_raw {
        server.framing(LengthPrefix::u32_be()).limits(limits).spawn(proxy)?
    } else {
        server.framing(Separator::lines()).limits(limits).strategy(WorkerPool::per_core()).spawn(proxy)?
    };
    running.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    running.wait()
}
