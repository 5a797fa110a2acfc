//! Waits for room in every interleaving with up to three preemptions; `LOOM_MAX_PREEMPTIONS=5` looks further. A lost wake-up is a
//! deadlock to loom.

use std::{collections::VecDeque, io, sync::Arc};

use loom::{
    model::Builder,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};
use loom_models::{
    mailbox::{Mailbox, MailboxLimits, Prospect, Wake},
    quota::{Freed, Quota},
    room::{Room, Waited},
};

/// Runs `model` once for each interleaving.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(model);
}

const LIMIT: usize = 10;

/// What a session and its handles share.
struct Shared {
    quota: Quota,
    room: Room,
    is_open: AtomicBool,
}

impl Shared {
    /// All of the limit is used by what is in the outbox.
    fn full() -> Arc<Self> {
        let (quota, room, is_open) = (Quota::new(), Room::default(), AtomicBool::new(true));
        assert_eq!(quota.reserve(LIMIT, LIMIT), Ok(()));
        assert_eq!(quota.take(LIMIT, LIMIT), Freed::Unnoticed);
        Arc::new(Self { quota, room, is_open })
    }

    fn tell(&self, freed: Freed) {
        if freed == Freed::Awaited {
            self.room.freed();
        }
    }

    /// Returns `true` once so many bytes are reserved, `false` if the session has closed or the shard has ended.
    fn reserve(&self, bytes: usize) -> bool {
        loop {
            let seen = self.room.seen();
            if !self.is_open.load(Ordering::Acquire) {
                return false;
            }
            if self.quota.reserve(bytes, LIMIT).is_ok() {
                return true;
            }
            let is_full = self.quota.await_room(bytes, LIMIT) && self.is_open.load(Ordering::Acquire);
            if is_full && self.room.wait(seen, None) == Waited::Ended {
                return false;
            }
        }
    }
}

#[test]
fn two_who_wait_are_woken_when_the_outbox_has_drained() {
    explore(|| {
        let shared = Shared::full();
        let senders = [4, 6].map(|bytes| {
            let shared = shared.clone();
            thread::spawn(move || assert!(shared.reserve(bytes)))
        });
        shared.tell(shared.quota.take(0, 6));
        shared.tell(shared.quota.take(0, 0));
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(shared.quota.reserve(1, LIMIT), Err(LIMIT));
    });
}

#[test]
fn a_packet_that_was_not_posted_makes_room_for_one_who_waits() {
    explore(|| {
        let shared = Shared::full();
        shared.tell(shared.quota.take(0, 0));
        assert_eq!(shared.quota.reserve(LIMIT, LIMIT), Ok(()));
        let other = shared.clone();
        let sender = thread::spawn(move || assert!(other.reserve(1)));
        shared.tell(shared.quota.unreserve(LIMIT));
        sender.join().unwrap();
    });
}

#[test]
fn who_waits_is_told_that_the_session_closes() {
    explore(|| {
        let shared = Shared::full();
        let other = shared.clone();
        let sender = thread::spawn(move || assert!(!other.reserve(1)));
        shared.is_open.store(false, Ordering::Release);
        shared.tell(shared.quota.close());
        sender.join().unwrap();
    });
}

#[test]
fn who_waits_is_told_that_the_shard_has_ended() {
    explore(|| {
        let shared = Shared::full();
        let other = shared.clone();
        let sender = thread::spawn(move || assert!(!other.reserve(1)));
        shared.room.end();
        sender.join().unwrap();
    });
}

struct Silence;

impl Wake for Silence {
    fn wake(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn who_waits_for_a_full_mailbox_is_woken_when_its_commands_are_taken() {
    explore(|| {
        let limits = MailboxLimits { commands: 1, bytes: 10 };
        let mailbox = Arc::new(Mailbox::new(limits, Arc::new(Silence)));
        mailbox.post(0, 1).unwrap();
        let other = mailbox.clone();
        let sender = thread::spawn(move || {
            loop {
                let seen = other.room().seen();
                if other.post(1, 1).is_ok() {
                    break;
                }
                if other.await_room(1) == Prospect::Later {
                    assert_eq!(other.room().wait(seen, None), Waited::Freed);
                }
            }
        });
        let mut batch = VecDeque::new();
        mailbox.take(&mut batch);
        assert_eq!(batch, [0]);
        sender.join().unwrap();
        batch.clear();
        mailbox.take(&mut batch);
        assert_eq!(batch, [1]);
    });
}
