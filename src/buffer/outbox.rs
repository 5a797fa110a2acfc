use std::{collections::VecDeque, io::IoSlice};

use bytes::BytesMut;

use crate::{ticket::Completion, time::Tick};

/// A chunk that has reached this length takes no further frame.
const CHUNK: usize = 64 * 1024;
/// Slices of one `writev`: far below `IOV_MAX` (1024), and more than a socket buffer takes at once.
pub(crate) const MAX_SLICES: usize = 64;

/// Frames of one session that wait to be written.
///
/// ```text
/// chunks   [ ....frame|frame|fra ] [ me|frame ] [ frame.. ]
///           ^ front: the kernel has what was before     ^ appended here
/// ```
///
/// Invariant: `front + len = Σ chunks.len() ≤ capacity()`, `front ≤ chunks[0].len()`, and no chunk is empty but the only
/// one of an empty outbox. Chunks are not advanced: a `BytesMut` that is says nothing of the memory it still holds.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<BytesMut>,
    /// Bytes of the first chunk that the kernel has.
    front: usize,
    len: usize,
    /// Bytes ever written, for tickets.
    written: u64,
    /// When the kernel last took a byte, or the first one was queued.
    progress: Tick,
    /// Who wants to know when byte number `.0` was written; in rising order.
    tickets: VecDeque<(u64, Completion)>,
}

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn progress(&self) -> Tick {
        self.progress
    }

    pub(crate) fn capacity(&self) -> usize {
        self.chunks.iter().map(BytesMut::capacity).sum()
    }

    /// Appends what `encode` writes. If it fails, nothing was appended.
    pub(crate) fn append<E>(
        &mut self,
        now: Tick,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.len == 0 {
            self.progress = now;
        }
        if self.chunks.back().is_none_or(|chunk| chunk.len() >= CHUNK) {
            self.chunks.push_back(BytesMut::new());
        }
        let Some(chunk) = self.chunks.back_mut() else { return Ok(()) };
        let before = chunk.len();
        let done = encode(chunk);
        if done.is_err() {
            chunk.truncate(before);
        }
        let grown = chunk.len().saturating_sub(before);
        self.len += grown;
        self.drop_empty_tail();
        done
    }

    /// Takes away what a panicking encode may have left behind.
    pub(crate) fn repair(&mut self) {
        let others: usize = self.chunks.iter().rev().skip(1).map(BytesMut::len).sum();
        if let Some(last) = self.chunks.back_mut() {
            last.truncate((self.front + self.len).saturating_sub(others));
        }
        self.drop_empty_tail();
    }

    /// Calls `completion` when everything queued so far was written.
    pub(crate) fn track(&mut self, completion: Completion) {
        if self.len == 0 {
            completion.written();
        } else {
            self.tickets.push_back((self.written + self.len as u64, completion));
        }
    }

    /// The bytes to write next, as slices; how many there are.
    pub(crate) fn slices<'a>(&'a self, into: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let mut count = 0;
        let mut skip = self.front;
        for (slot, chunk) in into.iter_mut().zip(&self.chunks) {
            *slot = IoSlice::new(chunk.get(skip..).unwrap_or_default());
            skip = 0;
            count += 1;
        }
        count
    }

    /// What is left of the only chunk, when there is just one: `send` is cheaper than `writev`.
    pub(crate) fn single(&self) -> Option<&[u8]> {
        match (self.chunks.len(), self.chunks.front()) {
            (1, Some(chunk)) => chunk.get(self.front..),
            _ => None,
        }
    }

    /// The kernel took `n` bytes.
    pub(crate) fn advance(&mut self, n: usize, now: Tick) {
        debug_assert!(n <= self.len, "the kernel took more than there was");
        self.written += n as u64;
        self.len = self.len.saturating_sub(n);
        self.progress = now;
        self.front += n;
        while let Some(first) = self.chunks.front_mut() {
            if self.front < first.len() {
                break;
            }
            self.front -= first.len();
            if self.len == 0 {
                // Kept, for its memory.
                first.clear();
                break;
            }
            self.chunks.pop_front();
        }
        while self.tickets.front().is_some_and(|(at, _)| *at <= self.written) {
            if let Some((_, completion)) = self.tickets.pop_front() {
                completion.written();
            }
        }
    }

    /// Moves a short rest out of a large buffer, which it would otherwise hold for as long as the peer does not read.
    pub(crate) fn settle(&mut self) -> Option<BytesMut> {
        if self.chunks.len() != 1 {
            return None;
        }
        let chunk = self.chunks.front_mut()?;
        if chunk.capacity() <= 1024 || chunk.capacity() / 4 <= self.len {
            return None;
        }
        let rest = BytesMut::from(chunk.get(self.front..).unwrap_or_default());
        self.front = 0;
        let mut large = std::mem::replace(chunk, rest);
        large.clear();
        Some(large)
    }

    /// Puts a buffer to write into under an outbox that has none.
    pub(crate) fn lend(&mut self, buffer: BytesMut) {
        debug_assert!(buffer.is_empty());
        if self.chunks.is_empty() {
            self.chunks.push_back(buffer);
        }
    }

    /// Forgets what was written before, for the next session.
    pub(crate) fn reset(&mut self) {
        debug_assert!(self.tickets.is_empty());
        self.len = 0;
        self.front = 0;
        self.written = 0;
        self.chunks.truncate(1);
        if let Some(chunk) = self.chunks.front_mut() {
            chunk.clear();
        }
    }

    /// Bytes are left and can no longer be written.
    pub(crate) fn abandon(&mut self) {
        self.tickets.clear();
        self.chunks.clear();
        self.len = 0;
        self.front = 0;
    }

    fn drop_empty_tail(&mut self) {
        if self.chunks.len() > 1 && self.chunks.back().is_some_and(BytesMut::is_empty) {
            self.chunks.pop_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(outbox: &mut Outbox, bytes: &[u8]) {
        let done: Result<(), ()> = outbox.append(0, |out| {
            out.extend_from_slice(bytes);
            Ok(())
        });
        assert_eq!(done, Ok(()));
    }

    fn pending(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = outbox.slices(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn a_failed_encode_leaves_nothing() {
        let mut outbox = Outbox::default();
        put(&mut outbox, b"ok");
        let failed = outbox.append(0, |out| {
            out.extend_from_slice(b"half a fra");
            Err("too long")
        });
        assert_eq!(failed, Err("too long"));
        assert_eq!((pending(&outbox), outbox.len()), (b"ok".to_vec(), 2));
    }

    #[test]
    fn a_panicking_encode_is_repaired() {
        let mut outbox = Outbox::default();
        put(&mut outbox, &[7; CHUNK]);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _: Result<(), ()> = outbox.append(0, |out| {
                out.extend_from_slice(b"half a fra");
                panic!("in encode")
            });
        }));
        assert!(caught.is_err());
        outbox.repair();
        assert_eq!((pending(&outbox).len(), outbox.len()), (CHUNK, CHUNK));
    }

    #[test]
    fn a_short_rest_does_not_hold_a_large_buffer() {
        let mut outbox = Outbox::default();
        put(&mut outbox, &[1; 10_000]);
        outbox.advance(9_990, 4);
        assert!(outbox.settle().is_some_and(|large| large.capacity() >= 10_000));
        assert!(outbox.capacity() < 1024);
        assert_eq!((pending(&outbox), outbox.progress()), (vec![1; 10], 4));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            steps in prop::collection::vec((0usize..70_000, 0usize..150_000), 1..30)
        ) {
            let mut outbox = Outbox::default();
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut counter = 0u8;
            for (append, take) in steps {
                let bytes: Vec<u8> = (0..append).map(|_| { counter = counter.wrapping_add(31); counter }).collect();
                put(&mut outbox, &bytes);
                model.extend(&bytes);
                prop_assert_eq!(outbox.len(), model.len());
                let seen = pending(&outbox);
                prop_assert!(seen.iter().eq(model.iter().take(seen.len())));
                let take = take.min(seen.len());
                outbox.advance(take, 0);
                model.drain(..take);
                if outbox.is_empty() { outbox.reset(); }
                prop_assert!(outbox.len() <= outbox.capacity());
            }
        }
    }
}
