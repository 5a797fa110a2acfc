//! Dials that wait for an answer of the gateway.

use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use super::{DialNumber, VirtualDialError};

/// Dials of one link that may wait.
pub(super) const MOST: usize = 1024;
/// IDs that are kept for the next dial, because theirs came too late.
const SPARE: usize = 16;

pub(super) type Done = Box<dyn FnOnce(Result<(), VirtualDialError>) + Send>;

/// A dial. If it is dropped, its closure is told that the endpoint could not take it.
pub(super) struct PendingDial {
    pub(super) number: DialNumber,
    pub(super) remote: u32,
    within: Duration,
    deadline: Instant,
    done: Option<Done>,
}

impl PendingDial {
    pub(super) fn new(number: DialNumber, remote: u32, within: Duration, done: Done) -> Self {
        let now = Instant::now();
        // A deadline beyond the range of the clock is as good as a year.
        let deadline = now.checked_add(within).unwrap_or(now + Duration::from_secs(365 * 86_400));
        Self { number, remote, within, deadline, done: Some(done) }
    }

    /// Tells how it has ended.
    pub(super) fn end(mut self, how: Result<(), VirtualDialError>) {
        self.tell(how);
    }

    fn tell(&mut self, how: Result<(), VirtualDialError>) {
        let Some(done) = self.done.take() else { return };
        if catch_unwind(AssertUnwindSafe(|| done(how))).is_err() {
            tracing::error!(remote = self.remote, "the closure of a dial panicked");
        }
    }
}

impl Drop for PendingDial {
    fn drop(&mut self) {
        self.tell(Err(VirtualDialError::Busy));
    }
}

/// The dials of one link.
#[derive(Default)]
pub(super) struct Pending {
    /// Those that wait for an ID.
    asked: VecDeque<PendingDial>,
    /// Those that wait to be accepted, by their IDs; `None`: it was given up, and its answer is still to come.
    dialed: HashMap<u32, Option<PendingDial>>,
    spare: Vec<u32>,
}

/// What an Accept is for.
pub(super) enum Accepted {
    /// A connection that the other side has dialed.
    Theirs,
    Ours(PendingDial),
    /// A dial that was given up.
    Abandoned,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.asked.len() + self.dialed.len()
    }

    /// Begins a dial. Returns the ID to be dialed, if there is one already.
    pub(super) fn begin(&mut self, dial: PendingDial) -> Option<(u32, u32)> {
        self.asked.push_back(dial);
        let conn = self.spare.pop()?;
        self.opened(conn)
    }

    /// The gateway has given an ID. Returns what is to be dialed with it.
    pub(super) fn opened(&mut self, conn: u32) -> Option<(u32, u32)> {
        let Some(dial) = self.asked.pop_front() else {
            if self.spare.len() < SPARE {
                self.spare.push(conn);
            }
            return None;
        };
        let remote = dial.remote;
        self.dialed.insert(conn, Some(dial));
        Some((conn, remote))
    }

    pub(super) fn accepted(&mut self, conn: u32) -> Accepted {
        match self.dialed.remove(&conn) {
            None => Accepted::Theirs,
            Some(Some(dial)) => Accepted::Ours(dial),
            Some(None) => Accepted::Abandoned,
        }
    }

    /// Returns the dial that was refused, unless it was given up.
    pub(super) fn refused(&mut self, conn: u32) -> Option<PendingDial> {
        self.dialed.remove(&conn)?
    }

    /// Gives up those whose time has come. Returns the time until the next.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Duration> {
        let is_due = |dial: &PendingDial| dial.deadline <= now;
        let asked = std::mem::take(&mut self.asked);
        let (due, left): (Vec<_>, Vec<_>) = asked.into_iter().partition(is_due);
        self.asked = left.into();
        let dialed = self.dialed.values_mut().filter(|dial| dial.as_ref().is_some_and(is_due));
        let due = due.into_iter().chain(dialed.filter_map(Option::take)).collect::<Vec<_>>();
        for dial in due {
            let within = dial.within;
            dial.end(Err(VirtualDialError::TimedOut(within)));
        }
        let waiting = self.asked.iter().chain(self.dialed.values().flatten());
        waiting.map(|dial| dial.deadline.saturating_duration_since(now)).min()
    }

    /// The link has ended.
    pub(super) fn fail(&mut self) {
        let dialed = std::mem::take(&mut self.dialed).into_values().flatten();
        for dial in std::mem::take(&mut self.asked).into_iter().chain(dialed) {
            dial.end(Err(VirtualDialError::LinkLost));
        }
    }
}
