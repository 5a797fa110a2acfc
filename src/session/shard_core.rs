use std::{sync::Arc, time::Instant};

use crate::{
    buffer::OutboxPool,
    id::{Key, ShardId},
    limits::Limits,
    metrics::Counters,
    session::{Connection, Deliver, Timeouts, flags::Flags},
    time::{ShardClock, Tick},
    timer_wheel::{TimerKey, TimerWheel},
};

/// What the sessions of one shard share while a turn lasts: the time, the limits, and the lists of what is to be done.
pub(crate) struct ShardCore {
    pub(crate) shard: ShardId,
    pub(crate) clock: ShardClock,
    /// What tick 0 was.
    pub(crate) origin: Instant,
    /// When what is left is cut, once the shard is stopping.
    pub(crate) cut_at: Option<(Tick, TimerKey)>,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    pub(crate) pool: OutboxPool,
    pub(crate) wheel: TimerWheel<TimerPurpose>,
    pub(crate) counters: Counters,
    /// The way into this shard, for handles.
    pub(crate) mailbox: Arc<dyn Deliver>,
    /// Sessions to settle at the end of the turn.
    pub(crate) dirty: Vec<Key>,
    /// Sessions with input that no event will announce again.
    pub(crate) unfinished: Vec<Key>,
}

/// What a timer of the wheel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimerPurpose {
    /// Some deadline of the session may have passed; it knows which.
    Liveness(Key),
    /// A timer that the handler set; the session knows which by its key.
    User(Key),
    /// Shutdown has lasted long enough.
    Shutdown,
}

impl ShardCore {
    /// Puts the session on the list that is worked off at the end of the turn.
    pub(crate) fn flush_later(&mut self, connection: &mut Connection) {
        if connection.flags.insert(Flags::DIRTY) {
            self.dirty.push(connection.key);
        }
    }

    /// Puts the session on the list that is worked off in the next turn, without waiting for an event.
    pub(crate) fn read_later(&mut self, connection: &mut Connection) {
        if connection.flags.insert(Flags::UNFINISHED) {
            self.unfinished.push(connection.key);
        }
    }
}
