//! Many sessions as a machine: no poll, no socket, no clock.
//!
//! The reactor tells it what happened (`handle_*`) and asks what is to be done (`poll_*`); each session's socket is kept
//! here as an opaque `T`, beside the session, so that one look-up finds both.

mod alarms;
mod callbacks;
mod command;
mod context;
mod input;
mod output;
mod visit;

use std::{collections::VecDeque, sync::Arc, time::Instant};

pub use context::{SessionInfo, ShardContext};

pub(crate) use command::{Arrival, Command, Inlet, Job};
pub(crate) use input::Drained;
pub(crate) use visit::Visit;

use self::callbacks::{Before, guard};
use crate::{
    addr::Ends,
    buffer::OutboxPool,
    contained::Contained,
    error::{CloseReason, Logged},
    framing::Framing,
    handler::PacketHandler,
    id::{Key, SessionId, ShardId},
    limits::Limits,
    metrics::{Counters, SharedCounters},
    session::{Alarm, Connection, Deliver, FramingCell, Mark, Phase, Timeouts, Turn},
    slots::Slots,
    time::{Clock, ShardClock, Tick, ticks},
    timer_wheel::TimerWheel,
};

/// The sessions of one thread, with their handler.
pub(crate) struct Shard<H: PacketHandler, F, T> {
    handler: Contained<H>,
    /// Cloned for each session.
    prototype: Contained<F>,
    slots: Slots<Slot<F, H::State, T>>,
    turn: Turn,
    published: Arc<SharedCounters>,
    /// Sockets of ended sessions, for the reactor to close.
    ended: Vec<Ended<T>>,
    stopping: bool,
}

/// One session.
struct Slot<F, S, T> {
    connection: Connection,
    framing: Contained<FramingCell<F>>,
    /// From `on_open` to `on_close`.
    state: Option<Contained<S>>,
    io: T,
}

/// What is left of an ended session.
pub(crate) struct Ended<T> {
    pub(crate) io: T,
    pub(crate) ends: Ends,
    pub(crate) how: Ending,
}

/// How a socket is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// An ordinary close.
    Close,
    /// A reset, so that the peer does not take what it got for a whole.
    Reset,
}

/// What a shard is made with.
pub(crate) struct ShardConfig<F> {
    pub(crate) id: ShardId,
    /// It was offered its maximum.
    pub(crate) framing: Contained<F>,
    pub(crate) limits: Limits,
    pub(crate) clock: Box<dyn Clock>,
    /// What tick 0 was.
    pub(crate) origin: Instant,
    pub(crate) mailbox: Arc<dyn Deliver>,
    pub(crate) published: Arc<SharedCounters>,
    /// The generation of the first session; 0, but in tests.
    pub(crate) first_generation: u32,
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    pub(crate) fn new(handler: H, config: ShardConfig<F>) -> Self {
        let turn = Turn {
            shard: config.id,
            clock: ShardClock::new(config.clock),
            cut_at: None,
            origin: config.origin,
            timeouts: Timeouts::new(&config.limits),
            limits: config.limits,
            pool: OutboxPool::default(),
            wheel: TimerWheel::new(),
            counters: Counters::default(),
            mailbox: config.mailbox,
            dirty: Vec::new(),
            unfinished: Vec::new(),
        };
        Self {
            handler: Contained::new(handler),
            prototype: config.framing,
            slots: Slots::starting_at(config.first_generation),
            turn,
            published: config.published,
            ended: Vec::new(),
            stopping: false,
        }
    }

    pub(crate) fn clock(&mut self) -> &mut ShardClock {
        &mut self.turn.clock
    }

    /// A turn is over: freed slots may be used again, and the counters are told.
    pub(crate) fn end_turn(&mut self) {
        // By buffers that were kept for the next sends since.
        if self.is_over_memory() {
            self.make_room();
        }
        self.slots.recycle();
        let counters = &mut self.turn.counters;
        counters.turns += 1;
        counters.sessions = self.slots.len() as u64;
        counters.timers = self.turn.wheel.len() as u64;
        counters.pooled = self.turn.pool.bytes() as u64;
        self.published.publish(counters);
    }

    /// The thread ends: drops what is the user's, and tells the counters what came of it.
    pub(crate) fn end(mut self) {
        self.turn.count_discarded(self.handler.discard());
        self.turn.count_discarded(self.prototype.discard());
        self.published.publish(&self.turn.counters);
    }

    /// Takes in a connection, or gives it back if the framing can not be cloned for it. It is not told to the handler
    /// before `Visit::open`.
    pub(crate) fn insert(&mut self, io: T, ends: Ends) -> Result<Key, (T, Ends)> {
        let cloned = guard("clone", || Ok::<_, CloseReason>(F::clone(&self.prototype)));
        let framing = match cloned {
            Ok(framing) => Contained::new(FramingCell::Own(framing)),
            Err(panic) => {
                self.turn.counters.panics += 1;
                let (shard, panic) = (self.turn.shard, Logged(&panic));
                tracing::error!(%shard, %panic, "a connection gets no framing, closing it");
                return Err((io, ends));
            }
        };
        let now = self.turn.clock.stamp();
        let connection = |key| Connection::new(key, ends, now);
        let key =
            self.slots.insert_with(|key| Slot { connection: connection(key), framing, state: None, io });
        self.turn.pool.fit(self.slots.len());
        Ok(key)
    }

    /// Gives a connection back that could not be registered.
    pub(crate) fn take_back(&mut self, key: Key) -> Option<(T, Ends)> {
        let slot = self.slots.remove(key)?;
        self.turn.forget(SessionId { shard: self.turn.shard, key }, slot.framing);
        self.turn.pool.fit(self.slots.len());
        Some((slot.io, slot.connection.ends))
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn counters(&mut self) -> &mut Counters {
        &mut self.turn.counters
    }

    /// The sockets of the sessions that have ended since the last call.
    pub(crate) fn poll_ended(&mut self) -> Option<Ended<T>> {
        self.ended.pop()
    }

    /// The sessions with input that no event will announce.
    pub(crate) fn take_unfinished(&mut self, into: &mut VecDeque<Key>) {
        if !self.turn.unfinished.is_empty() {
            into.extend(self.turn.unfinished.drain(..));
        }
    }

    pub(crate) fn take_dirty(&mut self, into: &mut VecDeque<Key>) {
        if !self.turn.dirty.is_empty() {
            into.extend(self.turn.dirty.drain(..));
        }
    }

    /// The session may have been stamped with `from`, which was too early: see [`Connection::restamp`].
    pub(crate) fn restamp(&mut self, key: Key, from: Tick, to: Tick) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.connection.restamp(from, to, &self.turn);
        }
    }

    /// When the next timer is due; `Some(0)` when there is work that waits for nobody.
    pub(crate) fn poll_deadline(&self) -> Option<Tick> {
        if self.turn.unfinished.is_empty() && self.turn.dirty.is_empty() {
            self.turn.wheel.next_deadline()
        } else {
            Some(0)
        }
    }

    /// Whether it was asked to stop and nobody is left.
    pub(crate) fn is_finished(&self) -> bool {
        self.stopping && self.slots.len() == 0
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Says farewell to every session and closes it gracefully, behind the packets that it has received; `grace` from now
    /// the rest is cut.
    pub(crate) fn shut_down(&mut self, grace: std::time::Duration) {
        let deadline = self.turn.clock.deadline(ticks(grace));
        if self.turn.cut_at.is_none_or(|(at, _)| deadline < at) {
            self.forget_cut();
            self.turn.cut_at = Some((deadline, self.turn.wheel.insert(deadline, Alarm::Shutdown)));
        }
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        for key in self.keys() {
            self.visit(key, |visit| {
                if visit.slot.connection.has_packets_to_hand_out() {
                    visit.slot.connection.marks.insert(Mark::SHUTDOWN);
                } else {
                    visit.shut_down();
                }
            });
        }
    }

    /// Ends every session now.
    pub(crate) fn cut(&mut self) {
        self.stopping = true;
        self.forget_cut();
        for key in self.keys() {
            self.finish(key, CloseReason::Shutdown, Ending::Reset);
        }
    }

    fn forget_cut(&mut self) {
        if let Some((_, alarm)) = self.turn.cut_at.take() {
            self.turn.wheel.cancel(alarm);
        }
    }

    /// Ends a session: `on_closing` where that is still due, `on_close`, then everything it held goes back. The reason it was closing for, if it was, counts.
    pub(super) fn finish(&mut self, key: Key, reason: CloseReason, how: Ending) {
        let Some(mut slot) = self.slots.remove(key) else { return };
        let draining = slot.connection.phase != Phase::Open;
        let told = draining && !slot.connection.marks.has(Mark::CLOSING);
        let reason = slot.connection.release(&mut self.turn).unwrap_or(reason);
        self.turn.pool.fit(self.slots.len());
        self.turn.counters.buffered -= u64::from(slot.connection.held);
        let how = if slot.connection.marks.has(Mark::ABORT) { Ending::Reset } else { how };
        let id = SessionId { shard: self.turn.shard, key };
        let (kind, why, peer) = (reason.kind(), Logged(&reason), slot.connection.ends.peer());
        tracing::debug!(session = %id, %peer, ?kind, reason = %why, draining, "session ended");
        if let Some(state) = slot.state.take() {
            self.turn.counters.count_close(kind);
            self.tell_closed(id, state, &reason, if told { Before::Closed } else { Before::Closing });
        }
        self.turn.forget(id, Contained::new(reason));
        self.turn.forget(id, slot.framing);
        self.ended.push(Ended { io: slot.io, ends: slot.connection.ends, how });
    }

    fn keys(&self) -> Vec<Key> {
        self.slots.iter().map(|(key, _)| key).collect()
    }

    fn is_over_memory(&self) -> bool {
        let held = self.turn.counters.buffered + self.turn.pool.bytes() as u64;
        held > self.turn.limits.shard_memory as u64
    }

    /// Gives back what is kept for later; then ends the sessions that hold most, until an eighth of the shard's memory is
    /// free again.
    #[cold]
    fn make_room(&mut self) {
        self.turn.pool.clear();
        let limit = self.turn.limits.shard_memory;
        if self.turn.counters.buffered <= limit as u64 {
            return;
        }
        tracing::warn!(shard = %self.turn.shard, limit, "too much is buffered, ending the sessions that hold most");
        let holders = self.slots.iter().filter(|(_, slot)| slot.connection.held > 0);
        let mut holders: Vec<(u32, Key)> = holders.map(|(key, slot)| (slot.connection.held, key)).collect();
        holders.sort_unstable_by(|a, b| b.cmp(a));
        for (held, key) in holders {
            if self.turn.counters.buffered <= (limit - limit / 8) as u64 {
                break;
            }
            self.finish(key, CloseReason::Memory { held: held as usize, limit }, Ending::Reset);
        }
    }
}

#[cfg(test)]
mod tests;
