//! A shard for each connection: it comes and goes with it, and what cannot be had for it is tried again.

use std::time::Duration;

use crate::{
    ServeError,
    id::ShardId,
    sim::{Call, Conn, Fail, Heard, Setup, World, errno, frame},
};

fn setup() -> Setup {
    Setup { forks: 20, ..Setup::default() }
}

fn assert_served(world: &mut World, conn: Conn) {
    world.net().say(conn, &frame(b"served?"));
    assert_eq!(world.expect(conn, 11), frame(b"served?"));
}

fn steps(world: &mut World, count: usize) {
    for _ in 0..count {
        world.step();
    }
}

#[test]
fn a_connection_has_a_shard_of_its_own_which_ends_with_it() {
    let mut world = World::new(setup(), |_| {});
    let conns: Vec<_> = (0..10).map(|_| world.connect()).collect();
    for conn in &conns {
        assert_served(&mut world, *conn);
    }
    let mut shards: Vec<_> = world.log.lines().iter().map(|(_, session, _)| session.shard()).collect();
    shards.sort_unstable();
    shards.dedup();
    assert_eq!((shards.len(), world.shards(), world.net().open_polls()), (10, 11, 11));
    for conn in conns {
        world.net().end(conn);
    }
    world.run_to_rest();
    world.assert_empty();
    assert_eq!((world.shards(), world.net().open_polls()), (1, 1), "the acceptor's");
    assert!(world.ended.len() == 10 && world.ended.iter().all(Result::is_ok));
    assert_eq!((world.metrics().opened, world.metrics().closed_total()), (10, 10), "they are counted on");
    world.shut_down(Duration::ZERO);
    world.run_to_rest();
    world.assert_gone();
}

#[test]
fn a_connection_waits_where_no_poll_or_no_thread_can_be_had_for_it() {
    for call in [Call::NewPoll, Call::Spawn] {
        // The first is the acceptor's.
        for nth in 2..6 {
            let mut setup = setup();
            setup.faults.fail = Some(Fail { call: Some(call), nth, errno: errno::EAGAIN });
            let mut world = World::new(setup, |_| {});
            let conns: Vec<_> = (0..4).map(|_| world.connect()).collect();
            for conn in conns {
                assert_served(&mut world, conn);
                world.net().end(conn);
            }
            world.run_to_rest();
            world.assert_empty();
            let metrics = world.metrics();
            assert_eq!(
                (metrics.opened, metrics.refused_total(), metrics.accept_pauses),
                (4, 0, 1),
                "{call:?} {nth}"
            );
        }
    }
}

#[test]
fn a_forked_shard_without_a_handler_costs_its_own_connection_alone() {
    let mut world = World::new(Setup { no_handler: Some(ShardId::new(2)), ..setup() }, |_| {});
    let conns: Vec<_> = (0..3).map(|_| world.connect()).collect();
    for at in [0, 2] {
        assert_served(&mut world, conns[at]);
    }
    world.run_for(1);
    assert!(matches!(world.hears(conns[1]), Heard::End | Heard::Reset));
    let [Err(ServeError::Factory { message })] = &world.ended[..] else { panic!("{:?}", world.ended) };
    assert!(message.contains("no handler"), "{message}");
    for conn in conns {
        world.net().end(conn);
    }
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_connection_whose_thread_has_not_begun_when_the_server_stops_is_let_go() {
    for abort in [false, true] {
        let mut world = World::new(setup(), |_| {});
        world.step();
        world.late_threads = 1_000;
        let conn = world.connect();
        steps(&mut world, 5);
        assert_eq!((world.shards(), world.metrics().opened, world.admission().total()), (2, 0, 1));
        if abort {
            world.abort()
        } else {
            world.shut_down(Duration::from_secs(5))
        }
        steps(&mut world, 5);
        assert_eq!(world.shards(), 1, "the acceptor has stopped");
        world.late_threads = 0;
        world.run_for(1);
        assert!(matches!(world.hears(conn), Heard::End | Heard::Reset));
        world.net().end(conn);
        world.run_to_rest();
        world.assert_gone();
        // An abort overtakes the connection on its way: no handler gets to know of it.
        let counted = if abort { (0, 0, 1) } else { (1, 1, 0) };
        let metrics = world.metrics();
        assert_eq!((metrics.opened, metrics.closed_total(), metrics.refused_total()), counted);
    }
}

#[test]
fn forked_shards_that_are_shut_down_answer_first() {
    let mut world = World::new(setup(), |_| {});
    let conns: Vec<_> = (0..10).map(|_| world.connect()).collect();
    for conn in &conns {
        assert_served(&mut world, *conn);
        world.net().say(*conn, &frame(b"last"));
    }
    world.shut_down(Duration::from_secs(5));
    world.run_for(10);
    for conn in conns {
        assert_eq!(world.hears(conn), Heard::Bytes(frame(b"last")));
        assert_eq!(world.hears(conn), Heard::End);
        world.net().end(conn);
    }
    world.run_to_rest();
    world.assert_gone();
    assert!(world.now() < 1_000, "nobody waited for a deadline");
}
