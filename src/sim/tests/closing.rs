//! The end of a session as its handler learns of it: `on_closing` when it begins, `on_close` when it is over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    error::CloseKind,
    limits::Limits,
    shard::Command,
    sim::{Callback, Conn, Heard, Setup, World, frame},
    time::Tick,
};

/// One reactor, and a pool.
const WORKERS: [usize; 2] = [0, 2];

fn closings(world: &World) -> Vec<(Tick, CloseKind)> {
    let lines = world.log.lines().into_iter();
    lines
        .filter_map(|(at, _, told)| if let Callback::Closing(kind) = told { Some((at, kind)) } else { None })
        .collect()
}

#[test]
fn closing_is_told_in_the_turn_that_began_it_and_close_when_the_peer_lets_go() {
    for workers in WORKERS {
        let mut setup = Setup { workers, ..Setup::default() };
        setup.sizes.down = 1_000;
        let mut world = World::new(setup, |probe| {
            let within = Arc::new(AtomicBool::new(false));
            let outside = within.clone();
            probe.packet = Box::new(move |session, _| {
                within.store(true, Relaxed);
                session.send([7; 5_000])?;
                session.close();
                session.close();
                within.store(false, Relaxed);
                Ok(())
            });
            probe.closing = Box::new(move |_| assert!(!outside.load(Relaxed), "called within a callback"));
        });
        let conn = world.connect();
        world.run_until(100);
        world.net().say(conn, &[frame(b"go"), frame(b"never seen")].concat());
        world.run_for(1);
        // Its outbox is not flushed, and then its end is not sent.
        assert_eq!(closings(&world), [(100, CloseKind::Local)]);
        assert_eq!(world.log.closes(), []);
        assert_eq!(world.expect(conn, 5_004).len(), 5_004);
        world.run_for(50);
        assert_eq!((world.hears(conn), world.log.closes()), (Heard::End, vec![]));
        world.net().leave(conn);
        world.run_to_rest();
        assert_eq!(closings(&world).len(), 1);
        world.assert_empty();
    }
}

/// How a session ends at once, and what it then ends for.
type AtOnce = (fn(&mut World, Conn), CloseKind);

#[test]
fn a_session_that_ends_at_once_is_told_of_its_closing_first() {
    let ways: [AtOnce; 5] = [
        (|world, conn| world.net().reset(conn), CloseKind::Io),
        (|world, conn| world.net().leave(conn), CloseKind::PeerClosed),
        (|world, conn| assert!(world.net().say(conn, &frame(b"abort")) > 0), CloseKind::Local),
        (|world, _| world.post(0, Command::Abort), CloseKind::Shutdown),
        // The peer takes nothing.
        (|world, conn| assert!(world.net().say(conn, &frame(b"much")) > 0), CloseKind::Stalled),
    ];
    for (end, kind) in ways {
        let limits = Limits::default().stall_timeout(Duration::from_secs(3));
        let mut setup = Setup { limits, ..Setup::default() };
        setup.sizes.down = 1_000;
        let mut world = World::new(setup, |probe| {
            probe.packet = Box::new(|session, packet| {
                if packet == b"abort" {
                    session.abort();
                    return Ok(());
                }
                Ok(session.send([7; 5_000])?)
            });
        });
        let conn = world.connect();
        world.run_until(100);
        end(&mut world, conn);
        world.run_to_rest();
        assert_eq!(closings(&world), world.log.closes(), "both at once, for the same reason");
        assert_eq!(closings(&world).iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), [kind]);
        world.assert_empty();
    }
}

#[test]
fn a_close_that_fails_is_told_with_the_reason_that_began_it_and_ends_with_what_ended_it() {
    let limits =
        Limits::default().stall_timeout(Duration::from_secs(1)).close_timeout(Duration::from_secs(60));
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.down = 1_000;
    let mut world = World::new(setup, |probe| {
        probe.packet = Box::new(|session, _| Ok(session.send([7; 5_000])?));
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"go"));
    world.net().end(conn);
    world.run_to_rest();
    let kinds = |told: Vec<(Tick, CloseKind)>| told.into_iter().map(|(_, kind)| kind).collect::<Vec<_>>();
    assert_eq!(kinds(closings(&world)), [CloseKind::PeerClosed]);
    assert_eq!(kinds(world.log.closes()), [CloseKind::Stalled]);
    world.assert_empty();
}

#[test]
fn a_session_refused_in_on_open_is_not_told_of_its_closing() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.open = Box::new(|_, ()| Err(crate::Failure::because("banned")));
    });
    let conn = world.connect();
    world.run_for(1);
    world.net().leave(conn);
    world.run_to_rest();
    assert_eq!(world.log.lines(), []);
    world.assert_empty();
}

#[test]
fn a_panic_in_on_closing_is_counted_and_the_session_goes_on_closing() {
    for workers in WORKERS {
        let mut world = World::new(Setup { workers, ..Setup::default() }, |probe| {
            probe.packet = Box::new(|session, packet| {
                session.send(packet)?;
                session.close();
                Ok(())
            });
            probe.closing = Box::new(|_| panic!("a handler's own mistake"));
        });
        let conn = world.connect();
        world.net().say(conn, &frame(b"goodbye"));
        world.run_for(1);
        assert_eq!(world.net().hear_all(conn), frame(b"goodbye"));
        assert_eq!(world.hears(conn), Heard::End);
        world.net().leave(conn);
        world.run_to_rest();
        assert_eq!(world.metrics().panics, 1);
        assert_eq!(world.log.closes().len(), 1);
        world.assert_empty();
    }
}
