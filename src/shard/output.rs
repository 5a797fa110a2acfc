//! From outboxes to the kernel, and the steps of a close.

use std::io::{self, ErrorKind};

use super::{Ending, SessionAccess};
use crate::{
    buffer::Outbox,
    error::CloseReason,
    framing::Framing,
    handler::PacketHandler,
    session::{Connection, Flags, Phase, ReadBlock},
};

/// What was put off to the next look at a session.
const DUE: Flags =
    Flags::union(&[Flags::DIRTY, Flags::RETRY, Flags::CLOSING, Flags::ABORT, Flags::DRAINED, Flags::BROKEN]);
/// Bytes of replies that do not wait for more, as many as one read brings.
const REPLIES_THAT_WAIT: usize = 64 * 1024;

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// The kernel takes bytes again; whether some were waiting for that.
    #[inline]
    pub(crate) fn handle_writable(&mut self) -> bool {
        self.slot.connection.flags.remove(Flags::BLOCKED)
    }

    /// Whether the replies so far wait for those to the packets that the session still has to hand out, in the turns to come:
    /// one write for all that one read has brought, and not one for each share of it.
    #[inline]
    pub(crate) fn replies_wait(&self) -> bool {
        let Connection { flags, read_block, outbox, .. } = &self.slot.connection;
        flags.has(Flags::BACKLOG)
            && flags.has(Flags::UNFINISHED)
            && !flags.has(DUE)
            && !read_block.any()
            && self.is_alive()
            && outbox
                .as_ref()
                .is_none_or(|outbox| outbox.weight() < REPLIES_THAT_WAIT && outbox.blocked_since().is_none())
    }

    /// Before writing: what was put off to the end of the turn.
    #[inline]
    pub(crate) fn begin_flush(&mut self) {
        if !self.slot.connection.flags.has(DUE) {
            return;
        }
        self.slot.connection.flags.remove(Flags::DIRTY | Flags::RETRY);
        if self.slot.connection.flags.has(Flags::CLOSING) {
            self.tell_closing();
        }
        let flags = &mut self.slot.connection.flags;
        if flags.has(Flags::ABORT) {
            self.terminate(CloseReason::Local, Ending::Reset);
        } else if flags.has(Flags::BROKEN) {
            self.end_broken();
        } else if flags.remove(Flags::DRAINED) && !self.slot.connection.read_block.has(ReadBlock::FULL) {
            self.tell_drained();
        }
    }

    /// The socket and the bytes to write to it, if there are any and the kernel may take them.
    #[inline]
    pub(crate) fn poll_transmit(&mut self) -> Option<(&mut T, &Outbox)> {
        if !self.is_alive() || self.slot.connection.flags.has(Flags::BLOCKED | Flags::RETRY | Flags::BROKEN) {
            return None;
        }
        if self.slot.connection.outbox.as_ref()?.is_empty() {
            // What was to be sent had no frame, or one of no bytes: writing nothing would look like a broken connection.
            self.slot.connection.give_back_outbox(self.core);
        }
        let outbox = self.slot.connection.outbox.as_deref()?;
        Some((&mut self.slot.io, outbox))
    }

    /// What the kernel said to the last transmit.
    #[inline]
    pub(crate) fn handle_sent(&mut self, sent: io::Result<usize>) {
        match sent {
            Ok(n) if n > 0 => self.handle_written(n),
            Ok(_) => self.handle_broken(ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.handle_blocked(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                // Not the kernel's refusal, but no reason to insist within this turn either.
                self.slot.connection.flags.insert(Flags::RETRY);
                self.core.flush_later(&mut self.slot.connection);
            }
            Err(error) => self.handle_broken(error),
        }
    }

    /// The connection has failed, which says nothing about what was received before: that is handed out first, where the
    /// handler takes it. A session that is paused ends at once, since nobody knows until when.
    #[cold]
    pub(crate) fn handle_broken(&mut self, error: io::Error) {
        let connection = &mut self.slot.connection;
        if connection.phase != Phase::Open || connection.read_block.has(ReadBlock::PAUSED) {
            self.handle_failed(error);
        } else if !connection.flags.has(Flags::BROKEN) {
            connection.break_down(CloseReason::Io(error), self.core);
        }
    }

    /// Ends a session whose connection has failed, unless there is still something to hand out.
    #[cold]
    fn end_broken(&mut self) {
        let connection = &mut self.slot.connection;
        connection.discard_output(self.core);
        let is_late =
            connection.close_by(self.core.clock.lost()).is_some_and(|at| at <= self.core.clock.now());
        let takes =
            connection.phase == Phase::Open && !connection.read_block.has(ReadBlock::PAUSED) && !is_late;
        if takes && connection.flags.has(Flags::READABLE | Flags::BACKLOG | Flags::ENDED) {
            self.core.read_later(connection);
        } else {
            self.terminate(CloseReason::Io(ErrorKind::BrokenPipe.into()), Ending::Reset);
        }
    }

    /// The next step of a session that is closing: the socket on which to end our side of the stream.
    #[inline]
    pub(crate) fn poll_shutdown(&mut self) -> Option<&mut T> {
        let connection = &mut self.slot.connection;
        if connection.phase == Phase::Open || connection.queued() > 0 || !self.is_alive() {
            return None;
        }
        if self.slot.connection.flags.has(Flags::ENDED) {
            self.terminate(CloseReason::Local, Ending::Close);
            return None;
        }
        if self.slot.connection.phase == Phase::Lingering {
            return None;
        }
        self.slot.connection.linger(self.core);
        Some(&mut self.slot.io)
    }

    #[inline]
    fn handle_written(&mut self, n: usize) {
        let connection = &mut self.slot.connection;
        connection.traffic.bytes_out += n as u64;
        self.core.counters.bytes_out += n as u64;
        let Some(outbox) = &mut connection.outbox else { return };
        outbox.advance(n);
        let left = outbox.weight();
        if left == 0 {
            if let Some(outbox) = connection.outbox.take() {
                self.core.pool.put(outbox);
            }
        }
        if connection.read_block.has(ReadBlock::FULL) && left <= self.core.limits.outbox_low {
            connection.lift(ReadBlock::FULL, self.core);
            if connection.phase == Phase::Open {
                connection.flags.insert(Flags::DRAINED);
                self.core.flush_later(connection);
            }
        }
    }

    fn handle_blocked(&mut self) {
        self.slot.connection.flags.insert(Flags::BLOCKED);
        if let Some(outbox) = &mut self.slot.connection.outbox {
            outbox.block(self.core.clock.deadline(0));
            if let Some(buffer) = outbox.settle() {
                self.core.pool.put_buffer(buffer);
            }
        }
        self.slot.connection.arm(self.core);
    }
}
