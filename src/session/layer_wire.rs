//! What the layers of a session have for the kernel: carried from the outbox, written, and then removed from it.

use crate::{
    buffer::Outbox,
    error::{CloseReason, LayerError},
    session::{
        Connection, ShardCore,
        layered::{Layered, OurSide},
        status::Flags,
        transmit::Transmit,
    },
    time::Tick,
};

/// Plain bytes carried through the layers at a time. The next follow when the kernel has taken what was carried before.
const WINDOW: usize = 64 * 1024;

/// How to refill the wire when the kernel has taken all of it.
enum Fill {
    Carry,
    End,
    /// What waits can never be sent.
    Drop,
    /// No layers are left.
    Leave,
}

impl Layered {
    /// Carries up to `most` bytes of the outbox through the layers.
    pub(super) fn carry(
        &mut self,
        outbox: &Outbox,
        most: usize,
        core: &mut ShardCore,
    ) -> Result<(), LayerError> {
        let ShardCore { pool, layer_buffers, .. } = core;
        let wire = self.wire.get_or_insert_with(|| pool.take());
        if let (0, Some(all)) = (self.in_flight, outbox.single()) {
            let part = all.get(..most).unwrap_or(all);
            self.stack.send_batch(part, wire, &mut layer_buffers.sends)?;
            self.in_flight = part.len();
            if self.stack.len() > 1 {
                layer_buffers.shrink();
            }
            return Ok(());
        }
        let (mut skip, mut left) = (self.in_flight, most);
        for chunk in outbox.chunks() {
            let fresh = chunk.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(chunk.len());
            let part = fresh.get(..left).unwrap_or(fresh);
            if !part.is_empty() {
                self.stack.send(part, wire, &mut layer_buffers.sends)?;
                self.in_flight += part.len();
                left -= part.len();
            }
        }
        self.stack.flush(wire, &mut layer_buffers.sends)?;
        layer_buffers.shrink();
        Ok(())
    }

    fn end(&mut self, reason: Option<&CloseReason>, core: &mut ShardCore) -> Result<(), LayerError> {
        self.our_side = OurSide::Ended;
        let ShardCore { pool, layer_buffers, .. } = core;
        self.stack.end(reason, self.wire.get_or_insert_with(|| pool.take()), &mut layer_buffers.sends)
    }
}

impl Connection {
    /// Carries what is to be sent next to the wire, if the kernel has taken what was carried before.
    ///
    /// # Errors
    /// A layer has failed.
    pub(crate) fn fill_wire(&mut self, core: &mut ShardCore) -> Result<(), LayerError> {
        while let Some(fill) = self.poll_fill() {
            let Self { cold, outbox, .. } = self;
            let Some((layered, reason)) = cold.as_mut().and_then(|cold| cold.closing_layers()) else { break };
            match (fill, outbox) {
                (Fill::Carry, Some(outbox)) => {
                    outbox.commit_some();
                    layered.carry(outbox, WINDOW, core)?;
                }
                (Fill::Carry, None) => break,
                (Fill::End, _) => layered.end(reason, core)?,
                (Fill::Drop, _) => {
                    self.give_back_outbox(core);
                    continue;
                }
                (Fill::Leave, _) => {
                    self.status.remove(Flags::LAYERED);
                    self.cold.get_or_insert_default().layered = None;
                    break;
                }
            }
            layered.give_back_empty_wire(core);
            if layered.wire.is_some() {
                break;
            }
            // Bytes for which the layers produced no output count as written.
            self.remove_in_flight(core);
        }
        Ok(())
    }

    /// Returns `true` if the wire is empty, and something may be due for it.
    #[inline]
    pub(crate) fn wants_fill(&self) -> bool {
        self.layered().is_some_and(|layered| layered.wire.is_none())
    }

    fn poll_fill(&self) -> Option<Fill> {
        let layered = self.layered().filter(|layered| layered.wire.is_none())?;
        let (waits, is_closing) = (self.queued() > 0, self.is_closing());
        let ends = self.status.ends_our_side();
        match layered.our_side {
            OurSide::Failed | OurSide::Lost => waits.then_some(Fill::Drop),
            OurSide::Ended => None,
            OurSide::Open if layered.stack.is_open() => {
                if layered.stack.len() == 0 {
                    Some(Fill::Leave)
                } else if waits {
                    Some(Fill::Carry)
                } else {
                    ends.then_some(Fill::End)
                }
            }
            // What waits for a handshake that cannot complete any more is lost.
            OurSide::Open if waits && self.status.has(Flags::ENDED) && is_closing => Some(Fill::Drop),
            OurSide::Open => (ends && !waits).then_some(Fill::End),
        }
    }

    /// The bytes of the layers for the kernel.
    pub(super) fn poll_wire(&self) -> Option<Transmit<'_>> {
        self.layered()?.wire.as_deref().map(Transmit::of)
    }

    /// The kernel took `n` bytes from the wire. Returns `true` if nothing is left to write.
    pub(super) fn handle_wire_written(&mut self, n: usize, core: &mut ShardCore) -> bool {
        let Some(layered) = self.layered_mut() else { return true };
        let mut is_all = false;
        if let Some(wire) = layered.wire.take_if(|wire| wire.advance(n) == 0) {
            let (written, has_layers) = (std::mem::take(&mut layered.in_flight), layered.stack.len() > 0);
            core.pool.put_empty(wire);
            is_all = self.advance_outbox(written, core) && has_layers && !self.status.ends_our_side();
        }
        self.lift_full(core);
        if self.status.is_blocked() {
            let waits = self.status.has(Flags::READABLE | Flags::BACKLOG | Flags::ENDED);
            if waits && self.takes_for_handshake() {
                core.read_later(self);
            }
        }
        is_all
    }

    /// Removes the carried bytes from the outbox: the layers have made nothing of them.
    fn remove_in_flight(&mut self, core: &mut ShardCore) {
        let Some(layered) = self.layered_mut() else { return };
        let written = std::mem::take(&mut layered.in_flight);
        self.advance_outbox(written, core);
    }

    /// The kernel takes no more of the wire.
    pub(super) fn block_wire(&mut self, core: &mut ShardCore) {
        let Some(wire) = self.layered_mut().and_then(|layered| layered.wire.as_mut()) else { return };
        wire.block(core.clock.deadline(0));
        if let Some(buffer) = wire.release_spare() {
            core.pool.put_buffer(buffer);
        }
    }

    /// Bytes that the layers have for the kernel, as they count against limits.
    #[cold]
    pub(super) fn wire_queued(&self) -> usize {
        self.layered().map_or(0, Layered::wire_weight)
    }

    #[cold]
    pub(super) fn wire_blocked_since(&self) -> Option<Tick> {
        self.layered()?.wire.as_ref()?.blocked_since()
    }

    /// Returns `true` if a session that is closing has sent everything, including the last blocks of its layers.
    #[cold]
    pub(super) fn is_wire_done(&self) -> bool {
        self.layered().is_none_or(|layered| layered.wire.is_none() && layered.our_side != OurSide::Open)
    }

    /// What the layers have for the kernel cannot be written any more.
    #[cold]
    pub(super) fn discard_wire(&mut self, core: &mut ShardCore) {
        if let Some(layered) = self.layered_mut() {
            if layered.our_side != OurSide::Failed {
                layered.our_side = OurSide::Lost;
            }
            layered.in_flight = 0;
            layered.give_back_wire(core);
        }
    }
}
