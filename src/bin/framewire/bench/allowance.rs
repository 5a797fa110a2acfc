use std::time::Duration;

/// Where a benchmark is on the way to take longer than this (a slow or busy machine), later rounds are left out.
const MOST: Duration = Duration::from_secs(112);

/// The time that a benchmark may take, and what of its runs still fits.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// `None`: the user said how long each run takes, and that is how long it takes.
    most: Option<Duration>,
    done: usize,
    left: usize,
    rounds_left_out: usize,
}

impl Allowance {
    /// Less than two minutes for `runs` runs.
    pub(crate) fn two_minutes(runs: usize) -> Self {
        Self { most: Some(MOST), done: 0, left: runs, rounds_left_out: 0 }
    }

    /// As long as it takes.
    pub(crate) fn endless() -> Self {
        Self { most: None, done: 0, left: usize::MAX, rounds_left_out: 0 }
    }

    /// Whether a further round of `runs` runs still fits, `elapsed` after the start; one that does not is left out.
    pub(crate) fn has_room_for(&mut self, runs: usize, elapsed: Duration) -> bool {
        let Some(most) = self.most else { return true };
        let each = elapsed.as_secs_f64() / self.done.max(1) as f64;
        let projected = each * (self.done + self.left) as f64;
        let fits = projected <= most.as_secs_f64();
        if !fits {
            self.left = self.left.saturating_sub(runs);
            self.rounds_left_out += 1;
        }
        fits
    }

    /// A run has been done, or is not needed any more.
    pub(crate) fn run_done(&mut self) {
        self.done += 1;
        self.left = self.left.saturating_sub(1);
    }

    pub(crate) fn rounds_left_out(&self) -> usize {
        self.rounds_left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_left_out_until_the_rest_fits_again() {
        let mut allowance = Allowance::two_minutes(200);
        (0..10).for_each(|_| allowance.run_done());
        // half a second each is 100 s in all; a whole one would be 200 s
        assert!(allowance.has_room_for(10, Duration::from_secs(5)));
        assert!(!allowance.has_room_for(80, Duration::from_secs(10)));
        assert!(!allowance.has_room_for(10, Duration::from_secs(10)));
        assert!(allowance.has_room_for(10, Duration::from_secs(10)));
        assert_eq!(allowance.rounds_left_out(), 2);
    }

    #[test]
    fn without_an_end_there_is_always_room() {
        assert!(Allowance::endless().has_room_for(10, Duration::from_secs(100_000)));
    }
}
