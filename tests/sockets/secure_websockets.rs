//! WebSockets over TLS (`wss://`).

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
};

use framewire::{
    CloseKind, Dial, Failure, Handled, PacketHandler, Server, Session, Tls, TlsVersion, UpstreamState,
    packet_fn,
    testing::LayerDriver,
    websocket::{MessageKind, Messages, WebSocket, WebSocketClient},
};

use crate::common::{
    On, PATIENCE, Served, on_each_strategy_without_layers,
    tls::{SERVER, common},
    until,
    websocket::{BINARY, CLOSE, PING, PONG, TEXT, client_frame, request},
};

on_each_strategy_without_layers! {
    a_websocket_over_tls_is_a_session_of_both
    a_websocket_is_dialled_over_tls
}

/// Tells what the session knows of its layers when it opens, and echoes.
#[derive(Clone)]
struct Knowing;

impl PacketHandler for Knowing {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        let name = session.tls().ok_or_else(|| Failure::because("no TLS"))?.server_name().map(str::to_owned);
        let path = session.upgrade().ok_or_else(|| Failure::because("no request"))?.path().to_owned();
        Ok(session.send_message(MessageKind::Text, format!("{path} {name:?}"))?)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        let kind = session.message_kind().ok_or_else(|| Failure::because("no message"))?;
        Ok(session.send_message(kind, packet)?)
    }
}

fn serve(on: On) -> (Served, SocketAddr) {
    let server = on.bind().framing(Messages::new()).tls(&common().acceptor).websocket(WebSocket::new());
    let served = Served::start(server, Knowing);
    let addr = served.running.local_addr().expect("TCP");
    (served, addr)
}

/// A blocking client of TLS.
struct Secure {
    socket: TcpStream,
    tls: LayerDriver<Tls>,
    plain: Vec<u8>,
}

impl Secure {
    fn connect(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let tls = LayerDriver::new(common().connector.layer(SERVER)).expect("it begins");
        let mut own = Self { socket, tls, plain: Vec::new() };
        while !own.tls.is_open() {
            own.write(b"");
            own.receive();
        }
        own
    }

    fn write(&mut self, plain: &[u8]) {
        if !plain.is_empty() {
            self.tls.send(plain).expect("it is open");
        }
        self.socket.write_all(&self.tls.take_wire()).expect("it reads");
    }

    fn receive(&mut self) {
        let mut wire = [0; 16 * 1024];
        let n = self.socket.read(&mut wire).expect("it answers");
        assert_ne!(n, 0, "the stream was cut");
        self.plain.extend(self.tls.receive(&wire[..n]).expect("the server knows TLS"));
    }

    fn read(&mut self, len: usize) -> Vec<u8> {
        while self.plain.len() < len {
            self.receive();
        }
        self.plain.drain(..len).collect()
    }

    fn assert_frame(&mut self, first: u8, payload: &[u8]) {
        let mut expected = vec![first];
        match payload.len() {
            len @ 0..126 => expected.push(len as u8),
            len => {
                expected.push(127);
                expected.extend((len as u64).to_be_bytes());
            }
        }
        expected.extend(payload);
        assert!(self.read(expected.len()) == expected, "another frame than {first:#x}");
    }
}

fn a_websocket_over_tls_is_a_session_of_both(on: On) {
    let (served, addr) = serve(on);
    let mut peer = Secure::connect(addr);
    assert_eq!(served.metrics().opened, 0, "the WebSocket's handshake is to come");
    peer.write(request("/room", "").as_bytes());
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(peer.read(1));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
    peer.assert_frame(TEXT, b"/room Some(\"localhost\")");
    let long = vec![7; 300_000];
    for (first, payload) in [(TEXT, &b"hello"[..]), (BINARY, &long), (BINARY, b"")] {
        peer.write(&client_frame(first, payload));
        peer.assert_frame(first, payload);
    }
    peer.write(&client_frame(PING, b"there?"));
    peer.assert_frame(PONG, b"there?");
    // First the WebSocket ends, and then TLS.
    let code = 1000_u16.to_be_bytes();
    peer.write(&client_frame(CLOSE, &code));
    peer.assert_frame(CLOSE, &code);
    while !peer.tls.has_ended() {
        peer.receive();
    }
    peer.tls.end().expect("it is open");
    peer.write(b"");
    drop(peer);
    until("it has ended", || served.journal.ended_by(CloseKind::PeerClosed) == 1);
    served.finish();
}

fn a_websocket_is_dialled_over_tls(on: On) {
    let (served, addr) = serve(on);
    let (tell, told) = mpsc::channel();
    let handler = packet_fn(move |session: &mut Session<'_>, packet: &[u8]| {
        let version = session.tls().map(|tls| tls.version());
        tell.send((packet.to_vec(), session.message_kind(), version))?;
        Ok(())
    });
    let dialler = Server::unbound().framing(Messages::new()).spawn(handler).expect("it starts");
    let websocket = WebSocketClient::new(SERVER, "/room").expect("it is fine");
    let dial = Dial::to(addr).tls(&common().connector, SERVER).websocket(websocket);
    let upstream = dialler.connect(dial).expect("it runs");
    let (packet, kind, version) = told.recv_timeout(PATIENCE).expect("it opens");
    assert_eq!(packet.escape_ascii().to_string(), r#"/room Some(\"localhost\")"#);
    assert_eq!((kind, version), (Some(MessageKind::Text), Some(TlsVersion::Tls13)));
    until("it is up", || matches!(upstream.state(), UpstreamState::Up(_)));
    upstream.send([0xff; 70_000]).expect("it is open");
    let (packet, kind, _) = told.recv_timeout(PATIENCE).expect("it comes back");
    assert!(packet == [0xff; 70_000] && kind == Some(MessageKind::Binary), "{kind:?}");
    upstream.close();
    until("the server has seen the goodbye", || served.journal.ended_by(CloseKind::PeerClosed) == 1);
    dialler.stop(PATIENCE).expect("it stops");
    served.finish();
}
