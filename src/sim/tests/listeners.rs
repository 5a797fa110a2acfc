//! Listeners with a framing of their own, wherever their sessions live.

use crate::{
    error::CloseKind,
    framing::Separator,
    reactor::MAX_LISTENERS,
    shard::OtherFramings,
    sim::{Call, Callback, Fail, Heard, Setup, World, errno, frame},
};

/// Two listeners, the second for lines, under each strategy.
fn setups() -> [Setup; 4] {
    [(0, false, 0), (2, false, 0), (2, true, 0), (0, false, 100)].map(|(workers, reuse_port, forks)| {
        let mut others = OtherFramings::default();
        others.push(1, Separator::lines());
        Setup { workers, reuse_port, forks, listeners: 2, others, ..Setup::default() }
    })
}

#[test]
fn a_session_speaks_as_its_listener_does_however_its_bytes_arrive() {
    for setup in setups() {
        let (workers, forks) = (setup.workers, setup.forks);
        let mut world = World::new(setup, |_| {});
        // The clients connect to each listener in turn.
        let wires = [[frame(b"one"), frame(b"two")].concat(), b"one\ntwo\n".to_vec()];
        let conns: Vec<_> = wires.iter().cycle().take(20).map(|wire| (world.connect(), wire)).collect();
        for (conn, wire) in &conns {
            let conn = *conn;
            for (at, byte) in wire.iter().copied().enumerate() {
                world.net().at(10 + at as u64, move |net| {
                    net.say(conn, &[byte]);
                });
            }
        }
        world.run_until(100);
        for (conn, wire) in conns {
            let heard = world.net().hear_all(conn);
            assert_eq!(&heard, wire, "{workers} workers, {forks} forks");
            world.net().leave(conn);
        }
        world.run_to_rest();
        world.assert_empty();
        assert_eq!(world.metrics().packets_in, 40);
    }
}

#[test]
fn a_frame_of_another_listener_ends_that_session_alone() {
    for setup in setups() {
        let limits = setup.limits.clone().frame(100);
        let mut world = World::new(Setup { limits, ..setup }, |_| {});
        let [binary, lines] = [world.connect(), world.connect()];
        world.run_until(10);
        // As a length, the first letters of a line say that far too much is to come.
        world.net().say(binary, b"line\n");
        world.net().say(lines, &frame(b"line\n"));
        world.run_until(20);
        assert_eq!(world.log.count(&Callback::Violation), 1);
        assert_eq!(world.hears(binary), Heard::End);
        assert_eq!(world.hears(lines), Heard::Bytes(frame(b"line\n")));
        world.net().leave(binary);
        world.net().leave(lines);
        world.run_to_rest();
        world.assert_empty();
        let mut kinds: Vec<_> = world.log.closes().into_iter().map(|(_, kind)| kind).collect();
        kinds.sort_unstable_by_key(|kind| *kind == CloseKind::Frame);
        assert_eq!(kinds, [CloseKind::PeerClosed, CloseKind::Frame]);
    }
}

#[test]
fn a_connection_that_waits_for_a_thread_keeps_the_framing_of_its_listener() {
    // The first thread is the acceptor's.
    for nth in 2..6 {
        let [.., mut setup] = setups();
        setup.faults.fail = Some(Fail { call: Some(Call::Spawn), nth, errno: errno::EAGAIN });
        let mut world = World::new(setup, |_| {});
        let wires = [frame(b"hello"), b"hello\n".to_vec()];
        let conns: Vec<_> = wires.iter().cycle().take(4).map(|wire| (world.connect(), wire)).collect();
        for (conn, wire) in conns {
            world.net().say(conn, wire);
            assert_eq!(&world.expect(conn, wire.len()), wire);
            world.net().leave(conn);
        }
        world.run_to_rest();
        world.assert_empty();
        let metrics = world.metrics();
        assert_eq!(
            (metrics.opened, metrics.refused_total(), metrics.accept_pauses),
            (4, 0, 1),
            "thread {nth}"
        );
    }
}

#[test]
fn a_server_has_as_many_listeners_as_a_token_can_number() {
    let mut others = OtherFramings::default();
    others.push(MAX_LISTENERS - 1, Separator::lines());
    let setup = Setup { workers: 2, listeners: MAX_LISTENERS, others, ..Setup::default() };
    let mut world = World::new(setup, |_| {});
    // One client for each.
    let conns: Vec<_> = (0..MAX_LISTENERS).map(|_| world.connect()).collect();
    world.run_until(10);
    let (last, rest) = conns.split_last().unwrap();
    for conn in rest {
        world.net().say(*conn, &frame(b"served"));
    }
    world.net().say(*last, b"served\n");
    world.run_until(20);
    for conn in rest {
        assert_eq!(world.hears(*conn), Heard::Bytes(frame(b"served")));
    }
    assert_eq!(world.hears(*last), Heard::Bytes(b"served\n".to_vec()));
    for conn in conns {
        world.net().leave(conn);
    }
    world.run_to_rest();
    world.assert_empty();
}
