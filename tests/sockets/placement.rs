//! Strategies: what they are shown of a connection, and where it lives after that.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use framewire::{
    Addr, ForkingStrategy, LengthPrefix, NewConnection, Origin, Placement, Server, ShardId, ShardLoads,
    WorkerPool,
};

use crate::common::{Client, PATIENCE, Served, echo, refused, until};

/// A worker for each address of the server; keeps what it was shown.
struct ByListener(Arc<Mutex<Vec<(usize, Addr, Addr)>>>);

impl ForkingStrategy for ByListener {
    fn workers(&self) -> usize {
        2
    }

    fn place(&mut self, connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
        let listener = connection.listener().expect("it was accepted");
        let shown = (listener, connection.local(), connection.peer());
        self.0.lock().expect("nobody panics").push(shown);
        Placement::On(loads.shards().nth(1 + listener).unwrap_or(ShardId::ACCEPTOR))
    }
}

#[test]
fn a_strategy_is_shown_both_addresses_and_the_listener() {
    let shown = Arc::<Mutex<Vec<_>>>::default();
    // The second is a wildcard: there the connection knows its address on our side, and the listener does not.
    let server =
        Server::bind(["127.0.0.1:0", "0.0.0.0:0"]).expect("free ports").framing(LengthPrefix::u32_be());
    let running = server.strategy(ByListener(shown.clone())).spawn(echo());
    let running = running.expect("it starts");
    let ports: Vec<u16> =
        running.local_addrs().iter().filter_map(Addr::socket_addr).map(|addr| addr.port()).collect();
    let mut clients = Vec::new();
    for listener in [1, 0, 1] {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[listener]));
        let mut client = Client::connect(&to.into()).expect("it listens");
        client.assert_echo("placed");
        let shown = shown.lock().expect("nobody panics").last().cloned().expect("it was asked");
        assert_eq!((shown.0, shown.1), (listener, Addr::Ip(to)));
        let sessions = running.sessions().expect("the shards answer");
        let session = sessions.iter().find(|session| session.peer == shown.2).expect("it is open");
        assert_eq!(session.id.shard(), ShardId::new(1 + listener as u32));
        assert_eq!(session.origin, Origin::Accepted { listener });
        clients.push(client);
    }
    drop(clients);
    running.stop(PATIENCE).expect("it stops");
}

#[test]
fn a_pool_with_a_listener_per_worker_spreads_connections() {
    let server = Server::bind("127.0.0.1:0").expect("a free port").strategy(WorkerPool::new(2).reuse_port());
    let served = Served::echo(server);
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
    let served = Served::echo(Server::bind("127.0.0.1:0").expect("a free port").strategy(strategy));
    assert_eq!(*started.lock().expect("nobody panics"), served.running.local_addrs());
    let mut clients: Vec<(usize, Client)> = Vec::new();
    let mut turned_away = 0;
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
            refused(client);
            turned_away += 1;
        }
    }
    until("the refused are counted", || served.metrics().refused_total() == turned_away);
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
    let served = Served::echo(Server::bind("127.0.0.1:0").expect("a free port").strategy(Lost));
    for _ in 0..3 {
        served.assert_refused();
    }
    until("all are counted", || served.metrics().refused_total() == 3);
    served.finish();
}

/// Waits, before it places the first, until all are there.
struct Gathering {
    inner: WorkerPool,
    arrived: Arc<Barrier>,
    waited: bool,
}

impl ForkingStrategy for Gathering {
    fn workers(&self) -> usize {
        self.inner.workers()
    }

    fn place(&mut self, connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
        if !std::mem::replace(&mut self.waited, true) {
            self.arrived.wait();
        }
        self.inner.place(connection, loads)
    }
}

#[test]
fn clients_that_come_together_wake_each_worker_once() {
    const WORKERS: usize = 2;
    let arrived = Arc::new(Barrier::new(2));
    let strategy = Gathering { inner: WorkerPool::new(WORKERS), arrived: arrived.clone(), waited: false };
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
    let served = Served::start(server.strategy(strategy), echo());
    let mut clients: Vec<Client> = (0..50).map(|_| served.connect()).collect();
    arrived.wait();
    for client in &mut clients {
        client.assert_echo("placed");
    }
    // What is published at the end of a turn may be behind, and never ahead: the workers have taken everything.
    let wakeups = served.metrics().wakeups;
    assert!(wakeups <= WORKERS as u64, "{wakeups} for {} clients", clients.len());
    drop(clients);
    served.finish();
}
