//! Boundaries, short transfers and spurious events: every byte once, in order.

use crate::{
    error::CloseKind,
    limits::Limits,
    reactor::sim::{Conn, Faults, Heard, Setup, Told, World, frame},
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
        Told::Packet(packet) => Some(packet),
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
    assert_eq!(world.log.lines().len(), 32, "one open, 30 packets, and that it closes");
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
    assert_eq!(world.log.closes().last().map(|(_, kind)| *kind), Some(CloseKind::Reset));
    assert!(world.log.lines().iter().filter(|line| matches!(line.2, Told::Packet(_))).count() == 30);
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
    assert_eq!(world.log.count(&Told::Packet(b"answer this".to_vec())), 1);
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
