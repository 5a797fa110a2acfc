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

use std::{sync::Arc, time::Instant};

pub use context::{SessionInfo, ShardContext};

pub(crate) use command::{Arrival, Command, Inlet, Job};
pub(crate) use input::Drained;
pub(crate) use visit::Visit;

use self::callbacks::{Before, guard};
use crate::{
    addr::Ends,
    buffer::OutboxPool,
    error::{CloseReason, Logged},
    framing::Framing,
    handler::PacketHandler,
    id::{Key, SessionId, ShardId},
    limits::Limits,
    metrics::{Counters, SharedCounters},
    session::{Alarm, Connection, Deliver, FramingCell, Mark, Phase, Timeouts, Turn},
    slots::Slots,
    time::{Tick, ticks},
    timer_wheel::{TimerKey, TimerWheel},
};

/// The sessions of one thread, with their handler.
pub(crate) struct Shard<H: PacketHandler, F, T> {
    handler: H,
    /// Cloned for each session.
    prototype: F,
    slots: Slots<Slot<F, H::State, T>>,
    turn: Turn,
    published: Arc<SharedCounters>,
    /// Sockets of ended sessions, for the reactor to close.
    ended: Vec<Ended<T>>,
    stopping: bool,
    /// When what is left is cut, once the shard is stopping.
    cut_at: Option<(Tick, TimerKey)>,
}

/// One session.
struct Slot<F, S, T> {
    connection: Connection,
    framing: FramingCell<F>,
    /// From `on_open` to `on_close`.
    state: Option<S>,
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
    pub(crate) framing: F,
    pub(crate) limits: Limits,
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
        let mut prototype = config.framing;
        prototype.offer_max(config.limits.frame);
        let turn = Turn {
            shard: config.id,
            now: 0,
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
            handler,
            prototype,
            slots: Slots::starting_at(config.first_generation),
            turn,
            published: config.published,
            ended: Vec::new(),
            stopping: false,
            cut_at: None,
        }
    }

    /// A turn begins.
    pub(crate) fn begin_turn(&mut self, now: Tick) {
        self.turn.now = now;
    }

    /// A turn is over: freed slots may be used again, and the counters are told.
    pub(crate) fn end_turn(&mut self) {
        self.slots.recycle();
        let counters = &mut self.turn.counters;
        counters.turns += 1;
        counters.sessions = self.slots.len() as u64;
        counters.timers = self.turn.wheel.len() as u64;
        self.published.publish(counters);
    }

    /// Takes in a connection, or gives it back if the framing can not be cloned for it. It is not told to the handler
    /// before `Visit::open`.
    pub(crate) fn insert(&mut self, io: T, ends: Ends) -> Result<Key, (T, Ends)> {
        let cloned = guard("clone", || Ok::<_, CloseReason>(FramingCell::Own(self.prototype.clone())));
        let framing = match cloned {
            Ok(framing) => framing,
            Err(panic) => {
                self.turn.counters.panics += 1;
                let (shard, panic) = (self.turn.shard, Logged(&panic));
                tracing::error!(%shard, %panic, "a connection gets no framing, closing it");
                return Err((io, ends));
            }
        };
        let now = self.turn.now;
        Ok(self.slots.insert_with(|key| Slot {
            connection: Connection::new(key, ends, now),
            framing,
            state: None,
            io,
        }))
    }

    /// Gives a connection back that could not be registered.
    pub(crate) fn take_back(&mut self, key: Key) -> Option<(T, Ends)> {
        self.slots.remove(key).map(|slot| (slot.io, slot.connection.ends))
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

    /// The next session with input that no event will announce.
    pub(crate) fn take_unfinished(&mut self, into: &mut Vec<Key>) {
        into.append(&mut self.turn.unfinished);
        for key in into {
            if let Some(slot) = self.slots.get_mut(*key) {
                slot.connection.marks.remove(Mark::UNFINISHED);
            }
        }
    }

    pub(crate) fn take_dirty(&mut self, into: &mut Vec<Key>) {
        into.append(&mut self.turn.dirty);
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

    /// Says farewell to every session and closes it gracefully; `grace` from now the rest is cut.
    pub(crate) fn shut_down(&mut self, grace: std::time::Duration) {
        if !self.stopping {
            self.stopping = true;
            for key in self.keys() {
                self.visit(key, |visit| {
                    visit.say_farewell();
                    visit.close(CloseReason::Shutdown);
                });
            }
        }
        let deadline = self.turn.now + ticks(grace);
        if self.cut_at.is_none_or(|(at, _)| deadline < at) {
            self.forget_cut();
            self.cut_at = Some((deadline, self.turn.wheel.insert(deadline, Alarm::Shutdown)));
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
        if let Some((_, alarm)) = self.cut_at.take() {
            self.turn.wheel.cancel(alarm);
        }
    }

    /// Ends a session: `on_closing` where that is still due, `on_close`, then everything it held goes back. The reason it was closing for, if it was, counts.
    pub(super) fn finish(&mut self, key: Key, reason: CloseReason, how: Ending) {
        let Some(mut slot) = self.slots.remove(key) else { return };
        let draining = slot.connection.phase != Phase::Open;
        let told = draining && !slot.connection.marks.has(Mark::CLOSING);
        let reason = slot.connection.release(&mut self.turn).unwrap_or(reason);
        self.turn.counters.buffered -= u64::from(slot.connection.held);
        let how = if slot.connection.marks.has(Mark::ABORT) { Ending::Reset } else { how };
        let id = SessionId { shard: self.turn.shard, key };
        let (kind, why, peer) = (reason.kind(), Logged(&reason), slot.connection.ends.peer());
        tracing::debug!(session = %id, %peer, ?kind, reason = %why, draining, "session ended");
        if let Some(state) = slot.state.take() {
            self.turn.counters.count_close(kind);
            self.tell_closed(id, state, &reason, if told { Before::Closed } else { Before::Closing });
        }
        self.turn.forget(id, (reason, slot.framing));
        self.ended.push(Ended { io: slot.io, ends: slot.connection.ends, how });
    }

    fn keys(&self) -> Vec<Key> {
        self.slots.iter().map(|(key, _)| key).collect()
    }

    /// Ends the sessions that hold most, until an eighth of the shard's memory is free again.
    #[cold]
    fn make_room(&mut self) {
        let limit = self.turn.limits.shard_memory;
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
