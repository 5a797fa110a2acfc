//! Where the timers of a wheel stand, and the lists that link them.

use std::num::NonZeroU32;

/// No entry: the head of an empty list.
pub(super) const NIL: u32 = u32::MAX;

/// Entries for which an arena that empties keeps its memory (24 KiB with a 4-byte item).
const KEEP: usize = 1024;

/// Names one timer of one wheel. After the timer has fired or was cancelled, the key is stale: it never names another
/// one.
///
/// 8 bytes, and so is `Option<TimerKey>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerKey {
    index: u32,
    /// Odd, as the generation of every entry in use.
    generation: NonZeroU32,
}

/// One timer, or a free place. 24 bytes with a 4-byte item.
#[derive(Clone)]
struct Entry<T> {
    deadline: u64,
    item: T,
    previous: u32,
    next: u32,
    /// Odd: in use. Even: free. Grows by one at each change.
    generation: u32,
}

/// A slab of timers. Each is in at most one list: circular, doubly linked by index, named by its first entry.
pub(super) struct Arena<T> {
    entries: Vec<Entry<T>>,
    /// The first free place; they are linked by `next`.
    free: u32,
    used: u32,
    /// The generation (even) at which a new place begins: no key was ever made with a later one.
    fresh: u32,
}

impl<T: Copy> Arena<T> {
    pub(super) const fn new() -> Self {
        Arena { entries: Vec::new(), free: NIL, used: 0, fresh: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.used as usize
    }

    /// Stores a timer, in no list yet.
    pub(super) fn insert(&mut self, deadline: u64, item: T) -> (u32, TimerKey) {
        let index = self.place(deadline, item);
        let entry = self.entry_mut(index);
        entry.deadline = deadline;
        entry.item = item;
        let generation = NonZeroU32::MIN | entry.generation;
        entry.generation = generation.get();
        self.used += 1;
        (index, TimerKey { index, generation })
    }

    /// A free place, or a new one.
    fn place(&mut self, deadline: u64, item: T) -> u32 {
        if self.free != NIL {
            let index = self.free;
            self.free = self.entry(index).next;
            return index;
        }
        debug_assert!(self.entries.len() < NIL as usize, "a wheel holds less than 2^32 timers");
        let index = self.entries.len() as u32;
        self.entries.push(Entry { deadline, item, previous: index, next: index, generation: self.fresh });
        index
    }

    /// Forgets a timer that is in no list (any more).
    pub(super) fn remove(&mut self, index: u32) -> (u64, T) {
        let free = self.free;
        let entry = self.entry_mut(index);
        entry.generation = entry.generation.wrapping_add(1);
        let removed = (entry.deadline, entry.item);
        // A place whose generations are used up (after 2^31 timers) is never used again: its keys would repeat.
        if entry.generation != 0 {
            entry.next = free;
            self.free = index;
        }
        self.used -= 1;
        removed
    }

    /// Frees the memory of a burst once all its timers are gone; stale keys stay stale. Returns `true` if it did.
    pub(super) fn give_back(&mut self) -> bool {
        if self.used > 0 || self.entries.capacity() <= KEEP {
            return false;
        }
        let surplus = self.entries.get(KEEP..).unwrap_or_default();
        let latest = surplus.iter().map(|entry| entry.generation).fold(self.fresh, u32::max);
        let retired = surplus.iter().any(|entry| entry.generation == 0);
        // All new places would begin late from here on, and retire early: rather keep the memory.
        if retired || latest > u32::MAX / 2 {
            return false;
        }
        self.fresh = latest;
        self.entries.truncate(KEEP);
        self.entries.shrink_to(KEEP);
        self.relink();
        true
    }

    /// Makes every place free but the retired ones. The first comes first: it is the last to be surplus.
    fn relink(&mut self) {
        self.free = NIL;
        for (index, entry) in self.entries.iter_mut().enumerate().rev() {
            if entry.generation != 0 {
                entry.next = self.free;
                self.free = index as u32;
            }
        }
    }

    /// The place and the deadline that a key names, if it still names one.
    pub(super) fn find(&self, key: TimerKey) -> Option<(u32, u64)> {
        let entry = self.entries.get(key.index as usize)?;
        (entry.generation == key.generation.get()).then_some((key.index, entry.deadline))
    }

    /// The key of an entry in use.
    pub(super) fn key(&self, index: u32) -> TimerKey {
        TimerKey { index, generation: NonZeroU32::MIN | self.entry(index).generation }
    }

    pub(super) fn deadline(&self, index: u32) -> u64 {
        self.entry(index).deadline
    }

    /// Puts an entry that is in no list at the end of the list that begins at `head`.
    pub(super) fn append(&mut self, head: &mut u32, index: u32) {
        if *head == NIL {
            *head = index;
            self.link(index, index);
            return;
        }
        let last = self.entry(*head).previous;
        self.link(last, index);
        self.link(index, *head);
    }

    /// Takes an entry out of the list that begins at `head`.
    pub(super) fn unlink(&mut self, head: &mut u32, index: u32) {
        let (previous, next) = (self.entry(index).previous, self.entry(index).next);
        self.link(previous, next);
        if *head == index {
            *head = if next == index { NIL } else { next };
        }
    }

    fn link(&mut self, previous: u32, next: u32) {
        self.entry_mut(previous).next = next;
        self.entry_mut(next).previous = previous;
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "an index comes from a key that was checked, or from a list of this arena"
    )]
    fn entry(&self, index: u32) -> &Entry<T> {
        &self.entries[index as usize]
    }

    #[allow(clippy::indexing_slicing, reason = "as `entry`")]
    fn entry_mut(&mut self, index: u32) -> &mut Entry<T> {
        &mut self.entries[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_takes_24_bytes_and_its_key_8_with_or_without_an_option() {
        assert_eq!(size_of::<Entry<u32>>(), 24);
        assert_eq!((size_of::<TimerKey>(), size_of::<Option<TimerKey>>()), (8, 8));
    }

    #[test]
    fn an_empty_arena_allocates_nothing() {
        assert_eq!(Arena::<u64>::new().entries.capacity(), 0);
    }

    #[test]
    fn a_list_keeps_its_order_through_removals_at_both_ends_and_within() {
        let mut arena = Arena::new();
        let mut head = NIL;
        let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(|item| arena.insert(0, item).0);
        for index in [a, b, c, d, e] {
            arena.append(&mut head, index);
        }
        for index in [c, a, e] {
            arena.unlink(&mut head, index);
        }
        assert_eq!((head, arena.entry(head).next, arena.entry(head).previous), (b, d, d));
        arena.unlink(&mut head, b);
        arena.unlink(&mut head, d);
        assert_eq!(head, NIL);
    }

    #[test]
    fn a_place_is_retired_before_its_generations_repeat() {
        let mut arena = Arena::new();
        let (index, first) = arena.insert(0, 7);
        arena.remove(index);
        arena.entry_mut(index).generation = u32::MAX - 1;
        let (again, last) = arena.insert(0, 8);
        assert_eq!(again, index);
        arena.remove(again);
        let (fresh, _) = arena.insert(0, 9);
        assert_ne!(fresh, index);
        assert_eq!((arena.find(first), arena.find(last)), (None, None));
    }

    #[test]
    fn keys_stay_stale_when_the_memory_was_given_back() {
        let mut arena = Arena::new();
        let count = 3 * KEEP as u64;
        let old: Vec<_> = (0..count).map(|item| arena.insert(item, item)).collect();
        assert!(!arena.give_back(), "still in use");
        for &(index, _) in &old {
            arena.remove(index);
        }
        assert!(arena.give_back());
        assert_eq!(arena.entries.capacity(), KEEP);
        let new: Vec<_> = (0..count).map(|item| arena.insert(item, item)).collect();
        assert!(old.iter().all(|&(_, key)| arena.find(key).is_none()));
        assert!(new.iter().all(|&(index, key)| arena.find(key) == Some((index, arena.deadline(index)))));
    }

    #[test]
    fn memory_is_kept_where_giving_it_back_would_revive_keys() {
        let mut arena = Arena::new();
        let old: Vec<_> = (0..2 * KEEP as u64).map(|item| arena.insert(item, item)).collect();
        for &(index, _) in &old {
            arena.remove(index);
        }
        arena.entry_mut(KEEP as u32).generation = 0;
        assert!(!arena.give_back());
        arena.entry_mut(KEEP as u32).generation = u32::MAX - 1;
        assert!(!arena.give_back());
        arena.entry_mut(KEEP as u32).generation = 2;
        assert!(arena.give_back());
    }
}
