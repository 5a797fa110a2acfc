use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use super::{KEEP, Mailbox, MailboxClosed, MailboxLimits, Prospect, Rejected, Wake};
use crate::sync::Waited;

#[derive(Default)]
struct Bell {
    woken: AtomicU64,
    broken: AtomicBool,
}

impl Wake for Bell {
    fn wake(&self) -> io::Result<()> {
        self.woken.fetch_add(1, Relaxed);
        if self.broken.load(Relaxed) { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }
}

fn mailbox(commands: usize, bytes: usize) -> (Arc<Mailbox<u32>>, Arc<Bell>) {
    let bell = Arc::new(Bell::default());
    (Arc::new(Mailbox::new(MailboxLimits { commands, bytes }, bell.clone())), bell)
}

fn taken(mailbox: &Mailbox<u32>) -> VecDeque<u32> {
    let mut batch = VecDeque::new();
    mailbox.take(&mut batch);
    batch
}

#[test]
fn the_limit_of_commands_is_exact_and_free_again_after_a_take() {
    let (mailbox, _) = mailbox(2, 100);
    mailbox.post(1, 0).unwrap();
    mailbox.post(2, 0).unwrap();
    let refused = mailbox.post(3, 0).unwrap_err();
    assert!(matches!(refused, Rejected::Full { command: 3, queued: 2, queued_bytes: 0 }), "{refused:?}");
    assert_eq!(taken(&mailbox), [1, 2]);
    mailbox.post(3, 0).unwrap();
    assert_eq!(taken(&mailbox), [3]);
}

#[test]
fn the_limit_of_bytes_is_exact_and_free_again_after_a_take() {
    let (mailbox, _) = mailbox(9, 100);
    mailbox.post(1, 60).unwrap();
    let refused = mailbox.post(2, 41).unwrap_err();
    assert!(matches!(refused, Rejected::Full { command: 2, queued: 1, queued_bytes: 60 }), "{refused:?}");
    assert_eq!(mailbox.post(3, usize::MAX).unwrap_err().into_command(), 3);
    mailbox.post(4, 40).unwrap();
    assert_eq!((mailbox.queued(), mailbox.queued_bytes()), (2, 100));
    assert_eq!(taken(&mailbox), [1, 4]);
    assert_eq!((mailbox.queued(), mailbox.queued_bytes()), (0, 0));
    mailbox.post(5, 100).unwrap();
}

#[test]
fn control_commands_pass_a_full_mailbox_and_overtake() {
    let (mailbox, _) = mailbox(1, 1);
    mailbox.post(1, 1).unwrap();
    mailbox.post_control(10).unwrap();
    mailbox.post_control(11).unwrap();
    assert!(mailbox.post(2, 0).is_err());
    assert_eq!((mailbox.queued(), mailbox.queued_bytes()), (3, 1));
    assert_eq!(taken(&mailbox), [10, 11, 1]);
}

#[test]
fn control_commands_do_not_use_up_the_limits() {
    let (mailbox, _) = mailbox(1, 1);
    mailbox.post_control(10).unwrap();
    mailbox.post(1, 1).unwrap();
    assert_eq!(taken(&mailbox), [10, 1]);
}

#[test]
fn a_batch_that_is_not_used_up_gets_control_commands_only() {
    let (mailbox, _) = mailbox(2, 10);
    mailbox.post(2, 5).unwrap();
    mailbox.post(3, 5).unwrap();
    mailbox.post_control(10).unwrap();
    mailbox.post_control(11).unwrap();
    let mut batch = VecDeque::from([1]);
    mailbox.take(&mut batch);
    assert_eq!(batch, [10, 11, 1]);
    assert!(mailbox.post(4, 0).is_err(), "what stayed behind still counts");
    assert!(!mailbox.fall_asleep(), "what stayed behind is pending");
    batch.clear();
    mailbox.take(&mut batch);
    assert_eq!(batch, [2, 3]);
    assert!(mailbox.fall_asleep());
}

#[test]
fn a_burst_rings_a_sleeping_shard_once() {
    let (mailbox, bell) = mailbox(1000, 1000);
    assert!(mailbox.fall_asleep());
    for command in 0..100 {
        mailbox.post(command, 1).unwrap();
    }
    mailbox.post_control(100).unwrap();
    assert_eq!((bell.woken.load(Relaxed), mailbox.wakeups()), (1, 1));
    mailbox.wake_up();
    assert_eq!(taken(&mailbox).len(), 101);
    assert!(mailbox.fall_asleep());
    mailbox.post(0, 0).unwrap();
    assert_eq!(mailbox.wakeups(), 2);
}

#[test]
fn an_awake_shard_is_never_rung_and_does_not_fall_asleep_over_a_post() {
    let (mailbox, bell) = mailbox(1000, 1000);
    assert!(mailbox.fall_asleep());
    mailbox.wake_up();
    mailbox.post(1, 0).unwrap();
    assert!(!mailbox.fall_asleep());
    assert_eq!(taken(&mailbox), [1]);
    mailbox.post(2, 0).unwrap();
    assert_eq!(taken(&mailbox), [2]);
    assert!(mailbox.fall_asleep());
    assert_eq!(bell.woken.load(Relaxed), 0);
}

#[test]
fn a_ring_that_failed_is_counted_and_rung_again_by_the_next_post() {
    let (mailbox, bell) = mailbox(1000, 1000);
    bell.broken.store(true, Relaxed);
    assert!(mailbox.fall_asleep());
    mailbox.post(1, 0).unwrap();
    mailbox.post(2, 0).unwrap();
    bell.broken.store(false, Relaxed);
    mailbox.post(3, 0).unwrap();
    mailbox.post(4, 0).unwrap();
    assert_eq!((mailbox.wakeups(), mailbox.counters.failed_wakeups.load(Relaxed)), (3, 2));
    mailbox.wake_up();
    assert_eq!(taken(&mailbox), [1, 2, 3, 4]);
}

#[test]
fn commands_that_are_posted_together_ring_once_and_keep_their_order() {
    let (mailbox, bell) = mailbox(1, 1);
    mailbox.post(1, 1).unwrap();
    mailbox.take(&mut VecDeque::new());
    assert!(mailbox.fall_asleep());
    assert_eq!(mailbox.post_control_all(10..50), Ok(()));
    assert_eq!((bell.woken.load(Relaxed), mailbox.queued()), (1, 40));
    mailbox.wake_up();
    assert_eq!(taken(&mailbox), (10..50).collect::<Vec<_>>());
    let _ = mailbox.close();
    let mut late = 1..3;
    assert_eq!(mailbox.post_control_all(late.by_ref()), Err(MailboxClosed));
    assert_eq!(late, 1..3, "none was taken");
}

#[test]
fn closing_hands_back_what_waits_and_refuses_the_rest() {
    let (mailbox, _) = mailbox(10, 10);
    mailbox.post(1, 1).unwrap();
    mailbox.post_control(2).unwrap();
    assert_eq!(mailbox.close(), [2, 1]);
    assert!(matches!(mailbox.post(3, 0), Err(Rejected::Closed { command: 3 })));
    assert!(matches!(mailbox.post_control(4), Err(Rejected::Closed { command: 4 })));
    assert!(mailbox.close().is_empty());
    assert_eq!((mailbox.queued(), mailbox.queued_bytes()), (0, 0));
    assert!(taken(&mailbox).is_empty());
}

#[test]
fn two_buffers_are_exchanged_and_a_burst_gives_its_memory_back() {
    let (mailbox, _) = mailbox(100_000, 0);
    let mut batch = VecDeque::new();
    for _ in 0..4 {
        mailbox.post(1, 0).unwrap();
        mailbox.take(&mut batch);
        batch.clear();
    }
    let steady = batch.capacity();
    assert!(steady > 0);
    for command in 0..50_000 {
        mailbox.post(command, 0).unwrap();
    }
    for _ in 0..3 {
        mailbox.take(&mut batch);
        batch.clear();
        mailbox.post(1, 0).unwrap();
    }
    assert!(batch.capacity() <= KEEP, "{}", batch.capacity());
    assert!(mailbox.lock().ordinary.capacity() <= KEEP);
}

#[test]
fn a_panic_under_the_lock_does_not_break_the_mailbox() {
    let (mailbox, _) = mailbox(10, 10);
    let poisoner = mailbox.clone();
    let died = thread::spawn(move || {
        let _guard = poisoner.lock();
        panic!("on purpose");
    });
    assert!(died.join().is_err());
    mailbox.post(1, 1).unwrap();
    assert_eq!(taken(&mailbox), [1]);
}

/// A poll that really sleeps; a wake-up before the sleep counts.
#[derive(Default)]
struct Poll {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Poll {
    fn wait(&self) {
        let mut rung = self.changed.wait_while(self.woken.lock().unwrap(), |rung| !*rung).unwrap();
        *rung = false;
    }
}

impl Wake for Poll {
    fn wake(&self) -> io::Result<()> {
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
        Ok(())
    }
}

#[test]
fn eight_threads_lose_nothing_and_keep_the_order_of_each() {
    const THREADS: usize = 8;
    const POSTS: u32 = 100_000;
    let poll = Arc::new(Poll::default());
    let mailbox = Arc::new(Mailbox::new(MailboxLimits::default(), poll.clone()));
    let producers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                for number in 0..POSTS {
                    let mut command = (thread, number);
                    while let Err(refused) = mailbox.post(command, 8) {
                        command = refused.into_command();
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();

    let mut next = [0; THREADS];
    let mut batch = VecDeque::new();
    while next.iter().any(|&number| number < POSTS) {
        mailbox.take(&mut batch);
        if batch.is_empty() && mailbox.fall_asleep() {
            poll.wait();
            mailbox.wake_up();
        }
        for (thread, number) in batch.drain(..) {
            assert_eq!(number, next[thread]);
            next[thread] += 1;
        }
    }
    for producer in producers {
        producer.join().unwrap();
    }
    mailbox.take(&mut batch);
    assert!(batch.is_empty());
    assert_eq!((mailbox.queued(), mailbox.queued_bytes()), (0, 0));
}

#[test]
fn who_waits_for_room_is_told_when_the_commands_are_taken() {
    let (mailbox, _) = mailbox(2, 100);
    assert_eq!(mailbox.await_room(1), Prospect::Now);
    assert_eq!(mailbox.await_room(101), Prospect::Never);
    mailbox.post(1, 60).unwrap();
    assert_eq!((mailbox.await_room(40), mailbox.await_room(41)), (Prospect::Now, Prospect::Later));
    let seen = mailbox.room().seen();
    let mut batch = VecDeque::from([0]);
    mailbox.take(&mut batch);
    assert_eq!(mailbox.room().seen(), seen, "they stay where they are while a batch is not used up");
    assert_eq!(taken(&mailbox), [1]);
    assert_eq!(mailbox.room().wait(seen, None), Waited::Freed);
    mailbox.post(2, 100).unwrap();
    assert_eq!(taken(&mailbox), [2]);
    assert_eq!(mailbox.room().seen(), seen + 1, "nobody has asked since");
    assert_eq!(mailbox.room().wait(seen + 1, Some(Instant::now())), Waited::TimedOut);
    drop(mailbox.close());
    assert_eq!(mailbox.room().wait(seen + 1, None), Waited::Ended);
    assert_eq!(mailbox.await_room(100), Prospect::Now, "to be told so");
}
