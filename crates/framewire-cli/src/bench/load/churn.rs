use std::time::{Duration, Instant};

use super::generator::{Generator, Observer};
use super::pattern::Pattern;
use super::{LoadError, LoadSpec, Outcome, PATIENCE, Phase, Shared};

const LOOK: Duration = Duration::from_millis(5);
/// Ids are dealt so that connections spread over source addresses: ports that rest after a close run short otherwise.
const STRIDE: u64 = 12_007;

/// Connect, one message, its reply, close; `active` of them at any time.
///
/// The message counter counts connections; the latency is from the start of connecting to the whole reply.
pub(super) fn run(
    spec: &LoadSpec,
    first_id: u64,
    shared: &Shared,
    ready: impl FnOnce(),
) -> Result<Outcome, LoadError> {
    let mut generator = Generator::new(spec.to, Pattern::new(spec.size, 1), shared)?;
    ready();
    generator.wait_for(Phase::Warm)?;
    let now = generator.now();
    let mut slots =
        Slots { began: vec![now; spec.active], over: Vec::new(), phase: Phase::Warm, answered: now };
    let mut next = first_id;
    for slot in 0..spec.active {
        let peer = generator.connect(slot, next)?;
        generator.peers.push(peer);
        next += STRIDE;
    }
    let mut deadline = None;
    loop {
        generator.turn(Some(LOOK), &mut slots)?;
        generator.check_called_off()?;
        slots.phase = shared.phase();
        if slots.phase == Phase::Drain && deadline.is_none() {
            deadline = Some(Instant::now() + PATIENCE);
        }
        if deadline.is_some() && generator.peers.iter().all(|peer| peer.is_answered()) {
            return Ok(generator.outcome);
        }
        next = begin_again(&mut generator, &mut slots, next)?;
        check_progress(&generator, &slots, deadline)?;
    }
}

/// Closes the connections that are over and puts new ones in their place, unless the run is ending.
fn begin_again(generator: &mut Generator<'_>, slots: &mut Slots, mut next: u64) -> Result<u64, LoadError> {
    if slots.phase == Phase::Drain {
        slots.over.clear();
    }
    while let Some(slot) = slots.over.pop() {
        let now = generator.now();
        let fresh = generator.connect(slot, next)?;
        next += STRIDE;
        if let (Some(peer), Some(began)) = (generator.peers.get_mut(slot), slots.began.get_mut(slot)) {
            *peer = fresh;
            *began = now;
        }
    }
    Ok(next)
}

fn check_progress(
    generator: &Generator<'_>,
    slots: &Slots,
    deadline: Option<Instant>,
) -> Result<(), LoadError> {
    let silence = Duration::from_nanos(generator.now().saturating_sub(slots.answered));
    if silence < PATIENCE && deadline.is_none_or(|deadline| Instant::now() < deadline) {
        return Ok(());
    }
    let open = generator.peers.iter().filter(|peer| !peer.is_answered()).count() as u64;
    Err(LoadError::Missing { missing: open, sent: generator.peers.len() as u64, seconds: PATIENCE.as_secs() })
}

struct Slots {
    /// When the connection in each slot began to connect.
    began: Vec<u64>,
    /// Slots whose connection has had its reply.
    over: Vec<usize>,
    phase: Phase,
    /// When the last reply came.
    answered: u64,
}

impl Observer for Slots {
    fn on_frame(&mut self, outcome: &mut Outcome, slot: usize, _: u64, now: u64) {
        if let (Phase::Measure, Some(began)) = (self.phase, self.began.get(slot)) {
            outcome.latency.saturating_record(now.saturating_sub(*began).max(1));
        }
        self.answered = now;
        self.over.push(slot);
    }

    fn refill(&self, _: usize) -> usize {
        0
    }
}
