use std::time::Instant;

use crate::time::{Clock, Nanos, nanos};

/// The system's monotonic clock.
pub(super) struct SystemClock {
    #[cfg(target_os = "linux")]
    origin: Nanos,
    #[cfg(not(target_os = "linux"))]
    origin: Instant,
}

/// On Linux read as one number: the difference of two [`Instant`]s takes as many instructions again as the reading, and
/// every turn reads the clock several times.
#[cfg(target_os = "linux")]
impl SystemClock {
    pub(super) fn new(origin: Instant) -> Self {
        // In this order, so that no time is ahead of the clock of `Instant`, which is the same.
        let past = nanos(origin.elapsed());
        Self { origin: monotonic().saturating_sub(past) }
    }
}

#[cfg(target_os = "linux")]
impl Clock for SystemClock {
    fn since_origin(&self) -> Nanos {
        monotonic().saturating_sub(self.origin)
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn monotonic() -> Nanos {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // Since the machine was started: neither negative, nor more than 64 bits hold.
    (time.tv_sec as Nanos).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as Nanos)
}

#[cfg(not(target_os = "linux"))]
impl SystemClock {
    pub(super) fn new(origin: Instant) -> Self {
        Self { origin }
    }
}

#[cfg(not(target_os = "linux"))]
impl Clock for SystemClock {
    fn since_origin(&self) -> Nanos {
        nanos(self.origin.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_counts_from_its_origin_and_never_goes_back() {
        let origin = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let clock = SystemClock::new(origin);
        let mut last = 0;
        for _ in 0..1000 {
            let now = clock.since_origin();
            assert!(now >= last && now <= nanos(origin.elapsed()), "{now} after {last}");
            last = now;
        }
    }
}
