//! Who makes the handlers, on which thread, and what becomes of a server whose factory panics.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use framewire::{
    Addr, ForkingStrategy, Handled, LengthPrefix, Limits, NewConnection, PacketHandler, Placement,
    RunningServer, ServeError, Server, ServerHandle, Session, ShardContext, ShardId, ShardLoads, per_shard,
};
use socket2::SockAddr;

use crate::common::{
    Client, ON_PURPOSE, On, PATIENCE, failure, hush, on_each_strategy_and_transport, until, until_counted,
};

on_each_strategy_and_transport! {
    a_factory_makes_a_handler_on_each_shard_that_never_leaves_it
    a_factory_that_panics_is_reported_and_everything_stops
    a_handler_that_panics_in_on_start_is_reported_and_everything_stops
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
    let one = on.strategy() == On::SingleReactor;
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

/// Panics in `on_start` while it is armed.
#[derive(Clone)]
struct BadStart(Arc<AtomicBool>);

impl PacketHandler for BadStart {
    type State = ();

    fn on_start(&mut self, _shard: &mut ShardContext<'_>) {
        assert!(!self.0.swap(false, Ordering::Relaxed), "{ON_PURPOSE}: at the start");
    }

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        Ok(session.send(packet)?)
    }
}

fn a_handler_that_panics_in_on_start_is_reported_and_everything_stops(on: On) {
    hush();
    let server = on.bind().framing(LengthPrefix::u32_be());
    let running = server.spawn(BadStart(Arc::new(AtomicBool::new(true)))).expect("the threads start");
    let handle = running.handle();
    let error = running.wait().expect_err("no shard can do without its handler");
    assert!(matches!(error, ServeError::OnStart { .. }), "{error}");
    assert_eq!(error.to_string(), format!("on_start of a handler panicked: {ON_PURPOSE}: at the start"));
    assert!(handle.shards().is_empty());
    assert_eq!(handle.metrics().panics, 1);
}

#[test]
fn a_handler_that_panics_in_on_start_for_one_connection_costs_that_one() {
    hush();
    let armed = Arc::<AtomicBool>::default();
    let served = On::ThreadPerConnection.serve(Limits::default(), BadStart(armed.clone()));
    let mut bystander = served.connect();
    bystander.assert_echo("well");
    armed.store(true, Ordering::Relaxed);
    if let Ok(mut client) = Client::connect(&served.addr()) {
        assert_eq!(client.read_to_any_end().0, b"");
    }
    until("it is forgotten", || served.running.session_count() == 1);
    bystander.assert_echo("still served");
    served.connect().assert_echo("and so are new ones");
    until("it is counted", || served.metrics().panics == 1);
    drop(bystander);
    served.finish();
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
