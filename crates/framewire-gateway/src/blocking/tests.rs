use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use super::*;
use crate::{Gateway, GatewayLimits, Keys, RunningGateway, protocol::put_frame};

const PATIENCE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(50);

fn gateway(limits: GatewayLimits) -> RunningGateway {
    let keys = Keys::new(["key"]).unwrap();
    Gateway::new()
        .clients("127.0.0.1:0")
        .servers("127.0.0.1:0", Dialect::HmacSha256, keys)
        .limits(limits)
        .spawn()
        .unwrap()
}

fn client(gateway: &RunningGateway) -> Endpoint {
    Endpoint::client(gateway.client_addrs()[0].socket_addr().unwrap()).unwrap()
}

fn server(gateway: &RunningGateway, id: u32) -> Endpoint {
    let addr = gateway.server_addrs()[0].socket_addr().unwrap();
    let server = Endpoint::server(addr, id, b"key", Dialect::HmacSha256).unwrap();
    while gateway.snapshot().servers.iter().all(|server| server.id != id) {
        thread::sleep(Duration::from_millis(1));
    }
    server
}

#[test]
fn several_connections_share_a_link_and_both_sides_dial() {
    let gateway = gateway(GatewayLimits::default());
    let (server, client) = (server(&gateway, 5), client(&gateway));
    let dialed: Vec<_> = (0..3).map(|_| client.dial(5, PATIENCE).unwrap()).collect();
    let accepted: Vec<_> = (0..3).map(|_| server.accept(PATIENCE).unwrap()).collect();
    for (number, (a, b)) in dialed.iter().zip(&accepted).enumerate() {
        assert_eq!((a.id(), a.remote(), b.remote()), (b.id(), 5, 1));
        a.send(format!("{number} there").as_bytes()).unwrap();
        b.send(format!("{number} back").as_bytes()).unwrap();
    }
    for (number, (a, b)) in dialed.iter().zip(&accepted).enumerate().rev() {
        assert_eq!(a.recv(PATIENCE).unwrap(), Some(format!("{number} back").into_bytes()));
        assert_eq!(b.recv(PATIENCE).unwrap(), Some(format!("{number} there").into_bytes()));
    }
    let back = server.dial(1, PATIENCE).unwrap();
    let here = client.accept(PATIENCE).unwrap();
    assert_eq!((back.id(), here.remote()), (here.id(), 5));
    assert!(matches!(client.dial(6, PATIENCE), Err(EndpointError::Refused { remote: 6, .. })));
    gateway.stop(PATIENCE).unwrap();
}

#[test]
fn dials_of_many_threads_get_each_their_own_answer() {
    let gateway = gateway(GatewayLimits { connections_per_client: 200, ..GatewayLimits::default() });
    let servers: Vec<_> = (0..4).map(|id| server(&gateway, id)).collect();
    let client = client(&gateway);
    thread::scope(|scope| {
        for id in 0..4 {
            let client = &client;
            scope.spawn(move || {
                for _ in 0..20 {
                    let conn = client.dial(id, PATIENCE).unwrap();
                    conn.send(&id.to_le_bytes()).unwrap();
                    assert_eq!(conn.recv(PATIENCE).unwrap(), Some(id.to_be_bytes().to_vec()));
                }
            });
        }
        for (id, server) in servers.iter().enumerate() {
            scope.spawn(move || {
                for _ in 0..20 {
                    let conn = server.accept(PATIENCE).unwrap();
                    assert_eq!(conn.recv(PATIENCE).unwrap(), Some((id as u32).to_le_bytes().to_vec()));
                    conn.send(&(id as u32).to_be_bytes()).unwrap();
                    assert_eq!(conn.recv(PATIENCE).unwrap(), None, "the client closes it");
                }
            });
        }
    });
    gateway.stop(PATIENCE).unwrap();
}

#[test]
fn what_was_received_stays_readable_after_a_close_and_after_the_end_of_the_link() {
    let gateway = gateway(GatewayLimits::default());
    let (server, client) = (server(&gateway, 5), client(&gateway));
    for ends in [false, true] {
        let dialed = client.dial(5, PATIENCE).unwrap();
        let accepted = server.accept(PATIENCE).unwrap();
        for number in 0..100_u8 {
            accepted.send(&[number]).unwrap();
        }
        assert_eq!(dialed.recv(PATIENCE).unwrap(), Some(vec![0]));
        if ends {
            dialed.send(b"all there?").unwrap();
            assert_eq!(accepted.recv(PATIENCE).unwrap(), Some(b"all there?".to_vec()));
            client.close();
        } else {
            accepted.close();
            assert!(matches!(accepted.send(b"x"), Err(EndpointError::Closed)));
        }
        let mut rest = Vec::new();
        let last = loop {
            match dialed.recv(PATIENCE) {
                Ok(Some(message)) => rest.push(message[0]),
                last => break last,
            }
        };
        if ends {
            assert!(rest.len() <= 99 && rest.iter().zip(1..).all(|(seen, sent)| *seen == sent), "{rest:?}");
            assert!(matches!(last, Err(EndpointError::Ended { .. })), "{last:?}");
        } else {
            assert_eq!(rest, (1..100).collect::<Vec<u8>>());
            assert!(matches!(last, Ok(None)), "{last:?}");
        }
    }
    gateway.stop(PATIENCE).unwrap();
}

#[test]
fn every_call_ends_at_its_deadline_or_with_the_link() {
    let gateway = gateway(GatewayLimits::default());
    let (server, client) = (server(&gateway, 5), client(&gateway));
    let dialed = client.dial(5, PATIENCE).unwrap();
    assert!(matches!(client.accept(SOON), Err(EndpointError::TimedOut(_))));
    assert!(matches!(dialed.recv(SOON), Err(EndpointError::TimedOut(_))));
    let max = GatewayLimits::default().max_length as usize - 4;
    assert!(matches!(dialed.send(&vec![0; max + 1]), Err(EndpointError::TooLong { .. })));
    dialed.send(&vec![0; max]).unwrap();
    let accepted = server.accept(PATIENCE).unwrap();
    assert_eq!(
        accepted.recv(PATIENCE).unwrap().map(|message| message.len()),
        Some(max),
        "the longest message"
    );
    thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| client.accept(PATIENCE).map(drop)),
            scope.spawn(|| dialed.recv(PATIENCE).map(drop)),
        ];
        gateway.handle().abort();
        for waits in waiting {
            assert!(matches!(waits.join().unwrap(), Err(EndpointError::Ended { .. })));
        }
    });
    assert!(matches!(client.dial(5, PATIENCE), Err(EndpointError::Ended { .. })));
}

#[test]
fn a_gateway_that_does_not_answer_a_dial_costs_the_time_that_was_given() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Endpoint::client(listener.local_addr().unwrap()).unwrap();
    let (mut gateway, _) = listener.accept().unwrap();
    assert!(matches!(client.dial(1, SOON), Err(EndpointError::TimedOut(_))));
    // The ID comes late, and is used by the next dial, which is not answered either.
    gateway.write_all(&Command::Open { conn: 9 }.frame()).unwrap();
    gateway.write_all(&Command::Ping.frame()).unwrap();
    expect(&mut gateway, Command::New);
    expect(&mut gateway, Command::Ping);
    assert!(matches!(client.dial(1, SOON), Err(EndpointError::TimedOut(_))));
    expect(&mut gateway, Command::New);
    expect(&mut gateway, Command::Dial { conn: 9, remote: 1 });
    expect(&mut gateway, Command::Close { conn: 9 });
    // An answer that comes after all is not taken for a dial of the other side.
    gateway.write_all(&Command::Accept { conn: 9, remote: 1 }.frame()).unwrap();
    assert!(matches!(client.accept(SOON), Err(EndpointError::TimedOut(_))));
}

#[test]
fn a_gateway_that_breaks_the_protocol_ends_the_link_and_fills_no_memory() {
    let over = DEFAULT_MAX_LENGTH + 1;
    let frames: [Vec<u8>; 5] = [
        vec![3, 0, 0, 0],
        over.to_le_bytes().to_vec(),
        Command::New.frame().to_vec(),
        vec![5, 0, 0, 0, 0, 0, 0, 0, 99],
        vec![4, 0, 0, 0, 0, 0, 0, 0],
    ];
    for frame in frames {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Endpoint::client(listener.local_addr().unwrap()).unwrap();
        let (mut gateway, _) = listener.accept().unwrap();
        gateway.write_all(&frame).unwrap();
        assert!(matches!(client.accept(PATIENCE), Err(EndpointError::Ended { .. })), "{frame:?}");
    }
}

#[test]
fn connections_and_messages_beyond_the_bounds_are_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = EndpointOptions { backlog: 2, queue: 60, ..EndpointOptions::default() };
    let client = Endpoint::client_with(listener.local_addr().unwrap(), options).unwrap();
    let (mut gateway, _) = listener.accept().unwrap();
    for conn in 1..=3 {
        gateway.write_all(&Command::Accept { conn, remote: 7 }.frame()).unwrap();
    }
    expect(&mut gateway, Command::Close { conn: 3 });
    let mut frames = bytes::BytesMut::new();
    for _ in 0..3 {
        put_frame(1, b"four", 100, &mut frames).unwrap();
    }
    gateway.write_all(&frames).unwrap();
    expect(&mut gateway, Command::Close { conn: 1 });
    let conn = client.accept(PATIENCE).unwrap();
    for _ in 0..2 {
        assert_eq!(conn.recv(PATIENCE).unwrap(), Some(b"four".to_vec()));
    }
    assert_eq!(conn.recv(PATIENCE).unwrap(), None);
    gateway.write_all(&Command::Ping.frame()).unwrap();
    expect(&mut gateway, Command::Ping);
}

fn expect(gateway: &mut TcpStream, command: Command) {
    let expected = command.frame();
    let mut seen = vec![0; expected.len()];
    gateway.read_exact(&mut seen).unwrap();
    assert_eq!(seen, expected[..]);
}
