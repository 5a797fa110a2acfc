//! Binding, settings, and who makes the handlers.

mod common;

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{
    Client, ON_PURPOSE, On, PATIENCE, Served, hush, on_each_strategy_and_transport, until, until_counted,
};
use framewire::{
    Addr, ForkingStrategy, Handled, LengthPrefix, Limits, NewConnection, PacketHandler, Placement,
    RunningServer, ServeError, Server, ServerHandle, Session, ShardId, ShardLoads, SingleReactor,
    ThreadPerConnection, Unframed, WorkerPool, packet_fn, per_shard,
};
use socket2::SockAddr;

on_each_strategy_and_transport! {
    a_factory_makes_a_handler_on_each_shard_that_never_leaves_it
    a_factory_that_panics_is_reported_and_everything_stops
}

fn echo(server: Server<Unframed>) -> Served {
    Served::start(
        server.framing(LengthPrefix::u32_be()),
        packet_fn(|session, packet| Ok(session.send(packet)?)),
    )
}

fn failure<T>(outcome: Result<T, ServeError>) -> String {
    match outcome {
        Ok(_) => panic!("this must fail"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_taken_port_is_named_and_its_server_goes_on() {
    let first = echo(Server::bind("127.0.0.1:0").expect("a free port"));
    let mut client = first.connect();
    let addr = first.running.local_addr().expect("bound to TCP");
    let text = failure(Server::bind(addr));
    assert!(text.starts_with(&format!("cannot bind {addr}: ")), "{text}");
    client.assert_echo("still served");
    drop(client);
    first.finish();
}

#[test]
fn a_taken_path_is_named_and_its_server_goes_on() {
    let first = echo(On::UnixSocket.bind());
    let mut client = first.connect();
    let path = first.running.local_addrs()[0].to_string();
    let text = failure(Server::bind(&path));
    assert!(text.starts_with(&format!("cannot bind {path}: ")), "{text}");
    client.assert_echo("still served");
    first.connect().assert_echo("and so are new ones");
    drop(client);
    first.finish();
    assert!(!std::path::Path::new(path.trim_start_matches("unix:")).exists(), "its file is removed");
}

#[test]
fn a_path_that_a_dead_server_left_behind_is_replaced() {
    let path = std::env::temp_dir().join(format!("framewire-stale-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a free path"));
    assert!(path.exists());
    let served = echo(Server::bind(format!("unix:{}", path.display())).expect("nobody listens there"));
    served.connect().assert_echo("served");
    served.finish();
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_no_socket_is_never_removed() {
    let path = std::env::temp_dir().join(format!("framewire-file-{}", std::process::id()));
    std::fs::write(&path, "precious").expect("a free path");
    let addr = format!("unix:{}", path.display());
    let text = failure(Server::bind(&addr));
    assert!(text.starts_with(&format!("cannot bind {addr}: ")), "{text}");
    assert_eq!(std::fs::read_to_string(&path).expect("it is still there"), "precious");
    std::fs::remove_file(&path).expect("it is ours");
    std::fs::create_dir(&path).expect("a free path");
    failure(Server::bind(&addr));
    std::fs::remove_dir(&path).expect("it is still there");
}

#[test]
fn an_address_that_is_none_or_not_ours_is_named() {
    for text in ["nonsense", "127.0.0.1", "127.0.0.1:70000", "unix:"] {
        let error = failure(Server::bind(text));
        assert!(error.contains(&format!("{text:?} is no address to bind")), "{error}");
    }
    // Of the range for documentation: no machine has it.
    let error = failure(Server::bind("192.0.2.1:0"));
    assert!(error.starts_with("cannot bind 192.0.2.1:0: "), "{error}");
    let error = failure(Server::bind("unix:/nonexistent/directory/socket"));
    assert!(error.starts_with("cannot bind unix:/nonexistent/directory/socket: "), "{error}");
}

#[test]
fn a_setting_that_cannot_work_is_named() {
    let limits = Limits::default();
    let cases = [
        ("limits.frame", limits.clone().frame(0)),
        ("limits.read_budget", limits.clone().read_budget(0)),
        ("limits.outbox_low", limits.clone().outbox_low(1 << 20)),
        ("limits.outbox_high", limits.clone().outbox_high(8 << 20)),
        ("limits.idle_timeout", limits.clone().idle_timeout(Duration::ZERO)),
        ("limits.stall_timeout", limits.clone().stall_timeout(Duration::from_nanos(1))),
        ("limits.connections_per_peer", limits.clone().connections_per_peer(0)),
        ("limits.mailbox_commands", limits.mailbox_commands(0)),
    ];
    let handler = packet_fn(|session: &mut Session<'_>, packet: &[u8]| Ok(session.send(packet)?));
    let server = || Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
    for (option, limits) in cases {
        let error = failure(server().limits(limits).spawn(handler));
        assert!(error.starts_with(&format!("{option}: ")), "{error}");
    }
    let error = failure(server().backlog(0).spawn(handler));
    assert!(error.starts_with("backlog: "), "{error}");
    for idle in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(32_768), Duration::MAX] {
        let error = failure(server().keepalive(idle).spawn(handler));
        assert!(error.starts_with("keepalive: "), "{idle:?}: {error}");
    }
    for idle in [1, 32_767].map(Duration::from_secs) {
        drop(server().keepalive(idle).spawn(handler).expect("it can work"));
    }
    let error = failure(server().strategy(WorkerPool::new(0)).spawn(handler));
    assert!(error.starts_with("strategy: a WorkerPool of 0 workers serves nobody"), "{error}");
    let error = failure(server().strategy(WorkerPool::new(2).max_sessions(0)).spawn(handler));
    assert!(error.starts_with("strategy: WorkerPool::max_sessions(0) refuses everybody"), "{error}");
    let error = failure(server().strategy(SingleReactor::new().max_sessions(0)).spawn(handler));
    assert!(error.starts_with("strategy: SingleReactor::max_sessions(0) refuses everybody"), "{error}");
    let error = failure(server().strategy(ThreadPerConnection::max(0)).spawn(handler));
    assert!(error.starts_with("strategy: ThreadPerConnection::max(0) refuses everybody"), "{error}");
    let error = failure(server().strategy(WorkerPool::new(100_000)).spawn(handler));
    assert!(error.starts_with("strategy: 100000 workers"), "{error}");
    let unix = On::UnixSocket.bind().framing(LengthPrefix::u32_be());
    let error = failure(unix.strategy(WorkerPool::new(2).reuse_port()).spawn(handler));
    assert!(error.starts_with("strategy: reuse_port works for TCP only, not for unix:"), "{error}");
}

#[test]
fn several_addresses_of_several_kinds_are_served_by_one_server() {
    let path = std::env::temp_dir().join(format!("framewire-several-{}.sock", std::process::id()));
    let addrs = ["127.0.0.1:0".to_owned(), "[::1]:0".to_owned(), format!("unix:{}", path.display())];
    let server = Server::bind(addrs).expect("three free addresses");
    let bound = server.local_addrs();
    assert_eq!(bound.len(), 3);
    let served = echo(server.strategy(WorkerPool::new(2)));
    assert_eq!(served.running.local_addrs(), bound);
    let mut clients = Vec::new();
    for addr in &bound {
        let addr = match addr {
            Addr::Ip(addr) => (*addr).into(),
            _ => SockAddr::unix(&path).expect("a path"),
        };
        let mut client = Client::connect(&addr).expect("the server listens");
        client.assert_echo(format!("{addr:?}"));
        clients.push(client);
    }
    let sessions = served.running.sessions().expect("the shards answer");
    for addr in &bound {
        assert!(sessions.iter().any(|session| session.local == *addr), "{addr}: {sessions:?}");
    }
    drop(clients);
    served.finish();
}

#[test]
fn a_wildcard_tells_each_session_the_address_it_was_reached_at() {
    let served = echo(Server::bind("0.0.0.0:0").expect("a free port"));
    let port = served.running.local_addr().expect("bound to TCP").port();
    let mut client = Client::connect(&SocketAddr::from(([127, 0, 0, 7], port)).into()).expect("it listens");
    client.assert_echo("here");
    let sessions = served.running.sessions().expect("the shards answer");
    assert_eq!(sessions[0].local, Addr::Ip(SocketAddr::from(([127, 0, 0, 7], port))));
    assert_eq!(sessions[0].peer.socket_addr(), client.socket.local_addr().expect("bound").as_socket());
    drop(client);
    served.finish();
}

/// Each handler counts for itself, in what cannot leave its thread.
struct Counting {
    packets: Rc<Cell<u32>>,
}

impl PacketHandler for Counting {
    type State = Rc<Cell<u32>>;

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled<Rc<Cell<u32>>> {
        Ok(self.packets.clone())
    }

    fn on_packet(
        &mut self,
        session: &mut Session<'_>,
        packets: &mut Rc<Cell<u32>>,
        _packet: &[u8],
    ) -> Handled {
        packets.set(packets.get() + 1);
        Ok(session.send(packets.get().to_string())?)
    }
}

fn address(running: &RunningServer) -> SockAddr {
    match &running.local_addrs()[0] {
        Addr::Ip(addr) => (*addr).into(),
        Addr::Unix(path) => SockAddr::unix(path.as_ref().expect("a path")).expect("a path"),
        other => panic!("{other}"),
    }
}

fn connect(running: &RunningServer) -> Client {
    Client::connect(&address(running)).expect("the server listens")
}

fn a_factory_makes_a_handler_on_each_shard_that_never_leaves_it(on: On) {
    let made: Arc<Mutex<Vec<ShardId>>> = Arc::default();
    let noted = made.clone();
    let server = on.bind().framing(LengthPrefix::u32_be());
    let running = server.spawn(per_shard(move |shard| {
        noted.lock().expect("nobody panics").push(shard);
        Counting { packets: Rc::default() }
    }));
    let running = running.expect("the server starts");
    let mut clients = [connect(&running), connect(&running)];
    let mut last = 0;
    for _ in 0..5 {
        for client in &mut clients {
            client.send("count");
            last = client.recv_text().parse().expect("a number");
        }
    }
    // One handler for both on a single reactor, one for each otherwise.
    let one = matches!(on, On::SingleReactor | On::UnixSocket);
    assert_eq!(last, if one { 10 } else { 5 });
    assert_eq!(made.lock().expect("nobody panics").len(), if one { 1 } else { 3 });
    drop(clients);
    running.stop(PATIENCE).expect("it stops in peace");
}

fn a_factory_that_panics_is_reported_and_everything_stops(on: On) {
    hush();
    let server = on.bind().framing(LengthPrefix::u32_be());
    let running =
        server.spawn(per_shard(|shard| -> Counting { panic!("{ON_PURPOSE}: the factory of {shard}") }));
    let error = failure(running.expect("the threads start").wait());
    assert!(error.starts_with(&format!("the factory of handlers panicked: {ON_PURPOSE}")), "{error}");
}

#[test]
fn a_factory_that_panics_for_one_connection_costs_that_one() {
    hush();
    let armed = Arc::<AtomicBool>::default();
    let trap = armed.clone();
    let server = On::ThreadPerConnection.bind().framing(LengthPrefix::u32_be());
    let running = server.spawn(per_shard(move |shard| {
        assert!(!trap.swap(false, Ordering::Relaxed), "{ON_PURPOSE}: the factory of {shard}");
        Counting { packets: Rc::default() }
    }));
    let running = running.expect("the server starts");
    let mut bystander = connect(&running);
    bystander.assert_reply("count", "1");
    armed.store(true, Ordering::Relaxed);
    match Client::connect(&address(&running)) {
        Ok(mut client) => assert_eq!(client.read_to_any_end().0, b""),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    until("it is forgotten", || running.session_count() == 1);
    until("its shard is forgotten", || running.shards().len() == 2);
    until_counted(&running, "it is counted", |metrics| {
        (metrics.accepted, metrics.opened, metrics.sessions) == (2, 1, 1)
    });
    bystander.assert_reply("count", "2");
    connect(&running).assert_reply("count", "1");
    drop(bystander);
    until("all have left", || running.session_count() == 0);
    let handle = running.handle();
    running.stop(PATIENCE).expect("no standing shard failed");
    let metrics = handle.metrics();
    assert_eq!((metrics.opened, metrics.closed_total(), metrics.sessions), (2, 2, 0), "{metrics:?}");
}

/// Two workers; takes its time to start, until none of them is left.
struct Slow {
    server: ServerHandle,
}

impl ForkingStrategy for Slow {
    fn workers(&self) -> usize {
        2
    }

    fn place(&mut self, _connection: &NewConnection<'_>, _loads: ShardLoads<'_>) -> Placement {
        Placement::On(ShardId::new(1))
    }

    fn on_start(&mut self, _addrs: &[Addr]) {
        until("all workers have ended", || self.server.shards().is_empty());
    }
}

#[test]
fn a_worker_that_fails_while_the_server_starts_stops_all_of_it() {
    hush();
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
    let handle = server.handle();
    let strategy = Slow { server: handle.clone() };
    let running = server.strategy(strategy).spawn(per_shard(|shard| {
        assert_ne!(shard.index(), 1, "{ON_PURPOSE}: the factory of {shard}");
        Counting { packets: Rc::default() }
    }));
    let running = running.expect("the threads start");
    let waiting = std::thread::spawn(move || running.wait());
    until("nobody waits for a server that is none", || waiting.is_finished());
    let error = waiting.join().expect("it does not panic").expect_err("a worker failed");
    assert!(matches!(error, ServeError::Factory { .. }), "{error}");
    assert!(handle.shards().is_empty());
}

/// A server that tells its name.
fn named(server: Server<Unframed>, name: &'static str) -> Served {
    let handler = packet_fn(move |session: &mut Session<'_>, _packet: &[u8]| Ok(session.send(name)?));
    Served::start(server.framing(LengthPrefix::u32_be()), handler)
}

#[test]
fn two_servers_of_one_process_share_an_address_that_is_bound_shared() {
    let first = named(Server::bind_shared("127.0.0.1:0").expect("a free port"), "first");
    let addr = first.running.local_addr().expect("bound to TCP");
    let second = named(Server::bind_shared(addr).expect("it is shared"), "second");
    let mut met = [0; 2];
    let mut clients = Vec::new();
    // The kernel spreads by a hash of the ports.
    while met.contains(&0) {
        assert!(clients.len() < 500, "one server gets everybody: {met:?}");
        let mut client = Client::connect(&addr.into()).expect("both listen");
        client.send("who?");
        met[usize::from(client.recv_text() == "second")] += 1;
        clients.push(client);
    }
    assert_eq!((first.journal.opened(), second.journal.opened()), (met[0], met[1]));
    // One goes; the other serves everybody from then on.
    drop(clients);
    first.finish();
    for _ in 0..20 {
        let mut client = Client::connect(&addr.into()).expect("one listens");
        client.send("who?");
        assert_eq!(client.recv_text(), "second");
    }
    second.finish();
}

#[test]
fn a_pool_with_a_listener_per_worker_spreads_connections() {
    let server = Server::bind("127.0.0.1:0").expect("a free port").strategy(WorkerPool::new(2).reuse_port());
    let served = echo(server);
    let mut clients = Vec::new();
    let spread = |served: &Served| {
        let sessions = served.running.sessions().expect("the shards answer");
        let of = |shard| sessions.iter().filter(|session| session.id.shard().index() == shard).count();
        [of(0), of(1), of(2)]
    };
    while spread(&served)[1..].contains(&0) {
        assert!(clients.len() < 500, "one worker gets everybody: {:?}", spread(&served));
        let mut client = served.connect();
        client.assert_echo("placed");
        clients.push(client);
    }
    assert_eq!(spread(&served)[0], 0, "the acceptor's own shard serves nobody");
    assert_eq!(spread(&served).iter().sum::<usize>(), clients.len());
    for client in &mut clients {
        client.assert_echo("still served");
    }
    drop(clients);
    served.finish();
}

/// Even and odd ports on a shard each, at most three on each; counts what it is told.
#[derive(Debug, Default)]
struct ByPort {
    started: Arc<Mutex<Vec<Addr>>>,
    stopped: Arc<AtomicUsize>,
}

impl ForkingStrategy for ByPort {
    fn workers(&self) -> usize {
        2
    }

    fn place(&mut self, connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
        let port = connection.peer().socket_addr().map_or(0, |addr| addr.port());
        let shard = ShardId::new(1 + u32::from(port % 2));
        if loads.sessions(shard) < 3 { Placement::On(shard) } else { Placement::Refuse }
    }

    fn on_start(&mut self, addrs: &[Addr]) {
        self.started.lock().expect("nobody panics").extend_from_slice(addrs);
    }

    fn on_stop(&mut self) {
        self.stopped.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_strategy_of_the_user_is_told_of_start_and_stop_and_decides_every_place() {
    let strategy = ByPort::default();
    let (started, stopped) = (strategy.started.clone(), strategy.stopped.clone());
    let served = echo(Server::bind("127.0.0.1:0").expect("a free port").strategy(strategy));
    assert_eq!(*started.lock().expect("nobody panics"), served.running.local_addrs());
    let mut clients: Vec<(usize, Client)> = Vec::new();
    let mut refused = 0;
    for _ in 0..40 {
        // Bound first: a connection that is refused may fail before it tells its port.
        let mut port = 0;
        let client = Client::connect_with(&served.addr(), |socket| {
            socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
            port = socket.local_addr()?.as_socket().map_or(0, |addr| addr.port());
            Ok(())
        });
        let shard = 1 + usize::from(port % 2);
        if clients.iter().filter(|(other, _)| *other == shard).count() < 3 {
            let mut client = client.expect("there is a place");
            client.assert_echo("placed");
            clients.push((shard, client));
        } else {
            common::refused(client);
            refused += 1;
        }
    }
    until("the refused are counted", || served.metrics().refused == refused);
    for session in served.running.sessions().expect("the shards answer") {
        let port = session.peer.socket_addr().expect("TCP").port();
        assert_eq!(session.id.shard().index(), 1 + usize::from(port % 2));
    }
    assert_eq!(stopped.load(Ordering::Relaxed), 0);
    drop(clients);
    served.finish();
    assert_eq!(stopped.load(Ordering::Relaxed), 1);
}

#[test]
fn a_strategy_that_names_no_shard_refuses() {
    #[derive(Debug)]
    struct Lost;
    impl ForkingStrategy for Lost {
        fn place(&mut self, _connection: &NewConnection<'_>, _loads: ShardLoads<'_>) -> Placement {
            Placement::On(ShardId::new(7))
        }
    }
    let served = echo(Server::bind("127.0.0.1:0").expect("a free port").strategy(Lost));
    for _ in 0..3 {
        served.assert_refused();
    }
    until("all are counted", || served.metrics().refused == 3);
    served.finish();
}

#[test]
fn serve_blocks_until_somebody_shuts_the_server_down() {
    let server = Server::bind("127.0.0.1:0").expect("a free port").strategy(SingleReactor::new());
    let addr = server.local_addrs()[0].socket_addr().expect("TCP");
    let handle = server.handle();
    let serving = std::thread::spawn(move || {
        let handler = packet_fn(|session: &mut Session<'_>, packet: &[u8]| Ok(session.send(packet)?));
        server.framing(LengthPrefix::u32_be()).serve(handler)
    });
    // Bound is not yet listening: that comes with serving.
    let mut client = None;
    until("it listens", || {
        client = Client::connect(&addr.into()).ok();
        client.is_some()
    });
    let mut client = client.expect("it is connected");
    client.assert_echo("served");
    assert!(!serving.is_finished(), "it blocks");
    handle.shutdown(PATIENCE);
    client.assert_end();
    drop(client);
    serving.join().expect("it does not panic").expect("it was asked to stop");
    assert_eq!(handle.session_count(), 0);
}
