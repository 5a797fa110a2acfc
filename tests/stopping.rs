//! A server that is asked things before it serves, while it is busy, or by its own handler; and starts that are refused.

mod common;

use std::{sync::mpsc, thread};

use common::{Client, PATIENCE};
use framewire::{
    ForkingStrategy, LengthPrefix, Limits, QueryError, SendError, Separator, Server, ShardId, SingleReactor,
    ThreadPerConnection, WorkerPool, packet_fn,
};

#[test]
fn a_shard_that_is_busy_refuses_jobs_and_still_stops() {
    let (hold, held) = mpsc::channel::<()>();
    let limits = Limits::default().mailbox_commands(10);
    let server = Server::bind("127.0.0.1:0").expect("free").framing(LengthPrefix::u32_be()).limits(limits);
    let echo = packet_fn(|session, packet| session.send(packet));
    let running = server.strategy(SingleReactor::new()).spawn(echo).expect("it starts");
    let (started, waits) = mpsc::channel();
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

#[test]
fn a_server_that_was_stopped_before_it_served_serves_nobody() {
    let server = Server::bind("127.0.0.1:0").expect("free").framing(LengthPrefix::u32_be());
    let handle = server.handle();
    handle.abort();
    handle.shutdown(PATIENCE);
    server.serve(packet_fn(|session, packet| session.send(packet))).expect("it stops at once");
    assert_eq!(handle.shards(), []);
}

#[test]
fn a_handler_stops_its_own_server() {
    let server = Server::bind("127.0.0.1:0").expect("free").framing(Separator::lines());
    let addr = server.local_addrs()[0].socket_addr().expect("TCP").into();
    let handle = server.handle();
    let serving = thread::spawn(move || {
        server.serve(packet_fn(move |session, packet| {
            session.send(packet)?;
            if packet == b"stop" {
                handle.shutdown(PATIENCE);
            }
            Ok::<_, SendError>(())
        }))
    });
    let mut client = Client::connect(&addr).expect("it listens since it is bound");
    client.write(b"stop\n");
    assert_eq!(client.read(5), b"stop\n");
    client.assert_end();
    drop(client);
    assert!(matches!(serving.join(), Ok(Ok(()))));
}

#[test]
fn a_strategy_that_refuses_everybody_is_no_strategy() {
    fn refused(strategy: impl ForkingStrategy + 'static) -> String {
        let server = Server::bind("127.0.0.1:0").expect("free").framing(LengthPrefix::u32_be());
        let spawned = server.strategy(strategy).spawn(packet_fn(|session, packet| session.send(packet)));
        spawned.map(drop).expect_err("it can not work").to_string()
    }
    assert!(refused(WorkerPool::new(0)).starts_with("strategy: a WorkerPool of 0 workers"));
    assert!(refused(WorkerPool::new(1).max_sessions(0)).starts_with("strategy: WorkerPool::max_sessions(0)"));
    assert!(
        refused(SingleReactor::new().max_sessions(0)).starts_with("strategy: SingleReactor::max_sessions(0)")
    );
    assert!(refused(ThreadPerConnection::max(0)).starts_with("strategy: ThreadPerConnection::max(0)"));
}
