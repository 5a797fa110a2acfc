use std::{sync::Arc, time::Instant};

use bytes::BytesMut;

use crate::{
    buffer::{OutboxPool, SharedMemory},
    dial::DialBook,
    events::Reporter,
    id::{Key, ServerNumber, SessionId, ShardId, SlotNumber},
    limits::Limits,
    metrics::Counters,
    session::{
        Connection, Deliver, Effects, KeepAlives, LayerBuffers, Links, Medium, Route, Timeouts, TimerId,
        status::Flags,
    },
    sync::DepositedPermits,
    time::{Clock, ShardClock, Tick},
    timer_wheel::{TimerKey, TimerWheel},
};

/// What the sessions of one shard share: the time, the limits, and the lists of what is to be done.
pub(crate) struct ShardCore {
    pub(super) server: ServerNumber,
    pub(crate) shard: ShardId,
    pub(crate) medium: Medium,
    pub(crate) clock: ShardClock,
    /// The time of tick 0.
    pub(crate) origin: Instant,
    /// When the sessions that are left are terminated, once the shard is stopping.
    pub(crate) cut_at: Option<(Tick, TimerKey)>,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    pub(crate) pool: OutboxPool,
    /// Of frames that the sessions share.
    pub(crate) shared: SharedMemory,
    pub(crate) wheel: TimerWheel<TimerPurpose>,
    /// Of the sessions that have any.
    pub(crate) keep_alives: KeepAlives,
    pub(crate) links: Links,
    pub(crate) counters: Counters,
    /// Of the sessions. A socket is closed before it leaves the counts.
    pub(crate) permits: DepositedPermits,
    /// Tells subscribers and the log.
    pub(crate) reporter: Reporter,
    pub(crate) layer_buffers: LayerBuffers,
    /// Where values are encoded whose framing cannot fill in its header afterwards; empty otherwise.
    pub(crate) scratch: BytesMut,
    /// The way into this shard, for handles.
    pub(crate) mailbox: Arc<dyn Deliver>,
    /// The ways into the other shards.
    pub(crate) shards: Arc<dyn Route>,
    /// The shards of other services on this thread, with the ways into them.
    pub(crate) neighbours: Arc<[(ShardId, Arc<dyn Deliver>)]>,
    /// What callbacks have asked of other sessions of this shard.
    pub(crate) effects: Effects,
    /// What they have asked of sessions of the neighbours.
    pub(crate) outgoing: Effects,
    /// Connections to be made, and what has become of those that were.
    pub(crate) dials: DialBook,
    /// The handler's timers that belong to no session.
    pub(crate) shard_timers: Vec<(TimerId, TimerKey)>,
    /// Sessions to flush at the end of the turn.
    pub(crate) dirty: Vec<Key>,
    /// Sessions with input that no event will announce again.
    pub(crate) unfinished: Vec<Key>,
}

/// What a timer of the wheel is for, in four bytes. The session in a slot knows its timers by their keys, and so whether
/// one was that of an earlier session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimerPurpose {
    /// A deadline of the session may have passed; the session knows which.
    Liveness(SlotNumber),
    /// A timer that the handler set; the session knows which by its key.
    User(SlotNumber),
    /// A timer of the shard that the handler set; its key says which.
    Shard,
    /// A deadline of the dial with this number; its key says whether it still is.
    Dial(SlotNumber),
    /// The reactor has something to do about dials.
    Dials,
    /// Shutdown has lasted long enough.
    Shutdown,
    /// What was left out of the log is to be summed up.
    Log,
}

/// What the common part of a shard is made with.
pub(crate) struct CoreConfig<'a> {
    pub(crate) server: ServerNumber,
    pub(crate) shard: ShardId,
    pub(crate) medium: Medium,
    pub(crate) limits: &'a Limits,
    pub(crate) clock: Box<dyn Clock>,
    /// The time of tick 0.
    pub(crate) origin: Instant,
    pub(crate) reporter: Reporter,
    pub(crate) mailbox: Arc<dyn Deliver>,
    /// The ways into all shards.
    pub(crate) shards: Arc<dyn Route>,
    /// The shards of other services on the same thread, with the ways into them.
    pub(crate) neighbours: Arc<[(ShardId, Arc<dyn Deliver>)]>,
}

impl ShardCore {
    /// Not inlined: the stack that it needs is not needed by what its caller does next.
    #[inline(never)]
    pub(crate) fn new(config: CoreConfig<'_>) -> Box<Self> {
        Box::new(Self {
            server: config.server,
            shard: config.shard,
            medium: config.medium,
            clock: ShardClock::new(config.clock),
            cut_at: None,
            origin: config.origin,
            timeouts: Timeouts::new(config.limits),
            pool: OutboxPool::new(config.limits.outbox_high),
            shared: SharedMemory::default(),
            limits: config.limits.clone(),
            wheel: TimerWheel::new(),
            keep_alives: KeepAlives::default(),
            links: Links::default(),
            counters: Counters::default(),
            permits: DepositedPermits::default(),
            reporter: config.reporter,
            layer_buffers: LayerBuffers::default(),
            scratch: BytesMut::new(),
            mailbox: config.mailbox,
            shards: config.shards,
            neighbours: config.neighbours,
            effects: Effects::default(),
            outgoing: Effects::default(),
            dials: DialBook::default(),
            shard_timers: Vec::new(),
            dirty: Vec::new(),
            unfinished: Vec::new(),
        })
    }

    /// Returns the id of a session of this shard.
    pub(crate) fn id_of(&self, key: Key) -> SessionId {
        self.server.id(self.shard, key)
    }

    /// Returns `true` if the session is, or was, one of this shard.
    pub(crate) fn is_home_of(&self, session: SessionId) -> bool {
        session.shard == self.shard && session.server == self.server
    }

    /// Puts the session on the list of those to flush at the end of the turn.
    pub(crate) fn flush_later(&mut self, connection: &mut Connection) {
        if connection.status.insert(Flags::DIRTY) {
            self.dirty.push(connection.key);
        }
    }

    /// Counts the packets, in and out, that a session has counted between these two looks at it.
    #[inline]
    pub(crate) fn count_packets(&mut self, before: (u64, u64), after: (u64, u64)) {
        // Counters of 64 bits do not overflow in practice.
        let (received, sent) = (after.0.wrapping_sub(before.0), after.1.wrapping_sub(before.1));
        self.counters.packets_in = self.counters.packets_in.wrapping_add(received);
        self.counters.packets_out = self.counters.packets_out.wrapping_add(sent);
    }

    /// Puts the session on the list of those to read in the next turn, without waiting for an event.
    pub(crate) fn read_later(&mut self, connection: &mut Connection) {
        if connection.status.insert(Flags::UNFINISHED) {
            self.unfinished.push(connection.key);
        }
    }

    /// Returns how many effects may wait, and how many bytes of payload.
    pub(crate) fn effect_limits(&self) -> (usize, usize) {
        (self.limits.mailbox_commands, self.limits.mailbox_bytes)
    }

    /// Returns the list by which a callback can reach this session without its mailbox: if its shard is on this thread,
    /// and nothing waits in the mailbox that would be overtaken.
    pub(crate) fn effects_for(&mut self, session: SessionId) -> Option<&mut Effects> {
        if session.server != self.server {
            return None;
        }
        if session.shard == self.shard {
            return self.mailbox.is_idle().then_some(&mut self.effects);
        }
        let neighbour = self.neighbours.iter().find(|(shard, _)| *shard == session.shard);
        neighbour.filter(|(_, mailbox)| mailbox.is_idle()).map(|_| &mut self.outgoing)
    }

    /// Sets, or moves, a timer of the shard. Returns `false` if `limit` others are set.
    pub(crate) fn set_shard_timer(&mut self, timer: TimerId, due: Tick, limit: usize) -> bool {
        if let Some((_, key)) = self.shard_timers.iter_mut().find(|(id, _)| *id == timer) {
            self.wheel.cancel(*key);
            *key = self.wheel.insert(due, TimerPurpose::Shard);
        } else if self.shard_timers.len() < limit {
            self.shard_timers.push((timer, self.wheel.insert(due, TimerPurpose::Shard)));
        } else {
            return false;
        }
        true
    }

    /// Cancels a timer of the shard. Returns `true` if it was set.
    pub(crate) fn cancel_shard_timer(&mut self, timer: TimerId) -> bool {
        let Some(at) = self.shard_timers.iter().position(|(id, _)| *id == timer) else { return false };
        let (_, key) = self.shard_timers.swap_remove(at);
        self.wheel.cancel(key);
        true
    }

    /// Removes a timer of the shard that is due. Returns its id, unless it was cancelled or moved.
    pub(crate) fn take_shard_timer(&mut self, due: TimerKey) -> Option<TimerId> {
        let at = self.shard_timers.iter().position(|(_, key)| *key == due)?;
        Some(self.shard_timers.swap_remove(at).0)
    }

    /// Cancels all timers of the shard.
    pub(crate) fn cancel_shard_timers(&mut self) {
        for (_, key) in std::mem::take(&mut self.shard_timers) {
            self.wheel.cancel(key);
        }
    }
}
