use std::time::Duration;

/// The time that a benchmark may take, and what still fits of its runs.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// `None`: the user said how long each run takes, and that is how long it takes.
    most: Option<Duration>,
    done: usize,
    left: usize,
}

impl Allowance {
    /// At most `most` for `runs` runs.
    pub(crate) fn of(most: Duration, runs: usize) -> Self {
        Self { most: Some(most), done: 0, left: runs }
    }

    /// As long as it takes.
    pub(crate) fn endless() -> Self {
        Self { most: None, done: 0, left: 0 }
    }

    /// Returns `true` if `runs` more runs end in time, `elapsed` after the start.
    pub(crate) fn has_time_for(&self, runs: usize, elapsed: Duration) -> bool {
        self.most.is_none_or(|most| elapsed + self.each(elapsed) * count(runs) <= most)
    }

    /// Returns `true` if a run can be repeated without costing a later one its place.
    pub(crate) fn has_time_to_spare(&self, elapsed: Duration) -> bool {
        self.has_time_for(self.left + 1, elapsed)
    }

    /// How long everything may take, if that was set.
    pub(crate) fn most(&self) -> Option<Duration> {
        self.most
    }

    /// A planned run has been done, or is not needed any more.
    pub(crate) fn run_done(&mut self) {
        self.done += 1;
        self.left = self.left.saturating_sub(1);
    }

    fn each(&self, elapsed: Duration) -> Duration {
        elapsed / count(self.done).max(1)
    }
}

fn count(runs: usize) -> u32 {
    u32::try_from(runs).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_time_when_it_ends_within_the_allowance() {
        let mut allowance = Allowance::of(Duration::from_secs(100), 200);
        (0..150).for_each(|_| allowance.run_done());
        // 0.6 s each after 90 s
        assert!(allowance.has_time_for(16, Duration::from_secs(90)));
        assert!(!allowance.has_time_for(17, Duration::from_secs(90)));
    }

    #[test]
    fn time_to_spare_is_what_the_planned_runs_leave() {
        let mut allowance = Allowance::of(Duration::from_secs(100), 200);
        (0..100).for_each(|_| allowance.run_done());
        assert!(allowance.has_time_to_spare(Duration::from_millis(49_700)));
        assert!(!allowance.has_time_to_spare(Duration::from_millis(49_800)));
    }

    #[test]
    fn without_an_end_there_is_always_time() {
        let endless = Allowance::endless();
        assert!(endless.has_time_for(10, Duration::from_secs(100_000)));
        assert!(endless.has_time_to_spare(Duration::from_secs(100_000)));
    }
}
