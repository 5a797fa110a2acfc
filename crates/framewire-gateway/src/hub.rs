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

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
    time::Instant,
};

use framewire::SessionId;
use slab::Slab;

use crate::{
    Side,
    counters::Traffic,
    limits::GatewayLimits,
    queue::{EndSlot, SendQueue},
    registry::LinkAddr,
    threads::{Batch, EndAddr, Message, Shared, Thread},
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
    generation: u32,
    /// Links of each side that have something to send or to do.
    dirty: [Vec<LinkSlot>; 2],
    /// Threads that have got their first message since they were last called.
    calls: Vec<u16>,
    /// Empty queues.
    #[expect(clippy::vec_box, reason = "links take them as they are, in their boxes")]
    queues: Vec<Box<SendQueue>>,
}

/// One connection of the outside world.
struct Link {
    session: SessionId,
    side: Side,
    /// The client's number, or the ID that the server claims.
    id: u32,
    generation: u32,
    /// The ends that are open or dialed, by their connection's ID, and those that were closed lately.
    conns: HashMap<u32, Place, BuildHasherDefault<IdHasher>>,
    /// Connection IDs that were given to the peer and that it has not dialed yet, the newest last.
    issued: VecDeque<u32>,
    /// Connections that were closed lately, the newest last.
    closed: VecDeque<u32>,
    queue: Option<Box<SendQueue>>,
    /// Counted for servers only.
    traffic: Option<Arc<Traffic>>,
    /// How many of its ends ask that it is not read from.
    holds: u32,
    is_dirty: bool,
    /// It is to be ended.
    ending: Option<LinkEnd>,
    strays: Meter,
    dials: Meter,
}

/// Where a connection of a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    End(EndSlot),
    /// It was closed: what is still in flight is discarded.
    Closed,
}

/// One end of a virtual connection.
struct End {
    conn: u32,
    link: LinkSlot,
    /// Bytes that wait for this end in the queue of its link.
    queued: usize,
    stage: Stage,
    /// Its peer asks that the link is not read from: so many times.
    held: u32,
    /// It asks that its peer's link is not read from.
    holding: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its link has dialed; the other end is not there yet.
    Dialing {
        remote: u32,
    },
    /// The end of a server that a client has dialed, until the client was told.
    Waiting {
        peer: EndAddr,
        client: u32,
    },
    Open {
        peer: EndAddr,
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

/// Connection IDs are counted up by the gateway itself, so nobody can choose those that collide.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, id: u32) {
        // Fibonacci hashing: the high bits, which choose the group, depend on all of the ID.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
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
            generation: 0,
            dirty: [Vec::new(), Vec::new()],
            calls: Vec::new(),
            queues: Vec::new(),
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
            Message::Confirm { end, conn } => self.confirmed(end, conn),
            Message::Frame { end, conn, .. } => self.deliver(end, conn, frame),
            Message::Close { end, conn } => self.closed_by_peer(end, conn),
            Message::Hold { end, conn } => self.hold(end, conn),
            Message::Release { end, conn } => self.release(end, conn),
            Message::Echo { from, conn } => {
                self.tell(from.thread, Message::Release { end: from.end, conn }, &[]);
            }
        }
    }
}

/// Seconds since the first call, which is all that a [`Meter`] needs.
pub(crate) fn second() -> u32 {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs() as u32 + 1
}
