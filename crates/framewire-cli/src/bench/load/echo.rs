use std::time::Duration;

use super::generator::{Generator, Observer};
use super::pattern::Pattern;
use super::{LoadError, LoadSpec, Outcome, Phase, Shared, Traffic};

/// A wait is in whole milliseconds on epoll; closer to the next send than this, the open loop spins.
const SPIN: u64 = 1_500_000;
/// Sends between two polls at most, so that a loop that is behind goes on receiving.
const BURST: usize = 256;
/// How long to wait without an event before looking at the phase.
const LOOK: Duration = Duration::from_millis(5);
/// Frames written at once when the rate decides what is due.
const OPEN_DEPTH: usize = 64;

/// Opens the connections and sends on them in a closed or an open loop; silent ones stay silent.
pub(super) fn run(
    spec: &LoadSpec,
    first_id: u64,
    shared: &Shared,
    ready: impl FnOnce(),
) -> Result<Outcome, LoadError> {
    let depth = match spec.traffic {
        Traffic::Closed { pipeline } => pipeline,
        _ => OPEN_DEPTH,
    };
    let mut generator = Generator::new(spec.to, Pattern::new(spec.size, depth), shared)?;
    // the active ones come first, so that a slot number is enough to tell them
    generator.open(spec.active + spec.silent, first_id)?;
    ready();
    generator.wait_for(Phase::Warm)?;
    match spec.traffic {
        Traffic::Closed { pipeline } => closed_loop(&mut generator, spec.active, pipeline)?,
        Traffic::Open { rate } => open_loop(&mut generator, spec.active, rate)?,
        Traffic::Churn | Traffic::Publish { .. } | Traffic::Idle => generator.wait_for(Phase::Drain)?,
    }
    Ok(generator.outcome)
}

fn closed_loop(generator: &mut Generator<'_>, active: usize, pipeline: usize) -> Result<(), LoadError> {
    let now = generator.now();
    let mut window = ClosedLoop { sent_at: vec![now; active * pipeline], pipeline, phase: Phase::Warm };
    for peer in generator.peers.iter_mut().take(active) {
        peer.due = pipeline;
        peer.flush(&mut generator.pattern)?;
    }
    loop {
        generator.turn(Some(LOOK), &mut window)?;
        generator.check_called_off()?;
        window.phase = generator.shared.phase();
        if window.phase == Phase::Drain {
            return generator.drain(&mut window);
        }
    }
}

/// Each reply is followed by the next message at once.
struct ClosedLoop {
    /// When each message under way was handed to the kernel: `pipeline` places per connection, used in turn.
    sent_at: Vec<u64>,
    pipeline: usize,
    phase: Phase,
}

impl Observer for ClosedLoop {
    #[inline]
    fn on_frame(&mut self, outcome: &mut Outcome, slot: usize, number: u64, now: u64) {
        // number 0 was the first message, when the connection was opened
        let place = number.wrapping_sub(1) as usize % self.pipeline;
        if let Some(sent_at) = self.sent_at.get_mut(slot * self.pipeline + place) {
            if self.phase == Phase::Measure {
                outcome.latency.saturating_record(now.saturating_sub(*sent_at).max(1));
            }
            // the message that takes its place leaves right after this
            *sent_at = now;
        }
    }

    #[inline]
    fn refill(&self, frames: usize) -> usize {
        if self.phase == Phase::Drain { 0 } else { frames }
    }
}

fn open_loop(generator: &mut Generator<'_>, active: usize, rate: f64) -> Result<(), LoadError> {
    let start = generator.now();
    let mut plan = OpenLoop { start, interval: 1e9 / rate.max(1e-3), active: active as u64, from: u64::MAX };
    let mut next = 0;
    loop {
        match generator.shared.phase() {
            Phase::Measure if plan.from == u64::MAX => plan.from = generator.now(),
            Phase::Drain => return generator.drain(&mut plan),
            _ => {}
        }
        next = send_due(generator, &plan, next)?;
        let until = plan.due_at(next).saturating_sub(generator.now());
        let timeout =
            if until < SPIN { Duration::ZERO } else { Duration::from_nanos(until - SPIN / 2).min(LOOK) };
        generator.turn(Some(timeout), &mut plan)?;
        generator.check_called_off()?;
    }
}

/// Sends every message whose time has come; `next` is the first that has not been sent yet.
fn send_due(generator: &mut Generator<'_>, plan: &OpenLoop, mut next: u64) -> Result<u64, LoadError> {
    for _ in 0..BURST {
        let now = generator.now();
        let due_at = plan.due_at(next);
        if due_at > now {
            break;
        }
        let slot = (next % plan.active) as usize;
        if let Some(peer) = generator.peers.get_mut(slot) {
            peer.due += 1;
            peer.flush(&mut generator.pattern)?;
        }
        if now >= plan.from {
            generator.outcome.lag.saturating_record((now - due_at).max(1));
        }
        next += 1;
    }
    Ok(next)
}

/// Messages leave by the clock, in turn over the connections; nothing has to be stored to know when each was due.
struct OpenLoop {
    start: u64,
    /// Nanoseconds between two messages.
    interval: f64,
    active: u64,
    /// Messages due from here on are recorded.
    from: u64,
}

impl OpenLoop {
    fn due_at(&self, index: u64) -> u64 {
        self.start + (index as f64 * self.interval) as u64
    }
}

impl Observer for OpenLoop {
    #[inline]
    fn on_frame(&mut self, outcome: &mut Outcome, slot: usize, number: u64, now: u64) {
        let index = number.wrapping_sub(1).wrapping_mul(self.active).wrapping_add(slot as u64);
        let due_at = self.due_at(index);
        if due_at >= self.from {
            outcome.latency.saturating_record(now.saturating_sub(due_at).max(1));
        }
    }

    fn refill(&self, _: usize) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_in_the_open_loop_counts_from_the_schedule_and_not_from_the_send() {
        let mut outcome = Outcome::new().unwrap();
        let mut plan = OpenLoop { start: 1_000, interval: 500.0, active: 4, from: 0 };
        // frame 2 of slot 3 is message (2 - 1) * 4 + 3 = 7, due at 1,000 + 7 * 500
        plan.on_frame(&mut outcome, 3, 2, 1_000 + 7 * 500 + 123);
        assert_eq!((outcome.latency.len(), outcome.latency.max()), (1, 123));
    }

    #[test]
    fn what_was_due_before_the_window_is_not_recorded() {
        let mut outcome = Outcome::new().unwrap();
        let mut plan = OpenLoop { start: 0, interval: 10.0, active: 1, from: 1_000 };
        plan.on_frame(&mut outcome, 0, 1, 5_000);
        assert!(outcome.latency.is_empty());
        plan.on_frame(&mut outcome, 0, 101, 5_000);
        assert_eq!(outcome.latency.max(), 4_001);
    }

    #[test]
    fn a_pipeline_keeps_one_time_for_each_message_under_way() {
        let mut outcome = Outcome::new().unwrap();
        let mut window = ClosedLoop { sent_at: vec![100, 200, 300, 400], pipeline: 2, phase: Phase::Measure };
        window.on_frame(&mut outcome, 1, 2, 1_000); // slot 1, second place: sent at 400
        window.on_frame(&mut outcome, 1, 4, 1_050); // the same place again: sent at 1,000
        assert_eq!((outcome.latency.max(), outcome.latency.min()), (600, 50));
        assert_eq!(window.refill(2), 2);
    }
}
