//! What subscribers are told, in virtual time.

use std::{fmt::Debug, time::Duration};

use crate::{
    TimerId,
    error::{CloseKind, Failure, RefusalCause},
    events::{Event, Events},
    id::SessionId,
    limits::Limits,
    sim::{Probe, Setup, World, errno, frame},
    time::Tick,
};

/// One reactor, a pool, and a thread for each connection.
const STRATEGIES: [(usize, usize); 3] = [(0, 0), (2, 0), (0, 100)];

fn world(setup: Setup, capacity: usize, change: impl Fn(&mut Probe)) -> (World, Events) {
    let world = World::new(setup, change);
    let events = Events::new(capacity, vec![world.registry.hub().clone()]);
    (world, events)
}

/// Calls that were slow: for which session, which callback, and how many milliseconds.
fn slow(events: &Events) -> Vec<(Option<SessionId>, &'static str, u128)> {
    let slow = |event| match event {
        Event::SlowCallback { session, callback, took, .. } => Some((session, callback, took.as_millis())),
        _ => None,
    };
    events.try_iter().filter_map(slow).collect()
}

/// A handler that blocks, in `on_packet`, for as many milliseconds as the packet says.
fn block_as_told(probe: &mut Probe) {
    let block = probe.block();
    probe.packet = Box::new(move |session, packet| {
        block(std::str::from_utf8(packet).ok().and_then(|text| text.parse().ok()).unwrap_or(0));
        Ok(session.send(packet)?)
    });
}

#[test]
fn the_packet_of_many_that_was_slow_is_told_with_its_session_and_its_time() {
    let (mut world, events) = world(Setup::default(), 100, block_as_told);
    let conns: Vec<_> = (0..20).map(|_| world.connect()).collect();
    world.run_for(10);
    for (nth, conn) in conns.iter().enumerate() {
        let millis: &[Tick] = if nth == 7 { &[1, 150, 0, 100, 101, 2] } else { &[0, 4, 4] };
        let packets: Vec<u8> =
            millis.iter().flat_map(|millis| frame(millis.to_string().as_bytes())).collect();
        world.net().say(*conn, &packets);
    }
    world.run_for(1_000);
    let told = slow(&events);
    let times: Vec<_> = told.iter().map(|(_, callback, took)| (*callback, *took)).collect();
    assert!(times.contains(&("on_packet", 150)), "{times:?}");
    assert!(times.iter().all(|(callback, took)| *callback == "on_packet" && *took > 100), "{times:?}");
    let sessions: Vec<_> = told.iter().map(|(session, ..)| session.expect("it is a session's")).collect();
    let busy = world.log.lines().iter().find(|(_, _, told)| told_packet(told, b"150")).map(|(_, id, _)| *id);
    assert!(sessions.iter().all(|session| Some(*session) == busy), "{sessions:?}");
    assert_eq!(world.metrics().packets_in, 6 + 19 * 3);
}

fn told_packet(told: &crate::sim::Callback, packet: &[u8]) -> bool {
    matches!(told, crate::sim::Callback::Packet(bytes) if bytes == packet)
}

#[test]
fn packets_that_are_slow_only_together_are_not_told() {
    let (mut world, events) = world(Setup::default(), 100, block_as_told);
    let conn = world.connect();
    world.run_for(10);
    world.net().say(conn, &frame(b"9").repeat(40));
    world.run_for(1_000);
    assert_eq!((world.metrics().packets_in, slow(&events)), (40, vec![]));
}

#[test]
fn every_callback_is_told_by_its_name() {
    let (mut world, events) = world(Setup::default(), 100, |probe| {
        let block = probe.block();
        probe.open = Box::new(move |session, ()| {
            block(110);
            Ok(session.set_timer(TimerId(1), Duration::from_millis(50))?)
        });
        let block = probe.block();
        probe.timer = Box::new(move |_, _| {
            block(120);
            Ok(())
        });
        let block = probe.block();
        probe.end = Box::new(move |_, ()| {
            block(130);
            Ok(crate::Then::Close)
        });
        let block = probe.block();
        probe.closing = Box::new(move |_| block(140));
    });
    let conn = world.connect();
    world.run_for(1_000);
    world.net().leave(conn);
    world.run_to_rest();
    let slow = slow(&events);
    assert!(slow.iter().all(|(session, ..)| session.is_some()), "{slow:?}");
    let told: Vec<_> = slow.into_iter().map(|(_, callback, took)| (callback, took)).collect();
    assert_eq!(told, [("on_open", 110), ("on_timer", 120), ("on_end", 130), ("on_closing", 140)]);
}

#[test]
fn a_slow_strategy_and_a_slow_job_are_told_and_blamed_on_no_session() {
    let setup = Setup { place_takes: 150, ..Setup::default() };
    let (mut world, events) = world(setup, 100, |probe| {
        let block = probe.block();
        probe.start = Box::new(|shard, _| {
            let _ = shard.set_timer(TimerId(1), Duration::from_secs(5));
        });
        probe.shard_timer = Box::new(move |_, _| block(160));
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"hello"));
    world.run_for(10_000);
    assert_eq!(slow(&events), [(None, "place", 150), (None, "on_shard_timer", 160)]);
}

#[test]
fn the_clock_is_watched_only_while_there_is_a_subscriber() {
    let (mut world, events) = world(Setup::default(), 100, block_as_told);
    let conn = world.connect();
    world.run_for(10);
    let work = |world: &mut World| {
        world.net().say(conn, &frame(b"150"));
        world.run_for(1_000);
    };
    drop(events);
    work(&mut world);
    let events = Events::new(100, vec![world.registry.hub().clone()]);
    assert_eq!(slow(&events), [], "that was before");
    work(&mut world);
    assert_eq!(slow(&events).len(), 1);
}

#[test]
fn subscribers_that_read_nothing_hold_up_nobody() {
    for (workers, forks) in STRATEGIES {
        let (mut world, events) = world(Setup { workers, forks, ..Setup::default() }, 10, |_| ());
        for _ in 0..100 {
            let conn = world.connect();
            world.net().say(conn, &frame(b"hello"));
            assert_eq!(world.expect(conn, 9), frame(b"hello"));
            world.net().leave(conn);
            world.run_for(1);
        }
        world.run_for(50);
        assert_eq!(world.metrics().closed_total(), 100, "{workers} workers, {forks} forks");
        assert_eq!((events.dropped(), events.try_iter().count()), (90, 10));
        world.assert_empty();
    }
}

/// What is told, but for the peers.
fn told(events: &Events) -> Vec<String> {
    let told = |event| match event {
        Event::Refused { cause, reason, .. } => {
            format!("refused {} {:?}", cause.name(), reason.map(|r| r.kind()))
        }
        Event::Closed { reason, .. } => format!("closed {reason}"),
        Event::Panicked { session, callback, message, .. } => {
            format!("panic in {callback}: {message}, of a session: {}", session.is_some())
        }
        other => other.to_string(),
    };
    events.try_iter().map(told).collect()
}

fn same<T: PartialEq + Debug>(told: Vec<T>, expected: &[T]) {
    assert_eq!(told, expected);
}

#[test]
fn ends_refusals_and_panics_are_told_on_every_strategy() {
    for (workers, forks) in STRATEGIES {
        let (mut world, events) = world(Setup { workers, forks, ..Setup::default() }, 100, |probe| {
            probe.packet = Box::new(|session, packet| match packet {
                b"panic" => std::panic::resume_unwind(Box::new("on purpose")),
                b"fail" => Err(Failure::because("no such user")),
                other => Ok(session.send(other)?),
            });
            let mut opened = 0;
            probe.open = Box::new(move |_, ()| {
                opened += 1;
                if opened == 3 { Err(Failure::because("the third")) } else { Ok(()) }
            });
        });
        let mut ends = Vec::new();
        for packet in [&b"panic"[..], b"fail"] {
            let conn = world.connect();
            world.net().say(conn, &frame(packet));
            world.run_for(50);
            world.net().leave(conn);
            world.run_for(50);
            ends.extend(told(&events));
        }
        let expected = [
            "panic in on_packet: (no message), of a session: true",
            "closed panic in on_packet: (no message)",
            "closed handler: no such user",
        ];
        let expected = expected.map(|line| line.replace("(no message)", "on purpose"));
        same(ends, &expected);
        if (workers, forks) == (0, 0) {
            let conn = world.connect();
            world.run_for(50);
            world.net().leave(conn);
            world.run_for(50);
            same(told(&events), &["refused handler Some(Handler)".to_owned()]);
            assert_eq!(world.metrics().refused(RefusalCause::Handler), 1);
        }
        assert_eq!(world.metrics().closed(CloseKind::Panicked), 1);
    }
}

#[test]
fn a_pause_of_accepting_is_told_once_and_so_is_its_end() {
    let (mut world, events) = world(Setup { connections: 1, ..Setup::default() }, 100, |_| ());
    let first = world.connect();
    world.run_for(10);
    let second = world.connect();
    world.run_for(1_000);
    assert!(world.metrics().accept_pauses > 5, "it has tried again and again");
    same(told(&events), &["shard 0 does not accept, clients wait: the server is full".to_owned()]);
    world.net().leave(first);
    world.run_for(1_000);
    let full = "shard 0 does not accept, clients wait: the server is full";
    let (closed, again) = ("closed the peer closed", "shard 0 accepts again");
    same(told(&events), &[closed, again, full].map(str::to_owned));
    world.net().leave(second);
    world.run_for(1_000);
    same(told(&events), &[closed, again].map(str::to_owned));
}

#[test]
fn a_shortage_of_descriptors_is_told_with_its_error() {
    let (mut world, events) = world(Setup::default(), 100, |_| ());
    world.net().faults.forbidden = Some((world.listeners()[0], errno::EMFILE));
    let conn = world.connect();
    world.run_for(1_000);
    let paused = told(&events);
    let [paused] = &paused[..] else { panic!("{paused:?}") };
    assert!(paused.starts_with("shard 0 cannot accept, clients wait: "), "{paused}");
    world.net().faults.forbidden = None;
    world.run_for(1_000);
    same(told(&events), &["shard 0 accepts again".to_owned()]);
    world.net().leave(conn);
}

#[test]
fn who_is_refused_for_its_peer_is_told() {
    let setup = Setup { limits: Limits::default().connections_per_peer(1), ..Setup::default() };
    let (mut world, events) = world(setup, 100, |_| ());
    let conns = [world.connect(), world.connect()];
    world.run_for(10);
    same(told(&events), &["refused peer_limit None".to_owned()]);
    conns.into_iter().for_each(|conn| world.net().leave(conn));
}

#[test]
fn a_subscription_ends_with_the_server() {
    for (workers, forks) in STRATEGIES {
        let (mut world, events) = world(Setup { workers, forks, ..Setup::default() }, 100, |_| ());
        let conn = world.connect();
        world.run_for(50);
        world.abort();
        world.run_to_rest();
        world.net().leave(conn);
        world.assert_gone();
        let told: Vec<_> = events.iter().map(|event| event.to_string()).collect();
        let [end] = &told[..] else { panic!("{told:?}") };
        assert!(end.contains("has ended: server shutdown"), "{end}");
    }
}
