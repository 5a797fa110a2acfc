//! Sending: into the outbox, within its limits, and from there to the kernel.

use std::io::{self, ErrorKind, IoSlice};

use bytes::Bytes;

use crate::{
    buffer::{MAX_SLICES, Outbox},
    error::SendError,
    framing::U32Header,
    session::{
        Connection, FramingSlot, Outgoing, ShardCore,
        status::{Flags, Phase, ReadBlock},
    },
    sync::Completion,
};

/// What is done when the session is next flushed.
const DUE: Flags =
    Flags::union(&[Flags::DIRTY, Flags::RETRY, Flags::CLOSING, Flags::ABORT, Flags::DRAINED, Flags::BROKEN]);
/// None of this is true of an open session where one write is all that is to be done.
const NOT_SOLE: Flags =
    Flags::union(&[DUE, Flags::BLOCKED, Flags::LAYERED, Flags::BACKLOG, Flags::ENDING, Flags::FULL_AND_READ]);
/// Replies of this many bytes are written without waiting for more; as many as one read brings.
const REPLIES_THAT_WAIT: usize = 64 * 1024;

/// What is to be done before a session is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// It is to be reset.
    Abort,
    /// Its connection has failed.
    Broken,
    /// Its outbox has drained, and `on_drained` is to be called.
    Drained,
}

/// Bytes for the kernel.
pub(crate) enum Transmit<'a> {
    /// For one `send`.
    Slice(&'a [u8]),
    /// For one `writev`.
    Slices(Slices<'a>),
}

/// Chunks that wait.
pub(crate) struct Slices<'a>(&'a Outbox);

impl<'a> Transmit<'a> {
    #[inline]
    pub(super) fn of(outbox: &'a Outbox) -> Self {
        outbox.single().map_or_else(|| Self::Slices(Slices(outbox)), Self::Slice)
    }
}

impl<'a> Slices<'a> {
    /// Shows the first of them in `space`.
    pub(crate) fn fill<'s>(&self, space: &'s mut [IoSlice<'a>; MAX_SLICES]) -> &'s [IoSlice<'a>] {
        let count = self.0.slices(space);
        space.get(..count).unwrap_or_default()
    }
}

impl Connection {
    /// The kernel takes bytes again. Returns `true` if some were waiting for that.
    #[inline]
    pub(crate) fn handle_writable(&mut self) -> bool {
        self.status.remove(Flags::BLOCKED)
    }

    /// Returns `true` if the replies so far wait for the replies to packets that are handed out in later turns. All
    /// packets of one read then share one write, instead of one write per turn.
    #[inline]
    pub(crate) fn replies_wait(&self) -> bool {
        self.status.has(Flags::BACKLOG)
            && self.status.has(Flags::UNFINISHED)
            && !self.status.has(DUE)
            && !self.status.is_blocked()
            && self
                .outbox
                .as_ref()
                .is_none_or(|outbox| outbox.weight() < REPLIES_THAT_WAIT && outbox.blocked_since().is_none())
    }

    /// Begins a flush. Returns `true` if something of [`DUE`] is to be done first.
    #[inline]
    pub(crate) fn begin_flush(&mut self) -> bool {
        let due = self.status.has(DUE);
        if due {
            self.status.remove(Flags::DIRTY | Flags::RETRY);
        }
        due
    }

    /// Returns what is to be done before writing.
    pub(crate) fn poll_due(&mut self) -> Option<Due> {
        if self.status.has(Flags::ABORT) {
            Some(Due::Abort)
        } else if self.status.has(Flags::BROKEN) {
            Some(Due::Broken)
        } else {
            let drained = self.status.remove(Flags::DRAINED) && !self.status.is_full();
            drained.then_some(Due::Drained)
        }
    }

    /// Returns the bytes to write, if there are any and the kernel may take them.
    #[inline]
    pub(crate) fn poll_transmit(&mut self, core: &mut ShardCore) -> Option<Transmit<'_>> {
        if self.status.has(Flags::BLOCKED | Flags::RETRY | Flags::BROKEN) {
            return None;
        }
        if self.is_layered() {
            return self.poll_wire();
        }
        let outbox = self.outbox.as_mut()?;
        if outbox.has_packets() {
            outbox.commit_some();
        }
        if outbox.is_empty() {
            // What was to be sent had no frame, or one of no bytes: writing nothing would look like a broken
            // connection.
            self.give_back_outbox(core);
        }
        self.outbox.as_deref().map(Transmit::of)
    }

    /// Returns the bytes to write, if writing them is all that is to be done: nothing else is due, no layer transforms
    /// them, and the kernel refused none before.
    #[inline]
    pub(crate) fn poll_sole_transmit(&self) -> Option<&[u8]> {
        if !self.status.is_open_without(NOT_SOLE) {
            return None;
        }
        self.outbox.as_ref()?.sole()
    }

    /// The kernel has taken all `n` bytes of the sole transmit.
    #[inline]
    pub(crate) fn handle_sole_sent(&mut self, n: usize, core: &mut ShardCore) {
        self.count_written(n, core);
        if let Some(mut outbox) = self.outbox.take() {
            outbox.take_sole();
            core.pool.put_empty(outbox);
        }
    }

    /// Returns `true` if `len` bytes that many sessions share may be written to this one at once: nothing else is to be
    /// done, and nothing waits that they would overtake.
    #[inline]
    pub(crate) fn takes_directly(&self, len: usize, core: &ShardCore) -> bool {
        let is_idle = self.outbox.is_none() && self.status.is_open_without(NOT_SOLE);
        // Writing no bytes would look like a broken connection.
        is_idle && len > 0 && len <= core.limits.outbox_hard
    }

    /// The kernel has taken all `n` bytes of packets that were never in the outbox.
    #[inline]
    pub(crate) fn handle_direct_sent(&mut self, n: usize, packets: u64, core: &mut ShardCore) {
        self.traffic.packets_out = self.traffic.packets_out.wrapping_add(packets);
        self.count_written(n, core);
    }

    /// Handles the kernel's result for the last transmit. Returns `true` if nothing is left to write.
    ///
    /// # Errors
    /// The connection has failed.
    #[inline(always)]
    pub(crate) fn handle_sent(
        &mut self,
        sent: io::Result<usize>,
        core: &mut ShardCore,
    ) -> Result<bool, io::Error> {
        match sent {
            Ok(n) if n > 0 => return Ok(self.handle_written(n, core)),
            Ok(_) => return Err(ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.handle_blocked(core),
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                // The kernel did not refuse, but a retry within this turn could be interrupted again and again.
                self.status.insert(Flags::RETRY);
                core.flush_later(self);
            }
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    #[inline]
    pub(super) fn count_written(&mut self, n: usize, core: &mut ShardCore) {
        // A counter of 64 bits does not overflow in practice.
        self.traffic.bytes_out = self.traffic.bytes_out.wrapping_add(n as u64);
        core.counters.bytes_out = core.counters.bytes_out.wrapping_add(n as u64);
    }

    #[inline(always)]
    fn handle_written(&mut self, n: usize, core: &mut ShardCore) -> bool {
        self.count_written(n, core);
        if self.is_layered() {
            return self.handle_wire_written(n, core);
        }
        let is_all = self.advance_outbox(n, core);
        self.lift_full(core);
        is_all
    }

    /// Removes `n` written bytes from the outbox. Returns `true` if nothing is left in it.
    #[inline(always)]
    pub(super) fn advance_outbox(&mut self, n: usize, core: &mut ShardCore) -> bool {
        let Some(mut outbox) = self.outbox.take() else { return true };
        let left = outbox.advance(n);
        if left == 0 {
            core.pool.put_empty(outbox);
        } else {
            self.outbox = Some(outbox);
        }
        left == 0
    }

    /// Reads again if the outbox has drained.
    #[inline]
    pub(super) fn lift_full(&mut self, core: &mut ShardCore) {
        if self.status.is_full() {
            self.lift_if_low(core);
        }
    }

    #[cold]
    fn lift_if_low(&mut self, core: &mut ShardCore) {
        if self.is_linked() {
            // Its partner is told, at the end of the visit.
            return;
        }
        let low = core.limits.outbox_low;
        if self.queued() > low || self.is_layered() && self.wire_queued() > low {
            return;
        }
        self.status.remove(Flags::FULL_AND_READ);
        if self.status.has_block(ReadBlock::FULL) {
            self.lift(ReadBlock::FULL, core);
        }
        self.release_streams(core);
        if self.status.phase() == Phase::Open {
            self.status.insert(Flags::DRAINED);
            core.flush_later(self);
        }
    }

    fn handle_blocked(&mut self, core: &mut ShardCore) {
        self.status.insert(Flags::BLOCKED);
        if self.is_layered() {
            self.block_wire(core);
        } else if let Some(outbox) = &mut self.outbox {
            outbox.block(core.clock.deadline(0));
            if self.status.has(Flags::OWN_OVERFLOW) {
                // What fits into spare bytes would be sent in any case.
                outbox.seal();
            }
            if let Some(buffer) = outbox.release_spare() {
                core.pool.put_buffer(buffer);
            }
        }
        self.arm(core);
    }

    /// Frames `payload` into the outbox on the fast path: the framing writes such a `header`, and the bytes fit into
    /// the buffer of earlier frames, which is far from any limit. Returns `false` if [`enqueue`](Self::enqueue) is
    /// needed.
    #[inline]
    pub(super) fn enqueue_in_place(
        &mut self,
        header: U32Header,
        payload: &[u8],
        core: &mut ShardCore,
    ) -> bool {
        if self.outbox.is_none() {
            self.open_outbox(core);
        }
        let Some(outbox) = &mut self.outbox else { return false };
        let Some(place) = outbox.place(header, payload.len()) else { return false };
        self.traffic.count_packet_out();
        place.copy_from_slice(payload);
        true
    }

    /// Returns `true` if nothing more can be sent: our side ends.
    #[inline]
    pub(super) fn sends_no_more(&self) -> bool {
        self.status.has_block(ReadBlock::CLOSING) || self.status.has(Flags::ENDING)
    }

    /// Takes an outbox to send into, if anything may be sent.
    fn open_outbox(&mut self, core: &mut ShardCore) {
        if !self.sends_no_more() {
            self.outbox = Some(core.pool.take());
        }
    }

    /// Frames `payload` into the outbox, if the limit allows it.
    pub(crate) fn enqueue(
        &mut self,
        framing: &dyn FramingSlot,
        payload: &[u8],
        core: &mut ShardCore,
    ) -> Result<(), SendError> {
        if let (Some(header), Some(outbox)) = (framing.length_header(), &mut self.outbox) {
            if outbox.append_in_place(|spare| header.write(payload, spare)) {
                self.traffic.count_packet_out();
                return Ok(());
            }
        }
        let limit = core.limits.outbox_hard;
        if self.status.has(Flags::OWN_OVERFLOW) {
            let packet = Outgoing::Payload(framing, payload);
            return self.enqueue_as(packet, self.overflow(), limit, &mut None, core);
        }
        if !self.has_room_for(payload.len(), limit, core) && !self.sends_no_more() {
            core.counters.sends_refused += 1;
            return Err(SendError::Full { queued: self.queued(), limit });
        }
        self.append(framing, payload, limit, core)
    }

    /// Frames `payload` into the outbox, unless that would take it above `most` bytes.
    #[inline]
    pub(super) fn append(
        &mut self,
        framing: &dyn FramingSlot,
        payload: &[u8],
        most: usize,
        core: &mut ShardCore,
    ) -> Result<(), SendError> {
        if self.sends_no_more() {
            return Err(SendError::Closed);
        }
        let outbox = self.outbox.get_or_insert_with(|| core.pool.take());
        let frame = outbox.append(payload.len(), |out| framing.encode(payload, out))?;
        if outbox.weight() > core.limits.outbox_high {
            self.keep_above_high(frame, most, core)?;
        }
        self.traffic.count_packet_out();
        Ok(())
    }

    /// Returns `true` if `len` more bytes take the outbox to no more than `most`. Packets that may be dropped make way,
    /// unless that would not help.
    #[inline]
    pub(crate) fn has_room_for(&mut self, len: usize, most: usize, core: &mut ShardCore) -> bool {
        if len <= most.saturating_sub(self.queued()) {
            return true;
        }
        if len > most.saturating_sub(self.kept()) {
            return false;
        }
        self.make_way(len, most, core);
        len <= most.saturating_sub(self.queued())
    }

    /// Queues the frames of so many packets, which other sessions send as well.
    ///
    /// # Errors
    /// [`SendError::Closed`], or [`SendError::Full`] if that would take the outbox above its limit. Then nothing is
    /// queued.
    pub(crate) fn enqueue_shared(
        &mut self,
        frames: &Bytes,
        packets: u64,
        core: &mut ShardCore,
    ) -> Result<(), SendError> {
        if self.sends_no_more() {
            return Err(SendError::Closed);
        }
        let most = core.limits.outbox_hard;
        if !self.has_room_for(frames.len(), most, core) {
            core.counters.sends_refused += 1;
            return Err(SendError::Full { queued: self.queued(), limit: most });
        }
        let outbox = self.outbox.get_or_insert_with(|| core.pool.take());
        outbox.append_shared(frames);
        if outbox.weight() > core.limits.outbox_high {
            self.keep_above_high(0, usize::MAX, core)?;
        }
        self.traffic.packets_out = self.traffic.packets_out.wrapping_add(packets);
        Ok(())
    }

    /// Handles a frame that took the outbox above the high-water mark. It is taken back if it exceeds `most`: its
    /// length is known only after encoding.
    #[cold]
    pub(super) fn keep_above_high(
        &mut self,
        frame: usize,
        most: usize,
        core: &mut ShardCore,
    ) -> Result<(), SendError> {
        let high = core.limits.outbox_high;
        // A frame that has no room in any case costs no other packet its place.
        if self.kept() <= most {
            self.make_way(0, high, core);
        }
        let Some(outbox) = self.outbox.as_mut().filter(|outbox| outbox.weight() > most) else {
            if self.queued() > high {
                self.block_for_outbox(core);
            }
            return Ok(());
        };
        outbox.take_back(frame);
        core.counters.sends_refused += 1;
        Err(SendError::Full { queued: outbox.weight(), limit: most })
    }

    /// Notifies `completion` when everything queued so far is written.
    pub(crate) fn track(&mut self, completion: Completion, core: &mut ShardCore) {
        let Some(outbox) = &mut self.outbox else { return completion.written() };
        outbox.track(completion);
        if outbox.weight() > core.limits.outbox_high {
            self.make_way(0, core.limits.outbox_high, core);
        }
        if self.queued() > core.limits.outbox_high {
            self.block_for_outbox(core);
        }
    }

    /// Gives back an outbox with nothing in it, or with what cannot be written any more.
    #[inline]
    pub(super) fn give_back_outbox(&mut self, core: &mut ShardCore) {
        if let Some(outbox) = self.outbox.take() {
            core.pool.put(outbox);
        }
    }

    /// Returns what the outbox holds against its limits: bytes that wait, and the cost of tickets. 0 only without
    /// bytes.
    pub(crate) fn queued(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.weight())
    }

    /// The part of [`queued`](Self::queued) that is sent in any case.
    #[cold]
    fn kept(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.weight() - outbox.droppable_weight())
    }

    /// Bytes that wait in memory that other sessions share.
    #[cold]
    pub(crate) fn shared(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.shared())
    }

    /// Returns `true` if a callback has sent anything.
    pub(crate) fn has_output(&self) -> bool {
        self.outbox.is_some()
    }

    /// Returns `true` if nothing is left to send to the peer: no bytes, and no last block of a layer.
    pub(crate) fn owes_nothing(&self) -> bool {
        self.queued() == 0 && !self.is_layered()
    }

    /// Returns the bytes that wait to be written; those of the layers if there are no others.
    pub(crate) fn unsent(&self) -> usize {
        let plain = self.outbox.as_ref().map_or(0, |outbox| outbox.len());
        if plain == 0 && self.is_layered() { self.wire_queued() } else { plain }
    }

    /// Updates the number of queued bytes that the handles see.
    #[inline]
    pub(super) fn tell_handles(&self) {
        if let Some(handle_state) = self.handle_state() {
            handle_state.set_backlog(self.queued());
        }
    }
}
