//! A slab whose keys carry a generation, and whose freed slots are not reused until the turn is over.

mod side_table;

use slab::Slab;

use crate::id::{Key, SlotNumber};

pub(crate) use self::side_table::SideTable;

/// The most values: as many as a poll token can number.
pub(crate) const MAX_SLOTS: usize = SlotNumber::COUNT;

/// Values by [`Key`]. A key that was removed never finds anything again; its slot is reused only after
/// [`recycle`](Self::recycle), so that no event of the same batch can reach another value in it.
///
/// Invariant: `len ≤ entries.len() = len + resting.len() ≤ MOST`.
pub(crate) struct Slots<T, const MOST: usize = MAX_SLOTS> {
    /// `None` if the value was removed in this turn.
    entries: Slab<Option<T>>,
    /// Slots emptied in this turn.
    resting: Vec<u32>,
    next_generation: u32,
    len: usize,
    /// Above the number of every slot that was ever used.
    places: usize,
}

/// A value that holds its key, so that its slot need not.
pub(crate) trait Keyed {
    fn key(&self) -> Key;
}

impl<T: Keyed, const MOST: usize> Slots<T, MOST> {
    /// The first value gets `generation`; tests start near the end of the range.
    pub(crate) fn starting_at(generation: u32) -> Self {
        // Many shards are of one connection, and a slab that grows makes room for four.
        let entries = Slab::with_capacity(1);
        Self { entries, resting: Vec::new(), next_generation: generation, len: 0, places: 0 }
    }

    /// Returns `true` if no slot is left whose number fits into a token.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= MOST
    }

    /// `make` is called with the key that the value has to hold.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        let vacant = self.entries.vacant_entry();
        let key = Key { slot: vacant.key() as u32, generation: self.next_generation };
        self.next_generation = self.next_generation.wrapping_add(1);
        let value = make(key);
        debug_assert_eq!(value.key(), key, "a value holds its key");
        vacant.insert(Some(value));
        self.len += 1;
        self.places = self.places.max(key.slot as usize + 1);
        key
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let value = self.entries.get(key.slot as usize)?.as_ref()?;
        (value.key().generation == key.generation).then_some(value)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entries.get_mut(key.slot as usize) {
            Some(Some(value)) if value.key().generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Returns the key of the value that is in a slot now.
    pub(crate) fn key_in(&self, slot: SlotNumber) -> Option<Key> {
        self.key_at(slot.index())
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let value = self.entries.get_mut(key.slot as usize)?.take_if(|value| value.key() == key)?;
        self.resting.push(key.slot);
        self.len -= 1;
        Some(value)
    }

    /// Ends the turn: the slots freed in it may be used again.
    #[inline]
    pub(crate) fn recycle(&mut self) {
        if !self.resting.is_empty() {
            self.reuse();
        }
    }

    fn reuse(&mut self) {
        for slot in self.resting.drain(..) {
            self.entries.remove(slot as usize);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns a number above those of all slots with a value.
    pub(crate) fn places(&self) -> usize {
        self.places
    }

    /// Returns the key of the value in the slot with this number, if there is one.
    pub(crate) fn key_at(&self, slot: usize) -> Option<Key> {
        self.entries.get(slot).and_then(Option::as_ref).map(Keyed::key)
    }

    /// Returns all values with their keys, in slot order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().filter_map(|(_, value)| value.as_ref().map(|value| (value.key(), value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Value(Key);

    impl Keyed for Value {
        fn key(&self) -> Key {
            self.0
        }
    }

    #[test]
    fn a_freed_slot_is_used_again_only_after_the_turn() {
        let mut slots: Slots<Value> = Slots::starting_at(0);
        let a = slots.insert_with(Value);
        assert_eq!(slots.remove(a), Some(Value(a)));
        let b = slots.insert_with(Value);
        assert_ne!(b.slot, a.slot);
        slots.recycle();
        let c = slots.insert_with(Value);
        assert_eq!(c.slot, a.slot);
        assert_eq!(slots.get_mut(a), None, "the old key must not reach the new value");
        assert_eq!(slots.get_mut(c), Some(&mut Value(c)));
        assert_eq!(slots.len(), 2);
        assert_eq!(slots.key_in(SlotNumber::of(a)), Some(c), "whatever the generation of the key was");
        slots.remove(c);
        assert_eq!(slots.key_in(SlotNumber::of(c)), None);
    }

    #[test]
    fn removing_twice_removes_once() {
        let mut slots: Slots<Value> = Slots::starting_at(0);
        let a = slots.insert_with(Value);
        assert_eq!(slots.remove(a), Some(Value(a)));
        assert_eq!(slots.remove(a), None);
        slots.recycle();
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.len(), 0);
    }

    #[test]
    fn no_more_slots_are_used_than_can_be_numbered_and_resting_ones_count() {
        let mut slots: Slots<Value, 3> = Slots::starting_at(0);
        let keys: Vec<_> = (0..3)
            .map(|_| {
                assert!(!slots.is_full());
                slots.insert_with(Value)
            })
            .collect();
        assert!(slots.is_full());
        slots.remove(keys[1]);
        assert!(slots.is_full(), "an event of this turn may still name the slot");
        slots.recycle();
        assert!(!slots.is_full());
        assert_eq!(slots.insert_with(Value).slot, 1);
        assert!(slots.is_full());
    }

    #[test]
    fn generations_pass_the_end_of_their_numbers() {
        let mut slots: Slots<Value> = Slots::starting_at(u32::MAX);
        let a = slots.insert_with(Value);
        let b = slots.insert_with(Value);
        assert_eq!((a.generation, b.generation), (u32::MAX, 0));
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(a, &Value(a)), (b, &Value(b))]);
    }
}
