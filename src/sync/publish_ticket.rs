use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    shard_thread::is_on_a_shard,
    ticket::{Addressee, Completion},
};
use crate::{
    error::{Outcome, TicketError},
    id::SessionId,
};

/// Tells what became of a packet published with [`Channel::publish_tracked`](crate::Channel::publish_tracked), at each
/// member of the channel, or sent with [`ServerHandle::send_to_tracked`](crate::ServerHandle::send_to_tracked), at each
/// of the sessions. As a [`SendTicket`](crate::SendTicket), it is decided in any case.
///
/// ```
/// use std::time::Duration;
/// use framewire::{Channel, EncodeError, SessionId};
///
/// /// Publishes, and returns the members whose peers have not taken it within a second.
/// fn laggards(room: &Channel, news: &str) -> Result<Vec<SessionId>, EncodeError> {
///     let told = room.publish_tracked(news)?.wait_timeout(Duration::from_secs(1));
///     Ok(told.into_iter().filter(|(_, outcome)| outcome.is_err()).map(|(member, _)| member).collect())
/// }
/// ```
pub struct PublishTicket {
    state: Arc<PublishState>,
}

/// What the ticket and the packet share.
pub(super) struct PublishState {
    members: Vec<Member>,
    outcomes: Mutex<Outcomes>,
    changed: Condvar,
}

/// A session, and what knows why it was lost.
pub(crate) type Member = (SessionId, Arc<dyn Addressee>);

/// Invariant: `pending` is the number of places of `by_member` that are empty.
struct Outcomes {
    by_member: Vec<Option<Outcome>>,
    pending: usize,
}

impl PublishState {
    fn lock(&self) -> MutexGuard<'_, Outcomes> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the member with this number.
    pub(super) fn member(&self, at: u32) -> Option<&dyn Addressee> {
        self.members.get(at as usize).map(|(_, member)| &**member)
    }

    /// Tells what became of the packet at the member with this number, once.
    pub(super) fn decide(&self, at: u32, outcome: Outcome) {
        let mut outcomes = self.lock();
        let Some(place @ None) = outcomes.by_member.get_mut(at as usize) else { return };
        *place = Some(outcome);
        outcomes.pending -= 1;
        if outcomes.pending == 0 {
            self.changed.notify_all();
        }
    }
}

impl PublishTicket {
    /// Also returns what decides it, for each member in order.
    pub(crate) fn of(members: Vec<Member>) -> (Self, impl Iterator<Item = Completion>) {
        let count = members.len();
        let outcomes = Outcomes { by_member: vec![None; count], pending: count };
        let state =
            Arc::new(PublishState { members, outcomes: Mutex::new(outcomes), changed: Condvar::new() });
        let ticket = Self { state: state.clone() };
        // No channel has more members than a process has sessions.
        (ticket, (0..count as u32).map(move |at| Completion::of_member(state.clone(), at)))
    }

    /// Returns how many members the packet was published to.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.members.len()
    }

    /// Returns `true` if the channel had no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.state.members.iter().map(|(id, _)| *id)
    }

    /// Returns for how many members nothing is decided yet. Does not block.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.state.lock().pending
    }

    /// Returns what is known now of each member; `None` while the packet is on its way to it. Does not block.
    #[must_use]
    pub fn outcomes(&self) -> Vec<(SessionId, Option<Outcome>)> {
        let outcomes = self.state.lock().by_member.clone();
        self.ids().zip(outcomes).collect()
    }

    /// Waits until everything is decided, and returns what became of the packet at each member, in no particular order:
    /// the errors are those of [`SendTicket::wait`](crate::SendTicket::wait). Within callbacks and wherever else a shard
    /// runs it does not wait: what is not decided yet is [`TicketError::WouldDeadlock`].
    #[must_use]
    pub fn wait(&self) -> Vec<(SessionId, Outcome)> {
        self.wait_until(None, &TicketError::WouldDeadlock)
    }

    /// As [`wait`](Self::wait), at most for that time: what is not decided then is [`TicketError::TimedOut`].
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "it waits on a thread that is not the server's")]
    pub fn wait_timeout(&self, within: Duration) -> Vec<(SessionId, Outcome)> {
        // A deadline beyond the range of the clock is for ever.
        self.wait_until(Instant::now().checked_add(within), &TicketError::TimedOut(within))
    }

    #[expect(clippy::disallowed_methods, reason = "it waits on a thread that is not the server's")]
    fn wait_until(&self, deadline: Option<Instant>, late: &TicketError) -> Vec<(SessionId, Outcome)> {
        let may_wait = !is_on_a_shard();
        let mut outcomes = self.state.lock();
        while outcomes.pending > 0 && may_wait {
            let changed = &self.state.changed;
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            outcomes = match left {
                None => changed.wait(outcomes).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => changed.wait_timeout(outcomes, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        let late = if may_wait { late } else { &TicketError::WouldDeadlock };
        let outcome = |known: &Option<Outcome>| known.clone().unwrap_or_else(|| Err(late.clone()));
        self.ids().zip(outcomes.by_member.iter().map(outcome)).collect()
    }
}

impl fmt::Debug for PublishTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishTicket")
            .field("members", &self.len())
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::{CloseKind, SendError},
        id::{Key, ServerNumber, ShardId},
        sync::{DeferredAnswers, Gone},
    };

    #[test]
    fn each_member_is_told_of_once_and_the_last_one_ends_the_wait() {
        let server = ServerNumber::next();
        let id = |slot| server.id(ShardId(0), Key { slot, generation: 0 });
        let members = (0..3).map(|slot| (id(slot), Arc::<Gone>::default() as Arc<dyn Addressee>)).collect();
        let (ticket, completions) = PublishTicket::of(members);
        let mut completions = completions.into_iter();
        let mut next = || completions.next().expect("there are three");
        let (first, second, third) = (next(), next(), next());
        assert!(completions.next().is_none());
        first.written();
        second.refused(SendError::Full { queued: 1, limit: 1 });
        let known: Vec<bool> = ticket.outcomes().iter().map(|(_, known)| known.is_some()).collect();
        assert_eq!((known, ticket.len(), ticket.pending()), (vec![true, true, false], 3, 1));
        let late = ticket.wait_timeout(Duration::ZERO);
        assert_eq!(
            late.get(2).map(|(_, outcome)| outcome),
            Some(&Err(TicketError::TimedOut(Duration::ZERO)))
        );
        let within = DeferredAnswers::default().during(|| ticket.wait());
        assert_eq!(within.get(2).map(|(_, outcome)| outcome), Some(&Err(TicketError::WouldDeadlock)));
        assert_eq!(within.first().map(|(_, outcome)| outcome), Some(&Ok(())));
        let waiter = std::thread::spawn(move || ticket.wait());
        drop(third);
        let told: Vec<Outcome> =
            waiter.join().expect("it does not panic").into_iter().map(|(_, outcome)| outcome).collect();
        let refused = Err(TicketError::Refused(SendError::Full { queued: 1, limit: 1 }));
        assert_eq!(told, [Ok(()), refused, Err(TicketError::Closed(CloseKind::Local))]);
    }

    #[test]
    fn without_members_nothing_is_waited_for() {
        let (ticket, mut completions) = PublishTicket::of(Vec::new());
        assert!(completions.next().is_none() && ticket.is_empty());
        assert_eq!((ticket.wait(), ticket.pending()), (Vec::new(), 0));
    }
}
