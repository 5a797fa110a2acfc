use std::{collections::VecDeque, io::IoSlice};

use bytes::BytesMut;

use crate::{
    sync::{Completion, TICKET},
    time::Tick,
};

/// A chunk that is as long as this, or would be with the next frame, takes no further one.
const CHUNK: usize = 64 * 1024;
/// The kernel has refused nothing since it last took a byte.
const TAKING: Tick = Tick::MAX;
/// A packet of this length gets a chunk of its size where the last one has no room: a common one would stay half empty.
const LARGE: usize = CHUNK / 4;
/// A frame may be this much longer than its packet without making its chunk grow.
const HEADER: usize = 64;
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
/// Invariant: `front + len() = head.len() + Σ tail.len() ≤ capacity()`, and `front ≤ head.len()`. Chunks are not advanced: a `BytesMut` that is says nothing of the memory it still holds.
#[derive(Debug)]
pub struct Outbox {
    head: BytesMut,
    /// Used only while more than one chunk waits.
    tail: VecDeque<BytesMut>,
    /// The head takes frames up to this length: none while chunks wait behind it.
    open: usize,
    /// Bytes of the head that the kernel has.
    front: usize,
    /// What counts against the limits: each byte that waits, and `TICKET` for each who waits for a byte. 0 only without bytes.
    weight: usize,
    /// Bytes ever written, for tickets.
    written: u64,
    /// Since when the kernel takes no byte; [`TAKING`] while it does.
    blocked: Tick,
    /// Who wants to know when byte number `.0` was written; in rising order.
    tickets: VecDeque<(u64, Completion)>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::with_buffer(BytesMut::new())
    }
}

impl Outbox {
    /// An empty outbox with that memory to write into.
    pub(crate) fn with_buffer(mut buffer: BytesMut) -> Self {
        buffer.clear();
        Self {
            head: buffer,
            tail: VecDeque::new(),
            open: CHUNK,
            front: 0,
            weight: 0,
            written: 0,
            blocked: TAKING,
            tickets: VecDeque::new(),
        }
    }

    /// Bytes that wait.
    #[inline]
    pub fn len(&self) -> usize {
        if self.tickets.is_empty() { self.weight } else { self.weight - self.tickets.len() * TICKET }
    }

    /// Whether none wait.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.weight == 0
    }

    /// What is held against the limits: the bytes that wait, and what tickets cost.
    #[inline]
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// Since when the kernel has taken no byte, if it has refused the last ones.
    pub(crate) fn blocked_since(&self) -> Option<Tick> {
        (self.blocked != TAKING && self.weight > 0).then_some(self.blocked)
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
        let tickets = if self.tickets.capacity() == 0 { 0 } else { self.ticket_memory() };
        self.head.capacity() + tail + tickets
    }

    #[cold]
    fn ticket_memory(&self) -> usize {
        let spare = self.tickets.capacity() - self.tickets.len();
        self.tickets.len() * TICKET + spare * size_of::<(u64, Completion)>()
    }

    /// Bytes of memory that an outbox keeps when it is reset.
    #[inline]
    pub(crate) fn kept(&self) -> usize {
        self.head.capacity()
    }

    /// Appends the frame that `encode` writes, of a packet of `packet` bytes; how long it is. If it fails, or panics, nothing
    /// was appended.
    #[inline]
    pub fn append<E>(
        &mut self,
        packet: usize,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<usize, E> {
        // No slice is longer than isize::MAX, so the sum cannot wrap.
        let fits = self.head.len().wrapping_add(packet) < self.open;
        let chunk = if fits { &mut self.head } else { self.chunk_for(packet) };
        let mut draft = AppendGuard { kept: chunk.len(), chunk };
        encode(draft.chunk)?;
        let frame = draft.keep();
        drop(draft);
        self.weight += frame;
        Ok(frame)
    }

    /// The chunk for a packet that the head does not take.
    #[cold]
    fn chunk_for(&mut self, packet: usize) -> &mut BytesMut {
        if self.weight == 0 {
            return &mut self.head;
        }
        let has_room = |last: &BytesMut| {
            last.is_empty() || packet.saturating_add(HEADER) <= last.capacity() - last.len()
        };
        if !self.tail.back().is_some_and(has_room) {
            match self.tail.back_mut() {
                Some(full) => trim(full, CHUNK / 8),
                // Kept as it is if it can be, for it goes back to the pool.
                None => trim(&mut self.head, CHUNK),
            }
            // So much waits already that a common chunk will fill.
            let capacity = if packet < LARGE { CHUNK } else { 0 };
            self.tail.push_back(BytesMut::with_capacity(capacity));
            self.open = 0;
        }
        self.tail.back_mut().unwrap_or(&mut self.head)
    }

    /// Takes away again what was appended last, a frame of that length.
    #[cold]
    pub(crate) fn take_back(&mut self, frame: usize) {
        let last = self.tail.back_mut().unwrap_or(&mut self.head);
        last.truncate(last.len().saturating_sub(frame));
        trim(last, CHUNK);
        if last.is_empty() && self.tail.pop_back().is_some() && self.tail.is_empty() {
            self.open = CHUNK;
        }
        self.weight -= frame;
    }

    /// Calls `completion` when everything queued so far was written.
    pub(crate) fn track(&mut self, completion: Completion) {
        if self.is_empty() {
            completion.written();
        } else {
            self.tickets.push_back((self.written + self.len() as u64, completion));
            self.weight += TICKET;
        }
    }

    /// What is left of the only chunk, when there is just one: `send` is cheaper than `writev`.
    #[inline]
    pub fn single(&self) -> Option<&[u8]> {
        if self.tail.is_empty() { self.head.get(self.front..) } else { None }
    }

    /// All bytes that wait, chunk by chunk.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let head = self.head.get(self.front..).unwrap_or_default();
        std::iter::once(head).chain(self.tail.iter().map(|chunk| &**chunk))
    }

    /// The bytes to write next, as slices; how many there are.
    pub(crate) fn slices<'a>(&'a self, into: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let mut count = 0;
        for (slot, chunk) in into.iter_mut().zip(self.chunks()) {
            *slot = IoSlice::new(chunk);
            count += 1;
        }
        count
    }

    /// The kernel took `n` bytes.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        debug_assert!(n <= self.len(), "the kernel took more than there was");
        self.written += n as u64;
        self.blocked = TAKING;
        if !self.tickets.is_empty() {
            self.tell_tickets();
        }
        if n >= self.weight {
            self.weight = 0;
            self.clear();
        } else {
            self.weight -= n;
            self.front += n;
            self.drop_written();
        }
    }

    fn drop_written(&mut self) {
        while self.front >= self.head.len() {
            self.front -= self.head.len();
            let Some(next) = self.tail.pop_front() else { break };
            self.head = next;
            if self.tail.is_empty() {
                self.open = CHUNK;
            }
        }
    }

    fn tell_tickets(&mut self) {
        while self.tickets.front().is_some_and(|(at, _)| *at <= self.written) {
            if let Some((_, completion)) = self.tickets.pop_front() {
                self.weight -= TICKET;
                completion.written();
            }
        }
        if self.tickets.is_empty() {
            self.tickets = VecDeque::new();
        }
    }

    /// Moves a short rest out of a large buffer, which it would otherwise hold for as long as the peer does not read.
    pub(crate) fn settle(&mut self) -> Option<BytesMut> {
        if !self.tail.is_empty() || self.head.capacity() <= 1024 || self.head.capacity() / 4 <= self.len() {
            return None;
        }
        let rest = BytesMut::from(self.head.get(self.front..).unwrap_or_default());
        self.front = 0;
        let mut large = std::mem::replace(&mut self.head, rest);
        large.clear();
        Some(large)
    }

    /// Forgets everything but the memory of the head. Who waits for a ticket is told that it was lost.
    #[inline]
    pub fn reset(&mut self) {
        self.written = 0;
        if self.weight > 0 {
            self.forget();
        }
    }

    #[cold]
    fn forget(&mut self) {
        self.weight = 0;
        self.blocked = TAKING;
        self.clear();
        self.tickets = VecDeque::new();
    }

    #[inline]
    fn clear(&mut self) {
        self.front = 0;
        self.head.clear();
        if self.open == 0 {
            self.tail = VecDeque::new();
            self.open = CHUNK;
        }
    }
}

/// Gives back what a chunk holds beyond its frames, if it is more than `spare` bytes.
fn trim(chunk: &mut BytesMut, spare: usize) {
    if chunk.capacity() - chunk.len() > spare {
        *chunk = BytesMut::from(&**chunk);
    }
}

/// A frame that is being appended. What is not kept is taken away again.
struct AppendGuard<'a> {
    chunk: &'a mut BytesMut,
    kept: usize,
}

impl AppendGuard<'_> {
    /// How many bytes it has become.
    #[inline]
    fn keep(&mut self) -> usize {
        let before = std::mem::replace(&mut self.kept, self.chunk.len());
        self.kept.saturating_sub(before)
    }
}

impl Drop for AppendGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.chunk.truncate(self.kept);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(outbox: &mut Outbox, bytes: &[u8]) {
        let done: Result<usize, ()> = outbox.append(bytes.len(), |out| {
            out.extend_from_slice(bytes);
            Ok(())
        });
        assert_eq!(done, Ok(bytes.len()));
    }

    fn pending(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = outbox.slices(&mut slices);
        let mut bytes = Vec::new();
        slices[..count].iter().for_each(|slice| bytes.extend_from_slice(slice));
        bytes
    }

    #[test]
    fn a_failed_encode_leaves_nothing() {
        let mut outbox = Outbox::default();
        put(&mut outbox, b"ok");
        let failed = outbox.append(10, |out| {
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
            let _: Result<usize, ()> = outbox.append(10, |out| {
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
            // Repeats after a prime, so that no chunk can stand for another.
            let stream = (0..251).collect::<Vec<u8>>().repeat(30 * 70_000 / 251 + 2);
            let (mut put_in, mut taken) = (0, 0);
            for (append, take) in steps {
                put(&mut outbox, &stream[put_in..][..append]);
                put_in += append;
                prop_assert_eq!(outbox.len(), put_in - taken);
                let seen = pending(&outbox);
                prop_assert!(seen == stream[taken..][..seen.len()]);
                let take = take.min(seen.len());
                outbox.advance(take);
                taken += take;
                if outbox.is_empty() { outbox.reset(); }
                prop_assert!(outbox.len() <= outbox.capacity());
            }
        }
    }
}
