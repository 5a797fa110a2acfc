use std::time::{Duration, Instant};

use super::generator::{Generator, Observer};
use super::pattern::Pattern;
use super::{LoadError, LoadSpec, Outcome, PATIENCE, Phase, Shared};

/// How long to wait without an event before looking at the phase.
const LOOK: Duration = Duration::from_millis(5);
/// The connection that publishes; it is a subscriber too.
const PUBLISHER: usize = 0;

/// One connection publishes, and all receive: every byte of every delivery is compared.
///
/// The first message of each connection comes back to it alone, as when it is opened in every load; those that the
/// publisher sends after it come to all. So many are in flight: the next leaves when the oldest has come to everybody.
pub(super) fn run(
    spec: &LoadSpec,
    in_flight: usize,
    first_id: u64,
    shared: &Shared,
    ready: impl FnOnce(),
) -> Result<Outcome, LoadError> {
    let mut generator = Generator::new(spec.to, Pattern::new(spec.size, in_flight), shared)?;
    generator.open(spec.active, first_id)?;
    generator.peers.iter_mut().for_each(|peer| peer.follow(first_id + PUBLISHER as u64));
    ready();
    generator.wait_for(Phase::Warm)?;
    let mut flight = Flight::new(spec.active, in_flight);
    while flight.phase != Phase::Drain {
        publish(&mut generator, &mut flight)?;
        generator.turn(Some(LOOK), &mut flight)?;
        generator.check_called_off()?;
        flight.phase = shared.phase();
    }
    drain(&mut generator, &mut flight)?;
    Ok(generator.outcome)
}

/// Sends as many messages as there is room for in flight.
fn publish(generator: &mut Generator<'_>, flight: &mut Flight) -> Result<(), LoadError> {
    let now = generator.now();
    let count = flight.take_off(now);
    match generator.peers.get_mut(PUBLISHER) {
        Some(publisher) if count > 0 => {
            publisher.due += count;
            publisher.flush(&mut generator.pattern)
        }
        _ => Ok(()),
    }
}

/// Nothing more is published: waits for what is in flight, so that a delivery that is lost is noticed.
fn drain(generator: &mut Generator<'_>, flight: &mut Flight) -> Result<(), LoadError> {
    let deadline = Instant::now() + PATIENCE;
    while flight.flying > 0 {
        generator.turn(Some(LOOK), flight)?;
        generator.check_called_off()?;
        if Instant::now() > deadline {
            let missing = flight.places.iter().map(|place| place.missing as u64).sum();
            let sent = flight.published * flight.subscribers as u64;
            return Err(LoadError::Missing { missing, sent, seconds: PATIENCE.as_secs() });
        }
    }
    Ok(())
}

/// The messages in flight.
struct Flight {
    subscribers: usize,
    /// Used in turn: message number 1 has the first place.
    places: Vec<Place>,
    flying: usize,
    /// Messages that were published.
    published: u64,
    phase: Phase,
}

/// One message in flight.
#[derive(Clone, Default)]
struct Place {
    sent_at: u64,
    /// Subscribers to which it has not come yet.
    missing: usize,
}

impl Flight {
    fn new(subscribers: usize, in_flight: usize) -> Self {
        let places = vec![Place::default(); in_flight];
        Self { subscribers, places, flying: 0, published: 0, phase: Phase::Warm }
    }

    /// Returns how many messages leave now.
    fn take_off(&mut self, now: u64) -> usize {
        let count = self.places.len() - self.flying;
        for _ in 0..count {
            let at = (self.published % self.places.len() as u64) as usize;
            if let Some(place) = self.places.get_mut(at) {
                *place = Place { sent_at: now, missing: self.subscribers };
            }
            self.published += 1;
        }
        self.flying += count;
        count
    }
}

impl Observer for Flight {
    #[inline]
    fn on_frame(&mut self, outcome: &mut Outcome, _: usize, number: u64, now: u64) {
        // number 0 was the first message, when the connection was opened; each subscriber gets the others in order, so
        // that the oldest in flight is always the first to have come to everybody
        let at = (number.wrapping_sub(1) % self.places.len() as u64) as usize;
        let Some(place) = self.places.get_mut(at) else { return };
        if self.phase == Phase::Measure {
            outcome.latency.saturating_record(now.saturating_sub(place.sent_at).max(1));
        }
        place.missing = place.missing.saturating_sub(1);
        if place.missing == 0 {
            self.flying = self.flying.saturating_sub(1);
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
    fn the_next_message_leaves_when_the_oldest_has_come_to_everybody() {
        let (mut flight, mut outcome) = (Flight::new(3, 2), Outcome::new().unwrap());
        assert_eq!((flight.take_off(100), flight.take_off(100)), (2, 0));
        flight.phase = Phase::Measure;
        flight.on_frame(&mut outcome, 0, 1, 150);
        flight.on_frame(&mut outcome, 0, 2, 150);
        flight.on_frame(&mut outcome, 1, 1, 160);
        assert_eq!(flight.take_off(170), 0, "the third subscriber has none yet");
        flight.on_frame(&mut outcome, 2, 1, 180);
        assert_eq!((flight.take_off(190), flight.published), (1, 3));
        flight.on_frame(&mut outcome, 0, 3, 200);
        assert_eq!((outcome.latency.len(), outcome.latency.min(), outcome.latency.max()), (5, 10, 80));
    }
}
