use std::collections::VecDeque;

use bytes::BytesMut;

use super::chunk::Chunk;
use crate::sync::{Completion, TICKET};

/// What a waiting packet counts for beside its frame, in bytes: its place in the queue, with room to grow.
pub(crate) const PACKET: usize = 192;
const _: () = assert!(2 * size_of::<Waiting>() <= PACKET);

/// Whole packets that wait behind the bytes of an outbox: those that may be dropped, and what was sent after them.
///
/// ```text
/// front │ may go │ key 7 │ kept, kept, kept │ key 8 │ may go │ back
///                    ▲ replaced in its place    ▲ dropped from the front on, what is kept excepted
/// ```
#[derive(Debug, Default)]
pub(super) struct PacketQueue {
    waiting: VecDeque<Waiting>,
    /// Those that may be dropped.
    droppable: usize,
    /// Bytes of frames that are shared with other sessions.
    shared: usize,
}

#[derive(Debug)]
pub(super) struct Waiting {
    /// One frame, or several that are kept.
    pub(super) frames: Chunk,
    policy: DropPolicy,
    /// Of the last frame.
    pub(super) completion: Option<Completion>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DropPolicy {
    /// It is sent in any case.
    Kept,
    /// It may be dropped.
    MayGo,
    /// It may be dropped, or replaced by the next one with this key.
    Key(u64),
}

impl Waiting {
    pub(super) fn new(frames: Chunk, policy: DropPolicy, completion: Option<Completion>) -> Self {
        Self { frames, policy, completion }
    }

    /// Bytes for which it counts.
    pub(super) fn weight(&self) -> usize {
        let ticket = if self.completion.is_some() { TICKET } else { 0 };
        PACKET + self.frames.bytes().len() + ticket
    }

    /// Drops it, and says so. Returns the bytes for which it counted.
    fn go(self) -> usize {
        let weight = self.weight();
        if let Some(completion) = self.completion {
            completion.dropped();
        }
        weight
    }
}

impl PacketQueue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn droppable(&self) -> usize {
        self.droppable
    }

    /// What those that may be dropped count for, in bytes.
    pub(super) fn droppable_weight(&self) -> usize {
        self.waiting.iter().filter(|packet| packet.policy != DropPolicy::Kept).map(Waiting::weight).sum()
    }

    /// Appends a packet, and returns its place.
    pub(super) fn push(&mut self, packet: Waiting) -> usize {
        self.droppable += usize::from(packet.policy != DropPolicy::Kept);
        self.shared += packet.frames.shared();
        self.waiting.push_back(packet);
        self.waiting.len() - 1
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let packet = self.waiting.pop_front()?;
        self.droppable -= usize::from(packet.policy != DropPolicy::Kept);
        self.shared -= packet.frames.shared();
        Some(packet)
    }

    /// Puts a packet in the place of the one with the same key. Returns the bytes for which that counted, and the place.
    ///
    /// # Errors
    /// Returns the packet if there is none.
    pub(super) fn replace(&mut self, packet: Waiting) -> Result<(usize, usize), Waiting> {
        if packet.policy == DropPolicy::MayGo {
            return Err(packet);
        }
        let mut places = self.waiting.iter_mut().enumerate();
        let Some((at, waiting)) = places.find(|(_, waiting)| waiting.policy == packet.policy) else {
            return Err(packet);
        };
        self.shared += packet.frames.shared();
        let replaced = std::mem::replace(waiting, packet);
        self.shared -= replaced.frames.shared();
        Ok((replaced.go(), at))
    }

    /// Drops the oldest packet that may be dropped, but not the one at the place `spared`. Returns the bytes for which it
    /// counted, and the place that it had.
    pub(super) fn drop_oldest(&mut self, spared: Option<usize>) -> Option<(usize, usize)> {
        if self.droppable == 0 {
            return None;
        }
        let mut places = self.waiting.iter().enumerate();
        let (at, _) = places.find(|(at, packet)| packet.policy != DropPolicy::Kept && Some(*at) != spared)?;
        let packet = self.waiting.remove(at)?;
        self.droppable -= 1;
        self.shared -= packet.frames.shared();
        Some((packet.go(), at))
    }

    /// Where the next frame that is kept is appended, if that is behind others.
    pub(super) fn last_kept(&mut self) -> Option<&mut BytesMut> {
        let last = self.waiting.back_mut()?;
        if last.policy == DropPolicy::Kept && last.completion.is_none() {
            last.frames.own_mut()
        } else {
            None
        }
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut Waiting> {
        self.waiting.back_mut()
    }

    /// Bytes of all frames.
    pub(super) fn bytes(&self) -> usize {
        self.waiting.iter().map(|packet| packet.frames.bytes().len()).sum()
    }

    /// Bytes of frames that are shared with other sessions.
    pub(super) fn shared(&self) -> usize {
        self.shared
    }
}
