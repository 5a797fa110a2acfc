//! The mailbox in every interleaving of its threads with up to three preemptions; `LOOM_MAX_PREEMPTIONS=5` looks further.

use std::{collections::VecDeque, io, sync::Arc};

use loom::{model::Builder, sync::Notify, thread};
use loom_models::mailbox::{Mailbox, MailboxLimits, Rejected, Wake};

/// Runs `model` once for each interleaving.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(model);
}

/// A poll that sleeps until it is rung; a ring before the sleep counts, as an eventfd's does.
struct Poll(Notify);

impl Wake for Poll {
    fn wake(&self) -> io::Result<()> {
        self.0.notify();
        Ok(())
    }
}

fn mailbox() -> (Arc<Mailbox<u8>>, Arc<Poll>) {
    let poll = Arc::new(Poll(Notify::new()));
    (Arc::new(Mailbox::new(MailboxLimits::default(), poll.clone())), poll)
}

/// Takes and sleeps in turn, as a shard does, until `want` commands came. A lost wake-up is a deadlock to loom.
fn take_until(mailbox: &Mailbox<u8>, poll: &Poll, want: usize) -> Vec<u8> {
    let (mut taken, mut batch) = (Vec::new(), VecDeque::new());
    while taken.len() < want {
        mailbox.take(&mut batch);
        if !batch.is_empty() {
            taken.extend(batch.drain(..));
        } else if mailbox.fall_asleep() {
            poll.0.wait();
            mailbox.wake_up();
        }
    }
    taken
}

#[test]
fn two_producers_always_wake_a_sleeping_consumer() {
    explore(|| {
        let (mailbox, poll) = mailbox();
        let producers = [1, 2].map(|command| {
            let mailbox = mailbox.clone();
            thread::spawn(move || mailbox.post(command, 1).unwrap())
        });
        let mut taken = take_until(&mailbox, &poll, 2);
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
        assert_eq!((mailbox.queued(), mailbox.queued_bytes()), (0, 0));
        for producer in producers {
            producer.join().unwrap();
        }
    });
}

#[test]
fn one_producer_is_taken_in_order_over_several_sleeps() {
    explore(|| {
        let (mailbox, poll) = mailbox();
        let producer = {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                mailbox.post(1, 0).unwrap();
                mailbox.post(2, 0).unwrap();
                mailbox.post(3, 0).unwrap();
            })
        };
        assert_eq!(take_until(&mailbox, &poll, 3), [1, 2, 3]);
        producer.join().unwrap();
    });
}

#[test]
fn a_sleeping_shard_is_woken_for_commands_that_are_posted_together() {
    explore(|| {
        let (mailbox, poll) = mailbox();
        let producer = {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                mailbox.post_control_all([1, 2].into_iter()).unwrap();
                mailbox.post_control_all([3, 4].into_iter()).unwrap();
            })
        };
        let mut taken = take_until(&mailbox, &poll, 4);
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3, 4]);
        producer.join().unwrap();
    });
}

#[test]
fn commands_left_behind_by_a_full_batch_are_not_forgotten() {
    explore(|| {
        let (mailbox, poll) = mailbox();
        let producer = {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                mailbox.post(1, 0).unwrap();
                mailbox.post_control(2).unwrap();
            })
        };
        let mut batch = VecDeque::from([9]);
        mailbox.take(&mut batch);
        let mut taken: Vec<u8> = batch.into_iter().filter(|&command| command != 9).collect();
        taken.extend(take_until(&mailbox, &poll, 2 - taken.len()));
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
        producer.join().unwrap();
    });
}

#[test]
fn a_post_against_a_close_is_either_refused_or_handed_back() {
    explore(|| {
        let (mailbox, _) = mailbox();
        let producers = [1, 2].map(|command| {
            let mailbox = mailbox.clone();
            thread::spawn(move || match mailbox.post(command, 1) {
                Ok(()) => None,
                Err(Rejected::Closed { command }) => Some(command),
                Err(full) => panic!("{full:?}"),
            })
        });
        let mut batch = VecDeque::new();
        mailbox.take(&mut batch);
        let mut seen: Vec<u8> = batch.into_iter().chain(mailbox.close()).collect();
        seen.extend(producers.map(|producer| producer.join().unwrap()).into_iter().flatten());
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
        assert!(mailbox.close().is_empty());
    });
}

/// Fails the first ring, as a system short of resources does.
struct Stubborn {
    poll: Poll,
    failed: std::sync::atomic::AtomicBool,
}

impl Wake for Stubborn {
    fn wake(&self) -> io::Result<()> {
        if self.failed.swap(true, std::sync::atomic::Ordering::Relaxed) {
            return self.poll.wake();
        }
        Err(io::ErrorKind::OutOfMemory.into())
    }
}

#[test]
fn after_a_ring_that_failed_the_next_post_rings_again() {
    explore(|| {
        let ring = Arc::new(Stubborn { poll: Poll(Notify::new()), failed: false.into() });
        let mailbox = Arc::new(Mailbox::new(MailboxLimits::default(), ring.clone()));
        let producer = {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                mailbox.post(1, 0).unwrap();
                mailbox.post(2, 0).unwrap();
            })
        };
        // A sleep that the first post fails to end is ended by the second.
        assert_eq!(take_until(&mailbox, &ring.poll, 1).first(), Some(&1));
        producer.join().unwrap();
    });
}
