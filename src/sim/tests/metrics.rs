//! What a server counts, in virtual time.

use std::time::Duration;

use crate::{
    error::{CloseKind, RefusalCause},
    limits::Limits,
    sim::{Setup, World, frame},
};

/// A server on which every packet takes 30 ms, and gets one every 100 ms.
fn busy_world() -> World {
    let mut world = World::new(Setup::default(), |probe| {
        let block = probe.block();
        probe.packet = Box::new(move |_, _| {
            block(30);
            Ok(())
        });
    });
    let conn = world.connect();
    world.run_for(10);
    for at in (100..=1_000).step_by(100) {
        world.net().at(at, move |net| {
            net.say(conn, &frame(b"work"));
        });
    }
    world
}

#[test]
fn a_shard_is_as_busy_as_its_callbacks_are_slow() {
    let mut world = busy_world();
    world.run_until(50);
    let before = world.metrics();
    world.run_until(1_050);
    let rates = world.metrics().since(&before);
    assert_eq!(rates.elapsed(), Duration::from_secs(1));
    assert!((rates.busy_share() - 0.3).abs() < 0.001, "{}", rates.busy_share());
    assert_eq!(rates.per_second(|metrics| metrics.packets_in), 10.0);
    assert_eq!(rates.counted().slowest_turn, Duration::from_millis(30));
    assert_eq!((rates.counted().shards, rates.counted().slow_turns), (1, 0));
}

#[test]
fn a_slow_turn_is_published_before_its_shard_sleeps() {
    let mut world = World::new(Setup::default(), |probe| {
        let block = probe.block();
        probe.packet = Box::new(move |_, _| {
            block(5_000);
            Ok(())
        });
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"take your time"));
    world.run_to_rest();
    let metrics = world.metrics();
    assert_eq!((metrics.slow_turns, metrics.slowest_turn), (1, Duration::from_secs(5)));
    assert_eq!(metrics.busy, Duration::from_secs(5));
}

#[test]
fn the_peak_is_of_all_shards_together_and_outlives_the_sessions() {
    for (workers, forks) in [(0, 0), (2, 0), (0, 11)] {
        let mut world = World::new(Setup { workers, forks, ..Setup::default() }, |_| ());
        let conns: Vec<_> = (0..10).map(|_| world.connect()).collect();
        world.run_for(50);
        for conn in conns {
            world.net().leave(conn);
        }
        world.run_for(50);
        let later = world.connect();
        world.run_for(50);
        let metrics = world.metrics();
        assert_eq!((metrics.sessions, metrics.sessions_peak), (1, 10), "{workers} workers, {forks} forks");
        assert_eq!(metrics.closed(CloseKind::PeerClosed), 10);
        world.net().leave(later);
        world.run_for(50);
        world.assert_empty();
    }
}

#[test]
fn frames_that_are_too_long_are_counted_and_so_is_who_was_refused_for_what() {
    let limits = Limits::default().frame(100).connections_per_peer(2);
    let mut world = World::new(Setup { limits, ..Setup::default() }, |_| ());
    let conn = world.connect();
    world.run_for(1);
    world.net().say(conn, &1_000_u32.to_be_bytes());
    world.run_for(1);
    world.net().leave(conn);
    world.run_for(1);
    assert_eq!((world.metrics().frames_too_long, world.metrics().closed(CloseKind::Frame)), (1, 1));
    let conns: Vec<_> = (0..3).map(|_| world.connect()).collect();
    world.run_for(1);
    let metrics = world.metrics();
    assert_eq!((metrics.refused(RefusalCause::PeerLimit), metrics.refused_total()), (1, 1));
    for conn in conns {
        world.net().leave(conn);
    }
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn bytes_that_wait_for_a_peer_are_counted_until_it_reads_or_goes() {
    for reads in [true, false] {
        let mut setup = Setup::default();
        setup.sizes.down = 1_000;
        let mut world = World::new(setup, |probe| {
            probe.packet = Box::new(|session, _| Ok(session.send(vec![7; 9_996])?));
        });
        let conns = [world.connect(), world.connect()];
        for conn in conns {
            world.net().say(conn, &frame(b"hello"));
        }
        world.run_for(10);
        assert_eq!(
            world.metrics().queued,
            2 * 9_000,
            "a frame of 10,000 bytes each, of which the kernel has taken 1,000"
        );
        for conn in conns {
            if reads {
                assert_eq!(world.expect(conn, 10_000).len(), 10_000);
            } else {
                world.net().reset(conn);
            }
        }
        world.run_for(10);
        assert_eq!(world.metrics().queued, 0, "read: {reads}");
    }
}
