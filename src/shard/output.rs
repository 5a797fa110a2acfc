//! From outboxes to the kernel, and the steps of a close.

use std::io::{self, ErrorKind};

use super::{Ending, SessionAccess};
use crate::{
    error::CloseReason,
    framing::Framing,
    handler::PacketHandler,
    session::{Due, ShutdownStep, Transmit},
};

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// The kernel takes bytes again. Returns `true` if some were waiting for that.
    #[inline]
    pub(crate) fn handle_writable(&mut self) -> bool {
        self.slot.connection.handle_writable()
    }

    /// Returns `true` if the replies so far wait for those to the packets that the session still has to hand out.
    #[inline]
    pub(crate) fn replies_wait(&self) -> bool {
        self.slot.connection.replies_wait() && self.is_alive()
    }

    /// Before writing: what was put off to the end of the turn.
    #[inline]
    pub(crate) fn begin_flush(&mut self) {
        if self.slot.connection.begin_flush() {
            self.do_what_is_due();
        }
    }

    fn do_what_is_due(&mut self) {
        if self.slot.connection.is_closing_untold() {
            self.tell_closing();
        }
        match self.slot.connection.poll_due() {
            Some(Due::Abort) => self.terminate(CloseReason::Local, Ending::Reset),
            Some(Due::Broken) if self.slot.connection.outlives_break(self.core) => {}
            Some(Due::Broken) => {
                self.terminate(CloseReason::io(ErrorKind::BrokenPipe), Ending::Reset);
            }
            Some(Due::Drained) => self.tell_drained(),
            None => {}
        }
    }

    /// Returns the socket and the bytes to write to it, if there are any and the kernel may take them.
    #[inline]
    pub(crate) fn poll_transmit(&mut self) -> Option<(&mut T, Transmit<'_>)> {
        if self.slot.connection.is_layered() {
            self.fill_wire();
        }
        if !self.is_alive() {
            return None;
        }
        let transmit = self.slot.connection.poll_transmit(self.core)?;
        Some((&mut self.slot.io, transmit))
    }

    /// Returns the socket and the bytes to write to it, if writing them is all that is to be done.
    #[inline]
    pub(crate) fn poll_sole_transmit(&mut self) -> Option<(&mut T, &[u8])> {
        if !self.is_alive() {
            return None;
        }
        Some((&mut self.slot.io, self.slot.connection.poll_sole_transmit()?))
    }

    /// The kernel has taken all `n` bytes of the sole transmit.
    #[inline]
    pub(crate) fn handle_sole_sent(&mut self, n: usize) {
        self.slot.connection.handle_sole_sent(n, self.core);
    }

    /// Handles the kernel's result for the last transmit. Returns `true` if nothing is left to write.
    #[inline(always)]
    pub(crate) fn handle_sent(&mut self, sent: io::Result<usize>) -> bool {
        self.slot.connection.handle_sent(sent, self.core).unwrap_or_else(|error| {
            self.handle_broken(error);
            false
        })
    }

    /// The connection has failed: the session ends, when what was received before is handed out.
    #[cold]
    pub(crate) fn handle_broken(&mut self, error: io::Error) {
        if let Err(reason) = self.slot.connection.handle_broken(CloseReason::io(error), self.core) {
            self.terminate(reason, Ending::Close);
        }
    }

    /// The next step of a session that is closing: the socket on which to end our side of the stream.
    #[inline]
    pub(crate) fn poll_shutdown(&mut self) -> Option<&mut T> {
        if !self.is_alive() {
            return None;
        }
        match self.slot.connection.poll_shutdown(self.core)? {
            ShutdownStep::EndSide => Some(&mut self.slot.io),
            ShutdownStep::Over => {
                self.terminate(CloseReason::Local, Ending::Close);
                None
            }
        }
    }
}
