use std::{collections::VecDeque, convert::Infallible, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};

use super::{
    chunk::{Chunk, append_to, trim},
    packet_queue::PacketQueue,
};
use crate::{
    framing::U32Header,
    sync::{Completion, TICKET},
    time::Tick,
};

/// A chunk that is as long as this, or would be with the next frame, takes no further one.
const CHUNK: usize = 64 * 1024;
/// The kernel has refused nothing since it last took a byte.
const TAKING: Tick = Tick::MAX;
/// A packet of this length gets a chunk of its own size if the last one has no room: a common chunk would stay half
/// empty.
const LARGE: usize = CHUNK / 4;
/// A frame may be this much longer than its packet without making its chunk grow.
const HEADER: usize = 64;
/// Slices of one `writev`: far below `IOV_MAX` (1024), and more than a socket buffer takes at once.
pub(crate) const MAX_SLICES: usize = 64;

/// Shared frames up to this many bytes are copied. To share them costs a reference count to raise and to lower, a place in
/// the queue, and a slice of its own in each `writev`, and the next small frame begins a new chunk; `benches/outbox.rs`
/// compares both.
const COPIED: usize = 512;

/// Frames of one session that wait to be written.
///
/// ```text
///        head                              tail                                    packets
/// [ ....frame|frame|fra | spare ..... ] [ me|frame ] [ shared with other sessions ] │ may go │ key 7 │ kept │
///       ^ front: the kernel has what was before            ^ appended here, or      ^ behind packets, if there are any
///                       ^ filled
/// ```
///
/// What is in the head and in the tail is written, whatever comes. Packets that may be dropped wait behind it as a whole,
/// with those that came after them.
///
/// The spare bytes are left over from earlier frames: frames go there without a check of the capacity. There are spare
/// bytes only while no chunks, tickets or packets wait.
///
/// Invariant: `front ≤ filled ≤ head.len()`, and `len() = filled - front + Σ tail.len() + Σ packets`. Own chunks are not advanced: an
/// advanced `BytesMut` does not tell how much memory it still holds. The memory of shared ones is not the outbox's, and
/// they are: a head that has been written stays empty in front of them.
#[derive(Debug)]
pub struct Outbox {
    head: BytesMut,
    /// Bytes of the head that are frames.
    filled: usize,
    /// Used only while more than one chunk waits.
    tail: VecDeque<Chunk>,
    /// Memory of all chunks of the tail but the last, which may still grow. A tail can be of thousands of short chunks.
    closed: usize,
    /// The head takes frames up to this length: none while chunks wait behind it.
    open: usize,
    /// Bytes of the head that the kernel has taken.
    front: usize,
    /// Whole packets that wait behind the tail.
    packets: Option<Box<PacketQueue>>,
    /// What counts towards the limits besides the head: each byte of the tail, `TICKET` for each waiting ticket, and
    /// what the packets count for.
    beside: usize,
    /// The part of this that the packets count for.
    behind: usize,
    /// Bytes ever written, for tickets.
    written: u64,
    /// Bytes that the pool has counted as queued here.
    counted: usize,
    /// Since when the kernel has taken no byte; [`TAKING`] while it takes some.
    blocked: Tick,
    /// What to complete when byte number `.0` has been written; in rising order.
    tickets: VecDeque<(u64, Completion)>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::with_buffer(BytesMut::new())
    }
}

impl Outbox {
    /// Creates an empty outbox that writes into the memory of `buffer`.
    pub(crate) fn with_buffer(buffer: BytesMut) -> Self {
        Self {
            head: buffer,
            filled: 0,
            tail: VecDeque::new(),
            closed: 0,
            open: CHUNK,
            front: 0,
            packets: None,
            beside: 0,
            behind: 0,
            written: 0,
            counted: 0,
            blocked: TAKING,
            tickets: VecDeque::new(),
        }
    }

    /// Returns how many bytes wait.
    #[inline]
    pub fn len(&self) -> usize {
        if self.packets.is_none() { self.committed() } else { self.committed() + self.bytes_of_packets() }
    }

    /// Bytes that wait and cannot be dropped any more: all but those of the packets behind.
    #[inline]
    fn committed(&self) -> usize {
        self.weight() - self.behind - self.tickets.len() * TICKET
    }

    /// Returns `true` if no bytes wait.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.weight() == 0
    }

    /// What counts towards the limits: the bytes that wait, and what tickets cost. 0 only if no bytes wait.
    #[inline]
    pub(crate) fn weight(&self) -> usize {
        // `front ≤ filled`, and memory holds all of it.
        self.filled.wrapping_sub(self.front).wrapping_add(self.beside)
    }

    /// Bytes that were counted as queued here at the last look.
    #[inline]
    pub(super) fn counted(&self) -> usize {
        self.counted
    }

    /// Counts the bytes that wait now. Returns how many were counted before, and how many now.
    pub(super) fn recount(&mut self) -> (usize, usize) {
        let now = self.len();
        (std::mem::replace(&mut self.counted, now), now)
    }

    /// Since when the kernel has taken no byte, if it has refused the last ones.
    pub(crate) fn blocked_since(&self) -> Option<Tick> {
        (self.blocked != TAKING && !self.is_empty()).then_some(self.blocked)
    }

    /// The kernel takes no more.
    pub(crate) fn block(&mut self, now: Tick) {
        if self.blocked == TAKING {
            self.blocked = now;
        }
    }

    /// Appends the frame that `write` writes to the front of the spare bytes, and returns the length of; `None` if they
    /// have no room for it. Returns `true` if there was a frame. Checks no limit: spare bytes are within them.
    #[inline]
    pub fn append_in_place(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let Some(spare) = self.head.get_mut(self.filled..) else { return false };
        let Some(frame) = write(spare) else { return false };
        // What was written lies within the head.
        self.filled = self.filled.wrapping_add(frame);
        true
    }

    /// Appends the frame of a packet of `len` bytes whose framing writes such a `header`, and returns the bytes of the
    /// packet, which the caller has to write; `None` if the spare bytes have no room for it, or the packet is above the
    /// maximum.
    #[inline]
    pub(crate) fn place(&mut self, header: U32Header, len: usize) -> Option<&mut [u8]> {
        let body = header.write(len, self.head.get_mut(self.filled..)?)?;
        // What was written lies within the head.
        self.filled = self.filled.wrapping_add(U32Header::WIDTH).wrapping_add(len);
        Some(body)
    }

    /// Appends the frame that `encode` writes for a packet of `packet` bytes, and returns its length. If `encode` fails
    /// or panics, nothing is appended.
    ///
    /// # Errors
    /// What `encode` returns.
    pub fn append<E>(
        &mut self,
        packet: usize,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<usize, E> {
        // No slice is longer than isize::MAX, so the sum cannot wrap.
        if self.filled.wrapping_add(packet) < self.open || self.is_empty() {
            self.seal();
            let frame = append_to(&mut self.head, encode)?;
            // An encode that has taken bytes away has not taken those that the kernel has.
            self.filled = self.head.len().max(self.front);
            Ok(frame)
        } else {
            let frame = append_to(self.chunk_for(packet), encode)?;
            self.beside += frame;
            if self.packets.is_some() {
                self.behind += frame;
            }
            Ok(frame)
        }
    }

    /// Gives up the spare bytes: each further frame is checked against the limits.
    pub(crate) fn seal(&mut self) {
        self.head.truncate(self.filled);
    }

    /// Appends `frames`, which other sessions send as well.
    pub(crate) fn append_shared(&mut self, frames: &Bytes) {
        if frames.len() <= COPIED { self.copy(frames) } else { self.share(frames) }
    }

    /// Appends a copy of `frames`.
    pub fn copy(&mut self, frames: &[u8]) {
        let copied = self.append(frames.len(), |out| {
            out.extend_from_slice(frames);
            Ok::<_, Infallible>(())
        });
        debug_assert_eq!(copied, Ok(frames.len()), "a copy cannot fail");
    }

    /// Appends `frames` without a copy, which must not be empty.
    pub fn share(&mut self, frames: &Bytes) {
        self.push(Chunk::Shared(frames.clone()));
    }

    fn push(&mut self, chunk: Chunk) {
        self.close_last();
        self.beside += chunk.bytes().len();
        self.tail.push_back(chunk);
        self.open = 0;
    }

    /// The chunk for a packet that the head does not take.
    #[cold]
    fn chunk_for(&mut self, packet: usize) -> &mut BytesMut {
        if self.packets.is_some() {
            return self.end_of_packets();
        }
        let last = self.tail.back().and_then(Chunk::own);
        let has_room = last.is_some_and(|last| {
            let needed = packet.saturating_add(HEADER);
            // One that has begun small may grow.
            let has_spare = needed <= last.capacity() - last.len();
            has_spare || last.is_empty() || needed.saturating_add(last.len()) <= LARGE
        });
        if !has_room {
            // Behind a shared chunk little may wait yet; otherwise so much does that a common chunk will fill up.
            let is_common = packet < LARGE && (last.is_some() || self.tail.is_empty());
            self.close_last();
            let capacity = if is_common { CHUNK } else { 0 };
            self.tail.push_back(Chunk::Own(BytesMut::with_capacity(capacity)));
            self.open = 0;
        }
        self.tail.back_mut().and_then(Chunk::own_mut).unwrap_or(&mut self.head)
    }

    /// Nothing more is appended to the last chunk.
    fn close_last(&mut self) {
        match self.tail.back_mut() {
            Some(last) => {
                if let Some(full) = last.own_mut() {
                    trim(full, CHUNK / 8);
                }
                self.closed += last.memory();
            }
            // Kept as it is if possible, since it goes back to the pool.
            None => {
                self.seal();
                trim(&mut self.head, CHUNK);
            }
        }
    }

    /// Removes what was appended last, a frame of that length.
    #[cold]
    pub(crate) fn take_back(&mut self, frame: usize) {
        if self.packets.is_some() {
            return self.take_back_packet(frame);
        }
        let Some(last) = self.tail.back_mut().and_then(Chunk::own_mut) else {
            self.filled = self.filled.saturating_sub(frame);
            self.seal();
            return trim(&mut self.head, CHUNK);
        };
        last.truncate(last.len().saturating_sub(frame));
        trim(last, CHUNK);
        self.beside -= frame;
        if last.is_empty() && self.tail.pop_back().is_some() {
            self.closed -= self.tail.back().map_or(0, Chunk::memory);
            self.reopen();
        }
    }

    /// Completes `completion` when everything queued so far has been written.
    pub(crate) fn track(&mut self, completion: Completion) {
        if self.is_empty() {
            return completion.written();
        }
        self.seal();
        if self.packets.is_some() {
            return self.track_packet(completion);
        }
        self.tickets.push_back((self.written + self.committed() as u64, completion));
        self.beside += TICKET;
    }

    /// Returns what is left of the only chunk, if there is just one: `send` is cheaper than `writev`.
    #[inline]
    pub fn single(&self) -> Option<&[u8]> {
        if self.tail.is_empty() { self.head.get(self.front..self.filled) } else { self.single_of_tail() }
    }

    #[cold]
    fn single_of_tail(&self) -> Option<&[u8]> {
        let is_single = self.front == self.filled && self.tail.len() == 1;
        self.tail.front().filter(|_| is_single).map(Chunk::bytes)
    }

    /// All bytes that wait, chunk by chunk.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let head = self.head.get(self.front..self.filled).unwrap_or_default();
        let head = Some(head).filter(|head| !head.is_empty());
        head.into_iter().chain(self.tail.iter().map(Chunk::bytes))
    }

    /// Stores the bytes to write next as slices, and returns how many slices there are.
    pub(crate) fn slices<'a>(&'a self, into: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let mut count = 0;
        for (slot, chunk) in into.iter_mut().zip(self.chunks()) {
            *slot = IoSlice::new(chunk);
            count += 1;
        }
        count
    }

    /// Drops `n` bytes, which the kernel has taken. Returns the [`weight`](Self::weight) of what is left.
    #[inline]
    pub fn advance(&mut self, n: usize) -> usize {
        debug_assert!(n <= self.len(), "the kernel took more than there was");
        self.written = self.written.wrapping_add(n as u64);
        self.blocked = TAKING;
        if !self.tickets.is_empty() {
            self.tell_tickets();
        }
        if n >= self.weight() {
            self.clear();
            return 0;
        }
        self.front += n;
        self.drop_written();
        self.weight()
    }

    fn drop_written(&mut self) {
        while self.front >= self.filled {
            // Bytes of the tail that the kernel has taken.
            let taken = self.front - self.filled;
            (self.front, self.filled) = (0, 0);
            self.head.clear();
            if let Some(Chunk::Shared(next)) = self.tail.front_mut() {
                let part = taken.min(next.len());
                next.advance(part);
                let is_written = next.is_empty();
                self.beside -= part;
                self.front = taken - part;
                if !is_written {
                    break;
                }
            }
            match self.pop_chunk() {
                None => break,
                Some(Chunk::Shared(_)) => {}
                Some(Chunk::Own(next)) => {
                    self.head = next;
                    (self.front, self.filled) = (taken, self.head.len());
                    self.beside -= self.filled;
                }
            }
        }
        self.reopen();
    }

    fn pop_chunk(&mut self) -> Option<Chunk> {
        let first = self.tail.pop_front()?;
        if !self.tail.is_empty() {
            self.closed -= first.memory();
        }
        Some(first)
    }

    /// The head takes frames again, if nothing waits behind it.
    fn reopen(&mut self) {
        self.open = if self.tail.is_empty() && self.packets.is_none() { CHUNK } else { 0 };
    }

    fn tell_tickets(&mut self) {
        while self.tickets.front().is_some_and(|(at, _)| *at <= self.written) {
            if let Some((_, completion)) = self.tickets.pop_front() {
                self.beside -= TICKET;
                completion.written();
            }
        }
        if self.tickets.is_empty() {
            self.tickets = VecDeque::new();
        }
    }

    /// The first `n` bytes will never be written: their tickets are told so.
    pub(crate) fn lose_tickets(&mut self, n: usize) {
        let until = self.written.wrapping_add(n as u64);
        while self.tickets.front().is_some_and(|(at, _)| *at <= until) {
            if let Some((_, completion)) = self.tickets.pop_front() {
                self.beside -= TICKET;
                completion.dropped();
            }
        }
    }

    /// Moves a short rest out of a large buffer, which it would otherwise hold for as long as the peer does not read.
    pub(crate) fn release_spare(&mut self) -> Option<BytesMut> {
        if self.filled == self.front && self.head.capacity() > 0 {
            (self.front, self.filled) = (0, 0);
            return Some(std::mem::take(&mut self.head));
        }
        if !self.tail.is_empty() || self.head.capacity() <= 1024 || self.head.capacity() / 4 <= self.len() {
            return None;
        }
        let rest = BytesMut::from(self.head.get(self.front..self.filled).unwrap_or_default());
        (self.front, self.filled) = (0, rest.len());
        Some(std::mem::replace(&mut self.head, rest))
    }

    /// Returns all bytes that wait if they are one slice and nothing else waits, no ticket and no further chunk, and the
    /// kernel has taken none of them.
    #[inline]
    pub(crate) fn sole(&self) -> Option<&[u8]> {
        let is_sole = self.front | self.beside == 0 && self.open == CHUNK && self.filled > 0;
        if is_sole { self.head.get(..self.filled) } else { None }
    }

    /// The kernel has taken all of what [`sole`](Self::sole) has returned.
    #[inline]
    pub(crate) fn take_sole(&mut self) {
        (self.front, self.filled, self.blocked) = (0, 0, TAKING);
    }

    /// Forgets everything but the memory of the head, and keeps no more than `most` spare bytes in it. Tickets that
    /// wait are completed as lost.
    #[inline]
    pub fn reset(&mut self, most: usize) {
        if !self.is_empty() {
            self.forget();
        }
        self.reset_empty(most);
    }

    /// As [`reset`](Self::reset), where nothing waits.
    #[inline]
    pub(crate) fn reset_empty(&mut self, most: usize) {
        self.written = 0;
        if self.head.len() > most {
            self.head.truncate(most);
        }
    }

    #[cold]
    fn forget(&mut self) {
        self.blocked = TAKING;
        self.clear();
        self.tickets = VecDeque::new();
    }

    #[inline]
    fn clear(&mut self) {
        (self.front, self.filled, self.beside) = (0, 0, 0);
        if self.open == 0 {
            (self.tail, self.packets) = (VecDeque::new(), None);
            (self.closed, self.behind) = (0, 0);
            self.open = CHUNK;
        }
    }
}

mod memory;
#[cfg(test)]
mod tests;
mod whole_packets;

pub(crate) use whole_packets::Room;
