//! Connections that a server makes, over real sockets.

use std::{
    net::{SocketAddr, TcpListener},
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use bytes::BytesMut;
use framewire::{
    Addr, CloseKind, CloseReason, Dial, DialError, DialId, Handled, Layer, LayerError, LayerIo, LengthPrefix,
    Origin, PacketHandler, Raw, Reconnect, RunningServer, SendError, SendTicket, Separator, Server, Session,
    SessionId, SessionInfo, ShardContext, ShardId, SingleReactor, ThreadPerConnection, Unframed, Upstream,
    UpstreamState, WhileDown, WorkerPool,
};

use crate::common::{On, PATIENCE, Served, echo, on_each_strategy_without_layers, own_address, until};

on_each_strategy_without_layers! {
    what_is_dialled_is_a_session_that_sends_and_receives
    each_of_the_shards_can_dial_for_itself
    a_refusal_is_told_with_the_address
    addresses_are_tried_in_turn
    a_name_is_looked_up
    a_peer_that_resets_what_it_has_accepted_ends_the_session
    layers_of_a_dial_talk_to_those_of_a_server
    a_stop_ends_what_was_dialled
    clients_find_a_server_that_comes_back
}

/// What a dialling server has seen.
#[derive(Debug)]
enum Seen {
    Open(SessionId, Origin, Addr),
    Packet(Vec<u8>),
    Close(CloseKind),
    Failed(DialId, DialError),
}

/// Passes on all that it sees.
#[derive(Clone)]
struct Witness {
    tell: Sender<Seen>,
    /// What each shard dials when it starts.
    at_start: Option<Dial>,
}

impl Witness {
    fn see(&self, seen: Seen) {
        // At its end, a test listens no more.
        let _ = self.tell.send(seen);
    }
}

impl PacketHandler for Witness {
    type State = ();

    fn on_start(&mut self, shard: &mut ShardContext<'_, ()>) {
        if let Some(dial) = &self.at_start {
            shard.connect(dial.clone()).expect("it is the first");
        }
    }

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        self.see(Seen::Open(session.id(), session.origin(), session.peer_addr()));
        Ok(())
    }

    fn on_packet(&mut self, _: &mut Session<'_>, _: &mut (), packet: &[u8]) -> Handled {
        self.see(Seen::Packet(packet.to_vec()));
        Ok(())
    }

    fn on_close(&mut self, _: &SessionInfo, _: (), reason: &CloseReason) {
        self.see(Seen::Close(reason.kind()));
    }

    fn on_dial_failed(&mut self, _: &mut ShardContext<'_, ()>, dial: DialId, error: &DialError) {
        self.see(Seen::Failed(dial, error.clone()));
    }
}

/// A server that only dials.
struct Dialler {
    running: RunningServer,
    seen: Receiver<Seen>,
}

impl Dialler {
    fn start(on: On, at_start: Option<Dial>) -> Self {
        let server: Server<Unframed> = match on.strategy() {
            On::WorkerPool => Server::unbound().strategy(WorkerPool::new(2)),
            On::ThreadPerConnection => Server::unbound().strategy(ThreadPerConnection::max(64)),
            _ => Server::unbound().strategy(SingleReactor::new()),
        };
        let (tell, seen) = channel();
        let running = server.framing(LengthPrefix::u32_be()).spawn(Witness { tell, at_start });
        Self { running: running.expect("it starts"), seen }
    }

    fn dial(&self, dial: Dial) -> Upstream {
        self.running.connect(dial).expect("it runs")
    }

    fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("something happens")
    }

    fn failed(&self) -> (DialId, DialError) {
        match self.next() {
            Seen::Failed(dial, error) => (dial, error),
            seen => panic!("{seen:?} instead of a failure"),
        }
    }

    fn opened(&self) -> (SessionId, Origin, Addr) {
        match self.next() {
            Seen::Open(session, origin, peer) => (session, origin, peer),
            seen => panic!("{seen:?} instead of an open session"),
        }
    }

    fn received(&self) -> Vec<u8> {
        match self.next() {
            Seen::Packet(packet) => packet,
            seen => panic!("{seen:?} instead of a packet"),
        }
    }

    fn closed(&self) -> CloseKind {
        match self.next() {
            Seen::Close(kind) => kind,
            seen => panic!("{seen:?} instead of the end"),
        }
    }

    fn finish(self) {
        let handle = self.running.handle();
        self.running.stop(PATIENCE).expect("it stops");
        assert_eq!(handle.session_count(), 0);
        assert_eq!((handle.metrics().sessions, handle.metrics().timers), (0, 0));
    }
}

/// The address of the first listener.
fn addr_of(served: &Served) -> SocketAddr {
    served.running.local_addr().expect("TCP")
}

/// Where nobody listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind(own_address()).and_then(|listener| listener.local_addr()).expect("a free port")
}

fn what_is_dialled_is_a_session_that_sends_and_receives(on: On) {
    let served = on.echo(Default::default());
    let dialler = Dialler::start(on, None);
    let addr = addr_of(&served);
    let upstream = dialler.dial(Dial::to(addr));
    let (session, origin, peer) = dialler.opened();
    assert_eq!((origin, peer), (Origin::Dialled(upstream.id()), Addr::Ip(addr)));
    until("it is up", || upstream.state() == UpstreamState::Up(session));
    for size in [0, 1, 100_000] {
        let packet = vec![7; size];
        upstream.send(&packet[..]).expect("there is room");
        assert_eq!(dialler.received(), packet);
    }
    let expected = match on {
        On::WorkerPool => 1..=2,
        On::ThreadPerConnection | On::ForkedWebSocket => 1..=u32::MAX,
        _ => 0..=0,
    };
    assert!(expected.contains(&(session.shard().index() as u32)), "{session}");
    upstream.close();
    assert_eq!(upstream.send("too late"), Err(SendError::Closed));
    assert_eq!(dialler.closed(), CloseKind::Local);
    dialler.finish();
    served.finish();
}

fn each_of_the_shards_can_dial_for_itself(on: On) {
    let served = on.echo(Default::default());
    let dialler = Dialler::start(on, Some(Dial::to(addr_of(&served))));
    let shards = if on == On::WorkerPool { 3 } else { 1 };
    let mut homes: Vec<ShardId> = (0..shards).map(|_| dialler.opened().0.shard()).collect();
    homes.sort_unstable();
    assert_eq!(homes, (0..shards).map(ShardId::new).collect::<Vec<_>>());
    dialler.finish();
    served.finish();
}

fn a_refusal_is_told_with_the_address(on: On) {
    let dialler = Dialler::start(on, None);
    let addr = nowhere();
    let upstream = dialler.dial(Dial::to(addr));
    let (dial, error) = dialler.failed();
    assert_eq!(dial, upstream.id());
    let shown = error.to_string();
    assert!(shown.starts_with(&format!("cannot connect to {addr}: ")), "{shown}");
    assert!(shown.ends_with("does the server run, and does it listen there?"), "{shown}");
    until("it has ended", || upstream.state() == UpstreamState::Closed);
    dialler.finish();
}

fn addresses_are_tried_in_turn(on: On) {
    let served = on.echo(Default::default());
    let dialler = Dialler::start(on, None);
    let addr = addr_of(&served);
    let _upstream = dialler.dial(Dial::to([nowhere(), nowhere(), addr]));
    assert_eq!(dialler.opened().2, Addr::Ip(addr));
    dialler.finish();
    served.finish();
}

fn a_name_is_looked_up(on: On) {
    let served = on.echo(Default::default());
    let dialler = Dialler::start(on, None);
    // It may be IPv6 first, where nobody listens.
    let upstream = dialler.dial(Dial::to(("localhost", addr_of(&served).port())));
    let (session, ..) = dialler.opened();
    until("it is up", || upstream.state() == UpstreamState::Up(session));
    upstream.send("hello").expect("there is room");
    assert_eq!(dialler.received(), b"hello");
    let _upstream = dialler.dial(Dial::to("a name with blanks:7000"));
    let (_, error) = dialler.failed();
    assert!(error.to_string().starts_with("cannot look up a name with blanks:7000: "), "{error}");
    dialler.finish();
    served.finish();
}

fn a_peer_that_resets_what_it_has_accepted_ends_the_session(on: On) {
    let listener = TcpListener::bind(own_address()).expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let dialler = Dialler::start(on, None);
    let upstream = dialler.dial(Dial::to(addr));
    let (peer, _) = listener.accept().expect("it connects");
    dialler.opened();
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("an open socket");
    drop(peer);
    assert_eq!(dialler.closed(), CloseKind::Io);
    until("it has ended", || upstream.state() == UpstreamState::Closed);
    dialler.finish();
}

/// Changes each byte, there and back.
struct Mask;

impl Layer for Mask {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        io.open();
        let plain: Vec<u8> = wire.iter().map(|byte| byte ^ 0x5a).collect();
        Ok(io.plain(&plain))
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        wire.extend(plain.iter().map(|byte| byte ^ 0x5a));
        Ok(())
    }
}

fn layers_of_a_dial_talk_to_those_of_a_server(on: On) {
    let server = on.bind().framing(Separator::lines()).layer(|_| Mask);
    let served = Served::start(server, echo());
    let dialler = Dialler::start(on, None);
    let upstream = dialler.dial(Dial::to(addr_of(&served)).framing(Separator::lines()).layer(|_| Mask));
    until("it is up, though nothing was received", || matches!(upstream.state(), UpstreamState::Up(_)));
    dialler.opened();
    upstream.send("a line").expect("there is room");
    assert_eq!(dialler.received(), b"a line");
    dialler.finish();
    served.finish();
}

fn a_stop_ends_what_was_dialled(on: On) {
    let served = on.echo(Default::default());
    let dialler = Dialler::start(on, None);
    let upstreams: Vec<Upstream> = (0..5).map(|_| dialler.dial(Dial::to(addr_of(&served)))).collect();
    upstreams.iter().for_each(|_| drop(dialler.opened()));
    dialler.finish();
    assert!(upstreams.iter().all(|upstream| upstream.state() == UpstreamState::Closed));
    served.finish();
}

/// As many clients as are tried at once: 1,000, where each has no thread and the system allows so many descriptors.
#[allow(clippy::print_stderr, reason = "a test that does less says so")]
fn crowd(on: On) -> usize {
    if on.strategy() == On::ThreadPerConnection {
        return 60;
    }
    let wanted = 1_000;
    #[cfg(unix)]
    {
        // Both ends of each, beside as many of other tests.
        let room = super::memory::raise_descriptor_limit() as usize / 4;
        if room < wanted {
            eprintln!("only {room} clients instead of {wanted}: the limit of descriptors is low");
        }
        wanted.min(room)
    }
    #[cfg(not(unix))]
    wanted
}

fn clients_find_a_server_that_comes_back(on: On) {
    let clients = crowd(on);
    let bind = |addr: SocketAddr| On::SingleReactor.bind_at(addr).framing(LengthPrefix::u32_be());
    let first = bind(own_address().into()).spawn(echo()).expect("it starts");
    let addr = first.local_addr().expect("TCP");
    let dialler = Dialler::start(on, None);
    let plan = Reconnect::exponential(Duration::from_millis(5), Duration::from_secs(1));
    let dial = Dial::to(addr).reconnect(plan).while_down(WhileDown::Keep { bytes: 1_000 });
    let upstreams: Vec<Upstream> = (0..clients).map(|_| dialler.dial(dial.clone())).collect();
    let are_up = || upstreams.iter().all(|upstream| matches!(upstream.state(), UpstreamState::Up(_)));
    until("all are up", are_up);
    until("all are accepted", || first.session_count() == clients);
    first.abort();
    first.wait().expect("it was asked to");
    until("all are lost", || upstreams.iter().all(|upstream| upstream.state() == UpstreamState::Connecting));
    let send = |upstream: &Upstream| upstream.send_tracked("kept").expect("there is room");
    let tickets: Vec<SendTicket> = upstreams.iter().map(send).collect();
    let second = bind(addr).spawn(echo()).expect("the address is free again");
    let mut echoes = 0;
    while echoes < clients {
        echoes += usize::from(matches!(dialler.next(), Seen::Packet(packet) if packet == b"kept"));
    }
    assert!(are_up());
    assert!(tickets.iter().all(|ticket| ticket.wait_timeout(PATIENCE) == Ok(())), "they are written");
    assert_eq!((second.session_count(), dialler.running.session_count()), (clients, clients));
    dialler.finish();
    assert!(upstreams.iter().all(|upstream| upstream.state() == UpstreamState::Closed));
    second.stop(PATIENCE).expect("it stops");
}

#[test]
fn a_server_that_does_not_run_dials_nothing() {
    let server = Server::unbound().framing(Raw::new());
    let handle = server.handle();
    let refused = handle.connect(Dial::to("127.0.0.1:7")).map(|_| ());
    assert_eq!(refused, Err(framewire::QueryError::NotRunning));
    let running = server.spawn(echo()).expect("it starts without an address");
    assert_eq!(running.local_addrs(), []);
    running.stop(PATIENCE).expect("it stops");
    let refused = handle.connect(Dial::to("127.0.0.1:7")).map(|_| ());
    assert_eq!(refused, Err(framewire::QueryError::NotRunning));
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_dialled_by_its_path() {
    let served = On::UnixSocket.echo(Default::default());
    let dialler = Dialler::start(On::SingleReactor, None);
    let Some(Addr::Unix(Some(path))) = served.running.local_addrs().first().cloned() else {
        panic!("it is bound to a path");
    };
    let upstream = dialler.dial(Dial::to(&path));
    let (session, _, peer) = dialler.opened();
    assert_eq!(peer, Addr::Unix(Some(path.clone())));
    until("it is up", || upstream.state() == UpstreamState::Up(session));
    upstream.send("hello").expect("there is room");
    assert_eq!(dialler.received(), b"hello");
    served.running.shutdown(PATIENCE);
    assert_eq!(dialler.closed(), CloseKind::PeerClosed);
    served.await_stop();
    let _upstream = dialler.dial(Dial::to(path));
    assert!(dialler.failed().1.to_string().ends_with("does the server run, and is the path right?"));
    dialler.finish();
}

/// A listener that does not accept: the kernel takes as many connections as its queue holds, and lets the others wait.
#[cfg(target_os = "linux")]
#[test]
fn a_peer_that_does_not_accept_is_given_up_in_time() {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a socket");
    let path = std::env::temp_dir().join(format!("framewire-full-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    socket.bind(&socket2::SockAddr::unix(&path).expect("a path")).expect("it is free");
    socket.listen(0).expect("it is bound");
    let dialler = Dialler::start(On::SingleReactor, None);
    let dial = Dial::to(&path).timeout(Duration::from_millis(50));
    let _first = dialler.dial(dial.clone());
    dialler.opened();
    let _second = dialler.dial(dial);
    let (_, error) = dialler.failed();
    assert!(matches!(error, DialError::TimedOut { .. }), "{error}");
    dialler.finish();
    std::fs::remove_file(&path).expect("it is ours");
}
