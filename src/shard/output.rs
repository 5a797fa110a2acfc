//! From outboxes to the kernel, and the steps of a close.

use std::io::{self, ErrorKind};

use super::{Ending, Shard};
use crate::{
    buffer::Outbox,
    error::CloseReason,
    framing::Framing,
    handler::PacketHandler,
    id::Key,
    session::{Halt, Mark, Phase},
};

/// What the reactor is to do with a socket whose outbox is empty.
pub(crate) enum CloseStep<'a, T> {
    /// Send our end of the stream.
    ShutdownWrite(&'a mut T),
    /// Nothing.
    None,
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// The kernel takes bytes again.
    pub(crate) fn handle_writable(&mut self, key: Key) -> bool {
        self.slots.get_mut(key).is_some_and(|slot| slot.connection.marks.remove(Mark::BLOCKED))
    }

    /// Begins to settle a session: the callbacks that are due at the end of a turn.
    pub(crate) fn begin_settling(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.connection.marks.remove(Mark::DIRTY | Mark::RETRY);
        if slot.connection.marks.has(Mark::ABORT) {
            self.finish(key, CloseReason::Local, Ending::Reset);
        } else if slot.connection.marks.remove(Mark::DRAINED) {
            self.tell_drained(key);
        }
    }

    /// The socket and the bytes to write to it, if there are any and the kernel may take them.
    #[inline]
    pub(crate) fn poll_transmit(&mut self, key: Key) -> Option<(&mut T, &Outbox)> {
        let slot = self.slots.get_mut(key)?;
        let outbox = slot.connection.outbox.as_deref()?;
        (!slot.connection.marks.has(Mark::BLOCKED | Mark::RETRY)).then_some((&mut slot.io, outbox))
    }

    /// What the kernel said to the last transmit.
    #[inline]
    pub(crate) fn handle_sent(&mut self, key: Key, sent: io::Result<usize>) {
        match sent {
            Ok(n) if n > 0 => self.written(key, n),
            Ok(_) => self.finish(key, CloseReason::Reset(ErrorKind::WriteZero.into()), Ending::Close),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.blocked(key),
            Err(error) if error.kind() == ErrorKind::Interrupted => self.interrupted(key),
            Err(error) => self.finish(key, CloseReason::Reset(error), Ending::Close),
        }
    }

    /// The next step of a session that is closing.
    pub(crate) fn poll_close(&mut self, key: Key) -> CloseStep<'_, T> {
        let Some(connection) = self.slots.get(key).map(|slot| &slot.connection) else {
            return CloseStep::None;
        };
        if connection.phase == Phase::Open || connection.queued() > 0 {
            return CloseStep::None;
        }
        if connection.marks.has(Mark::ENDED) {
            self.finish(key, CloseReason::Local, Ending::Close);
        } else if connection.phase == Phase::Draining {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.connection.linger(&mut self.turn);
                return CloseStep::ShutdownWrite(&mut slot.io);
            }
        }
        CloseStep::None
    }

    #[inline]
    fn written(&mut self, key: Key, n: usize) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let connection = &mut slot.connection;
        connection.traffic.bytes_out += n as u64;
        self.turn.counters.bytes_out += n as u64;
        let Some(outbox) = &mut connection.outbox else { return };
        outbox.advance(n, self.turn.now);
        let left = outbox.len();
        if left == 0 {
            if let Some(outbox) = connection.outbox.take() {
                self.turn.pool.put(outbox);
            }
        }
        if connection.halt.has(Halt::FULL) && left <= self.turn.limits.outbox_low {
            connection.halt.clear(Halt::FULL);
            connection.reading_resumed(&mut self.turn);
            if connection.phase == Phase::Open {
                connection.marks.insert(Mark::DRAINED);
                self.turn.settle_later(connection);
            }
        }
    }

    /// Not the kernel's refusal, but no reason to insist within this turn either.
    fn interrupted(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.connection.marks.insert(Mark::RETRY);
        self.turn.settle_later(&mut slot.connection);
    }

    fn blocked(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.connection.marks.insert(Mark::BLOCKED);
        if let Some(outbox) = &mut slot.connection.outbox {
            if let Some(buffer) = outbox.settle() {
                self.turn.pool.put_buffer(buffer);
            }
        }
        slot.connection.arm(&mut self.turn);
    }
}
