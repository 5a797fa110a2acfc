use std::{io::Read, net::TcpListener};

use super::program::{PATIENCE, Peer, Program};

#[test]
fn behind_proxy_prints_who_its_clients_are() {
    let mut program = Program::start("behind_proxy", &["127.0.0.1:0"]);
    let mut peer = program.connect();
    peer.send("PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\nhello\n");
    peer.expect("hello\n");
    assert_eq!(
        program.line_with(" has connected "),
        "192.0.2.7:4711 has connected to 10.0.0.1:443 for no host"
    );
    // Of version 2, over IPv6, with a host.
    let mut other = program.connect();
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x2a\
        \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x12\x67\x01\xbb\x02\0\x03a.b";
    other.send(header);
    other.send("hi\n");
    other.expect("hi\n");
    assert_eq!(program.line_with(" has connected "), "[2001:db8::7]:4711 has connected to [::1]:443 for a.b");
    peer.send_end();
    peer.expect_end();
    assert_eq!(program.line_with(" has left"), "192.0.2.7:4711 has left: the peer closed");
}

#[test]
fn behind_proxy_refuses_what_comes_from_elsewhere_or_without_a_header() {
    let elsewhere = Program::start("behind_proxy", &["127.0.0.1:0", "10.0.0.0/8", "unix:"]);
    elsewhere.connect().expect_end();
    let program = Program::start("behind_proxy", &["127.0.0.1:0"]);
    let mut peer = program.connect();
    peer.send("hello\n");
    peer.expect_end();
}

#[test]
fn proxy_says_whom_it_speaks_for_if_it_is_told_to() {
    let behind = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let to = behind.local_addr().expect("it is bound").to_string();
    let proxy = Program::start("proxy", &["127.0.0.1:0", &to, "--proxy-header"]);
    let mut client: Peer = proxy.connect();
    client.send("hello\n");
    let (mut stream, _) = behind.accept().expect("the proxy connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let mut fixed = [0; 28];
    stream.read_exact(&mut fixed).expect("a header comes");
    assert!(fixed.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11"), "{}", fixed.escape_ascii());
    assert_eq!(&fixed[24..26], client.addr().port().to_be_bytes());
    assert_eq!(&fixed[26..28], proxy.addr.port().to_be_bytes());
    let rest = usize::from(u16::from_be_bytes([fixed[14], fixed[15]])) - 12;
    let mut tlvs = vec![0; rest];
    stream.read_exact(&mut tlvs).expect("what it knows comes");
    assert!(tlvs.starts_with(&[0x05, 0]) && tlvs[tlvs.len() - 7..].starts_with(&[0x03, 0, 4]), "{tlvs:?}");
    let mut packet = [0; 9];
    stream.read_exact(&mut packet).expect("the packet comes behind it");
    assert_eq!(&packet, b"\0\0\0\x05hello");
}
