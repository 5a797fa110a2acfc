use std::{collections::VecDeque, io::IoSlice};

use bytes::BytesMut;

use crate::{ticket::Completion, time::Tick};

/// A chunk that has reached this length takes no further frame.
const CHUNK: usize = 64 * 1024;
/// The kernel has refused nothing since it last took a byte.
const TAKING: Tick = Tick::MAX;
/// Slices of one `writev`: far below `IOV_MAX` (1024), and more than a socket buffer takes at once.
pub(crate) const MAX_SLICES: usize = 64;

/// Frames of one session that wait to be written.
///
/// ```text
///        head                      tail
/// [ ....frame|frame|fra ] [ me|frame ] [ frame.. ]
///       ^ front: the kernel has what was before  ^ appended here
/// ```
///
/// Invariant: `front + len = head.len() + Σ tail.len() ≤ capacity()`, and `front ≤ head.len()`. Chunks are not advanced: a `BytesMut` that is says nothing of the memory it still holds.
#[derive(Debug)]
pub struct Outbox {
    head: BytesMut,
    /// Used only while more than one chunk waits.
    tail: VecDeque<BytesMut>,
    /// Bytes of the head that the kernel has.
    front: usize,
    len: usize,
    /// Bytes ever written, for tickets.
    written: u64,
    /// Since when the kernel takes no byte; [`TAKING`] while it does.
    blocked: Tick,
    /// Who wants to know when byte number `.0` was written; in rising order.
    tickets: VecDeque<(u64, Completion)>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            head: BytesMut::new(),
            tail: VecDeque::new(),
            front: 0,
            len: 0,
            written: 0,
            blocked: TAKING,
            tickets: VecDeque::new(),
        }
    }
}

impl Outbox {
    /// Bytes that wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none wait.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Since when the kernel has taken no byte, if it has refused the last ones.
    pub(crate) fn blocked_since(&self) -> Option<Tick> {
        (self.blocked != TAKING && self.len > 0).then_some(self.blocked)
    }

    /// The kernel takes no more.
    pub(crate) fn block(&mut self, now: Tick) {
        if self.blocked == TAKING {
            self.blocked = now;
        }
    }

    /// Bytes of memory held for them.
    #[inline]
    pub fn capacity(&self) -> usize {
        let tail = if self.tail.is_empty() { 0 } else { self.tail.iter().map(BytesMut::capacity).sum() };
        self.head.capacity() + tail
    }

    /// Appends what `encode` writes. If it fails, or panics, nothing was appended.
    #[inline]
    pub fn append<E>(&mut self, encode: impl FnOnce(&mut BytesMut) -> Result<(), E>) -> Result<(), E> {
        let chunk = if self.head.len() < CHUNK { &mut self.head } else { last_chunk(&mut self.tail) };
        let mut draft = Draft { kept: chunk.len(), chunk };
        encode(draft.chunk)?;
        self.len += draft.keep();
        Ok(())
    }

    /// Calls `completion` when everything queued so far was written.
    pub(crate) fn track(&mut self, completion: Completion) {
        if self.len == 0 {
            completion.written();
        } else {
            self.tickets.push_back((self.written + self.len as u64, completion));
        }
    }

    /// What is left of the only chunk, when there is just one: `send` is cheaper than `writev`.
    #[inline]
    pub fn single(&self) -> Option<&[u8]> {
        if self.tail.is_empty() { self.head.get(self.front..) } else { None }
    }

    /// The bytes to write next, as slices; how many there are.
    pub(crate) fn slices<'a>(&'a self, into: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let head = self.head.get(self.front..).unwrap_or_default();
        let chunks = std::iter::once(head).chain(self.tail.iter().map(|chunk| &**chunk));
        let mut count = 0;
        for (slot, chunk) in into.iter_mut().zip(chunks) {
            *slot = IoSlice::new(chunk);
            count += 1;
        }
        count
    }

    /// The kernel took `n` bytes.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        debug_assert!(n <= self.len, "the kernel took more than there was");
        self.written += n as u64;
        self.blocked = TAKING;
        if n >= self.len {
            self.len = 0;
            self.front = 0;
            self.head.clear();
            if !self.tail.is_empty() {
                self.tail.clear();
            }
        } else {
            self.len -= n;
            self.front += n;
            self.drop_written();
        }
        if !self.tickets.is_empty() {
            self.tell_tickets();
        }
    }

    fn drop_written(&mut self) {
        while self.front >= self.head.len() {
            self.front -= self.head.len();
            let Some(next) = self.tail.pop_front() else { break };
            self.head = next;
        }
    }

    fn tell_tickets(&mut self) {
        while self.tickets.front().is_some_and(|(at, _)| *at <= self.written) {
            if let Some((_, completion)) = self.tickets.pop_front() {
                completion.written();
            }
        }
    }

    /// Moves a short rest out of a large buffer, which it would otherwise hold for as long as the peer does not read.
    pub(crate) fn settle(&mut self) -> Option<BytesMut> {
        if !self.tail.is_empty() || self.head.capacity() <= 1024 || self.head.capacity() / 4 <= self.len {
            return None;
        }
        let rest = BytesMut::from(self.head.get(self.front..).unwrap_or_default());
        self.front = 0;
        let mut large = std::mem::replace(&mut self.head, rest);
        large.clear();
        Some(large)
    }

    /// An empty outbox with that memory to write into.
    pub(crate) fn with_buffer(mut buffer: BytesMut) -> Self {
        buffer.clear();
        Self { head: buffer, ..Self::default() }
    }

    /// Forgets everything but the memory of the head. Who waits for a ticket is told that it was lost.
    #[inline]
    pub fn reset(&mut self) {
        self.front = 0;
        self.len = 0;
        self.written = 0;
        self.blocked = TAKING;
        self.head.clear();
        if !self.tail.is_empty() {
            self.tail.clear();
        }
        if !self.tickets.is_empty() {
            self.tickets.clear();
        }
    }
}

/// A frame that is being appended. What is not kept is taken away again.
struct Draft<'a> {
    chunk: &'a mut BytesMut,
    kept: usize,
}

impl Draft<'_> {
    /// How many bytes it has become.
    #[inline]
    fn keep(&mut self) -> usize {
        let before = std::mem::replace(&mut self.kept, self.chunk.len());
        self.kept.saturating_sub(before)
    }
}

impl Drop for Draft<'_> {
    #[inline]
    fn drop(&mut self) {
        self.chunk.truncate(self.kept);
    }
}

#[cold]
fn last_chunk(tail: &mut VecDeque<BytesMut>) -> &mut BytesMut {
    if tail.back().is_none_or(|chunk| chunk.len() >= CHUNK) {
        // So much waits already that it will fill.
        tail.push_back(BytesMut::with_capacity(CHUNK));
    }
    let last = tail.len() - 1;
    #[allow(clippy::indexing_slicing, reason = "it is not empty")]
    &mut tail[last]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(outbox: &mut Outbox, bytes: &[u8]) {
        let done: Result<(), ()> = outbox.append(|out| {
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
        let failed = outbox.append(|out| {
            out.extend_from_slice(b"half a fra");
            Err("too long")
        });
        assert_eq!(failed, Err("too long"));
        assert_eq!((pending(&outbox), outbox.len()), (b"ok".to_vec(), 2));
    }

    #[test]
    fn a_panicking_encode_leaves_nothing() {
        let mut outbox = Outbox::default();
        put(&mut outbox, &[7; CHUNK]);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _: Result<(), ()> = outbox.append(|out| {
                out.extend_from_slice(b"half a fra");
                panic!("in encode")
            });
        }));
        assert!(caught.is_err());
        assert_eq!((pending(&outbox).len(), outbox.len()), (CHUNK, CHUNK));
    }

    #[test]
    fn a_short_rest_does_not_hold_a_large_buffer() {
        let mut outbox = Outbox::default();
        put(&mut outbox, &[1; 10_000]);
        outbox.advance(9_990);
        outbox.block(4);
        assert!(outbox.settle().is_some_and(|large| large.capacity() >= 10_000));
        assert!(outbox.capacity() < 1024);
        assert_eq!((pending(&outbox), outbox.blocked_since()), (vec![1; 10], Some(4)));
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
                outbox.advance(take);
                model.drain(..take);
                if outbox.is_empty() { outbox.reset(); }
                prop_assert!(outbox.len() <= outbox.capacity());
            }
        }
    }
}
