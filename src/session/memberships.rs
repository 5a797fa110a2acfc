use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::session::HandleState;

/// Something that keeps a list of sessions and is told when one of them closes.
pub(crate) trait Roster: Send + Sync {
    /// The session has begun to close. Runs user code, which may panic.
    fn forget(&self, session: &Arc<HandleState>, place: u64);
}

/// The place of a session on a list.
pub(crate) struct Membership {
    pub(crate) roster: Arc<dyn Roster>,
    /// Tells it from an earlier or a later place of the session on the same list.
    pub(crate) place: u64,
}

/// The lists that a session is on. It is on each because somebody has put it there who has a handle to it.
#[derive(Default)]
pub(crate) struct Memberships(Mutex<List>);

#[derive(Default)]
struct List {
    memberships: Vec<Membership>,
    /// The session has left all lists, and joins no other.
    closed: bool,
}

impl Memberships {
    /// Puts the session on a list. While `join` runs, which must not run user code, the session does not leave its
    /// lists. Returns `None` if the session has left them for ever, otherwise what `join` returned.
    pub(crate) fn join<E>(&self, join: impl FnOnce() -> Result<Membership, E>) -> Option<Result<(), E>> {
        let mut list = self.lock();
        if list.closed {
            return None;
        }
        Some(join().map(|membership| list.memberships.push(membership)))
    }

    /// Forgets the session's place on a list, which it has left.
    pub(crate) fn leave(&self, roster: &Arc<dyn Roster>, place: u64) {
        let mut list = self.lock();
        let is_it = |one: &Membership| Arc::ptr_eq(&one.roster, roster) && one.place == place;
        let left = list.memberships.iter().position(is_it).map(|at| list.memberships.swap_remove(at));
        // What is dropped with the last membership is not dropped under the lock.
        drop(list);
        drop(left);
    }

    /// The session closes: returns its places on all lists, and lets it join no other.
    pub(super) fn close(&self) -> Vec<Membership> {
        let mut list = self.lock();
        list.closed = true;
        std::mem::take(&mut list.memberships)
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
