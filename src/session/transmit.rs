//! Into the outbox, within its limits.

use crate::{
    error::SendError,
    session::{Connection, FramingSlot, ReadBlock, ShardCore},
    sync::Completion,
};

impl Connection {
    /// Frames `payload` into the outbox, if the limit allows it.
    #[inline]
    pub(crate) fn enqueue(
        &mut self,
        framing: &dyn FramingSlot,
        payload: &[u8],
        core: &mut ShardCore,
    ) -> Result<(), SendError> {
        let (queued, limit) = (self.queued(), core.limits.outbox_hard);
        let room = limit.checked_sub(queued);
        if room.is_none_or(|room| payload.len() > room) && !self.read_block.has(ReadBlock::CLOSING) {
            core.counters.sends_refused += 1;
            return Err(SendError::Full { queued, limit });
        }
        self.append(framing, payload, limit, core)
    }

    /// Frames a `payload` that a handle has taken: it was held against the limit there, and whoever sent it has been
    /// told that it will go out. So an outbox holds at most twice its limit: that much from callbacks, and that much
    /// from handles.
    #[inline]
    pub(crate) fn enqueue_taken(
        &mut self,
        framing: &dyn FramingSlot,
        payload: &[u8],
        core: &mut ShardCore,
    ) -> Result<(), SendError> {
        self.append(framing, payload, core.limits.outbox_hard.saturating_mul(2), core)
    }

    /// Frames `payload` into the outbox, where that takes it no further than to `most` bytes.
    #[inline]
    fn append(
        &mut self,
        framing: &dyn FramingSlot,
        payload: &[u8],
        most: usize,
        core: &mut ShardCore,
    ) -> Result<(), SendError> {
        if self.read_block.has(ReadBlock::CLOSING) {
            return Err(SendError::Closed);
        }
        let outbox = self.outbox.get_or_insert_with(|| core.pool.take());
        let frame = outbox.append(payload.len(), |out| framing.encode(payload, out))?;
        if outbox.weight() > core.limits.outbox_high {
            self.keep_above_high(frame, most, core)?;
        }
        self.traffic.packets_out += 1;
        core.counters.packets_out += 1;
        Ok(())
    }

    /// The frame that was just appended took the outbox above the high-water mark. Only now is it known how long it is.
    #[cold]
    fn keep_above_high(&mut self, frame: usize, most: usize, core: &mut ShardCore) -> Result<(), SendError> {
        let Some(outbox) = self.outbox.as_mut().filter(|outbox| outbox.weight() > most) else {
            self.read_block.set(ReadBlock::FULL);
            return Ok(());
        };
        outbox.take_back(frame);
        core.counters.sends_refused += 1;
        Err(SendError::Full { queued: outbox.weight(), limit: core.limits.outbox_hard })
    }

    /// Tells `completion` when everything queued so far was written.
    pub(crate) fn track(&mut self, completion: Completion, core: &ShardCore) {
        let Some(outbox) = &mut self.outbox else { return completion.written() };
        outbox.track(completion);
        if outbox.weight() > core.limits.outbox_high {
            self.read_block.set(ReadBlock::FULL);
        }
    }

    /// Gives back an outbox with nothing in it, or with what cannot be written any more.
    #[cold]
    pub(crate) fn give_back_outbox(&mut self, core: &mut ShardCore) {
        if let Some(outbox) = self.outbox.take() {
            core.pool.put(outbox);
        }
    }

    /// What the outbox holds against its limits: bytes that wait, and the cost of tickets. 0 only without bytes.
    pub(crate) fn queued(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.weight())
    }

    /// Bytes that wait to be written.
    pub(crate) fn unsent(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.len())
    }

    /// Tells the handles how much waits.
    #[inline]
    pub(crate) fn tell_handles(&self) {
        if let Some(handle_state) = self.handle_state() {
            handle_state.set_backlog(self.queued());
        }
    }
}
