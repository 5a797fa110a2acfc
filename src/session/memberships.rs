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

/// The lists that a session is on. It is on each because a holder of a handle has put it there.
///
/// Boxed, because few of the sessions that have handles are on a list.
#[derive(Default)]
pub(crate) struct Memberships(Mutex<List>);

#[allow(clippy::box_collection, reason = "a list that is empty takes one word")]
type List = Option<Box<Vec<Membership>>>;

impl Memberships {
    /// Puts the session on a list. While `join` runs, which must not run user code, the session does not leave its
    /// lists. Returns `None` if the session `is_open` no more, otherwise what `join` returned.
    pub(super) fn join<E>(
        &self,
        is_open: impl FnOnce() -> bool,
        join: impl FnOnce() -> Result<Membership, E>,
    ) -> Option<Result<(), E>> {
        let mut list = self.lock();
        // A session is shut before it leaves its lists: either it is found to be shut here, or it will leave this list
        // too.
        if !is_open() {
            return None;
        }
        Some(join().map(|membership| list.get_or_insert_default().push(membership)))
    }

    /// Forgets the session's place on a list, which it has left.
    pub(crate) fn leave(&self, roster: &Arc<dyn Roster>, place: u64) {
        let mut list = self.lock();
        let is_it = |one: &Membership| Arc::ptr_eq(&one.roster, roster) && one.place == place;
        let left = list.as_mut().and_then(|all| Some(all.swap_remove(all.iter().position(is_it)?)));
        let emptied = list.take_if(|all| all.is_empty());
        // What is dropped with the last membership is not dropped under the lock.
        drop(list);
        drop((left, emptied));
    }

    /// The session is shut: returns its places on all lists.
    pub(super) fn leave_all(&self) -> Vec<Membership> {
        self.lock().take().map(|all| *all).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
