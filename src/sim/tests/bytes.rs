//! Boundaries, short transfers and spurious events: every byte once, in order.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::{
    TimerId,
    error::CloseKind,
    limits::Limits,
    sim::{Call, Callback, Conn, Fail, Faults, Heard, Network, Setup, World, errno, frame},
};

/// Sends packets of many sizes through an echo, in pieces, and reads what comes back.
fn echoes_everything(setup: Setup, piece: usize) -> World {
    let mut world = World::new(setup, |_| {});
    let conn = world.connect();
    let packets: Vec<Vec<u8>> = (0..60).map(|len| world.network.lock().rng.bytes(len * len % 700)).collect();
    let sent: Vec<u8> = packets.iter().flat_map(|packet| frame(packet)).collect();
    let (mut said, mut heard) = (0, Vec::new());
    let mut turns = 0;
    while heard.len() < sent.len() {
        let end = sent.len().min(said + piece);
        said += world.net().say(conn, &sent[said..end]);
        world.run_for(1);
        heard.extend(world.net().hear_all(conn));
        turns += 1;
        assert!(turns < 200_000, "{} of {} bytes came back", heard.len(), sent.len());
    }
    assert_eq!(heard, sent);
    let told = world.log.lines().into_iter().filter_map(|(_, _, told)| match told {
        Callback::Packet(packet) => Some(packet),
        _ => None,
    });
    assert!(told.eq(packets), "each packet once, in order");
    world.net().end(conn);
    world.run_to_rest();
    assert_eq!(world.hears(conn), Heard::End);
    assert_eq!(world.log.closes().last().map(|(_, kind)| *kind), Some(CloseKind::PeerClosed));
    world.assert_empty();
    world
}

#[test]
fn one_byte_at_a_time_loses_nothing() {
    echoes_everything(Setup::default(), 1);
}

#[test]
fn short_reads_and_writes_lose_nothing() {
    for seed in 0..20 {
        let faults = Faults { short: 900, ..Faults::none() };
        echoes_everything(Setup { seed, faults, ..Setup::default() }, 5_000);
    }
}

#[test]
fn spurious_events_are_harmless() {
    for seed in 0..20 {
        let faults = Faults { spurious: 500, stale: 500, ..Faults::none() };
        echoes_everything(Setup { seed, faults, ..Setup::default() }, 300);
    }
}

#[test]
fn would_block_interruptions_and_late_events_lose_nothing() {
    for seed in 0..20 {
        let faults =
            Faults { would_block: 300, interrupt: 300, late: 300, bare_hangup: 500, ..Faults::none() };
        echoes_everything(Setup { seed, faults, ..Setup::default() }, 1_000);
    }
}

#[test]
fn a_network_that_holds_one_byte_loses_nothing() {
    let mut setup = Setup::default();
    (setup.sizes.up, setup.sizes.down) = (1, 1);
    echoes_everything(setup, 1);
}

fn says_and_goes(goodbye: fn(&World, Conn)) -> (World, Conn) {
    let mut setup = Setup::default();
    setup.sizes.down = 500;
    let mut world = World::new(setup, |_| {});
    let conn = world.connect();
    world.run_for(1);
    for number in 0..30 {
        world.net().say(conn, &frame(&[number; 200]));
    }
    goodbye(&world, conn);
    world.run_for(1);
    (world, conn)
}

#[test]
fn a_half_close_with_the_output_blocked_gets_every_byte_and_then_the_end() {
    let (mut world, conn) = says_and_goes(|world, conn| world.net().end(conn));
    assert_eq!(world.log.lines().len(), 33, "one open, 30 packets, the end, and that it closes");
    let heard = world.expect(conn, 30 * 204);
    assert_eq!(heard, (0..30).flat_map(|number| frame(&[number; 200])).collect::<Vec<_>>());
    world.run_to_rest();
    assert_eq!(world.hears(conn), Heard::End);
    assert_eq!(world.log.closes().last().map(|(_, kind)| *kind), Some(CloseKind::PeerClosed));
    world.assert_empty();
}

#[test]
fn a_reset_after_data_ends_the_session_and_the_data_came_first() {
    let (mut world, _) = says_and_goes(|world, conn| world.net().reset(conn));
    assert_eq!(world.log.closes().last().map(|(_, kind)| *kind), Some(CloseKind::Io));
    assert!(world.log.lines().iter().filter(|line| matches!(line.2, Callback::Packet(_))).count() == 30);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_close_with_unread_input_destroys_no_reply() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.packet = Box::new(|session, packet| {
            session.send(packet)?;
            session.close();
            Ok(())
        });
    });
    let conn = world.connect();
    let mut all = frame(b"answer this");
    all.extend(frame(&[9; 60_000]));
    world.net().say(conn, &all);
    world.run_for(1);
    for _ in 0..10 {
        world.net().say(conn, &[1; 10_000]);
        world.run_for(1);
    }
    assert_eq!(world.net().hear_all(conn), frame(b"answer this"));
    assert_eq!(world.hears(conn), Heard::End);
    world.net().end(conn);
    world.run_to_rest();
    assert_eq!(world.log.count(&Callback::Packet(b"answer this".to_vec())), 1);
    world.assert_empty();
}

#[test]
fn a_packet_longer_than_the_limit_is_refused_with_its_header() {
    let mut world = World::new(Setup { limits: Limits::default().frame(100), ..Setup::default() }, |_| {});
    let conn = world.connect();
    world.net().say(conn, &[&frame(b"before")[..], &101u32.to_be_bytes()].concat());
    assert_eq!(world.expect(conn, 10), frame(b"before"));
    world.run_for(1);
    assert_eq!(world.hears(conn), Heard::End);
    world.net().end(conn);
    world.run_to_rest();
    assert_eq!(world.log.closes().last().map(|(_, kind)| *kind), Some(CloseKind::Frame));
}

/// Requests of three bytes, by number.
fn requests(count: u16) -> Vec<u8> {
    (0..count).flat_map(|number| frame(&[&b"r"[..], &number.to_be_bytes()].concat())).collect()
}

/// A session that was told these requests, in order, and then that it was reset.
fn assert_all_handed_out(world: &mut World, count: u16) {
    world.run_to_rest();
    let told = world.log.lines().into_iter().filter_map(|(_, _, told)| match told {
        Callback::Packet(packet) => Some(frame(&packet)),
        _ => None,
    });
    let packets: Vec<_> = told.collect();
    assert_eq!(packets.len(), usize::from(count));
    assert_eq!(packets.concat(), requests(count));
    assert_eq!(world.log.closes().last().map(|(_, kind)| *kind), Some(CloseKind::Io));
    world.assert_empty();
}

#[test]
fn a_write_that_fails_loses_no_request_that_was_received_before() {
    for (endpoints, pauses) in [(false, false), (true, false), (true, true)] {
        let limits = Limits::default().outbox_low(500).outbox_high(2_000);
        let mut setup = Setup { limits, ..Setup::default() };
        setup.sizes.down = 1_000;
        let mut world = World::new(setup, |probe| {
            probe.packet = Box::new(|session, _| Ok(session.send([7; 100])?));
            probe.drained = Box::new(|_, ()| panic!("nothing is drained that is discarded"));
        });
        let conn = world.connect();
        world.net().say(conn, &requests(500));
        world.run_for(1);
        assert!(
            world.log.count(&Callback::Packet(b"r\x01\x00".to_vec())) == 0,
            "the outbox is full before that"
        );
        if endpoints {
            world.net().end(conn);
        }
        if pauses {
            world.run_for(1);
        }
        world.net().reset(conn);
        assert_all_handed_out(&mut world, 500);
    }
}

#[test]
fn a_reset_loses_no_request_that_was_received_before_and_is_more_than_a_turn_reads() {
    let mut setup = Setup { limits: Limits::default().read_budget(1_000), ..Setup::default() };
    setup.sizes.up = 1 << 20;
    let mut world = World::new(setup, |probe| probe.packet = Box::new(|_, _| Ok(())));
    let conn = world.connect();
    world.run_for(1);
    // Several receive buffers full.
    let stream = requests(40_000);
    assert_eq!(world.net().say(conn, &stream), stream.len());
    world.net().reset(conn);
    assert_all_handed_out(&mut world, 40_000);
}

#[test]
fn a_paused_session_whose_connection_fails_ends_at_once() {
    for writes in [false, true] {
        let mut world = World::new(Setup::default(), |probe| {
            probe.packet = Box::new(move |session, _| {
                session.pause();
                if writes { Ok(session.set_timer(TimerId(1), Duration::from_millis(5))?) } else { Ok(()) }
            });
            probe.timer = Box::new(|session, _| Ok(session.send([7; 100])?));
        });
        let conn = world.connect();
        world.net().say(conn, &requests(2));
        world.run_for(1);
        world.net().reset(conn);
        world.run_to_rest();
        assert_eq!(world.log.closes().len(), 1);
        assert_eq!(world.log.closes()[0].1, CloseKind::Io);
        world.assert_empty();
    }
}

#[test]
fn a_peer_that_sends_on_over_a_connection_that_cannot_be_written_is_not_served_for_ever() {
    let limits = Limits::default().read_budget(100).close_timeout(Duration::from_secs(1));
    let mut setup = Setup { limits, ..Setup::default() };
    setup.faults.fail = Some(Fail { call: Some(Call::Send), nth: 1, errno: errno::EPIPE });
    let client = Arc::<OnceLock<(Network, Conn)>>::default();
    let mut world = World::new(setup, |probe| {
        let client = client.clone();
        probe.packet = Box::new(move |session, packet| {
            // Each takes a millisecond, in which the next one comes.
            let (network, conn) = client.get().expect("it is connected");
            let mut net = network.lock();
            net.pass(1);
            net.say(*conn, &frame(packet));
            drop(net);
            Ok(session.send(packet)?)
        });
    });
    let conn = world.connect();
    assert!(client.set((world.network.clone(), conn)).is_ok());
    world.net().say(conn, &frame(b"again"));
    world.run_until(5_000);
    let closes = world.log.closes();
    assert_eq!(closes.len(), 1);
    assert_eq!(closes[0].1, CloseKind::Io);
    assert!((1_000..1_100).contains(&closes[0].0), "at {}", closes[0].0);
    assert_eq!(world.hears(conn), Heard::Reset, "what is cut short must not look whole");
}
