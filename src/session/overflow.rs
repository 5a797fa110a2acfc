//! Sending where the packet says what becomes of it if there is no room.

use bytes::{Bytes, BytesMut};

use crate::{
    buffer::{Chunk, Overflow, PACKET, Room},
    encode::Encode,
    error::{CloseReason, SendError},
    session::{Connection, FramingSlot, Session, ShardCore, status::Flags},
    sync::Completion,
};

/// Bytes that may wait, while the kernel takes them, without being whole packets, since they are written at the end of
/// the batch: so many, and half of what may wait in all.
const UNDER_WAY: usize = 16 * 1024;

/// A packet on its way into an outbox.
#[derive(Clone, Copy)]
pub(crate) enum Outgoing<'a> {
    /// To be framed.
    Payload(&'a dyn FramingSlot, &'a [u8]),
    /// A frame that sessions share.
    Frame(&'a Bytes),
}

impl Outgoing<'_> {
    /// At least so many bytes.
    fn len(&self) -> usize {
        match self {
            Self::Payload(_, payload) => payload.len(),
            Self::Frame(frame) => frame.len(),
        }
    }

    /// Its frame in a piece of memory of its own, or shared.
    fn into_chunk(self) -> Result<Chunk, SendError> {
        match self {
            Self::Payload(framing, payload) => {
                let mut frame = BytesMut::new();
                framing.encode(payload, &mut frame)?;
                Ok(Chunk::Own(frame))
            }
            Self::Frame(frame) => Ok(Chunk::Shared(frame.clone())),
        }
    }
}

impl Session<'_> {
    /// As [`send`](Self::send), where `overflow` says what becomes of the packet if the peer does not read as fast as we
    /// send. Never blocks. Such a packet is encoded into a buffer of its own if it has to wait as a whole.
    ///
    /// # Errors
    /// The packet is not queued then.
    /// - [`SendError::Full`] if there is no room for it. With [`Overflow::Close`] the session is closed, whatever the
    ///   callback does with the error. With [`Overflow::DropOldest`] and [`Overflow::Latest`] this happens only if
    ///   packets that may not be dropped take up all the room.
    /// - [`SendError::Encode`] and [`SendError::Closed`] as for [`send`](Self::send).
    pub fn send_as(&mut self, packet: impl Encode, overflow: Overflow) -> Result<(), SendError> {
        let encoded;
        let payload = match packet.as_payload() {
            Some(payload) => payload,
            None => {
                encoded = packet.to_bytes()?;
                &encoded
            }
        };
        let (connection, framing, core) = self.parts();
        let (packet, most) = (Outgoing::Payload(framing, payload), core.limits.outbox_hard);
        let sent = connection.enqueue_as(packet, overflow, most, &mut None, core);
        match &sent {
            Err(error @ SendError::Full { .. }) if overflow == Overflow::Close => {
                connection.close_full(error.clone(), core);
            }
            _ => {}
        }
        sent
    }

    /// Sets what becomes of packets to this session for which there is no room: all that have no choice of their own,
    /// whether they come from callbacks, handles, other sessions or broadcasts. For channels see
    /// [`Channel::overflow`](crate::Channel::overflow).
    ///
    /// With [`Overflow::Close`], the default, [`send`](Self::send) in a callback returns an error and leaves it to the
    /// callback whether the session is closed; everything else closes it.
    pub fn set_overflow(&mut self, overflow: Overflow) {
        let (connection, _, _) = self.parts();
        connection.set_overflow(overflow);
    }
}

impl Connection {
    /// Closes the session because a packet that it should have got found no room.
    pub(crate) fn close_full(&mut self, error: SendError, core: &mut ShardCore) {
        core.counters.overflow_closed += 1;
        self.close(CloseReason::Send(error), core);
    }

    /// Returns what becomes of packets for which there is no room, unless they have a choice of their own.
    #[inline]
    pub(crate) fn overflow(&self) -> Overflow {
        if self.status.has(Flags::OWN_OVERFLOW) { self.own_overflow() } else { Overflow::Close }
    }

    #[cold]
    fn own_overflow(&self) -> Overflow {
        self.extra().map(|extra| extra.overflow).unwrap_or_default()
    }

    /// Sets what becomes of packets for which there is no room.
    pub(crate) fn set_overflow(&mut self, overflow: Overflow) {
        if let Some(handle_state) = self.handle_state() {
            handle_state.set_overflow(overflow);
        }
        if overflow == Overflow::Close {
            self.status.remove(Flags::OWN_OVERFLOW);
            return;
        }
        self.extra_or_new().overflow = overflow;
        self.status.insert(Flags::OWN_OVERFLOW);
        // What fits into spare bytes would be sent in any case.
        if let Some(outbox) = &mut self.outbox {
            outbox.seal();
        }
    }

    /// Queues a packet as `overflow` says, unless what is kept would take the outbox above `most` bytes. Takes the
    /// completion of a packet that is to be dropped later.
    ///
    /// # Errors
    /// The packet is not queued: [`SendError::Full`] if there was no room for it.
    pub(crate) fn enqueue_as(
        &mut self,
        packet: Outgoing<'_>,
        overflow: Overflow,
        most: usize,
        completion: &mut Option<Completion>,
        core: &mut ShardCore,
    ) -> Result<(), SendError> {
        if self.sends_no_more() {
            return Err(SendError::Closed);
        }
        if overflow.drops() && !self.is_under_way(packet.len(), overflow, core) {
            return self.enqueue_droppable(packet, overflow, completion, core);
        }
        let queued = match packet {
            Outgoing::Payload(framing, payload) => self.append(framing, payload, most, core),
            Outgoing::Frame(frame) => self.enqueue_shared(frame, 1, core),
        };
        if overflow == Overflow::Refuse && matches!(queued, Err(SendError::Full { .. })) {
            core.counters.overflow_refused += 1;
        }
        queued
    }

    /// Queues a frame that the kernel has not taken, as a whole if it may be dropped.
    ///
    /// # Errors
    /// As for [`enqueue_as`](Self::enqueue_as).
    #[cold]
    pub(crate) fn wait_as(
        &mut self,
        frame: &Bytes,
        overflow: Overflow,
        most: usize,
        core: &mut ShardCore,
    ) -> Result<(), SendError> {
        if overflow.drops() {
            self.enqueue_droppable(Outgoing::Frame(frame), overflow, &mut None, core)
        } else {
            self.enqueue_as(Outgoing::Frame(frame), overflow, most, &mut None, core)
        }
    }

    /// Returns `true` if a packet need not wait as a whole, because the kernel takes what is queued.
    fn is_under_way(&self, len: usize, overflow: Overflow, core: &ShardCore) -> bool {
        let has_packets = self.outbox.as_ref().is_some_and(|outbox| outbox.has_packets());
        let waits = has_packets || self.status.has(Flags::BLOCKED) || self.is_in_handshake();
        let most = UNDER_WAY.min(core.limits.outbox_high / 2);
        overflow == Overflow::DropOldest && !waits && self.queued().saturating_add(len) <= most
    }

    fn enqueue_droppable(
        &mut self,
        packet: Outgoing<'_>,
        overflow: Overflow,
        completion: &mut Option<Completion>,
        core: &mut ShardCore,
    ) -> Result<(), SendError> {
        let (queued, limit) = (self.queued(), core.limits.outbox_hard);
        let full = Err(SendError::Full { queued, limit });
        if packet.len() > limit {
            core.counters.overflow_dropped += 1;
            return full;
        }
        let frame = packet.into_chunk()?;
        let (packets, bytes) = (core.limits.outbox_packets, core.limits.outbox_high);
        // What it counts for beside its frame must not make it too long.
        let room = Room { packets, bytes, most: limit.saturating_add(PACKET) };
        let outbox = self.outbox.get_or_insert_with(|| core.pool.take());
        let made = outbox.push_droppable(frame, overflow, completion.take(), room);
        core.counters.overflow_dropped += made.dropped as u64;
        core.counters.overflow_replaced += u64::from(made.replaced);
        if made.refused {
            return full;
        }
        self.traffic.count_packet_out();
        Ok(())
    }

    /// Drops packets until `len` more bytes are within `most`, or none is left that may be dropped.
    #[cold]
    pub(super) fn make_way(&mut self, len: usize, most: usize, core: &mut ShardCore) {
        if let Some(outbox) = self.outbox.as_mut().filter(|outbox| outbox.has_droppable()) {
            core.counters.overflow_dropped += outbox.make_way(most.saturating_sub(len)) as u64;
        }
    }
}
