//! A thread of one connection whose peer sends and waits for the reply, again and again: it sleeps in the read, not in
//! its poll, and must not miss anything for it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    CloseKind,
    id::ShardId,
    session::{SessionHandle, TimerId},
    sim::{Callback, Conn, Heard, Setup, World, frame},
};

/// Rounds after which a thread sleeps in the read, at the latest.
const ROUNDS: u32 = 40;

fn setup() -> Setup {
    Setup { forks: 4, ..Setup::default() }
}

/// The peer sends, and has its reply before it sends again.
fn keep_in_step(world: &mut World, conn: Conn, rounds: u32) {
    for round in 0..rounds {
        let packet = frame(&round.to_be_bytes());
        world.net().say(conn, &packet);
        world.turn_shard(ShardId::new(1));
        let heard = world.net().hear_all(conn);
        assert_eq!(if heard.is_empty() { world.expect(conn, packet.len()) } else { heard }, packet);
    }
}

fn in_step(change: impl Fn(&mut crate::sim::Probe)) -> (World, Conn) {
    let mut world = World::new(setup(), change);
    let conn = world.connect();
    keep_in_step(&mut world, conn, ROUNDS);
    (world, conn)
}

/// The peer ends its side, and the session has ended for this reason.
fn finish(mut world: World, conn: Conn, kind: CloseKind) {
    world.net().end(conn);
    world.run_to_rest();
    assert_eq!(world.metrics().closed(kind), 1);
    world.assert_empty();
}

#[test]
fn a_peer_in_step_is_rarely_polled_for() {
    let (mut world, conn) = in_step(|_| {});
    let before = world.net().polls;
    keep_in_step(&mut world, conn, 640);
    let polls = world.net().polls - before;
    assert!((1..64).contains(&polls), "{polls} polls for 640 packets");
    finish(world, conn, CloseKind::PeerClosed);
}

#[test]
fn a_command_of_another_thread_reaches_a_session_that_is_in_step() {
    let known: Arc<Mutex<Option<SessionHandle>>> = Arc::default();
    let store = known.clone();
    let (mut world, conn) = in_step(move |probe| {
        let store = store.clone();
        probe.open = Box::new(move |session, ()| {
            *store.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.handle());
            Ok(())
        });
    });
    let session = known.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap();
    for _ in 0..3 {
        session.send("told").unwrap();
        assert_eq!(world.expect(conn, 8), frame(b"told"));
        keep_in_step(&mut world, conn, ROUNDS);
    }
    session.close().unwrap();
    world.run_for(5);
    assert_eq!(world.hears(conn), Heard::End);
    finish(world, conn, CloseKind::Local);
}

#[test]
fn a_timer_that_is_set_in_step_is_not_late() {
    let (mut world, conn) = in_step(|probe| {
        probe.packet = Box::new(|session, packet| {
            session.set_timer(TimerId(1), Duration::from_millis(50))?;
            Ok(session.send(packet)?)
        });
    });
    let set_at = world.now();
    world.run_for(60);
    let fired: Vec<_> =
        world.log.lines().iter().filter(|line| line.2 == Callback::Timer(1)).map(|line| line.0).collect();
    assert_eq!(fired, [set_at + 50]);
    finish(world, conn, CloseKind::PeerClosed);
}

#[test]
fn the_end_of_a_peer_in_step_is_its_end() {
    let (world, conn) = in_step(|_| {});
    finish(world, conn, CloseKind::PeerClosed);
    let (mut world, conn) = in_step(|_| {});
    world.net().reset(conn);
    world.run_to_rest();
    assert_eq!(world.metrics().closed(CloseKind::Io), 1);
    world.assert_empty();
}

#[test]
fn a_silent_peer_that_was_in_step_times_out_in_time() {
    let idle = Duration::from_millis(500);
    let mut world =
        World::new(Setup { limits: crate::Limits::default().idle_timeout(idle), ..setup() }, |_| {});
    let conn = world.connect();
    keep_in_step(&mut world, conn, ROUNDS);
    world.run_for(495);
    assert_eq!(world.hears(conn), Heard::Nothing);
    world.run_for(10);
    assert_eq!(world.hears(conn), Heard::End);
    finish(world, conn, CloseKind::Idle);
}

#[test]
fn a_server_whose_sessions_are_in_step_shuts_down() {
    for abort in [false, true] {
        let (mut world, conn) = in_step(|_| {});
        if abort {
            world.abort();
        } else {
            world.shut_down(Duration::from_secs(5));
        }
        world.run_for(10);
        assert!(matches!(world.hears(conn), Heard::End | Heard::Reset));
        world.net().end(conn);
        world.run_to_rest();
        world.assert_gone();
    }
}
