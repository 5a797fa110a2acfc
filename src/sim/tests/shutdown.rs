//! A graceful shutdown: as long as it is given, and with what was received before it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    SessionHandle,
    error::CloseKind,
    handler::Then,
    limits::Limits,
    sim::{Callback, Heard, Setup, World, frame},
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_slow_reader_has_the_grace_of_the_shutdown_where_that_is_longer_than_a_close() {
    for (close, grace, flushed) in [(5_000, 30_000, true), (30_000, 12_000, false), (5_000, 6_000, false)] {
        let limits = Limits::default().close_timeout(ms(close)).stall_timeout(ms(60_000));
        let mut setup = Setup { limits, ..Setup::default() };
        setup.sizes.down = 1_000;
        let mut world =
            World::new(setup, |probe| probe.packet = Box::new(|session, _| Ok(session.send([7; 25_000])?)));
        let conn = world.connect();
        world.net().say(conn, &frame(b"all of it"));
        world.run_until(10);
        world.shut_down(ms(grace));
        for at in (1..=25).map(|second| second * 1_000) {
            world.net().at(at, move |net| {
                net.hear(conn, 1_000);
            });
        }
        world.net().at(26_000, move |net| {
            net.hear_all(conn);
            net.end(conn);
        });
        world.run_to_rest();
        assert!(world.has_stopped());
        let (at, kind) = world.log.closes()[0];
        assert_eq!(kind, CloseKind::Shutdown);
        if flushed {
            assert_eq!((at, world.hears(conn)), (26_000, Heard::End), "close {close}, grace {grace}");
        } else {
            assert_eq!((at, world.net().was_reset(conn)), (10 + grace, true), "close {close}, grace {grace}");
        }
        world.assert_empty();
    }
}

/// Each packet is answered with more than the peer reads at once, so that the packets behind it wait.
fn waiting_world(packets: usize) -> (World, crate::sim::Conn) {
    let limits = Limits::default().outbox_high(2_000).outbox_low(1_000);
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.down = 1_000;
    let mut world = World::new(setup, |probe| {
        probe.packet = Box::new(|session, packet| Ok(session.send([packet, &[7; 3_000]].concat())?));
        probe.shutdown = Box::new(|session, ()| Ok(session.send("farewell").map(|()| Then::Close)?));
    });
    let conn = world.connect();
    let wire: Vec<u8> = (0..packets).flat_map(|number| frame(&[number as u8])).collect();
    assert_eq!(world.net().say(conn, &wire), wire.len());
    world.run_until(10);
    assert_eq!(world.log.lines().len(), 2, "opened, one packet, and the others wait");
    (world, conn)
}

#[test]
fn a_shutdown_hands_out_the_packets_that_wait_behind_a_full_outbox() {
    let (mut world, conn) = waiting_world(20);
    world.shut_down(ms(10_000));
    world.run_until(11);
    // What arrives after the shutdown gets no reply.
    world.net().say(conn, &frame(b"too late"));
    let mut heard = Vec::new();
    for _ in 0..1_000 {
        world.run_for(1);
        heard.extend(world.net().hear_all(conn));
    }
    let mut expected: Vec<u8> =
        (0..20).flat_map(|number| frame(&[&[number as u8][..], &[7; 3_000]].concat())).collect();
    expected.extend(frame(b"farewell"));
    assert!(heard == expected, "{} bytes of {}", heard.len(), expected.len());
    assert_eq!(world.log.count(&Callback::Shutdown), 1);
    world.net().end(conn);
    world.run_to_rest();
    assert!(world.has_stopped());
    assert_eq!(world.log.closes().iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), [CloseKind::Shutdown]);
    world.assert_empty();
}

#[test]
fn a_session_that_has_handed_out_what_waited_reads_on_until_the_peers_end() {
    let (mut world, conn) = waiting_world(3);
    world.shut_down(ms(10_000));
    world.run_for(1);
    world.net().say(conn, &frame(b"too late"));
    for _ in 0..200 {
        world.run_for(1);
        world.net().hear_all(conn);
    }
    assert_eq!(world.log.count(&Callback::Shutdown), 1);
    world.net().end(conn);
    let ended = world.now();
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(ended, CloseKind::Shutdown)]);
    assert_eq!(world.hears(conn), Heard::End, "what came too late was read, and is no reason to reset");
    world.assert_empty();
}

#[test]
fn packets_that_wait_behind_a_dead_readers_outbox_do_not_outlast_the_grace() {
    let (mut world, conn) = waiting_world(20);
    world.shut_down(ms(3_000));
    world.run_to_rest();
    assert!(world.has_stopped());
    assert_eq!(world.log.closes(), [(3_010, CloseKind::Shutdown)]);
    assert!(world.net().was_reset(conn));
    world.assert_empty();
}

#[test]
fn packets_of_a_session_that_is_paused_in_a_shutdown_are_not_waited_for() {
    for by_handle in [false, true] {
        let limits = Limits::default().outbox_high(2_000).outbox_low(1_000);
        let mut setup = Setup { limits, ..Setup::default() };
        setup.sizes.down = 1_000;
        let handle = Arc::<Mutex<Option<SessionHandle>>>::default();
        let mut world = World::new(setup, |probe| {
            let handle = handle.clone();
            probe.packet = Box::new(move |session, packet| {
                *handle.lock().expect("one thread") = Some(session.handle());
                if packet == [3] && !by_handle {
                    session.pause();
                }
                Ok(session.send([packet, &[7; 3_000]].concat())?)
            });
            probe.shutdown = Box::new(|session, ()| Ok(session.send("farewell").map(|()| Then::Close)?));
        });
        let conn = world.connect();
        let wire: Vec<u8> = (0..20).flat_map(|number| frame(&[number])).collect();
        assert_eq!(world.net().say(conn, &wire), wire.len());
        world.run_until(10);
        world.shut_down(ms(10_000));
        world.run_for(1);
        if by_handle {
            handle.lock().expect("one thread").as_ref().expect("it was opened").pause().expect("it is open");
        }
        let mut heard = Vec::new();
        for _ in 0..200 {
            world.run_for(1);
            heard.extend(world.net().hear_all(conn));
        }
        assert!(heard.ends_with(&frame(b"farewell")), "{} bytes, by handle: {by_handle}", heard.len());
        world.net().end(conn);
        world.run_to_rest();
        assert_eq!(
            world.log.closes().iter().map(|(_, kind)| *kind).collect::<Vec<_>>(),
            [CloseKind::Shutdown]
        );
        assert!(world.now() < 1_000, "long before the end of the grace");
        world.assert_empty();
    }
}
