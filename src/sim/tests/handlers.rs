//! What handlers may do: close themselves, each other and all sessions, send to themselves, panic, and stop the server.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    SessionHandle,
    error::{CloseKind, Failure, Handled},
    shard::Command,
    sim::{Callback, Heard, Probe, Setup, World, frame},
};

type Handles = Arc<Mutex<Vec<SessionHandle>>>;

/// A world whose handler knows a handle of every session.
fn world_with(
    setup: Setup,
    packet: impl Fn(&mut crate::Session<'_>, &[u8], &[SessionHandle]) -> Handled + Clone + Send + 'static,
) -> World {
    let handles = Handles::default();
    World::new(setup, |probe: &mut Probe| {
        let (joined, handles, packet) = (handles.clone(), handles.clone(), packet.clone());
        probe.open = Box::new(move |session, ()| {
            joined.lock().expect("one thread").push(session.handle());
            Ok(())
        });
        probe.packet = Box::new(move |session, bytes| {
            let handles = handles.lock().expect("one thread").clone();
            packet(session, bytes, &handles)
        });
    })
}

#[test]
fn a_session_that_closes_itself_is_told_nothing_more() {
    for abort in [false, true] {
        let mut world = world_with(Setup::default(), move |session, packet, _| {
            session.send(packet)?;
            if abort {
                session.abort()
            } else {
                session.close()
            }
            session.close();
            assert!(session.send("too late").is_err());
            Ok(())
        });
        let conn = world.connect();
        let twice = [frame(b"a"), frame(b"b")].concat();
        world.net().say(conn, &twice);
        world.run_for(1);
        world.net().say(conn, &twice);
        world.run_to_rest();
        assert_eq!(world.log.count(&Callback::Packet(b"a".to_vec())), 1);
        assert_eq!(world.log.count(&Callback::Packet(b"b".to_vec())), 0);
        let heard = world.hears(conn);
        assert_eq!(heard, if abort { Heard::Reset } else { Heard::Bytes(frame(b"a")) });
        world.assert_empty();
    }
}

#[test]
fn one_session_may_end_all_sessions() {
    for workers in [0, 3] {
        for abort in [false, true] {
            let mut world = world_with(Setup { workers, ..Setup::default() }, move |_, _, all| {
                for handle in all {
                    let _ = if abort { handle.abort() } else { handle.close() };
                }
                Ok(())
            });
            let conns: Vec<_> = (0..50).map(|_| world.connect()).collect();
            world.run_for(1);
            conns.iter().for_each(|conn| assert!(world.net().say(*conn, &frame(b"end all")) > 0));
            world.run_for(10);
            conns.iter().for_each(|conn| world.net().leave(*conn));
            world.run_to_rest();
            assert_eq!(world.log.closes().len(), 50);
            assert!(world.log.closes().iter().all(|(_, kind)| *kind == CloseKind::Local));
            world.assert_empty();
        }
    }
}

#[test]
fn ten_thousand_sends_of_a_session_to_itself_arrive_in_order() {
    let mut world = world_with(Setup::default(), |session, _, _| {
        let handle = session.handle();
        (0..10_000_u32).try_for_each(|number| handle.send(number.to_be_bytes()))?;
        Ok(())
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"go"));
    let expected: Vec<u8> = (0..10_000_u32).flat_map(|number| frame(&number.to_be_bytes())).collect();
    assert_eq!(world.expect(conn, expected.len()), expected);
    world.net().leave(conn);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_panic_in_a_callback_ends_its_session_and_nobody_elses() {
    let mut world = world_with(Setup::default(), |session, packet, _| {
        assert_ne!(packet, b"boom", "a handler's own mistake");
        Ok(session.send(packet)?)
    });
    let [good, bad] = [(); 2].map(|()| world.connect());
    world.net().say(bad, &[frame(b"before"), frame(b"boom"), frame(b"after")].concat());
    world.net().say(good, &frame(b"fine"));
    world.run_for(1);
    assert_eq!(world.net().hear_all(good), frame(b"fine"));
    assert_eq!(world.net().hear_all(bad), frame(b"before"));
    assert_eq!(world.hears(bad), Heard::End);
    world.net().leave(bad);
    world.run_for(1);
    assert_eq!(world.log.closes().last().map(|(_, kind)| *kind), Some(CloseKind::Panicked));
    assert_eq!(world.metrics().panics, 1);
    world.net().leave(good);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_session_refused_in_on_open_leaves_nothing() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.open = Box::new(|session, ()| {
            session.send("not you")?;
            Err(Failure::because("banned"))
        });
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"let me in"));
    world.run_for(1);
    assert_eq!(world.net().hear_all(conn), frame(b"not you"));
    assert_eq!(world.hears(conn), Heard::End);
    world.net().end(conn);
    world.run_to_rest();
    assert_eq!(world.log.lines(), [], "the handler has refused it and hears no more of it");
    world.assert_empty();
}

#[test]
fn a_shutdown_in_the_midst_of_everything_ends_everything_within_its_grace() {
    for (workers, turns) in [(0, 0), (0, 1), (0, 3), (0, 9), (2, 0), (2, 4), (2, 9)] {
        let mut setup = Setup { workers, ..Setup::default() };
        setup.sizes.down = 2_000;
        let mut world = world_with(setup, |session, packet, all| {
            all.iter().for_each(|handle| drop(handle.send(packet)));
            Ok(session.send([7; 10_000])?)
        });
        let conns: Vec<_> = (0..30).map(|_| world.connect()).collect();
        for (at, conn) in conns.iter().copied().enumerate() {
            world.net().say(conn, &frame(&[at as u8; 100])[..if at % 3 == 0 { 50 } else { 104 }]);
            match at % 5 {
                0 => world.net().end(conn),
                1 => world.net().reset(conn),
                2 => world.net().at(1_000, move |net| net.leave(conn)),
                _ => {}
            }
        }
        for _ in 0..turns {
            world.step();
        }
        let from = world.now();
        world.shut_down(Duration::from_millis(1_500));
        world.shut_down(Duration::from_millis(9_000));
        world.run_to_rest();
        assert!(world.has_stopped());
        assert!(world.now() <= from + 1_500, "{} ms", world.now() - from);
        world.assert_empty();
    }
}

#[test]
fn an_abort_of_the_server_resets_everybody_at_once() {
    let mut world = World::new(Setup::default(), |_| {});
    let conns: Vec<_> = (0..5).map(|_| world.connect()).collect();
    world.run_until(5);
    world.post(0, Command::Abort);
    world.run_to_rest();
    assert!(world.has_stopped());
    assert!(conns.iter().all(|conn| world.network.lock().was_reset(*conn)));
    assert_eq!(world.log.closes(), [(5, CloseKind::Shutdown); 5]);
    world.assert_empty();
}
