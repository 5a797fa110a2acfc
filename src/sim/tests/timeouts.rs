//! Every deadline, to the exact millisecond of virtual time.

use std::time::Duration;

use crate::{
    TimerId,
    error::CloseKind,
    handler::Then,
    limits::Limits,
    sim::{Callback, Heard, Setup, World, frame},
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn world(limits: Limits) -> World {
    World::new(Setup { limits, ..Setup::default() }, |_| {})
}

#[test]
fn an_echo_comes_back() {
    let mut world = world(Limits::default());
    let conn = world.connect();
    world.net().say(conn, &frame(b"hello"));
    assert_eq!(world.expect(conn, 9), frame(b"hello"));
    world.net().end(conn);
    world.run_to_rest();
    assert_eq!(world.hears(conn), Heard::End);
    world.assert_empty();
}

#[test]
fn an_idle_session_ends_at_its_timeout_and_causes_no_turn_before() {
    let mut world = world(Limits::default().idle_timeout(ms(5_000)));
    let conn = world.connect();
    // Accept, find no further connection, fall asleep.
    world.run_until(1);
    let polls = world.net().polls;
    world.turn();
    assert_eq!(world.now(), 5_000);
    assert_eq!(world.net().polls, polls + 1, "one poll slept until the deadline");
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(7_000, CloseKind::Idle)], "two seconds for the peer to end its side");
    assert_eq!(world.log.times(&Callback::Idle), [5_000]);
    assert_eq!(world.hears(conn), Heard::End);
    world.assert_empty();
}

#[test]
fn idleness_counts_from_the_last_byte() {
    let mut world = world(Limits::default().idle_timeout(ms(5_000)));
    let conn = world.connect();
    for at in [1_000, 4_321] {
        world.net().at(at, move |net| {
            net.say(conn, &frame(b"x"));
        });
    }
    world.run_to_rest();
    assert_eq!(world.log.times(&Callback::Idle), [9_321]);
    world.assert_empty();
}

#[test]
fn a_session_that_says_ok_to_idleness_is_told_again_after_the_same_time() {
    let limits = Limits::default().idle_timeout(ms(300));
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        probe.idle = Box::new(|_, _| Ok(Then::Stay))
    });
    world.connect();
    world.run_until(1_000);
    assert_eq!(world.log.times(&Callback::Idle), [300, 600, 900]);
}

#[test]
fn a_write_that_stalls_ends_the_session_after_the_timeout_counted_from_the_last_progress() {
    let mut setup = Setup { limits: Limits::default().stall_timeout(ms(30_000)), ..Setup::default() };
    setup.sizes.down = 1_000;
    let mut world =
        World::new(setup, |probe| probe.packet = Box::new(|session, _| Ok(session.send([7; 5_000])?)));
    let conn = world.connect();
    world.net().say(conn, &frame(b"give me"));
    world.net().at(10_007, move |net| {
        net.hear(conn, 900);
    });
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(40_007, CloseKind::Stalled)]);
    assert_eq!(world.hears(conn), Heard::Reset);
    world.assert_empty();
}

#[test]
fn a_first_packet_that_does_not_come_ends_the_session() {
    let mut world = world(Limits::default().first_packet_timeout(ms(1_500)).linger_timeout(ms(0)));
    let [silent, slow, good] = [(); 3].map(|()| world.connect());
    world.net().at(700, move |net| {
        net.say(slow, &frame(b"half")[..6]);
        net.say(good, &frame(b"whole"));
    });
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(1_500, CloseKind::FirstPacket); 2]);
    assert_eq!((world.hears(silent), world.hears(slow)), (Heard::End, Heard::End));
    world.net().leave(good);
    world.net().leave(silent);
    world.run_to_rest();
}

#[test]
fn a_packet_that_dribbles_ends_at_its_deadline_whatever_trickles_in() {
    let limits = Limits::default().packet_timeout(ms(2_000)).idle_timeout(ms(900)).linger_timeout(ms(0));
    let mut world = world(limits);
    let conn = world.connect();
    for (at, byte) in (0..100).zip(frame(&[7; 90])) {
        world.net().at(100 + at * 500, move |net| {
            net.say(conn, &[byte]);
        });
    }
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(2_100, CloseKind::SlowPacket)]);
    world.assert_empty();
}

/// A session that owes more than the network holds, and was closed by its handler at once.
fn closing_world(limits: Limits) -> (World, crate::sim::Conn) {
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.down = 1_000;
    let world = World::new(setup, |probe| {
        probe.packet = Box::new(|session, _| {
            session.send([7; 3_000])?;
            session.close();
            Ok(())
        });
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"bye"));
    (world, conn)
}

#[test]
fn a_graceful_close_flushes_until_its_deadline_and_then_resets() {
    let (mut world, conn) = closing_world(Limits::default().close_timeout(ms(5_000)));
    world.run_until(4_999);
    assert_eq!(world.log.closes(), []);
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(5_000, CloseKind::Local)]);
    assert_eq!(world.hears(conn), Heard::Reset, "what is cut short must not look whole");
    world.assert_empty();
}

#[test]
fn a_graceful_close_sends_everything_then_its_end_and_lingers_until_its_deadline() {
    let (mut world, conn) = closing_world(Limits::default().linger_timeout(ms(2_000)));
    for at in [10, 20, 30, 40, 50] {
        world.net().at(at, move |net| {
            if let Heard::Bytes(bytes) = net.hear(conn, usize::MAX) {
                assert!(bytes.iter().skip(4).all(|byte| *byte == 7));
            }
            net.say(conn, b"and this is discarded");
        });
    }
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(2_030, CloseKind::Local)], "the last byte went out at 30");
    assert_eq!(world.hears(conn), Heard::End);
    world.assert_empty();
}

#[test]
fn a_peer_that_has_ended_its_side_is_answered_for_as_long_as_it_reads() {
    let limits = Limits::default().close_timeout(ms(500)).stall_timeout(ms(1_000));
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.down = 1_000;
    let mut world =
        World::new(setup, |probe| probe.packet = Box::new(|session, _| Ok(session.send([7; 4_000])?)));
    let [slow, dead] = [(); 2].map(|()| world.connect());
    for conn in [slow, dead] {
        world.net().say(conn, &frame(b"all of it"));
        world.net().end(conn);
    }
    for at in [900, 1_800, 2_700, 3_600, 4_500] {
        world.net().at(at, move |net| {
            net.hear_all(slow);
        });
    }
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(1_000, CloseKind::Stalled), (3_600, CloseKind::PeerClosed)]);
    assert_eq!(world.hears(dead), Heard::Reset);
    world.assert_empty();
}

#[test]
fn a_lingering_session_ends_as_soon_as_its_peer_does() {
    let (mut world, conn) = closing_world(Limits::default());
    let got = world.expect(conn, 3_004);
    assert_eq!(got.len(), 3_004);
    world.run_until(100);
    world.net().at(777, move |net| net.end(conn));
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(777, CloseKind::Local)]);
    world.assert_empty();
}

#[test]
fn shutdown_flushes_to_its_grace_and_then_cuts() {
    let mut setup = Setup { limits: Limits::default().close_timeout(ms(60_000)), ..Setup::default() };
    setup.sizes.down = 1_000;
    let mut world =
        World::new(setup, |probe| probe.packet = Box::new(|session, _| Ok(session.send([7; 3_000])?)));
    let [slow, dead, idle] = [(); 3].map(|()| world.connect());
    for conn in [slow, dead] {
        world.net().say(conn, &frame(b"give me"));
    }
    world.run_until(50);
    world.shut_down(ms(3_000));
    world.run_until(51);
    let late = world.connect();
    for at in [1_000, 1_001, 1_002, 1_003] {
        world.net().at(at, move |net| {
            net.hear_all(slow);
        });
    }
    for conn in [slow, idle] {
        world.net().at(1_500, move |net| net.end(conn));
    }
    world.run_to_rest();
    assert!(world.has_stopped());
    assert_eq!(world.log.count(&Callback::Shutdown), 3);
    let closes = world.log.closes();
    assert_eq!(
        closes,
        [(1_500, CloseKind::Shutdown), (1_500, CloseKind::Shutdown), (3_050, CloseKind::Shutdown)]
    );
    assert_eq!(world.hears(dead), Heard::Reset);
    assert_eq!((world.hears(slow), world.hears(idle)), (Heard::End, Heard::End));
    assert_eq!(world.hears(late), Heard::Reset, "nobody accepts any more");
    world.assert_empty();
}

#[test]
fn a_server_without_sessions_stops_at_once() {
    let mut world = world(Limits::default());
    world.run_until(20);
    world.shut_down(ms(3_000));
    world.run_to_rest();
    assert!(world.has_stopped());
    assert_eq!(world.now(), 20);
}

#[test]
fn a_first_packet_is_waited_for_from_the_end_of_a_pause() {
    let limits = Limits::default().first_packet_timeout(ms(1_500)).linger_timeout(ms(0));
    for pause in [700, 1_499, 1_500, 9_000] {
        let mut world = World::new(Setup { limits: limits.clone(), ..Setup::default() }, |probe| {
            probe.open = Box::new(move |session, ()| {
                session.pause();
                Ok(session.set_timer(TimerId(1), ms(pause))?)
            });
            probe.timer = Box::new(|session, _| {
                session.resume();
                Ok(())
            });
        });
        world.connect();
        let patient = world.connect();
        world.net().at(5, move |net| {
            net.say(patient, &frame(b"in time, and not heard yet"));
        });
        world.run_to_rest();
        assert_eq!(world.log.closes(), [(pause + 1_500, CloseKind::FirstPacket)]);
        world.net().leave(patient);
        world.run_to_rest();
        world.assert_empty();
    }
}

#[test]
fn a_loop_that_begins_late_has_held_up_nobody() {
    let mut world = World::new(Setup { from: 3_600_000, ..Setup::default() }, |_| {});
    let conn = world.connect();
    world.net().say(conn, &frame(b"hello"));
    assert_eq!(world.expect(conn, 9), frame(b"hello"));
    world.run_for(10);
    assert_eq!(world.metrics().slow_turns, 0, "as a thread for one connection does");
}
