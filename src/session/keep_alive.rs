//! What keeps a session alive, or ends it, on terms of its own: its heartbeat, its idle timeout, its maximum age.

use std::time::Duration;

use crate::{
    session::{Connection, Heartbeat, ShardCore, status::Flags},
    slots::SideTable,
    time::{Tick, ticks},
};

/// The heartbeats of a shard's sessions, and the timeouts that sessions have of their own.
///
/// Beside the sessions rather than in them, because most have none: a heartbeat takes 14 bytes and its part of a page.
#[derive(Default)]
pub(crate) struct KeepAlives {
    heartbeats: SideTable<Option<Heartbeat>>,
    pulses: SideTable<Pulse>,
    timeouts: SideTable<OwnTimeouts>,
}

impl KeepAlives {
    /// Returns `true` if no session has any.
    pub(crate) fn is_empty(&self) -> bool {
        self.heartbeats.is_empty() && self.pulses.is_empty() && self.timeouts.is_empty()
    }
}

/// How far a heartbeat has come.
#[derive(Debug, Clone, Copy, Default)]
struct Pulse {
    /// The lower 32 bits of the tick at which the next beat is due, as bytes, for they need no alignment.
    due: [u8; 4],
    /// Beats that were sent since the peer was last heard.
    unanswered: u16,
}

impl Pulse {
    fn new(due: Tick, unanswered: u16) -> Self {
        let [a, b, c, d, ..] = due.to_le_bytes();
        Self { due: [a, b, c, d], unanswered }
    }

    /// Returns when the next beat is due: not more than 24 days from `now`.
    fn due(self, now: Tick) -> Tick {
        let [a, b, c, d, ..] = now.to_le_bytes();
        let ahead = u32::from_le_bytes(self.due).wrapping_sub(u32::from_le_bytes([a, b, c, d]));
        now.saturating_add_signed(i32::from_le_bytes(ahead.to_le_bytes()).into())
    }
}

/// Timeouts that apply to one session in place of those of the limits.
#[derive(Debug, Clone, Copy, Default)]
struct OwnTimeouts {
    idle: OwnTimeout,
    max_age: OwnTimeout,
}

/// In ticks; 0 if that of the limits applies, and the maximum if it is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct OwnTimeout(Tick);

impl OwnTimeout {
    const OFF: Self = Self(Tick::MAX);

    fn new(timeout: Option<Duration>) -> Self {
        timeout.map_or(Self::OFF, |timeout| Self(ticks(timeout).max(1)))
    }

    fn or(self, limit: Option<Tick>) -> Option<Tick> {
        match self {
            Self(0) => limit,
            Self::OFF => None,
            Self(timeout) => Some(timeout),
        }
    }
}

/// What follows from a beat that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BeatStep {
    /// It is to be sent now.
    Send(Heartbeat),
    /// It is not sent: earlier packets wait.
    Skip,
    /// The peer has answered none of these beats, and was silent for so long.
    Lost { beats: u16, silence: Duration },
}

impl Connection {
    /// Sets the heartbeat, or replaces it: its first beat is one period from now. `None` stops it.
    pub(crate) fn set_heartbeat(&mut self, heartbeat: Option<Heartbeat>, core: &mut ShardCore) {
        let Some(heartbeat) = heartbeat.filter(|_| !self.is_closing()) else {
            return self.stop_heartbeat(core);
        };
        let due = core.clock.deadline(heartbeat.period());
        self.status.insert(Flags::BEATS);
        core.keep_alives.pulses.insert(self.key.slot, Pulse::new(due, 0));
        core.keep_alives.heartbeats.insert(self.key.slot, Some(heartbeat));
        self.arm(core);
    }

    /// Sets an idle timeout in place of that of the limits.
    pub(crate) fn set_idle_timeout(&mut self, timeout: Option<Duration>, core: &mut ShardCore) {
        self.set_own_timeout(core, |own| own.idle = OwnTimeout::new(timeout));
    }

    /// Sets a maximum age in place of that of the limits.
    pub(crate) fn set_max_age(&mut self, age: Option<Duration>, core: &mut ShardCore) {
        self.set_own_timeout(core, |own| own.max_age = OwnTimeout::new(age));
    }

    fn set_own_timeout(&mut self, core: &mut ShardCore, set: impl FnOnce(&mut OwnTimeouts)) {
        let mut own = self.own_timeouts(core);
        set(&mut own);
        self.status.insert(Flags::OWN_TIMEOUTS);
        core.keep_alives.timeouts.insert(self.key.slot, own);
        self.arm(core);
    }

    fn own_timeouts(&self, core: &ShardCore) -> OwnTimeouts {
        let own = core.keep_alives.timeouts.get(self.key.slot);
        own.filter(|_| self.status.has(Flags::OWN_TIMEOUTS)).copied().unwrap_or_default()
    }

    /// Returns the idle timeout that applies.
    pub(crate) fn idle_timeout(&self, core: &ShardCore) -> Option<Tick> {
        self.own_timeouts(core).idle.or(core.timeouts.idle)
    }

    /// Returns the maximum age that applies.
    pub(crate) fn max_age(&self, core: &ShardCore) -> Option<Tick> {
        self.own_timeouts(core).max_age.or(core.timeouts.max_age(core.id_of(self.key)))
    }

    /// Returns when the next beat is due.
    pub(super) fn next_beat(&self, core: &ShardCore) -> Option<Tick> {
        if !self.status.has(Flags::BEATS) || self.status.has(Flags::BROKEN) {
            return None;
        }
        core.keep_alives.pulses.get(self.key.slot).map(|pulse| pulse.due(core.clock.now()))
    }

    /// Returns what follows from the beat that is due. Unless the peer seems lost, the next beat is planned.
    pub(crate) fn poll_beat(&mut self, core: &mut ShardCore) -> Option<BeatStep> {
        let (slot, now) = (self.key.slot, core.clock.now());
        let pulse = *core.keep_alives.pulses.get(slot)?;
        let heartbeat = core.keep_alives.heartbeats.get(slot)?.clone()?;
        let (due, period) = (pulse.due(now), heartbeat.period());
        // Stamps lie ahead by as much.
        let heard = self.heard.saturating_sub(core.clock.slack());
        let is_heard = heard + period >= due || self.has_backlog();
        // While we do not read, or the peer has ended its side, silence says nothing about it. Reading on counts as
        // having heard it.
        let listens = !self.status.is_blocked() && !self.status.has(Flags::ENDED | Flags::END_TOLD);
        let unanswered = if is_heard { 0 } else { pulse.unanswered };
        let waits = self.queued() > 0 || self.status.has(Flags::BLOCKED) || self.is_in_handshake();
        if listens && !waits && heartbeat.is_lost_after(unanswered) && !is_heard {
            let silence = Duration::from_millis(now.saturating_sub(heard));
            return Some(BeatStep::Lost { beats: unanswered, silence });
        }
        // A peer has about a period for each answer, also if the beat is late.
        let is_late = now.saturating_sub(due) > period / 8;
        let next = period + if is_late { now } else { due };
        let unanswered = unanswered.saturating_add(u16::from(!waits));
        core.keep_alives.pulses.insert(slot, Pulse::new(next, unanswered));
        Some(if waits { BeatStep::Skip } else { BeatStep::Send(heartbeat) })
    }

    pub(super) fn stop_heartbeat(&mut self, core: &mut ShardCore) {
        if self.status.remove(Flags::BEATS) {
            core.keep_alives.pulses.remove(self.key.slot);
            core.keep_alives.heartbeats.remove(self.key.slot);
        }
    }

    /// The session is over.
    pub(super) fn forget_keep_alive(&mut self, core: &mut ShardCore) {
        self.stop_heartbeat(core);
        if self.status.remove(Flags::OWN_TIMEOUTS) {
            core.keep_alives.timeouts.remove(self.key.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_of_ten_thousand_sessions_take_less_than_16_bytes_each() {
        let beat = Heartbeat::every(Duration::from_secs(1), "beat").expect("the period is possible");
        let mut all = KeepAlives::default();
        for slot in 0..10_000 {
            all.heartbeats.insert(slot, Some(beat.clone()));
            all.pulses.insert(slot, Pulse::new(1_000, 0));
        }
        let bytes = all.heartbeats.bytes() + all.pulses.bytes() + all.timeouts.bytes();
        assert!((140_000..=160_000).contains(&bytes), "{bytes} bytes");
        (0..10_000).for_each(|slot| {
            all.heartbeats.remove(slot);
            all.pulses.remove(slot);
        });
        assert_eq!(all.heartbeats.bytes() + all.pulses.bytes(), 0);
    }

    #[test]
    fn timeouts_of_a_session_of_its_own_take_16_bytes() {
        assert_eq!(size_of::<OwnTimeouts>(), 16);
        assert_eq!((size_of::<Pulse>(), size_of::<Option<Heartbeat>>()), (6, 8));
    }

    #[test]
    fn a_due_beat_is_found_again_wherever_the_clock_stands() {
        const DAYS: Tick = 24 * 86_400_000;
        for now in [DAYS, u64::from(u32::MAX) - 5, u64::from(u32::MAX) + 1, 7 << 40] {
            for due in [now - DAYS, now - 1, now, now + 10, now + DAYS] {
                assert_eq!(Pulse::new(due, 3).due(now), due);
            }
        }
    }

    #[test]
    fn a_timeout_of_its_own_replaces_that_of_the_limits() {
        assert_eq!(OwnTimeout::default().or(Some(5)), Some(5));
        assert_eq!(OwnTimeout::new(None).or(Some(5)), None);
        assert_eq!(OwnTimeout::new(Some(Duration::ZERO)).or(None), Some(1));
        assert_eq!(OwnTimeout::new(Some(Duration::MAX)).or(Some(5)), Some(Tick::MAX / 2));
    }
}
