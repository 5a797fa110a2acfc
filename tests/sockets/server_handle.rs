//! A running server from the outside: lists, closing, jobs, counters.

use std::{
    sync::{Arc, Mutex, OnceLock, mpsc},
    thread,
};

use framewire::{
    Addr, CloseKind, Limits, QueryError, SendError, ServerHandle, Session, SessionStats, packet_fn,
};

use crate::common::{
    On, PATIENCE, frame, instances, on_each_strategy, on_each_strategy_and_transport, until,
};

on_each_strategy_and_transport! {
    a_session_is_closed_by_its_id
    a_job_runs_on_its_shard_and_reaches_its_sessions
    a_question_that_would_wait_for_itself_is_refused
    a_stopped_server_answers_that_it_has_stopped
    counters_never_fall_while_sessions_come_and_go
}

on_each_strategy! {
    a_session_is_closed_by_its_peer_address
}

// It counts the bytes on the wire.
instances! { sessions_are_listed_with_what_went_through_them:
    on_a_single_reactor = SingleReactor
    on_a_worker_pool = WorkerPool
    on_a_thread_per_connection = ThreadPerConnection
    on_a_unix_socket = UnixSocket
}

fn sessions_are_listed_with_what_went_through_them(on: On) {
    let served = on.echo(Limits::default());
    let mut quiet = served.connect();
    let (mut client, session) = served.connect_known();
    for _ in 0..3 {
        client.assert_echo("twelve bytes");
    }
    quiet.assert_echo("");
    let sessions = served.running.sessions().expect("the shards answer");
    assert_eq!(sessions.len(), 2);
    let info = sessions.iter().find(|info| info.id == session.id()).expect("it is open");
    let SessionStats { bytes_in, bytes_out, packets_in, packets_out, queued, .. } = info.stats;
    assert_eq!((bytes_in, bytes_out, packets_in, packets_out, queued), (48, 48, 3, 3, 0));
    assert_eq!(&info.local, &served.running.local_addrs()[0]);
    match &info.peer {
        Addr::Ip(addr) => {
            assert_eq!(client.socket.local_addr().expect("bound").as_socket(), Some(*addr));
        }
        peer => assert_eq!(*peer, Addr::Unix(None)),
    }
    served.until_counted("all of it is counted, by every shard", |metrics| {
        (metrics.bytes_in, metrics.bytes_out) == (52, 52)
            && (metrics.packets_in, metrics.packets_out) == (4, 4)
            && (metrics.sessions, metrics.opened, metrics.accepted) == (2, 2, 2)
    });
    assert_eq!(served.running.session_count(), 2);
    drop((client, quiet));
    served.finish();
}

fn a_session_is_closed_by_its_id(on: On) {
    let served = on.echo(Limits::default());
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    served.running.close(session.id()).expect("its shard is there");
    client.assert_end();
    drop(client);
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Local);
    // Of one that is gone: nothing, whether its shard is still there or not.
    let again = served.running.close(session.id());
    assert!(matches!(again, Ok(()) | Err(QueryError::NotRunning)), "{again:?}");
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

fn a_session_is_closed_by_its_peer_address(on: On) {
    let served = on.echo(Limits::default());
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    let peer = client.socket.local_addr().expect("bound").as_socket().expect("TCP");
    served.running.close_peer(peer).expect("no shard is busy");
    client.assert_end();
    drop(client);
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Local);
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

fn a_job_runs_on_its_shard_and_reaches_its_sessions(on: On) {
    let served = on.echo(Limits::default());
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    let (id, (answer, answers)) = (session.id(), mpsc::channel());
    let told = served.running.execute(id.shard(), move |shard| {
        assert_eq!(shard.id(), id.shard());
        let listed = shard.sessions().iter().any(|info| info.id == id);
        let sent = shard.send(id, "from a job");
        let handle = shard.handle(id).expect("it is open");
        let by_handle = handle.send("by a handle from a job");
        answer.send((listed, sent, by_handle)).expect("the test waits");
    });
    assert_eq!(told, Ok(()));
    assert_eq!(answers.recv_timeout(PATIENCE), Ok((true, Ok(()), Ok(()))));
    assert_eq!(client.recv_text(), "from a job");
    assert_eq!(client.recv_text(), "by a handle from a job");
    let (answer, answers) = mpsc::channel();
    let told = served.running.execute(id.shard(), move |shard| {
        shard.close(id);
        answer.send((shard.send(id, "too late"), shard.handle(id).is_some())).expect("the test waits");
    });
    assert_eq!(told, Ok(()));
    assert_eq!(answers.recv_timeout(PATIENCE), Ok((Err(SendError::Closed), false)));
    client.assert_end();
    drop(client);
    served.journal.await_ending(id);
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

fn a_question_that_would_wait_for_itself_is_refused(on: On) {
    let server: Arc<OnceLock<ServerHandle>> = Arc::default();
    let known = server.clone();
    let handler = packet_fn(move |session: &mut Session<'_>, _packet: &[u8]| {
        let server = known.get().expect("set before the first client");
        let answer = server.sessions().map(|sessions| sessions.len());
        // What waits for nobody is answered as always.
        let (count, opened) = (server.session_count(), server.metrics().opened);
        assert!(count >= 1 && opened <= count as u64);
        Ok(session.send(format!("{answer:?}"))?)
    });
    let served = on.serve(Limits::default(), handler);
    server.set(served.running.handle()).expect("set once");
    let mut client = served.connect();
    client.send("how many?");
    assert_eq!(client.recv_text(), format!("{:?}", Err::<usize, _>(QueryError::WouldDeadlock)));
    drop(client);
    served.finish();
}

fn a_stopped_server_answers_that_it_has_stopped(on: On) {
    let served = on.echo(Limits::default());
    let (client, session) = served.connect_known();
    let handle = served.running.handle();
    drop(client);
    served.finish();
    assert_eq!(handle.execute(session.id().shard(), |_| ()), Err(QueryError::NotRunning));
    assert!(handle.shards().is_empty());
    assert_eq!(handle.sessions(), Ok(Vec::new()));
    assert_eq!(handle.metrics().opened, 1);
    assert_eq!(session.send("too late"), Err(SendError::Closed));
    assert_eq!(session.abort(), Err(SendError::Closed));
}

fn counters_never_fall_while_sessions_come_and_go(on: On) {
    const SESSIONS: u64 = 200;
    let served = on.echo(Limits::default());
    let handle = served.running.handle();
    let watching = thread::spawn(move || {
        let mut before = handle.metrics();
        while before.closed_total() < SESSIONS {
            let now = handle.metrics();
            assert!(now.bytes_in >= before.bytes_in, "{before:?}, then {now:?}");
            assert!(now.opened >= before.opened, "{before:?}, then {now:?}");
            assert!(now.closed_total() >= before.closed_total(), "{before:?}, then {now:?}");
            before = now;
        }
    });
    for _ in 0..SESSIONS {
        served.connect().assert_echo("hello and goodbye");
    }
    watching.join().expect("no counter fell");
    served.finish();
}

#[test]
fn a_job_for_a_shard_that_never_was_is_refused() {
    let served = On::WorkerPool.echo(Limits::default());
    let shards = served.running.shards();
    assert_eq!(shards.iter().map(|shard| shard.index()).collect::<Vec<_>>(), [0, 1, 2]);
    let elsewhere = On::ThreadPerConnection.echo(Limits::default());
    let (client, session) = elsewhere.connect_known();
    let (other, second) = elsewhere.connect_known();
    let (third, far) = elsewhere.connect_known();
    assert_eq!(served.running.execute(far.id().shard(), |_| ()), Err(QueryError::NotRunning));
    assert!(session.id().shard() < second.id().shard() && second.id().shard() < far.id().shard());
    drop((client, other, third));
    elsewhere.finish();
    served.finish();
}

#[test]
fn a_session_knows_its_numbers_within_a_callback() {
    let seen: Arc<Mutex<Vec<(u64, u64, usize)>>> = Arc::default();
    let noted = seen.clone();
    let handler = packet_fn(move |session: &mut Session<'_>, packet: &[u8]| {
        session.send(packet)?;
        let stats = session.stats();
        assert!(stats.opened_at.elapsed() < PATIENCE);
        noted.lock().expect("nobody panics").push((stats.packets_in, stats.bytes_in, stats.queued));
        Ok(())
    });
    let served = On::SingleReactor.serve(Limits::default(), handler);
    let mut client = served.connect();
    client.write(&[frame(b"one"), frame(b"three")].concat());
    assert_eq!((client.recv(), client.recv()), (b"one".to_vec(), b"three".to_vec()));
    assert_eq!(*seen.lock().expect("nobody panics"), [(1, 16, 7), (2, 16, 16)]);
    drop(client);
    until("it is gone", || served.running.session_count() == 0);
    served.finish();
}
