//! Names for sessions and shards, which are not reused while a stale one may still be held.

use std::fmt;

/// The number of a shard: 0 is the acceptor's own, 1 to n are the standing workers, and larger ones were forked for one
/// connection each. The number of a forked shard may be reused after 2^32 others, but never while that shard runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub(crate) u32);

impl ShardId {
    /// The shard of the thread that accepts.
    pub const ACCEPTOR: Self = Self(0);

    /// The shard with this number, for a [`Placement`](crate::Placement). Workers are numbered from 1.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number of the shard.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Identifies a session among all that a server has ever had.
///
/// A shard reuses a slot after its session has ended, but not the generation (for 2^32 sessions of that shard), so a
/// stale id, handle or event never reaches a newer session. Shown as `shard.slot#generation`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    pub(crate) shard: ShardId,
    pub(crate) key: Key,
}

impl SessionId {
    /// Returns the shard that the session lives on; it never changes.
    #[must_use]
    pub fn shard(self) -> ShardId {
        self.shard
    }
}

/// A slot of a shard, and its generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A slot of a shard without a generation, in three bytes: for those who can tell otherwise whether they still mean the
/// session in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotNumber([u8; 3]);

impl SlotNumber {
    /// How many there are.
    pub(crate) const COUNT: usize = 1 << 24;

    /// Returns the slot of a key, which is below [`COUNT`](Self::COUNT).
    pub(crate) fn of(key: Key) -> Self {
        let [a, b, c, top] = key.slot.to_le_bytes();
        debug_assert_eq!(top, 0, "slot {} has no number", key.slot);
        Self([a, b, c])
    }

    pub(crate) fn index(self) -> usize {
        let [a, b, c] = self.0;
        u32::from_le_bytes([a, b, c, 0]) as usize
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardId({})", self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.shard, self.key)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.slot, self.generation)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_shows_shard_slot_and_generation() {
        let id = SessionId { shard: ShardId(3), key: Key { slot: 17, generation: 5 } };
        assert_eq!(id.to_string(), "3.17#5");
        assert_eq!(format!("{id:?}"), "SessionId(3.17#5)");
    }

    #[test]
    fn a_slot_is_told_by_its_number() {
        for slot in [0, 1, 0x01_02_03, SlotNumber::COUNT as u32 - 1] {
            assert_eq!(SlotNumber::of(Key { slot, generation: 7 }).index(), slot as usize);
        }
    }
}
