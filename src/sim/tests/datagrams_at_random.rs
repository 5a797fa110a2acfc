//! Peers that come, talk and fall silent, over a network that loses, repeats and reorders datagrams, with sockets whose calls
//! fail: whatever happens, the books balance.

use std::{net::SocketAddr, time::Duration};

use crate::{
    limits::Limits,
    shard::Beyond,
    sim::{Faults, Rng, Setup, World},
};

const PEERS: u64 = 40;
const THROWS: u64 = 400;

fn peer(number: u64) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number as u8], 1_000 + number as u16))
}

/// Runs a world from its seed. Returns its trace.
fn run(seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let faults = Faults::swarm(&mut rng).with_datagrams(&mut rng);
    let beyond = if rng.chance(500) { Beyond::ForgetIdlest } else { Beyond::Refuse };
    let connections = rng.between(2, 60) as usize;
    // A paused session has no idle timeout.
    let idle = Duration::from_millis(rng.between(20, 500));
    let limits = Limits::default().frame(1_000).idle_timeout(idle).max_age(Duration::from_millis(2_000));
    let workers = if rng.chance(300) { rng.between(1, 4) as usize } else { 0 };
    let setup =
        Setup { seed, limits, faults, datagrams: Some(beyond), connections, workers, ..Setup::default() };
    let mut world = World::new(setup, |probe| {
        probe.packet = Box::new(|session, packet| {
            match packet {
                [0, ..] => session.close(),
                [1, ..] => session.abort(),
                [2, ..] => panic_quietly(),
                [3, ..] => session.pause(),
                [4, ..] => session.resume(),
                _ => {}
            }
            Ok(session.send(packet)?)
        });
    });
    for _ in 0..THROWS {
        let from = peer(rng.between(1, PEERS));
        let len = if rng.chance(30) { 1_001 } else { rng.below(300) as usize };
        let mut datagram = vec![9; len];
        if let Some(first) = datagram.first_mut() {
            *first = rng.below(200) as u8;
        }
        world.throw(from, &[&datagram]);
        if rng.chance(20) {
            let (at, jam) = (rng.below(world.listeners().len() as u64) as usize, rng.chance(500));
            let socket = world.listeners()[at];
            world.net().jam(socket, jam);
        }
        let pause = rng.below(8);
        world.run_for(pause);
        world.log.assert_balanced(false);
        let metrics = world.metrics();
        assert!(metrics.sessions <= connections as u64, "{metrics:?}");
    }
    let sockets = world.listeners().to_vec();
    sockets.into_iter().for_each(|socket| world.net().jam(socket, false));
    world.run_for(5_000);
    world.assert_empty();
    let metrics = world.metrics();
    assert_eq!(metrics.opened, metrics.closed_total(), "{metrics:?}");
    world.shut_down(Duration::from_millis(100));
    world.run_to_rest();
    world.assert_gone();
    world.net().trace
}

/// Panics without calling the panic hook.
fn panic_quietly() {
    std::panic::resume_unwind(Box::new("on purpose"));
}

#[test]
fn the_books_balance_whatever_the_network_does() {
    for seed in 0..60 {
        run(seed);
    }
}

#[test]
fn a_seed_reproduces_a_run() {
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
