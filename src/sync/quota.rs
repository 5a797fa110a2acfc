use super::primitives::{AtomicUsize, Ordering};

/// Set while a thread waits for room.
const AWAITED: usize = 1 << (usize::BITS - 1);

/// How much waits for one session, as the threads that send to it know it: in the mailbox of its shard, and in its outbox.
///
/// One counter for both, so that a packet that moves from the mailbox to the outbox is counted exactly once at every
/// moment. Its topmost bit is the mark of threads that wait for room (see `Room`): who makes room finds
/// it in the same step.
#[derive(Debug)]
pub struct Quota {
    /// Bytes reserved for packets in the mailbox, plus the bytes in the outbox; and the mark.
    queued: AtomicUsize,
    /// The part of `queued` that is in the outbox, as the shard last reported it. Only the shard writes it.
    backlog: AtomicUsize,
}

/// Room was made, and a thread waits for it: the `Room` is to be told.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freed {
    /// Nobody waits.
    Unnoticed,
    /// A thread waits.
    Awaited,
}

impl Quota {
    /// Creates a quota of which nothing is used.
    #[allow(clippy::new_without_default, reason = "loom's atomics have no default of their own")]
    pub fn new() -> Self {
        Self { queued: AtomicUsize::new(0), backlog: AtomicUsize::new(0) }
    }

    /// Reserves so many bytes if no more than `limit` are queued then.
    ///
    /// # Errors
    /// How many bytes are queued, if there is no room.
    pub fn reserve(&self, bytes: usize, limit: usize) -> Result<(), usize> {
        let room = |state: usize| has_room(state, bytes, limit).then(|| state.wrapping_add(bytes));
        let reserved = self.queued.fetch_update(Ordering::AcqRel, Ordering::Acquire, room);
        reserved.map(drop).map_err(|state| state & !AWAITED)
    }

    /// Gives back what was reserved for a packet that was not posted.
    pub fn unreserve(&self, bytes: usize) -> Freed {
        self.add(0usize.wrapping_sub(bytes))
    }

    /// Leaves a mark: the next time that room is made, the `Room` is told. Returns `true` if there is
    /// still none for so many bytes.
    pub fn await_room(&self, bytes: usize, limit: usize) -> bool {
        !has_room(self.queued.fetch_or(AWAITED, Ordering::AcqRel), bytes, limit)
    }

    /// Takes the mark away, because the session takes nothing more.
    pub fn close(&self) -> Freed {
        Freed::by(self.queued.fetch_and(!AWAITED, Ordering::AcqRel))
    }

    /// Called by the shard when it has taken a packet of `reserved` bytes from the mailbox, and the outbox holds
    /// `backlog` bytes.
    pub fn take(&self, reserved: usize, backlog: usize) -> Freed {
        let before = self.backlog.load(Ordering::Relaxed);
        // A decrease is added as its two's complement, hence the wrapping arithmetic.
        let change = backlog.wrapping_sub(before).wrapping_sub(reserved);
        if backlog != before {
            self.backlog.store(backlog, Ordering::Relaxed);
        }
        if change == 0 { Freed::Unnoticed } else { self.add(change) }
    }

    /// What is queued never falls below 0 or rises above half of the range, so the mark stays where it is.
    fn add(&self, change: usize) -> Freed {
        let before = self.queued.fetch_add(change, Ordering::AcqRel);
        let is_less = change & AWAITED != 0;
        if is_less && before & AWAITED != 0 { self.close() } else { Freed::Unnoticed }
    }
}

impl Freed {
    fn by(state: usize) -> Self {
        if state & AWAITED == 0 { Self::Unnoticed } else { Self::Awaited }
    }
}

fn has_room(state: usize, bytes: usize, limit: usize) -> bool {
    (state & !AWAITED).saturating_add(bytes) <= limit.min(!AWAITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_exact_whether_a_thread_waits_or_not() {
        let quota = Quota::new();
        assert_eq!(quota.reserve(10, 10), Ok(()));
        assert_eq!(quota.reserve(1, 10), Err(10));
        assert!(quota.await_room(1, 10));
        assert_eq!(quota.reserve(1, 10), Err(10));
        assert_eq!(quota.reserve(1, 11), Ok(()));
        assert_eq!(quota.reserve(usize::MAX, usize::MAX), Err(11));
    }

    #[test]
    fn room_is_announced_once_to_those_who_wait() {
        let quota = Quota::new();
        assert_eq!(quota.reserve(10, 10), Ok(()));
        assert_eq!(quota.take(10, 10), Freed::Unnoticed, "it has moved to the outbox");
        assert!(quota.await_room(1, 10) && quota.await_room(1, 10));
        assert_eq!(quota.take(0, 12), Freed::Unnoticed, "a callback has sent something");
        assert_eq!(quota.take(0, 8), Freed::Awaited);
        assert_eq!(quota.take(0, 4), Freed::Unnoticed);
        assert!(!quota.await_room(1, 10), "there is room");
        assert_eq!((quota.close(), quota.close()), (Freed::Awaited, Freed::Unnoticed));
        assert_eq!(quota.unreserve(4), Freed::Unnoticed);
        assert_eq!(quota.reserve(10, 10), Ok(()));
    }
}
