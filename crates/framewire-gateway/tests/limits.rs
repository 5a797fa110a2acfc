//! What happens at the limits of a gateway, and that those within them notice nothing.

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use common::{KEY, PATIENCE, Peer, THREADS, audit, message, server_addr, start, wait_until};
use framewire_gateway::{Dialect, Gateway, GatewayLimits, Keys, protocol::Command};

/// Nothing comes for so long, as far as a test can tell.
const WHILE: Duration = Duration::from_millis(300);

fn expect_silence(stream: &TcpStream) {
    stream.set_read_timeout(Some(WHILE)).unwrap();
    let error = (&*stream).read(&mut [0]).map(|read| panic!("{read} bytes came")).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
}

#[test]
fn a_server_link_above_the_limit_waits_until_another_one_ends() {
    for &threads in THREADS {
        let gateway = start(threads, GatewayLimits { servers: 3, ..GatewayLimits::default() });
        let mut servers: Vec<Peer> = (1..=3).map(|id| Peer::server(&gateway, id)).collect();
        let mut late = Peer::connect(server_addr(&gateway));
        expect_silence(late.stream());
        let mut client = Peer::client(&gateway);
        let conn = client.dial(3, &mut servers[2]);
        servers.remove(0);
        late.prove(KEY.as_bytes(), 4);
        wait_until(|| gateway.snapshot().servers.iter().any(|server| server.id == 4));
        client.say(conn, b"hello");
        servers[1].expect(&message(conn, b"hello"));
        drop((client, servers, late));
        audit(gateway);
    }
}

#[test]
fn a_client_above_the_limit_waits_until_another_one_ends() {
    for &threads in THREADS {
        let gateway = start(threads, GatewayLimits { clients: 3, ..GatewayLimits::default() });
        let mut clients: Vec<Peer> = (0..3).map(|_| Peer::client(&gateway)).collect();
        clients.iter_mut().for_each(Peer::expect_nothing);
        let mut late = Peer::client(&gateway);
        late.command(Command::New);
        expect_silence(late.stream());
        clients.pop();
        assert_eq!(late.frame()[..9], [9, 0, 0, 0, 0, 0, 0, 0, 1]);
        drop((clients, late));
        audit(gateway);
    }
}

/// A gateway with a page, and the page's address.
fn with_page() -> (framewire_gateway::RunningGateway, SocketAddr) {
    let gateway = Gateway::new()
        .clients("127.0.0.1:0")
        .servers("127.0.0.1:0", Dialect::Md5, Keys::open_to_all())
        .admin("127.0.0.1:0")
        .spawn()
        .unwrap();
    let page = gateway.admin_addrs()[0].socket_addr().unwrap();
    (gateway, page)
}

fn reader(page: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(page).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn reply(mut stream: TcpStream) -> String {
    let mut reply = Vec::new();
    match stream.read_to_end(&mut reply) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(reply).unwrap(),
    }
}

#[test]
fn the_page_has_64_readers_and_the_next_waits_for_one_of_them_to_leave() {
    let (gateway, page) = with_page();
    let mut slow: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = reader(page);
            stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    let mut late = reader(page);
    late.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    expect_silence(&late);
    let mut client = Peer::client(&gateway);
    client.expect_nothing();
    slow.pop();
    assert!(reply(late).starts_with("HTTP/1.1 200 OK\r\n"));
    for mut stream in slow {
        stream.write_all(b"\r\n").unwrap();
        assert!(reply(stream).starts_with("HTTP/1.1 200 OK\r\n"));
    }
    drop(client);
    audit(gateway);
}

#[test]
fn a_request_has_100_lines_at_most() {
    let (gateway, page) = with_page();
    for (lines, is_taken) in [(2, true), (100, true), (101, false)] {
        let mut stream = reader(page);
        let head = format!("GET / HTTP/1.1\r\n{}\r\n", "x-line: 1\r\n".repeat(lines - 2));
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(reply(stream).starts_with("HTTP/1.1 200 OK\r\n"), is_taken, "{lines} lines");
    }
    for (len, is_taken) in [(8_000, true), (9_000, false)] {
        let mut stream = reader(page);
        let head = format!("GET /?{} HTTP/1.1\r\n\r\n", "x".repeat(len));
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(reply(stream).starts_with("HTTP/1.1 200 OK\r\n"), is_taken, "a line of {len} bytes");
    }
    audit(gateway);
}
