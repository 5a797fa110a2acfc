//! Names for sessions and shards, which are not reused while a stale one may still be held.

use std::{
    fmt,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

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

/// Identifies a session among all that the process has ever had, whatever server they belong to.
///
/// It consists of the number of the server (or of the [`Reactor`](crate::Reactor), whose services share one), the
/// shard, a slot of the shard and the generation of the slot. A shard reuses a slot after its session has ended, but not
/// the generation (for 2^32 sessions of that shard), so a stale id, handle or event never reaches a newer session. Nor
/// does the id of a session of another server: to [`Session::send_to`](crate::Session::send_to) and all else that takes
/// an id, that session has ended. Shown as `server:shard.slot#generation`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    pub(crate) server: ServerNumber,
    pub(crate) shard: ShardId,
    pub(crate) key: Key,
}

impl SessionId {
    /// Returns the shard that the session lives on; it never changes.
    #[must_use]
    pub fn shard(self) -> ShardId {
        self.shard
    }

    /// Returns the id as a number, for protocols and tables that have no other place for it. No two sessions of the
    /// process have the same.
    ///
    /// The number is no secret: a peer that knows one can guess others. Another process, and this program when it is
    /// started again, uses the same numbers for other sessions.
    ///
    /// ```
    /// use framewire::{Session, SessionId};
    ///
    /// /// What a broker is told, so that it can say whom its answer is for.
    /// fn reply_to(session: &Session<'_>) -> [u8; 16] {
    ///     session.id().to_u128().to_be_bytes()
    /// }
    ///
    /// fn whom(reply_to: [u8; 16]) -> SessionId {
    ///     SessionId::from_u128(u128::from_be_bytes(reply_to))
    /// }
    /// # let number = 0x0000_0001_0000_0002_0000_0003_0000_0004;
    /// # assert_eq!(SessionId::from_u128(number).to_u128(), number);
    /// ```
    #[must_use]
    pub fn to_u128(self) -> u128 {
        let Self { server: ServerNumber(server), shard: ShardId(shard), key: Key { slot, generation } } =
            self;
        [server, shard, slot, generation].iter().fold(0, |bits, part| bits << 32 | u128::from(*part))
    }

    /// Returns the id of which [`to_u128`](Self::to_u128) returned `bits`. Any other number is an id as well, of a
    /// session that does not exist or is not meant.
    #[must_use]
    pub fn from_u128(bits: u128) -> Self {
        let part = |number: u32| (bits >> (32 * number)) as u32;
        let key = Key { slot: part(1), generation: part(0) };
        Self { server: ServerNumber(part(3)), shard: ShardId(part(2)), key }
    }

    /// Returns a number that follows from the id alone, and is far from those of ids next to it: all numbers are about
    /// equally frequent. By the mixing function of SplitMix64 (Steele, Lea and Flood, 2014).
    pub(crate) fn scattered(self) -> u64 {
        let bits = self.to_u128();
        [(bits >> u64::BITS) as u64, bits as u64].into_iter().fold(0, |mixed: u64, half| {
            let mixed = (mixed ^ half).wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        })
    }
}

/// The number of a server among all that the process has ever had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServerNumber(u32);

impl ServerNumber {
    /// Returns a number that no other server has, for the first 2^32 servers of a process.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn id(self, shard: ShardId, key: Key) -> SessionId {
        SessionId { server: self, shard, key }
    }
}

/// Identifies a [`Dial`](crate::Dial) that was begun, and the sessions that come of it. Never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialId(u64);

impl DialId {
    /// A number that no other dial of this process has.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Counts up only: 64 bits do not wrap around in practice.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for DialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
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
        Self::new(key.slot)
    }

    /// Returns the number, which is below [`COUNT`](Self::COUNT), in three bytes.
    pub(crate) fn new(slot: u32) -> Self {
        let [a, b, c, top] = slot.to_le_bytes();
        debug_assert_eq!(top, 0, "slot {slot} has no number");
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
        write!(f, "{}:{}.{}", self.server.0, self.shard, self.key)
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
    fn an_id_shows_server_shard_slot_and_generation() {
        let id = ServerNumber(2).id(ShardId(3), Key { slot: 17, generation: 5 });
        assert_eq!(id.to_string(), "2:3.17#5");
        assert_eq!(format!("{id:?}"), "SessionId(2:3.17#5)");
    }

    #[test]
    fn an_id_and_its_number_tell_the_same() {
        let id = ServerNumber(1).id(ShardId(2), Key { slot: 3, generation: 4 });
        assert_eq!(id.to_u128(), 0x0000_0001_0000_0002_0000_0003_0000_0004);
        for bits in [0, u128::MAX, id.to_u128(), 1 << 32, 1 << 64, 1 << 96] {
            assert_eq!(SessionId::from_u128(bits).to_u128(), bits);
        }
        assert_eq!(SessionId::from_u128(id.to_u128()), id);
    }

    #[test]
    fn the_numbers_of_ids_next_to_each_other_are_scattered_evenly() {
        let id = |server, shard, slot, generation| {
            ServerNumber(server).id(ShardId(shard), Key { slot, generation }).scattered()
        };
        let ways: [fn(u32) -> [u32; 4]; 4] =
            [|n| [n, 0, 0, 0], |n| [1, n, 0, 0], |n| [1, 0, n, 0], |n| [1, 0, 0, n]];
        for way in ways {
            let mut counts = [0; 10];
            for number in 0..10_000 {
                let [server, shard, slot, generation] = way(number);
                let scattered = id(server, shard, slot, generation);
                assert_eq!(scattered, id(server, shard, slot, generation), "it follows from the id alone");
                counts[((u128::from(scattered) * 10) >> 64) as usize] += 1;
            }
            assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn no_two_servers_have_the_same_number() {
        assert_ne!(ServerNumber::next(), ServerNumber::next());
    }

    #[test]
    fn a_slot_is_told_by_its_number() {
        for slot in [0, 1, 0x01_02_03, SlotNumber::COUNT as u32 - 1] {
            assert_eq!(SlotNumber::of(Key { slot, generation: 7 }).index(), slot as usize);
        }
    }
}
