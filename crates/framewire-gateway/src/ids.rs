//! Maps from IDs that the gateway counts up itself, of clients and of virtual connections; and how these and slabs give
//! memory back.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use slab::Slab;

/// A map from IDs that nobody else chooses, and that therefore needs no hash that resists chosen ones.
pub(crate) type IdMap<T> = HashMap<u32, T, BuildHasherDefault<IdHasher>>;

/// Tables with room for fewer do not shrink.
const SMALL: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, id: u32) {
        // Fibonacci hashing: the high bits, which choose the group, depend on all of the ID.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

/// Gives back the memory of a map that has become nearly empty. What it costs is spread over the removals before it.
pub(crate) fn shrink<T>(map: &mut IdMap<T>) {
    if is_sparse(map.len(), map.capacity()) {
        map.shrink_to(2 * map.len());
    }
}

/// Gives back the memory of a slab that has become nearly empty, as far as what is left allows it. That looks at all of
/// the slab, and is therefore tried only each time that half of what was left is gone.
pub(crate) fn shrink_slab<T>(slab: &mut Slab<T>) {
    let is_half = slab.is_empty() || slab.len().is_power_of_two();
    if is_half && is_sparse(slab.len(), slab.capacity()) {
        slab.shrink_to_fit();
    }
}

/// Returns `true` if so little is left of a table that it should shrink.
fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > SMALL && len < capacity / 8
}

/// Returns the bytes that a map holds: a byte for each bucket beside what is in it, and buckets for 8/7 of its capacity,
/// which are a power of two.
#[cfg(test)]
pub(crate) fn memory<T>(map: &IdMap<T>) -> usize {
    const GROUP: usize = 16;
    let buckets = (map.capacity() * 8 / 7).next_power_of_two();
    if map.capacity() == 0 { 0 } else { buckets * (size_of::<(u32, T)>() + 1) + GROUP }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_has_become_nearly_empty_gives_its_memory_back() {
        let mut map = IdMap::default();
        map.extend((1..=10_000).map(|id| (id, ())));
        for id in 1..=10_000 {
            map.remove(&id);
            shrink(&mut map);
            assert!(map.capacity() <= (16 * map.len()).max(SMALL), "{} of {}", map.len(), map.capacity());
        }
    }

    /// Were the slab looked at with each removal, this would take minutes.
    #[test]
    fn a_slab_gives_its_memory_back_from_its_end_whatever_is_left_before() {
        let mut slab: Slab<()> = (0..1_000_000).map(|at| (at, ())).collect();
        slab.retain(|at, _| at % 8 == 0);
        for at in (0..1_000_000).rev().filter(|at| at % 8 == 0) {
            slab.remove(at);
            shrink_slab(&mut slab);
        }
        assert!(slab.capacity() <= SMALL, "{} places are left", slab.capacity());
    }
}
