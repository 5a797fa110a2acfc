use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    addr::Ends,
    buffer::{Inbox, Outbox},
    contained::Contained,
    error::CloseReason,
    id::{Key, SessionId},
    session::{Alarm, FramingSlot, Halt, Link, Mark, SessionStats, TimerId, Turn, overhead},
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
    pub(crate) halt: Halt,
    pub(crate) marks: Mark,
    pub(crate) inbox: Option<Box<Inbox>>,
    pub(crate) outbox: Option<Box<Outbox>>,
    pub(crate) ends: Ends,
    pub(crate) traffic: Traffic,
    /// When `on_open` had returned.
    pub(crate) opened: Tick,
    /// When something was last received (or `on_idle` last called).
    pub(crate) heard: Tick,
    /// The one entry in the wheel for all deadlines.
    pub(crate) alarm: Option<TimerKey>,
    /// Bytes that the shard has counted as buffered by this session.
    pub(crate) held: u32,
    rare: Option<Box<Rare>>,
}

/// What few sessions have.
#[derive(Default)]
struct Rare {
    link: Option<Arc<Link>>,
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
    pub(crate) fn new(key: Key, ends: Ends, now: Tick) -> Self {
        let marks = if ends.are_unix() { Mark::HANGUP } else { Mark::default() };
        Self {
            key,
            phase: Phase::Open,
            halt: Halt::default(),
            marks,
            inbox: None,
            outbox: None,
            ends,
            traffic: Traffic::default(),
            opened: now,
            heard: now,
            alarm: None,
            held: 0,
            rare: None,
        }
    }

    /// The connection has failed, and the session ends for this `reason` when what was received is handed out: in the turns
    /// to come, and within the time of a graceful close, should a peer send on that does not read.
    #[cold]
    pub(crate) fn break_down(&mut self, reason: CloseReason, turn: &mut Turn) {
        self.marks.insert(Mark::BROKEN | Mark::READABLE | Mark::HANGUP);
        let rare = self.rare.get_or_insert_default();
        rare.close_by = Some((turn.clock.deadline(turn.timeouts.close), turn.clock.lost()));
        rare.reason = Some(Contained::new(reason));
        self.discard_output(turn);
        turn.read_later(self);
    }

    /// What was sent over a connection that has failed.
    #[cold]
    pub(crate) fn discard_output(&mut self, turn: &mut Turn) {
        self.give_back_outbox(turn);
        self.marks.remove(Mark::BLOCKED | Mark::DRAINED);
        if self.halt.has(Halt::FULL) {
            self.lift(Halt::FULL, turn);
        }
    }

    /// Begins the graceful end. The first reason counts.
    pub(crate) fn close(&mut self, reason: CloseReason, turn: &mut Turn) {
        if self.halt.has(Halt::CLOSING) {
            return;
        }
        self.phase = Phase::Draining;
        self.halt.set(Halt::CLOSING);
        self.inbox = None;
        self.marks.remove(Mark::BACKLOG | Mark::SHUTDOWN);
        self.marks.insert(Mark::CLOSING);
        if let Some(link) = self.link() {
            link.shut();
        }
        let rare = self.rare.get_or_insert_default();
        let reason = match rare.reason.take() {
            // The peer's end came behind what has already failed.
            Some(broken) if matches!(reason, CloseReason::PeerClosed) => broken,
            _ => Contained::new(reason),
        };
        // A peer that has ended its side and reads on is owed its answers for as long as it takes them.
        let by_progress = matches!(*reason, CloseReason::PeerClosed) && turn.timeouts.stall.is_some();
        let flushed_by = turn.clock.deadline(turn.timeouts.close);
        // A shutdown allows as long as its grace period lasts.
        let cut_at = turn.cut_at.map_or(0, |(at, _)| at);
        rare.close_by = (!by_progress).then_some((flushed_by.max(cut_at), turn.clock.lost()));
        rare.reason = Some(reason);
        self.cancel_timers(turn);
        self.arm(turn);
        // What the peer still sends is discarded, which takes reading it.
        if self.marks.has(Mark::READABLE) {
            turn.read_later(self);
        }
        turn.settle_later(self);
    }

    /// Our end is sent: gives the peer a while to send its own.
    pub(crate) fn linger(&mut self, turn: &mut Turn) {
        self.phase = Phase::Lingering;
        let by = (turn.clock.deadline(turn.timeouts.linger), turn.clock.lost());
        self.rare.get_or_insert_default().close_by = Some(by);
        self.arm(turn);
    }

    /// Asks for a reset, at the end of the callback.
    pub(crate) fn abort(&mut self, turn: &mut Turn) {
        self.close(CloseReason::Local, turn);
        self.marks.insert(Mark::ABORT);
        turn.settle_later(self);
    }

    pub(crate) fn pause(&mut self, turn: &mut Turn) {
        self.halt.set(Halt::PAUSED);
        if self.marks.has(Mark::SHUTDOWN) {
            // A shutdown waits for no packets of a session that is paused.
            turn.read_later(self);
        }
    }

    /// `on_open` has returned: from here on the peer is expected to speak.
    pub(crate) fn begin(&mut self, turn: &mut Turn) {
        self.opened = turn.clock.deadline(0);
        self.heard = turn.clock.stamp();
        self.arm(turn);
    }

    /// Whether packets wait that the handler would take: its outbox is full, or its share of the turn was used up.
    pub(crate) fn has_packets_to_hand_out(&self) -> bool {
        self.phase == Phase::Open && self.marks.has(Mark::BACKLOG) && !self.halt.has(Halt::PAUSED)
    }

    pub(crate) fn resume(&mut self, turn: &mut Turn) {
        if self.halt.has(Halt::PAUSED) {
            self.lift(Halt::PAUSED, turn);
        }
    }

    /// One cause less not to read. If it was the last: takes up what waits, in the next turn. The peer is not blamed for
    /// the time in which we did not listen.
    pub(crate) fn lift(&mut self, cause: Halt, turn: &mut Turn) {
        self.halt.clear(cause);
        if self.halt.any() {
            return;
        }
        let begin = turn.clock.read_stamp();
        self.heard = begin;
        if self.traffic.packets_in == 0 {
            self.listen_from(begin);
        }
        if let Some(inbox) = &mut self.inbox {
            inbox.restart_clock(begin);
        }
        if self.marks.remove(Mark::DISCARDING) {
            self.discard(begin, turn);
        }
        self.arm(turn);
        if self.marks.has(Mark::READABLE | Mark::BACKLOG | Mark::ENDED | Mark::SHUTDOWN) {
            turn.read_later(self);
        }
    }

    /// The first packet is awaited from then on.
    pub(super) fn listen_from(&mut self, since: Tick) {
        self.rare.get_or_insert_default().listening_since = since;
    }

    /// The framing discards a frame that began at `since`. That is known already if it goes on with it.
    #[cold]
    pub(crate) fn discard(&mut self, since: Tick, turn: &mut Turn) {
        if self.marks.insert(Mark::DISCARDING) {
            self.rare.get_or_insert_default().discarding_since = since;
            self.arm(turn);
        }
    }

    pub(super) fn restamp_rare(&mut self, from: Tick, to: Tick) {
        if let Some(rare) = &mut self.rare {
            for stamp in [&mut rare.discarding_since, &mut rare.listening_since] {
                *stamp = if *stamp >= from { to } else { *stamp };
            }
        }
    }

    pub(crate) fn set_timer(&mut self, timer: TimerId, due: Tick, limit: usize, turn: &mut Turn) -> bool {
        let alarm = Alarm::User(self.key);
        let timers = &mut self.rare.get_or_insert_default().timers;
        if let Some((_, key)) = timers.iter_mut().find(|(id, _)| *id == timer) {
            turn.wheel.cancel(*key);
            *key = turn.wheel.insert(due, alarm);
        } else if timers.len() < limit {
            timers.push((timer, turn.wheel.insert(due, alarm)));
        } else {
            return false;
        }
        true
    }

    /// A timer rang: which, if it is still wanted (it may have been cancelled, or moved, in the same turn).
    pub(crate) fn take_timer(&mut self, rang: TimerKey) -> Option<TimerId> {
        let timers = &mut self.rare.as_mut()?.timers;
        let at = timers.iter().position(|(_, key)| *key == rang)?;
        Some(timers.swap_remove(at).0)
    }

    /// Forgets a timer; whether it was set.
    pub(crate) fn cancel_timer(&mut self, timer: TimerId, turn: &mut Turn) -> bool {
        let Some(rare) = &mut self.rare else { return false };
        let Some(at) = rare.timers.iter().position(|(id, _)| *id == timer) else { return false };
        let (_, key) = rare.timers.swap_remove(at);
        turn.wheel.cancel(key);
        true
    }

    fn cancel_timers(&mut self, turn: &mut Turn) {
        if let Some(rare) = &mut self.rare {
            for (_, key) in std::mem::take(&mut rare.timers) {
                turn.wheel.cancel(key);
            }
        }
    }

    /// Gives everything back that the shard holds for this session; the reason it was closing for, if it was.
    pub(crate) fn release(&mut self, turn: &mut Turn) -> Option<CloseReason> {
        if let Some(link) = self.link() {
            link.shut();
        }
        self.cancel_timers(turn);
        if let Some(alarm) = self.alarm.take() {
            turn.wheel.cancel(alarm);
        }
        self.inbox = None;
        self.give_back_outbox(turn);
        self.rare.as_mut().and_then(|rare| rare.reason.take()).map(Contained::into_inner)
    }

    /// What it is closing for, if it is.
    pub(crate) fn reason(&self) -> Option<&CloseReason> {
        self.rare.as_ref().and_then(|rare| rare.reason.as_deref())
    }

    pub(crate) fn forget_reason(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.reason = None;
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
    pub(crate) fn framing_swapped(&mut self, framing: &dyn FramingSlot, turn: &mut Turn) {
        if let Some(link) = self.link() {
            link.set_overhead(overhead(framing));
        }
        self.marks.remove(Mark::DISCARDING);
        if self.inbox.is_some() {
            self.marks.insert(Mark::BACKLOG);
            if !self.halt.any() {
                turn.read_later(self);
            }
        }
    }

    /// The end of a graceful close. The peer is given the time back in which it was not served.
    pub(crate) fn close_by(&self, lost: Tick) -> Option<Tick> {
        let (by, lost_before) = self.rare.as_ref()?.close_by?;
        Some(by + (lost - lost_before))
    }

    /// Since when the peer could have been heard: from the start, or from the end of a pause.
    pub(crate) fn listening_since(&self) -> Tick {
        self.rare.as_ref().map_or(self.opened, |rare| rare.listening_since.max(self.opened))
    }

    pub(crate) fn link(&self) -> Option<&Arc<Link>> {
        self.rare.as_ref().and_then(|rare| rare.link.as_ref())
    }

    /// Since when the peer is at a frame that is not complete, one that is kept or one that is discarded.
    pub(crate) fn frame_since(&self) -> Option<Tick> {
        let kept = self.inbox.as_ref().map(|inbox| inbox.since());
        let rare = self.rare.as_ref().filter(|_| self.marks.has(Mark::DISCARDING));
        kept.into_iter().chain(rare.map(|rare| rare.discarding_since)).min()
    }

    /// The part of the session that handles share, made when the first one is.
    pub(crate) fn link_or_new(&mut self, framing: &dyn FramingSlot, turn: &Turn) -> Arc<Link> {
        let id = SessionId { shard: turn.shard, key: self.key };
        let limit = turn.limits.outbox_hard;
        let (queued, closing) = (self.queued(), self.halt.has(Halt::CLOSING));
        let make = || {
            let link = Link::new(id, turn.mailbox.clone(), limit, overhead(framing));
            link.set_backlog(queued);
            if closing {
                link.shut();
            }
            Arc::new(link)
        };
        self.rare.get_or_insert_default().link.get_or_insert_with(make).clone()
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
