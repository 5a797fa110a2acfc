//! Into the outbox, within its limits.

use crate::{
    error::SendError,
    session::{Connection, FramingSlot, Halt, Turn},
    ticket::Completion,
};

impl Connection {
    /// Frames `payload` into the outbox, if the limit allows it.
    #[inline]
    pub(crate) fn enqueue(
        &mut self,
        framing: &dyn FramingSlot,
        payload: &[u8],
        turn: &mut Turn,
    ) -> Result<(), SendError> {
        let (queued, limit) = (self.queued(), turn.limits.outbox_hard);
        let room = limit.checked_sub(queued);
        if room.is_none_or(|room| payload.len() > room) && !self.halt.has(Halt::CLOSING) {
            turn.counters.sends_refused += 1;
            return Err(SendError::Full { queued, limit });
        }
        self.append(framing, payload, limit, turn)
    }

    /// Frames a `payload` that a handle has taken: it was held against the limit there, and whoever sent it has been
    /// told that it will go out. So an outbox holds at most twice its limit: that much from callbacks, and that much
    /// from handles.
    #[inline]
    pub(crate) fn enqueue_taken(
        &mut self,
        framing: &dyn FramingSlot,
        payload: &[u8],
        turn: &mut Turn,
    ) -> Result<(), SendError> {
        self.append(framing, payload, turn.limits.outbox_hard.saturating_mul(2), turn)
    }

    /// Frames `payload` into the outbox, where that takes it no further than to `most` bytes.
    #[inline]
    fn append(
        &mut self,
        framing: &dyn FramingSlot,
        payload: &[u8],
        most: usize,
        turn: &mut Turn,
    ) -> Result<(), SendError> {
        if self.halt.has(Halt::CLOSING) {
            return Err(SendError::Closed);
        }
        let outbox = self.outbox.get_or_insert_with(|| turn.pool.take());
        let frame = outbox.append(payload.len(), |out| framing.encode(payload, out))?;
        if outbox.weight() > turn.limits.outbox_high {
            self.keep_above_high(frame, most, turn)?;
        }
        self.traffic.packets_out += 1;
        turn.counters.packets_out += 1;
        Ok(())
    }

    /// The frame that was just appended took the outbox above the high-water mark. Only now is it known how long it is.
    #[cold]
    fn keep_above_high(&mut self, frame: usize, most: usize, turn: &mut Turn) -> Result<(), SendError> {
        let Some(outbox) = self.outbox.as_mut().filter(|outbox| outbox.weight() > most) else {
            self.halt.set(Halt::FULL);
            return Ok(());
        };
        outbox.take_back(frame);
        turn.counters.sends_refused += 1;
        Err(SendError::Full { queued: outbox.weight(), limit: turn.limits.outbox_hard })
    }

    /// Tells `completion` when everything queued so far was written.
    pub(crate) fn track(&mut self, completion: Completion, turn: &Turn) {
        let Some(outbox) = &mut self.outbox else { return completion.written() };
        outbox.track(completion);
        if outbox.weight() > turn.limits.outbox_high {
            self.halt.set(Halt::FULL);
        }
    }

    /// Gives back an outbox with nothing in it, or with what can not be written any more.
    #[cold]
    pub(crate) fn give_back_outbox(&mut self, turn: &mut Turn) {
        if let Some(outbox) = self.outbox.take() {
            turn.pool.put(outbox);
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
        if let Some(link) = self.link() {
            link.set_backlog(self.queued());
        }
    }
}
