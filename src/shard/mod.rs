//! Many sessions as a state machine without a poller, sockets or a clock.
//!
//! The reactor tells it what happened (`handle_*`) and asks what is to be done (`poll_*`); each session's socket is
//! kept here as an opaque `T`, beside the session, so that one look-up finds both.

mod callbacks;
mod carried;
mod command;
mod context;
mod datagram;
mod dialling;
mod effects;
mod fan_out;
mod framings;
mod input;
mod layers;
mod links;
mod local_queue;
mod output;
mod session_access;
mod timers;

use std::{collections::VecDeque, sync::Arc};

pub(crate) use carried::{Carry, NotCarried, Stream};
pub(crate) use command::{Command, CommandSender, HandlerJob, Incoming, Job, deliver, post_tracked};
pub use datagram::Beyond;
pub(crate) use datagram::{Peer, Via};
pub(crate) use fan_out::{FanOut, Recipients};
pub(crate) use framings::{Framings, OtherFramings};
pub(crate) use local_queue::{LocalTurn, post, take_local};
pub(crate) use session_access::SessionAccess;
pub(crate) use timers::TimerAction;

use self::{callbacks::Before, fan_out::Budget};
use crate::{
    addr::NewConnection,
    contained::{Contained, guard},
    error::{CloseReason, RefusalCause},
    framing::Framing,
    handler::PacketHandler,
    id::{Key, ShardId},
    layer::{Layer, LayerFactories},
    log::logged,
    metrics::{Counters, SharedCounters},
    session::{Connection, FramingCell, ShardCore, TimerPurpose},
    slots::{Keyed, Slots},
    sync::AdmissionPermit,
    time::{ShardClock, Tick, ticks},
};

/// The sessions of one thread, with their handler.
pub(crate) struct Shard<H: PacketHandler, F, T> {
    handler: Contained<H>,
    framings: Framings<F>,
    layers: LayerFactories,
    /// Dropped before the core, which has the permits: a socket is closed before it leaves the counts.
    slots: Slots<Slot<F, H::State, T>>,
    /// Boxed, because each move of it while the shard is made would take another 1.2 KiB of its thread's stack.
    core: Box<ShardCore>,
    published: Arc<SharedCounters>,
    /// Sockets of ended sessions, for the reactor to close.
    ended: Vec<Ended<T>>,
    stopping: bool,
    fan_outs: Budget,
    /// It was not forked for a connection, whose shard logs through the acceptor's gate.
    is_standing: bool,
}

/// One session.
struct Slot<F, S, T> {
    connection: Connection,
    framing: Contained<FramingCell<F>>,
    /// From `on_open` to `on_close`.
    state: Option<Contained<S>>,
    io: T,
}

impl<F, S, T> Keyed for Slot<F, S, T> {
    #[inline]
    fn key(&self) -> Key {
        self.connection.key()
    }
}

type Equipment<F> = (Contained<FramingCell<F>>, Vec<Contained<Box<dyn Layer>>>);

/// What is left of an ended session, or of a connection that never became one. Every socket leaves a shard in this.
pub(crate) struct Ended<T> {
    pub(crate) io: T,
    pub(crate) permit: AdmissionPermit,
    pub(crate) how: Ending,
}

/// How a socket is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// An ordinary close.
    Close,
    /// A reset, so that the peer does not take what it received for everything.
    Reset,
}

/// What a shard is made with.
pub(crate) struct ShardConfig<F> {
    /// Their maximum was offered already.
    pub(crate) framings: Framings<F>,
    pub(crate) layers: LayerFactories,
    pub(crate) core: Box<ShardCore>,
    pub(crate) published: Arc<SharedCounters>,
    /// The generation of the first session: 0 except in tests.
    pub(crate) first_generation: u32,
    pub(crate) is_standing: bool,
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    pub(crate) fn new(handler: H, config: ShardConfig<F>) -> Self {
        let ShardConfig { framings, layers, published, first_generation, is_standing, core } = config;
        Self {
            handler: Contained::new(handler),
            framings,
            layers,
            slots: Slots::starting_at(first_generation),
            core,
            published,
            ended: Vec::new(),
            stopping: false,
            fan_outs: Budget::new(),
            is_standing,
        }
    }

    pub(crate) fn id(&self) -> ShardId {
        self.core.shard
    }

    pub(crate) fn clock(&mut self) -> &mut ShardClock {
        &mut self.core.clock
    }

    /// A turn is over: freed slots may be used again, and the counters are published.
    #[inline]
    pub(crate) fn end_turn(&mut self) {
        // Buffers that were kept for the next sends count too.
        if self.is_over_memory() {
            self.make_room();
        }
        self.slots.recycle();
        let counters = &mut self.core.counters;
        counters.turns += 1;
        counters.sessions = self.slots.len() as u64;
        counters.timers = self.core.wheel.len() as u64;
        counters.pooled = self.core.pool.bytes() as u64;
        counters.queued = self.core.pool.queued() as u64;
        counters.shared = self.core.shared.bytes() as u64;
        self.published.publish(counters);
    }

    /// The clock was read at the end of the turn: counts the time since the last wait.
    #[inline]
    pub(crate) fn note_turn(&mut self) {
        self.core.counters.count_busy(self.core.clock.since_wake());
        self.published.publish_time(&mut self.core.counters);
    }

    /// The turn took so many milliseconds.
    #[cold]
    pub(crate) fn note_slow_turn(&mut self, millis: Tick) {
        self.core.counters.slow_turns += 1;
        let (shard, now) = (self.core.shard, self.core.clock.now());
        logged!(
            self.core.reporter.gate, now, SlowTurn WARN,
            %shard, millis, "a turn held up all sessions of its shard; does a handler block?"
        );
    }

    /// A wait is over.
    #[inline]
    pub(crate) fn begin_watching(&mut self) {
        self.core.begin_watching();
    }

    /// Other services of the thread had their turn: the time that they have taken is blamed on nobody here.
    pub(crate) fn pass_over(&mut self) {
        self.core.clock.read();
        self.core.clock.take_slow();
    }

    /// The acceptor has placed a connection, or turned some away.
    #[inline]
    pub(crate) fn end_placing(&mut self) {
        let watch = self.core.clock.is_watched();
        if watch {
            self.core.clock.read();
            let took = self.core.clock.take_slow();
            if took > 0 {
                self.core.report_slow(None, "place", took);
            }
        }
    }

    /// What was left out of the log is summed up now, or when it is time to.
    pub(crate) fn sum_up_log(&mut self) {
        if let Some(next) = self.core.reporter.gate.sum_up(self.core.clock.now()) {
            self.core.wheel.insert(next, TimerPurpose::Log);
        }
    }

    /// The thread ends: drops the user's values, and counts their panics.
    pub(crate) fn end(mut self) {
        debug_assert!(
            self.slots.len() > 0 || self.core.keep_alives.is_empty() && self.core.links.is_empty(),
            "they end with their sessions"
        );
        self.core.count_discarded(self.handler.discard());
        self.framings.discard().for_each(|discarded| self.core.count_discarded(discarded));
        self.published.publish(&mut self.core.counters);
        if self.is_standing {
            self.core.reporter.gate.finish(self.core.clock.now());
        }
    }

    /// Takes in a connection, unless the shard is stopping or the framing cannot be cloned for it; then the connection
    /// leaves by [`poll_ended`](Self::poll_ended). The handler is not called for it before `SessionAccess::open`.
    pub(crate) fn insert(&mut self, incoming: Incoming<T>) -> Option<Key> {
        let equipped = if self.stopping || self.slots.is_full() { None } else { self.equip(&incoming) };
        match equipped {
            Some(equipment) => Some(self.place_in_slot(incoming, equipment)),
            None => {
                self.turn_away(incoming);
                None
            }
        }
    }

    fn turn_away(&mut self, incoming: Incoming<T>) {
        let cause = if self.stopping { RefusalCause::Shutdown } else { RefusalCause::Setup };
        let Incoming { io, endpoints, permit } = incoming;
        self.core.report_refusal(&endpoints, cause, None);
        self.ended.push(Ended { io, permit, how: Ending::Close });
    }

    fn place_in_slot(&mut self, incoming: Incoming<T>, (framing, layers): Equipment<F>) -> Key {
        let Incoming { io, endpoints, mut permit } = incoming;
        let (now, handshake) = (self.core.clock.stamp(), permit.take_handshake());
        let connection = |key| Connection::new(key, endpoints, now);
        let key =
            self.slots.insert_with(|key| Slot { connection: connection(key), framing, state: None, io });
        self.core.permits.deposit(key.slot, permit);
        self.core.pool.fit(self.slots.len());
        for layer in layers {
            let Some(slot) = self.slots.get_mut(key) else { break };
            let added = slot.connection.add_layer(layer, &mut self.core);
            debug_assert!(added.is_ok(), "more layers than a session may have are refused before");
        }
        if let (Some(handshake), Some(slot)) = (handshake, self.slots.get_mut(key)) {
            slot.connection.hold_handshake(handshake);
        }
        key
    }

    /// Makes the framing and the layers of a connection, which runs user code.
    fn equip(&mut self, incoming: &Incoming<T>) -> Option<Equipment<F>> {
        let made = guard("clone", || {
            let framing = Contained::new(self.framings.cell(incoming.endpoints.listener()));
            let layers = match self.layers.len() {
                0 => Vec::new(),
                _ => self.layers.make(&NewConnection::new(&incoming.endpoints)),
            };
            Ok::<_, CloseReason>((framing, layers))
        });
        match made {
            Ok(made) => Some(made),
            Err(panic) => {
                self.core.report_shard_panic(&panic, "a connection gets no framing or no layers, closing it");
                None
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn counters(&mut self) -> &mut Counters {
        &mut self.core.counters
    }

    /// Returns the socket of a session that has ended, if there is one.
    #[inline]
    pub(crate) fn poll_ended(&mut self) -> Option<Ended<T>> {
        self.ended.pop()
    }

    /// Takes the sessions with input that no event will announce.
    #[inline]
    pub(crate) fn take_unfinished(&mut self, into: &mut VecDeque<Key>) {
        if !self.core.unfinished.is_empty() {
            into.extend(self.core.unfinished.drain(..));
        }
    }

    #[inline]
    pub(crate) fn take_dirty(&mut self, into: &mut VecDeque<Key>) {
        if !self.core.dirty.is_empty() {
            into.extend(self.core.dirty.drain(..));
        }
    }

    /// The session may have been stamped with `from`, which was too early: see [`Connection::restamp`].
    pub(crate) fn restamp(&mut self, key: Key, from: Tick, to: Tick) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.connection.restamp(from, to, &self.core);
        }
    }

    /// Returns when the next timer is due; `Some(0)` if there is work to do at once.
    #[inline]
    pub(crate) fn poll_deadline(&self) -> Option<Tick> {
        if self.core.unfinished.is_empty() && self.core.dirty.is_empty() {
            self.core.wheel.next_deadline()
        } else {
            Some(0)
        }
    }

    /// Returns `true` if it was asked to stop and no session is left.
    pub(crate) fn is_finished(&self) -> bool {
        self.stopping && self.slots.len() == 0
    }

    /// Calls `on_shutdown` for every session, after the packets that it has received, and closes it gracefully.
    /// Sessions that are left after `grace` are terminated.
    pub(crate) fn shut_down(&mut self, grace: std::time::Duration) {
        let deadline = self.core.clock.deadline(ticks(grace));
        if self.core.cut_at.is_none_or(|(at, _)| deadline < at) {
            self.forget_cut();
            self.core.cut_at = Some((deadline, self.core.wheel.insert(deadline, TimerPurpose::Shutdown)));
        }
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        for key in self.keys() {
            self.with_session(key, |access| {
                if access.slot.connection.begin_shutdown() {
                    access.shut_down();
                }
            });
        }
    }

    /// Terminates every session.
    pub(crate) fn cut(&mut self) {
        self.stopping = true;
        self.forget_cut();
        self.core.cancel_shard_timers();
        for key in self.keys() {
            self.terminate(key, CloseReason::Shutdown, Ending::Reset);
        }
        self.apply_effects();
    }

    fn forget_cut(&mut self) {
        if let Some((_, alarm)) = self.core.cut_at.take() {
            self.core.wheel.cancel(alarm);
        }
    }

    /// Terminates a session: calls `on_closing` if that is still due, then `on_close`, and gives back everything that
    /// the session held. If it was closing already, the reason of that counts.
    pub(super) fn terminate(&mut self, key: Key, reason: CloseReason, how: Ending) {
        let Some(mut slot) = self.slots.remove(key) else { return };
        let (draining, opening) = (slot.connection.is_closing(), slot.connection.is_opening());
        let told = draining && !slot.connection.is_closing_untold();
        let reason = slot.connection.release(reason, &mut self.core);
        slot.connection.unlink(reason.kind(), &mut self.core);
        self.core.leave_channels(&slot.connection);
        if slot.connection.is_dialled() {
            self.core.note_dial_ended(&mut slot.connection, &reason);
        }
        self.core.pool.fit(self.slots.len());
        let how = if slot.connection.is_reset_at_end() { Ending::Reset } else { how };
        let id = self.core.id_of(key);
        self.core.report_end(id, slot.connection.endpoints(), &reason, draining);
        if opening {
            let cause = RefusalCause::in_handshake(&reason);
            self.core.report_refusal(slot.connection.endpoints(), cause, Some(&reason));
        }
        if let Some(state) = slot.state.take() {
            self.core.report_close(id, slot.connection.endpoints(), &reason);
            let info = slot.connection.info(id, self.core.origin);
            self.tell_closed(&info, state, &reason, if told { Before::Closed } else { Before::Closing });
        }
        let layers: Vec<_> = slot.connection.take_layers().collect();
        let endpoints = slot.connection.endpoints();
        self.core.forget(id, endpoints, Contained::new(reason));
        layers.into_iter().for_each(|layer| self.core.forget(id, endpoints, layer));
        self.core.forget(id, endpoints, slot.framing);
        let permit = self.core.permits.withdraw(key.slot);
        self.ended.push(Ended { io: slot.io, permit, how });
    }

    fn keys(&self) -> Vec<Key> {
        self.slots.iter().map(|(key, _)| key).collect()
    }

    fn is_over_memory(&self) -> bool {
        self.held() + self.core.pool.bytes() as u64 > self.core.limits.shard_memory as u64
    }

    /// Bytes that sessions hold, alone or together.
    fn held(&self) -> u64 {
        self.core.counters.buffered + self.core.shared.bytes() as u64
    }

    /// Gives back buffers kept for later; then terminates the sessions that hold most, until an eighth of the shard's
    /// memory is free again.
    #[cold]
    fn make_room(&mut self) {
        self.core.pool.clear();
        let limit = self.core.limits.shard_memory;
        if self.held() <= limit as u64 {
            return;
        }
        let (shard, now) = (self.core.shard, self.core.clock.now());
        logged!(
            self.core.reporter.gate, now, Memory WARN,
            %shard, limit, "too much is buffered, ending the sessions that hold most"
        );
        // What sessions share is given back with the last of those that hold it.
        let held = |slot: &Slot<F, H::State, T>| slot.connection.held() as usize + slot.connection.shared();
        let holders = self.slots.iter().map(|(key, slot)| (held(slot), key));
        let mut holders: Vec<(usize, Key)> = holders.filter(|(held, _)| *held > 0).collect();
        holders.sort_unstable_by(|a, b| b.cmp(a));
        for (held, key) in holders {
            if self.held() <= (limit - limit / 8) as u64 {
                break;
            }
            self.terminate(key, CloseReason::Memory { held, limit }, Ending::Reset);
        }
    }
}

#[cfg(test)]
mod tests;
