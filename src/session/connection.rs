use std::{
    ops::BitOr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    addr::Ends,
    buffer::{Inbox, Outbox},
    error::{CloseReason, SendError},
    id::{Key, SessionId},
    session::{Alarm, FramingSlot, Link, SessionStats, TimerId, Turn},
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
    reason: Option<CloseReason>,
    close_by: Option<Tick>,
    /// The end of a pause before the first packet.
    listening_since: Tick,
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

/// Why no packets are handed out. Any bit stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Halt(u8);

impl Halt {
    /// The handler asked for it.
    pub(crate) const PAUSED: Self = Self(1);
    /// The outbox is above the high-water mark.
    pub(crate) const FULL: Self = Self(2);
    /// The session is closing.
    pub(crate) const CLOSING: Self = Self(4);

    #[inline]
    pub(crate) fn any(self) -> bool {
        self.0 != 0
    }

    pub(crate) fn has(self, bit: Self) -> bool {
        self.0 & bit.0 != 0
    }

    pub(crate) fn set(&mut self, bit: Self) {
        self.0 |= bit.0;
    }

    pub(crate) fn clear(&mut self, bit: Self) {
        self.0 &= !bit.0;
    }
}

/// What the shard remembers about a session between events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark(u16);

impl Mark {
    /// The kernel may have more to read, and will not say so again.
    pub(crate) const READABLE: Self = Self(1);
    /// An end of stream or an error was announced: read until it is found.
    pub(crate) const HANGUP: Self = Self(2);
    /// The end of the stream was read.
    pub(crate) const ENDED: Self = Self(4);
    /// The kernel takes no more; it will say when it does.
    pub(crate) const BLOCKED: Self = Self(8);
    /// On the list of sessions to settle.
    pub(crate) const DIRTY: Self = Self(16);
    /// On the list of sessions to read without an event.
    pub(crate) const UNFINISHED: Self = Self(32);
    /// `on_drained` is due.
    pub(crate) const DRAINED: Self = Self(64);
    /// The inbox holds bytes that were not yet offered to the framing.
    pub(crate) const BACKLOG: Self = Self(128);
    /// To be reset rather than closed.
    pub(crate) const ABORT: Self = Self(256);
    /// A write was interrupted: not again before the next look at this session.
    pub(crate) const RETRY: Self = Self(512);
    /// `on_closing` is due.
    pub(crate) const CLOSING: Self = Self(1024);

    /// All of them in one.
    pub(crate) const fn union(marks: &[Self]) -> Self {
        let mut all = 0;
        let mut rest = marks;
        while let [mark, others @ ..] = rest {
            all |= mark.0;
            rest = others;
        }
        Self(all)
    }

    /// Any of them.
    #[inline]
    pub(crate) fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }

    /// Whether it was not there before.
    pub(crate) fn insert(&mut self, mark: Self) -> bool {
        let new = self.0 & mark.0 == 0;
        self.0 |= mark.0;
        new
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, mark: Self) -> bool {
        let old = self.0 & mark.0 != 0;
        self.0 &= !mark.0;
        old
    }
}

impl BitOr for Mark {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Connection {
    pub(crate) fn new(key: Key, ends: Ends, now: Tick) -> Self {
        Self {
            key,
            phase: Phase::Open,
            halt: Halt::default(),
            marks: Mark::default(),
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

    /// Frames `payload` into the outbox, if the limit allows it.
    #[inline]
    pub(crate) fn enqueue(
        &mut self,
        framing: &dyn FramingSlot,
        payload: &[u8],
        turn: &mut Turn,
    ) -> Result<(), SendError> {
        let (queued, limit) = (self.queued(), turn.limits.outbox_hard);
        if queued.saturating_add(payload.len()) > limit && !self.halt.has(Halt::CLOSING) {
            turn.counters.sends_refused += 1;
            return Err(SendError::Full { queued, limit });
        }
        self.enqueue_taken(framing, payload, turn)
    }

    /// Frames a `payload` that a handle has taken: it was held against the limit there, and whoever sent it has been
    /// told that it will go out. So an outbox holds at most twice its limit: that much from callbacks, and that much
    /// from handles.
    #[inline]
    pub(crate) fn enqueue_taken(
        &mut self,
        framing: &dyn FramingSlot,
        payload: &[u8],
        turn: &mut Turn,
    ) -> Result<(), SendError> {
        if self.halt.has(Halt::CLOSING) {
            return Err(SendError::Closed);
        }
        let outbox = self.outbox.get_or_insert_with(|| turn.pool.take());
        outbox.append(turn.now, |out| framing.encode(payload, out))?;
        if outbox.len() > turn.limits.outbox_high {
            self.halt.set(Halt::FULL);
        }
        self.traffic.packets_out += 1;
        turn.counters.packets_out += 1;
        Ok(())
    }

    /// Gives back an outbox with nothing in it, or with what can not be written any more.
    #[cold]
    pub(crate) fn give_back_outbox(&mut self, turn: &mut Turn) {
        if let Some(outbox) = self.outbox.take() {
            turn.pool.put(outbox);
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
        self.marks.remove(Mark::BACKLOG);
        self.marks.insert(Mark::CLOSING);
        if let Some(link) = self.link() {
            link.shut();
        }
        let rare = self.rare.get_or_insert_default();
        // A peer that has ended its side and reads on is owed its answers for as long as it takes them.
        let by_progress = matches!(reason, CloseReason::PeerClosed) && turn.timeouts.stall.is_some();
        rare.close_by = (!by_progress).then_some(turn.now + turn.timeouts.close);
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
        self.rare.get_or_insert_default().close_by = Some(turn.now + turn.timeouts.linger);
        self.arm(turn);
    }

    /// Asks for a reset, at the end of the callback.
    pub(crate) fn abort(&mut self, turn: &mut Turn) {
        self.close(CloseReason::Local, turn);
        self.marks.insert(Mark::ABORT);
        turn.settle_later(self);
    }

    pub(crate) fn pause(&mut self) {
        self.halt.set(Halt::PAUSED);
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
        self.heard = turn.now;
        if self.traffic.packets_in == 0 {
            self.rare.get_or_insert_default().listening_since = turn.now;
        }
        if let Some(inbox) = &mut self.inbox {
            inbox.restart_clock(turn.now);
        }
        self.arm(turn);
        if self.marks.has(Mark::READABLE | Mark::BACKLOG | Mark::ENDED) {
            turn.read_later(self);
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
        self.rare.as_mut().and_then(|rare| rare.reason.take())
    }

    /// What it is closing for, if it is.
    pub(crate) fn reason(&self) -> Option<&CloseReason> {
        self.rare.as_ref().and_then(|rare| rare.reason.as_ref())
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
            queued: self.queued(),
            opened_at: origin + Duration::from_millis(self.opened),
        }
    }

    /// The kept part of a frame is not what the new framing takes it for: it looks at it again.
    pub(crate) fn framing_swapped(&mut self, turn: &mut Turn) {
        if self.inbox.is_some() {
            self.marks.insert(Mark::BACKLOG);
            if !self.halt.any() {
                turn.read_later(self);
            }
        }
    }

    pub(crate) fn queued(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.len())
    }

    pub(crate) fn close_by(&self) -> Option<Tick> {
        self.rare.as_ref().and_then(|rare| rare.close_by)
    }

    /// Since when the peer could have been heard: from the start, or from the end of a pause.
    pub(crate) fn listening_since(&self) -> Tick {
        self.rare.as_ref().map_or(self.opened, |rare| rare.listening_since.max(self.opened))
    }

    /// Tells the handles how much waits.
    #[inline]
    pub(crate) fn tell_handles(&self) {
        if let Some(link) = self.link() {
            link.set_backlog(self.queued());
        }
    }

    pub(crate) fn link(&self) -> Option<&Arc<Link>> {
        self.rare.as_ref().and_then(|rare| rare.link.as_ref())
    }

    /// The part of the session that handles share, made when the first one is.
    pub(crate) fn link_or_new(&mut self, turn: &Turn) -> Arc<Link> {
        let id = SessionId { shard: turn.shard, key: self.key };
        let limit = turn.limits.outbox_hard;
        let (queued, closing) = (self.queued(), self.halt.has(Halt::CLOSING));
        let make = || {
            let link = Link::new(id, turn.mailbox.clone(), limit);
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

    #[test]
    fn marks_tell_whether_they_changed() {
        let mut marks = Mark::default();
        assert!(marks.insert(Mark::DIRTY));
        assert!(!marks.insert(Mark::DIRTY));
        assert!(marks.remove(Mark::DIRTY));
        assert!(!marks.remove(Mark::DIRTY));
        assert!(!marks.has(Mark::DIRTY | Mark::ENDED));
    }
}
