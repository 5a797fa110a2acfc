use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many sessions all shards of a service have, and the most they ever had. Touched by a shard at the end of a turn
/// that has changed its number of sessions.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    now: AtomicU64,
    peak: AtomicU64,
}

impl Crowd {
    /// A shard that had `before` sessions now has `after`.
    pub(crate) fn change(&self, before: u64, after: u64) {
        // Modulo 2^64, so that one addition does for more and for fewer.
        let change = after.wrapping_sub(before);
        let now = self.now.fetch_add(change, Relaxed).wrapping_add(change);
        if after > before && now > self.peak.load(Relaxed) {
            self.peak.fetch_max(now, Relaxed);
        }
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }
}
