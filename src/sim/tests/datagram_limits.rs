//! What bounds datagrams and peers, and what the network does to them.

use std::sync::{Arc, Mutex};

use super::datagrams::{ms, peer, setup, with, world};
use crate::{
    SendTicket, TimerId,
    error::{CloseKind, Failure, SendError, TicketError},
    framing::EncodeError,
    limits::Limits,
    shard::Beyond,
    sim::{Callback, Setup, World, errno},
};

#[test]
fn a_datagram_above_the_limit_is_counted_and_never_handed_out_cut() {
    let mut world = world(Limits::default().frame(1_000));
    world.throw(peer(1), &[&[1; 1_000], &[2; 1_001], &[3; 70_000], b"end"]);
    world.throw(peer(2), &[&[4; 1_001]]);
    world.run_to_rest();
    assert_eq!(world.caught(peer(1)), [&[1; 1_000][..], b"end"]);
    let metrics = world.metrics();
    assert_eq!((metrics.datagrams_too_long, metrics.packets_in, metrics.sessions), (3, 2, 1));
}

#[test]
fn a_datagram_that_cannot_be_sent_is_an_error_that_says_the_limit() {
    let mut world = with(Limits::default().frame(1_000), |probe| {
        probe.packet = Box::new(|session, _| {
            let error = session.send([0; 1_001]).map_err(|error| error.to_string());
            assert_eq!(
                error,
                Err("payload cannot be framed: payload of 1001 bytes is over the maximum of 1000".into())
            );
            assert_eq!(session.send([0; 1_001]), Err(SendError::Encode(EncodeError::too_long(1_001, 1_000))));
            Ok(session.send([0; 1_000])?)
        });
    });
    world.throw(peer(1), &[b"x"]);
    world.run_to_rest();
    assert_eq!(world.caught(peer(1)), [[0; 1_000]]);
    assert_eq!(world.log.closes(), []);
}

#[test]
fn a_datagram_that_the_network_refuses_is_counted_and_the_session_goes_on() {
    let mut setup = setup(Limits::default());
    setup.sizes.datagram = 500;
    let tickets = Arc::new(Mutex::new(Vec::new()));
    let mut world = World::new(setup, |probe| {
        let tickets = tickets.clone();
        probe.packet = Box::new(move |session, packet| {
            tickets
                .lock()
                .map_err(|_| Failure::because("poisoned"))?
                .push(session.handle().send_tracked(packet)?);
            Ok(())
        });
    });
    world.throw(peer(1), &[&[1; 501], b"next", b"", &[1; 501]]);
    world.run_to_rest();
    assert_eq!(world.caught(peer(1)), [&b"next"[..], b""]);
    let metrics = world.metrics();
    assert_eq!((metrics.datagrams_unsent, metrics.bytes_out, metrics.sessions), (2, 4, 1));
    let outcomes: Vec<_> = tickets.lock().expect("not poisoned").iter().map(SendTicket::outcome).collect();
    let dropped = || Some(Err(TicketError::Dropped));
    assert_eq!(outcomes, [dropped(), Some(Ok(())), Some(Ok(())), dropped()]);
}

#[test]
fn errors_of_receiving_never_stop_the_loop() {
    let mut world = world(Limits::default());
    let socket = world.listeners()[0];
    for errno in [errno::ECONNREFUSED, errno::ECONNRESET, errno::ENOMEM, errno::EPERM] {
        world.net().fail_receiving(socket, errno);
        world.throw(peer(1), &[b"x"]);
        world.run_to_rest();
        assert_eq!(world.caught(peer(1)), [b"x"]);
    }
    // One that fails without end pauses, and goes on after it.
    (0..200).for_each(|_| world.net().fail_receiving(socket, errno::EPERM));
    world.throw(peer(1), &[b"after"]);
    world.run_to_rest();
    assert_eq!(world.caught(peer(1)), [b"after"]);
    assert_eq!(world.now(), 300, "three pauses of 100 ms");
}

#[test]
fn a_full_send_buffer_holds_a_bounded_number_of_bytes_and_blocks_nobody() {
    let limits = Limits::default().outbox_low(1_000).outbox_high(8_000).outbox_hard(8_000);
    let mut world = world(limits);
    let socket = world.listeners()[0];
    world.throw(peer(1), &[b"before"]);
    world.run_to_rest();
    world.net().jam(socket, true);
    for number in 1..=100 {
        world.throw(peer(number), &[&[7; 1_000]]);
        world.run_to_rest();
    }
    let metrics = world.metrics();
    assert_eq!((metrics.sessions, metrics.packets_in), (100, 101), "all were served");
    assert!(metrics.buffered < 20_000, "{metrics:?}");
    assert!((80..100).contains(&metrics.datagrams_unsent), "{metrics:?}");
    world.net().jam(socket, false);
    world.run_to_rest();
    let caught: usize = (1..=100).map(|number| world.caught(peer(number)).len()).sum();
    assert_eq!(caught as u64, 101 - metrics.datagrams_unsent);
    assert_eq!(world.metrics().buffered, 0);
    world.throw(peer(1), &[b"after"]);
    world.run_to_rest();
    assert_eq!(world.caught(peer(1)), [b"after"]);
}

#[test]
fn what_waits_for_the_send_buffer_is_sent_before_a_close_is_over() {
    let mut world = with(Limits::default(), |probe| {
        probe.packet = Box::new(|session, packet| {
            session.send(packet)?;
            session.close();
            Ok(())
        });
    });
    let socket = world.listeners()[0];
    world.net().jam(socket, true);
    world.throw(peer(1), &[b"reply", b"ignored"]);
    world.net().at(1_000, move |net| net.jam(socket, false));
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(1_000, CloseKind::Local)]);
    assert_eq!((world.caught(peer(1)), world.metrics().datagrams_missed), (vec![b"reply".to_vec()], 1));
    // And if the buffer stays full, the close has its timeout.
    world.net().jam(socket, true);
    world.throw(peer(1), &[b"lost"]);
    world.run_to_rest();
    assert_eq!(world.log.closes().last(), Some(&(6_000, CloseKind::Local)));
    world.assert_empty();
}

#[test]
fn a_flood_of_one_peer_is_read_in_parts_between_which_timers_and_commands_have_their_turn() {
    const FLOOD: usize = 100_000;
    let mut world = with(Limits::default(), |probe| {
        probe.quiet = true;
        probe.start = Box::new(|shard, _| shard.set_timer(TimerId(1), ms(1)).expect("room for a timer"));
    });
    world.turn();
    let socket = world.listeners()[0];
    {
        let mut net = world.net();
        (0..FLOOD).for_each(|_| net.throw(&[socket], peer(1), b"flood"));
        net.throw(&[socket], peer(2), b"me");
        net.pass(1);
    }
    let (turns, mut most) = (world.metrics().turns, 0);
    while world.net().unread_datagrams() > 0 {
        let before = world.metrics().packets_in;
        world.turn();
        most = most.max(world.metrics().packets_in - before);
    }
    assert_eq!(most, 256, "datagrams in one turn");
    let turns = world.metrics().turns - turns;
    assert!(turns >= 390, "{turns} turns, in each of which others were served");
    world.run_for(1);
    assert_eq!(world.caught(peer(2)), [b"me"]);
    assert_eq!(world.caught(peer(1)).len(), FLOOD);
}

#[test]
fn forged_addresses_take_no_more_than_the_limit_and_drive_nobody_out() {
    let mut world =
        World::new(Setup { connections: 50, ..setup(Limits::default().idle_timeout(ms(60_000))) }, |_| {});
    world.throw(peer(1), &[b"first"]);
    for number in 2..2_000 {
        world.throw(peer(number), &[b"forged"]);
    }
    world.run_until(100);
    let metrics = world.metrics();
    assert_eq!((metrics.sessions, metrics.refused_total(), metrics.opened), (50, 1_949, 50));
    world.throw(peer(1), &[b"still here"]);
    world.run_until(200);
    assert_eq!(world.caught(peer(1)), [&b"first"[..], b"still here"]);
    world.run_to_rest();
    world.assert_empty();
    world.throw(peer(1_999), &[b"now there is room"]);
    world.run_for(1);
    assert_eq!(world.metrics().sessions, 1);
}

#[test]
fn the_idlest_peer_is_forgotten_for_a_new_one_where_that_is_asked_for() {
    let forgetting =
        Setup { connections: 3, datagrams: Some(Beyond::ForgetIdlest), ..setup(Limits::default()) };
    let mut world = World::new(forgetting, |_| {});
    for (at, number) in [(1, 1), (2, 2), (3, 3), (4, 1), (5, 4), (6, 5), (7, 1), (8, 6)] {
        world.throw(peer(number), &[b"x"]);
        world.run_until(at);
    }
    world.run_to_rest();
    let opened: Vec<_> = world.log.lines().into_iter().filter(|(.., told)| *told == Callback::Open).collect();
    assert_eq!(opened.len(), 6);
    let forgotten: Vec<_> = world
        .log
        .lines()
        .into_iter()
        .filter(|(.., told)| *told == Callback::Close(CloseKind::Forgotten))
        .map(|(_, session, _)| session)
        .collect();
    let by_peer = |number: usize| opened[number - 1].1;
    assert_eq!(forgotten, [by_peer(2), by_peer(3), by_peer(4)], "1 is heard again and again");
    let metrics = world.metrics();
    assert_eq!((metrics.sessions, metrics.refused_total(), metrics.closed(CloseKind::Forgotten)), (3, 0, 3));
}

#[test]
fn a_peer_above_the_limit_of_its_address_is_refused_and_nobody_is_forgotten_for_it() {
    let limits = Limits { connections_per_peer: Some(2), ..Limits::default() };
    let forgetting = Setup { connections: 2, datagrams: Some(Beyond::ForgetIdlest), ..setup(limits) };
    let mut world = World::new(forgetting, |_| {});
    (1..=4).for_each(|number| world.throw(peer(number), &[b"x"]));
    world.run_to_rest();
    let metrics = world.metrics();
    assert_eq!((metrics.sessions, metrics.refused_total(), metrics.closed_total()), (2, 2, 0));
}
