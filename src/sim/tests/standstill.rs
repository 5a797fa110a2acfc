//! After the process was stopped, or the clock has jumped: what has arrived is read before any session is timed out.

use std::time::Duration;

use crate::{
    error::CloseKind,
    limits::Limits,
    session::TimerId,
    sim::{Call, Callback, Fail, Freeze, Setup, World, errno, frame},
};

const HOURS: u64 = 5 * 3_600_000;

fn idle_world(batch: usize) -> World {
    let limits = Limits::default().idle_timeout(Duration::from_secs(10)).linger_timeout(Duration::ZERO);
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.batch = batch;
    World::new(setup, |_| {})
}

fn nobody_is_killed_by(freeze: Freeze, batch: usize, interrupt: u64) {
    let mut world = idle_world(batch);
    let conns: Vec<_> = (0..20).map(|_| world.connect()).collect();
    world.run_until(1_000);
    let alarm = world.connect();
    world.net().at(2_000, move |net| {
        net.say(alarm, &frame(b"this wakes the poll"));
        net.reset(alarm);
    });
    for conn in conns.clone() {
        world.net().at(4_000, move |net| {
            net.say(conn, &frame(b"I am here"));
        });
    }
    world.net().freeze = Some((freeze, HOURS));
    let nth = world.net().calls.of(Call::Poll) + interrupt;
    world.net().faults.fail = Some(Fail { call: Some(Call::Poll), nth, errno: errno::EINTR });
    world.run_until(HOURS + 8_000);
    world.run_for(10);
    assert_eq!(world.log.count(&Callback::Packet(b"I am here".to_vec())), 20);
    let closes = world.log.closes();
    assert!(closes.iter().all(|(_, kind)| *kind == CloseKind::Io), "everybody had sent in time: {closes:?}");
    for conn in conns {
        assert_eq!(world.net().hear_all(conn), frame(b"I am here"));
        world.net().end(conn);
    }
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_standstill_that_interrupts_the_poll_kills_nobody_who_has_sent() {
    nobody_is_killed_by(Freeze::InPoll, 1024, 0);
    nobody_is_killed_by(Freeze::InPoll, 3, 0);
}

#[test]
fn a_standstill_right_after_the_poll_kills_nobody_who_has_sent() {
    nobody_is_killed_by(Freeze::AfterPoll, 1024, 0);
    nobody_is_killed_by(Freeze::AfterPoll, 3, 0);
}

#[test]
fn a_standstill_kills_nobody_even_when_a_poll_around_it_is_interrupted_too() {
    for freeze in [Freeze::InPoll, Freeze::AfterPoll] {
        (1..5).for_each(|nth| nobody_is_killed_by(freeze, 1024, nth));
    }
}

#[test]
fn a_session_that_was_silent_through_a_standstill_is_idle_once() {
    let mut world = idle_world(1024);
    let conn = world.connect();
    world.run_until(1_000);
    world.net().freeze = Some((Freeze::InPoll, HOURS));
    world.run_to_rest();
    assert_eq!(world.log.count(&Callback::Idle), 1);
    world.net().end(conn);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_timer_that_repeats_itself_fires_once_per_turn_however_far_the_clock_jumped() {
    let again = |session: &mut crate::Session<'_>| session.set_timer(TimerId(7), Duration::from_millis(100));
    let mut world = World::new(Setup::default(), |probe| {
        probe.open = Box::new(move |session, ()| Ok(again(session)?));
        probe.timer = Box::new(move |session, _| Ok(again(session)?));
    });
    world.connect();
    world.run_until(250);
    assert_eq!(world.log.times(&Callback::Timer(7)), [100, 200]);
    world.net().pass(HOURS);
    let before = world.metrics().turns;
    world.run_for(50);
    let fired = world.log.count(&Callback::Timer(7)) - 2;
    assert_eq!(fired, 1, "in {} turns", world.metrics().turns - before);
}
