//! Sessions over UDP, on each strategy that serves it.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use framewire::{
    Beyond, Channel, CloseKind, Datagram, Heartbeat, LengthPrefix, Limits, Reactor, RefusalCause, SendError,
    Separator, Server, Session, SessionHandle, ShardId, SingleReactor, ThreadPerConnection, TimerId,
    WorkerPool,
};
use socket2::{Domain, Socket, Type};

use crate::common::{Client, On, PATIENCE, Served, addr_of, echo, failure, on_udp, until};
use crate::handlers::Scripted;

on_udp! {
    a_datagram_is_a_packet_and_a_peer_a_session
    datagrams_of_every_length_come_back_whole
    a_datagram_longer_than_the_limit_is_dropped_whole
    a_packet_that_fits_no_datagram_is_refused_and_the_limit_named
    a_silent_peer_is_forgotten
    a_closed_session_begins_anew_with_the_next_datagram
    timers_and_heartbeats_run
    handles_channels_and_broadcasts_reach_peers
    sessions_of_other_peers_are_reached_by_id
    a_peer_whose_socket_is_gone_harms_nobody
    a_flood_from_one_peer_leaves_the_others_served
    peers_beyond_the_limit_are_refused
    the_idlest_peer_makes_room
    a_shutdown_says_farewell
    a_stop_frees_the_address
}

/// A server on UDP, on one thread or several.
fn udp(on: On) -> Server<Datagram> {
    let server = Server::bind_udp("127.0.0.1:0").expect("a free port");
    match on {
        On::WorkerPool => server.strategy(WorkerPool::new(3)),
        _ => server.strategy(SingleReactor::new()),
    }
}

/// A peer.
struct Udp(UdpSocket);

impl Udp {
    fn of(served: &Served) -> Self {
        Self::to(served.running.local_addr().expect("an IP address"))
    }

    fn to(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.connect(server).expect("an address");
        Self(socket)
    }

    fn send(&self, datagram: impl AsRef<[u8]>) {
        assert_eq!(self.0.send(datagram.as_ref()).expect("it is sent"), datagram.as_ref().len());
    }

    fn recv(&self) -> Vec<u8> {
        let mut datagram = vec![0; 65_536];
        let n = self.0.recv(&mut datagram).expect("a datagram comes");
        datagram.truncate(n);
        datagram
    }

    fn assert_echo(&self, datagram: impl AsRef<[u8]>) {
        self.send(&datagram);
        assert_eq!(self.recv(), datagram.as_ref());
    }
}

fn a_datagram_is_a_packet_and_a_peer_a_session(on: On) {
    let served = Served::start(udp(on), echo());
    let peers: Vec<Udp> = (0..20).map(|_| Udp::of(&served)).collect();
    for (number, peer) in peers.iter().enumerate() {
        peer.assert_echo(format!("hello from {number}"));
        peer.assert_echo("");
        peer.assert_echo("and again");
    }
    assert_eq!((served.journal.opened(), served.running.session_count()), (20, 20));
    served.until_counted("60 packets", |metrics| (metrics.packets_in, metrics.packets_out) == (60, 60));
    let mut seen: Vec<_> =
        served.running.sessions().expect("it runs").iter().map(|s| s.peer.to_string()).collect();
    let mut bound: Vec<_> =
        peers.iter().map(|peer| peer.0.local_addr().expect("bound").to_string()).collect();
    seen.sort();
    bound.sort();
    assert_eq!(seen, bound);
    served.running.stop(PATIENCE).expect("it stops");
}

fn datagrams_of_every_length_come_back_whole(on: On) {
    let served = Served::start(udp(on), echo());
    let peer = Udp::of(&served);
    for len in [0, 1, 100, 511, 512, 513, 1_472, 1_473, 4_096, 9_000, 65_000, 65_507] {
        let datagram: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        peer.assert_echo(datagram);
    }
    served.await_stop_of_peers();
}

fn a_datagram_longer_than_the_limit_is_dropped_whole(on: On) {
    let served = Served::start(udp(on).limits(Limits::default().frame(1_000)), echo());
    let peer = Udp::of(&served);
    peer.assert_echo([1; 1_000]);
    peer.send([2; 1_001]);
    peer.send([3; 60_000]);
    peer.assert_echo([4; 1_000]);
    served.until_counted("both", |metrics| metrics.datagrams_too_long == 2 && metrics.packets_in == 2);
    served.await_stop_of_peers();
}

fn a_packet_that_fits_no_datagram_is_refused_and_the_limit_named(on: On) {
    let handler = Scripted::answering(|session: &mut Session<'_>, (), _| {
        let error = session.send(vec![0; 65_508]).map_err(|error| error.to_string());
        Ok(session.send(error.err().unwrap_or_default())?)
    });
    let served = Served::start(udp(on), handler);
    let peer = Udp::of(&served);
    peer.send("x");
    assert_eq!(peer.recv(), b"payload cannot be framed: payload of 65508 bytes is over the maximum of 65507");
    served.await_stop_of_peers();
}

fn a_silent_peer_is_forgotten(on: On) {
    let limits = Limits::default().idle_timeout(Duration::from_millis(100));
    let served = Served::start(udp(on).limits(limits), echo());
    let (silent, back) = (Udp::of(&served), Udp::of(&served));
    silent.assert_echo("once");
    back.assert_echo("before");
    until("both are forgotten", || served.journal.ended_by(CloseKind::Idle) == 2);
    back.assert_echo("after");
    assert_eq!(served.journal.opened(), 3);
    until("it is forgotten again", || served.journal.ended_by(CloseKind::Idle) == 3);
    served.finish();
}

fn a_closed_session_begins_anew_with_the_next_datagram(on: On) {
    let count = Scripted::answering(|session: &mut Session<'_>, seen: &mut u32, packet| {
        *seen += 1;
        session.send(seen.to_string())?;
        if packet == b"close" {
            session.close();
        }
        Ok(())
    });
    let served = Served::start(udp(on), count);
    let peer = Udp::of(&served);
    for (packet, reply) in [("a", b"1"), ("close", b"2"), ("b", b"1"), ("close", b"2"), ("c", b"1")] {
        peer.send(packet);
        assert_eq!(peer.recv(), reply);
    }
    served.await_stop_of_peers();
}

fn timers_and_heartbeats_run(on: On) {
    let handler = Scripted::answering(|session: &mut Session<'_>, (), packet| {
        if packet == b"beat" {
            session.set_heartbeat(Heartbeat::every(Duration::from_millis(5), "beat")?.lost_after(20));
        } else {
            session.set_timer(TimerId(1), Duration::from_millis(5))?;
        }
        Ok(())
    })
    .on_timer(|session, (), _| Ok(session.send("timer")?));
    let served = Served::start(udp(on), handler);
    let peer = Udp::of(&served);
    peer.send("set");
    assert_eq!(peer.recv(), b"timer");
    peer.send("beat");
    (0..5).for_each(|_| assert_eq!(peer.recv(), b"beat"));
    until("it is lost", || served.journal.ended_by(CloseKind::HeartbeatLost) == 1);
    served.finish();
}

fn handles_channels_and_broadcasts_reach_peers(on: On) {
    let served = Served::start(udp(on), echo());
    let peers: Vec<Udp> = (0..8).map(|_| Udp::of(&served)).collect();
    let channel = Channel::new();
    for peer in &peers {
        peer.assert_echo("open");
        let handle: SessionHandle = served.journal.newest();
        let ticket = handle.send_tracked("by handle").expect("it is queued");
        assert_eq!(peer.recv(), b"by handle");
        assert_eq!(ticket.wait_timeout(PATIENCE), Ok(()));
        channel.join(&handle).expect("it is open");
    }
    served.running.broadcast("to all").expect("it can be encoded");
    channel.publish("to members").expect("it can be encoded");
    for peer in &peers {
        let mut got = [peer.recv(), peer.recv()];
        got.sort();
        assert_eq!(got, [&b"to all"[..], b"to members"]);
    }
    served.await_stop_of_peers();
}

fn sessions_of_other_peers_are_reached_by_id(on: On) {
    let first = std::sync::Mutex::new(None);
    let handler = Scripted::answering(move |session: &mut Session<'_>, (), packet| {
        let first = *first.lock().expect("not poisoned").get_or_insert(session.id());
        Ok(session.send_to(first, packet)?)
    });
    let served = Served::start(udp(on), handler);
    let peers: Vec<Udp> = (0..6).map(|_| Udp::of(&served)).collect();
    for (number, peer) in peers.iter().enumerate() {
        peer.send(number.to_string());
        assert_eq!(peers[0].recv(), number.to_string().as_bytes());
    }
    served.await_stop_of_peers();
}

fn a_peer_whose_socket_is_gone_harms_nobody(on: On) {
    let handler = Scripted::answering(|session: &mut Session<'_>, (), packet| {
        if packet == b"often" {
            session.set_heartbeat(Heartbeat::every(Duration::from_millis(1), "beat")?);
        }
        Ok(session.send(packet)?)
    });
    let served = Served::start(udp(on), handler);
    let stays = Udp::of(&served);
    for _ in 0..10 {
        let goes = Udp::of(&served);
        goes.assert_echo("often");
        // Each beat from now on is answered by "port unreachable".
        drop(goes);
        for _ in 0..20 {
            stays.assert_echo("still served");
        }
    }
    served.await_stop_of_peers();
}

fn a_flood_from_one_peer_leaves_the_others_served(on: On) {
    const FLOOD: usize = 100_000;
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let handler = Scripted::answering(move |session: &mut Session<'_>, (), packet| {
        counted.fetch_add(1, Ordering::Relaxed);
        if packet == b"flood" { Ok(()) } else { Ok(session.send(packet)?) }
    });
    let served = Served::start(udp(on), handler);
    let (flooding, other) = (Udp::of(&served), Udp::of(&served));
    other.assert_echo("before");
    let flood = thread::spawn(move || {
        (0..FLOOD).for_each(|_| flooding.send("flood"));
    });
    // The kernel may drop what finds its buffer full, so the other asks until it is answered.
    other.0.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    let mut answered = 0;
    until("the other is served again and again", || {
        other.send("me too");
        answered += usize::from(other.0.recv(&mut [0; 16]).is_ok());
        answered >= 20
    });
    flood.join().expect("it is sent");
    assert!(seen.load(Ordering::Relaxed) > 20);
    assert_eq!(served.running.session_count(), 2);
    served.await_stop_of_peers();
}

fn peers_beyond_the_limit_are_refused(on: On) {
    let served = Served::start(udp(on).limits(Limits::default().connections(5)), echo());
    let peers: Vec<Udp> = (0..5).map(|_| Udp::of(&served)).collect();
    peers.iter().for_each(|peer| peer.assert_echo("in"));
    let refused: Vec<Udp> = (0..50).map(|_| Udp::of(&served)).collect();
    refused.iter().for_each(|peer| peer.send("out"));
    served.until_counted("all are refused", |metrics| metrics.refused(RefusalCause::Full) == 50);
    peers.iter().for_each(|peer| peer.assert_echo("still in"));
    assert_eq!(served.running.session_count(), 5);
    served.await_stop_of_peers();
}

fn the_idlest_peer_makes_room(on: On) {
    let limits = Limits::default().connections(30);
    let served = Served::start(udp(on).limits(limits).beyond(Beyond::ForgetIdlest), echo());
    let peers: Vec<Udp> = (0..200).map(|_| Udp::of(&served)).collect();
    for peer in &peers {
        peer.send("x");
    }
    served.until_counted("all are handled", |metrics| metrics.packets_in == 200);
    let metrics = served.metrics();
    assert_eq!((metrics.opened, metrics.refused_total()), (200, 0), "{metrics:?}");
    assert_eq!(metrics.closed(CloseKind::Forgotten) + metrics.sessions, 200, "{metrics:?}");
    assert!((10..=30).contains(&metrics.sessions), "{metrics:?}");
    served.await_stop_of_peers();
}

fn a_shutdown_says_farewell(on: On) {
    let handler = Scripted::<()>::echo().on_shutdown(|session, ()| {
        session.send("farewell")?;
        Ok(framewire::Then::Close)
    });
    let served = Served::start(udp(on), handler);
    let peers: Vec<Udp> = (0..6).map(|_| Udp::of(&served)).collect();
    peers.iter().for_each(|peer| peer.assert_echo("in"));
    served.running.shutdown(PATIENCE);
    peers.iter().for_each(|peer| assert_eq!(peer.recv(), b"farewell"));
    served.await_stop();
}

fn a_stop_frees_the_address(on: On) {
    let served = Served::start(udp(on), echo());
    let addr = served.running.local_addr().expect("an IP address");
    let taken = failure(Server::bind_udp(addr));
    assert!(taken.starts_with(&format!("cannot bind {addr}: ")), "{taken}");
    Udp::of(&served).assert_echo("x");
    served.await_stop_of_peers();
    UdpSocket::bind(addr).expect("it is free");
}

impl Served {
    /// Ends a test whose peers are still there, as far as anybody can tell.
    fn await_stop_of_peers(self) {
        self.running.shutdown(PATIENCE);
        self.await_stop();
    }
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    let bound = || Server::bind_udp("127.0.0.1:0").expect("a free port");
    let error = failure(bound().strategy(ThreadPerConnection::max(10)).spawn(echo()));
    assert!(error.starts_with("strategy: ThreadPerConnection cannot serve UDP"), "{error}");
    let layered = bound().layer(|_| framewire::testing::layers::StackedPeer::layer(0));
    let error = failure(layered.spawn(echo()));
    assert!(error.starts_with("layer: "), "{error}");
    let also = bound().also("127.0.0.1:0", Separator::lines()).expect("a free port");
    let error = failure(also.spawn(echo()));
    assert!(error.starts_with("also: "), "{error}");
    let error = failure(bound().strategy(WorkerPool::new(0)).spawn(echo()));
    assert!(error.starts_with("strategy: a WorkerPool of 0 workers"), "{error}");
    let error = failure(bound().limits(Limits::default().frame(0)).spawn(echo()));
    assert!(error.starts_with("limits.frame: "), "{error}");
    let error = failure(Server::bind_udp("unix:/tmp/datagrams"));
    assert!(error.contains("UDP has no paths"), "{error}");
    let reactor = Reactor::new(ThreadPerConnection::max(10)).service(bound(), echo());
    assert!(failure(reactor.spawn()).starts_with("strategy: ThreadPerConnection cannot serve UDP"));
}

#[test]
fn a_reactor_serves_udp_and_tcp_on_the_same_threads_and_their_sessions_reach_each_other() {
    /// The last session over TCP, to which datagrams are passed on.
    type Watcher = Arc<std::sync::Mutex<Option<framewire::SessionId>>>;
    for workers in [0, 2] {
        let watcher = Watcher::default();
        let (set, get) = (watcher.clone(), watcher);
        let watching = Scripted::<()>::echo().on_open(move |session, ()| {
            *set.lock().expect("not poisoned") = Some(session.id());
            Ok(session.send("ready")?)
        });
        let feeding = Scripted::answering(move |session: &mut Session<'_>, (), packet| {
            let to = get.lock().expect("not poisoned").expect("the test watches");
            Ok(session.send_to(to, packet)?)
        });
        let tcp = Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
        let udp = Server::bind_udp("127.0.0.1:0").expect("a free port");
        let (at, peer) = (tcp.local_addrs()[0].clone(), Udp::to(udp.handle().local_addr().expect("IP")));
        let reactor = match workers {
            0 => Reactor::new(SingleReactor::new()),
            workers => Reactor::new(WorkerPool::new(workers)),
        };
        let running = reactor.service(tcp, watching).service(udp, feeding).spawn().expect("it starts");
        let mut client = Client::connect(&addr_of(&at)).expect("it listens");
        assert_eq!(client.recv_text(), "ready");
        for number in 0..20 {
            peer.send(number.to_string());
            assert_eq!(client.recv_text(), number.to_string());
        }
        drop(client);
        running.stop(PATIENCE).expect("it stops");
    }
}

#[test]
fn peers_of_ipv6_and_of_several_addresses_are_served() {
    let server = Server::bind_udp(["127.0.0.1:0", "[::1]:0"]).expect("free ports");
    let addrs: Vec<SocketAddr> = server.local_addrs().iter().filter_map(|addr| addr.socket_addr()).collect();
    let served = Served::start(server.strategy(WorkerPool::new(2)), echo());
    Udp::to(addrs[0]).assert_echo("over IPv4");
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.connect(&addrs[1].into()).expect("an address");
    Udp(socket.into()).assert_echo("over IPv6");
    let origins: Vec<_> =
        served.running.sessions().expect("it runs").iter().map(|s| s.local.to_string()).collect();
    assert!(addrs.iter().all(|addr| origins.contains(&addr.to_string())), "{origins:?}");
    served.await_stop_of_peers();
}

#[test]
fn a_silent_peer_is_forgotten_after_a_minute_unless_the_limits_say_otherwise() {
    let served = Served::start(Server::bind_udp("127.0.0.1:0").expect("a free port"), echo());
    let peer = Udp::of(&served);
    peer.assert_echo("x");
    until("its deadline is the only timer", || served.metrics().timers == 1);
    let handle = served.journal.newest();
    let asked = served.running.execute(ShardId::ACCEPTOR, move |shard| {
        shard.with(handle.id(), |session, ()| session.set_idle_timeout(None));
    });
    assert_eq!(asked, Ok(()));
    peer.assert_echo("y");
    assert_eq!(served.journal.newest().send("z"), Ok(()));
    assert_eq!(peer.recv(), b"z");
    served.await_stop_of_peers();
    let closed = Served::start(Server::bind_udp("127.0.0.1:0").expect("a free port"), echo());
    assert_eq!(closed.metrics().timers, 0);
    closed.finish();
}

#[test]
fn a_session_that_has_ended_takes_no_more() {
    let served = Served::start(Server::bind_udp("127.0.0.1:0").expect("a free port"), echo());
    let peer = Udp::of(&served);
    peer.assert_echo("x");
    let handle = served.journal.newest();
    assert_eq!(handle.close(), Ok(()));
    until("it has ended", || served.running.session_count() == 0);
    assert_eq!(handle.send("late"), Err(SendError::Closed));
    peer.0.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    let nothing = peer.0.recv(&mut [0; 8]).map_err(|error| error.kind());
    assert!(matches!(nothing, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{nothing:?}");
    served.finish();
}
