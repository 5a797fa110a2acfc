use std::time::{Duration, Instant};

use crate::session::{BeatStep, Heartbeat};

/// How far the heartbeat of a client has come. The rules are those of [`Heartbeat`].
#[derive(Debug)]
pub(super) struct Pulse {
    heartbeat: Heartbeat,
    /// When the next beat is due.
    due: Instant,
    /// When something was last received.
    heard: Instant,
    /// Beats that were sent since then.
    unanswered: u16,
}

impl Pulse {
    pub(super) fn new(heartbeat: Heartbeat, now: Instant) -> Self {
        let due = later(now, period(&heartbeat));
        Self { heartbeat, due, heard: now, unanswered: 0 }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The peer has sent something.
    pub(super) fn hear(&mut self, now: Instant) {
        (self.heard, self.unanswered) = (now, 0);
    }

    /// Returns what follows from the beat that is due, if it is; the next one is planned. `waits` is `true` while earlier
    /// bytes wait to be sent.
    pub(super) fn poll(&mut self, now: Instant, waits: bool) -> Option<BeatStep> {
        if now < self.due {
            return None;
        }
        let period = period(&self.heartbeat);
        // A peer has about a period for each answer, also if the beat is late.
        let is_late = now.saturating_duration_since(self.due) > period / 8;
        self.due = later(if is_late { now } else { self.due }, period);
        if waits {
            return Some(BeatStep::Skip);
        }
        if self.heartbeat.is_lost_after(self.unanswered) {
            let (beats, silence) = (self.unanswered, now.saturating_duration_since(self.heard));
            self.unanswered = 0;
            return Some(BeatStep::Lost { beats, silence });
        }
        Some(BeatStep::Send(self.heartbeat.clone()))
    }

    /// A beat was sent.
    pub(super) fn note_sent(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
    }
}

fn period(heartbeat: &Heartbeat) -> Duration {
    Duration::from_millis(heartbeat.period())
}

/// At most 24 days later, which the clock holds.
fn later(from: Instant, period: Duration) -> Instant {
    from.checked_add(period).unwrap_or(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(10);

    fn pulse(begun: Instant) -> Pulse {
        let heartbeat = Heartbeat::every(PERIOD, "ping").map(|heartbeat| heartbeat.lost_after(2));
        Pulse::new(heartbeat.expect("a possible period"), begun)
    }

    fn beats(pulse: &mut Pulse, now: Instant) -> bool {
        let beats = matches!(pulse.poll(now, false), Some(BeatStep::Send(_)));
        if beats {
            pulse.note_sent();
        }
        beats
    }

    #[test]
    fn beats_are_regular_and_none_is_made_up_for() {
        let begun = Instant::now();
        let mut pulse = pulse(begun);
        assert!(!beats(&mut pulse, begun + PERIOD - Duration::from_millis(1)));
        assert!(beats(&mut pulse, begun + PERIOD + Duration::from_millis(9)));
        pulse.hear(begun + PERIOD);
        assert!(beats(&mut pulse, begun + 2 * PERIOD), "the first one was hardly late");
        pulse.hear(begun + 2 * PERIOD);
        assert!(beats(&mut pulse, begun + 5 * PERIOD), "late by two");
        assert!(!beats(&mut pulse, begun + 6 * PERIOD - Duration::from_millis(1)), "and only one");
        assert!(beats(&mut pulse, begun + 6 * PERIOD));
    }

    #[test]
    fn a_peer_is_lost_when_so_many_beats_had_no_answer_and_the_next_is_due() {
        let begun = Instant::now();
        let mut pulse = pulse(begun);
        assert!(beats(&mut pulse, begun + PERIOD));
        pulse.hear(begun + PERIOD);
        assert!(beats(&mut pulse, begun + 2 * PERIOD));
        assert_eq!(pulse.poll(begun + 3 * PERIOD, true), Some(BeatStep::Skip), "which does not count");
        assert!(beats(&mut pulse, begun + 4 * PERIOD));
        let lost = BeatStep::Lost { beats: 2, silence: 4 * PERIOD };
        assert_eq!(pulse.poll(begun + 5 * PERIOD, false), Some(lost));
        assert!(beats(&mut pulse, begun + 6 * PERIOD), "it counts anew");
    }
}
