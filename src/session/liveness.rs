use std::time::Duration;

use crate::{
    id::{SessionId, SlotNumber},
    limits::Limits,
    session::{
        Connection, ShardCore, TimerPurpose,
        status::{Flags, Phase, ReadBlock},
    },
    time::{Tick, ticks},
    timer_wheel::TimerKey,
};

/// The timeouts of [`Limits`], in ticks.
#[derive(Debug, Clone)]
pub(crate) struct Timeouts {
    pub(super) idle: Option<Tick>,
    max_age: Option<Tick>,
    max_age_spread: Tick,
    pub(crate) stall: Option<Tick>,
    first_packet: Option<Tick>,
    packet: Option<Tick>,
    pub(crate) close: Tick,
    pub(crate) linger: Tick,
    pub(crate) handshake: Tick,
}

impl Timeouts {
    /// Returns `true` if there is a time for a packet to become whole.
    pub(crate) fn has_packet(&self) -> bool {
        self.packet.is_some()
    }

    /// Returns the maximum age of this session, which is less than that of the limits by its own part of the spread.
    pub(super) fn max_age(&self, session: SessionId) -> Option<Tick> {
        let part = (u128::from(self.max_age_spread) * u128::from(session.scattered())) >> u64::BITS;
        self.max_age.map(|age| age.saturating_sub(part as Tick).max(1))
    }

    pub(crate) fn new(limits: &Limits) -> Self {
        let optional = |timeout: Option<Duration>| timeout.map(ticks);
        let max_age = optional(limits.max_age);
        Self {
            idle: optional(limits.idle_timeout),
            max_age,
            max_age_spread: optional(limits.max_age_spread).or(max_age.map(|age| age / 10)).unwrap_or(0),
            stall: optional(limits.stall_timeout),
            first_packet: optional(limits.first_packet_timeout),
            packet: optional(limits.packet_timeout),
            close: ticks(limits.close_timeout),
            linger: ticks(limits.linger_timeout),
            handshake: ticks(limits.handshake_timeout),
        }
    }
}

/// A deadline of a session that can pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeoutKind {
    /// Nothing was received for too long.
    Idle,
    /// The kernel took no byte of the outbox for too long.
    Stall,
    /// The first packet has not come.
    FirstPacket,
    /// A packet, or a frame that is discarded, was begun and is not complete.
    SlowPacket,
    /// A layer is still in its handshake.
    Handshake,
    /// A beat of the heartbeat is to be sent; or too many had no answer.
    Beat,
    /// It was open for as long as it may be.
    MaxAge,
    /// A graceful close took too long to flush, or the peer too long to end its side.
    Close,
}

impl TimeoutKind {
    /// Returns `true` if the deadline is about what the peer has not sent.
    pub(crate) fn is_silence(self) -> bool {
        matches!(self, Self::Idle | Self::FirstPacket | Self::SlowPacket | Self::Handshake)
    }
}

impl Connection {
    /// Returns the earliest deadline of this session, and what it is for.
    fn next_deadline(&self, core: &ShardCore) -> Option<(Tick, TimeoutKind)> {
        let timeouts = &core.timeouts;
        let stall = timeouts.stall.zip(self.blocked_since());
        let stall = stall.map(|(after, since)| (since + after, TimeoutKind::Stall));
        if self.is_closing() {
            return self.close_by(core.clock.lost()).map(|at| (at, TimeoutKind::Close)).or(stall);
        }
        // While the handler has paused the session, its handshake cannot go on.
        let shakes = self.is_layered() && !self.status.has_block(ReadBlock::PAUSED);
        let open_by = if shakes { self.open_by(core.clock.lost()) } else { None };
        let handshake = open_by.map(|at| (at, TimeoutKind::Handshake));
        if self.status.phase() == Phase::Opening {
            return handshake.into_iter().chain(stall).min_by_key(|(at, _)| *at);
        }
        // While we do not read, silence says nothing about the peer.
        let idle = self.idle_timeout(core).filter(|_| !self.status.is_blocked());
        let idle = idle.map(|after| (self.heard + after, TimeoutKind::Idle));
        let first = timeouts.first_packet.filter(|_| {
            self.traffic.packets_in == 0 && !self.status.is_blocked() && !self.status.has(Flags::END_TOLD)
        });
        let first = first.map(|after| (self.listening_since() + after, TimeoutKind::FirstPacket));
        let slow = timeouts.packet.zip(self.frame_since().filter(|_| !self.status.is_blocked()));
        let slow = slow.map(|(after, since)| (since + after, TimeoutKind::SlowPacket));
        let age = self.max_age(core).map(|age| (self.opened + age, TimeoutKind::MaxAge));
        let beat = self.next_beat(core).map(|at| (at, TimeoutKind::Beat));
        [idle, first, slow, stall, handshake, age, beat].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Makes sure that the alarm (the session's deadline timer) fires no later than its next deadline.
    ///
    /// A deadline that moves later, because bytes came, costs nothing: the alarm fires too early and is then set again.
    pub(crate) fn arm(&mut self, core: &mut ShardCore) {
        let Some((deadline, _)) = self.next_deadline(core) else { return };
        if let Some(alarm) = self.alarm {
            if core.wheel.deadline(alarm).is_some_and(|at| at <= deadline) {
                return;
            }
            core.wheel.cancel(alarm);
        }
        self.alarm = Some(core.wheel.insert(deadline, TimerPurpose::Liveness(SlotNumber::of(self.key))));
    }

    /// The alarm has fired. Returns what the deadline is for that has passed, if any; otherwise the alarm is set again.
    pub(crate) fn handle_alarm(&mut self, rang: TimerKey, core: &mut ShardCore) -> Option<TimeoutKind> {
        if self.alarm != Some(rang) {
            return None;
        }
        self.alarm = None;
        self.poll_passed_deadline(core).map(|(_, lapse)| lapse)
    }

    /// Returns the deadline that has passed, if any; otherwise the alarm is set.
    pub(crate) fn poll_passed_deadline(&mut self, core: &mut ShardCore) -> Option<(Tick, TimeoutKind)> {
        let lapsed = self.next_deadline(core).filter(|(deadline, _)| *deadline <= core.clock.now());
        if lapsed.is_none() {
            self.arm(core);
        }
        lapsed
    }

    /// Restarts the idle timeout, after the handler chose to stay.
    pub(crate) fn listen_anew(&mut self, core: &mut ShardCore) {
        self.heard = core.clock.read_stamp();
        self.arm(core);
    }

    /// Returns `true` if a packet whose `deadline` has passed may take longer, because more of it waits to be read: at
    /// most the same time once more.
    pub(crate) fn may_wait(&self, deadline: Tick, core: &ShardCore) -> bool {
        core.timeouts.packet.is_some_and(|timeout| core.clock.now() < deadline + timeout)
    }

    /// Sets the alarm to fire after `after` ticks.
    pub(crate) fn look_again(&mut self, after: Tick, core: &mut ShardCore) {
        let at = core.clock.deadline(after);
        if let Some(alarm) =
            self.alarm.replace(core.wheel.insert(at, TimerPurpose::Liveness(SlotNumber::of(self.key))))
        {
            core.wheel.cancel(alarm);
        }
    }

    /// Replaces time stamps of `from` or later, which were taken before a slow callback, by `to`, the true time.
    pub(crate) fn restamp(&mut self, from: Tick, to: Tick, core: &ShardCore) {
        if self.heard >= from {
            self.heard = to;
        }
        let is_awaited = core.timeouts.first_packet.is_some() && self.traffic.packets_in == 0;
        if is_awaited && self.opened + core.clock.slack() >= from {
            self.listen_from(to);
        }
        if let Some(inbox) = self.inbox.as_mut().filter(|inbox| inbox.since() >= from) {
            inbox.restart_clock(to);
        }
        self.restamp_rare(from, to);
        if self.is_layered() {
            self.restamp_layers(from, to);
        }
    }

    /// Returns since when the kernel has taken no byte of what waits for it.
    fn blocked_since(&self) -> Option<Tick> {
        if self.is_layered() {
            return self.wire_blocked_since();
        }
        self.outbox.as_ref().and_then(|outbox| outbox.blocked_since())
    }

    /// Lets the first-packet timeout begin at `since`.
    pub(super) fn listen_from(&mut self, since: Tick) {
        self.extra_or_new().listening_since = since;
    }

    fn restamp_rare(&mut self, from: Tick, to: Tick) {
        if let Some(extra) = self.extra_mut() {
            for stamp in [&mut extra.discarding_since, &mut extra.listening_since] {
                *stamp = if *stamp >= from { to } else { *stamp };
            }
        }
    }

    /// Returns since when we have listened to the peer: from the start, or from the end of a pause.
    fn listening_since(&self) -> Tick {
        self.extra().map_or(self.opened, |extra| extra.listening_since.max(self.opened))
    }

    /// Returns when the incomplete frame began that is kept or discarded.
    fn frame_since(&self) -> Option<Tick> {
        let kept = self.inbox.as_ref().map(|inbox| inbox.since());
        let extra = self.extra().filter(|_| self.status.has(Flags::DISCARDING));
        let block = if self.is_layered() { self.block_since() } else { None };
        kept.into_iter().chain(extra.map(|extra| extra.discarding_since)).chain(block).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_never_0_and_never_more_than_the_limit() {
        let ages = |age: u64, spread: Option<u64>| {
            let mut limits = Limits::default().max_age(Duration::from_micros(age));
            limits.max_age_spread = spread.map(Duration::from_micros);
            let timeouts = Timeouts::new(&limits);
            let ages = (0..1_000).filter_map(|id| timeouts.max_age(SessionId::from_u128(id)));
            ages.fold((Tick::MAX, 0), |(least, most), age| (least.min(age), most.max(age)))
        };
        assert_eq!(ages(1_000, None), (1, 1));
        assert_eq!(ages(1_500, Some(1_499)), (1, 2));
        assert_eq!(ages(10_000, Some(9_999)), (1, 10));
        assert_eq!(ages(1_000_000, None), (901, 1_000));
        assert_eq!(ages(1_000_000, Some(0)), (1_000, 1_000));
        assert_eq!(Timeouts::new(&Limits::default()).max_age(SessionId::from_u128(7)), None);
    }
}
