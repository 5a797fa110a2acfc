use std::{
    fmt, io,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, TryRecvError},
    },
    thread,
    time::Duration,
};

use super::*;
use crate::{
    addr::Addr,
    error::{CloseReason, Failure, RefusalCause},
    id::{SessionId, ShardId},
};

fn refused(number: u16) -> Event {
    let peer = Addr::Ip(([127, 0, 0, 1], number).into());
    Event::Refused { peer, cause: RefusalCause::Strategy, reason: None }
}

fn port(event: &Event) -> u16 {
    match event {
        Event::Refused { peer, .. } => peer.socket_addr().expect("TCP").port(),
        other => panic!("{other}"),
    }
}

fn subscribed(capacity: usize) -> (Publisher, Events) {
    let publisher = Publisher::default();
    let events = Events::new(capacity, vec![publisher.hub().clone()]);
    (publisher, events)
}

#[test]
fn a_ring_that_is_full_loses_the_oldest_and_counts_them() {
    let (publisher, events) = subscribed(3);
    (0..10).for_each(|number| publisher.hub().tell(|| refused(number)));
    assert_eq!(events.dropped(), 7);
    assert_eq!(events.try_iter().map(|event| port(&event)).collect::<Vec<_>>(), [7, 8, 9]);
    publisher.hub().tell(|| refused(10));
    assert_eq!(events.try_recv().as_ref().map(port), Ok(10));
    assert_eq!((events.try_recv().err(), events.dropped()), (Some(TryRecvError::Empty), 7));
}

#[test]
fn nothing_is_made_for_nobody() {
    let publisher = Publisher::default();
    let hub = publisher.hub();
    hub.tell(|| unreachable!("nobody has subscribed"));
    let first = Events::new(1, vec![hub.clone()]);
    let second = Events::new(1, vec![hub.clone()]);
    drop(first);
    assert!(hub.is_watched(), "one is left");
    drop(second);
    assert!(!hub.is_watched());
    hub.tell(|| unreachable!("everybody has left"));
}

#[test]
fn each_subscriber_gets_every_event() {
    let publisher = Publisher::default();
    let all = [(); 3].map(|()| Events::new(10, vec![publisher.hub().clone()]));
    publisher.hub().tell(|| refused(7));
    for events in &all {
        assert_eq!(events.try_iter().map(|event| port(&event)).collect::<Vec<_>>(), [7]);
    }
}

#[test]
fn a_subscription_ends_with_the_last_of_its_servers_after_what_waits() {
    let publishers = [(); 2].map(|()| Publisher::default());
    let events = Events::new(10, publishers.iter().map(|publisher| publisher.hub().clone()).collect());
    publishers[0].hub().tell(|| refused(1));
    publishers[1].hub().tell(|| refused(2));
    let [first, second] = publishers;
    drop(first);
    assert_eq!(events.recv().as_ref().map(port), Ok(1));
    let waiting =
        thread::spawn(move || (events.iter().map(|event| port(&event)).collect::<Vec<_>>(), events));
    drop(second);
    let (rest, events) = waiting.join().expect("it ends");
    assert_eq!(rest, [2]);
    assert_eq!(events.try_recv().err(), Some(TryRecvError::Disconnected));
    let ended = events.recv_timeout(Duration::MAX).err();
    assert_eq!(ended, Some(RecvTimeoutError::Disconnected), "it waits for nothing");
}

#[test]
fn who_subscribes_to_what_has_ended_waits_for_nothing() {
    let publisher = Publisher::default();
    let hub = publisher.hub().clone();
    drop(publisher);
    let events = Events::new(10, vec![hub]);
    assert_eq!(events.iter().count(), 0);
}

#[test]
fn a_wait_ends_when_its_time_is_up() {
    let (_publisher, events) = subscribed(10);
    assert_eq!(events.recv_timeout(Duration::from_millis(1)).err(), Some(RecvTimeoutError::Timeout));
}

#[test]
fn an_event_is_one_line_whatever_a_peer_has_written_into_it() {
    let hostile = "no\r\nsession 1.1#1 of root has ended: \u{1b}[2J\u{202e}";
    let session = some_id();
    let peer = Addr::Unix(Some("/tmp/\u{1b}]0;title\u{7}\n".into()));
    let reason = CloseReason::failed(Failure::because(hostile));
    let shard = ShardId(1);
    let error = Some(Arc::new(io::Error::other(hostile)));
    let events = [
        Event::Refused { peer: peer.clone(), cause: RefusalCause::Handler, reason: Some(reason.clone()) },
        Event::Refused { peer: peer.clone(), cause: RefusalCause::Strategy, reason: None },
        Event::Closed { session, peer, reason },
        Event::Panicked {
            shard,
            session: Some(session),
            callback: "on_packet",
            message: hostile.repeat(1_000),
        },
        Event::Panicked { shard, session: None, callback: "drop", message: hostile.to_owned() },
        Event::AcceptPaused { shard, error },
        Event::AcceptPaused { shard, error: None },
        Event::AcceptResumed { shard },
        Event::SlowCallback { shard, session: None, callback: "on_start", took: Duration::from_millis(150) },
    ];
    for event in events {
        let line = event.to_string();
        assert!(line.len() < 1_300 && !line.contains(char::is_control), "{line}");
        assert!(!line.contains('\u{202e}'), "{line}");
    }
}

fn some_id() -> SessionId {
    SessionId::from_u128(1)
}

#[test]
fn an_error_of_the_users_that_panics_when_it_goes_harms_nobody() {
    #[derive(Debug)]
    struct Bomb;
    impl fmt::Display for Bomb {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a bomb")
        }
    }
    impl std::error::Error for Bomb {}
    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    }
    let (publisher, events) = subscribed(1);
    for _ in 0..3 {
        publisher.hub().tell(|| Event::Closed {
            session: some_id(),
            peer: Addr::Unix(None),
            reason: CloseReason::failed(Bomb.into()),
        });
    }
    assert_eq!(events.dropped(), 2);
    drop(events);
}
