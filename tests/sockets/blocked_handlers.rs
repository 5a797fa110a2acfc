//! Servers that are asked, stopped or dropped while a callback blocks one of their shards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use framewire::{
    ForkingStrategy, Handled, LengthPrefix, Limits, NewConnection, PacketHandler, Placement, QueryError,
    SendError, ServeError, Server, ServerHandle, Session, ShardId, ShardLoads, SingleReactor,
};

use crate::common::{
    Client, Journal, On, PATIENCE, Served, audit, echo, join, on_each_strategy,
    on_each_strategy_and_transport, until,
};

on_each_strategy_and_transport! {
    questions_to_a_shard_that_blocks_answer_busy_and_a_shutdown_gets_through
}

on_each_strategy! {
    a_stop_returns_while_a_handler_blocks_and_names_its_shard
    a_server_that_is_dropped_while_a_handler_blocks_leaves_its_thread_behind
    a_wait_waits_for_a_handler_that_blocks
}

fn questions_to_a_shard_that_blocks_answer_busy_and_a_shutdown_gets_through(on: On) {
    let served = on.echo(Limits::default().mailbox_commands(10));
    let (mut client, session) = served.connect_known();
    let id = session.id();
    let (begun, begins) = mpsc::channel();
    let (free, freed) = mpsc::channel::<()>();
    let told = served.running.execute(id.shard(), move |_| {
        begun.send(()).expect("the test waits");
        freed.recv_timeout(PATIENCE).expect("the test sets it free");
    });
    assert_eq!((told, begins.recv_timeout(PATIENCE)), (Ok(()), Ok(())));
    let (ran, runs) = mpsc::channel();
    for number in 0..10 {
        let ran = ran.clone();
        assert_eq!(
            served.running.execute(id.shard(), move |_| ran.send(number).expect("the test waits")),
            Ok(())
        );
    }
    drop(ran);
    assert_eq!(served.running.execute(id.shard(), |_| ()), Err(QueryError::Busy));
    assert_eq!(served.running.close(id), Err(QueryError::Busy));
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    assert_eq!(served.running.close_peer(nobody), Err(QueryError::Busy));
    assert_eq!(served.running.sessions(), Err(QueryError::Busy));
    assert!(matches!(session.send("no room"), Err(SendError::MailboxFull { .. })));
    // What it cannot be too busy for.
    served.running.shutdown(PATIENCE);
    free.send(()).expect("the shard waits");
    client.assert_end();
    drop(client);
    let Served { running, journal, .. } = served;
    let handle = running.handle();
    running.wait().expect("it stops in peace");
    assert_eq!(runs.iter().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>(), "what was taken was done");
    audit(&handle, &journal);
}

#[test]
fn serve_returns_when_the_last_handler_does() {
    for on in [On::WorkerPool, On::ThreadPerConnection] {
        let (gate, handler) = gate();
        let server = on.bind().framing(LengthPrefix::u32_be());
        let (handle, addr) = (server.handle(), server.local_addrs()[0].socket_addr().expect("TCP"));
        let serving = thread::spawn(move || server.serve(handler));
        let mut client = Client::connect(&addr.into()).expect("it listens since it is bound");
        client.send("block");
        gate.await_blocked();
        handle.shutdown(Duration::ZERO);
        until("the idle ones have ended", || handle.shards().len() == 1);
        assert!(!serving.is_finished(), "a handler still blocks");
        gate.open();
        join(serving).expect("it was asked to stop");
    }
}

/// Echoes; blocks on the packet that says so, until the test lets it go on.
#[derive(Clone)]
struct Blocking {
    blocked: Sender<()>,
    released: Arc<AtomicBool>,
}

/// The test's end of it. Whatever becomes of the test, nothing blocks for ever.
struct Gate {
    blocked: Receiver<()>,
    released: Arc<AtomicBool>,
}

fn gate() -> (Gate, Blocking) {
    let (told, blocked) = channel();
    let released = Arc::<AtomicBool>::default();
    (Gate { blocked, released: released.clone() }, Blocking { blocked: told, released })
}

impl Gate {
    fn await_blocked(&self) {
        self.blocked.recv_timeout(PATIENCE).expect("the handler blocks");
    }

    fn open(&self) {
        self.released.store(true, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

impl Blocking {
    fn block(&self) {
        let _ = self.blocked.send(());
        while !self.released.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl PacketHandler for Blocking {
    type State = ();

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        if packet == b"block" {
            self.block();
        }
        Ok(session.send(packet)?)
    }
}

/// A server one of whose sessions blocks its shard.
struct Blocked {
    served: Served,
    gate: Gate,
    shard: ShardId,
    client: Client,
}

fn blocked(on: On, limits: Limits) -> Blocked {
    let (gate, handler) = gate();
    let served = on.serve(limits, handler);
    let (mut client, session) = served.connect_known();
    client.send("block");
    gate.await_blocked();
    Blocked { served, gate, shard: session.id().shard(), client }
}

/// The shard that was left behind ends by itself.
fn assert_ends(handle: &ServerHandle, journal: &Journal) {
    until("the shard has ended", || handle.shards().is_empty());
    audit(handle, journal);
}

fn a_stop_returns_while_a_handler_blocks_and_names_its_shard(on: On) {
    let Blocked { served, gate, shard, client } = blocked(on, Limits::default());
    let Served { running, journal, .. } = served;
    let handle = running.handle();
    let stopped = join(thread::spawn(move || running.stop(Duration::from_millis(20))));
    assert!(!gate.is_open(), "the handler still blocks");
    assert!(handle.shards().contains(&shard));
    let Err(ServeError::StillRunning { shards, grace, .. }) = stopped else { panic!("{stopped:?}") };
    assert!(shards.contains(&shard), "{shards:?} do not include {shard}");
    assert_eq!(grace, Duration::from_millis(20));
    gate.open();
    assert_ends(&handle, &journal);
    drop(client);
}

/// Places everybody on its one worker, or on a thread of their own; blocks first.
struct BlockingPlace {
    handler: Blocking,
    placement: Placement,
}

impl ForkingStrategy for BlockingPlace {
    fn workers(&self) -> usize {
        1
    }

    fn place(&mut self, _connection: &NewConnection<'_>, _loads: ShardLoads<'_>) -> Placement {
        self.handler.block();
        self.placement
    }
}

#[test]
fn a_stop_returns_while_the_strategy_blocks_the_acceptor_and_names_its_shard() {
    for placement in [Placement::On(ShardId::ACCEPTOR), Placement::On(ShardId::new(1)), Placement::Fork] {
        let (gate, handler) = gate();
        let server = Server::bind("127.0.0.1:0").expect("free").framing(LengthPrefix::u32_be());
        let echo = echo();
        let running = server.strategy(BlockingPlace { handler, placement }).spawn(echo).expect("it starts");
        let addr = running.local_addr().expect("TCP").into();
        let _client = Client::connect(&addr).expect("it listens");
        gate.await_blocked();
        let handle = running.handle();
        let stopped = join(thread::spawn(move || running.stop(Duration::from_millis(20))));
        assert!(!gate.is_open(), "the strategy still blocks");
        let Err(ServeError::StillRunning { shards, .. }) = stopped else { panic!("{stopped:?}") };
        assert!(shards.contains(&ShardId::ACCEPTOR), "{shards:?}");
        gate.open();
        until("the shards have ended", || handle.shards().is_empty());
        assert_eq!(handle.session_count(), 0, "the one that was placed too late has been let go");
    }
}

fn a_server_that_is_dropped_while_a_handler_blocks_leaves_its_thread_behind(on: On) {
    let limits = Limits::default().close_timeout(Duration::from_millis(20));
    let Blocked { served, gate, shard, client } = blocked(on, limits);
    let Served { running, journal, .. } = served;
    let handle = running.handle();
    join(thread::spawn(move || drop(running)));
    assert!(!gate.is_open(), "the handler still blocks");
    assert!(handle.shards().contains(&shard));
    gate.open();
    assert_ends(&handle, &journal);
    drop(client);
}

fn a_wait_waits_for_a_handler_that_blocks(on: On) {
    let Blocked { served, gate, shard, client } = blocked(on, Limits::default());
    let Served { running, journal, .. } = served;
    let handle = running.handle();
    handle.shutdown(Duration::ZERO);
    let released = gate.released.clone();
    let waiting = thread::spawn(move || (running.wait(), released.load(Ordering::Acquire)));
    until("the others have ended", || handle.shards() == [shard]);
    gate.open();
    let (waited, released) = join(waiting);
    waited.expect("it was asked to stop");
    assert!(released, "no sooner than the handler");
    assert_ends(&handle, &journal);
    drop(client);
}

#[test]
fn a_shard_that_is_busy_refuses_jobs_and_still_stops() {
    let (hold, held) = channel::<()>();
    let limits = Limits::default().mailbox_commands(10);
    let server = Server::bind("127.0.0.1:0").expect("free").framing(LengthPrefix::u32_be()).limits(limits);
    let echo = echo();
    let running = server.strategy(SingleReactor::new()).spawn(echo).expect("it starts");
    let (started, waits) = channel();
    let block = move |_: &mut framewire::ShardContext<'_>| {
        let _ = started.send(());
        let _ = held.recv();
    };
    running.execute(ShardId::ACCEPTOR, block).expect("there is room");
    waits.recv_timeout(PATIENCE).expect("the shard is blocked");
    let answers: Vec<_> = (0..20).map(|_| running.execute(ShardId::ACCEPTOR, |_| ())).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 10);
    assert!(answers.iter().all(|answer| matches!(answer, Ok(()) | Err(QueryError::Busy))));
    assert_eq!(running.close_peer(([127, 0, 0, 1], 1).into()), Err(QueryError::Busy));
    running.shutdown(PATIENCE);
    drop(hold);
    running.wait().expect("the order to stop got through");
}
