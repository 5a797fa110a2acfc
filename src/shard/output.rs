//! From outboxes to the kernel, and the steps of a close.

use std::io::{self, ErrorKind};

use super::{Ending, Visit};
use crate::{
    buffer::Outbox,
    error::CloseReason,
    framing::Framing,
    handler::PacketHandler,
    session::{Connection, Halt, Mark, Phase},
};

/// What was put off to the next look at a session.
const DUE: Mark =
    Mark::union(&[Mark::DIRTY, Mark::RETRY, Mark::CLOSING, Mark::ABORT, Mark::DRAINED, Mark::BROKEN]);
/// Bytes of replies that do not wait for more, as many as one read brings.
const REPLIES_THAT_WAIT: usize = 64 * 1024;

impl<H: PacketHandler, F: Framing, T> Visit<'_, H, F, T> {
    /// The kernel takes bytes again; whether some were waiting for that.
    #[inline]
    pub(crate) fn handle_writable(&mut self) -> bool {
        self.slot.connection.marks.remove(Mark::BLOCKED)
    }

    /// Whether the replies so far wait for those to the packets that the session still has to hand out, in the turns to come:
    /// one write for all that one read has brought, and not one for each share of it.
    #[inline]
    pub(crate) fn replies_wait(&self) -> bool {
        let Connection { marks, halt, outbox, .. } = &self.slot.connection;
        marks.has(Mark::BACKLOG)
            && marks.has(Mark::UNFINISHED)
            && !marks.has(DUE)
            && !halt.any()
            && self.is_alive()
            && outbox
                .as_ref()
                .is_none_or(|outbox| outbox.weight() < REPLIES_THAT_WAIT && outbox.blocked_since().is_none())
    }

    /// Before writing: what was put off to the end of the turn.
    #[inline]
    pub(crate) fn begin_settling(&mut self) {
        if !self.slot.connection.marks.has(DUE) {
            return;
        }
        self.slot.connection.marks.remove(Mark::DIRTY | Mark::RETRY);
        if self.slot.connection.marks.has(Mark::CLOSING) {
            self.tell_closing();
        }
        let marks = &mut self.slot.connection.marks;
        if marks.has(Mark::ABORT) {
            self.finish(CloseReason::Local, Ending::Reset);
        } else if marks.has(Mark::BROKEN) {
            self.settle_broken();
        } else if marks.remove(Mark::DRAINED) && !self.slot.connection.halt.has(Halt::FULL) {
            self.tell_drained();
        }
    }

    /// The socket and the bytes to write to it, if there are any and the kernel may take them.
    #[inline]
    pub(crate) fn poll_transmit(&mut self) -> Option<(&mut T, &Outbox)> {
        if !self.is_alive() || self.slot.connection.marks.has(Mark::BLOCKED | Mark::RETRY | Mark::BROKEN) {
            return None;
        }
        if self.slot.connection.outbox.as_ref()?.is_empty() {
            // What was to be sent had no frame, or one of no bytes: writing nothing would look like a broken connection.
            self.slot.connection.give_back_outbox(self.turn);
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
                self.slot.connection.marks.insert(Mark::RETRY);
                self.turn.settle_later(&mut self.slot.connection);
            }
            Err(error) => self.handle_broken(error),
        }
    }

    /// The connection has failed, which says nothing about what was received before: that is handed out first, where the
    /// handler takes it. A session that is paused ends at once, since nobody knows until when.
    #[cold]
    pub(crate) fn handle_broken(&mut self, error: io::Error) {
        let connection = &mut self.slot.connection;
        if connection.phase != Phase::Open || connection.halt.has(Halt::PAUSED) {
            self.handle_failed(error);
        } else if !connection.marks.has(Mark::BROKEN) {
            connection.break_down(CloseReason::Reset(error), self.turn);
        }
    }

    /// Ends a session whose connection has failed, unless there is still something to hand out.
    #[cold]
    fn settle_broken(&mut self) {
        let connection = &mut self.slot.connection;
        connection.discard_output(self.turn);
        let is_late =
            connection.close_by(self.turn.clock.lost()).is_some_and(|at| at <= self.turn.clock.now());
        let takes = connection.phase == Phase::Open && !connection.halt.has(Halt::PAUSED) && !is_late;
        if takes && connection.marks.has(Mark::READABLE | Mark::BACKLOG | Mark::ENDED) {
            self.turn.read_later(connection);
        } else {
            self.finish(CloseReason::Reset(ErrorKind::BrokenPipe.into()), Ending::Reset);
        }
    }

    /// The next step of a session that is closing: the socket on which to end our side of the stream.
    #[inline]
    pub(crate) fn poll_shutdown(&mut self) -> Option<&mut T> {
        let connection = &mut self.slot.connection;
        if connection.phase == Phase::Open || connection.queued() > 0 || !self.is_alive() {
            return None;
        }
        if self.slot.connection.marks.has(Mark::ENDED) {
            self.finish(CloseReason::Local, Ending::Close);
            return None;
        }
        if self.slot.connection.phase == Phase::Lingering {
            return None;
        }
        self.slot.connection.linger(self.turn);
        Some(&mut self.slot.io)
    }

    #[inline]
    fn handle_written(&mut self, n: usize) {
        let connection = &mut self.slot.connection;
        connection.traffic.bytes_out += n as u64;
        self.turn.counters.bytes_out += n as u64;
        let Some(outbox) = &mut connection.outbox else { return };
        outbox.advance(n);
        let left = outbox.weight();
        if left == 0 {
            if let Some(outbox) = connection.outbox.take() {
                self.turn.pool.put(outbox);
            }
        }
        if connection.halt.has(Halt::FULL) && left <= self.turn.limits.outbox_low {
            connection.lift(Halt::FULL, self.turn);
            if connection.phase == Phase::Open {
                connection.marks.insert(Mark::DRAINED);
                self.turn.settle_later(connection);
            }
        }
    }

    fn handle_blocked(&mut self) {
        self.slot.connection.marks.insert(Mark::BLOCKED);
        if let Some(outbox) = &mut self.slot.connection.outbox {
            outbox.block(self.turn.clock.deadline(0));
            if let Some(buffer) = outbox.settle() {
                self.turn.pool.put_buffer(buffer);
            }
        }
        self.slot.connection.arm(self.turn);
    }
}
