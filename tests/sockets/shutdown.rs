//! How a server ends: in full where the peers let it, in time where they do not.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc::channel},
    thread,
    time::Duration,
};

use framewire::{
    CloseKind, Handled, LengthPrefix, Separator, Server, ServerHandle, Session, ShardContext, SingleReactor,
    Then, packet_fn,
};

use crate::common::{
    Client, On, PATIENCE, Served, audit, echo, frame, join, on_each_strategy, on_each_strategy_and_transport,
    on_each_strategy_uncompressed, on_each_strategy_without_layers, own_address, patient, until,
};
use crate::handlers::Scripted;

on_each_strategy_and_transport! {
    a_shutdown_delivers_full_outboxes_to_slow_readers
    a_shutdown_hands_out_what_waits_behind_a_full_outbox_and_reads_on_to_the_peers_end
    a_shutdown_says_farewell_to_every_session
    a_shutdown_can_be_asked_for_in_a_callback
    a_shutdown_can_be_asked_for_twice_and_by_many_threads
    a_running_server_that_is_dropped_stops_and_joins
    serve_returns_when_the_server_was_stopped_before
    a_handler_that_was_given_the_server_can_stop_it
}

on_each_strategy_uncompressed! {
    a_shutdown_cuts_a_dead_reader_at_its_deadline
    an_abort_of_the_server_resets_every_connection
}

on_each_strategy! {
    the_earliest_end_counts_when_a_shutdown_is_asked_for_again
    a_server_that_was_stopped_before_it_started_stops_as_it_was_told
}

on_each_strategy_without_layers! {
    a_stopped_server_gives_its_address_back
}

/// An echo whose address no other server takes once it has stopped: it is for this process alone, and within it for one test at a
/// time, which holds the guard.
fn echo_apart(on: On) -> (Served, MutexGuard<'static, ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = if on == On::UnixSocket { on.bind() } else { on.bind_at(own_address()) };
    (Served::echo(server), guard)
}

const FLOOD: usize = 1_000_000;

/// Answers with far more than a pair of kernel buffers takes.
fn flood(session: &mut Session<'_>, packet: &[u8]) -> Handled {
    session.send(packet)?;
    if packet == b"flood" {
        session.send(vec![3; FLOOD])?;
    }
    Ok(())
}

fn serve_floods(on: On) -> Served {
    let server = on.bind().framing(LengthPrefix::u32_be()).limits(patient()).send_buffer(16 * 1024);
    Served::start(server, packet_fn(flood))
}

fn flooded(served: &Served) -> Client {
    let mut client = served.connect_narrow();
    client.send("flood");
    assert_eq!(client.recv_text(), "flood");
    client
}

fn a_shutdown_delivers_full_outboxes_to_slow_readers(on: On) {
    let served = serve_floods(on);
    let mut clients: Vec<Client> = (0..5).map(|_| flooded(&served)).collect();
    served.running.shutdown(PATIENCE);
    for client in &mut clients {
        let packet = client.recv();
        assert!(packet.len() == FLOOD && packet.iter().all(|byte| *byte == 3));
        client.assert_end();
    }
    drop(clients);
    served.finish();
}

fn a_shutdown_hands_out_what_waits_behind_a_full_outbox_and_reads_on_to_the_peers_end(on: On) {
    let served = serve_floods(on);
    let (mut client, session) = served.known(Served::connect_narrow);
    client.write(&["flood", "first", "second"].map(|packet| frame(packet.as_bytes())).concat());
    assert_eq!(client.recv_text(), "flood");
    served.running.shutdown(4 * PATIENCE);
    // Obeyed behind the order to stop.
    let (tell, told) = channel();
    let tell = move |_: &mut ShardContext<'_>| tell.send(()).expect("the test waits");
    served.running.execute(session.id().shard(), tell).expect("there is room");
    told.recv_timeout(PATIENCE).expect("the shard is at work");
    client.send("too late");
    assert_eq!(client.recv().len(), FLOOD);
    assert_eq!([client.recv_text(), client.recv_text()], ["first", "second"]);
    client.assert_end();
    drop(client);
    served.finish();
}

fn a_shutdown_cuts_a_dead_reader_at_its_deadline(on: On) {
    let served = serve_floods(on);
    let (mut dead, session) = served.known(flooded);
    let mut idle = served.connect();
    idle.assert_echo("at work");
    served.running.shutdown(Duration::from_millis(50));
    // It reads nothing until it is gone: it is the deadline that ends it.
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Shutdown);
    assert!(dead.read_to_any_end().0.len() < FLOOD);
    idle.read_to_any_end();
    served.await_stop();
}

fn the_earliest_end_counts_when_a_shutdown_is_asked_for_again(on: On) {
    for (first, second) in
        [(Duration::from_millis(20), 4 * PATIENCE), (4 * PATIENCE, Duration::from_millis(20))]
    {
        let served = serve_floods(on);
        let dead = flooded(&served);
        served.running.shutdown(first);
        served.running.shutdown(second);
        until("it was cut", || served.journal.ended_by(CloseKind::Shutdown) == 1);
        drop(dead);
        served.finish();
    }
}

fn a_shutdown_says_farewell_to_every_session(on: On) {
    let handler = Scripted::<()>::echo().on_shutdown(|session, ()| {
        session.send("farewell")?;
        Ok(Then::Close)
    });
    let served = on.serve(patient(), handler);
    let mut clients: Vec<Client> = (0..20).map(|_| served.connect()).collect();
    served.await_open();
    // One of them is in the middle of a frame.
    clients[7].write(&[0, 0]);
    served.running.shutdown(PATIENCE);
    for client in &mut clients {
        assert_eq!(client.recv_text(), "farewell");
        client.assert_end();
    }
    drop(clients);
    until("all have ended", || served.journal.ended_by(CloseKind::Shutdown) == 20);
    served.finish();
}

fn a_shutdown_can_be_asked_for_in_a_callback(on: On) {
    let server: Arc<OnceLock<ServerHandle>> = Arc::default();
    let known = server.clone();
    let handler = packet_fn(move |session: &mut Session<'_>, packet: &[u8]| {
        session.send(packet)?;
        if packet == b"shut down" {
            known.get().expect("set before the first client").shutdown(PATIENCE);
            session.send("as you wish")?;
        }
        Ok(())
    });
    let served = on.serve(patient(), handler);
    server.set(served.running.handle()).expect("set once");
    let (mut bystander, mut client) = (served.connect(), served.connect());
    bystander.assert_echo("at work");
    client.assert_echo("shut down");
    assert_eq!(client.recv_text(), "as you wish");
    client.assert_end();
    bystander.assert_end();
    drop((bystander, client));
    served.await_stop();
}

fn a_shutdown_can_be_asked_for_twice_and_by_many_threads(on: On) {
    let served = on.echo(patient());
    let mut client = served.connect();
    client.assert_echo("at work");
    let askers: Vec<_> = (0..4)
        .map(|_| {
            let handle = served.running.handle();
            thread::spawn(move || (0..100).for_each(|_| handle.shutdown(PATIENCE)))
        })
        .collect();
    client.assert_end();
    for asker in askers {
        asker.join().expect("asking harms nobody");
    }
    drop(client);
    let handle = served.running.handle();
    served.await_stop();
    // And once more, of a server that is no more.
    handle.shutdown(PATIENCE);
    handle.abort();
}

fn a_running_server_that_is_dropped_stops_and_joins(on: On) {
    let (served, _alone) = echo_apart(on);
    let addr = served.addr();
    let mut client = served.connect();
    client.assert_echo("at work");
    let reading = thread::spawn(move || client.assert_end());
    let Served { running, journal, .. } = served;
    let handle = running.handle();
    drop(running);
    audit(&handle, &journal);
    reading.join().expect("the client was told");
    assert!(Client::connect(&addr).is_err(), "nobody listens any more");
}

fn an_abort_of_the_server_resets_every_connection(on: On) {
    let served = serve_floods(on);
    let mut flooded = flooded(&served);
    let mut idle = served.connect();
    idle.assert_echo("at work");
    served.running.abort();
    assert_eq!(idle.read_to_any_end(), (Vec::new(), true));
    assert!(flooded.read_to_any_end().0.len() < FLOOD);
    until("both have ended", || served.journal.ended_by(CloseKind::Shutdown) == 2);
    served.finish();
}

fn a_stopped_server_gives_its_address_back(on: On) {
    let (served, _alone) = echo_apart(on);
    let addr = served.running.local_addr().expect("bound to TCP");
    let mut client = served.connect();
    client.assert_echo("at work");
    let Served { running, .. } = served;
    // The server's end is the first: its port is in TIME_WAIT.
    running.shutdown(PATIENCE);
    client.assert_end();
    drop(client);
    running.wait().expect("it stops in peace");
    let again = framewire::Server::bind(addr).expect("the address is free again");
    let again = Served::start(again.framing(LengthPrefix::u32_be()), echo());
    again.connect().assert_echo("at work again");
    again.finish();
}

fn a_server_that_was_stopped_before_it_started_stops_as_it_was_told(on: On) {
    let graceful: fn(&ServerHandle) = |handle| handle.shutdown(PATIENCE);
    let both: fn(&ServerHandle) = |handle| {
        handle.abort();
        handle.shutdown(PATIENCE);
    };
    for (stop, aborted) in [(graceful, false), (both, true)] {
        let server = on.bind().framing(LengthPrefix::u32_be()).limits(patient());
        let handle = server.handle();
        // It waits to be accepted.
        let mut client = Client::connect(&handle.local_addr().expect("TCP").into()).expect("it is bound");
        stop(&handle);
        let running = server.spawn(packet_fn(flood)).expect("it starts");
        let stopping = thread::spawn(move || running.wait());
        let (bytes, reset) = client.read_to_any_end();
        assert_eq!(bytes, b"");
        if on == On::SingleReactor {
            // It was accepted: elsewhere its shard may have stopped by then.
            assert_eq!(reset, aborted, "what was asked for first, and the sooner one");
        }
        drop(client);
        join(stopping).expect("it was asked to stop");
        assert_eq!((handle.session_count(), handle.shards().len()), (0, 0));
        assert!(aborted || handle.metrics().closed_total() == handle.metrics().opened);
    }
}

fn serve_returns_when_the_server_was_stopped_before(on: On) {
    let server = on.bind().framing(LengthPrefix::u32_be());
    let handle = server.handle();
    handle.shutdown(PATIENCE);
    let serving = thread::spawn(move || server.serve(packet_fn(flood)));
    join(serving).expect("it was asked to stop");
    assert_eq!((handle.session_count(), handle.shards().len()), (0, 0));
}

fn a_handler_that_was_given_the_server_can_stop_it(on: On) {
    let server = on.bind().framing(LengthPrefix::u32_be()).limits(patient());
    let known = server.handle();
    let handler = packet_fn(move |session: &mut Session<'_>, packet: &[u8]| {
        session.send(packet)?;
        if packet == b"shut down" {
            known.shutdown(PATIENCE);
        }
        Ok(())
    });
    let served = Served::start(server, handler);
    let (mut bystander, mut client) = (served.connect(), served.connect());
    bystander.assert_echo("at work");
    client.assert_echo("shut down");
    for client in [&mut client, &mut bystander] {
        client.assert_end();
    }
    drop((bystander, client));
    let Served { running, journal, .. } = served;
    let handle = running.handle();
    join(thread::spawn(move || running.wait())).expect("it was asked to stop");
    audit(&handle, &journal);
}

#[test]
fn serve_blocks_until_the_server_is_shut_down() {
    let server = Server::bind("127.0.0.1:0").expect("a free port").strategy(SingleReactor::new());
    let addr = server.local_addrs()[0].socket_addr().expect("TCP");
    let handle = server.handle();
    let serving = std::thread::spawn(move || {
        let handler = echo();
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

#[test]
fn a_server_that_was_stopped_before_it_served_serves_nobody() {
    let server = Server::bind("127.0.0.1:0").expect("free").framing(LengthPrefix::u32_be());
    let handle = server.handle();
    handle.abort();
    handle.shutdown(PATIENCE);
    server.serve(echo()).expect("it stops at once");
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
            Ok(())
        }))
    });
    let mut client = Client::connect(&addr).expect("it listens since it is bound");
    client.write(b"stop\n");
    assert_eq!(client.read(5), b"stop\n");
    client.assert_end();
    drop(client);
    assert!(matches!(serving.join(), Ok(Ok(()))));
}
