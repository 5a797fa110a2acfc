//! The packet handlers of both sides.

use std::{
    rc::Rc,
    sync::{Arc, PoisonError, RwLock},
};

use framewire::{
    CloseReason, Failure, Handled, Origin, PacketHandler, Session, SessionInfo, ShardContext, Then,
};

use crate::{
    Side,
    hub::LinkSlot,
    keys::{Dialect, Keys, MAX_CHALLENGE},
    local::Local,
    protocol::Command,
};

/// The clients of one thread.
pub(crate) struct ClientLinks {
    local: Rc<Local>,
}

/// The servers of one thread.
pub(crate) struct ServerLinks {
    local: Rc<Local>,
    doors: Arc<RwLock<Vec<Door>>>,
}

/// How servers come in at one listener.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) dialect: Dialect,
    pub(crate) keys: Keys,
}

/// A link that is in the hub.
pub(crate) struct Link {
    slot: LinkSlot,
    /// How many frames had come from the peer when it was last pinged.
    pinged: Option<u64>,
}

impl Link {
    fn new(slot: LinkSlot) -> Self {
        Self { slot, pinged: None }
    }
}

/// A server's link.
pub(crate) enum ServerLink {
    /// It has not answered yet.
    Challenged([u8; MAX_CHALLENGE]),
    Up(Link),
}

impl ClientLinks {
    pub(crate) fn new(local: Rc<Local>) -> Self {
        Self { local }
    }

    pub(crate) fn serve(&mut self, shard: &mut ShardContext<'_, Link>) {
        self.local.serve(Side::Client, shard);
    }

    /// Takes what other threads have told this one, for both sides.
    pub(crate) fn take_messages(&mut self, shard: &mut ShardContext<'_, Link>) {
        self.local.take_messages();
        self.local.serve(Side::Client, shard);
    }

    /// Closes connections of this thread. Returns how many.
    pub(crate) fn close_some(&mut self, most: usize, shard: &mut ShardContext<'_, Link>) -> usize {
        let closed = self.local.hub.borrow_mut().close_some(most);
        self.local.serve(Side::Client, shard);
        closed
    }

    /// Takes the limits as they are now.
    pub(crate) fn reload(&mut self) {
        self.local.hub.borrow_mut().reload();
    }
}

impl ServerLinks {
    pub(crate) fn new(local: Rc<Local>, doors: Arc<RwLock<Vec<Door>>>) -> Self {
        Self { local, doors }
    }

    pub(crate) fn serve(&mut self, shard: &mut ShardContext<'_, ServerLink>) {
        self.local.serve(Side::Server, shard);
    }

    /// Returns how a server comes in that has connected to the same listener.
    fn door(&self, session: &Session<'_>) -> Handled<Door> {
        let Origin::Accepted { listener } = session.origin() else {
            return Err(Failure::because("servers are not dialed"));
        };
        let doors = self.doors.read().unwrap_or_else(PoisonError::into_inner);
        doors.get(listener).cloned().ok_or_else(|| Failure::because("an unknown listener"))
    }

    /// Handles the answer to the challenge. Returns the server's ID.
    fn verify(&self, session: &Session<'_>, challenge: &[u8; MAX_CHALLENGE], answer: &[u8]) -> Handled<u32> {
        let Door { dialect, keys } = self.door(session)?;
        let challenge = &challenge[..dialect.challenge_len()];
        dialect.verify(challenge, answer, &keys).ok_or_else(|| {
            tracing::warn!(peer = %session.peer_addr(), "a server with a wrong digest");
            self.local.hub.borrow().count_refused_server();
            Failure::because("wrong digest: the server has another key, or speaks another dialect")
        })
    }
}

/// A frame of a link that is up.
fn frame(local: &Local, session: &mut Session<'_>, link: &Link, frame: &[u8]) -> Handled {
    let mut hub = local.hub.borrow_mut();
    let handled = hub.frame(link.slot, frame);
    if hub.is_held(link.slot) {
        session.pause();
    }
    drop(hub);
    local.call();
    handled.map_err(|end| Failure::because(end.as_str()))
}

/// Nothing came for a ping interval.
fn idle(local: &Local, session: &mut Session<'_>, link: &mut Link) -> Handled<Then> {
    let frames = session.stats().packets_in;
    if link.pinged == Some(frames) {
        local.hub.borrow().count_silent_link();
        return Err(Failure::because("the peer has not answered a ping"));
    }
    link.pinged = Some(frames);
    session.send(&*Command::Ping.frame())?;
    Ok(Then::Stay)
}

fn closing(local: &Local, session: &SessionInfo, link: &Link, side: Side, reason: &CloseReason) {
    let mut hub = local.hub.borrow_mut();
    tracing::debug!(%side, id = hub.id(link.slot), peer = %session.peer, %reason, "a link has ended");
    hub.remove(link.slot);
    drop(hub);
    local.call();
}

impl PacketHandler for ClientLinks {
    type State = Link;

    fn on_start(&mut self, shard: &mut ShardContext<'_, Link>) {
        self.local.started(Side::Client, shard.id());
    }

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<Link> {
        let slot = self.local.hub.borrow_mut().add_client(session.id());
        let slot = slot.ok_or_else(|| Failure::because("no more clients are taken"))?;
        Ok(Link::new(slot))
    }

    fn on_packet(&mut self, session: &mut Session<'_>, link: &mut Link, packet: &[u8]) -> Handled {
        frame(&self.local, session, link, packet)
    }

    fn on_drained(&mut self, session: &mut Session<'_>, link: &mut Link) -> Handled {
        self.local.feed(link.slot, session);
        self.local.call();
        Ok(())
    }

    fn on_idle(&mut self, session: &mut Session<'_>, link: &mut Link) -> Handled<Then> {
        idle(&self.local, session, link)
    }

    fn on_closing(&mut self, session: &SessionInfo, link: &mut Link, reason: &CloseReason) {
        closing(&self.local, session, link, Side::Client, reason);
    }
}

impl PacketHandler for ServerLinks {
    type State = ServerLink;

    fn on_start(&mut self, shard: &mut ShardContext<'_, ServerLink>) {
        self.local.started(Side::Server, shard.id());
    }

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<ServerLink> {
        let mut challenge = [0; MAX_CHALLENGE];
        getrandom::fill(&mut challenge).map_err(|error| Failure::because(error.to_string()))?;
        session.send(&challenge[..self.door(session)?.dialect.challenge_len()])?;
        Ok(ServerLink::Challenged(challenge))
    }

    fn on_packet(&mut self, session: &mut Session<'_>, link: &mut ServerLink, packet: &[u8]) -> Handled {
        match link {
            ServerLink::Up(link) => frame(&self.local, session, link, packet),
            ServerLink::Challenged(challenge) => {
                let id = self.verify(session, challenge, packet)?;
                tracing::info!(server = id, peer = %session.peer_addr(), "a server has connected");
                let mut hub = self.local.hub.borrow_mut();
                session.set_idle_timeout(hub.ping_interval());
                *link = ServerLink::Up(Link::new(hub.add_server(session.id(), id)));
                Ok(())
            }
        }
    }

    fn on_drained(&mut self, session: &mut Session<'_>, link: &mut ServerLink) -> Handled {
        if let ServerLink::Up(link) = link {
            self.local.feed(link.slot, session);
            self.local.call();
        }
        Ok(())
    }

    fn on_idle(&mut self, session: &mut Session<'_>, link: &mut ServerLink) -> Handled<Then> {
        match link {
            ServerLink::Up(link) => idle(&self.local, session, link),
            ServerLink::Challenged(_) => Ok(Then::Close),
        }
    }

    fn on_closing(&mut self, session: &SessionInfo, link: &mut ServerLink, reason: &CloseReason) {
        if let ServerLink::Up(link) = link {
            closing(&self.local, session, link, Side::Server, reason);
        }
    }
}
