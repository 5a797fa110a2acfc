use std::time::{Duration, Instant};

use crate::{
    encode::Encode,
    error::SendError,
    session::SessionHandle,
    sync::{Prospect, Waited, is_on_a_shard},
};

impl SessionHandle {
    /// Sends a packet as [`send`](Self::send) does, but where that would return [`SendError::Full`] or
    /// [`SendError::MailboxFull`], waits until there is room, at most `within` that time. This is how a thread with much
    /// to send goes as fast as the peer reads. The value is encoded once, and `Ok` means that the packet was queued.
    ///
    /// It blocks, so it is for threads of your own. Threads that wait for room are woken together when there is some, and
    /// packets of other threads may take it first: a large packet may wait longer than small ones.
    ///
    /// ```
    /// use std::{io::{self, Read}, time::Duration};
    /// use framewire::SessionHandle;
    ///
    /// /// Sends a file of any size, without more of it in memory than the outbox may hold.
    /// fn send_file(session: &SessionHandle, mut file: impl Read) -> io::Result<()> {
    ///     let mut part = vec![0; 16 * 1024];
    ///     loop {
    ///         let len = file.read(&mut part)?;
    ///         if len == 0 {
    ///             return Ok(());
    ///         }
    ///         let part = part.get(..len).unwrap_or_default();
    ///         session.send_waiting(part, Duration::from_secs(60)).map_err(io::Error::other)?;
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// - [`SendError::WouldDeadlock`], even if there is room, within callbacks and wherever else a shard runs: it would
    ///   wait for itself.
    /// - [`SendError::Full`] or [`SendError::MailboxFull`] if there was no room in time; at once, if the packet exceeds
    ///   the limit by itself.
    /// - [`SendError::Closed`] if the session closes, also meanwhile.
    /// - [`SendError::Encode`] if the value cannot be encoded.
    #[expect(clippy::disallowed_methods, reason = "it waits on a thread that is not the server's")]
    pub fn send_waiting(&self, packet: impl Encode, within: Duration) -> Result<(), SendError> {
        if is_on_a_shard() {
            return Err(SendError::WouldDeadlock);
        }
        let payload = self.payload_of(packet)?;
        // A deadline beyond the range of the clock is for ever.
        let deadline = Instant::now().checked_add(within);
        let room = self.handle_state.shard.room();
        loop {
            let seen = room.seen();
            let Err(unsent) = self.post(payload.clone(), None, None) else { return Ok(()) };
            match self.prospect(&unsent.error, payload.len()) {
                Prospect::Never => return Err(unsent.error),
                // Others may take it again and again.
                Prospect::Now if deadline.is_none_or(|at| Instant::now() < at) => continue,
                Prospect::Now => return Err(unsent.error),
                Prospect::Later => {}
            }
            match room.wait(seen, deadline) {
                Waited::Freed => {}
                Waited::TimedOut => return Err(unsent.error),
                Waited::Ended => return Err(SendError::Closed),
            }
        }
    }

    /// Asks to be woken when there is room where a packet of so many bytes was refused, if there may ever be.
    fn prospect(&self, error: &SendError, bytes: usize) -> Prospect {
        let state = &self.handle_state;
        match error {
            SendError::MailboxFull { .. } => state.shard.await_room(bytes),
            SendError::Full { limit, .. } => {
                let reserved = state.reserved_for(bytes);
                if reserved > *limit {
                    Prospect::Never
                } else if state.quota.await_room(reserved, *limit) && self.is_open() {
                    Prospect::Later
                } else {
                    Prospect::Now
                }
            }
            _ => Prospect::Never,
        }
    }
}
