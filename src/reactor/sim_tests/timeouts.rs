//! Every deadline, to the exact millisecond of virtual time.

use std::time::Duration;

use crate::{
    error::CloseKind,
    limits::Limits,
    reactor::sim::{Heard, Setup, Told, World, frame},
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
    // Accept, find nobody else, fall asleep.
    world.run_until(1);
    let polls = world.net().polls;
    world.turn();
    assert_eq!(world.now(), 5_000);
    assert_eq!(world.net().polls, polls + 1, "one poll slept until the deadline");
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(7_000, CloseKind::Idle)], "two seconds for the peer to end its side");
    assert_eq!(world.log.times(&Told::Idle), [5_000]);
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
    assert_eq!(world.log.times(&Told::Idle), [9_321]);
    world.assert_empty();
}
