use std::array;

/// Values on a page.
const PAGE: usize = u64::BITS as usize;

/// Values of some of the sessions in a slab, by the number of their slot. A session without one costs nothing, but on a
/// page where another has one.
///
/// Invariant: each page holds a value, and the last place is that of a page.
pub(crate) struct SideTable<T> {
    pages: Vec<Option<Box<Page<T>>>>,
}

struct Page<T> {
    /// One bit per value that was inserted.
    occupied: u64,
    values: [T; PAGE],
}

impl<T: Default> SideTable<T> {
    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        let (page, at) = place(slot);
        let page = self.pages.get(page)?.as_ref().filter(|page| page.occupied & (1 << at) != 0)?;
        page.values.get(at)
    }

    /// Inserts a value, or replaces the one that is there.
    pub(crate) fn insert(&mut self, slot: u32, value: T) {
        let (page, at) = place(slot);
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let Some(page) = self.pages.get_mut(page) else { return };
        let page = page.get_or_insert_with(Page::new);
        page.occupied |= 1 << at;
        if let Some(place) = page.values.get_mut(at) {
            *place = value;
        }
    }

    /// Removes a value, and frees the memory of a page that it was the last on.
    pub(crate) fn remove(&mut self, slot: u32) {
        let (number, at) = place(slot);
        let Some(place) = self.pages.get_mut(number) else { return };
        let Some(page) = place else { return };
        page.occupied &= !(1 << at);
        if let Some(value) = page.values.get_mut(at) {
            *value = T::default();
        }
        if page.occupied == 0 {
            *place = None;
            self.drop_last_pages();
        }
    }

    fn drop_last_pages(&mut self) {
        while let Some(None) = self.pages.last() {
            self.pages.pop();
        }
        if self.pages.is_empty() {
            self.pages = Vec::new();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Returns the memory that it holds, in bytes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let pages = self.pages.iter().flatten().count();
        pages * size_of::<Page<T>>() + self.pages.capacity() * size_of::<Option<Box<Page<T>>>>()
    }
}

impl<T> Default for SideTable<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T: Default> Page<T> {
    fn new() -> Box<Self> {
        Box::new(Self { occupied: 0, values: array::from_fn(|_| T::default()) })
    }
}

/// The page of a slot, and its place there.
fn place(slot: u32) -> (usize, usize) {
    (slot as usize / PAGE, slot as usize % PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_at_its_slot_until_it_is_removed() {
        let mut table = SideTable::default();
        for slot in [0, 63, 64, 5_000] {
            assert_eq!(table.get(slot), None);
            table.insert(slot, slot + 1);
            assert_eq!(table.get(slot), Some(&(slot + 1)));
        }
        table.insert(63, 7);
        assert_eq!((table.get(63), table.get(62), table.get(4_999)), (Some(&7), None, None));
        table.remove(63);
        table.remove(4_999);
        table.remove(1 << 23);
        assert_eq!((table.get(63), table.get(0)), (None, Some(&1)));
    }

    #[test]
    fn a_table_holds_no_memory_for_values_that_are_gone() {
        let mut table = SideTable::default();
        (0..1_000).for_each(|slot| table.insert(slot, [1_u64; 16]));
        let full = table.bytes();
        assert!((128_000..140_000).contains(&full), "{full} bytes for 1,000 values of 128");
        (0..999).rev().for_each(|slot| table.remove(slot));
        assert!(table.bytes() < 9_000, "{} bytes for one value", table.bytes());
        table.remove(999);
        assert_eq!(table.bytes(), 0);
    }
}
