//! Those who wait for the fate of their packets, on threads of their own, while sessions close; and those who wait for room.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use crate::common::{
    Client, ON_PURPOSE, On, PATIENCE, Served, hush, join, on_each_strategy_and_transport, patient, until,
};
use framewire::{CloseKind, Limits, Outcome, SendError, SessionHandle, TicketError, packet_fn};

on_each_strategy_and_transport! {
    every_wait_returns_however_the_sessions_close
    a_server_that_stops_leaves_no_wait_behind
    what_was_sent_before_a_graceful_close_arrives
    a_closure_is_called_once_for_each_packet
    waits_within_callbacks_are_refused
    a_thread_that_waits_for_room_sends_as_fast_as_the_peer_reads
    a_wait_for_room_ends_with_the_session_or_with_its_time
}

const THREADS: usize = 6;
const WAITS: usize = 1_500;

fn sessions(served: &Served, count: usize) -> Vec<(Client, SessionHandle)> {
    (0..count).map(|_| served.connect_known()).collect()
}

/// Threads that send to all sessions in turn, and wait for each packet. Returns what they were told.
fn send_and_wait(sessions: &[SessionHandle], begin: &Arc<Barrier>) -> Vec<thread::JoinHandle<Vec<Outcome>>> {
    let waiter = |number: usize| {
        let (sessions, begin) = (sessions.to_vec(), begin.clone());
        thread::spawn(move || {
            begin.wait();
            let mut told = Vec::new();
            let mut tickets = Vec::new();
            for at in 0..WAITS / THREADS {
                match sessions[(number + at) % sessions.len()].send_tracked([1; 512]) {
                    Ok(ticket) => tickets.push(ticket),
                    Err(error) => told.push(Err(TicketError::Refused(error))),
                }
                if at % 10 == 9 {
                    told.extend(tickets.drain(..).map(|ticket| ticket.wait()));
                }
            }
            told.extend(tickets.drain(..).map(|ticket| ticket.wait()));
            told
        })
    };
    (0..THREADS).map(waiter).collect()
}

fn assert_told(threads: Vec<thread::JoinHandle<Vec<Outcome>>>) -> Vec<Outcome> {
    let told: Vec<Outcome> = threads.into_iter().flat_map(join).collect();
    assert_eq!(told.len(), WAITS);
    let is_expected = |outcome: &Outcome| {
        matches!(outcome, Ok(()) | Err(TicketError::Closed(_) | TicketError::Refused(SendError::Closed)))
    };
    assert!(told.iter().all(is_expected), "{told:?}");
    told
}

fn every_wait_returns_however_the_sessions_close(on: On) {
    let limits = Limits::default().close_timeout(Duration::from_millis(200));
    let handler = packet_fn(|session, _| {
        session.close();
        Ok(())
    });
    let served = on.serve(limits, handler);
    let mut clients = sessions(&served, 15);
    let handles: Vec<SessionHandle> = clients.iter().map(|(_, handle)| handle.clone()).collect();
    let begin = Arc::new(Barrier::new(THREADS + 1));
    let waiting = send_and_wait(&handles, &begin);
    begin.wait();
    // None of the clients reads.
    for (at, (client, session)) in clients.drain(..).enumerate() {
        match at % 5 {
            0 => assert_eq!(session.close(), Ok(())),
            1 => assert_eq!(session.abort(), Ok(())),
            2 => assert_eq!(served.running.close(session.id()), Ok(())),
            3 => client.reset(),
            _ => {
                let mut client = client;
                assert!(client.try_write(&crate::common::frame(b"close")));
            }
        }
    }
    assert_told(waiting);
    served.finish();
}

fn a_server_that_stops_leaves_no_wait_behind(on: On) {
    let served = on.echo(patient());
    let clients = sessions(&served, 8);
    let handles: Vec<SessionHandle> = clients.iter().map(|(_, handle)| handle.clone()).collect();
    let begin = Arc::new(Barrier::new(THREADS + 1));
    let waiting = send_and_wait(&handles, &begin);
    begin.wait();
    served.running.shutdown(Duration::from_millis(100));
    assert_told(waiting);
    drop(clients);
    served.await_stop();
}

fn what_was_sent_before_a_graceful_close_arrives(on: On) {
    const PACKETS: u32 = 2_000;
    let served = on.echo(patient());
    let (mut client, session) = served.connect_known();
    let tickets: Vec<_> = (0..PACKETS)
        .map(|number| session.send_tracked(number.to_be_bytes()).expect("there is room"))
        .collect();
    assert_eq!(session.close(), Ok(()));
    for number in 0..PACKETS {
        assert_eq!(client.recv(), number.to_be_bytes());
    }
    client.assert_end();
    for ticket in tickets {
        assert_eq!(ticket.wait_timeout(PATIENCE), Ok(()));
    }
    drop(client);
    served.finish();
}

fn a_closure_is_called_once_for_each_packet(on: On) {
    hush();
    let served = on.echo(Limits::default());
    let (mut client, session) = served.connect_known();
    let (tell, told) = channel::<(u8, Outcome)>();
    for number in 0..20u8 {
        let tell = tell.clone();
        let again = session.clone();
        let sent = session.send_then([number], move |outcome| {
            assert_eq!(again.send_waiting("x", PATIENCE), Err(SendError::WouldDeadlock));
            tell.send((number, outcome)).expect("it is awaited");
        });
        assert_eq!(sent, Ok(()));
    }
    for number in 0..20u8 {
        assert_eq!(client.recv(), [number]);
        assert_eq!(told.recv_timeout(PATIENCE), Ok((number, Ok(()))));
    }
    assert_eq!(session.send_then("boom", |_| panic!("{ON_PURPOSE}: {}", "in a closure")), Ok(()));
    assert_eq!(client.recv_text(), "boom");
    served.until_counted("the panic is counted", |metrics| metrics.panics == 1);
    client.assert_echo("the session is still open");

    assert_eq!(session.abort(), Ok(()));
    until("it is closing", || !session.is_open());
    let (me, caller) = (thread::current().id(), tell.clone());
    let refused = session.send_then("late", move |outcome| {
        assert_eq!(thread::current().id(), me, "on the calling thread");
        caller.send((99, outcome)).expect("it is awaited");
    });
    assert_eq!(refused, Err(SendError::Closed));
    assert_eq!(told.try_recv(), Ok((99, Err(TicketError::Closed(CloseKind::Local)))));
    drop(tell);
    assert!(told.recv_timeout(PATIENCE).is_err(), "each was called once, and is dropped");
    drop(client);
    served.finish();
}

fn waits_within_callbacks_are_refused(on: On) {
    let handler = packet_fn(|session, packet| {
        let me = session.handle();
        let ticket = me.send_tracked(packet)?;
        assert_eq!(ticket.wait(), Err(TicketError::WouldDeadlock));
        assert_eq!(ticket.wait_timeout(PATIENCE), Err(TicketError::WouldDeadlock));
        assert_eq!(me.send_waiting(packet, PATIENCE), Err(SendError::WouldDeadlock));
        Ok(())
    });
    let served = on.serve(Limits::default(), handler);
    let mut client = served.connect();
    client.assert_echo("it is sent all the same");
    drop(client);
    served.finish();
}

/// A server whose sessions hold little.
fn narrow(on: On) -> Served {
    let limits = patient().outbox_low(8 << 10).outbox_high(16 << 10).outbox_hard(64 << 10);
    Served::echo(on.bind().limits(limits).send_buffer(16 * 1024))
}

fn a_thread_that_waits_for_room_sends_as_fast_as_the_peer_reads(on: On) {
    const PACKETS: usize = 200;
    let served = narrow(on);
    let (mut client, session) = served.known(Served::connect_narrow);
    let too_long = session.send_waiting(vec![0; 64 << 10], PATIENCE);
    assert!(matches!(too_long, Err(SendError::Full { .. })), "{too_long:?}, and at once");
    let senders: Vec<_> = (0..3u8)
        .map(|sender| {
            let session = session.clone();
            thread::spawn(move || {
                for _ in 0..PACKETS {
                    assert_eq!(session.send_waiting(vec![sender; 16 << 10], PATIENCE), Ok(()));
                }
            })
        })
        .collect();
    let mut received = [0; 3];
    for _ in 0..3 * PACKETS {
        let packet = client.recv();
        assert_eq!(packet.len(), 16 << 10);
        received[usize::from(packet[0])] += 1;
    }
    assert_eq!(received, [PACKETS; 3]);
    senders.into_iter().for_each(join);
    drop(client);
    served.finish();
}

fn a_wait_for_room_ends_with_the_session_or_with_its_time(on: On) {
    let served = narrow(on);
    let (client, session) = served.known(Served::connect_narrow);
    let sent = AtomicUsize::new(0);
    let full = loop {
        match session.send_waiting(vec![7; 16 << 10], Duration::from_millis(50)) {
            Ok(()) => assert!(sent.fetch_add(1, Ordering::Relaxed) < 10_000, "the kernel takes without end"),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, SendError::Full { limit: 65_536, .. }), "{full:?}");
    let waiting = thread::spawn({
        let session = session.clone();
        move || session.send_waiting(vec![7; 16 << 10], 2 * PATIENCE)
    });
    assert_eq!(session.abort(), Ok(()));
    assert_eq!(join(waiting), Err(SendError::Closed));
    drop(client);
    served.finish();
}
