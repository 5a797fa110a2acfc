//! Dials that wait for an answer of the gateway.

use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use super::{DialNumber, VirtualDialError};

/// Dials of one link that may wait, and those whose answer is still known after they were given up.
pub(super) const MOST: usize = 1024;
/// IDs that are kept for the next dial, because theirs came too late.
const SPARE: usize = 16;

pub(super) type Done = Box<dyn FnOnce(Result<(), VirtualDialError>) + Send>;

/// A dial. If it is dropped, its closure is told that the endpoint could not take it.
pub(super) struct PendingDial {
    pub(super) number: DialNumber,
    pub(super) remote: u32,
    pub(super) deadline: Instant,
    within: Duration,
    done: Option<Done>,
}

impl PendingDial {
    pub(super) fn new(number: DialNumber, remote: u32, within: Duration, done: Done) -> Self {
        let now = Instant::now();
        // A deadline beyond the range of the clock is as good as a year.
        let deadline = now.checked_add(within).unwrap_or(now + Duration::from_secs(365 * 86_400));
        Self { number, remote, deadline, within, done: Some(done) }
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
    /// Those that wait to be accepted, by their IDs.
    dialed: HashMap<u32, PendingDial>,
    /// The IDs of the last that were given up before they were answered, the oldest first.
    abandoned: VecDeque<u32>,
    spare: Vec<u32>,
}

/// The gateway has given an ID that it had given before, and to which it has not answered yet.
#[derive(Debug)]
pub(super) struct Repeated;

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
        let Some(conn) = self.spare.pop() else {
            self.asked.push_back(dial);
            return None;
        };
        Some(self.dial(conn, dial))
    }

    fn dial(&mut self, conn: u32, dial: PendingDial) -> (u32, u32) {
        let remote = dial.remote;
        self.dialed.insert(conn, dial);
        (conn, remote)
    }

    /// The gateway has given an ID. Returns what is to be dialed with it.
    ///
    /// # Errors
    /// [`Repeated`]: two dials would have the same ID, and each the answer of the other.
    pub(super) fn opened(&mut self, conn: u32) -> Result<Option<(u32, u32)>, Repeated> {
        if self.dialed.contains_key(&conn) || self.spare.contains(&conn) {
            return Err(Repeated);
        }
        // The gateway has forgotten a dial that was given up: its ID is free.
        self.is_abandoned(conn);
        let Some(dial) = self.asked.pop_front() else {
            if self.spare.len() < SPARE {
                self.spare.push(conn);
            }
            return Ok(None);
        };
        Ok(Some(self.dial(conn, dial)))
    }

    /// Returns `true` if the dial of this ID was given up, of which no answer is awaited then any more.
    fn is_abandoned(&mut self, conn: u32) -> bool {
        let place = self.abandoned.iter().position(|known| *known == conn);
        place.and_then(|place| self.abandoned.remove(place)).is_some()
    }

    pub(super) fn accepted(&mut self, conn: u32) -> Accepted {
        match self.dialed.remove(&conn) {
            Some(dial) => Accepted::Ours(dial),
            None if self.is_abandoned(conn) => Accepted::Abandoned,
            None => Accepted::Theirs,
        }
    }

    /// Returns the dial that was refused, unless it was given up.
    pub(super) fn refused(&mut self, conn: u32) -> Option<PendingDial> {
        let dial = self.dialed.remove(&conn);
        if dial.is_none() {
            self.is_abandoned(conn);
        }
        dial
    }

    /// Gives up those whose time has come. Returns when that of the next comes.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let is_due = |dial: &PendingDial| dial.deadline <= now;
        let asked = std::mem::take(&mut self.asked);
        let (mut due, left): (Vec<_>, Vec<_>) = asked.into_iter().partition(is_due);
        self.asked = left.into();
        let ids = self.dialed.iter().filter(|(_, dial)| is_due(dial)).map(|(conn, _)| *conn);
        for conn in ids.collect::<Vec<_>>() {
            due.extend(self.dialed.remove(&conn));
            if self.abandoned.len() >= MOST {
                self.abandoned.pop_front();
            }
            self.abandoned.push_back(conn);
        }
        for dial in due {
            let within = dial.within;
            dial.end(Err(VirtualDialError::TimedOut(within)));
        }
        self.asked.iter().chain(self.dialed.values()).map(|dial| dial.deadline).min()
    }

    /// The link has ended.
    pub(super) fn fail(&mut self) {
        let dialed = std::mem::take(&mut self.dialed).into_values();
        for dial in std::mem::take(&mut self.asked).into_iter().chain(dialed) {
            dial.end(Err(VirtualDialError::LinkLost));
        }
    }
}

#[cfg(test)]
mod tests;
