//! Sessions that outlive the peer's end of the stream, or the beginning of a shutdown, because their handler says so.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    SessionHandle,
    error::CloseKind,
    handler::Then,
    limits::Limits,
    sim::{Callback, Heard, Setup, World, frame},
};

type Handles = Arc<Mutex<Vec<SessionHandle>>>;

/// A world whose sessions stay when their peer ends its side, and handles to them.
fn staying(limits: Limits, workers: usize) -> (World, Handles) {
    let handles = Handles::default();
    let known = handles.clone();
    let world = World::new(Setup { limits, workers, ..Setup::default() }, move |probe| {
        let known = known.clone();
        probe.open = Box::new(move |session, ()| {
            known.lock().unwrap_or_else(PoisonError::into_inner).push(session.handle());
            Ok(())
        });
        probe.packet = Box::new(|_, _| Ok(()));
        probe.end = Box::new(|_, ()| Ok(Then::Stay));
    });
    (world, handles)
}

fn first(handles: &Handles) -> SessionHandle {
    handles.lock().unwrap_or_else(PoisonError::into_inner)[0].clone()
}

#[test]
fn an_answer_that_comes_after_the_peers_end_is_delivered_when_the_handler_stays() {
    for workers in [0, 2] {
        let (mut world, handles) = staying(Limits::default(), workers);
        let conn = world.connect();
        world.run_for(1);
        world.net().say(conn, &[frame(b"one"), frame(b"two")].concat());
        world.net().end(conn);
        world.run_until(5_000);
        assert_eq!((world.log.count(&Callback::End), world.log.closes()), (1, vec![]));
        let session = first(&handles);
        assert_eq!(session.send("computed elsewhere"), Ok(()));
        assert_eq!(session.close(), Ok(()));
        let answer = frame(b"computed elsewhere");
        assert_eq!(world.expect(conn, answer.len()), answer);
        world.run_to_rest();
        assert_eq!(world.hears(conn), Heard::End);
        assert_eq!(
            world.log.closes(),
            [(5_000, CloseKind::Local)],
            "without waiting for an end that was seen"
        );
        let told: Vec<_> = world.log.lines().into_iter().map(|(_, _, told)| told).collect();
        assert_eq!(
            told[1..4],
            [Callback::Packet(b"one".into()), Callback::Packet(b"two".into()), Callback::End]
        );
        world.assert_empty();
    }
}

#[test]
fn the_end_is_told_once_however_often_a_session_that_stays_is_resumed() {
    let (mut world, handles) = staying(Limits::default(), 0);
    let conn = world.connect();
    world.run_for(1);
    let session = first(&handles);
    assert_eq!(session.pause(), Ok(()));
    world.run_for(1);
    world.net().end(conn);
    world.run_for(10);
    assert_eq!(world.log.count(&Callback::End), 0, "not while it is paused");
    for _ in 0..3 {
        assert_eq!((session.resume(), session.pause()), (Ok(()), Ok(())));
        world.run_for(10);
    }
    assert_eq!(session.resume(), Ok(()));
    world.run_for(10);
    assert_eq!((world.log.count(&Callback::End), world.log.closes()), (1, vec![]));
    assert_eq!(session.abort(), Ok(()));
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_session_that_stays_after_the_peers_end_is_bounded_by_the_idle_timeout_alone() {
    let limits = Limits::default()
        .idle_timeout(Duration::from_millis(700))
        .first_packet_timeout(Duration::from_millis(300))
        .packet_timeout(Duration::from_millis(100));
    let (mut world, _handles) = staying(limits, 0);
    let conn = world.connect();
    world.run_until(50);
    world.net().end(conn);
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(700, CloseKind::Idle)]);
    world.assert_empty();
}

#[test]
fn a_session_that_stays_ends_at_once_when_its_connection_fails() {
    for writes in [false, true] {
        let (mut world, handles) = staying(Limits::default(), 0);
        let conn = world.connect();
        world.run_for(1);
        world.net().end(conn);
        world.run_until(100);
        world.net().reset(conn);
        if writes {
            assert_eq!(first(&handles).send("to nobody"), Ok(()));
        }
        world.run_to_rest();
        assert_eq!(world.log.closes(), [(100, CloseKind::Io)]);
        world.assert_empty();
    }
}

#[test]
fn a_session_that_stays_in_a_shutdown_is_served_until_its_handler_closes_it() {
    for workers in [0, 2] {
        let mut world = World::new(Setup { workers, ..Setup::default() }, |probe| {
            probe.shutdown = Box::new(|session, ()| {
                session.send("finish your work")?;
                Ok(Then::Stay)
            });
            probe.packet = Box::new(|session, packet| {
                session.send(packet)?;
                if packet == b"done" {
                    session.close();
                }
                Ok(())
            });
        });
        let (worker, idler) = (world.connect(), world.connect());
        world.run_until(10);
        world.shut_down(Duration::from_millis(1_000));
        world.run_until(500);
        assert_eq!(world.log.closes(), []);
        world.net().say(worker, &[frame(b"more"), frame(b"done")].concat());
        let answer = [frame(b"finish your work"), frame(b"more"), frame(b"done")].concat();
        assert_eq!(world.expect(worker, answer.len()), answer);
        assert_eq!(world.net().hear_all(idler), frame(b"finish your work"));
        world.net().leave(worker);
        world.run_to_rest();
        assert_eq!(world.log.closes(), [(500, CloseKind::Local), (1_010, CloseKind::Shutdown)]);
        assert_eq!(world.log.count(&Callback::Shutdown), 2, "each is told once");
        assert!(world.net().was_reset(idler) && world.has_stopped());
        world.assert_empty();
    }
}

#[test]
fn a_failure_in_on_end_or_on_shutdown_is_the_reason_of_the_close() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.end = Box::new(|_, ()| Err(crate::Failure::because("no more work")));
        probe.shutdown = Box::new(|_, ()| Err(crate::Failure::because("no farewell")));
    });
    let (ends, _stays) = (world.connect(), world.connect());
    world.run_until(10);
    world.net().end(ends);
    world.run_until(20);
    assert_eq!(world.log.closes(), [(10, CloseKind::Handler)]);
    world.shut_down(Duration::from_millis(100));
    world.run_to_rest();
    assert_eq!(world.log.closes().last().map(|(_, kind)| *kind), Some(CloseKind::Handler));
    world.assert_empty();
}
