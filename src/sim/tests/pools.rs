//! A pool of workers: its shutdown, also in the middle of a hand-over, and its failures.

use std::time::Duration;

use crate::{
    ServeError,
    error::CloseKind,
    id::ShardId,
    limits::Limits,
    sim::{Call, Callback, Conn, Fail, Heard, Setup, World, errno, frame},
};

const GRACE: Duration = Duration::from_secs(5);

/// Both kinds of pool.
fn pools() -> [Setup; 2] {
    [false, true].map(|reuse_port| Setup { workers: 3, reuse_port, ..Setup::default() })
}

/// Clients that were served once, and have said something that was not read yet.
fn busy(setup: Setup) -> (World, Vec<Conn>) {
    let mut world = World::new(setup, |_| {});
    let conns: Vec<_> = (0..30).map(|_| world.connect()).collect();
    for conn in &conns {
        world.net().say(*conn, &frame(b"one"));
        assert_eq!(world.expect(*conn, 7), frame(b"one"));
    }
    for conn in &conns {
        world.net().say(*conn, &frame(b"two"));
    }
    (world, conns)
}

#[test]
fn a_pool_that_is_shut_down_answers_what_has_come_says_its_end_and_leaves_nothing() {
    for setup in pools() {
        let (mut world, conns) = busy(setup);
        world.shut_down(GRACE);
        world.run_for(10);
        for conn in &conns {
            assert_eq!(world.hears(*conn), Heard::Bytes(frame(b"two")));
            assert_eq!(world.hears(*conn), Heard::End);
            world.net().end(*conn);
        }
        world.run_to_rest();
        world.assert_gone();
        assert!(world.now() < 1_000, "nobody waited for a deadline");
        assert!(world.ended.len() == 4 && world.ended.iter().all(Result::is_ok), "{:?}", world.ended);
        assert!(world.log.closes().iter().all(|(_, kind)| *kind == CloseKind::Shutdown));
        assert_eq!(world.metrics().closed_total(), 30);
    }
}

#[test]
fn a_pool_that_is_aborted_resets_everybody_and_leaves_nothing() {
    for setup in pools() {
        let (mut world, conns) = busy(setup);
        world.abort();
        world.run_to_rest();
        world.assert_gone();
        assert!(conns.iter().all(|conn| world.net().was_reset(*conn)));
        assert_eq!((world.ended.len(), world.metrics().closed_total()), (4, 30));
    }
}

#[test]
fn connections_that_are_on_their_way_to_a_worker_when_the_server_stops_are_let_go() {
    for abort in [false, true] {
        let mut world = World::new(Setup { workers: 2, ..Setup::default() }, |_| {});
        world.step();
        let conns: Vec<_> = (0..20).map(|_| world.connect()).collect();
        world.turn_shard(ShardId::ACCEPTOR);
        assert_eq!((world.metrics().opened, world.admission().total()), (0, 20), "they wait in mailboxes");
        if abort {
            world.abort()
        } else {
            world.shut_down(GRACE)
        }
        world.run_for(10);
        for conn in conns {
            let heard = world.hears(conn);
            assert!(matches!(heard, Heard::End | Heard::Reset), "abort {abort}: {heard:?}");
            world.net().end(conn);
        }
        world.run_to_rest();
        world.assert_gone();
    }
}

#[test]
fn a_connection_for_a_worker_that_has_gone_is_refused() {
    let mut world = World::new(Setup { workers: 2, ..Setup::default() }, |_| {});
    world.step();
    let conns: Vec<_> = (0..10).map(|_| world.connect()).collect();
    world.shut_down(GRACE);
    // The workers stop first; the acceptor comes to its own order only after it has accepted.
    for worker in [1, 2] {
        world.turn_shard(ShardId::new(worker));
    }
    assert_eq!(world.shards(), 1);
    world.run_to_rest();
    world.assert_gone();
    for conn in conns {
        assert!(matches!(world.hears(conn), Heard::End | Heard::Reset), "{conn:?} was let go");
    }
    let metrics = world.metrics();
    assert!(metrics.refused_total() > 0 && metrics.opened == 0, "{metrics:?}");
}

#[test]
fn a_connection_that_was_placed_does_not_wait_for_a_slow_strategy_to_place_the_rest() {
    for (workers, forks) in [(0, 0), (2, 0), (0, 30)] {
        let mut world = World::new(Setup { workers, forks, place_takes: 10, ..Setup::default() }, |_| {});
        let _conns: Vec<_> = (0..30).map(|_| world.connect()).collect();
        world.run_until(1_000);
        let opened = world.log.times(&Callback::Open);
        assert_eq!(opened.len(), 30);
        // A thread of its own begins while the next one is placed.
        let late = opened.iter().zip(1..).find(|(at, nth)| **at > 10 * nth + 10);
        assert_eq!(late, None, "{workers} workers, {forks} forks: {opened:?}");
    }
}

#[test]
fn a_worker_whose_poll_fails_ends_the_server_with_every_session_told() {
    let mut tried = 0;
    for mut setup in pools() {
        for nth in 1.. {
            setup.faults.fail = Some(Fail { call: Some(Call::Poll), nth, errno: errno::EBADF });
            let mut world = World::new(setup.clone(), |_| {});
            for at in 0..20 {
                let conn = world.connect();
                world.net().at(at, move |net| {
                    net.say(conn, &frame(b"x"));
                });
            }
            world.run_to_rest();
            if world.ended.is_empty() {
                break;
            }
            world.assert_gone();
            let failed: Vec<_> = world.ended.iter().filter(|ended| ended.is_err()).collect();
            let [Err(ServeError::System { .. })] = failed[..] else { panic!("call {nth}: {failed:?}") };
            assert_eq!(world.ended.len(), 4);
            tried += 1;
        }
    }
    assert!(tried > 40, "only {tried} polls failed");
}

#[test]
fn deadlines_of_seconds_are_the_same_on_any_number_of_threads() {
    for (workers, forks) in [(0, 0), (3, 0), (0, 9)] {
        let limits = Limits::default().idle_timeout(Duration::from_secs(5));
        let mut world = World::new(Setup { workers, forks, limits, ..Setup::default() }, |_| {});
        let conns: Vec<_> = (0..4).map(|_| world.connect()).collect();
        world.run_until(100);
        for (nth, conn) in (1..).zip(&conns) {
            world.net().say(*conn, &frame(b"x"));
            world.run_until(100 + 700 * nth);
        }
        // None of them ends its side: a close waits for that for 2 s.
        world.run_for(20_000);
        assert_eq!(world.log.times(&Callback::Idle), [5_100, 5_800, 6_500, 7_200]);
        let closed = [7_100, 7_800, 8_500, 9_200].map(|at| (at, CloseKind::Idle));
        assert_eq!(world.log.closes(), closed, "{workers} workers, {forks} forks");
        assert_eq!(world.metrics().slow_turns, 0);
        conns.iter().for_each(|conn| world.net().end(*conn));
        world.run_to_rest();
        world.assert_empty();
    }
}
