//! The handler of the links, which carry the virtual connections.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use framewire::{
    CloseReason, Dial, DialError, DialId, Failure, Handled, Limits, NewStream, Origin, PacketHandler,
    Session, SessionInfo, ShardContext, StreamError, Streams, TimerId,
};

use super::{
    LinkOptions, VirtualDialError,
    carry::tag,
    handle::Shared,
    pending::{Accepted, MOST, Pending, PendingDial, Repeated},
};
use crate::{
    keys::Dialect,
    protocol::{Command, split},
};

/// Fires when dials of a link have waited long enough.
const EXPIRE: TimerId = TimerId(0);
/// The shortest time after which that is looked at.
const SHORTEST: Duration = Duration::from_millis(1);

/// What an endpoint is to its gateways.
#[derive(Clone)]
pub(super) enum Role {
    Client,
    Server { id: u32, key: Arc<Vec<u8>>, dialect: Dialect },
}

impl Role {
    /// Bytes that a gateway sends before its first frame.
    pub(super) fn challenge_len(&self) -> usize {
        match self {
            Self::Client => 0,
            Self::Server { dialect, .. } => dialect.challenge_len(),
        }
    }

    pub(super) fn limits(&self, options: &LinkOptions) -> Limits {
        let frame = 4 + options.max_length as usize;
        let limits = Limits::default();
        let limits = limits.frame(frame).idle_timeout(options.silence).outbox_hard((4 << 20) + frame);
        match self {
            Self::Client => limits,
            Self::Server { .. } => limits.first_packet_timeout(options.timeout),
        }
    }
}

/// The links of one thread.
pub(super) struct LinkHandler {
    role: Role,
    streams: Streams,
    shared: Arc<Shared>,
    /// The gateways that this thread dials, with their numbers, until it has begun.
    dials: Vec<(usize, Dial)>,
    gateways: HashMap<DialId, usize>,
}

/// A link.
pub(super) struct Link {
    gateway: usize,
    /// The gateway's challenge was answered.
    is_up: bool,
    pending: Pending,
    /// When the timer fires, at the latest at the first deadline of a dial.
    expires: Option<Instant>,
}

impl LinkHandler {
    pub(super) fn new(role: Role, streams: Streams, shared: Arc<Shared>, dials: Vec<(usize, Dial)>) -> Self {
        Self { role, streams, shared, dials, gateways: HashMap::new() }
    }

    /// Dials a virtual connection over this link.
    pub(super) fn dial(&self, session: &mut Session<'_>, link: &mut Link, dial: PendingDial) {
        if link.pending.len() >= MOST {
            return dial.end(Err(VirtualDialError::TooMany(MOST)));
        }
        let deadline = dial.deadline;
        let asked = match link.pending.begin(dial) {
            Some((conn, remote)) => session.send(&*Command::Dial { conn, remote }.frame()),
            None => session.send(&*Command::New.frame()),
        };
        if let Err(error) = asked {
            // Its outbox is full, or it is closing: whatever waits will be told.
            return session.close_with(error);
        }
        if link.expires.is_none_or(|known| deadline < known) {
            expire_at(session, link, deadline);
        }
    }

    /// Answers the challenge of a gateway.
    fn answer(&self, session: &mut Session<'_>, challenge: &[u8]) -> Handled {
        let Role::Server { id, key, dialect } = &self.role else { return Ok(()) };
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| Failure::because(format!("no random bytes: {error}")))?;
        Ok(session.send(dialect.answer(challenge, &nonce, key, *id))?)
    }

    fn up(&self, session: &Session<'_>, link: &mut Link) {
        link.is_up = true;
        self.shared.up(link.gateway, session.id());
        tracing::info!(gateway = link.gateway, addr = %session.peer_addr(), "a link to a gateway");
    }

    fn command(&self, session: &mut Session<'_>, link: &mut Link, command: Command) -> Handled {
        match command {
            Command::Ping => session.send(&*Command::Ping.frame())?,
            // What a stream of this number sends would be taken for commands.
            Command::Open { conn: 0 } | Command::Accept { conn: 0, .. } => {
                return Err(Failure::because(
                    "the gateway gave a connection the ID 0, which is that of commands",
                ));
            }
            Command::Open { conn } => {
                let opened = link.pending.opened(conn).map_err(|Repeated| {
                    Failure::because(format!(
                        "the gateway gave the ID {conn} again, before the dial of it was answered"
                    ))
                })?;
                if let Some((conn, remote)) = opened {
                    session.send(&*Command::Dial { conn, remote }.frame())?;
                }
            }
            Command::Refuse { conn } => {
                if let Some(dial) = link.pending.refused(conn) {
                    let remote = dial.remote;
                    dial.end(Err(VirtualDialError::Refused { remote }));
                }
            }
            Command::Accept { conn, remote } => return self.accept(session, link, conn, remote),
            Command::Close { conn } => self.streams.end(session, conn.into())?,
            Command::New | Command::Dial { .. } => {
                return Err(Failure::because("the gateway sent what only endpoints send"));
            }
        }
        Ok(())
    }

    fn accept(&self, session: &mut Session<'_>, link: &mut Link, conn: u32, remote: u32) -> Handled {
        let dial = match link.pending.accepted(conn) {
            Accepted::Theirs => None,
            Accepted::Ours(dial) => Some(dial),
            Accepted::Abandoned => return Ok(session.send(&*Command::Close { conn }.frame())?),
        };
        let tag = tag(link.gateway, dial.as_ref().map(|dial| dial.number));
        let stream = NewStream::new(conn.into()).peer(remote.into()).tag(tag);
        match self.streams.open(session, stream) {
            Ok(()) => {}
            Err(StreamError::Stopped | StreamError::Full { .. }) => {
                session.send(&*Command::Close { conn }.frame())?;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        if let Some(dial) = dial {
            dial.end(Ok(()));
        }
        Ok(())
    }
}

/// Has the dials looked at then.
fn expire_at(session: &mut Session<'_>, link: &mut Link, at: Instant) {
    link.expires = Some(at);
    // It is the only timer.
    let _ = session.set_timer(EXPIRE, at.saturating_duration_since(Instant::now()).max(SHORTEST));
}

impl PacketHandler for LinkHandler {
    type State = Link;

    fn on_start(&mut self, shard: &mut ShardContext<'_, Link>) {
        for (gateway, dial) in std::mem::take(&mut self.dials) {
            match shard.connect(dial) {
                Ok(dial) => drop(self.gateways.insert(dial, gateway)),
                Err(error) => tracing::error!(gateway, %error, "a gateway cannot be dialed"),
            }
        }
    }

    fn on_dial_failed(&mut self, _: &mut ShardContext<'_, Link>, dial: DialId, error: &DialError) {
        if let (Some(gateway), false) = (self.gateways.remove(&dial), matches!(error, DialError::Stopped)) {
            tracing::error!(gateway, %error, "a gateway is not dialed any more");
        }
    }

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<Link> {
        let Origin::Dialled(dial) = session.origin() else { return Err(Failure::because("not dialed here")) };
        let gateway = *self.gateways.get(&dial).ok_or_else(|| Failure::because("an unknown dial"))?;
        let mut link = Link { gateway, is_up: false, pending: Pending::default(), expires: None };
        if let Role::Client = self.role {
            self.up(session, &mut link);
        }
        Ok(link)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, link: &mut Link, packet: &[u8]) -> Handled {
        if !link.is_up {
            self.answer(session, packet)?;
            self.up(session, link);
            return Ok(());
        }
        let (conn, payload) =
            split(packet).ok_or_else(|| Failure::because("the gateway sent half a frame"))?;
        if conn == 0 {
            return self.command(session, link, Command::decode(payload)?);
        }
        Ok(self.streams.deliver(session, conn.into(), payload)?)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, link: &mut Link, _timer: TimerId) -> Handled {
        link.expires = None;
        if let Some(next) = link.pending.expire(Instant::now()) {
            expire_at(session, link, next);
        }
        Ok(())
    }

    fn on_closing(&mut self, session: &SessionInfo, link: &mut Link, reason: &CloseReason) {
        tracing::info!(gateway = link.gateway, %reason, "a link to a gateway has ended");
        self.shared.down(link.gateway, session.id);
        link.pending.fail();
    }
}
