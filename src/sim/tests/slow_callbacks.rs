//! A callback that blocks holds up its shard, but no deadline: each counts from when what it measures begins.

use std::time::Duration;

use crate::{
    TimerId,
    error::CloseKind,
    handler::Then,
    limits::Limits,
    sim::{Callback, Conn, Heard, Setup, World, frame},
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An echo that blocks for as many milliseconds as the packet says.
fn blocking_echo(setup: Setup) -> World {
    World::new(setup, |probe| {
        let block = probe.block();
        probe.packet = Box::new(move |session, packet| {
            block(std::str::from_utf8(packet).ok().and_then(|text| text.parse().ok()).unwrap_or(0));
            Ok(session.send(packet)?)
        });
    })
}

/// Reads all that comes, every millisecond up to `until`.
fn read_slowly(
    world: &World,
    conn: Conn,
    step: usize,
    until: u64,
) -> std::sync::Arc<std::sync::Mutex<Vec<u8>>> {
    let heard = std::sync::Arc::<std::sync::Mutex<Vec<u8>>>::default();
    let from = world.now();
    for at in (from..until).step_by(step) {
        let heard = heard.clone();
        world.net().at(at, move |net| heard.lock().expect("one thread").extend(net.hear_all(conn)));
    }
    heard
}

#[test]
fn a_timer_set_after_blocking_rings_as_long_after_as_it_was_set_for() {
    let mut world = World::new(Setup::default(), |probe| {
        let block = probe.block();
        probe.packet = Box::new(move |session, _| {
            block(300);
            Ok(session.set_timer(TimerId(1), ms(200))?)
        });
    });
    let conn = world.connect();
    world.run_until(50);
    world.net().say(conn, &frame(b"work"));
    world.run_until(1_000);
    assert_eq!(world.log.times(&Callback::Timer(1)), [550]);
}

#[test]
fn a_close_after_blocking_has_its_whole_time_to_flush() {
    let mut setup = Setup { limits: Limits::default().close_timeout(ms(5_000)), ..Setup::default() };
    setup.sizes.down = 1_000;
    let mut world = World::new(setup, |probe| {
        let block = probe.block();
        probe.packet = Box::new(move |session, _| {
            block(5_300);
            session.send([7; 40_000])?;
            session.close();
            Ok(())
        });
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"all of it"));
    let heard = read_slowly(&world, conn, 100, 10_200);
    world.run_until(10_200);
    assert_eq!(
        heard.lock().expect("one thread").len(),
        40_004,
        "the answer takes 4 s to read, 5 s are allowed"
    );
    world.net().end(conn);
    world.run_to_rest();
    assert_eq!(world.log.closes().len(), 1);
    assert_eq!(world.hears(conn), Heard::End);
    world.assert_empty();
}

#[test]
fn a_close_keeps_its_whole_time_when_another_sessions_callback_blocks() {
    let mut setup = Setup { limits: Limits::default().close_timeout(ms(5_000)), ..Setup::default() };
    setup.sizes.down = 1_000;
    let mut world = World::new(setup, |probe| {
        let block = probe.block();
        probe.packet = Box::new(move |session, packet| {
            if packet == b"block" {
                block(6_000);
                return Ok(());
            }
            session.send([7; 40_000])?;
            session.close();
            Ok(())
        });
    });
    let [conn, other] = [(); 2].map(|()| world.connect());
    world.run_until(1);
    world.net().say(conn, &frame(b"all of it"));
    let heard = read_slowly(&world, conn, 100, 10_900);
    world.net().at(1_000, move |net| {
        net.say(other, &frame(b"block"));
    });
    world.run_until(10_900);
    assert_eq!(heard.lock().expect("one thread").len(), 40_004);
    world.net().leave(other);
    world.net().end(conn);
    world.run_to_rest();
    assert_eq!(world.hears(conn), Heard::End, "and not a reset");
    world.assert_empty();
}

#[test]
fn lingering_begins_when_our_end_is_sent_however_long_the_callback_took() {
    let mut world = World::new(Setup::default(), |probe| {
        let block = probe.block();
        probe.packet = Box::new(move |session, packet| {
            block(2_300);
            session.send(packet)?;
            session.close();
            Ok(())
        });
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"bye"));
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(4_300, CloseKind::Local)]);
    assert_eq!(world.net().hear_all(conn), frame(b"bye"));
    world.assert_empty();
}

#[test]
fn a_client_in_lock_step_is_not_idle_while_its_own_request_blocks() {
    let limits = Limits::default().idle_timeout(ms(5_000)).linger_timeout(ms(0));
    let mut world = blocking_echo(Setup { limits, ..Setup::default() });
    let conn = world.connect();
    world.run_until(10);
    world.net().say(conn, &frame(b"5300"));
    world.run_until(10_309);
    assert_eq!(world.log.closes(), []);
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(10_310, CloseKind::Idle)], "5 s after the reply");
}

#[test]
fn those_who_were_served_just_before_a_callback_blocked_are_not_idle_for_it() {
    let limits = Limits::default().idle_timeout(ms(5_000)).linger_timeout(ms(0));
    let mut world = blocking_echo(Setup { limits, ..Setup::default() });
    let others: Vec<_> = (0..40).map(|_| world.connect()).collect();
    let blocking = world.connect();
    world.run_until(10);
    for conn in others.iter().chain([&blocking]) {
        let packet = if *conn == blocking { &b"5300"[..] } else { b"0" };
        assert!(world.net().say(*conn, &frame(packet)) > 0);
    }
    world.run_until(10_309);
    assert_eq!(world.log.closes(), []);
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(10_310, CloseKind::Idle); 41]);
}

#[test]
fn a_peer_that_spoke_while_a_callback_blocked_is_not_idle() {
    let limits = Limits::default().idle_timeout(ms(5_000)).linger_timeout(ms(0));
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.batch = 2;
    let mut world = blocking_echo(setup);
    let others: Vec<_> = (0..20).map(|_| world.connect()).collect();
    let blocking = world.connect();
    world.run_until(10);
    world.net().say(blocking, &frame(b"6000"));
    for conn in others.clone() {
        world.net().at(3_000, move |net| {
            net.say(conn, &frame(b"0"));
        });
    }
    world.run_until(6_100);
    assert_eq!(world.log.closes(), []);
    assert_eq!(world.log.count(&Callback::Packet(b"0".to_vec())), 20);
}

#[test]
fn a_peer_is_not_idle_while_the_request_blocks_that_was_found_when_it_was_judged() {
    let limits = Limits::default().idle_timeout(ms(2_000)).linger_timeout(ms(0));
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        let block = probe.block();
        probe.packet = Box::new(move |session, packet| {
            block(3_000);
            session.set_timer(TimerId(1), ms(60_000))?;
            Ok(session.send(packet)?)
        });
    });
    let [first, judged] = [(); 2].map(|()| world.connect());
    world.run_until(10);
    world.net().say(first, &frame(b"first"));
    world.net().at(1_000, move |net| {
        net.say(judged, &frame(b"judged"));
    });
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(8_010, CloseKind::Idle); 2], "2 s after the last reply");
}

#[test]
fn a_client_in_lock_step_is_not_idle_while_its_request_blocks_that_has_resumed_its_session() {
    let limits = Limits::default().idle_timeout(ms(5_000)).linger_timeout(ms(0));
    let mut world = World::new(Setup { limits, slack: 10, ..Setup::default() }, |probe| {
        let block = probe.block();
        probe.packet = Box::new(move |session, packet| {
            session.pause();
            session.resume();
            block(5_300);
            Ok(session.send(packet)?)
        });
    });
    let conn = world.connect();
    world.run_until(10);
    world.net().say(conn, &frame(b"request"));
    world.run_until(10_309);
    assert_eq!(world.log.closes(), []);
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(10_320, CloseKind::Idle)], "5 s after the reply");
}

#[test]
fn a_session_that_is_pinged_just_before_a_callback_blocked_has_its_whole_time_to_answer() {
    let limits = Limits::default().idle_timeout(ms(2_000));
    let mut world = World::new(Setup { limits, slack: 10, ..Setup::default() }, |probe| {
        let (block, mut pings) = (probe.block(), 0);
        probe.idle = Box::new(move |session, _| {
            pings += 1;
            block(if pings == 2 { 3_000 } else { 0 });
            Ok(session.send("ping").map(|()| Then::Stay)?)
        });
    });
    let [first, _second] = [(); 2].map(|()| world.connect());
    world.run_until(7_000);
    assert_eq!(world.log.count(&Callback::Idle), 2, "{:?}", world.log.times(&Callback::Idle));
    assert_eq!(world.net().hear_all(first), frame(b"ping"));
}

#[test]
fn a_session_that_was_opened_just_before_a_callback_blocked_is_not_blamed_for_it() {
    let timeout = ms(2_000);
    for limits in [Limits::default().idle_timeout(timeout), Limits::default().first_packet_timeout(timeout)] {
        let limits = limits.linger_timeout(ms(0));
        let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
            let block = probe.block();
            probe.open = Box::new(|session, ()| Ok(session.send("greeting")?));
            probe.packet = Box::new(move |session, _| {
                block(3_000);
                Ok(session.set_timer(TimerId(1), ms(60_000))?)
            });
        });
        let blocking = world.connect();
        world.run_until(10);
        world.net().say(blocking, &frame(b"block"));
        let greeted = world.connect();
        world.run_until(5_009);
        assert_eq!(world.log.closes(), []);
        assert_eq!(world.net().hear_all(greeted), frame(b"greeting"));
        world.run_to_rest();
        assert_eq!(world.log.closes()[0].0, 5_010, "2 s after it was served");
    }
}

#[test]
fn a_first_packet_is_waited_for_from_when_on_open_returned() {
    let limits = Limits::default().first_packet_timeout(ms(1_500)).linger_timeout(ms(0));
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        let block = probe.block();
        probe.open = Box::new(move |_, ()| {
            block(2_000);
            Ok(())
        });
    });
    world.connect();
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(3_500, CloseKind::FirstPacket)]);
}

#[test]
fn a_half_packet_is_timed_from_when_the_packet_before_it_was_handled() {
    let limits = Limits::default().packet_timeout(ms(1_000)).linger_timeout(ms(0));
    let mut world = blocking_echo(Setup { limits, ..Setup::default() });
    let conn = world.connect();
    world.run_until(10);
    world.net().say(conn, &[&frame(b"3000")[..], &frame(b"half a packet")[..7]].concat());
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(4_010, CloseKind::SlowPacket)]);
}

#[test]
fn a_stall_is_timed_from_when_the_kernel_refused() {
    let mut setup = Setup { limits: Limits::default().stall_timeout(ms(30_000)), ..Setup::default() };
    setup.sizes.down = 1_000;
    let mut world = World::new(setup, |probe| {
        let block = probe.block();
        probe.open = Box::new(|session, ()| Ok(session.set_timer(TimerId(1), ms(100))?));
        probe.timer = Box::new(move |session, _| {
            block(6_000);
            Ok(session.send([7; 5_000])?)
        });
    });
    world.connect();
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(36_100, CloseKind::Stalled)]);
}

#[test]
fn an_idle_session_that_is_forgiven_after_blocking_has_its_whole_time_again() {
    let limits = Limits::default().idle_timeout(ms(300));
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        let block = probe.block();
        probe.idle = Box::new(move |_, _| {
            block(1_000);
            Ok(Then::Stay)
        });
    });
    world.connect();
    world.run_until(3_000);
    assert_eq!(world.log.times(&Callback::Idle), [300, 1_600, 2_900]);
}
