//! A server that cannot start says why, and leaves nothing behind: no shard, descriptor or place in the counts.

use std::cell::Cell;

use crate::{
    ServeError,
    id::ShardId,
    sim::{Call, Conn, Fail, Heard, Setup, World, errno},
};

fn setups() -> Vec<Setup> {
    let pool = |workers, reuse_port| Setup { workers, reuse_port, listeners: 2, ..Setup::default() };
    let forks = Setup { forks: 5, listeners: 2, ..Setup::default() };
    vec![pool(0, false), forks, pool(1, false), pool(3, false), pool(1, true), pool(3, true)]
}

/// The clients that had connected are told.
fn assert_let_go(world: &World, clients: &[Conn]) {
    for client in clients {
        assert!(matches!(world.hears(*client), Heard::End | Heard::Reset));
    }
}

#[test]
fn a_poll_or_a_thread_that_cannot_be_had_fails_the_start() {
    for call in [Call::NewPoll, Call::Spawn] {
        for mut setup in setups() {
            for nth in 1..=setup.workers as u64 + 1 {
                setup.faults.fail = Some(Fail { call: Some(call), nth, errno: errno::ENOMEM });
                let (mut world, started) = World::start(setup.clone(), |_| {});
                let Err(ServeError::System { source, .. }) = started else { panic!("{call:?}: {started:?}") };
                assert_eq!(source.raw_os_error(), Some(errno::ENOMEM));
                world.run_to_rest();
                world.assert_gone();
                assert!(world.ended.iter().all(Result::is_ok), "{:?}", world.ended);
                assert_eq!(world.ended.len(), nth as usize - 1, "those that had started before");
            }
        }
    }
}

#[test]
fn a_listener_that_cannot_be_polled_ends_the_server_and_lets_its_clients_go() {
    for mut setup in setups() {
        let listeners = if setup.reuse_port { 2 * setup.workers } else { 2 };
        for nth in 1..=listeners as u64 {
            setup.faults.fail = Some(Fail { call: Some(Call::Register), nth, errno: errno::ENOMEM });
            let (mut world, started) = World::start(setup.clone(), |_| {});
            assert!(started.is_ok(), "that is found out on the thread");
            let ports = world.listeners().to_vec();
            let clients: Vec<_> = match world.has_stopped() {
                true => Vec::new(),
                false => ports.iter().map(|listener| world.net().connect(*listener)).collect(),
            };
            world.run_to_rest();
            world.assert_gone();
            let failed: Vec<_> = world.ended.iter().filter_map(|ended| ended.as_ref().err()).collect();
            assert!(matches!(failed[..], [ServeError::System { .. }]), "{failed:?}");
            assert_eq!(world.ended.len(), setup.workers + 1);
            assert_let_go(&world, &clients);
        }
    }
}

#[test]
fn a_handler_that_panics_in_on_start_ends_the_server_and_lets_its_clients_go() {
    for setup in setups() {
        for nth in 0..=setup.workers {
            let made = Cell::new(0);
            let mut world = World::new(setup.clone(), |probe| {
                let panics = made.replace(made.get() + 1) == nth;
                probe.start = Box::new(move |_, _| assert!(!panics, "not started"));
            });
            let clients: Vec<_> = match world.has_stopped() {
                true => Vec::new(),
                false => (0..4).map(|_| world.connect()).collect(),
            };
            world.run_to_rest();
            world.assert_gone();
            let failed: Vec<_> = world.ended.iter().filter_map(|ended| ended.as_ref().err()).collect();
            let [ServeError::OnStart { message }] = failed[..] else { panic!("{failed:?}") };
            assert_eq!(message, "not started");
            assert_eq!((world.ended.len(), world.metrics().panics), (setup.workers + 1, 1));
            assert_let_go(&world, &clients);
        }
    }
}

#[test]
fn a_handler_that_cannot_be_made_ends_the_server_and_lets_its_clients_go() {
    for setup in setups() {
        for shard in (0..=setup.workers as u32).map(ShardId::new) {
            let mut world = World::new(Setup { no_handler: Some(shard), ..setup.clone() }, |_| {});
            let clients: Vec<_> = match world.has_stopped() {
                true => Vec::new(),
                false => (0..4).map(|_| world.connect()).collect(),
            };
            world.run_to_rest();
            world.assert_gone();
            let failed: Vec<_> = world.ended.iter().filter_map(|ended| ended.as_ref().err()).collect();
            assert!(matches!(failed[..], [ServeError::Factory { .. }]), "{failed:?}");
            assert_eq!(world.ended.len(), setup.workers + 1);
            assert_let_go(&world, &clients);
        }
    }
}
