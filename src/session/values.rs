//! Sending values that are written straight into the outbox, by [`Encode`].

use std::mem;

use crate::{
    encode::Encode,
    error::SendError,
    session::{Connection, FramingSlot, ShardCore},
};

/// Bytes of the scratch buffer of a shard that are kept for the next value.
const KEPT: usize = 64 * 1024;

impl Connection {
    /// Has `packet` encoded and framed into the outbox, if the limit allows it. How long it is shows only afterwards; its
    /// size hint, if it has one, is checked before.
    ///
    /// If encoding fails or panics, nothing is left of it in the outbox.
    pub(crate) fn enqueue_value(
        &mut self,
        framing: &dyn FramingSlot,
        packet: &dyn Encode,
        core: &mut ShardCore,
    ) -> Result<(), SendError> {
        if self.sends_no_more() {
            return Err(SendError::Closed);
        }
        let (hint, queued, limit) = (packet.size_hint(), self.queued(), core.limits.outbox_hard);
        if limit.checked_sub(queued).is_none_or(|room| hint > room) {
            core.counters.sends_refused += 1;
            return Err(SendError::Full { queued, limit });
        }
        // Lost in a panic, which is no harm.
        let mut scratch = mem::take(&mut core.scratch);
        let outbox = self.outbox.get_or_insert_with(|| core.pool.take());
        let appended = outbox.append(hint, |out| framing.encode_with(packet, &mut scratch, out));
        if scratch.capacity() <= KEPT {
            core.scratch = scratch;
        }
        let frame = appended.inspect_err(|_| {
            // Nothing was appended, but the memory for it may be there.
            outbox.take_back(0);
        })?;
        if outbox.weight() > core.limits.outbox_high {
            self.keep_above_high(frame, limit, core)?;
        }
        self.traffic.count_packet_out();
        Ok(())
    }
}
