use std::sync::mpsc::{Receiver, channel};

use super::*;

const WITHIN: Duration = Duration::from_secs(10);

type Outcome = Receiver<Result<(), VirtualDialError>>;

fn dial(number: u64) -> (PendingDial, Outcome) {
    let (told, outcome) = channel();
    let done = Box::new(move |how| told.send(how).expect("the test waits"));
    (PendingDial::new(DialNumber(number), 5, WITHIN, done), outcome)
}

fn later() -> Instant {
    Instant::now() + WITHIN
}

/// Dials with the IDs of the range, each of which the gateway has given.
fn dial_each(pending: &mut Pending, conns: std::ops::Range<u32>) -> Vec<Outcome> {
    let outcomes = conns.map(|conn| {
        let (dial, outcome) = dial(conn.into());
        assert_eq!(pending.begin(dial), None);
        assert_eq!(pending.opened(conn).expect("a new ID"), Some((conn, 5)));
        outcome
    });
    outcomes.collect()
}

#[test]
fn dials_that_were_given_up_make_room_for_others_and_are_still_known() {
    let mut pending = Pending::default();
    let most = MOST as u32;
    let outcomes = dial_each(&mut pending, 1..most + 1);
    assert_eq!(pending.len(), MOST);
    assert_eq!(pending.expire(later()), None);
    for outcome in outcomes {
        assert_eq!(outcome.recv(), Ok(Err(VirtualDialError::TimedOut(WITHIN))));
    }
    assert_eq!(pending.len(), 0);
    assert!(matches!(pending.accepted(1), Accepted::Abandoned));
    assert!(matches!(pending.accepted(1), Accepted::Theirs), "its answer has come");
    assert!(pending.refused(2).is_none());
    assert!(matches!(pending.accepted(2), Accepted::Theirs), "its answer has come");
    assert!(matches!(pending.accepted(most), Accepted::Abandoned));
}

#[test]
fn no_more_are_remembered_than_may_wait() {
    let mut pending = Pending::default();
    let most = MOST as u32;
    let first = dial_each(&mut pending, 1..2);
    pending.expire(later());
    let others = dial_each(&mut pending, 2..most + 1);
    pending.expire(later());
    assert!(pending.abandoned.contains(&1), "exactly as many");
    let last = dial_each(&mut pending, most + 1..most + 2);
    pending.expire(later());
    assert_eq!(pending.abandoned.len(), MOST);
    assert!(matches!(pending.accepted(1), Accepted::Theirs), "the oldest is forgotten");
    assert!(matches!(pending.accepted(most + 1), Accepted::Abandoned));
    drop((first, others, last));
}

#[test]
fn an_id_that_is_given_again_changes_no_dial_that_waits() {
    let mut pending = Pending::default();
    let outcomes = dial_each(&mut pending, 8..9);
    let (second, later) = dial(2);
    assert_eq!(pending.begin(second), None);
    assert!(matches!(pending.opened(8), Err(Repeated)));
    let Accepted::Ours(first) = pending.accepted(8) else { panic!("it waits") };
    assert_eq!(first.number, DialNumber(8));
    first.end(Ok(()));
    assert_eq!(outcomes[0].recv(), Ok(Ok(())));
    pending.fail();
    assert_eq!(later.recv(), Ok(Err(VirtualDialError::LinkLost)));
}

#[test]
fn a_spare_id_is_given_once() {
    let mut pending = Pending::default();
    assert_eq!(pending.opened(3).expect("a new ID"), None);
    assert!(matches!(pending.opened(3), Err(Repeated)));
    let (first, _outcome) = dial(1);
    assert_eq!(pending.begin(first), Some((3, 5)));
    pending.fail();
}

#[test]
fn the_id_of_a_dial_that_was_given_up_can_be_given_again() {
    let mut pending = Pending::default();
    let outcomes = dial_each(&mut pending, 8..9);
    pending.expire(later());
    assert_eq!(outcomes[0].recv(), Ok(Err(VirtualDialError::TimedOut(WITHIN))));
    let again = dial_each(&mut pending, 8..9);
    let Accepted::Ours(dial) = pending.accepted(8) else { panic!("it waits") };
    dial.end(Ok(()));
    assert_eq!(again[0].recv(), Ok(Ok(())));
    assert!(matches!(pending.accepted(8), Accepted::Theirs));
}

#[test]
fn the_next_to_be_given_up_is_told() {
    let mut pending = Pending::default();
    let ((first, _one), (second, _other)) = (dial(1), dial(2));
    let (early, late) = (first.deadline, second.deadline.max(first.deadline));
    pending.begin(first);
    pending.begin(second);
    assert_eq!(pending.opened(1).expect("a new ID"), Some((1, 5)));
    assert_eq!(pending.expire(early - Duration::from_nanos(1)), Some(early));
    assert!(matches!(pending.accepted(1), Accepted::Ours(_)));
    assert_eq!(pending.expire(Instant::now()), Some(late));
    pending.fail();
}
