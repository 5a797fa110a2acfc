//! Timers of a shard: a hierarchical wheel (Varghese and Lauck, 1987) that also knows its next deadline.
//!
//! A timer is in the level of the highest 6 bits in which its deadline differs from the present tick, in the slot that
//! those bits of the deadline name. It moves down at most once per level as time passes, and most timers are cancelled
//! before:
//!
//! ```text
//! level 0   64 slots of 1 ms                              fires here
//! level 1   64 slots of 64 ms     the slot in which the present is has been spread over the levels below
//! level 2   64 slots of 4 s       so the first slot in use of the lowest level in use holds the next deadline
//! …
//! level 10  16 slots of 36 million years: every u64 has a place, no deadline is cut short
//! ```

mod arena;

use std::fmt;

use self::arena::{Arena, NIL};

pub use self::arena::TimerKey;

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = u64::BITS.div_ceil(SLOT_BITS) as usize;
const _: () = assert!(LEVELS < u16::BITS as usize, "a bit of a number for each level");

/// A set of timers, each a deadline and a `T`. Ticks are milliseconds since an origin of the owner's choice.
///
/// `insert` and `cancel` are O(1). A new wheel has allocated nothing. Each level in use takes 768 bytes, each timer
/// 20 bytes and a `T`, rounded up to a multiple of 8; a wheel that held more than 1,024 timers frees the memory of those beyond when it empties. It
/// holds fewer than 2^32 timers.
pub struct TimerWheel<T> {
    /// The present: the latest tick that `expire` was called with or, while due timers wait for the next call, the
    /// deadline of the first of them. No timer has an earlier deadline.
    elapsed: u64,
    /// One bit per level with a slot in use.
    in_use: u16,
    /// One bit per slot in use.
    occupied: [u64; LEVELS],
    levels: [Option<Box<Level>>; LEVELS],
    arena: Arena<T>,
}

/// A timer that has fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fired<T> {
    /// The timer's key, which is stale now.
    pub key: TimerKey,
    /// The tick at which it was due.
    pub due: u64,
    /// The item that it was set with.
    pub item: T,
}

struct Level {
    /// The first timer of each slot; the order within is the order of insertion.
    heads: [u32; SLOTS],
    /// No timer of the slot is due before. Exact, unless the earliest one was cancelled.
    minima: [u64; SLOTS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    level: usize,
    slot: usize,
}

impl<T: Copy> TimerWheel<T> {
    /// An empty wheel at tick 0.
    pub const fn new() -> Self {
        TimerWheel {
            elapsed: 0,
            in_use: 0,
            occupied: [0; LEVELS],
            levels: [const { None }; LEVELS],
            arena: Arena::new(),
        }
    }

    /// Returns how many timers have neither fired nor been cancelled.
    pub fn len(&self) -> usize {
        self.arena.len()
    }

    /// Returns `true` if there is no timer.
    #[cfg(any(test, feature = "internals"))]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a timer that is due at `deadline`, or at once if that tick has passed.
    pub fn insert(&mut self, deadline: u64, item: T) -> TimerKey {
        let (index, key) = self.arena.insert(deadline.max(self.elapsed), item);
        self.put(index);
        key
    }

    /// Cancels a timer and returns its item; `None` if it has fired or was cancelled.
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let (index, deadline) = self.arena.find(key)?;
        let place = Place::of(self.elapsed, deadline);
        self.unlink(place, index);
        let (_, item) = self.arena.remove(index);
        self.give_back();
        Some(item)
    }

    /// Returns when to call [`expire`](Self::expire) next; `None` without a timer. In the past if due timers were left
    /// over.
    ///
    /// Never later than the earliest deadline, and exactly that unless the earliest timer of a slot was cancelled: then
    /// it may be the cancelled deadline, once.
    #[inline]
    pub fn next_deadline(&self) -> Option<u64> {
        self.first().map(|(_, minimum)| minimum)
    }

    /// Returns the tick at which a timer is due; `None` if it has fired or was cancelled.
    pub fn deadline(&self, key: TimerKey) -> Option<u64> {
        self.arena.find(key).map(|(_, deadline)| deadline)
    }

    /// Appends to `out` the timers that are due at `now`, at most `budget` of them: earliest first, equal ones in the
    /// order of insertion. The others stay due for the next call.
    ///
    /// The cost depends on the timers that fire or move down a level, not on the ticks that have passed. A `now` before
    /// that of an earlier call counts as that one.
    pub fn expire(&mut self, now: u64, budget: usize, out: &mut Vec<Fired<T>>) {
        let now = now.max(self.elapsed);
        let full = out.len().saturating_add(budget);
        while let Some((_, minimum)) = self.first().filter(|&(_, minimum)| minimum <= now) {
            self.advance(minimum);
            if !self.fire(full, out) {
                return;
            }
        }
        self.advance(now);
        self.give_back();
    }

    /// The first slot in use of the lowest level in use, and its minimum.
    #[inline]
    fn first(&self) -> Option<(Place, u64)> {
        // Without any there is no such level.
        let level = self.in_use.trailing_zeros() as usize;
        let slot = self.occupied.get(level)?.trailing_zeros() as usize;
        let minimum = *self.levels.get(level)?.as_ref()?.minima.get(slot)?;
        Some((Place { level, slot }, minimum))
    }

    /// Moves the present to `tick`, before which no timer is due, and spreads the slot that it enters.
    ///
    /// Only one slot can need it. With `level` the highest in which old and new present differ: above, the present
    /// stays in its slots, which are empty; below, every timer is due before `tick`.
    fn advance(&mut self, tick: u64) {
        let place = Place::of(self.elapsed, tick);
        self.elapsed = tick;
        if place.level > 0 && self.is_occupied(place) {
            self.spread(place);
        }
    }

    /// Puts each timer of a slot where it belongs now: in a lower level. Keeps the order.
    fn spread(&mut self, place: Place) {
        let mut head = std::mem::replace(self.slot_mut(place).0, NIL);
        self.vacate(place);
        while head != NIL {
            let index = head;
            self.arena.unlink(&mut head, index);
            self.put(index);
        }
    }

    /// Fires what is due at the present tick, until `out` holds `full`. Returns `true` if that was all.
    fn fire(&mut self, full: usize, out: &mut Vec<Fired<T>>) -> bool {
        let place = Place::of(self.elapsed, self.elapsed);
        while self.is_occupied(place) {
            if out.len() >= full {
                return false;
            }
            let index = *self.slot_mut(place).0;
            self.unlink(place, index);
            let key = self.arena.key(index);
            let (due, item) = self.arena.remove(index);
            out.push(Fired { key, due, item });
        }
        true
    }

    fn put(&mut self, index: u32) {
        let deadline = self.arena.deadline(index);
        let place = Place::of(self.elapsed, deadline);
        let vacant = !self.is_occupied(place);
        self.occupy(place);
        let Self { levels, arena, .. } = self;
        let (head, minimum) = Level::of(levels, place).slot_mut(place.slot);
        *minimum = if vacant { deadline } else { deadline.min(*minimum) };
        arena.append(head, index);
    }

    fn unlink(&mut self, place: Place, index: u32) {
        let Self { levels, arena, .. } = self;
        let (head, _) = Level::of(levels, place).slot_mut(place.slot);
        arena.unlink(head, index);
        if *head == NIL {
            self.vacate(place);
        }
    }

    fn slot_mut(&mut self, place: Place) -> (&mut u32, &mut u64) {
        Level::of(&mut self.levels, place).slot_mut(place.slot)
    }

    #[allow(clippy::indexing_slicing, reason = "a level is below LEVELS")]
    fn is_occupied(&self, place: Place) -> bool {
        self.occupied[place.level] & (1 << place.slot) != 0
    }

    #[allow(clippy::indexing_slicing, reason = "a level is below LEVELS")]
    fn occupy(&mut self, place: Place) {
        self.occupied[place.level] |= 1 << place.slot;
        self.in_use |= 1 << place.level;
    }

    #[allow(clippy::indexing_slicing, reason = "a level is below LEVELS")]
    fn vacate(&mut self, place: Place) {
        self.occupied[place.level] &= !(1 << place.slot);
        if self.occupied[place.level] == 0 {
            self.in_use &= !(1 << place.level);
        }
    }

    fn give_back(&mut self) {
        if self.arena.give_back() {
            self.levels = [const { None }; LEVELS];
        }
    }
}

impl Place {
    /// Where a timer stands that is due at `deadline`, not before `elapsed`. It stays there until `spread`.
    fn of(elapsed: u64, deadline: u64) -> Place {
        let differ = (elapsed ^ deadline) | 1;
        let level = differ.ilog2() / SLOT_BITS;
        let slot = (deadline >> (level * SLOT_BITS)) as usize % SLOTS;
        Place { level: level as usize, slot }
    }
}

impl Level {
    #[allow(clippy::indexing_slicing, reason = "a level is below LEVELS")]
    fn of(levels: &mut [Option<Box<Level>>; LEVELS], place: Place) -> &mut Level {
        levels[place.level].get_or_insert_with(|| Box::new(Level { heads: [NIL; SLOTS], minima: [0; SLOTS] }))
    }

    #[allow(clippy::indexing_slicing, reason = "a slot is below SLOTS")]
    fn slot_mut(&mut self, slot: usize) -> (&mut u32, &mut u64) {
        (&mut self.heads[slot], &mut self.minima[slot])
    }
}

impl<T: Copy> Default for TimerWheel<T> {
    fn default() -> Self {
        TimerWheel::new()
    }
}

impl<T: Copy> fmt::Debug for TimerWheel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerWheel")
            .field("elapsed", &self.elapsed)
            .field("timers", &self.len())
            .field("next_deadline", &self.next_deadline())
            .finish()
    }
}

#[cfg(test)]
mod tests;
