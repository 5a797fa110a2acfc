//! Time as a number that the event loop passes down.
//!
//! ```text
//!  tick     41            42            43
//!            |─────────────|──────────────|
//! true time        ^ now() = 41: what is due by now
//!                          ^ where a deadline begins that is set now
//! ```
//!
//! A deadline is a start plus a duration, both rounded up, and has passed when `now` reaches it: it may be a tick late,
//! and is never early.

use std::time::Duration;

/// Milliseconds since the server's origin. Monotonic.
pub(crate) type Tick = u64;

/// A duration in ticks, rounded up.
pub(crate) fn ticks(duration: Duration) -> Tick {
    let part = Tick::from(duration.subsec_nanos().div_ceil(1_000_000));
    duration.as_secs().saturating_mul(1000).saturating_add(part).min(Tick::MAX / 2)
}

/// Where the time comes from: the system, or a simulation.
pub(crate) trait Clock {
    /// The time since the server's origin. Never goes back.
    fn since_origin(&self) -> Nanos;

    /// How far apart two readings within a turn may be before what was stamped in between is stamped again: longer than
    /// a busy system usually preempts a thread. Stamps lie this far ahead, and timeouts are late by as much.
    fn slack(&self) -> Duration {
        Duration::from_millis(10)
    }
}

/// Units of work between two readings of the clock: a packet handed out is one, a system call is one. A reading takes
/// some 20 ns, so this many make it disappear beside the work.
pub(crate) const MAX_STRIDE: u32 = 32;
/// If more time (ticks) than this passes between two readings within a turn, the shard could not hear its peers in it.
const HELD_UP: Tick = 100;
/// A callback that takes longer than this is reported, where there is a subscriber.
pub(crate) const SLOW_CALLBACK: Nanos = 100 * NANOS_PER_TICK;
/// If more time than this passes between two readings, the clock is read again after the next unit.
const COARSE: Nanos = 4 * NANOS_PER_TICK;

/// Nanoseconds since the server's origin, which 64 bits hold for 584 years. Not a [`Duration`], which takes twice the
/// work: each turn compares several readings.
pub(crate) type Nanos = u64;
const NANOS_PER_TICK: Nanos = 1_000_000;

pub(crate) fn nanos(duration: Duration) -> Nanos {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into())
}

/// The time of one shard: read when a turn begins, whenever a deadline is set, and again after every few units of work.
///
/// The clock is not read for each packet. What is stamped in between (when a peer was last heard) is stamped again if
/// the next reading finds that a callback took long, see `restamp` in `reactor/service_loop.rs`.
pub(crate) struct ShardClock {
    source: Box<dyn Clock>,
    /// The last reading.
    read_at: Nanos,
    /// The reading after the last wait.
    woke_at: Nanos,
    now: Tick,
    stamp: Tick,
    /// When the time of the current part of the turn is up.
    until: Tick,
    /// Units of work until the clock is read again.
    credit: u32,
    /// What `credit` starts from: 1 where callbacks are slow, else up to `most_stride`.
    stride: u32,
    /// 1 where a subscriber watches how long each callback takes, else `MAX_STRIDE`.
    most_stride: u32,
    /// The longest time between two readings that was a slow callback of this visit, where there is a subscriber; else 0.
    slow: Nanos,
    /// The stamp that turned out to be too early, from the reading that found it.
    outdated: Option<Tick>,
    /// The part of the turn is over, or some stamp is outdated: one check for both, after each session.
    alarm: bool,
    /// Ticks in which this shard could not hear its peers: the process stood still, or a callback blocked.
    lost: Tick,
    /// How far a stamp is ahead of its reading.
    slack: Tick,
    /// No more than this between two readings means nothing.
    unnoticed: Nanos,
}

impl ShardClock {
    pub(crate) fn new(source: Box<dyn Clock>) -> Self {
        let slack = ticks(source.slack());
        let mut clock = Self {
            source,
            read_at: 0,
            woke_at: 0,
            now: 0,
            stamp: 0,
            until: Tick::MAX,
            credit: MAX_STRIDE,
            stride: MAX_STRIDE,
            most_stride: MAX_STRIDE,
            slow: 0,
            outdated: None,
            alarm: false,
            lost: 0,
            slack,
            unnoticed: COARSE.min(slack * NANOS_PER_TICK),
        };
        clock.set();
        clock.woke_at = clock.read_at;
        clock
    }

    /// The ticks that had passed at the last reading: deadlines up to this one have passed.
    #[inline]
    pub(crate) fn now(&self) -> Tick {
        self.now
    }

    /// The stamp of an event that happens now: a tick that has not begun yet.
    #[inline]
    pub(crate) fn stamp(&self) -> Tick {
        self.stamp
    }

    /// Reads the clock. Returns the deadline of what begins now and may take `duration`.
    pub(crate) fn deadline(&mut self, duration: Tick) -> Tick {
        self.read();
        self.read_at.div_ceil(NANOS_PER_TICK) + duration
    }

    /// Reads the clock. Returns the [`stamp`](Self::stamp) of this moment, which may be outdated later, as any other.
    pub(crate) fn read_stamp(&mut self) -> Tick {
        self.read();
        self.stamp
    }

    /// Reads the clock. Returns [`now`](Self::now).
    pub(crate) fn read(&mut self) -> Tick {
        let (before, stamp) = (self.read_at, self.stamp);
        self.set();
        let passed = self.read_at.saturating_sub(before);
        if passed > self.unnoticed {
            self.note_gap(passed, stamp);
        }
        self.now
    }

    /// So much time has `passed` since the last reading that the clock is to be read more often, or even that what was
    /// stamped with `stamp` in between is wrong.
    #[cold]
    fn note_gap(&mut self, passed: Nanos, stamp: Tick) {
        if passed > COARSE {
            (self.stride, self.credit) = (1, 1);
        }
        if passed > self.slack * NANOS_PER_TICK {
            self.outdated.get_or_insert(stamp);
            self.alarm = true;
        }
        if passed > HELD_UP * NANOS_PER_TICK {
            self.lost += passed.div_ceil(NANOS_PER_TICK);
        }
        if passed > SLOW_CALLBACK && self.is_watched() {
            self.slow = self.slow.max(passed);
        }
    }

    /// Reads the clock after a wait that was to end at `expected`; time beyond that was lost. Returns
    /// [`now`](Self::now).
    pub(crate) fn wake(&mut self, expected: Option<Tick>) -> Tick {
        let expected = expected.map(|at| at.max(self.now));
        self.set();
        self.woke_at = self.read_at;
        self.slow = 0;
        let late = expected.map_or(0, |at| self.now.saturating_sub(at));
        if late > HELD_UP {
            self.lost += late;
        }
        self.now
    }

    /// The time between the last wait and the last reading.
    #[inline]
    pub(crate) fn since_wake(&self) -> Nanos {
        self.read_at.wrapping_sub(self.woke_at)
    }

    fn set(&mut self) {
        self.read_at = self.source.since_origin();
        self.now = self.read_at / NANOS_PER_TICK;
        // Milliseconds do not overflow 64 bits.
        let whole = self.now.wrapping_mul(NANOS_PER_TICK);
        self.stamp = self.now.wrapping_add(self.slack).wrapping_add(Tick::from(self.read_at > whole));
        self.credit = self.stride;
        self.alarm = self.outdated.is_some() || self.is_part_over();
    }

    /// Returns `true` if the part of the turn is over, or some stamp was too early.
    #[inline]
    pub(crate) fn is_alarmed(&self) -> bool {
        self.alarm
    }

    /// Returns `true` if some stamp was too early.
    pub(crate) fn is_outdated(&self) -> bool {
        self.outdated.is_some()
    }

    /// Takes the stamp that was too early: what has this stamp or a later one must be stamped again.
    pub(crate) fn take_outdated(&mut self) -> Option<Tick> {
        self.alarm = self.is_part_over();
        self.outdated.take()
    }

    /// How far a stamp is ahead of its reading.
    pub(crate) fn slack(&self) -> Tick {
        self.slack
    }

    /// Begins a part of a turn that may take `share`.
    pub(crate) fn begin_part(&mut self, share: Tick) {
        self.until = self.now + share;
        self.alarm = self.outdated.is_some();
    }

    /// What is left of this part may take no more than `share`.
    pub(crate) fn shorten_part(&mut self, share: Tick) {
        self.until = self.until.min(self.now + share);
    }

    /// Returns `true` if the time of this part of the turn was up at the last reading.
    pub(crate) fn is_part_over(&self) -> bool {
        self.now >= self.until
    }

    /// Units of work that may be done before the clock is read again. Never 0.
    #[inline]
    pub(crate) fn credit(&self) -> u32 {
        self.credit
    }

    /// Counts `units` of work that were done, and reads the clock when it is time to. Returns `true` if it did.
    #[inline]
    pub(crate) fn spend(&mut self, units: u32) -> bool {
        self.credit = self.credit.saturating_sub(units);
        let is_time = self.credit == 0;
        if is_time {
            self.read_in_time();
        }
        is_time
    }

    /// Reads the clock after every unit of work from now on, or as usual again.
    #[inline]
    pub(crate) fn watch(&mut self, is_watched: bool) {
        if self.is_watched() != is_watched {
            self.change_watch(is_watched);
        }
    }

    #[cold]
    fn change_watch(&mut self, is_watched: bool) {
        self.most_stride = if is_watched { 1 } else { MAX_STRIDE };
        self.stride = self.stride.min(self.most_stride);
        self.credit = self.credit.min(self.stride);
    }

    /// Returns `true` if a subscriber wants to know how long each callback takes.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.most_stride == 1
    }

    pub(crate) fn read_at(&self) -> Nanos {
        self.read_at
    }

    /// Takes the longest time between two readings since the last call, if that was more than [`SLOW_CALLBACK`]; else 0.
    pub(crate) fn take_slow(&mut self) -> Nanos {
        std::mem::take(&mut self.slow)
    }

    /// Puts back what was taken.
    pub(crate) fn put_slow(&mut self, slow: Nanos) {
        self.slow = slow;
    }

    /// Reads the clock, and plans the next reading: the longer the work took, the sooner.
    #[cold]
    fn read_in_time(&mut self) {
        let before = self.read_at;
        self.read();
        let took = self.read_at.saturating_sub(before);
        if took < COARSE / 4 {
            // Step by step: sessions that only wait take no time, and must not hide that the callbacks of others do.
            self.stride = (self.stride + 1).min(self.most_stride);
        }
        self.credit = self.stride;
    }

    /// Ticks lost so far. A deadline for a peer is put off by the ticks that were lost since it was set.
    pub(crate) fn lost(&self) -> Tick {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    struct Hand(Rc<Cell<Duration>>);

    impl Clock for Hand {
        fn since_origin(&self) -> Nanos {
            nanos(self.0.get())
        }
    }

    fn clock() -> (Rc<Cell<Duration>>, ShardClock) {
        let hand = Rc::new(Cell::new(Duration::ZERO));
        (hand.clone(), ShardClock::new(Box::new(Hand(hand))))
    }

    #[test]
    fn durations_round_up_and_never_overflow_a_sum() {
        assert_eq!(ticks(Duration::from_micros(1)), 1);
        assert_eq!(ticks(Duration::from_millis(5)), 5);
        assert!(ticks(Duration::MAX).checked_add(Tick::MAX / 2).is_some());
    }

    #[test]
    fn no_deadline_is_early_wherever_in_a_tick_it_begins() {
        for micros in (0..3_000).step_by(77) {
            let (hand, mut clock) = clock();
            hand.set(Duration::from_micros(micros));
            let deadline = clock.deadline(ticks(Duration::from_millis(5)));
            hand.set(Duration::from_micros(micros + 4_999));
            assert!(clock.read() < deadline, "begun at {micros} µs, passed 4,999 µs later");
            hand.set(Duration::from_micros(micros + 6_000));
            assert!(clock.read() >= deadline, "begun at {micros} µs, not passed 6 ms later");
        }
    }

    #[test]
    fn the_clock_is_read_after_every_unit_of_slow_work_and_rarely_after_fast_work() {
        let (hand, mut clock) = clock();
        let mut readings = 0;
        let mut work = |clock: &mut ShardClock, units: u32, each: Duration| {
            readings = 0;
            for _ in 0..units {
                let before = clock.read_at;
                hand.set(hand.get() + each);
                clock.spend(1);
                readings += u32::from(clock.read_at != before);
            }
            readings
        };
        assert_eq!(work(&mut clock, 320, Duration::from_micros(1)), 10);
        work(&mut clock, 100, Duration::from_millis(5));
        assert_eq!(work(&mut clock, 100, Duration::from_millis(1)), 100);
        work(&mut clock, 32 * 33 / 2, Duration::from_micros(1));
        assert_eq!(work(&mut clock, 320, Duration::from_micros(1)), 10);
    }

    #[test]
    fn work_between_readings_for_other_purposes_is_known_to_be_slow() {
        let (hand, mut clock) = clock();
        assert_eq!(clock.credit(), MAX_STRIDE);
        hand.set(Duration::from_millis(5));
        clock.deadline(1);
        assert_eq!(clock.credit(), 1);
    }
}
