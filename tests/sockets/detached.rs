//! Connections that a strategy takes for itself, beside sessions that live as the strategy says.

use std::{
    io::Write,
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use framewire::{
    Addr, Detached, DetachedSocket, ForkingStrategy, LengthPrefix, Limits, NewConnection, Placement, Reactor,
    RunningServer, Server, ShardLoads, SingleReactor, ThreadPerConnection, WorkerPool,
    blocking::{Client, ClientError},
    packet_fn,
};

use crate::common::{self, On, PATIENCE, Served, echo, hush, instances, until};

/// Makes one test per strategy of each of these scenarios.
macro_rules! beside_each_strategy {
    ($($scenario:ident)+) => { $(
        instances! { $scenario:
            on_a_single_reactor = SingleReactor
            on_a_worker_pool = WorkerPool
            on_a_thread_per_connection = ThreadPerConnection
        }
    )+ };
}

beside_each_strategy! {
    a_detached_connection_is_run_by_a_blocking_client_beside_the_sessions
    a_detached_connection_outlives_its_server
    detached_connections_count_for_the_limits
    a_panic_in_detach_closes_that_connection_alone
    the_services_of_a_reactor_share_the_strategy_that_detaches
}

/// Takes the connections of the second listener, of TCP or of a Unix socket, and sends them to the test; all others live
/// where another strategy says.
struct Taking {
    others: Box<dyn ForkingStrategy>,
    taken: Sender<Detached>,
}

impl ForkingStrategy for Taking {
    fn workers(&self) -> usize {
        self.others.workers()
    }

    fn descriptors_per_session(&self) -> usize {
        self.others.descriptors_per_session()
    }

    fn place(&mut self, connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
        if connection.listener() == Some(1) {
            Placement::Detach
        } else {
            self.others.place(connection, loads)
        }
    }

    fn detach(&mut self, connection: Detached) {
        assert_ne!(connection.connection().local(), connection.connection().peer());
        assert!(self.taken.send(connection).is_ok(), "{}: the test wants none", common::ON_PURPOSE);
    }
}

/// The strategy, and what it takes.
fn taking(on: On) -> (Taking, Receiver<Detached>) {
    let (taken, detached) = mpsc::channel();
    let others: Box<dyn ForkingStrategy> = match on {
        On::WorkerPool => Box::new(WorkerPool::new(2)),
        On::ThreadPerConnection => Box::new(ThreadPerConnection::max(8)),
        _ => Box::new(SingleReactor::new()),
    };
    (Taking { others, taken }, detached)
}

fn serve(on: On, limits: Limits, second: &str) -> (Served, Receiver<Detached>) {
    let (strategy, detached) = taking(on);
    let server =
        Server::bind(["127.0.0.1:0", second]).expect("both are free").framing(LengthPrefix::u32_be());
    (Served::start(server.strategy(strategy).limits(limits), echo()), detached)
}

fn connect(to: &Addr) -> Client<LengthPrefix> {
    let client = Client::connect(to.to_string(), LengthPrefix::u32_be());
    client.expect("the server listens").timeout(PATIENCE)
}

fn second(server: &RunningServer) -> Addr {
    server.local_addrs()[1].clone()
}

fn ask(client: &mut Client<LengthPrefix>, question: &str) -> String {
    client.send(question).expect("the peer reads");
    let reply = client.recv().expect("a reply comes").expect("the peer has not ended");
    String::from_utf8(reply.to_vec()).expect("a text")
}

/// Runs a connection on a thread of its own until its peer ends.
fn run(connection: Detached, name: &'static str) -> thread::JoinHandle<Result<(), ClientError>> {
    thread::spawn(move || {
        let mut client = Client::from_stream(connection, LengthPrefix::u32_be())?.timeout(PATIENCE);
        client.process(|replies, packet| Ok(replies.send([name.as_bytes(), packet].concat())?))?;
        client.close()
    })
}

fn a_detached_connection_is_run_by_a_blocking_client_beside_the_sessions(on: On) {
    let path = std::env::temp_dir().join(format!("framewire-detached-{on:?}-{}.sock", std::process::id()));
    for bound in ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())] {
        let (served, detached) = serve(on, Limits::default(), &bound);
        let mut session = served.connect();
        session.assert_echo("of the server");
        let mut client = connect(&second(&served.running));
        let connection = detached.recv_timeout(PATIENCE).expect("it is taken");
        let shown = connection.connection();
        assert_eq!((shown.listener(), shown.local()), (Some(1), second(&served.running)));
        assert_eq!(served.running.session_count(), 2, "it counts");
        let thread = run(connection, "taken: ");
        assert_eq!(ask(&mut client, "who are you?"), "taken: who are you?");
        session.assert_echo("still of the server");
        client.close().expect("the other side ends as well");
        common::join(thread).expect("it ended in order");
        until("it has left the counts", || served.running.session_count() == 1);
        served.until_counted("it was no session", |metrics| {
            (metrics.accepted, metrics.opened, metrics.detached, metrics.refused_total()) == (2, 1, 1, 0)
        });
        drop(session);
        served.finish();
    }
}

fn a_detached_connection_outlives_its_server(on: On) {
    let (served, detached) = serve(on, Limits::default(), "127.0.0.1:0");
    let mut client = connect(&second(&served.running));
    let connection = detached.recv_timeout(PATIENCE).expect("it is taken");
    served.running.handle().shutdown(PATIENCE);
    let handle = served.running.handle();
    served.running.wait().expect("it waits for sessions only");
    assert_eq!(handle.session_count(), 1, "it counts all the same");
    let thread = run(connection, "");
    assert_eq!(ask(&mut client, "still there?"), "still there?");
    client.close().expect("the other side ends as well");
    common::join(thread).expect("it ended in order");
    assert_eq!(handle.session_count(), 0);
}

fn detached_connections_count_for_the_limits(on: On) {
    let (served, detached) =
        serve(on, Limits::default().connections(2).connections_per_peer(2), "127.0.0.1:0");
    let first = connect(&second(&served.running));
    let place = {
        let (socket, place) = detached.recv_timeout(PATIENCE).expect("it is taken").into_parts();
        let DetachedSocket::Tcp(mut stream) = socket else { panic!("accepted by TCP") };
        stream.write_all(b"\0\0\0\x02hi").expect("the peer reads");
        place
    };
    let mut first = first;
    assert_eq!(first.recv().expect("it was sent"), Some(&b"hi"[..]));
    let mut session = served.connect();
    session.assert_echo("the last place");
    // The socket is closed, and its place is not free yet.
    let mut waiting = served.connect();
    until("accepting has paused", || served.metrics().accept_pauses > 0);
    drop(place);
    waiting.assert_echo("the place of the detached one");
    drop((session, waiting));
    served.finish();
}

fn a_panic_in_detach_closes_that_connection_alone(on: On) {
    hush();
    let (served, detached) = serve(on, Limits::default(), "127.0.0.1:0");
    drop(detached);
    let mut session = served.connect();
    session.assert_echo("before");
    let addr = common::addr_of(&second(&served.running));
    let mut lost = common::Client::connect(&addr).expect("it listens");
    lost.assert_end();
    served.until_counted("the panic is counted", |metrics| metrics.panics == 1);
    session.assert_echo("after");
    served.connect().assert_echo("and others");
    drop(session);
    served.finish();
}

fn the_services_of_a_reactor_share_the_strategy_that_detaches(on: On) {
    let (strategy, detached) = taking(on);
    let service = || {
        let server = Server::bind(["127.0.0.1:0", "127.0.0.1:0"]).expect("free ports");
        server.framing(LengthPrefix::u32_be())
    };
    let reactor = Reactor::new(strategy).service(service(), echo());
    let reply = packet_fn(|session, _| Ok(session.send("the other service")?));
    let running = reactor.service(service(), reply).spawn().expect("it starts");
    let addrs = running.local_addrs();
    assert_eq!(ask(&mut connect(&addrs[2]), "who?"), "the other service");
    for taken in [1, 3] {
        let mut client = connect(&addrs[taken]);
        let thread = run(detached.recv_timeout(PATIENCE).expect("it is taken"), "taken: ");
        assert_eq!(ask(&mut client, "who?"), "taken: who?");
        client.close().expect("the other side ends as well");
        common::join(thread).expect("it ended in order");
    }
    running.stop(PATIENCE).expect("it stops");
}

/// A strategy that does not say what it does with a detached connection closes it.
#[test]
fn by_default_a_detached_connection_is_closed() {
    struct Careless;
    impl ForkingStrategy for Careless {
        fn place(&mut self, _: &NewConnection<'_>, _: ShardLoads<'_>) -> Placement {
            Placement::Detach
        }
    }
    let served = Served::echo(Server::bind("127.0.0.1:0").expect("a free port").strategy(Careless));
    let mut client = common::Client::connect(&served.addr()).expect("it listens");
    client.assert_end();
    served.until_counted("it was detached", |metrics| metrics.detached == 1);
    served.finish();
}
