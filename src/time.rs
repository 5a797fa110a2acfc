//! Time as a number that is handed down.

use std::time::Duration;

/// Milliseconds since the server's origin. Monotonic; read once per turn, by the reactor alone.
pub(crate) type Tick = u64;

/// A duration in ticks, rounded up: a timer may be late by a tick, never early.
pub(crate) fn ticks(duration: Duration) -> Tick {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    Tick::try_from(millis).unwrap_or(Tick::MAX / 2).min(Tick::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_up_and_never_overflow_a_sum() {
        assert_eq!(ticks(Duration::from_micros(1)), 1);
        assert_eq!(ticks(Duration::from_millis(5)), 5);
        assert!(ticks(Duration::MAX).checked_add(Tick::MAX / 2).is_some());
    }
}
