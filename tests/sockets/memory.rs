//! What peers and senders make a server hold is counted, and limited.

use std::{thread, time::Duration};

use framewire::{CloseKind, LengthPrefix, Limits, Raw, SendError, SendTicket, Session, packet_fn};

use crate::common::{
    Client, On, PATIENCE, Served, echo, frame, on_each_strategy_and_transport, on_each_strategy_uncompressed,
    on_each_strategy_without_layers, until,
};

on_each_strategy_and_transport! {
    a_peer_that_never_reads_holds_little_and_is_found_stalled
}

on_each_strategy_uncompressed! {
    tracked_packets_without_a_byte_fill_the_outbox_of_a_dead_reader
    sessions_that_are_idle_again_keep_little_for_their_next_sends
    the_session_that_buffers_most_is_ended_when_the_shard_has_too_much
}

on_each_strategy_without_layers! {
    peers_that_send_one_byte_and_wait_cost_what_they_sent
}

fn tracked_packets_without_a_byte_fill_the_outbox_of_a_dead_reader(on: On) {
    const STUCK: usize = 1 << 20;
    let limits = Limits::default().outbox_hard(STUCK + 512 * 1024);
    let server = on.bind().framing(Raw::new()).limits(limits).send_buffer(16 * 1024);
    let served = Served::start(server, echo());
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
        assert_eq!(ticket.wait_timeout(PATIENCE), Ok(()));
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

fn a_peer_that_never_reads_holds_little_and_is_found_stalled(on: On) {
    const HIGH: usize = 64 * 1024;
    let limits = Limits::default()
        .outbox_high(HIGH)
        .outbox_low(HIGH / 4)
        .read_budget(64 * 1024)
        .stall_timeout(Duration::from_millis(300));
    let server = on.bind().framing(LengthPrefix::u32_be()).limits(limits).send_buffer(16 * 1024);
    let served = Served::start(server, echo());
    let mut bystander = served.connect();
    let (mut deaf, session) = served.known(Served::connect_narrow);
    let writing = thread::spawn(move || {
        let wire = frame(&[5; 1000]).repeat(64);
        // Up to the reset.
        while deaf.try_write(&wire) {}
        deaf
    });
    let mut most = 0;
    until("it is found stalled", || {
        bystander.assert_echo("still served");
        most = most.max(served.metrics().buffered);
        served.journal.ending(session.id()).is_some()
    });
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::Stalled, "{text}");
    assert!(text.starts_with("the peer took none of "), "{text}");
    // The outbox by capacity, up to twice what is in it, and one read that waits. Layers add, by capacity too, what they
    // have carried for the kernel and the block that they have not read to its end.
    let reserves = if on.is_layered() { 10 } else { 6 };
    assert!(most <= reserves * HIGH as u64, "{most} bytes were buffered");
    bystander.assert_echo("still served");
    drop((writing.join().expect("the writer ends"), bystander));
    served.finish();
}

/// Lets this process have both ends of thousands of connections, beside what its other tests have open. Returns how many
/// descriptors it may have.
#[cfg(unix)]
pub(crate) fn raise_descriptor_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    let raised = hard.min(32_768).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, raised, hard).expect("up to the hard limit it may be raised");
    raised
}

fn peers_that_send_one_byte_and_wait_cost_what_they_sent(on: On) {
    #[cfg(unix)]
    raise_descriptor_limit();
    let peers = if on.strategy() == On::ThreadPerConnection { 200 } else { 2000 };
    let served = on.echo(Limits::default());
    let mut bystander = served.connect();
    let clients: Vec<Client> = (0..peers)
        .map(|_| {
            let mut client = served.connect();
            // The beginning of the length of what would be a large packet.
            client.write(&[0]);
            client
        })
        .collect();
    until("all bytes have come", || served.metrics().bytes_in == peers);
    until("all tails are counted", || served.metrics().buffered >= peers);
    let buffered = served.metrics().buffered;
    assert!(buffered <= 16 * peers, "{buffered} bytes are held for {peers} bytes received");
    bystander.assert_echo("still served");
    drop((clients, bystander));
    until("all have ended inside a frame", || served.journal.ended_by(CloseKind::Frame) == peers as usize);
    served.finish();
}

fn the_session_that_buffers_most_is_ended_when_the_shard_has_too_much(on: On) {
    let limits = Limits::default().shard_memory(3 << 20).outbox_hard(16 << 20);
    let server = on.bind().framing(LengthPrefix::u32_be()).limits(limits).send_buffer(16 * 1024);
    let served = Served::start(server, echo());
    let mut bystander = served.connect();
    let (client, session) = served.known(Served::connect_narrow);
    let (mut modest, other) = served.known(Served::connect_narrow);
    assert_eq!(other.send(vec![1; 100_000]), Ok(()));
    for _ in 0..5 {
        let _ = session.send(vec![2; 1 << 20]);
    }
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::Memory, "{text}");
    assert_eq!(modest.recv(), vec![1; 100_000], "the one that held less is left alone");
    for client in [&mut modest, &mut bystander] {
        client.assert_echo("still served");
    }
    drop((client, modest, bystander));
    served.finish();
}
