//! What peers and senders make a server hold is counted, and limited.

mod common;

use std::{thread, time::Duration};

use common::{Client, On, PATIENCE, Served, on_each_strategy, on_each_strategy_and_transport, until};
use framewire::{CloseKind, LengthPrefix, Limits, Oversize, Raw, SendError, SendTicket, Session, packet_fn};

on_each_strategy! {
    tracked_packets_without_a_byte_fill_the_outbox_of_a_dead_reader
    sessions_that_are_idle_again_keep_little_for_their_next_sends
}

on_each_strategy_and_transport! {
    a_frame_that_is_discarded_by_the_byte_ends_the_session
}

fn tracked_packets_without_a_byte_fill_the_outbox_of_a_dead_reader(on: On) {
    const STUCK: usize = 1 << 20;
    let limits = Limits::default().outbox_hard(STUCK + 512 * 1024);
    let server = on.bind().framing(Raw::new()).limits(limits).send_buffer(16 * 1024);
    let served = Served::start(server, packet_fn(|session, packet| Ok(session.send(packet)?)));
    let (mut client, session) = served.known(Served::connect_narrow);
    assert_eq!(session.send(vec![7; STUCK]), Ok(()));
    let mut tickets: Vec<SendTicket> = Vec::new();
    let full = loop {
        match session.send_tracked("") {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
        assert!(tickets.len() < 100_000, "the outbox takes without end");
    };
    assert!(matches!(full, SendError::Full { .. }), "{full}");
    // Of 128 bytes each; the kernel has taken some of what was before them.
    let taken = tickets.len();
    assert!((4096..=12_288).contains(&taken), "{taken} tickets were taken");
    until("they are counted", || served.metrics().buffered >= 96 * taken as u64);
    assert!(served.metrics().buffered < 4 << 20, "{} bytes are counted", served.metrics().buffered);
    assert_eq!(client.read(STUCK).len(), STUCK);
    for ticket in tickets {
        assert_eq!(ticket.wait(PATIENCE), Ok(()));
    }
    client.write(b"still served");
    assert_eq!(client.read(12), b"still served");
    drop(client);
    served.finish();
}

fn sessions_that_are_idle_again_keep_little_for_their_next_sends(on: On) {
    const REPLY: usize = 1 << 20;
    const CLIENTS: u64 = 4;
    let handler = packet_fn(|session: &mut Session<'_>, packet: &[u8]| {
        if packet == b"much" { Ok(session.send(vec![7; REPLY])?) } else { Ok(session.send(packet)?) }
    });
    let server = on.bind().framing(LengthPrefix::u32_be()).send_buffer(16 * 1024);
    let served = Served::start(server, handler);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| served.connect_narrow()).collect();
    for _ in 0..8 {
        // One after the other is not read from, so that each is blocked for a while.
        clients.iter_mut().for_each(|client| client.send("much"));
        clients.iter_mut().for_each(|client| assert_eq!(client.recv().len(), REPLY));
    }
    clients.iter_mut().for_each(|client| client.assert_echo("idle again"));
    until("nothing waits", || served.metrics().buffered == 0);
    let pooled = served.metrics().pooled;
    assert!(pooled <= CLIENTS * 32 * 1024, "{pooled} bytes are kept for {CLIENTS} sessions");
    drop(clients);
    until("the sessions are gone", || served.running.session_count() == 0);
    until("nothing is kept for nobody", || served.metrics().pooled == 0);
    served.finish();
}

fn a_frame_that_is_discarded_by_the_byte_ends_the_session(on: On) {
    let limits = Limits::default()
        .packet_timeout(Duration::from_millis(200))
        .linger_timeout(Duration::from_millis(50));
    let framing = LengthPrefix::u32_be().max(100).oversize(Oversize::Discard);
    let server = on.bind().framing(framing).limits(limits);
    let served = Served::start(server, packet_fn(|session, packet| Ok(session.send(packet)?)));
    let (mut client, session) = served.connect_known();
    client.write(&[0x7f; 4]);
    until("the session ends", || {
        thread::sleep(Duration::from_millis(5));
        client.try_write(b"x");
        served.journal.ending(session.id()).is_some()
    });
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::SlowPacket, "{text}");
    // One that was skipped in time is none that is late.
    let mut good = served.connect();
    good.send([7; 200]);
    thread::sleep(Duration::from_millis(300));
    good.assert_echo("still served");
    drop((client, good));
    served.finish();
}
