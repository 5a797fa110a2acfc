//! Destructors of the user's that panic where the server itself drops what it was given: at a shutdown, at the end of a
//! shard, at a start that fails.

use std::{
    panic::panic_any,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::BytesMut;
use framewire::{
    AcceptMode, CloseKind, Decoded, EncodeError, ForkingStrategy, FrameError, Framing, Handled, LengthPrefix,
    NewConnection, PacketHandler, Placement, ServeError, Server, Session, ShardLoads, SingleReactor, Then,
    ThreadPerConnection, WorkerPool, per_shard,
};

use crate::common::{
    Client, Journal, ON_PURPOSE, On, PATIENCE, Served, Watched, audit, hush, on_each_strategy, patient, until,
};

on_each_strategy! {
    a_handler_that_panics_when_dropped_harms_no_session_at_shutdown
    an_idle_shard_whose_handler_panics_when_dropped_cuts_nobody
    a_server_of_which_everything_panics_when_dropped_ends_in_peace
    an_aborted_server_of_which_everything_panics_when_dropped_ends_in_peace
    a_factory_that_panics_when_dropped_harms_nobody
    a_destructor_whose_panic_panics_when_dropped_harms_nobody
    a_start_that_fails_says_why_although_everything_panics_when_dropped
    a_factory_that_fails_is_reported_although_everything_panics_when_dropped
}

/// Panics when it is dropped, and counts that.
#[derive(Clone, Default)]
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("{ON_PURPOSE}: dropped");
    }
}

/// The same, with a panic that does so in its turn.
struct Chain;

impl Drop for Chain {
    fn drop(&mut self) {
        panic_any(Chain);
    }
}

/// Echoes, floods when it is told to, says farewell. `B` goes down with it.
#[derive(Clone)]
struct Echo<B>(B);

const FLOOD: usize = 1_000_000;

impl<B> PacketHandler for Echo<B> {
    type State = ();

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        session.send(packet)?;
        if packet == b"flood" {
            session.send(vec![3; FLOOD])?;
        }
        Ok(())
    }

    fn on_shutdown(&mut self, session: &mut Session<'_>, (): &mut ()) -> Handled<Then> {
        session.send("farewell")?;
        Ok(Then::Close)
    }
}

fn a_handler_that_panics_when_dropped_harms_no_session_at_shutdown(on: On) {
    hush();
    let bomb = Bomb::default();
    let dropped = bomb.0.clone();
    let served = on.serve(patient(), Echo(bomb));
    let mut clients: Vec<Client> = (0..5).map(|_| served.connect()).collect();
    for client in &mut clients {
        client.assert_echo("well");
    }
    served.running.shutdown(PATIENCE);
    for client in &mut clients {
        assert_eq!(client.recv_text(), "farewell");
        client.assert_end();
    }
    drop(clients);
    until("all are told", || served.journal.ended_by(CloseKind::Shutdown) == 5);
    let handle = served.running.handle();
    served.await_stop();
    assert!(dropped.load(Ordering::Relaxed) > 0);
    assert!(handle.metrics().panics > 0, "they are counted: {:?}", handle.metrics());
}

fn an_idle_shard_whose_handler_panics_when_dropped_cuts_nobody(on: On) {
    hush();
    let server = on.bind().framing(LengthPrefix::u32_be()).limits(patient()).send_buffer(16 * 1024);
    let served = Served::start(server, Echo(Bomb::default()));
    let (mut client, session) = served.known(Served::connect_narrow);
    client.send("flood");
    assert_eq!(client.recv_text(), "flood");
    served.running.shutdown(PATIENCE);
    until("the idle ones have ended", || served.running.shards() == [session.id().shard()]);
    assert_eq!(client.recv(), [3; FLOOD]);
    assert_eq!(client.recv_text(), "farewell");
    client.assert_end();
    drop(client);
    served.await_stop();
}

#[test]
fn a_connection_whose_handler_panics_when_dropped_ends_as_any_other() {
    hush();
    let served = On::ThreadPerConnection.serve(patient(), Echo(Bomb::default()));
    let mut bystander = served.connect();
    bystander.assert_echo("well");
    let mut client = served.connect();
    client.assert_echo("well");
    client.end();
    client.assert_end();
    drop(client);
    until("its shard has ended", || served.running.shards().len() == 2);
    assert_eq!(served.metrics().panics, 1);
    assert_eq!(served.journal.ended_by(CloseKind::PeerClosed), 1);
    bystander.assert_echo("still served");
    served.connect().assert_echo("and so are new ones");
    drop(bystander);
    served.finish();
}

/// The strategy of the scenario.
struct Explosive {
    inner: Box<dyn ForkingStrategy>,
    _bomb: Bomb,
}

impl Explosive {
    fn new(on: On, bomb: &Bomb) -> Self {
        let inner: Box<dyn ForkingStrategy> = match on.strategy() {
            On::WorkerPool => Box::new(WorkerPool::new(2)),
            On::ThreadPerConnection => Box::new(ThreadPerConnection::max(100)),
            _ => Box::new(SingleReactor::new()),
        };
        Self { inner, _bomb: bomb.clone() }
    }
}

impl ForkingStrategy for Explosive {
    fn workers(&self) -> usize {
        self.inner.workers()
    }

    fn accepting(&self) -> AcceptMode {
        self.inner.accepting()
    }

    fn place(&mut self, connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
        self.inner.place(connection, loads)
    }

    fn descriptors_per_session(&self) -> usize {
        self.inner.descriptors_per_session()
    }

    fn on_stop(&mut self) {
        panic!("{ON_PURPOSE}: stopped");
    }
}

/// Length prefixes; each clone panics when it is dropped.
#[derive(Clone)]
struct Fragile {
    inner: LengthPrefix,
    _bomb: Bomb,
}

impl Framing for Fragile {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        self.inner.decode(buf)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        self.inner.encode(payload, out)
    }
}

/// A server whose framings and strategy panic when they are dropped.
fn explosive(on: On, bomb: &Bomb) -> Server<Fragile> {
    let framing = Fragile { inner: LengthPrefix::u32_be(), _bomb: bomb.clone() };
    let server = on.also(on.bind().framing(framing.clone()), framing);
    server.strategy(Explosive::new(on, bomb)).limits(patient())
}

/// The bomb that is not to go off in the test.
fn defused() -> std::mem::ManuallyDrop<Bomb> {
    hush();
    std::mem::ManuallyDrop::new(Bomb::default())
}

fn a_server_of_which_everything_panics_when_dropped_ends_in_peace(on: On) {
    let bomb = defused();
    let served = Served::start(explosive(on, &bomb), Echo(Bomb::clone(&bomb)));
    let (mut early, session) = served.connect_known();
    early.assert_echo("well");
    early.end();
    early.assert_end();
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::PeerClosed);
    let mut clients: Vec<Client> = (0..5).map(|_| served.connect()).collect();
    for client in &mut clients {
        client.assert_echo("well");
    }
    served.running.shutdown(PATIENCE);
    for client in &mut clients {
        assert_eq!(client.recv_text(), "farewell");
        client.assert_end();
    }
    drop(clients);
    served.await_stop();
    assert_eq!(Arc::strong_count(&bomb.0), 1, "all of it was dropped");
}

fn an_aborted_server_of_which_everything_panics_when_dropped_ends_in_peace(on: On) {
    let bomb = defused();
    let served = Served::start(explosive(on, &bomb), Echo(Bomb::clone(&bomb)));
    let mut clients: Vec<Client> = (0..5).map(|_| served.connect()).collect();
    for client in &mut clients {
        client.assert_echo("well");
    }
    served.running.abort();
    for client in &mut clients {
        client.read_to_any_end();
    }
    drop(clients);
    served.await_stop();
}

fn a_factory_that_panics_when_dropped_harms_nobody(on: On) {
    let bomb = defused();
    let (journal, inner) = (Journal::default(), Bomb::clone(&bomb));
    let known = journal.clone();
    let make = move |_| {
        let _captured = &inner;
        Watched::new(Echo(()), &known)
    };
    let running = on.bind().framing(LengthPrefix::u32_be()).spawn(per_shard(make)).expect("it starts");
    let mut client = Client::connect(&running.local_addr().expect("TCP").into()).expect("it listens");
    client.assert_echo("well");
    let handle = running.handle();
    running.shutdown(PATIENCE);
    assert_eq!(client.recv_text(), "farewell");
    client.assert_end();
    drop(client);
    running.wait().expect("it stops in peace");
    audit(&handle, &journal);
    assert_eq!(bomb.0.load(Ordering::Relaxed), 1, "the factory was dropped, once");
}

fn a_destructor_whose_panic_panics_when_dropped_harms_nobody(on: On) {
    let journal = Journal::default();
    let known = journal.clone();
    let server = on.bind().framing(LengthPrefix::u32_be());
    let running = server.spawn(per_shard(move |_| Watched::new(Echo(Chain), &known))).expect("it starts");
    let mut client = Client::connect(&running.local_addr().expect("TCP").into()).expect("it listens");
    client.assert_echo("well");
    let handle = running.handle();
    running.shutdown(PATIENCE);
    assert_eq!(client.recv_text(), "farewell");
    client.assert_end();
    drop(client);
    running.wait().expect("it stops in peace");
    audit(&handle, &journal);
}

fn a_start_that_fails_says_why_although_everything_panics_when_dropped(on: On) {
    let bomb = defused();
    let spawned = explosive(on, &bomb).backlog(0).spawn(Echo(Bomb::clone(&bomb)));
    assert!(matches!(spawned, Err(ServeError::Config { option: "backlog", .. })), "{spawned:?}");
    let served = explosive(on, &bomb).backlog(0).serve(Echo(Bomb::clone(&bomb)));
    assert!(matches!(served, Err(ServeError::Config { option: "backlog", .. })), "{served:?}");
    assert_eq!(bomb.0.load(Ordering::Relaxed), 8, "each was dropped, once");
}

fn a_factory_that_fails_is_reported_although_everything_panics_when_dropped(on: On) {
    let bomb = defused();
    let inner = Bomb::clone(&bomb);
    let make = move |_| -> Echo<()> {
        let _captured = &inner;
        panic!("{ON_PURPOSE}: no handler");
    };
    let served = explosive(on, &bomb).serve(per_shard(make));
    assert!(
        matches!(&served, Err(ServeError::Factory { message, .. }) if message.contains("no handler")),
        "{served:?}"
    );
}
