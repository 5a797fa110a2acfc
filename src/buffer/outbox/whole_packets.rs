//! Packets that may be dropped, behind the bytes of an outbox.

use bytes::BytesMut;

use super::{
    super::{
        chunk::Chunk,
        packet_queue::{DropPolicy, PACKET, Waiting},
    },
    CHUNK, LARGE, Outbox,
};
use crate::{
    buffer::Overflow,
    sync::{Completion, TICKET},
};

/// Bytes that leave the queue at a time, at least one packet: what leaves is written, and can be dropped no more. A
/// write of so many costs no more for each byte than a larger one.
const COMMIT: usize = 16 * 1024;

/// How much may wait of what can be dropped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) packets: usize,
    /// Bytes of the outbox, all in all, if more than one packet waits.
    pub(crate) bytes: usize,
    /// The same, for one packet: the latest always has room, unless what is kept takes it up.
    pub(crate) most: usize,
}

/// What has become of packets to make room for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MadeRoom {
    /// Packets that were dropped, this one included if there was no room for it.
    pub(crate) dropped: usize,
    /// One with the same key was replaced.
    pub(crate) replaced: bool,
    /// There was no room, and this packet was dropped.
    pub(crate) refused: bool,
}

impl Outbox {
    /// Returns `true` if whole packets wait behind the bytes.
    #[inline]
    pub(crate) fn has_packets(&self) -> bool {
        self.packets.is_some()
    }

    /// Returns `true` if packets wait that may be dropped.
    pub(crate) fn has_droppable(&self) -> bool {
        self.packets.as_ref().is_some_and(|packets| packets.droppable() > 0)
    }

    /// The part of [`weight`](Self::weight) that may be dropped.
    pub(crate) fn droppable_weight(&self) -> usize {
        self.packets.as_ref().map_or(0, |packets| packets.droppable_weight())
    }

    /// Queues a packet that may be dropped, as `overflow` says, behind all that waits, or in the place of the one with
    /// the same key.
    pub(crate) fn push_droppable(
        &mut self,
        frames: Chunk,
        overflow: Overflow,
        completion: Option<Completion>,
        room: Room,
    ) -> MadeRoom {
        let policy =
            if let Overflow::Latest(key) = overflow { DropPolicy::Key(key) } else { DropPolicy::MayGo };
        let packet = Waiting::new(frames, policy, completion);
        self.seal();
        self.open = 0;
        let weight = packet.weight();
        let packets = self.packets.get_or_insert_default();
        let (freed, mut at, replaced) = match packets.replace(packet) {
            Ok((freed, at)) => (freed, at, true),
            Err(packet) => (0, packets.push(packet), false),
        };
        self.count_packets(freed, weight);
        let mut made = MadeRoom { replaced, ..MadeRoom::default() };
        while self.is_over(room) && !made.refused {
            // It is the latest, wherever its place is: the others go before it.
            match self.drop_oldest(Some(at)) {
                Some(gone) => at -= usize::from(gone < at),
                None => made.refused = self.drop_oldest(None).is_some(),
            }
            made.dropped += 1;
        }
        made
    }

    /// Packets that counted for `before` bytes count for `now`.
    fn count_packets(&mut self, before: usize, now: usize) {
        self.behind = self.behind + now - before;
        self.beside = self.beside + now - before;
    }

    /// Returns `true` if more waits than there is room for.
    fn is_over(&self, room: Room) -> bool {
        let droppable = self.packets.as_ref().map_or(0, |packets| packets.droppable());
        let bytes = if droppable > 1 { room.bytes } else { room.most };
        droppable > room.packets || self.weight() > bytes
    }

    /// Drops the oldest packet that may be dropped, but not the one at the place `spared`. Returns the place that it had.
    fn drop_oldest(&mut self, spared: Option<usize>) -> Option<usize> {
        let (freed, at) = self.packets.as_mut()?.drop_oldest(spared)?;
        self.count_packets(freed, 0);
        self.forget_empty_queue();
        Some(at)
    }

    /// Drops packets, the oldest first, until no more than `most` bytes wait or none is left that may be dropped.
    /// Returns how many were dropped.
    #[cold]
    pub(crate) fn make_way(&mut self, most: usize) -> usize {
        let mut dropped = 0;
        while self.weight() > most && self.drop_oldest(None).is_some() {
            dropped += 1;
        }
        dropped
    }

    /// Moves packets to the bytes that are written next, if few of these are left.
    #[cold]
    pub(crate) fn commit_some(&mut self) {
        self.commit(COMMIT);
    }

    /// Moves all packets to the bytes.
    pub(crate) fn commit_all(&mut self) {
        self.commit(usize::MAX);
    }

    fn commit(&mut self, most: usize) {
        // While it is apart, what is appended goes to the bytes.
        let Some(mut packets) = self.packets.take() else { return };
        self.reopen();
        while self.committed() < most {
            let Some(packet) = packets.pop() else { break };
            self.count_packets(packet.weight(), 0);
            match packet.frames {
                Chunk::Own(frames) if frames.len() < LARGE => self.copy(&frames),
                frames @ Chunk::Own(_) => self.push(frames),
                Chunk::Shared(frames) => self.append_shared(&frames),
            }
            if let Some(completion) = packet.completion {
                self.track(completion);
            }
        }
        self.seal();
        self.packets = Some(packets).filter(|packets| packets.len() > 0);
        self.reopen();
        if self.committed() == 0 {
            // Those of packets without a byte.
            self.tell_tickets();
        }
    }

    fn forget_empty_queue(&mut self) {
        if self.packets.take_if(|packets| packets.len() == 0).is_some() {
            self.reopen();
        }
    }

    /// The end of the queue, for a frame that is kept.
    pub(super) fn end_of_packets(&mut self) -> &mut BytesMut {
        let packets = self.packets.get_or_insert_default();
        if packets.last_kept().is_none_or(|last| last.len() >= CHUNK) {
            packets.push(Waiting::new(Chunk::Own(BytesMut::new()), DropPolicy::Kept, None));
            (self.behind, self.beside) = (self.behind + PACKET, self.beside + PACKET);
        }
        packets.last_kept().unwrap_or(&mut self.head)
    }

    /// Removes a frame of that length, which was appended last.
    pub(super) fn take_back_packet(&mut self, frame: usize) {
        let last = self.packets.as_mut().and_then(|packets| packets.last_kept());
        if let Some(last) = last {
            last.truncate(last.len().saturating_sub(frame));
            self.count_packets(frame, 0);
        }
    }

    /// Completes `completion` when the packet that is the last now has been written.
    pub(super) fn track_packet(&mut self, completion: Completion) {
        let packets = self.packets.get_or_insert_default();
        let mut weight = TICKET;
        if packets.last_mut().is_none_or(|last| last.completion.is_some()) {
            packets.push(Waiting::new(Chunk::Own(BytesMut::new()), DropPolicy::Kept, None));
            weight += PACKET;
        }
        if let Some(last) = packets.last_mut() {
            last.completion = Some(completion);
        }
        self.count_packets(0, weight);
    }

    /// Bytes of the frames of packets.
    #[cold]
    pub(super) fn bytes_of_packets(&self) -> usize {
        self.packets.as_ref().map_or(0, |packets| packets.bytes())
    }
}
