//! Sessions over UDP with peers that a server has chosen, on each strategy that serves UDP.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use framewire::{
    Addr, CloseReason, Datagram, Dial, DialError, DialId, Handled, Origin, PacketHandler, Reconnect,
    RunningServer, Server, Session, SessionInfo, ShardContext, SingleReactor, Upstream, UpstreamState,
    WhileDown, WorkerPool,
};

use crate::common::{On, PATIENCE, Served, echo, on_udp, until};

on_udp! {
    a_peer_is_asked_before_it_has_said_anything
    a_peer_that_is_not_there_ends_the_session
    a_peer_that_comes_back_is_found_again
    many_sessions_reach_one_server
    a_name_is_looked_up
    a_stop_ends_what_was_dialled
}

/// What a server that dials has seen.
#[derive(Debug)]
enum Seen {
    Open(Origin, Addr, Addr),
    Packet(Vec<u8>),
    Close(CloseReason),
    Failed(DialId, DialError),
}

/// Passes on all that it sees, and greets whom it has dialled.
#[derive(Clone)]
struct Witness(Sender<Seen>);

impl Witness {
    fn see(&self, seen: Seen) {
        // At its end, a test listens no more.
        let _ = self.0.send(seen);
    }
}

impl PacketHandler for Witness {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        self.see(Seen::Open(session.origin(), session.peer_addr(), session.local_addr()));
        if let Origin::Dialled(_) = session.origin() {
            session.send("hello")?;
        }
        Ok(())
    }

    fn on_packet(&mut self, _session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        self.see(Seen::Packet(packet.to_vec()));
        Ok(())
    }

    fn on_close(&mut self, _session: &SessionInfo, (): (), reason: &CloseReason) {
        self.see(Seen::Close(reason.clone()));
    }

    fn on_dial_failed(&mut self, _shard: &mut ShardContext<'_, ()>, dial: DialId, error: &DialError) {
        self.see(Seen::Failed(dial, error.clone()));
    }
}

/// A server that dials.
struct Dialling {
    running: RunningServer,
    seen: Receiver<Seen>,
}

impl Dialling {
    fn start(on: On, server: Server<Datagram>) -> Self {
        let server = match on {
            On::WorkerPool => server.strategy(WorkerPool::new(3)),
            _ => server.strategy(SingleReactor::new()),
        };
        let (tell, seen) = channel();
        Self { running: server.spawn(Witness(tell)).expect("it starts"), seen }
    }

    fn dial(&self, dial: Dial) -> Upstream {
        self.running.connect(dial).expect("it runs")
    }

    fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("something is to happen")
    }

    fn expect_open(&self) -> (Origin, Addr, Addr) {
        match self.next() {
            Seen::Open(origin, peer, local) => (origin, peer, local),
            other => panic!("{other:?}"),
        }
    }

    fn expect_packet(&self, expected: &[u8]) {
        match self.next() {
            Seen::Packet(packet) => assert_eq!(packet, expected),
            other => panic!("{other:?}"),
        }
    }

    fn expect_refused(&self) {
        match self.next() {
            Seen::Close(CloseReason::Io(error)) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
            other => panic!("{other:?}"),
        }
    }

    fn stop(self) {
        self.running.stop(PATIENCE).expect("it stops");
    }
}

/// A peer, and where it is.
fn peer() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let addr = socket.local_addr().expect("it is bound");
    (socket, addr)
}

fn recv_from(peer: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut datagram = vec![0; 65_536];
    let (n, from) = peer.recv_from(&mut datagram).expect("a datagram comes");
    datagram.truncate(n);
    (datagram, from)
}

fn a_peer_is_asked_before_it_has_said_anything(on: On) {
    let client = Dialling::start(on, Server::unbound_udp());
    let (peer, at) = peer();
    let upstream = client.dial(Dial::to_udp(at));
    let (origin, of_peer, local) = client.expect_open();
    assert_eq!((origin, of_peer), (Origin::Dialled(upstream.id()), Addr::Ip(at)));
    let (hello, from) = recv_from(&peer);
    assert_eq!((&hello[..], Addr::Ip(from)), (&b"hello"[..], local));
    peer.send_to(b"who are you?", from).expect("it is sent");
    client.expect_packet(b"who are you?");
    UdpSocket::bind("127.0.0.1:0").and_then(|other| other.send_to(b"forged", from)).expect("it is sent");
    peer.send_to(b"", from).expect("it is sent");
    client.expect_packet(b"");
    upstream.close();
    assert!(matches!(client.next(), Seen::Close(CloseReason::Local)));
    client.stop();
}

fn a_peer_that_is_not_there_ends_the_session(on: On) {
    let client = Dialling::start(on, Server::unbound_udp());
    let (socket, at) = peer();
    drop(socket);
    let upstream = client.dial(Dial::to_udp(at));
    client.expect_open();
    client.expect_refused();
    until("it is over", || upstream.state() == UpstreamState::Closed);
    client.stop();
}

fn a_peer_that_comes_back_is_found_again(on: On) {
    let client = Dialling::start(on, Server::unbound_udp());
    let (first, at) = peer();
    let again = Reconnect::delays([Duration::from_millis(20)]);
    let dial = Dial::to_udp(at).reconnect(again).while_down(WhileDown::Keep { bytes: 1_000 });
    let upstream = client.dial(dial);
    client.expect_open();
    assert_eq!(recv_from(&first).0, b"hello");
    drop(first);
    // What is sent to nobody is how one hears of it.
    until("it is noticed", || {
        let _ = upstream.send("still there?");
        matches!(upstream.state(), UpstreamState::Connecting)
    });
    client.expect_refused();
    let second = UdpSocket::bind(at).expect("it is free again");
    second.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (_, from) = recv_from(&second);
    second.send_to(b"welcome back", from).expect("it is sent");
    loop {
        // Some attempts were made before it was there.
        match client.next() {
            Seen::Open(..) => {}
            Seen::Close(CloseReason::Io(_)) => {}
            Seen::Packet(packet) => break assert_eq!(packet, b"welcome back"),
            other => panic!("{other:?}"),
        }
    }
    upstream.close();
    client.stop();
}

fn many_sessions_reach_one_server(on: On) {
    // As many as the receive buffer of the server holds, if it is slow.
    const DIALS: usize = 100;
    let server = Served::start(Server::bind_udp("127.0.0.1:0").expect("a free port"), echo());
    let at = server.running.local_addr().expect("an IP address");
    let client = Dialling::start(on, Server::unbound_udp());
    let upstreams: Vec<Upstream> = (0..DIALS).map(|_| client.dial(Dial::to_udp(at))).collect();
    let (mut opened, mut replies) = (0, 0);
    while replies < DIALS {
        match client.next() {
            Seen::Open(..) => opened += 1,
            Seen::Packet(packet) => {
                assert_eq!(packet, b"hello");
                replies += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((opened, server.running.session_count()), (DIALS, DIALS));
    upstreams.iter().for_each(Upstream::close);
    until("they have ended", || client.running.session_count() == 0);
    client.stop();
    server.running.shutdown(PATIENCE);
    server.await_stop();
}

fn a_name_is_looked_up(on: On) {
    let client = Dialling::start(on, Server::unbound_udp());
    let (peer, at) = peer();
    // It may have an address of IPv6 that comes first, where nobody is.
    let again = Reconnect::delays([Duration::from_millis(1)]);
    client.dial(Dial::to_udp(("localhost", at.port())).reconnect(again));
    assert_eq!(recv_from(&peer).0, b"hello");
    client.stop();
}

fn a_stop_ends_what_was_dialled(on: On) {
    let client = Dialling::start(on, Server::unbound_udp());
    let (_peer, at) = peer();
    let upstreams: Vec<Upstream> = (0..5).map(|_| client.dial(Dial::to_udp(at))).collect();
    (0..5).for_each(|_| drop(client.expect_open()));
    client.running.shutdown(PATIENCE);
    (0..5).for_each(|_| assert!(matches!(client.next(), Seen::Close(_))));
    client.running.wait().expect("it stops");
    assert!(upstreams.iter().all(|upstream| upstream.state() == UpstreamState::Closed));
}

#[test]
fn a_server_on_one_thread_is_seen_at_its_own_address_by_those_whom_it_dials() {
    let bind = || Server::bind_udp("127.0.0.1:0").expect("a free port");
    let (one, other) =
        (Dialling::start(On::SingleReactor, bind()), Dialling::start(On::SingleReactor, bind()));
    let [at, to] = [&one, &other].map(|server| server.running.local_addr().expect("an IP address"));
    let upstream = one.dial(Dial::to_udp(to));
    assert_eq!(one.expect_open(), (Origin::Dialled(upstream.id()), Addr::Ip(to), Addr::Ip(at)));
    assert_eq!(other.expect_open(), (Origin::Accepted { listener: 0 }, Addr::Ip(at), Addr::Ip(to)));
    other.expect_packet(b"hello");

    let known = other.dial(Dial::to_udp(at));
    match other.next() {
        Seen::Failed(dial, DialError::Known { addr, .. }) => {
            assert_eq!((dial, addr), (known.id(), Addr::Ip(at)))
        }
        other => panic!("{other:?}"),
    }
    let itself = one.dial(Dial::to_udp(at));
    match one.next() {
        Seen::Failed(dial, error) => {
            assert!(dial == itself.id() && error.to_string().contains("nobody else"))
        }
        other => panic!("{other:?}"),
    }
    one.stop();
    other.stop();
}
