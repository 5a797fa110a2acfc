//! Where the connections live that a server makes, how many there may be, and what a stop does to them.

use std::time::Duration;

use super::dials::{addr, end, failure, serves, to, world};
use crate::{
    addr::Origin,
    dial::{Dial, Reconnect, Upstream, UpstreamState},
    error::DialError,
    id::ShardId,
    limits::Limits,
    sim::{Answer, Conn, Heard, Setup, World},
};

/// Connects from callbacks: when the shard starts, and for each session that was accepted.
fn from_callbacks(setup: Setup) -> World {
    World::new(setup, |probe| {
        probe.start = Box::new(|shard, _| {
            if shard.id() == ShardId::ACCEPTOR {
                shard.connect(to(&[addr(1)])).expect("it is the first");
            }
        });
        probe.open = Box::new(|session, ()| {
            if let Origin::Accepted { .. } = session.origin() {
                session.connect(to(&[addr(2)]))?;
            }
            Ok(())
        });
    })
}

#[test]
fn what_a_callback_connects_lives_on_its_thread() {
    for (workers, forks) in [(0, 0), (3, 0), (0, 9)] {
        let mut world = from_callbacks(Setup { workers, forks, ..Setup::default() });
        (1..=2).for_each(|port| world.net().answer(&addr(port), Answer::Accept, 1));
        world.run_for(10);
        let asking: Vec<Conn> = (0..3).map(|_| world.connect()).collect();
        world.run_for(10);
        let mut shards: Vec<ShardId> = world.log.lines().iter().map(|(_, id, _)| id.shard()).collect();
        shards.sort_unstable();
        let id = ShardId::new;
        let expected = match (workers, forks) {
            (0, 0) => [0, 0, 0, 0, 0, 0, 0].map(id),
            (_, 0) => [0, 1, 1, 2, 2, 3, 3].map(id),
            _ => [0, 1, 1, 2, 2, 3, 3].map(id),
        };
        assert_eq!(shards, expected);
        // A thread of a connection lives on for those that it has made.
        asking.into_iter().for_each(|conn| world.net().end(conn));
        world.run_for(10);
        assert_eq!(world.shards(), if forks > 0 { 4 } else { 1 + workers });
        let made: Vec<Conn> = world.net().attempts().iter().map(|attempt| attempt.conn).collect();
        for conn in made {
            serves(&mut world, conn);
            world.net().end(conn);
        }
        world.run_for(10);
        assert_eq!(world.shards(), 1 + workers);
        end(world);
    }
}

#[test]
fn what_other_threads_connect_lives_where_the_strategy_says() {
    for (workers, forks) in [(0, 0), (3, 0), (0, 6)] {
        let mut world = world(Setup { workers, forks, ..Setup::default() });
        world.net().answer(&addr(1), Answer::Accept, 1);
        let upstreams: Vec<Upstream> = (0..6).map(|_| world.dial(to(&[addr(1)]))).collect();
        world.run_for(10);
        let mut shards: Vec<ShardId> = world.log.lines().iter().map(|(_, id, _)| id.shard()).collect();
        shards.sort_unstable();
        let id = ShardId::new;
        let expected = match (workers, forks) {
            (0, 0) => [0; 6].map(id),
            (_, 0) => [1, 1, 2, 2, 3, 3].map(id),
            _ => [1, 2, 3, 4, 5, 6].map(id),
        };
        assert_eq!(shards, expected, "evenly, though all were asked for before the first was connected");
        if forks > 0 {
            world.dial(to(&[addr(1)]));
            world.run_for(10);
            assert!(matches!(failure(&world).1, DialError::Full { connections: 6 }));
        }
        upstreams.iter().for_each(Upstream::close);
        world.run_for(10);
        let made: Vec<Conn> = world.net().attempts().iter().map(|attempt| attempt.conn).collect();
        for conn in made {
            assert_eq!(world.hears(conn), Heard::End);
            world.net().end(conn);
        }
        end(world);
    }
}

#[test]
fn no_more_is_dialled_than_the_limits_allow() {
    let limits = Limits::default().dials(2);
    let mut world = World::new(Setup { limits, connections: 1, ..Setup::default() }, |probe| {
        probe.start = Box::new(|shard, _| {
            let mut connect = || shard.connect(to(&[addr(1)])).map(|_| ());
            assert!(connect().is_ok() && connect().is_ok());
            assert!(matches!(connect(), Err(DialError::TooMany { limit: 2 })));
        });
    });
    world.net().answer(&addr(1), Answer::Silence, 0);
    world.dial(to(&[addr(2)]));
    world.run_for(1);
    let failed: Vec<DialError> = world.log.failed_dials().into_iter().map(|(_, _, error)| error).collect();
    assert!(
        matches!(failed[..], [DialError::TooMany { limit: 2 }, DialError::Full { connections: 1 }]),
        "that of the other thread, and the second: {failed:?}"
    );
    assert_eq!(world.net().attempts().len(), 1);
    world.run_to_rest();
    end(world);
}

#[test]
fn a_stop_ends_what_is_being_connected_and_tells_it() {
    for aborts in [false, true] {
        let mut world = World::new(Setup::default(), |probe| {
            probe.start = Box::new(|shard, _| {
                shard.connect(to(&[addr(1)])).expect("it is the first");
                shard.connect(Dial::to("example.com:1")).expect("it is the second");
            });
            probe.dial_failed = Box::new(|shard, error| {
                assert!(matches!(error, DialError::Stopped));
                let again = shard.connect(to(&[addr(1)]));
                assert!(matches!(again, Err(DialError::Stopped)), "not for ever");
            });
        });
        world.net().answer(&addr(1), Answer::Silence, 0);
        world.net().name("example.com", Ok(vec![addr(1)]), 1_000);
        let upstream = world.dial(to(&[addr(1)]));
        world.run_until(10);
        assert_eq!(world.net().streams(), 2);
        if aborts {
            world.abort();
        } else {
            world.shut_down(Duration::from_secs(60));
        }
        world.run_to_rest();
        assert_eq!(world.log.failed_dials().len(), 3);
        assert_eq!(upstream.state(), UpstreamState::Closed);
        assert!(world.now() < 1_100);
        world.assert_gone();
    }
}

#[test]
fn an_upstream_that_is_closed_before_it_is_connected_leaves_nothing() {
    for closed_at in [0, 10] {
        let mut world = world(Setup::default());
        world.net().answer(&addr(1), Answer::Silence, 0);
        let upstream = world.dial(to(&[addr(1)]));
        world.run_until(closed_at);
        upstream.close();
        assert_eq!(upstream.state(), UpstreamState::Closed);
        world.run_until(closed_at + 1);
        world.assert_empty();
        assert_eq!(world.log.failed_dials().len(), 0);
        end(world);
    }
}

#[test]
fn a_server_that_has_stopped_has_closed_its_upstreams() {
    let mut world = world(Setup::default());
    let upstream = world.dial(to(&[addr(1)]));
    world.abort();
    world.run_to_rest();
    assert_eq!(upstream.state(), UpstreamState::Closed, "it was never begun");
    upstream.close();
    world.assert_gone();
}

#[test]
fn a_thread_that_waits_for_its_next_attempt_counts_for_the_limits() {
    let mut world = world(Setup { forks: 1, ..Setup::default() });
    let again = Reconnect::delays([Duration::from_millis(1_000)]);
    let upstream = world.dial(to(&[addr(1)]).reconnect(again));
    for round in 0..3 {
        world.run_until(500 + 1_000 * round);
        assert_eq!((world.shards(), world.admission().forked(), world.admission().total()), (2, 1, 1));
        let conn = world.connect();
        world.run_for(1);
        assert_eq!(world.hears(conn), Heard::Reset, "its thread would be one too many");
        world.dial(to(&[addr(2)]));
        world.run_for(1);
        let (_, _, error) = world.log.failed_dials().pop().expect("it has failed");
        assert!(matches!(error, DialError::Full { connections: 1 }), "{error:?}");
    }
    world.net().answer(&addr(1), Answer::Accept, 1);
    world.run_until(3_500);
    assert!(matches!(upstream.state(), UpstreamState::Up(_)));
    assert_eq!((world.admission().forked(), world.admission().total()), (1, 1), "it is counted once");
    let conn = world.net().attempts().last().expect("it was dialled").conn;
    world.net().reset(conn);
    world.run_for(10);
    assert_eq!((world.admission().forked(), world.admission().total()), (1, 1), "and still is");
    upstream.close();
    world.run_for(1);
    assert_eq!((world.shards(), world.admission().total()), (1, 0));
    end(world);
}
