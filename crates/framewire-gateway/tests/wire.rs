//! The wire protocol, byte for byte, and what breaks it.

mod common;

use std::time::Duration;

use common::{
    KEY, PATIENCE, Peer, THREADS, Threads, audit,
    cases::{Step, broken, conversation},
    client_addr, message, server_addr, start, wait_until,
};
use framewire_gateway::{Dialect, Gateway, GatewayLimits, Keys, protocol::Command};

#[test]
fn a_conversation_is_the_documented_bytes() {
    for &threads in THREADS {
        let gateway = start(threads, GatewayLimits::default());
        let mut server = Peer::connect(server_addr(&gateway));
        let challenge: [u8; 8] = server.take();
        let answer = Dialect::Md5.answer(&challenge, &[0; 16], KEY.as_bytes(), 1);
        assert_eq!(answer.len(), 20);
        server.write(&answer);
        wait_until(|| !gateway.snapshot().servers.is_empty());
        let mut client = Peer::client(&gateway);
        for (step, bytes) in conversation() {
            match step {
                Step::ClientSends => client.write(&bytes),
                Step::ClientReceives => client.expect(&bytes),
                Step::ServerSends => server.write(&bytes),
                Step::ServerReceives => server.expect(&bytes),
            }
        }
        client.expect_nothing();
        drop((client, server));
        audit(gateway);
    }
}

#[test]
fn frames_may_be_cut_and_glued_anywhere() {
    let gateway = start(Threads::One, GatewayLimits::default());
    let (mut client, mut server) = (Peer::client(&gateway), Peer::server(&gateway, 1));
    let conn = client.dial(1, &mut server);
    let stream = [message(conn, b"one"), message(conn, b""), message(conn, b"three")].concat();
    for cut in 1..stream.len() {
        client.write(&stream[..cut]);
        std::thread::yield_now();
        client.write(&stream[cut..]);
        for payload in [&b"one"[..], b"", b"three"] {
            server.expect(&message(conn, payload));
        }
    }
    for byte in &stream {
        server.write(&[*byte]);
    }
    for payload in [&b"one"[..], b"", b"three"] {
        client.expect(&message(conn, payload));
    }
    drop((client, server));
    audit(gateway);
}

#[test]
fn the_first_frame_may_ride_in_the_segment_of_the_answer() {
    let gateway = start(Threads::One, GatewayLimits::default());
    let mut server = Peer::connect(server_addr(&gateway));
    let challenge: [u8; 8] = server.take();
    let answer = Dialect::Md5.answer(&challenge, &[0; 16], KEY.as_bytes(), 1);
    server.write(&[&answer[..], &Command::New.frame()].concat());
    server.expect_command(Command::Open { conn: 1 });
    drop(server);
    audit(gateway);
}

#[test]
fn the_limit_is_on_length_alone_and_exact_before_the_body_arrives() {
    for &threads in THREADS {
        let gateway = start(threads, GatewayLimits { max_length: 1000, ..GatewayLimits::default() });
        let (mut client, mut server) = (Peer::client(&gateway), Peer::server(&gateway, 1));
        let conn = client.dial(1, &mut server);
        client.say(conn, &[7; 996]);
        server.expect(&message(conn, &[7; 996]));
        client.write(&1001_u32.to_le_bytes());
        client.expect_end();
        server.expect_command(Command::Close { conn });
        drop(server);
        audit(gateway);
    }
}

#[test]
fn what_breaks_the_protocol_ends_its_link_and_no_other() {
    let gateway = start(Threads::One, GatewayLimits::default());
    let (mut bystander, mut server) = (Peer::client(&gateway), Peer::server(&gateway, 1));
    let conn = bystander.dial(1, &mut server);
    for frame in broken() {
        let mut client = Peer::client(&gateway);
        client.write(&frame);
        client.expect_silent_end();
        let mut other = Peer::server(&gateway, 2);
        other.write(&frame);
        other.expect_silent_end();
    }
    bystander.say(conn, b"still here");
    server.expect(&message(conn, b"still here"));
    drop((bystander, server));
    audit(gateway);
}

#[test]
fn a_wrong_digest_ends_the_link_at_once_and_half_of_one_at_the_deadline() {
    let limits = GatewayLimits { handshake: Duration::from_millis(300), ..GatewayLimits::default() };
    let gateway = start(Threads::One, limits);
    let mut wrong = Peer::connect(server_addr(&gateway));
    wrong.prove(b"another key", 1);
    wrong.expect_silent_end();
    assert_eq!(gateway.metrics().servers_refused, 1);
    for len in [0, 10, 19] {
        let mut half = Peer::connect(server_addr(&gateway));
        let challenge: [u8; 8] = half.take();
        let answer = Dialect::Md5.answer(&challenge, &[0; 16], KEY.as_bytes(), 1);
        half.write(&answer[..len]);
        half.expect_silent_end();
    }
    assert!(gateway.snapshot().servers.is_empty());
    audit(gateway);
}

#[test]
fn keys_are_replaced_while_servers_stay() {
    let gateway = start(Threads::One, GatewayLimits::default());
    let mut old = Peer::server(&gateway, 1);
    gateway.set_keys(0, Keys::new(["new key", KEY]).unwrap());
    let both = Peer::server(&gateway, 2);
    gateway.set_keys(0, Keys::new(["new key"]).unwrap());
    let mut late = Peer::connect(server_addr(&gateway));
    late.prove(KEY.as_bytes(), 3);
    late.expect_end();
    let mut new = Peer::connect(server_addr(&gateway));
    new.prove(b"new key", 3);
    new.expect_nothing();
    old.expect_nothing();
    drop((old, both, late, new));
    audit(gateway);
}

#[test]
fn the_hmac_dialect_is_required_where_it_is_asked_for() {
    let keys = Keys::new([KEY]).unwrap();
    let gateway = Gateway::new()
        .clients("127.0.0.1:0")
        .servers("127.0.0.1:0", Dialect::HmacSha256, keys.clone())
        .servers("127.0.0.1:0", Dialect::Md5, keys);
    let gateway = gateway.spawn().unwrap();
    let mut server = Peer::connect(server_addr(&gateway));
    let challenge: [u8; 16] = server.take();
    server.write(&Dialect::HmacSha256.answer(&challenge, &[5; 16], KEY.as_bytes(), 9));
    server.expect_nothing();
    let mut elsewhere = Peer::connect(gateway.server_addrs()[1].socket_addr().unwrap());
    elsewhere.prove(KEY.as_bytes(), 10);
    elsewhere.expect_nothing();
    let mut old = Peer::connect(server_addr(&gateway));
    let challenge: [u8; 8] = old.take();
    old.write(&Dialect::Md5.answer(&challenge, &[0; 16], KEY.as_bytes(), 9));
    old.write(&[0; 32]);
    old.expect_end();
    drop((server, elsewhere));
    audit(gateway);
}

#[test]
fn a_silent_peer_is_pinged_and_ends_one_interval_after_an_unanswered_ping() {
    let limits = GatewayLimits { ping_interval: Duration::from_millis(200), ..GatewayLimits::default() };
    let gateway = start(Threads::One, limits);
    let (mut client, mut server) = (Peer::client(&gateway), Peer::server(&gateway, 1));
    for _ in 0..3 {
        client.expect_command(Command::Ping);
        client.command(Command::Ping);
        server.expect_command(Command::Ping);
        server.command(Command::Ping);
    }
    client.expect_command(Command::Ping);
    client.expect_silent_end();
    drop(client);
    wait_until(|| gateway.metrics().links_silent >= 1);
    drop(server);
    audit(gateway);
}

#[test]
fn a_drain_closes_connections_spread_over_its_time_and_takes_nobody_in() {
    for &threads in THREADS {
        let gateway = start(threads, GatewayLimits::default());
        let (mut client, mut server) = (Peer::client(&gateway), Peer::server(&gateway, 1));
        let conns: Vec<u32> = (0..10).map(|_| client.dial(1, &mut server)).collect();
        gateway.drain(Duration::from_millis(300));
        let mut closed: Vec<u32> = (0..10)
            .map(|_| {
                let frame = client.frame();
                assert_eq!(frame[..9], [9, 0, 0, 0, 0, 0, 0, 0, 5]);
                server.expect(&frame);
                u32::from_le_bytes(frame[9..13].try_into().unwrap())
            })
            .collect();
        closed.sort_unstable();
        assert_eq!(closed, conns);
        let conn = client.new_conn();
        client.command(Command::Dial { conn, remote: 1 });
        client.expect_command(Command::Refuse { conn });
        Peer::client(&gateway).expect_silent_end();
        gateway.stop(PATIENCE).unwrap();
        client.expect_end();
    }
}

#[test]
fn an_address_that_cannot_be_bound_is_named() {
    let gateway = start(Threads::One, GatewayLimits::default());
    let taken = client_addr(&gateway);
    let other = Gateway::new().clients(taken.to_string());
    let refused = other.clone().servers("127.0.0.1:0", Dialect::Md5, Keys::open_to_all()).spawn();
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains(&taken.to_string()), "{refused}");
    assert!(other.spawn().is_err(), "no address for servers");
    audit(gateway);
}
