use std::{sync::Arc, time::Duration};

/// How long a connection must have stood for the attempts to begin anew.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// The least pause between two attempts of a list.
const LEAST_DELAY: Duration = Duration::from_millis(1);

/// When a [`Dial`](crate::Dial) is made again: after it has failed, and after its connection has ended, by either side.
///
/// ```
/// use std::time::Duration;
/// use framewire::{Dial, Reconnect};
///
/// // For ever, after random pauses of up to 0.2 s, 0.4 s, 0.8 s … 30 s.
/// let patient = Reconnect::exponential(Duration::from_millis(200), Duration::from_secs(30));
/// // Three times, and then it has failed.
/// let brief = Reconnect::delays([1, 5, 25].map(Duration::from_secs)).attempts(3);
/// let dial = Dial::to("10.0.0.1:7000").reconnect(patient);
/// # drop((dial, brief));
/// ```
#[derive(Debug, Clone)]
#[must_use = "it is given to `Dial::reconnect`"]
pub struct Reconnect {
    delays: Delays,
    attempts: Option<u32>,
    stable_after: Duration,
}

#[derive(Debug, Clone)]
enum Delays {
    Exponential { first: Duration, most: Duration },
    Listed(Arc<[Duration]>),
}

impl Reconnect {
    /// After a random pause of at most `first`, then at most twice that, and so on, up to at most `most`. The whole pause
    /// is random ("full jitter"), so that the clients of a server that comes back are spread over all of it, and do not
    /// come together. `first` and `most` are at least 1 ms.
    ///
    /// Source: M. Brooker, [Exponential Backoff And
    /// Jitter](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), 2015.
    pub fn exponential(first: Duration, most: Duration) -> Self {
        let first = first.max(LEAST_DELAY);
        Self::with(Delays::Exponential { first, most: most.max(first) })
    }

    /// After exactly these pauses, one after the other; the last one repeats. Each is at least 1 ms. Without any, after
    /// 1 s. Clients that lose their server at the same time come back at the same time: prefer
    /// [`exponential`](Self::exponential) where there are many.
    pub fn delays(delays: impl IntoIterator<Item = Duration>) -> Self {
        Self::with(Delays::Listed(delays.into_iter().map(|delay| delay.max(LEAST_DELAY)).collect()))
    }

    fn with(delays: Delays) -> Self {
        Self { delays, attempts: None, stable_after: STABLE_AFTER }
    }

    /// Gives up after so many attempts in a row that have led to no [stable](Self::stable_after) connection; the first
    /// one of the dial does not count. Default: never.
    pub fn attempts(mut self, most: u32) -> Self {
        self.attempts = Some(most);
        self
    }

    /// A connection that has stood for so long is stable: when it ends, pauses and attempts are counted from the
    /// beginning. One that has ended sooner counts as an attempt that has failed, so that a server that accepts and closes
    /// at once is not asked without a pause. Default 10 s.
    pub fn stable_after(mut self, up: Duration) -> Self {
        self.stable_after = up;
        self
    }
}

/// The attempts of one dial: when the next one is due.
#[derive(Debug)]
pub(crate) struct Backoff {
    plan: Reconnect,
    /// In a row, without a stable connection.
    attempts: u32,
    random: u64,
}

impl Backoff {
    /// `seed` makes the pauses of this one other than those of all others.
    pub(crate) fn new(plan: Reconnect, seed: u64) -> Self {
        Self { plan, attempts: 0, random: seed }
    }

    /// How long a connection must have stood for [`reset`](Self::reset).
    pub(crate) fn stable_after(&self) -> Duration {
        self.plan.stable_after
    }

    /// A stable connection has ended.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Returns the pause before the next attempt; `None` if there is to be none.
    pub(crate) fn next_delay(&mut self) -> Option<Duration> {
        let before = self.attempts;
        if self.plan.attempts.is_some_and(|most| before >= most) {
            return None;
        }
        self.attempts = before.saturating_add(1);
        Some(match &self.plan.delays {
            Delays::Exponential { first, most } => {
                let doubled = first.saturating_mul(2_u32.saturating_pow(before)).min(*most);
                Duration::from_micros(next_random(&mut self.random) % (micros(doubled) + 1))
            }
            Delays::Listed(delays) => {
                let delay = delays.get(before as usize).or(delays.last());
                delay.copied().unwrap_or(Duration::from_secs(1))
            }
        })
    }
}

/// A pause of more than half a million years is cut to that.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(u64::MAX - 1)
}

/// The next number of a SplitMix64 (Steele, Lea and Flood, 2014): nobody can gain anything by guessing it.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn pauses_are_spread_over_the_whole_of_a_span_that_doubles_up_to_its_most() {
        let plan = Reconnect::exponential(MS(100), MS(1_000));
        for (attempt, most) in [100, 200, 400, 800, 1_000, 1_000].into_iter().enumerate() {
            let pauses: Vec<Duration> = (0..2_000)
                .filter_map(|seed| {
                    let mut backoff = Backoff::new(plan.clone(), seed);
                    (0..=attempt).filter_map(|_| backoff.next_delay()).last()
                })
                .collect();
            assert_eq!(pauses.len(), 2_000);
            assert!(pauses.iter().all(|pause| *pause <= MS(most)), "attempt {attempt}");
            let tenths = |tenth: u64| {
                let within = MS(most * tenth / 10)..MS(most * (tenth + 1) / 10);
                pauses.iter().filter(|pause| within.start <= **pause && **pause < within.end).count()
            };
            assert!((0..10).map(tenths).all(|count| (140..=260).contains(&count)), "attempt {attempt}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_pauses() {
        let pauses = |seed| {
            let mut backoff = Backoff::new(Reconnect::exponential(MS(100), MS(1_000)), seed);
            [(); 8].map(|()| backoff.next_delay())
        };
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
    }

    #[test]
    fn listed_pauses_follow_each_other_and_the_last_repeats() {
        let mut backoff = Backoff::new(Reconnect::delays([MS(5), MS(7), MS(0)]).attempts(5), 1);
        let pauses: Vec<Duration> = std::iter::from_fn(|| backoff.next_delay()).collect();
        assert_eq!(pauses, [5, 7, 1, 1, 1].map(MS));
        backoff.reset();
        assert_eq!(backoff.next_delay(), Some(MS(5)));
        assert_eq!(Backoff::new(Reconnect::delays([]), 1).next_delay(), Some(MS(1_000)));
    }

    #[test]
    fn no_pause_is_beyond_the_range_of_numbers() {
        let mut backoff = Backoff::new(Reconnect::exponential(Duration::MAX, Duration::MAX), 1);
        assert!((0..100).all(|_| backoff.next_delay().is_some()));
        let mut backoff = Backoff::new(Reconnect::exponential(MS(1), MS(u64::MAX)).attempts(0), 1);
        assert_eq!(backoff.next_delay(), None);
    }
}
