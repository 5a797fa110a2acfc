//! The fate of one packet: written to the kernel, or not.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    publish_ticket::PublishState,
    shard_thread::{defer, is_on_a_shard},
};
use crate::{
    contained::{Contained, guard},
    error::{CloseKind, CloseReason, Outcome, SendError, TicketError},
    framing::EncodeError,
};

/// Tells what became of a packet sent with
/// [`SessionHandle::send_tracked`](crate::SessionHandle::send_tracked).
///
/// "Written" means that the kernel has taken all of it; only a reply shows that the peer's program has read it. Every
/// ticket is decided, at the latest when the session is over: however the session or its server ends.
///
/// ```
/// use std::time::Duration;
/// use framewire::{SessionHandle, TicketError};
///
/// /// Sends, and waits at most a second for the kernel to take it.
/// fn deliver(session: &SessionHandle, packet: &[u8]) -> Result<(), String> {
///     let ticket = session.send_tracked(packet).map_err(|error| format!("not queued: {error}"))?;
///     match ticket.wait_timeout(Duration::from_secs(1)) {
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

struct TicketState {
    decided: Mutex<Option<Outcome>>,
    changed: Condvar,
    session: Arc<dyn Addressee>,
}

/// The session that a packet is for.
pub(crate) trait Addressee: Send + Sync {
    /// Returns why what was to be written to the session is lost.
    fn loss(&self) -> TicketError;

    /// Logs and counts a panic of a closure that was given with a packet.
    fn report_panic(&self, panic: &CloseReason);

    /// The packet has come to its session, which was known by its id only. Ignored where more was known.
    fn meet(&self, _session: &mut dyn FnMut() -> Arc<dyn Addressee>) {}
}

impl TicketState {
    fn lock(&self) -> MutexGuard<'_, Option<Outcome>> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, outcome: Outcome) {
        self.lock().get_or_insert(outcome);
        self.changed.notify_all();
    }
}

impl SendTicket {
    /// The other end is kept beside the packet.
    pub(crate) fn pair(session: Arc<dyn Addressee>) -> (Self, Completion) {
        let fate = Arc::new(TicketState { decided: Mutex::new(None), changed: Condvar::new(), session });
        (Self { fate: fate.clone() }, Completion(Some(Recipient::Ticket(fate))))
    }

    /// Waits until the packet was written or is known to be lost. It blocks for as long as that takes: a session whose
    /// peer does not read is closed after [`Limits::stall_timeout`](crate::Limits::stall_timeout) (30 s by default).
    ///
    /// # Errors
    /// - [`TicketError::Closed`] if the session ended first.
    /// - [`TicketError::Refused`] if the shard could not queue the packet.
    /// - [`TicketError::WouldDeadlock`], whatever is known, within callbacks and wherever else a shard runs: it would
    ///   wait for itself. [`outcome`](Self::outcome) does not wait.
    pub fn wait(&self) -> Outcome {
        self.wait_until(None).unwrap_or(Err(TicketError::WouldDeadlock))
    }

    /// As [`wait`](Self::wait), at most for that time.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait), and [`TicketError::TimedOut`] if nothing was decided `within` that time; the packet
    /// may still be written.
    #[expect(clippy::disallowed_methods, reason = "it waits on a thread that is not the server's")]
    pub fn wait_timeout(&self, within: Duration) -> Outcome {
        // A deadline beyond the range of the clock is for ever.
        let deadline = Instant::now().checked_add(within);
        self.wait_until(deadline).unwrap_or(Err(TicketError::TimedOut(within)))
    }

    /// Returns `None` if the deadline has passed.
    #[expect(clippy::disallowed_methods, reason = "it waits on a thread that is not the server's")]
    fn wait_until(&self, deadline: Option<Instant>) -> Option<Outcome> {
        if is_on_a_shard() {
            return Some(Err(TicketError::WouldDeadlock));
        }
        let mut decided = self.fate.lock();
        loop {
            if let Some(outcome) = &*decided {
                return Some(outcome.clone());
            }
            let changed = &self.fate.changed;
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            decided = match left {
                None => changed.wait(decided).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return None,
                Some(left) => changed.wait_timeout(decided, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// Returns what is known now; `None` while the packet is on its way. Does not block.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.fate.lock().clone()
    }
}

impl fmt::Debug for SendTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendTicket").field("outcome", &self.outcome()).finish()
    }
}

/// Decides the fate of a packet exactly once. If it is dropped undecided, the packet was lost with its session.
pub(crate) struct Completion(Option<Recipient>);

/// Who is told.
enum Recipient {
    Ticket(Arc<TicketState>),
    Call(Box<Call>),
    /// The ticket of many, as the member with this number.
    Member(Arc<PublishState>, u32),
}

/// A closure to call with the fate of a packet.
pub(crate) type Done = Box<dyn FnOnce(Outcome) + Send>;

struct Call {
    done: Contained<Done>,
    session: Arc<dyn Addressee>,
}

/// A closure that is to be called, and what with.
pub(crate) struct Answer {
    call: Box<Call>,
    outcome: Outcome,
}

impl Completion {
    /// Calls the closure: at the end of the turn if that is on a shard's thread, at once on any other.
    pub(crate) fn calling(done: Done, session: Arc<dyn Addressee>) -> Self {
        Self(Some(Recipient::Call(Box::new(Call { done: Contained::new(done), session }))))
    }

    /// For the member with this number.
    pub(super) fn of_member(state: Arc<PublishState>, at: u32) -> Self {
        Self(Some(Recipient::Member(state, at)))
    }

    /// The packet has come to this session.
    pub(crate) fn meet(&self, session: &mut dyn FnMut() -> Arc<dyn Addressee>) {
        if let Some(addressee) = self.0.as_ref().and_then(Recipient::session) {
            addressee.meet(session);
        }
    }

    pub(crate) fn written(self) {
        self.decide(Ok(()));
    }

    pub(crate) fn refused(self, error: SendError) {
        match error {
            // It knows the reason.
            SendError::Closed => drop(self),
            error => self.decide(Err(TicketError::Refused(error))),
        }
    }

    /// Calls what encodes the packet. If that fails or panics, this is told.
    ///
    /// # Errors
    /// What `encode` returned.
    pub(crate) fn encoding<R>(
        self,
        encode: impl FnOnce() -> Result<R, SendError>,
    ) -> Result<(R, Self), SendError> {
        match catch_unwind(AssertUnwindSafe(encode)) {
            Ok(Ok(encoded)) => Ok((encoded, self)),
            Ok(Err(error)) => {
                self.refused(error.clone());
                Err(error)
            }
            Err(panic) => {
                self.refused(EncodeError::because("its code panicked").into());
                resume_unwind(panic)
            }
        }
    }

    /// The packet was dropped, as its sender allowed.
    pub(crate) fn dropped(self) {
        self.decide(Err(TicketError::Dropped));
    }

    fn decide(mut self, outcome: Outcome) {
        if let Some(recipient) = self.0.take() {
            recipient.decide(outcome);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(recipient) = self.0.take() {
            let loss = recipient.session().map(Addressee::loss);
            recipient.decide(Err(loss.unwrap_or(TicketError::Closed(CloseKind::Shutdown))));
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Completion")
    }
}

impl Recipient {
    fn session(&self) -> Option<&dyn Addressee> {
        match self {
            Self::Ticket(fate) => Some(&*fate.session),
            Self::Call(call) => Some(&*call.session),
            Self::Member(publish, at) => publish.member(*at),
        }
    }

    fn decide(self, outcome: Outcome) {
        match self {
            Self::Ticket(fate) => fate.decide(outcome),
            Self::Member(publish, at) => publish.decide(at, outcome),
            Self::Call(call) => {
                if let Some(answer) = defer(Answer { call, outcome }) {
                    answer.give();
                }
            }
        }
    }
}

impl Answer {
    /// Calls the closure. A panic in it is logged and counted.
    pub(super) fn give(self) {
        let Call { done, session } = *self.call;
        let given = guard("send_then", || {
            (done.into_inner())(self.outcome);
            Ok::<_, CloseReason>(())
        });
        if let Err(panic) = given {
            session.report_panic(&panic);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        panic::resume_unwind,
        sync::atomic::{AtomicU32, Ordering::Relaxed},
        thread,
    };

    use super::*;
    use crate::sync::shard_thread::{DeferredAnswers, give_answers, has_answers_left};

    /// A session that was aborted by this side, and counts panics.
    #[derive(Default)]
    pub(crate) struct Gone(AtomicU32);

    impl Addressee for Gone {
        fn loss(&self) -> TicketError {
            TicketError::Closed(CloseKind::Local)
        }

        fn report_panic(&self, _: &CloseReason) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn pair() -> (SendTicket, Completion) {
        SendTicket::pair(Arc::<Gone>::default())
    }

    const LOST: Outcome = Err(TicketError::Closed(CloseKind::Local));

    #[test]
    fn a_ticket_is_decided_once_and_for_every_waiter() {
        let (ticket, completion) = pair();
        assert_eq!(ticket.outcome(), None);
        assert_eq!(ticket.wait_timeout(Duration::ZERO), Err(TicketError::TimedOut(Duration::ZERO)));
        completion.written();
        assert_eq!((ticket.wait(), ticket.wait_timeout(Duration::ZERO)), (Ok(()), Ok(())));
        assert_eq!(ticket.outcome(), Some(Ok(())));
    }

    #[test]
    fn a_completion_that_is_dropped_tells_why_the_session_closed() {
        let (ticket, completion) = pair();
        let waiter = thread::spawn(move || (ticket.wait(), ticket));
        drop(completion);
        assert_eq!(waiter.join().ok().map(|(outcome, _)| outcome), Some(LOST));
        let (ticket, completion) = pair();
        completion.refused(SendError::Closed);
        assert_eq!(ticket.outcome(), Some(LOST));
    }

    #[test]
    fn who_runs_a_shard_does_not_wait() {
        let (ticket, completion) = pair();
        let mut answers = DeferredAnswers::default();
        assert_eq!(answers.during(|| ticket.wait()), Err(TicketError::WouldDeadlock));
        completion.written();
        let both = answers.during(|| (ticket.wait_timeout(Duration::ZERO), ticket.outcome()));
        assert_eq!(both, (Err(TicketError::WouldDeadlock), Some(Ok(()))));
        assert_eq!(ticket.wait(), Ok(()), "outside of the turn");
    }

    /// A closure that notes each outcome, and a completion that calls it.
    fn calling(notes: &Arc<Mutex<Vec<Outcome>>>) -> Completion {
        let notes = notes.clone();
        let note = move |outcome| notes.lock().expect("no panic holds it").push(outcome);
        Completion::calling(Box::new(note), Arc::<Gone>::default())
    }

    #[test]
    fn a_closure_is_called_once_at_the_end_of_the_turn() {
        let notes = Arc::<Mutex<Vec<Outcome>>>::default();
        let noted = || notes.lock().expect("no panic holds it").clone();
        let (written, lost) = (calling(&notes), calling(&notes));
        let mut answers = DeferredAnswers::default();
        answers.during(|| {
            written.written();
            drop(lost);
            assert_eq!(noted(), []);
        });
        assert_eq!(noted(), [Ok(()), LOST]);
        answers.during(|| ());
        drop(answers);
        calling(&notes).written();
        assert_eq!(noted(), [Ok(()), LOST, Ok(())], "at once on another thread");
    }

    #[test]
    fn what_becomes_due_meanwhile_is_answered_in_the_next_turn() {
        let notes = Arc::<Mutex<Vec<Outcome>>>::default();
        let next = calling(&notes);
        let first = Completion::calling(Box::new(move |_| next.written()), Arc::<Gone>::default());
        let mut answers = DeferredAnswers::default();
        answers.during(|| drop(first));
        assert_eq!(notes.lock().map(|notes| notes.len()).ok(), Some(0));
        answers.during(|| ());
        assert_eq!(notes.lock().map(|notes| notes.len()).ok(), Some(1));
    }

    #[test]
    fn of_several_turns_each_gives_its_answers_at_its_own_end() {
        let notes = Arc::<Mutex<Vec<Outcome>>>::default();
        let given = || notes.lock().map(|notes| notes.len()).ok();
        let next = calling(&notes);
        let first = Completion::calling(Box::new(move |_| next.written()), Arc::<Gone>::default());
        let second = calling(&notes);
        let mut answers = DeferredAnswers::default();
        answers.during(|| {
            drop((first, second));
            assert_eq!(given(), Some(0));
            give_answers();
            assert_eq!(given(), Some(1), "what the first closure has made due is left to the next turn");
            assert!(has_answers_left(), "so the poll of the next turn does not wait");
            give_answers();
            assert_eq!(given(), Some(2));
            assert!(!has_answers_left() && is_on_a_shard());
        });
        assert!(answers.is_empty() && !is_on_a_shard());
    }

    #[test]
    fn a_panic_in_a_closure_is_counted_and_the_others_are_called() {
        let (session, notes) = (Arc::<Gone>::default(), Arc::<Mutex<Vec<Outcome>>>::default());
        let bomb = || Completion::calling(Box::new(|_| resume_unwind(Box::new("boom"))), session.clone());
        let (first, second) = (bomb(), calling(&notes));
        DeferredAnswers::default().during(|| drop((first, second)));
        drop(bomb());
        assert_eq!(session.0.load(Relaxed), 2);
        assert_eq!(notes.lock().map(|notes| notes.len()).ok(), Some(1));
    }

    #[test]
    fn a_turn_that_panics_gives_its_answers_all_the_same() {
        let notes = Arc::<Mutex<Vec<Outcome>>>::default();
        let lost = calling(&notes);
        let turn = || {
            DeferredAnswers::default().during(|| {
                drop(lost);
                resume_unwind(Box::new("boom"))
            })
        };
        assert!(thread::scope(|scope| scope.spawn(turn).join()).is_err());
        assert_eq!(notes.lock().map(|notes| notes.len()).ok(), Some(1));
        assert!(!is_on_a_shard());
    }
}
