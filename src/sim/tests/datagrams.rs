//! Sessions over datagrams: one per peer.

use std::{net::SocketAddr, time::Duration};

use crate::{
    Heartbeat, TimerId,
    error::{CloseKind, Failure, SendError},
    handler::Then,
    id::ShardId,
    limits::Limits,
    shard::{Beyond, Command},
    sim::{Callback, Probe, Setup, World},
};

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn peer(number: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], number))
}

pub(super) fn setup(limits: Limits) -> Setup {
    Setup { limits, datagrams: Some(Beyond::Refuse), ..Setup::default() }
}

pub(super) fn world(limits: Limits) -> World {
    World::new(setup(limits), |_| {})
}

pub(super) fn with(limits: Limits, change: impl Fn(&mut Probe)) -> World {
    World::new(setup(limits), change)
}

/// What the sessions were told, without when.
fn told(world: &World) -> Vec<Callback> {
    world.log.lines().into_iter().map(|(_, _, told)| told).collect()
}

fn packet(bytes: &[u8]) -> Callback {
    Callback::Packet(bytes.to_vec())
}

#[test]
fn a_peer_is_a_session_and_a_datagram_a_packet_also_an_empty_one() {
    let mut world = world(Limits::default());
    world.throw(peer(1), &[b"one", b"", b"three"]);
    world.throw(peer(2), &[b"other"]);
    world.run_to_rest();
    assert_eq!(world.caught(peer(1)), [&b"one"[..], b"", b"three"]);
    assert_eq!(world.caught(peer(2)), [b"other"]);
    let expected =
        [Callback::Open, packet(b"one"), packet(b""), packet(b"three"), Callback::Open, packet(b"other")];
    assert_eq!(told(&world), expected);
    let metrics = world.metrics();
    assert_eq!((metrics.sessions, metrics.accepted, metrics.opened), (2, 2, 2));
    assert_eq!(
        (metrics.packets_in, metrics.bytes_in, metrics.packets_out, metrics.bytes_out),
        (4, 13, 4, 13)
    );
    assert_eq!(metrics.buffered, 0, "idle sessions hold nothing");
}

#[test]
fn a_silent_peer_is_forgotten_and_begins_anew_when_it_comes_back() {
    let mut world = world(Limits::default().idle_timeout(ms(60_000)));
    world.throw(peer(1), &[b"a"]);
    let (socket, from) = (world.listeners()[0], peer(1));
    world.net().at(50_000, move |net| net.throw(&[socket], from, b"b"));
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(110_000, CloseKind::Idle)]);
    world.assert_empty();
    world.throw(peer(1), &[b"c"]);
    world.run_until(110_001);
    assert_eq!(world.log.count(&Callback::Open), 2);
    assert_eq!(world.caught(peer(1)), [b"a", b"b", b"c"]);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_close_sends_what_is_queued_and_waits_for_nobody() {
    let mut world = with(Limits::default(), |probe| {
        probe.packet = Box::new(|session, packet| {
            session.send(packet)?;
            session.send("bye")?;
            session.close();
            assert_eq!(session.send("late"), Err(SendError::Closed));
            Ok(())
        });
    });
    world.throw(peer(1), &[b"a", b"b"]);
    world.run_to_rest();
    assert_eq!(
        world.caught(peer(1)),
        [&b"a"[..], b"bye", b"b", b"bye"],
        "the next datagram begins a session"
    );
    assert_eq!(world.log.closes(), [(0, CloseKind::Local), (0, CloseKind::Local)]);
    assert_eq!(world.log.count(&Callback::End), 0);
    world.assert_empty();
}

#[test]
fn an_abort_sends_nothing_and_an_error_sends_what_was_queued_before() {
    let mut world = with(Limits::default(), |probe| {
        probe.packet = Box::new(|session, packet| {
            session.send(packet)?;
            if packet == b"abort" {
                session.abort();
                return Ok(());
            }
            Err(Failure::because("no"))
        });
    });
    world.throw(peer(1), &[b"abort"]);
    world.throw(peer(2), &[b"error"]);
    world.run_to_rest();
    assert!(world.caught(peer(1)).is_empty());
    assert_eq!(world.caught(peer(2)), [b"error"]);
    assert_eq!(world.log.closes(), [(0, CloseKind::Local), (0, CloseKind::Handler)]);
    world.assert_empty();
}

#[test]
fn a_session_that_is_refused_by_on_open_is_tried_again_with_the_next_datagram() {
    let mut refused = 0;
    let open = move |session: &mut crate::Session<'_>| {
        refused += 1;
        session.send("wait")?;
        if refused < 3 { Err(Failure::because("not yet")) } else { Ok(()) }
    };
    let mut open = Some(open);
    let mut world = World::new(setup(Limits::default()), {
        let open = std::sync::Mutex::new(&mut open);
        move |probe| {
            if let Some(mut open) = open.lock().ok().and_then(|mut open| open.take()) {
                probe.open = Box::new(move |session, ()| open(session));
            }
        }
    });
    world.throw(peer(1), &[b"1", b"2", b"3"]);
    world.run_to_rest();
    assert_eq!(world.caught(peer(1)), [&b"wait"[..], b"wait", b"wait", b"3"]);
    let metrics = world.metrics();
    assert_eq!((metrics.accepted, metrics.opened, metrics.refused_total()), (3, 1, 2));
    assert_eq!(metrics.datagrams_missed, 2, "those for which there was no session");
}

#[test]
fn timers_heartbeats_and_ages_come_to_the_millisecond() {
    let mut world = with(Limits::default().max_age(ms(400)).max_age_spread(ms(0)), |probe| {
        probe.open = Box::new(|session, ()| {
            session.set_heartbeat(Heartbeat::every(ms(100), "beat")?);
            Ok(session.set_timer(TimerId(7), ms(250))?)
        });
        probe.timer = Box::new(|session, _| Ok(session.send("timer")?));
    });
    world.throw(peer(1), &[b"x"]);
    world.run_to_rest();
    assert_eq!(world.log.times(&Callback::Timer(7)), [250]);
    assert_eq!(world.log.closes(), [(400, CloseKind::MaxAge)]);
    assert_eq!(world.caught(peer(1)), [&b"x"[..], b"beat", b"beat", b"timer", b"beat"]);
    world.assert_empty();
}

#[test]
fn a_peer_that_answers_no_beat_is_lost() {
    let mut world = with(Limits::default(), |probe| {
        probe.open = Box::new(|session, ()| {
            session.set_heartbeat(Heartbeat::every(ms(100), "beat")?.lost_after(3));
            Ok(())
        });
    });
    world.throw(peer(1), &[b"x"]);
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(400, CloseKind::HeartbeatLost)]);
    world.assert_empty();
}

#[test]
fn a_paused_session_loses_what_comes_and_the_others_do_not() {
    let mut world = with(Limits::default(), |probe| {
        probe.packet = Box::new(|session, packet| {
            if packet == b"pause" {
                session.pause();
                session.set_timer(TimerId(1), ms(100))?;
            }
            Ok(session.send(packet)?)
        });
        probe.timer = Box::new(|session, _| {
            session.resume();
            Ok(())
        });
    });
    world.throw(peer(1), &[b"pause", b"lost", b"lost"]);
    world.throw(peer(2), &[b"served"]);
    world.run_to_rest();
    world.throw(peer(1), &[b"again"]);
    world.run_to_rest();
    assert_eq!(world.caught(peer(1)), [&b"pause"[..], b"again"]);
    assert_eq!(world.caught(peer(2)), [b"served"]);
    assert_eq!(world.metrics().datagrams_missed, 2);
}

#[test]
fn after_the_process_stood_still_what_came_is_read_before_anybody_is_taken_for_silent() {
    let mut world = world(Limits::default().idle_timeout(ms(1_000)));
    (1..=3).for_each(|number| world.throw(peer(number), &[b"x"]));
    world.run_until(10);
    let socket = world.listeners()[0];
    world.net().at(500, move |net| {
        // More than one turn reads, and the last of it is of a peer whose deadline has passed.
        (0..1_000).for_each(|_| net.throw(&[socket], peer(1), b"a"));
        net.throw(&[socket], peer(2), b"b");
    });
    world.net().pass(5_000);
    world.run_for(500);
    assert_eq!(world.log.closes().len(), 1, "only 3 was silent");
    assert_eq!((world.metrics().sessions, world.metrics().packets_in), (2, 1_004));
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_callback_that_blocks_makes_nobody_silent() {
    let mut world = with(Limits::default().idle_timeout(ms(1_000)), |probe| {
        let block = probe.block();
        probe.packet = Box::new(move |_, packet| {
            if packet == b"block" {
                block(5_000);
            }
            Ok(())
        });
    });
    world.throw(peer(1), &[b"x"]);
    world.throw(peer(2), &[b"block"]);
    world.throw(peer(3), &[b"y"]);
    world.run_until(5_900);
    assert_eq!(world.log.closes(), []);
    world.run_to_rest();
    assert_eq!(world.log.closes().len(), 3);
    world.assert_empty();
}

#[test]
fn a_shutdown_says_farewell_and_leaves_nothing() {
    let mut world = with(Limits::default(), |probe| {
        probe.shutdown = Box::new(|session, ()| {
            session.send("farewell")?;
            Ok(Then::Close)
        });
    });
    (1..=3).for_each(|number| world.throw(peer(number), &[b"x"]));
    world.run_to_rest();
    world.shut_down(ms(1_000));
    world.turn();
    world.throw(peer(4), &[b"too late"]);
    world.run_to_rest();
    (1..=3).for_each(|number| assert_eq!(world.caught(peer(number)), [&b"x"[..], b"farewell"]));
    assert_eq!(world.caught(peer(4)), Vec::<Vec<u8>>::new());
    world.assert_gone();
}

#[test]
fn a_session_that_stays_in_a_shutdown_is_served_until_it_is_over() {
    let mut world = with(Limits::default(), |probe| {
        probe.shutdown = Box::new(|_, ()| Ok(Then::Stay));
    });
    world.throw(peer(1), &[b"x"]);
    world.run_to_rest();
    world.shut_down(ms(1_000));
    world.run_for(500);
    world.throw(peer(1), &[b"still"]);
    world.throw(peer(2), &[b"too late"]);
    world.run_to_rest();
    assert_eq!(world.caught(peer(1)), [&b"x"[..], b"still"]);
    assert_eq!(world.log.closes(), [(1_000, CloseKind::Shutdown)]);
    world.assert_gone();
}

#[test]
fn a_pool_serves_each_peer_on_the_thread_of_its_socket() {
    let mut world = World::new(Setup { workers: 3, ..setup(Limits::default()) }, |_| {});
    for number in 1..=30 {
        world.throw(peer(number), &[b"a", b"b"]);
    }
    world.run_to_rest();
    (1..=30).for_each(|number| assert_eq!(world.caught(peer(number)), [b"a", b"b"]));
    let shards: Vec<u32> = world.log.lines().iter().map(|(_, session, _)| session.shard().0).collect();
    for shard in 0..=3 {
        let expected = if shard == 0 { 0 } else { 10 * 3 };
        assert_eq!(shards.iter().filter(|at| **at == shard).count(), expected, "shard {shard}");
    }
    world.abort();
    world.run_to_rest();
    world.assert_gone();
}

#[test]
fn a_command_reaches_the_session_of_a_peer() {
    let mut world = with(Limits::default(), |probe| {
        probe.open = Box::new(|session, ()| {
            let handle = session.handle();
            assert_eq!(handle.send("by handle"), Ok(()));
            Ok(())
        });
    });
    world.throw(peer(1), &[b"x"]);
    world.run_to_rest();
    assert_eq!(world.caught(peer(1)), [&b"x"[..], b"by handle"]);
    world.post(ShardId::ACCEPTOR.index(), Command::Abort);
    world.run_to_rest();
    world.assert_gone();
}

#[test]
fn a_framing_or_a_layer_ends_a_session_that_has_no_stream() {
    let mut world = with(Limits::default(), |probe| {
        probe.packet = Box::new(|session, packet| {
            session.set_framing(crate::Raw::new());
            Ok(session.send(packet)?)
        });
    });
    world.throw(peer(1), &[b"x"]);
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(0, CloseKind::Handler)]);
    assert!(world.caught(peer(1)).is_empty());
    world.assert_empty();
}

#[test]
fn a_broadcast_goes_to_each_peer_as_a_datagram_also_where_the_packets_have_to_wait() {
    let mut world = world(Limits::default());
    (1..=50).for_each(|number| world.throw(peer(number), &[b"x"]));
    world.run_to_rest();
    (1..=50).for_each(|number| assert_eq!(world.caught(peer(number)), [b"x"]));
    let socket = world.listeners()[0];
    // Shared by all of them, and copied, while they wait.
    let packets = [vec![1; 5_000], vec![2; 10], Vec::new()];
    for jams in [false, true] {
        world.net().jam(socket, jams);
        for packet in &packets {
            assert_eq!(world.broadcast(packet), Ok(1));
        }
        world.run_to_rest();
        world.net().jam(socket, false);
        world.run_to_rest();
        (1..=50)
            .for_each(|number| assert_eq!(world.caught(peer(number)), packets, "{number}, jammed: {jams}"));
    }
    let metrics = world.metrics();
    assert_eq!((metrics.buffered, metrics.datagrams_unsent, metrics.packets_out), (0, 0, 350));
    assert_eq!(metrics.bytes_out, 50 + 2 * 50 * 5_010);
}
