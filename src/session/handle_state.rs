use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
};

use crate::{
    buffer::Overflow,
    error::{CloseKind, CloseReason, Logged, TicketError},
    id::{Key, SessionId},
    session::{
        Deliver,
        memberships::{Membership, Memberships},
    },
    sync::{Addressee, Freed, Quota},
};

/// What all handles of one session share with it.
pub(crate) struct HandleState {
    pub(super) key: Key,
    pub(super) shard: Arc<dyn Deliver>,
    pub(super) quota: Quota,
    /// Bytes of a frame beyond its payload.
    overhead: AtomicUsize,
    /// 0 while the session is open; then why it is not, by the number of the kind and one more, and [`SHUT`].
    end: AtomicU8,
    /// What the session is sent may be dropped, unless a packet has a choice of its own.
    drops: AtomicBool,
    /// The channels that the session is in.
    pub(crate) memberships: Memberships,
}

/// Marks that handles refuse further packets.
const SHUT: u8 = 1 << 7;
const _: () = assert!(CloseKind::ALL.len() < SHUT as usize);

impl HandleState {
    /// `overhead` is the length of a frame beyond its payload, in bytes.
    pub(crate) fn new(key: Key, shard: Arc<dyn Deliver>, overhead: usize) -> Self {
        let (overhead, end, drops) = (AtomicUsize::new(overhead), AtomicU8::new(0), AtomicBool::new(false));
        let (quota, memberships) = (Quota::new(), Memberships::default());
        Self { key, shard, quota, overhead, end, drops, memberships }
    }

    pub(crate) fn id(&self) -> SessionId {
        self.shard.id_of(self.key)
    }

    pub(super) fn is_open(&self) -> bool {
        self.end.load(Ordering::Acquire) & SHUT == 0
    }

    /// The way into the session's shard.
    pub(crate) fn shard(&self) -> &Arc<dyn Deliver> {
        &self.shard
    }

    /// The session has been shut: returns its memberships. It joins nothing more.
    pub(crate) fn close_memberships(&self) -> Vec<Membership> {
        debug_assert!(!self.is_open(), "it is shut first");
        self.memberships.leave_all()
    }

    /// Puts the session on a list, see [`Memberships::join`].
    pub(crate) fn join<E>(&self, join: impl FnOnce() -> Result<Membership, E>) -> Option<Result<(), E>> {
        self.memberships.join(|| self.is_open(), join)
    }

    /// Called when the session has another framing.
    pub(crate) fn set_overhead(&self, bytes: usize) {
        self.overhead.store(bytes, Ordering::Relaxed);
    }

    /// Called when the session has another choice for packets that have none of their own.
    pub(super) fn set_overflow(&self, overflow: Overflow) {
        self.drops.store(overflow.drops(), Ordering::Relaxed);
    }

    /// Returns how many bytes may wait for the session, in the mailbox and in the outbox, if a packet with this choice
    /// is among them. One that may be dropped, or for which others are, is not refused because the outbox is full: that
    /// is for the shard to decide. It allows what handles send twice the limit, so no more than that waits.
    pub(super) fn limit(&self, overflow: Option<Overflow>) -> usize {
        let drops = overflow.map_or_else(|| self.drops.load(Ordering::Relaxed), Overflow::drops);
        let hard = self.shard.outbox_limit();
        if drops { hard.saturating_mul(2) } else { hard }
    }

    /// Makes handles refuse further packets, because the session closes for a reason of this kind. The last counts.
    pub(crate) fn shut(&self, kind: CloseKind) {
        self.end.store((kind as u8 + 1) | SHUT, Ordering::Release);
        self.tell(self.quota.close());
    }

    /// What the session has for its peer is lost, for a reason of this kind; it may still be open.
    pub(crate) fn lose(&self, kind: CloseKind) {
        let _ = self.end.compare_exchange(0, kind as u8 + 1, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Returns what a packet of so many bytes, with its ticket, reserves.
    pub(super) fn reserved_for(&self, held: usize) -> usize {
        held.saturating_add(self.overhead.load(Ordering::Relaxed))
    }

    /// Called by the shard: the outbox holds this many bytes.
    pub(crate) fn set_backlog(&self, bytes: usize) {
        self.take(0, bytes);
    }

    /// Called by the shard when it has taken a packet of `reserved` bytes from the mailbox and the outbox holds
    /// `backlog` bytes.
    pub(crate) fn take(&self, reserved: usize, backlog: usize) {
        self.tell(self.quota.take(reserved, backlog));
    }

    /// Wakes those who wait for room, if it was made for them.
    pub(super) fn tell(&self, freed: Freed) {
        if freed == Freed::Awaited {
            self.shard.room().freed();
        }
    }
}

impl Addressee for HandleState {
    fn loss(&self) -> TicketError {
        let number = (self.end.load(Ordering::Acquire) & !SHUT).checked_sub(1);
        let kind = number.and_then(|number| CloseKind::ALL.get(usize::from(number)));
        TicketError::Closed(kind.copied().unwrap_or(CloseKind::Shutdown))
    }

    fn report_panic(&self, panic: &CloseReason) {
        self.shard.count_panic();
        tracing::error!(session = %self.id(), panic = %Logged(panic), "what was to be called with the fate of a packet panicked");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;

    use super::*;
    use crate::{
        error::{Outcome, SendError, TicketError},
        id::{DialId, ServerNumber, ShardId},
        session::{SessionCommand, SessionHandle, Undelivered},
        sync::{Completion, Prospect, Room},
    };

    #[derive(Default)]
    struct Shard(Mutex<Vec<SessionCommand>>, Room);

    const KEY: Key = Key { slot: 2, generation: 3 };

    const LIMIT: usize = 10;

    impl Deliver for Shard {
        fn id_of(&self, key: Key) -> SessionId {
            ServerNumber::next().id(ShardId(1), key)
        }

        fn deliver(&self, _key: Key, command: SessionCommand, _bytes: usize) -> Result<(), Undelivered> {
            if let Ok(mut taken) = self.0.lock() {
                taken.push(command);
            }
            Ok(())
        }

        fn deliver_to_all(
            &self,
            _: &Bytes,
            _: &Arc<Vec<Key>>,
            _: usize,
            _: Option<Key>,
            _: crate::Overflow,
        ) -> Result<(), SendError> {
            Err(SendError::Closed)
        }

        fn hang_up(&self, _: DialId) {}

        fn deliver_tracked(&self, _: &Bytes, _: &Arc<Vec<Key>>, _: crate::Overflow, _: Vec<Completion>) {}

        fn is_idle(&self) -> bool {
            self.0.lock().is_ok_and(|taken| taken.is_empty())
        }

        fn room(&self) -> &Room {
            &self.1
        }

        fn await_room(&self, _: usize) -> Prospect {
            Prospect::Now
        }

        fn count_panic(&self) {}

        fn outbox_limit(&self) -> usize {
            LIMIT
        }
    }

    fn handle(shard: Arc<Shard>) -> SessionHandle {
        SessionHandle { handle_state: Arc::new(HandleState::new(KEY, shard, 0)) }
    }

    #[test]
    fn the_state_of_handles_takes_88_bytes_with_its_counts() {
        assert!(size_of::<HandleState>() + 2 * size_of::<usize>() <= 88);
    }

    #[test]
    fn a_handle_answers_full_at_the_limit_and_not_before() {
        let handle = handle(Arc::default());
        assert_eq!(handle.send([0; 10]), Ok(()));
        assert_eq!(handle.send([0; 1]), Err(SendError::Full { queued: 10, limit: 10 }));
        handle.handle_state.take(10, 6);
        assert_eq!(handle.send([0; 5]), Err(SendError::Full { queued: 6, limit: 10 }));
        assert_eq!(handle.send([0; 4]), Ok(()));
    }

    #[test]
    fn a_packet_counts_once_while_the_shard_takes_it() {
        const TIMES: usize = 20_000;
        let handle = handle(Arc::default());
        assert_eq!(handle.send([0; 6]), Ok(()));
        let handle_state = handle.handle_state.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..TIMES {
                    handle_state.take(6, 6);
                    // As if it was posted again.
                    handle_state.take(0usize.wrapping_sub(6), 0);
                }
            });
            for _ in 0..TIMES {
                assert_eq!(handle.send([0; 4]), Ok(()), "6 of 10 bytes are taken, wherever they are");
                handle.handle_state.tell(handle.handle_state.quota.unreserve(4));
            }
        });
    }

    #[test]
    fn a_handle_of_a_closed_session_answers_closed() {
        let shard = Arc::<Shard>::default();
        let handle = handle(shard.clone());
        handle.handle_state.shut(CloseKind::Idle);
        assert_eq!(handle.send("x"), Err(SendError::Closed));
        let told = Arc::<Mutex<Vec<Outcome>>>::default();
        let note = told.clone();
        let note = move |outcome| note.lock().expect("no panic holds it").push(outcome);
        assert_eq!(handle.send_then("x", note), Err(SendError::Closed));
        assert_eq!(*told.lock().expect("no panic holds it"), [Err(TicketError::Closed(CloseKind::Idle))]);
        assert_eq!(handle.close(), Err(SendError::Closed));
        assert!(shard.0.lock().is_ok_and(|taken| taken.is_empty()));
    }
}
