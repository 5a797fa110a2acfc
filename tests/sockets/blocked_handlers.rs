//! Servers that are asked, stopped or dropped while a callback blocks one of their shards.

use std::{sync::mpsc::channel, thread, time::Duration};

use framewire::{
    ForkingStrategy, LengthPrefix, Limits, NewConnection, Placement, QueryError, SendError, ServeError,
    Server, ServerHandle, ShardId, ShardLoads, SingleReactor,
};

use crate::common::{
    Client, Journal, On, PATIENCE, Served, audit, echo, join, on_each_strategy,
    on_each_strategy_and_transport, until,
};
use crate::handlers::{Blocker, Gate, gate};

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
    let (gate, blocker) = gate();
    assert_eq!(served.running.execute(id.shard(), move |_| blocker.block()), Ok(()));
    gate.await_blocked();
    let (ran, runs) = channel();
    for number in 0..10 {
        let ran = ran.clone();
        let told = served.running.execute(id.shard(), move |_| ran.send(number).expect("the test waits"));
        assert_eq!(told, Ok(()));
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
    gate.open();
    client.assert_end();
    drop(client);
    served.await_stop();
    assert_eq!(runs.iter().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>(), "what was taken was done");
}

#[test]
fn serve_returns_when_the_last_handler_does() {
    for on in [On::WorkerPool, On::ThreadPerConnection] {
        let (gate, blocker) = gate();
        let server = on.bind().framing(LengthPrefix::u32_be());
        let (handle, addr) = (server.handle(), server.local_addrs()[0].socket_addr().expect("TCP"));
        let serving = thread::spawn(move || server.serve(blocker.handler()));
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

/// A server one of whose sessions blocks its shard.
struct Blocked {
    served: Served,
    gate: Gate,
    shard: ShardId,
    client: Client,
}

fn blocked(on: On, limits: Limits) -> Blocked {
    let (gate, blocker) = gate();
    let served = on.serve(limits, blocker.handler());
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
    blocker: Blocker,
    placement: Placement,
}

impl ForkingStrategy for BlockingPlace {
    fn workers(&self) -> usize {
        1
    }

    fn place(&mut self, _connection: &NewConnection<'_>, _loads: ShardLoads<'_>) -> Placement {
        self.blocker.block();
        self.placement
    }
}

#[test]
fn a_stop_returns_while_the_strategy_blocks_the_acceptor_and_names_its_shard() {
    for placement in [Placement::On(ShardId::ACCEPTOR), Placement::On(ShardId::new(1)), Placement::Fork] {
        let (gate, blocker) = gate();
        let server = Server::bind("127.0.0.1:0").expect("free").framing(LengthPrefix::u32_be());
        let running = server.strategy(BlockingPlace { blocker, placement }).spawn(echo()).expect("it starts");
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
    let is_open = gate.watch();
    let waiting = thread::spawn(move || (running.wait(), is_open()));
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
    let limits = Limits::default().mailbox_commands(10);
    let server = Server::bind("127.0.0.1:0").expect("free").framing(LengthPrefix::u32_be()).limits(limits);
    let running = server.strategy(SingleReactor::new()).spawn(echo()).expect("it starts");
    let (gate, blocker) = gate();
    running.execute(ShardId::ACCEPTOR, move |_| blocker.block()).expect("there is room");
    gate.await_blocked();
    let answers: Vec<_> = (0..20).map(|_| running.execute(ShardId::ACCEPTOR, |_| ())).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 10);
    assert!(answers.iter().all(|answer| matches!(answer, Ok(()) | Err(QueryError::Busy))));
    assert_eq!(running.close_peer(([127, 0, 0, 1], 1).into()), Err(QueryError::Busy));
    running.shutdown(PATIENCE);
    gate.open();
    running.wait().expect("the order to stop got through");
}
