//! Ends on different threads, which hear of each other late.

use super::*;

/// A frame of `len` bytes, header included.
fn frame(conn: u32, len: usize) -> BytesMut {
    let mut frame = BytesMut::new();
    put_frame(conn, &vec![3; len - 8], u32::MAX, &mut frame).expect("short enough");
    frame
}

#[test]
fn what_was_on_its_way_when_a_server_became_slow_is_taken_and_nothing_is_lost() {
    let limits = GatewayLimits { thread_queue: 1_000, max_length: 100, ..small() };
    let mut world = World::new(2, limits);
    let (client, server) = (world.client(0), world.server(1, 7));
    let conn = world.open(client, server);
    let frame = frame(conn, 100);
    let (mut sent, mut batch) = (0, Batch::default());
    // Twice, what one thread sends before the other can tell it that the server is slow.
    for taken in 0..2 {
        while !world.hubs[0].is_held(client.1) && sent < 10 * (taken + 1) {
            world.hubs[0].frame(client.1, &frame).unwrap();
            sent += 1;
        }
        world.hubs[1].take_messages(&mut batch);
    }
    assert_eq!(sent, 20, "ten times the bound of a connection, in two batches");
    world.run_until_idle();
    assert!(world.hubs[0].is_held(client.1));
    assert_eq!(world.received(server), vec![message(conn, &[3; 92]); sent], "in order");
    assert!(!world.hubs[0].is_held(client.1), "it is read from again");
    assert_eq!(world.shared.metrics().overflows, 0);
    world.audit();
}

#[test]
fn a_large_frame_behind_a_small_one_holds_its_client_and_is_taken() {
    let limits = GatewayLimits { max_length: 100, ..small() };
    for (mut world, other) in worlds(limits) {
        let (client, server) = (world.client(0), world.server(other, 7));
        let conn = world.open(client, server);
        world.say(client, conn, b"small").unwrap();
        assert!(!world.hubs[0].is_held(client.1), "below half of the bound");
        world.say(client, conn, &[3; 96]).unwrap();
        assert!(world.hubs[0].is_held(client.1), "above all of it");
        assert_eq!(world.received(server), [message(conn, b"small"), message(conn, &[3; 96])]);
        assert!(!world.hubs[0].is_held(client.1));
        world.audit();
    }
}

#[test]
fn a_connection_that_goes_on_all_the_same_is_closed_at_a_bound() {
    let limits = GatewayLimits { thread_queue: 1_000, max_length: 100, ..small() };
    let road = limits.road();
    let mut world = World::new(2, limits);
    let (client, server) = (world.client(0), world.server(1, 7));
    let conn = world.open(client, server);
    let frame = frame(conn, 100);
    let mut sent = 0;
    // A link that is held is not read from: this does not happen.
    while world.shared.metrics().overflows == 0 {
        assert!(sent * 100 <= road + 1_000, "{sent} frames are taken");
        world.hubs[0].frame(client.1, &frame).unwrap();
        world.run_until_idle();
        sent += 1;
    }
    let told = world.received(server);
    assert_eq!(told.last(), Some(&Heard::Command(Command::Close { conn })));
    assert_eq!(
        told.len(),
        (100 + road) / 100 + 1,
        "the bound of a connection, what was on its way, and the Close"
    );
    world.audit();
}

#[test]
fn what_is_on_its_way_to_another_thread_is_bounded() {
    let mut world = World::new(2, GatewayLimits { thread_queue: 1000, ..GatewayLimits::default() });
    let (client, server) = (world.client(0), world.server(1, 7));
    let conn = world.open(client, server);
    let frame = frame(conn, 100);
    let mut sent = 0;
    while !world.hubs[0].is_held(client.1) {
        assert!(sent < 100, "it is never held");
        world.hubs[0].frame(client.1, &frame).unwrap();
        sent += 1;
    }
    assert_eq!(sent, 11, "of 100 bytes each");
    // What was read already is still taken.
    world.hubs[0].frame(client.1, &frame).unwrap();
    world.run_until_idle();
    assert!(!world.hubs[0].is_held(client.1), "the other thread has taken them");
    assert_eq!(world.received(server).len(), sent + 1);
}

#[test]
fn clients_that_fill_a_server_together_are_held_and_what_is_beyond_closes_its_connection_only() {
    let limits = GatewayLimits { max_length: 100, server_queue: 1_000, ..small() };
    let most = limits.server_queue + limits.frame();
    let mut world = World::new(1, limits);
    let server = world.server(0, 7);
    let clients: Vec<_> = (0..30).map(|_| world.client(0)).collect();
    let conns: Vec<u32> = clients.iter().map(|client| world.open(*client, server)).collect();
    let mut taken = 0;
    for (client, conn) in clients.iter().zip(&conns) {
        world.say(*client, *conn, &[4; 42]).unwrap();
        taken += usize::from(world.hubs[0].is_held(client.1));
        assert!(
            world.hubs[0].waiting(server.1) <= most + 30 * 13,
            "frames of 50 bytes, and a Close for each"
        );
    }
    let metrics = world.shared.metrics();
    let closed = metrics.overflows as usize;
    // Those up to half of the bound are not held, those beyond it are, and the last ones find no room.
    assert_eq!((taken, closed), ((most - 500) / 50, 30 - most / 50));
    let told = world.received(server);
    let messages = told.iter().filter(|heard| matches!(heard, Heard::Message(..))).count();
    assert_eq!(messages, 30 - closed, "nothing of the others is lost");
    assert!(clients.iter().all(|client| !world.hubs[0].is_held(client.1)), "all are read from again");
    for (client, conn) in clients.iter().zip(&conns).take(messages) {
        world.say(*client, *conn, b"more").unwrap();
        assert_eq!(world.received(server), [message(*conn, b"more")]);
    }
    world.audit();
}
