use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    addr::Endpoints,
    buffer::{Inbox, Outbox},
    contained::Contained,
    error::CloseReason,
    id::{Key, SessionId},
    session::{
        Flags, FramingSlot, HandleState, ReadBlock, SessionStats, ShardCore, TimerId, TimerPurpose, overhead,
    },
    time::Tick,
    timer_wheel::TimerKey,
};

/// Everything of a session that does not depend on the user's types.
///
/// ```text
/// Open ──close──▶ Draining ──outbox empty──▶ Lingering ──peer's end──▶ (removed)
///   │                └────────peer's end already seen───────────────────▲
///   └────abort, reset, stall: removed at once ──────────────────────────┘
/// ```
///
/// Kept small: one stands in each of very many idle sessions.
pub(crate) struct Connection {
    pub(crate) key: Key,
    pub(crate) phase: Phase,
    pub(crate) read_block: ReadBlock,
    pub(crate) flags: Flags,
    pub(crate) inbox: Option<Box<Inbox>>,
    pub(crate) outbox: Option<Box<Outbox>>,
    pub(crate) endpoints: Endpoints,
    pub(crate) traffic: Traffic,
    /// When `on_open` had returned.
    pub(crate) opened: Tick,
    /// When something was last received (or `on_idle` last called).
    pub(crate) heard: Tick,
    /// The one entry in the wheel for all deadlines.
    pub(crate) alarm: Option<TimerKey>,
    /// Bytes that the shard has counted as buffered by this session.
    pub(crate) held: u32,
    cold: Option<Box<ColdState>>,
}

/// What few sessions have.
#[derive(Default)]
struct ColdState {
    handle_state: Option<Arc<HandleState>>,
    timers: Vec<(TimerId, TimerKey)>,
    reason: Option<Contained<CloseReason>>,
    /// The end of a graceful close, and the ticks that were lost before it was set.
    close_by: Option<(Tick, Tick)>,
    /// The end of a pause before the first packet, or of a callback that held it up.
    listening_since: Tick,
    /// When the frame began that is being discarded.
    discarding_since: Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Packets go in and out.
    Open,
    /// Closing: what is queued still goes out, what comes in is discarded.
    Draining,
    /// Our end is sent; reading and discarding until the peer's comes, so that no reset destroys our last bytes.
    Lingering,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) packets_in: u64,
    pub(crate) packets_out: u64,
}

impl Connection {
    pub(crate) fn new(key: Key, endpoints: Endpoints, now: Tick) -> Self {
        let flags = if endpoints.are_unix() { Flags::HANGUP } else { Flags::default() };
        Self {
            key,
            phase: Phase::Open,
            read_block: ReadBlock::default(),
            flags,
            inbox: None,
            outbox: None,
            endpoints,
            traffic: Traffic::default(),
            opened: now,
            heard: now,
            alarm: None,
            held: 0,
            cold: None,
        }
    }

    /// The connection has failed, and the session ends for this `reason` when what was received is handed out: in the turns
    /// to come, and within the time of a graceful close, should a peer send on that does not read.
    #[cold]
    pub(crate) fn break_down(&mut self, reason: CloseReason, core: &mut ShardCore) {
        self.flags.insert(Flags::BROKEN | Flags::READABLE | Flags::HANGUP);
        let cold = self.cold.get_or_insert_default();
        cold.close_by = Some((core.clock.deadline(core.timeouts.close), core.clock.lost()));
        cold.reason = Some(Contained::new(reason));
        self.discard_output(core);
        core.read_later(self);
    }

    /// What was sent over a connection that has failed.
    #[cold]
    pub(crate) fn discard_output(&mut self, core: &mut ShardCore) {
        self.give_back_outbox(core);
        self.flags.remove(Flags::BLOCKED | Flags::DRAINED);
        if self.read_block.has(ReadBlock::FULL) {
            self.lift(ReadBlock::FULL, core);
        }
    }

    /// Begins the graceful end. The first reason counts.
    pub(crate) fn close(&mut self, reason: CloseReason, core: &mut ShardCore) {
        if self.read_block.has(ReadBlock::CLOSING) {
            return;
        }
        self.phase = Phase::Draining;
        self.read_block.set(ReadBlock::CLOSING);
        self.inbox = None;
        self.flags.remove(Flags::BACKLOG | Flags::SHUTDOWN);
        self.flags.insert(Flags::CLOSING);
        if let Some(handle_state) = self.handle_state() {
            handle_state.shut();
        }
        let cold = self.cold.get_or_insert_default();
        let reason = match cold.reason.take() {
            // The peer's end came behind what has already failed.
            Some(broken) if matches!(reason, CloseReason::PeerClosed) => broken,
            _ => Contained::new(reason),
        };
        // A peer that has ended its side and reads on is owed its answers for as long as it takes them.
        let by_progress = matches!(*reason, CloseReason::PeerClosed) && core.timeouts.stall.is_some();
        let flushed_by = core.clock.deadline(core.timeouts.close);
        // A shutdown allows as long as its grace period lasts.
        let cut_at = core.cut_at.map_or(0, |(at, _)| at);
        cold.close_by = (!by_progress).then_some((flushed_by.max(cut_at), core.clock.lost()));
        cold.reason = Some(reason);
        self.cancel_timers(core);
        self.arm(core);
        // What the peer still sends is discarded, which takes reading it.
        if self.flags.has(Flags::READABLE) {
            core.read_later(self);
        }
        core.flush_later(self);
    }

    /// Our end is sent: gives the peer a while to send its own.
    pub(crate) fn linger(&mut self, core: &mut ShardCore) {
        self.phase = Phase::Lingering;
        let by = (core.clock.deadline(core.timeouts.linger), core.clock.lost());
        self.cold.get_or_insert_default().close_by = Some(by);
        self.arm(core);
    }

    /// Asks for a reset, at the end of the callback.
    pub(crate) fn abort(&mut self, core: &mut ShardCore) {
        self.close(CloseReason::Local, core);
        self.flags.insert(Flags::ABORT);
        core.flush_later(self);
    }

    pub(crate) fn pause(&mut self, core: &mut ShardCore) {
        self.read_block.set(ReadBlock::PAUSED);
        if self.flags.has(Flags::SHUTDOWN) {
            // A shutdown waits for no packets of a session that is paused.
            core.read_later(self);
        }
    }

    /// `on_open` has returned: from here on the peer is expected to speak.
    pub(crate) fn begin(&mut self, core: &mut ShardCore) {
        self.opened = core.clock.deadline(0);
        self.heard = core.clock.stamp();
        self.arm(core);
    }

    /// Whether packets wait that the handler would take: its outbox is full, or its share of the turn was used up.
    pub(crate) fn has_packets_to_hand_out(&self) -> bool {
        self.phase == Phase::Open && self.flags.has(Flags::BACKLOG) && !self.read_block.has(ReadBlock::PAUSED)
    }

    pub(crate) fn resume(&mut self, core: &mut ShardCore) {
        if self.read_block.has(ReadBlock::PAUSED) {
            self.lift(ReadBlock::PAUSED, core);
        }
    }

    /// One cause less not to read. If it was the last: takes up what waits, in the next turn. The peer is not blamed for
    /// the time in which we did not listen.
    pub(crate) fn lift(&mut self, cause: ReadBlock, core: &mut ShardCore) {
        self.read_block.clear(cause);
        if self.read_block.any() {
            return;
        }
        let begin = core.clock.read_stamp();
        self.heard = begin;
        if self.traffic.packets_in == 0 {
            self.listen_from(begin);
        }
        if let Some(inbox) = &mut self.inbox {
            inbox.restart_clock(begin);
        }
        if self.flags.remove(Flags::DISCARDING) {
            self.discard(begin, core);
        }
        self.arm(core);
        if self.flags.has(Flags::READABLE | Flags::BACKLOG | Flags::ENDED | Flags::SHUTDOWN) {
            core.read_later(self);
        }
    }

    /// The first packet is awaited from then on.
    pub(super) fn listen_from(&mut self, since: Tick) {
        self.cold.get_or_insert_default().listening_since = since;
    }

    /// The framing discards a frame that began at `since`. That is known already if it goes on with it.
    #[cold]
    pub(crate) fn discard(&mut self, since: Tick, core: &mut ShardCore) {
        if self.flags.insert(Flags::DISCARDING) {
            self.cold.get_or_insert_default().discarding_since = since;
            self.arm(core);
        }
    }

    pub(super) fn restamp_cold(&mut self, from: Tick, to: Tick) {
        if let Some(cold) = &mut self.cold {
            for stamp in [&mut cold.discarding_since, &mut cold.listening_since] {
                *stamp = if *stamp >= from { to } else { *stamp };
            }
        }
    }

    pub(crate) fn set_timer(
        &mut self,
        timer: TimerId,
        due: Tick,
        limit: usize,
        core: &mut ShardCore,
    ) -> bool {
        let alarm = TimerPurpose::User(self.key);
        let timers = &mut self.cold.get_or_insert_default().timers;
        if let Some((_, key)) = timers.iter_mut().find(|(id, _)| *id == timer) {
            core.wheel.cancel(*key);
            *key = core.wheel.insert(due, alarm);
        } else if timers.len() < limit {
            timers.push((timer, core.wheel.insert(due, alarm)));
        } else {
            return false;
        }
        true
    }

    /// A timer rang: which, if it is still wanted (it may have been cancelled, or moved, in the same turn).
    pub(crate) fn take_timer(&mut self, rang: TimerKey) -> Option<TimerId> {
        let timers = &mut self.cold.as_mut()?.timers;
        let at = timers.iter().position(|(_, key)| *key == rang)?;
        Some(timers.swap_remove(at).0)
    }

    /// Forgets a timer; whether it was set.
    pub(crate) fn cancel_timer(&mut self, timer: TimerId, core: &mut ShardCore) -> bool {
        let Some(cold) = &mut self.cold else { return false };
        let Some(at) = cold.timers.iter().position(|(id, _)| *id == timer) else { return false };
        let (_, key) = cold.timers.swap_remove(at);
        core.wheel.cancel(key);
        true
    }

    fn cancel_timers(&mut self, core: &mut ShardCore) {
        if let Some(cold) = &mut self.cold {
            for (_, key) in std::mem::take(&mut cold.timers) {
                core.wheel.cancel(key);
            }
        }
    }

    /// Gives everything back that the shard holds for this session; the reason it was closing for, if it was.
    pub(crate) fn release(&mut self, core: &mut ShardCore) -> Option<CloseReason> {
        if let Some(handle_state) = self.handle_state() {
            handle_state.shut();
        }
        self.cancel_timers(core);
        if let Some(alarm) = self.alarm.take() {
            core.wheel.cancel(alarm);
        }
        self.inbox = None;
        self.give_back_outbox(core);
        self.cold.as_mut().and_then(|cold| cold.reason.take()).map(Contained::into_inner)
    }

    /// What it is closing for, if it is.
    pub(crate) fn reason(&self) -> Option<&CloseReason> {
        self.cold.as_ref().and_then(|cold| cold.reason.as_deref())
    }

    pub(crate) fn forget_reason(&mut self) {
        if let Some(cold) = &mut self.cold {
            cold.reason = None;
        }
    }

    /// Bytes held in buffers, by capacity.
    pub(crate) fn capacity(&self) -> usize {
        self.inbox.as_ref().map_or(0, |inbox| inbox.capacity())
            + self.outbox.as_ref().map_or(0, |outbox| outbox.capacity())
    }

    /// What went through so far; `origin` is what tick 0 was.
    pub(crate) fn stats(&self, origin: Instant) -> SessionStats {
        SessionStats {
            bytes_in: self.traffic.bytes_in,
            bytes_out: self.traffic.bytes_out,
            packets_in: self.traffic.packets_in,
            packets_out: self.traffic.packets_out,
            queued: self.unsent(),
            opened_at: origin + Duration::from_millis(self.opened),
        }
    }

    /// The kept part of a frame is not what the new framing takes it for: it looks at it again.
    pub(crate) fn framing_swapped(&mut self, framing: &dyn FramingSlot, core: &mut ShardCore) {
        if let Some(handle_state) = self.handle_state() {
            handle_state.set_overhead(overhead(framing));
        }
        self.flags.remove(Flags::DISCARDING);
        if self.inbox.is_some() {
            self.flags.insert(Flags::BACKLOG);
            if !self.read_block.any() {
                core.read_later(self);
            }
        }
    }

    /// The end of a graceful close. The peer is given the time back in which it was not served.
    pub(crate) fn close_by(&self, lost: Tick) -> Option<Tick> {
        let (by, lost_before) = self.cold.as_ref()?.close_by?;
        Some(by + (lost - lost_before))
    }

    /// Since when the peer could have been heard: from the start, or from the end of a pause.
    pub(crate) fn listening_since(&self) -> Tick {
        self.cold.as_ref().map_or(self.opened, |cold| cold.listening_since.max(self.opened))
    }

    pub(crate) fn handle_state(&self) -> Option<&Arc<HandleState>> {
        self.cold.as_ref().and_then(|cold| cold.handle_state.as_ref())
    }

    /// Since when the peer is at a frame that is not complete, one that is kept or one that is discarded.
    pub(crate) fn frame_since(&self) -> Option<Tick> {
        let kept = self.inbox.as_ref().map(|inbox| inbox.since());
        let cold = self.cold.as_ref().filter(|_| self.flags.has(Flags::DISCARDING));
        kept.into_iter().chain(cold.map(|cold| cold.discarding_since)).min()
    }

    /// The part of the session that handles share, made when the first one is.
    pub(crate) fn handle_state_or_new(
        &mut self,
        framing: &dyn FramingSlot,
        core: &ShardCore,
    ) -> Arc<HandleState> {
        let id = SessionId { shard: core.shard, key: self.key };
        let limit = core.limits.outbox_hard;
        let (queued, closing) = (self.queued(), self.read_block.has(ReadBlock::CLOSING));
        let make = || {
            let handle_state = HandleState::new(id, core.mailbox.clone(), limit, overhead(framing));
            handle_state.set_backlog(queued);
            if closing {
                handle_state.shut();
            }
            Arc::new(handle_state)
        };
        self.cold.get_or_insert_default().handle_state.get_or_insert_with(make).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_stays_small() {
        assert!(size_of::<Connection>() <= 128, "{} bytes", size_of::<Connection>());
    }
}
