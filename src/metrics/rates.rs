use std::time::Duration;

use super::Metrics;

/// What a server has counted between two snapshots. See [`Metrics::since`].
#[derive(Debug, Clone)]
pub struct Rates {
    elapsed: Duration,
    counted: Metrics,
    busy: Duration,
    /// Time that passed for the shards together.
    available: Duration,
}

impl Rates {
    pub(super) fn new(later: &Metrics, earlier: &Metrics) -> Self {
        let elapsed = later.uptime.saturating_sub(earlier.uptime);
        let busy = later.busy.saturating_sub(earlier.busy);
        // Shards of connections come and go: on average there were as many as halfway between both numbers.
        let shards = (later.shards + earlier.shards) as f64 / 2.0;
        let available = Duration::try_from_secs_f64(elapsed.as_secs_f64() * shards).unwrap_or(Duration::MAX);
        let mut counted = later.clone();
        counted.count_from(earlier);
        counted.busy = busy;
        Self { elapsed, counted, busy, available }
    }

    /// Returns the time between the snapshots; 0 if the earlier one is the later one, and then all rates are 0.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Returns what was counted between the snapshots. Gauges, the slowest turn and the uptime are as in the later one.
    #[must_use]
    pub fn counted(&self) -> &Metrics {
        &self.counted
    }

    /// Returns a counter's rise per second: `rates.per_second(|metrics| metrics.bytes_in)`, or
    /// `|metrics| metrics.closed(CloseKind::Idle)`.
    #[must_use]
    pub fn per_second(&self, counter: impl Fn(&Metrics) -> u64) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { counter(&self.counted) as f64 / seconds } else { 0.0 }
    }

    /// Returns the share of the time, 0 to 1, that the shards have spent in turns rather than waiting for events, on
    /// average. A shard alone has a thread, so at 1 it can do no more. Time in which the system let another process run
    /// counts, too.
    ///
    /// A turn counts when it is over. The acceptor's shard counts with the workers, also where it only accepts.
    #[must_use]
    pub fn busy_share(&self) -> f64 {
        let available = self.available.as_secs_f64();
        if available > 0.0 { (self.busy.as_secs_f64() / available).min(1.0) } else { 0.0 }
    }
}
