//! The fate of one packet: written to the kernel, or not.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::error::{SendError, TicketError};

/// Tells what became of a packet sent with
/// [`SessionHandle::send_tracked`](crate::SessionHandle::send_tracked).
///
/// "Written" means that the kernel has taken all of it; only a reply shows that the peer's program has read it.
///
/// ```
/// use std::time::Duration;
/// use framewire::{SendError, SessionHandle, TicketError};
///
/// /// Sends, and waits at most a second for the kernel to take it.
/// fn deliver(session: &SessionHandle, packet: &[u8]) -> Result<(), String> {
///     let ticket = session.send_tracked(packet).map_err(|error| format!("not queued: {error}"))?;
///     match ticket.wait(Duration::from_secs(1)) {
///         Ok(()) => Ok(()),
///         Err(TicketError::TimedOut(_)) => Err("still on its way".to_owned()),
///         Err(error) => Err(format!("lost: {error}")),
///     }
/// }
/// ```
pub struct SendTicket {
    fate: Arc<TicketState>,
}

/// What a tracked packet costs until its ticket is decided, in bytes: a place in the outbox, and what both ends of the
/// ticket share.
pub(crate) const TICKET: usize = 128;
const _: () =
    assert!(size_of::<TicketState>() + 2 * size_of::<usize>() + 2 * size_of::<(u64, Completion)>() <= TICKET);

#[derive(Default)]
struct TicketState {
    decided: Mutex<Option<Result<(), TicketError>>>,
    changed: Condvar,
}

impl TicketState {
    fn lock(&self) -> MutexGuard<'_, Option<Result<(), TicketError>>> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, outcome: Result<(), TicketError>) {
        self.lock().get_or_insert(outcome);
        self.changed.notify_all();
    }
}

impl SendTicket {
    /// The other end is kept beside the packet.
    pub(crate) fn pair() -> (Self, Completion) {
        let fate = Arc::<TicketState>::default();
        (Self { fate: fate.clone() }, Completion { fate: Some(fate) })
    }

    /// Waits until the packet has been written, at most `timeout`. It blocks: do not call it in a callback, where the
    /// shard would wait for itself.
    ///
    /// # Errors
    /// [`TicketError::Closed`] if the session ended first, [`TicketError::Refused`] if the shard could not queue the
    /// packet, [`TicketError::TimedOut`] if neither that nor the writing has happened within `timeout`.
    #[expect(clippy::disallowed_methods, reason = "it waits on a thread that is not the server's")]
    pub fn wait(&self, timeout: Duration) -> Result<(), TicketError> {
        let deadline = Instant::now().checked_add(timeout);
        let mut decided = self.fate.lock();
        loop {
            if let Some(outcome) = &*decided {
                return outcome.clone();
            }
            let left =
                deadline.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(TicketError::TimedOut(timeout));
            }
            let waited = self.fate.changed.wait_timeout(decided, left);
            decided = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns what is known now; `None` while the packet is on its way. Does not block.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<(), TicketError>> {
        self.fate.lock().clone()
    }
}

impl fmt::Debug for SendTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendTicket").field("outcome", &self.outcome()).finish()
    }
}

/// Decides a ticket exactly once. If it is dropped undecided, the packet was lost with its session.
pub(crate) struct Completion {
    fate: Option<Arc<TicketState>>,
}

impl Completion {
    pub(crate) fn written(mut self) {
        if let Some(fate) = self.fate.take() {
            fate.decide(Ok(()));
        }
    }

    pub(crate) fn refused(mut self, error: SendError) {
        if let Some(fate) = self.fate.take() {
            let outcome = match error {
                SendError::Closed => TicketError::Closed,
                other => TicketError::Refused(other),
            };
            fate.decide(Err(outcome));
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(fate) = self.fate.take() {
            fate.decide(Err(TicketError::Closed));
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Completion")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_decided_once_and_for_every_waiter() {
        let (ticket, completion) = SendTicket::pair();
        assert_eq!(ticket.outcome(), None);
        assert_eq!(ticket.wait(Duration::ZERO), Err(TicketError::TimedOut(Duration::ZERO)));
        completion.written();
        assert_eq!(ticket.wait(Duration::ZERO), Ok(()));
        assert_eq!(ticket.outcome(), Some(Ok(())));
    }

    #[test]
    fn a_completion_that_is_dropped_tells_that_the_session_closed() {
        let (ticket, completion) = SendTicket::pair();
        let waiter = std::thread::spawn(move || ticket.wait(Duration::from_secs(60)));
        drop(completion);
        assert_eq!(waiter.join().ok(), Some(Err(TicketError::Closed)));
    }
}
