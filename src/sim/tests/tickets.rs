//! What becomes of packets is told once, however their sessions end.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    Limits, Outcome, SendError, SendTicket, SessionHandle, TicketError,
    error::CloseKind,
    sim::{Setup, World, frame},
};

/// What was told, each by the number of its packet.
#[derive(Clone, Default)]
struct Outcomes(Arc<Mutex<Vec<(u32, Outcome)>>>);

impl Outcomes {
    fn lock(&self) -> MutexGuard<'_, Vec<(u32, Outcome)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, number: u32) -> impl FnOnce(Outcome) + Send + 'static {
        let told = self.clone();
        move |outcome| told.lock().push((number, outcome))
    }

    fn of(&self, number: u32) -> Vec<Outcome> {
        self.lock().iter().filter(|(of, _)| *of == number).map(|(_, outcome)| outcome.clone()).collect()
    }
}

type Handles = Arc<Mutex<Vec<SessionHandle>>>;

fn handles() -> (Handles, impl Fn(usize) -> SessionHandle) {
    let handles = Handles::default();
    let known = handles.clone();
    (handles, move |at| known.lock().unwrap_or_else(PoisonError::into_inner)[at].clone())
}

/// How a session ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Close,
    Abort,
    AskedByAnother,
    Panic,
    PeerResets,
    PeerEndsAndStalls,
    Stalls,
    ServerShutsDown,
    ServerAborts,
}

const ENDS: [(End, CloseKind); 9] = [
    (End::Close, CloseKind::Local),
    (End::Abort, CloseKind::Local),
    (End::AskedByAnother, CloseKind::Local),
    (End::Panic, CloseKind::Panicked),
    (End::PeerResets, CloseKind::Io),
    (End::PeerEndsAndStalls, CloseKind::Stalled),
    (End::Stalls, CloseKind::Stalled),
    (End::ServerShutsDown, CloseKind::Shutdown),
    (End::ServerAborts, CloseKind::Shutdown),
];

/// A world whose sessions close another when they are told to, or panic. Their handles are kept.
fn world(setup: Setup, handles: &Handles) -> World {
    World::new(setup, |probe| {
        let (opened, others) = (handles.clone(), handles.clone());
        probe.open = Box::new(move |session, ()| {
            opened.lock().unwrap_or_else(PoisonError::into_inner).push(session.handle());
            Ok(())
        });
        probe.packet = Box::new(move |session, packet| {
            assert!(packet != b"panic", "as asked for");
            let first = others.lock().unwrap_or_else(PoisonError::into_inner)[0].id();
            Ok(session.close_session(first)?)
        });
    })
}

fn ends_in(setup: &Setup, end: End, kind: CloseKind) {
    let (kept, handle) = handles();
    let limits = Limits::default()
        .stall_timeout(Duration::from_secs(20))
        .close_timeout(Duration::from_secs(4))
        .outbox_hard(64 << 20);
    let mut narrow = Setup { limits, ..setup.clone() };
    narrow.sizes.down = 10_000;
    let mut world = world(narrow, &kept);
    // The first does not read.
    let (conn, other) = (world.connect(), world.connect());
    world.run_for(5);
    let (session, told) = (handle(0), Outcomes::default());
    let mut tickets: Vec<SendTicket> = Vec::new();
    let mut send = |number: u32| {
        tickets.push(session.send_tracked([7; 4_000]).expect("there is room"));
        session.send_then([7; 4_000], told.note(number)).expect("there is room");
    };
    (0..4).for_each(&mut send);
    world.run_for(5);
    // These wait in the mailbox when the end comes.
    (4..8).for_each(&mut send);
    match end {
        End::Close => session.close().expect("it is open"),
        End::Abort => session.abort().expect("there is room"),
        End::AskedByAnother => {
            world.net().say(other, &frame(b"close"));
        }
        End::Panic => {
            world.net().say(conn, &frame(b"panic"));
        }
        End::PeerResets => world.net().reset(conn),
        End::PeerEndsAndStalls => world.net().end(conn),
        End::Stalls => {}
        End::ServerShutsDown => world.shut_down(Duration::from_secs(5)),
        End::ServerAborts => world.abort(),
    }
    if setup.workers + setup.forks == 0 {
        world.run_for(60_000);
    } else {
        // Loops that take turns in one thread never wait, so that their deadlines move on.
        world.run_for(100);
        world.net().reset(conn);
        world.run_for(100);
    }
    assert_eq!(session.send_then("late", told.note(8)), Err(SendError::Closed), "{end:?}");
    let lost = Err(TicketError::Closed(kind));
    assert_eq!(told.of(8), std::slice::from_ref(&lost), "{end:?}: and once");
    let is_lost = |outcome: &Outcome| match end {
        // What came after the peer's end is refused for that, what was queued before is lost to the stall.
        End::PeerEndsAndStalls if *outcome == Err(TicketError::Closed(CloseKind::PeerClosed)) => true,
        _ => *outcome == lost,
    };
    for (number, ticket) in tickets.iter().enumerate() {
        let (waited, told) = (ticket.outcome(), told.of(number as u32));
        let waited = waited.unwrap_or_else(|| panic!("{end:?}: {number} is not decided"));
        assert_eq!(told.len(), 1, "{end:?}: {number}");
        // The kernel had room for the first two of all.
        assert!(if number == 0 { waited.is_ok() } else { is_lost(&waited) }, "{end:?}: {number} {waited:?}");
        assert!(if number == 0 { told[0].is_ok() } else { is_lost(&told[0]) }, "{end:?}: {number} {told:?}");
    }
    assert_eq!(told.lock().len(), 9, "{end:?}");
    world.abort();
    world.run_to_rest();
    world.assert_gone();
    assert_eq!(world.metrics().panics, u64::from(matches!(end, End::Panic)));
}

#[test]
fn every_ticket_is_decided_once_however_the_session_ends() {
    let pool = Setup { workers: 2, ..Setup::default() };
    for setup in [Setup::default(), pool, Setup { forks: 4, ..Setup::default() }] {
        let alone = setup.workers + setup.forks == 0;
        let by_deadline = |end: End| matches!(end, End::Stalls | End::PeerEndsAndStalls);
        for (end, kind) in ENDS.into_iter().filter(|(end, _)| alone || !by_deadline(*end)) {
            ends_in(&setup, end, kind);
        }
    }
}

#[test]
fn what_was_sent_before_a_graceful_close_is_written() {
    for setup in [Setup::default(), Setup { forks: 1, ..Setup::default() }] {
        let (kept, handle) = handles();
        let mut world = world(setup, &kept);
        let conn = world.connect();
        world.run_for(5);
        let told = Outcomes::default();
        for number in 0..2_000u32 {
            let sent = handle(0).send_then(number.to_be_bytes(), told.note(number));
            assert_eq!(sent, Ok(()));
        }
        assert_eq!(handle(0).close(), Ok(()));
        let expected: Vec<u8> = (0..2_000u32).flat_map(|number| frame(&number.to_be_bytes())).collect();
        assert_eq!(world.expect(conn, expected.len()), expected);
        world.net().leave(conn);
        world.run_to_rest();
        let expected: Vec<_> = (0..2_000).map(|number| (number, Ok(()))).collect();
        assert_eq!(*told.lock(), expected, "in order, too");
        world.abort();
        world.run_to_rest();
        world.assert_gone();
    }
}

#[test]
fn a_closure_may_send_again_and_its_panic_is_counted() {
    let (kept, handle) = handles();
    let mut world = world(Setup::default(), &kept);
    let conn = world.connect();
    world.run_for(5);
    let (session, told) = (handle(0), Outcomes::default());
    let (again, note) = (session.clone(), told.note(2));
    session
        .send_then("one", move |outcome| {
            assert_eq!(outcome, Ok(()));
            let _ = again.send_then("two", note);
        })
        .expect("there is room");
    session.send_then("three", |_| panic!("as asked for")).expect("there is room");
    let expected = [frame(b"one"), frame(b"three"), frame(b"two")].concat();
    assert_eq!(world.expect(conn, expected.len()), expected);
    world.run_for(5);
    assert_eq!(told.of(2), [Ok(())]);
    assert_eq!((world.metrics().panics, world.log.closes().len()), (1, 0), "it closes no session");
    world.net().leave(conn);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_closure_that_sends_again_when_it_is_refused_is_called_once_in_each_turn() {
    const TIMES: usize = 50;
    fn insist(session: SessionHandle, told: Outcomes) {
        let again = session.clone();
        let _ = session.send_then(vec![0; 1 << 20], move |outcome| {
            told.lock().push((0, outcome));
            if told.lock().len() < TIMES {
                insist(again, told);
            }
        });
    }
    let (kept, handle) = handles();
    let mut world =
        World::new(Setup { limits: Limits::default().outbox_hard(4096), ..Setup::default() }, |probe| {
            let kept = kept.clone();
            probe.open = Box::new(move |session, ()| {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(session.handle());
                Ok(())
            });
        });
    let (first, second) = (world.connect(), world.connect());
    world.run_for(5);
    let (session, told) = (handle(0), Outcomes::default());
    let begins = told.clone();
    // On the shard's thread, where each refusal is told at the end of a turn.
    handle(1).send_then("go", move |_| insist(session, begins)).expect("there is room");
    assert_eq!(world.expect(second, 6), frame(b"go"));
    for turns in 1..=TIMES {
        world.net().say(second, &frame(b"x"));
        world.turn();
        assert!(told.lock().len() <= turns + 1, "{turns} turns");
        assert_eq!(world.net().hear_all(second), frame(b"x"), "others are served in each turn");
    }
    world.turn();
    assert_eq!(told.lock().len(), TIMES);
    assert!(told.lock().iter().all(|(_, outcome)| matches!(outcome, Err(TicketError::Refused(_)))));
    world.net().leave(first);
    world.net().leave(second);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_closure_that_sends_again_is_called_although_nothing_else_happens() {
    let (kept, handle) = handles();
    let mut world = world(Setup::default(), &kept);
    let conn = world.connect();
    world.run_for(5);
    let (session, told) = (handle(0), Outcomes::default());
    let (again, late) = (session.clone(), told.note(2));
    session
        .send_then("first", move |_| {
            // Outcomes at the end of the next turn, since it is refused at once.
            let _ = again.send_then(vec![0; 1 << 30], late);
        })
        .expect("there is room");
    world.expect(conn, 9);
    let now = world.now();
    world.net().at(now + 1_000, |_| ());
    world.turn();
    assert!(matches!(told.of(2)[..], [Err(TicketError::Refused(_))]), "{:?}", told.of(2));
    assert_eq!(world.now(), now, "the poll does not wait while something is left to be told");
    world.net().leave(conn);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn who_waits_within_a_callback_is_refused() {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let kept = seen.clone();
    let mut world = World::new(Setup::default(), move |probe| {
        let seen = kept.clone();
        probe.packet = Box::new(move |session, _| {
            let me = session.handle();
            let ticket = me.send_tracked("x")?;
            let waited = [ticket.wait(), ticket.wait_timeout(Duration::MAX)];
            let sent = me.send_waiting("y", Duration::MAX);
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.extend(waited.map(|outcome| format!("{outcome:?}")));
            seen.push(format!("{sent:?}"));
            Ok(())
        });
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"go"));
    assert_eq!(world.expect(conn, 5), frame(b"x"));
    assert_eq!(*seen.lock().unwrap_or_else(PoisonError::into_inner), ["Err(WouldDeadlock)"; 3]);
}
