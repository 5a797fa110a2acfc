//! Accept survives every error and is never deaf.

use crate::{
    limits::Limits,
    reactor::sim::{Call, Fail, Heard, Setup, World, errno, frame},
};

fn serves_everybody(world: &mut World, clients: usize) {
    let conns: Vec<_> = (0..clients).map(|_| world.connect()).collect();
    for conn in &conns {
        world.net().say(*conn, &frame(b"served?"));
    }
    for conn in &conns {
        assert_eq!(world.expect(*conn, 11), frame(b"served?"));
    }
    for conn in conns {
        world.net().end(conn);
    }
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_shortage_pauses_accepting_and_a_timer_resumes_it_without_a_new_event() {
    for errno in [errno::EMFILE, errno::ENFILE, errno::ENOBUFS, errno::ENOMEM] {
        for nth in 1..5 {
            let mut setup = Setup::default();
            setup.faults.fail = Some(Fail { call: Some(Call::Accept), nth, errno });
            let mut world = World::new(setup, |_| {});
            serves_everybody(&mut world, 4);
            assert_eq!((world.metrics().accept_pauses, world.now()), (1, 100), "errno {errno}, call {nth}");
        }
    }
}

#[test]
fn an_error_of_one_connection_costs_the_next_nothing() {
    for errno in [errno::ECONNABORTED, errno::EPROTO, errno::EINTR] {
        for nth in 1..5 {
            let mut setup = Setup::default();
            setup.faults.fail = Some(Fail { call: Some(Call::Accept), nth, errno });
            let mut world = World::new(setup, |_| {});
            serves_everybody(&mut world, 4);
            assert_eq!((world.metrics().accept_pauses, world.now()), (0, 0), "errno {errno}, call {nth}");
        }
    }
}

#[test]
fn clients_that_wait_for_a_descriptor_are_served_when_one_is_free_and_nobody_knocks_again() {
    let mut setup = Setup::default();
    setup.sizes.descriptors = 10;
    let mut world = World::new(setup, |_| {});
    let conns: Vec<_> = (0..60).map(|_| world.connect()).collect();
    for conn in &conns {
        world.net().say(*conn, &frame(b"me too"));
    }
    let mut served = 0;
    let mut polls = 0;
    let mut open = conns;
    for second in 1..20 {
        polls = polls.max(world.net().polls);
        world.run_until(second * 1_000);
        assert!(world.net().polls - polls < 60, "out of descriptors is no reason to spin");
        open.retain(|conn| {
            let mut net = world.network.lock();
            let done = net.hear_all(*conn) == frame(b"me too");
            if done {
                net.leave(*conn);
                served += 1;
            }
            !done
        });
    }
    assert_eq!(served, 60);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn at_its_connection_limit_the_server_lets_clients_wait() {
    let mut world = World::new(Setup { connections: 2, ..Setup::default() }, |_| {});
    let [a, b, c] = [(); 3].map(|()| world.connect());
    for conn in [a, b, c] {
        world.net().say(conn, &frame(b"x"));
    }
    world.run_until(950);
    for served in [a, b] {
        assert_eq!(world.net().hear_all(served), frame(b"x"));
    }
    assert_eq!(world.hears(c), Heard::Nothing);
    world.net().leave(a);
    world.run_until(1_100);
    assert_eq!(world.net().hear_all(c), frame(b"x"));
}

#[test]
fn a_peer_beyond_its_share_is_reset() {
    let limits = Limits::default().connections_per_peer(1);
    let mut world = World::new(Setup { limits, ..Setup::default() }, |_| {});
    let conns: Vec<_> = (0..2).map(|_| world.connect()).collect();
    world.run_until(10);
    assert_eq!(
        conns.iter().map(|conn| world.hears(*conn)).collect::<Vec<_>>(),
        [Heard::Nothing, Heard::Reset]
    );
    assert_eq!(world.metrics().refused, 1);
}

#[test]
fn a_client_that_is_gone_before_it_is_accepted_hurts_nobody() {
    let mut world = World::new(Setup::default(), |_| {});
    for n in 0..50 {
        let conn = world.connect();
        world.net().say(conn, b"half");
        if n % 2 == 0 { world.net().reset(conn) } else { world.net().leave(conn) }
    }
    serves_everybody(&mut world, 3);
    assert_eq!(world.metrics().opened, 53);
}

#[test]
fn a_pool_places_by_load_and_serves_everybody() {
    let mut world = World::new(Setup { workers: 3, ..Setup::default() }, |_| {});
    serves_everybody(&mut world, 300);
    assert_eq!(world.metrics().opened, 300);
}
