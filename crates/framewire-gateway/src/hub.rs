//! The links of one thread and the virtual connections between them: a state machine without sockets and clocks.
//!
//! ```text
//! client ──frame──▶ link ──conns──▶ end ──peer──▶ end ──▶ link ──queue──▶ server
//! ```
//!
//! Each virtual connection has two ends, one on each of its links; an end knows only its peer. What a link is to send
//! waits in its queue until the reactor asks for it. Ends on other threads are told by [`Message`]s.

mod connecting;
mod forwarding;
mod links;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use framewire::SessionId;
use slab::Slab;

use crate::{
    Side,
    counters::Traffic,
    ids::IdMap,
    limits::GatewayLimits,
    queue::{EndSlot, NO_END, QueuePool, SendQueue},
    registry::LinkAddr,
    threads::{Batch, Message, Shared, Thread},
};

/// The place of a link in its hub.
pub(crate) type LinkSlot = u32;

/// The links of one thread.
pub(crate) struct Hub {
    thread: u16,
    own: Arc<Thread>,
    shared: Arc<Shared>,
    /// The other threads, as far as this one has heard of them.
    threads: Vec<Arc<Thread>>,
    limits: Arc<GatewayLimits>,
    links: Slab<Link>,
    ends: Slab<End>,
    /// The ends on this thread, by their connection's ID.
    conns: IdMap<Ends>,
    generation: u32,
    /// Links of each side that have something to send or to do.
    dirty: [Vec<LinkSlot>; 2],
    /// Threads that have got their first message since they were last called.
    calls: Vec<u16>,
    queues: QueuePool,
}

/// One connection of the outside world.
struct Link {
    session: SessionId,
    side: Side,
    /// The client's number, or the ID that the server claims.
    id: u32,
    generation: u32,
    /// The first of its ends, which are a list.
    first: EndSlot,
    /// `None` while there are none, as in most of the time.
    ids: Option<Box<Ids>>,
    /// `None` while nothing waits.
    queue: Option<Box<SendQueue>>,
    /// Counted for servers only.
    traffic: Option<Arc<Traffic>>,
    /// For how many reasons of its ends it is not read from.
    holds: u32,
    is_dirty: bool,
    /// It is to be ended: too much waits for it.
    is_stuck: bool,
    strays: Meter,
    dials: Meter,
}

/// Connection IDs that a link had, or may have.
#[derive(Debug, Default)]
struct Ids {
    /// Given to the peer, which has not dialed them yet, the newest last.
    issued: VecDeque<u32>,
    /// Closed lately, the newest last: what is still in flight for them is discarded.
    closed: VecDeque<u32>,
}

/// The ends of a connection on one thread, by their side; [`NO_END`] for one that is elsewhere.
#[derive(Debug, Clone, Copy)]
struct Ends([EndSlot; 2]);

impl Default for Ends {
    fn default() -> Self {
        Self([NO_END; 2])
    }
}

/// One end of a virtual connection. There are very many.
struct End {
    conn: u32,
    link: LinkSlot,
    /// Its neighbours in the list of the link.
    next: EndSlot,
    previous: EndSlot,
    /// Bytes that wait for this end in the queue of its link.
    queued: u32,
    stage: Stage,
    /// The [`Hold`]s on it.
    held: u8,
    /// It asks that its peer's link is not read from.
    holding: bool,
}

/// Why a link is not read from because of one of its ends. The values are bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Too much waits at the other end.
    Peer = 1,
    /// Too much is on its way to the other end's thread.
    Road = 2,
}

/// The peer's address is spelled out, which is shorter than an [`EndAddr`] would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its link has dialed; the other end is not there yet.
    Dialing {
        remote: u32,
    },
    /// The end of a server that a client has dialed, until the client was told.
    Waiting {
        thread: u16,
        end: EndSlot,
    },
    Open {
        thread: u16,
        end: EndSlot,
    },
    /// Over, but some of its bytes still wait.
    Gone,
}

/// Why the gateway ends a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// The peer broke the protocol.
    Violation(&'static str),
    /// The peer sends for connections that it has not.
    Strays,
    /// The peer does not read, and more waits for it than may.
    Stuck,
}

impl LinkEnd {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Violation(what) => what,
            Self::Strays => "too many frames for virtual connections that do not exist",
            Self::Stuck => "the peer does not read, and too many replies wait for it",
        }
    }
}

/// Counts within a second.
#[derive(Debug, Default, Clone, Copy)]
struct Meter {
    second: u32,
    count: u32,
}

impl Meter {
    /// Counts one more; returns how many there were in this second.
    fn count(&mut self, second: u32) -> u32 {
        if self.second != second {
            *self = Self { second, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count
    }
}

impl Hub {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (thread, own) = shared.add_thread();
        let (threads, limits) = (shared.threads(), shared.limits());
        Self {
            thread,
            own,
            shared,
            threads,
            limits,
            links: Slab::new(),
            ends: Slab::new(),
            conns: IdMap::default(),
            generation: 0,
            dirty: [Vec::new(), Vec::new()],
            calls: Vec::new(),
            queues: QueuePool::default(),
        }
    }

    pub(crate) fn thread(&self) -> u16 {
        self.thread
    }

    /// Takes the limits as they are now.
    pub(crate) fn reload(&mut self) {
        self.limits = self.shared.limits();
    }

    /// Takes what other threads have told this one.
    pub(crate) fn take_messages(&mut self, batch: &mut Batch) {
        let own = self.own.clone();
        own.take(batch);
        batch.drain(|message, frame| self.handle(message, frame));
    }

    /// Returns the links of a side that have something to send or to do, in `slots`.
    pub(crate) fn take_dirty(&mut self, side: Side, slots: &mut Vec<LinkSlot>) {
        debug_assert!(slots.is_empty(), "they have been dealt with");
        std::mem::swap(&mut self.dirty[side.index()], slots);
        for slot in slots {
            if let Some(link) = self.links.get_mut(*slot as usize) {
                link.is_dirty = false;
            }
        }
    }

    pub(crate) fn has_dirty(&self, side: Side) -> bool {
        !self.dirty[side.index()].is_empty()
    }

    /// Returns the threads that are to be called: they have messages.
    pub(crate) fn take_calls(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.calls)
    }

    fn addr(&self, slot: LinkSlot) -> Option<LinkAddr> {
        let generation = self.links.get(slot as usize)?.generation;
        Some(LinkAddr { thread: self.thread, slot, generation })
    }

    fn mark(&mut self, slot: LinkSlot) {
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        if !std::mem::replace(&mut link.is_dirty, true) {
            self.dirty[link.side.index()].push(slot);
        }
    }

    /// Tells an end, on whatever thread it is.
    fn tell(&mut self, thread: u16, message: Message, frame: &[u8]) -> usize {
        if thread == self.thread {
            self.handle(message, frame);
            return 0;
        }
        if self.threads.len() <= usize::from(thread) {
            self.threads = self.shared.threads();
        }
        let Some(to) = self.threads.get(usize::from(thread)) else { return 0 };
        let (bytes, is_first) = to.post(message, frame);
        if is_first {
            self.calls.push(thread);
        }
        bytes
    }

    fn handle(&mut self, message: Message, frame: &[u8]) {
        match message {
            Message::Connect { conn, target, dialer, dialer_id } => {
                self.accept(conn, target, dialer, dialer_id);
            }
            Message::Connected { end, conn, peer } => self.connected(end, conn, peer),
            Message::Refused { end, conn } => self.refused(end, conn),
            Message::Confirm { end, conn, client } => self.confirmed(end, conn, client),
            Message::Frame { end, conn, .. } => self.deliver(end, conn, frame),
            Message::Close { end, conn } => self.closed_by_peer(end, conn),
            Message::Hold { end, conn } => self.hold(end, conn, Hold::Peer),
            Message::Release { end, conn } => self.release(end, conn, Hold::Peer),
            Message::Echo { from, conn } => {
                self.tell(from.thread, Message::Echoed { end: from.end, conn }, &[]);
            }
            Message::Echoed { end, conn } => self.release(end, conn, Hold::Road),
        }
    }
}

/// Seconds since the first call, which is all that a [`Meter`] needs.
pub(crate) fn second() -> u32 {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs() as u32 + 1
}
