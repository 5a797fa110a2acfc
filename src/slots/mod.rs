//! A slab whose keys carry a generation, and whose freed slots are not reused until the turn is over.

mod side_table;

use slab::Slab;

use crate::id::Key;

pub(crate) use self::side_table::SideTable;

/// The most values: as many as a poll token can number.
pub(crate) const MAX_SLOTS: usize = 1 << 24;

/// Values by [`Key`]. A key that was removed never finds anything again; its slot is reused only after
/// [`recycle`](Self::recycle), so that no event of the same batch can reach another value in it.
///
/// Invariant: `len ≤ entries.len() = len + resting.len()`.
pub(crate) struct Slots<T> {
    entries: Slab<Entry<T>>,
    /// Slots emptied in this turn.
    resting: Vec<u32>,
    next_generation: u32,
    len: usize,
}

struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    /// The first value gets `generation`; tests start near the end of the range.
    pub(crate) fn starting_at(generation: u32) -> Self {
        Self { entries: Slab::new(), resting: Vec::new(), next_generation: generation, len: 0 }
    }

    /// Returns `true` if no slot is left whose number fits into a token.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= MAX_SLOTS
    }

    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        let vacant = self.entries.vacant_entry();
        let key = Key { slot: vacant.key() as u32, generation: self.next_generation };
        self.next_generation = self.next_generation.wrapping_add(1);
        vacant.insert(Entry { generation: key.generation, value: Some(make(key)) });
        self.len += 1;
        key
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entries.get_mut(key.slot as usize) {
            Some(entry) if entry.generation == key.generation => entry.value.as_mut(),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        self.resting.push(key.slot);
        self.len -= 1;
        Some(value)
    }

    /// Ends the turn: the slots freed in it may be used again.
    pub(crate) fn recycle(&mut self) {
        for slot in self.resting.drain(..) {
            self.entries.remove(slot as usize);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns all values with their keys, in slot order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().filter_map(|(slot, entry)| {
            let key = Key { slot: slot as u32, generation: entry.generation };
            entry.value.as_ref().map(|value| (key, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_slot_is_used_again_only_after_the_turn() {
        let mut slots = Slots::starting_at(0);
        let a = slots.insert_with(|_| 'a');
        assert_eq!(slots.remove(a), Some('a'));
        let b = slots.insert_with(|_| 'b');
        assert_ne!(b.slot, a.slot);
        slots.recycle();
        let c = slots.insert_with(|_| 'c');
        assert_eq!(c.slot, a.slot);
        assert_eq!(slots.get_mut(a), None, "the old key must not reach the new value");
        assert_eq!(slots.get_mut(c), Some(&mut 'c'));
        assert_eq!(slots.len(), 2);
    }

    #[test]
    fn removing_twice_removes_once() {
        let mut slots = Slots::starting_at(0);
        let a = slots.insert_with(|_| 1);
        assert_eq!(slots.remove(a), Some(1));
        assert_eq!(slots.remove(a), None);
        slots.recycle();
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.len(), 0);
    }

    #[test]
    fn generations_pass_the_end_of_their_numbers() {
        let mut slots = Slots::starting_at(u32::MAX);
        let a = slots.insert_with(|_| 1);
        let b = slots.insert_with(|_| 2);
        assert_eq!((a.generation, b.generation), (u32::MAX, 0));
        assert_eq!(slots.iter().map(|(key, value)| (key, *value)).collect::<Vec<_>>(), [(a, 1), (b, 2)]);
    }
}
