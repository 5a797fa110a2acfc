//! WebSockets: what their sessions know, how they close, and one port for browsers and others.

use std::{sync::mpsc, time::Duration};

use framewire::{
    CloseKind, CloseReason, Dial, DialError, DialId, Failure, Handled, Heartbeat, LengthPrefix, Limits,
    PacketHandler, Separator, Server, Session, SessionInfo, ShardContext, SingleReactor, Sniff, packet_fn,
    websocket::{CloseFrame, MessageKind, Messages, Response, WebSocket, WebSocketClient},
};

use crate::common::{
    On, Served, on_each_strategy_without_layers, until,
    websocket::{BINARY, CLOSE, PING, PONG, TEXT, WebSocketPeer, client_frame, request},
};

on_each_strategy_without_layers! {
    messages_come_back_as_what_they_came
    a_request_is_readable_in_on_open_and_can_be_refused
    close_codes_go_both_ways
    one_port_serves_websockets_and_other_clients
    a_heartbeat_is_a_ping
    a_breach_is_told_behind_the_replies
    a_dialled_websocket_carries_messages
}

/// Echoes messages as what they came.
fn mirror() -> impl PacketHandler<State = ()> + Clone + Send + 'static {
    packet_fn(|session, packet| match session.message_kind() {
        Some(kind) => Ok(session.send_message(kind, packet)?),
        None => Ok(session.send(packet)?),
    })
}

fn messages_come_back_as_what_they_came(on: On) {
    let served = Served::start(on.bind().framing(Messages::new()).websocket(WebSocket::new()), mirror());
    let mut peer = WebSocketPeer::open(&served.addr(), "/");
    let long = vec![7; 300_000];
    for (first, payload) in
        [(TEXT, "hé".as_bytes()), (BINARY, &[0xff]), (BINARY, &long), (TEXT, b""), (BINARY, &[9; 126])]
    {
        peer.send(first, payload);
        assert_eq!(peer.recv(), (first, payload.to_vec()));
    }
    peer.send(PING, "are you there");
    assert_eq!(peer.recv(), (PONG, b"are you there".to_vec()));
    for (first, part) in [(0x01, "fr"), (0x00, "agm"), (PING, "x"), (0x80, "ents")] {
        peer.send(first, part);
    }
    assert_eq!(peer.recv(), (PONG, b"x".to_vec()));
    assert_eq!(peer.recv(), (TEXT, b"fragments".to_vec()));
    peer.send(CLOSE, 1000_u16.to_be_bytes());
    assert_eq!(peer.recv_close().0, 1000);
    peer.assert_end();
    drop(peer);
    served.finish();
}

fn a_request_is_readable_in_on_open_and_can_be_refused(on: On) {
    #[derive(Clone)]
    struct Greeter;

    impl PacketHandler for Greeter {
        type State = ();

        fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
            let request = session.upgrade().ok_or_else(|| Failure::because("no request"))?;
            let room = format!("{} {:?}", request.path(), request.query());
            let protocol = String::from_utf8_lossy(session.protocol().unwrap_or_default()).into_owned();
            session.set_message_kind(MessageKind::Text);
            Ok(session.send(format!("{room} {protocol}"))?)
        }

        fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), _: &[u8]) -> Handled {
            Ok(session.send(format!("{}", session.upgrade().is_none()))?)
        }
    }

    let websocket =
        WebSocket::new().protocols(["chat.v2", "chat.v1"]).check(|request| match request.origin() {
            Some("https://good.example") => Ok(()),
            _ => Err(Response::new(403).body("text/plain", "not from there")),
        });
    let server = on.bind().framing(Messages::new()).websocket(websocket);
    let served = Served::start(server, Greeter);
    let fields = "Origin: https://good.example\r\nSec-WebSocket-Protocol: chat.v1\r\n";
    let mut peer = WebSocketPeer::ask(&served.addr(), &request("/room?n=7", fields));
    assert!(peer.response.contains("\r\nSec-WebSocket-Protocol: chat.v1\r\n"), "{}", peer.response);
    assert_eq!(peer.recv(), (TEXT, b"/room Some(\"n=7\") chat.v1".to_vec()));
    peer.send(TEXT, "is it gone?");
    assert_eq!(peer.recv(), (TEXT, b"true".to_vec()));
    let mut refused = WebSocketPeer::ask(&served.addr(), &request("/", "Origin: https://evil.example\r\n"));
    assert!(refused.response.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{}", refused.response);
    assert_eq!(refused.rest(), b"not from there");
    served.until_counted("it was refused", |metrics| metrics.refused_total() == 1);
    drop((peer, refused));
    served.finish();
}

/// Closes as it is asked to, and tells what it has learnt of the end.
#[derive(Clone)]
struct Closing(mpsc::Sender<String>);

impl PacketHandler for Closing {
    type State = ();

    fn on_open(&mut self, _: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        match packet {
            b"close" => session.close(),
            b"kick" => return Err(CloseFrame::new(4001, "kicked").into()),
            b"with" => session.close_with(CloseFrame::new(4002, "enough")),
            b"fail" => session.close_with("secret"),
            other => session.send(other)?,
        }
        Ok(())
    }

    fn on_close(&mut self, session: &SessionInfo, (): (), reason: &CloseReason) {
        let frame = session.peer_close.as_ref().map(|frame| (frame.code(), frame.reason().to_owned()));
        // The test may have ended.
        let _ = self.0.send(format!("{:?} {frame:?}", reason.kind()));
    }
}

fn close_codes_go_both_ways(on: On) {
    let (sender, closes) = mpsc::channel();
    let server = on.bind().framing(Messages::new()).websocket(WebSocket::new());
    let served = Served::start(server, Closing(sender));
    let told = || closes.recv_timeout(crate::common::PATIENCE).expect("it has closed");
    for (word, code, reason) in
        [("close", 1000, ""), ("kick", 4001, "kicked"), ("with", 4002, "enough"), ("fail", 1008, "")]
    {
        let mut peer = WebSocketPeer::open(&served.addr(), "/");
        peer.send(TEXT, word);
        assert_eq!(peer.recv_close(), (code, reason.to_owned()));
        peer.send(CLOSE, code.to_be_bytes());
        peer.assert_end();
        drop(peer);
        let kind = if word == "close" { "Local" } else { "Handler" };
        assert_eq!(told(), format!("{kind} None"));
    }
    let mut peer = WebSocketPeer::open(&served.addr(), "/");
    peer.send(CLOSE, [&4999_u16.to_be_bytes()[..], b"bye"].concat());
    assert_eq!(peer.recv_close(), (4999, "bye".to_owned()));
    peer.assert_end();
    drop(peer);
    assert_eq!(told(), "PeerClosed Some((4999, \"bye\"))");
    let peer = WebSocketPeer::open(&served.addr(), "/");
    drop(peer);
    assert_eq!(told(), "Layer None", "a stream that was cut");
    let mut peer = WebSocketPeer::open(&served.addr(), "/");
    peer.send(TEXT, "hello");
    assert_eq!(peer.recv().1, b"hello");
    served.running.shutdown(Duration::from_secs(5));
    assert_eq!(peer.recv_close().0, 1001);
    peer.assert_end();
    drop(peer);
    assert_eq!(told(), "Shutdown None");
    served.await_stop();
}

fn one_port_serves_websockets_and_other_clients(on: On) {
    let websocket =
        WebSocket::new().send_as(MessageKind::Text).http(|_| Response::new(200).body("text/html", "<p>hi"));
    let sniff = Sniff::new().websocket(websocket);
    let limits = Limits::default().handshake_timeout(Duration::from_millis(300));
    let server = on.bind().framing(Separator::lines()).limits(limits).sniff(sniff);
    let served = Served::start(server, packet_fn(|session, packet| Ok(session.send(packet)?)));
    let mut browser = WebSocketPeer::open(&served.addr(), "/");
    browser.send(TEXT, "a\nb");
    assert_eq!(browser.recv(), (TEXT, b"a\nb".to_vec()));
    let mut lines = WebSocketPeer::connect(&served.addr());
    for line in [&b"GET out of here\n"[..], b"G\n", b"more\n"] {
        lines.write(line);
        assert_eq!(lines.read(line.len()), line);
    }
    let mut page = WebSocketPeer::ask(&served.addr(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(page.response.starts_with("HTTP/1.1 200 OK\r\n"), "{}", page.response);
    assert_eq!(page.rest(), b"<p>hi");
    for silent in ["", "GET"] {
        let mut silent_peer = WebSocketPeer::connect(&served.addr());
        silent_peer.write(silent.as_bytes());
        silent_peer.assert_end();
    }
    served.until_counted("three were no sessions", |metrics| metrics.refused_total() == 3);
    drop((browser, lines, page));
    served.finish();
}

fn a_heartbeat_is_a_ping(on: On) {
    #[derive(Clone)]
    struct Watchful(Heartbeat);

    impl PacketHandler for Watchful {
        type State = ();

        fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
            session.set_heartbeat(self.0.clone());
            Ok(())
        }

        fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
            Ok(session.send(packet)?)
        }
    }

    let beat =
        Heartbeat::every(Duration::from_millis(20), "beat").expect("the period is possible").lost_after(50);
    let server = on.bind().framing(LengthPrefix::u8()).sniff(Sniff::new().websocket(WebSocket::new()));
    let served = Served::start(server, Watchful(beat));
    let mut peer = WebSocketPeer::open(&served.addr(), "/");
    for _ in 0..3 {
        assert_eq!(peer.recv(), (PING, b"beat".to_vec()));
        peer.send(PONG, "beat");
    }
    peer.send(BINARY, "hi");
    while peer.recv() != (BINARY, b"hi".to_vec()) {}
    let mut other = WebSocketPeer::connect(&served.addr());
    other.write(b"\x02hi");
    let (mut seen, mut packets) = (Vec::new(), 0);
    while packets < 2 || !seen.contains(&b"beat".to_vec()) {
        let len = other.read(1)[0].into();
        seen.push(other.read(len));
        packets += 1;
    }
    assert!(seen.contains(&b"hi".to_vec()), "an ordinary packet, where there are no pings");
    drop((peer, other));
    served.finish();
}

fn a_breach_is_told_behind_the_replies(on: On) {
    let server = on.bind().framing(Messages::new()).websocket(WebSocket::new());
    let served = Served::start(server.limits(Limits::default().frame(1000)), mirror());
    let cases: [(&[u8], u16); 4] = [
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
        (&[0x82, 0xfe, 0x03, 0xe9, 0, 0, 0, 0], 1009),
        (&[0x82, 0x01, 0], 1002),
    ];
    for (breach, code) in cases {
        let mut peer = WebSocketPeer::open(&served.addr(), "/");
        peer.write(&[&client_frame(TEXT, b"first")[..], breach].concat());
        assert_eq!(peer.recv(), (TEXT, b"first".to_vec()));
        assert_eq!(peer.recv_close().0, code);
        peer.assert_end();
    }
    until("they have closed", || served.journal.ended_by(CloseKind::Layer) == cases.len());
    served.finish();
}

/// Dials when it starts, sends on what was dialled, and tells what comes.
#[derive(Clone)]
struct Dialling {
    dial: Dial,
    tell: mpsc::Sender<String>,
}

impl PacketHandler for Dialling {
    type State = ();

    fn on_start(&mut self, shard: &mut ShardContext<'_, ()>) {
        shard.connect(self.dial.clone()).expect("a thread may dial");
    }

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        session.send_message(MessageKind::Text, "tëxt")?;
        Ok(session.send([0xff; 70_000])?)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        let kind = session.message_kind();
        self.tell.send(format!("{kind:?} {} {:?}", packet.len(), session.protocol()))?;
        if packet.len() == 70_000 {
            return Err(CloseFrame::new(4005, "done").into());
        }
        Ok(())
    }

    fn on_dial_failed(&mut self, _: &mut ShardContext<'_, ()>, _: DialId, error: &DialError) {
        // The test may have ended.
        let _ = self.tell.send(error.to_string());
    }
}

fn a_dialled_websocket_carries_messages(on: On) {
    let websocket = WebSocket::new().protocols(["p"]).check(|request| match request.path() {
        "/" => Ok(()),
        _ => Err(Response::new(404)),
    });
    let (sender, closes) = mpsc::channel();
    let served =
        Served::start(on.bind().framing(Messages::new()).websocket(websocket), Mirrored(Closing(sender)));
    let addr = served.addr().as_socket().expect("TCP");
    let dial = |target: &str, tell: &mpsc::Sender<String>| {
        let client =
            WebSocketClient::new(&addr.to_string(), target).and_then(|client| client.protocols(["p"]));
        let dial = Dial::to(addr).websocket(client.expect("it is fine"));
        let handler = Dialling { dial, tell: tell.clone() };
        let server = Server::unbound().framing(LengthPrefix::u32_be()).strategy(SingleReactor::new());
        server.spawn(handler).expect("the server starts")
    };
    let (tell, told) = mpsc::channel();
    let told = || told.recv_timeout(crate::common::PATIENCE).expect("it is told");
    let client = dial("/", &tell);
    assert_eq!(told(), "Some(Text) 5 Some([112])");
    assert_eq!(told(), "Some(Binary) 70000 Some([112])");
    assert_eq!(
        closes.recv_timeout(crate::common::PATIENCE).expect("closed"),
        "PeerClosed Some((4005, \"done\"))"
    );
    client.stop(Duration::from_secs(5)).expect("it stops");
    let client = dial("/nowhere", &tell);
    let error = told();
    assert!(error.contains("the server refused the WebSocket with status 404"), "{error}");
    client.stop(Duration::from_secs(5)).expect("it stops");
    served.finish();
}

/// Echoes, and tells of the end as [`Closing`] does.
#[derive(Clone)]
struct Mirrored(Closing);

impl PacketHandler for Mirrored {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        self.0.on_open(session)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        let kind = session.message_kind().unwrap_or_default();
        Ok(session.send_message(kind, packet)?)
    }

    fn on_close(&mut self, session: &SessionInfo, (): (), reason: &CloseReason) {
        self.0.on_close(session, (), reason);
    }
}
