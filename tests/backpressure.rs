//! Peers that do not read, or hardly write: memory stays bounded, and the others are served.

mod common;

use std::{io::Write, thread, time::Duration};

use common::{Client, On, Served, frame, on_each_strategy, on_each_strategy_and_transport, until};
use framewire::{CloseKind, Handled, LengthPrefix, Limits, PacketHandler, SendError, Session, packet_fn};

on_each_strategy_and_transport! {
    a_peer_that_never_reads_holds_little_and_is_found_stalled
    on_drained_paces_a_producer
    a_handler_that_sends_too_much_is_told_and_may_go_on
    a_handler_that_passes_the_error_on_closes_the_slow_consumer
    a_paused_session_waits_and_loses_nothing
}

on_each_strategy! {
    peers_that_send_one_byte_and_wait_cost_what_they_sent
    the_session_that_buffers_most_is_ended_when_the_shard_has_too_much
}

fn a_peer_that_never_reads_holds_little_and_is_found_stalled(on: On) {
    const HIGH: usize = 64 * 1024;
    let limits = Limits::default()
        .outbox_high(HIGH)
        .outbox_low(HIGH / 4)
        .read_budget(64 * 1024)
        .stall_timeout(Duration::from_millis(300));
    let server = on.bind().framing(LengthPrefix::u32_be()).limits(limits).send_buffer(16 * 1024);
    let served = Served::start(server, packet_fn(|session, packet| Ok(session.send(packet)?)));
    let mut bystander = served.connect();
    let (mut deaf, session) = served.known(Served::connect_narrow);
    let writing = thread::spawn(move || {
        let wire = frame(&[5; 1000]).repeat(64);
        // Up to the reset.
        while deaf.socket.write_all(&wire).is_ok() {}
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
    // The outbox by capacity, up to twice what is in it, and one read that waits.
    assert!(most <= 6 * HIGH as u64, "{most} bytes were buffered");
    bystander.assert_echo("still served");
    drop((writing.join().expect("the writer ends"), bystander));
    served.finish();
}

fn peers_that_send_one_byte_and_wait_cost_what_they_sent(on: On) {
    let peers = if on == On::ThreadPerConnection { 200 } else { 2000 };
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

/// Answers any packet with a thousand numbered ones, no faster than they are taken.
#[derive(Clone)]
struct Producer;

const PRODUCED: u32 = 1000;

impl Producer {
    fn produce(session: &mut Session<'_>, next: &mut Option<u32>) -> Handled {
        while let Some(number) = next.filter(|number| *number < PRODUCED) {
            let mut packet = vec![b'.'; 10_000];
            packet[..4].copy_from_slice(&number.to_be_bytes());
            session.send(&packet)?;
            *next = Some(number + 1);
            if session.stats().queued > 200_000 {
                break;
            }
        }
        Ok(())
    }
}

impl PacketHandler for Producer {
    type State = Option<u32>;

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled<Option<u32>> {
        Ok(None)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, next: &mut Option<u32>, packet: &[u8]) -> Handled {
        if packet != b"go" {
            return Ok(session.send(packet)?);
        }
        *next = Some(0);
        Self::produce(session, next)
    }

    fn on_drained(&mut self, session: &mut Session<'_>, next: &mut Option<u32>) -> Handled {
        Self::produce(session, next)
    }
}

fn on_drained_paces_a_producer(on: On) {
    let limits = Limits::default().outbox_high(100_000).outbox_low(10_000).outbox_hard(300_000);
    let served = on.serve(limits, Producer);
    let mut bystander = served.connect();
    let mut client = served.connect();
    client.send("go");
    for number in 0..PRODUCED {
        let packet = client.recv();
        assert_eq!((packet.len(), &packet[..4]), (10_000, &number.to_be_bytes()[..]));
    }
    assert_eq!(served.metrics().sends_refused, 0);
    for client in [&mut client, &mut bystander] {
        client.assert_echo("still served");
    }
    drop((client, bystander));
    served.finish();
}

/// Sends until it is told that there is no more room.
fn overdo(session: &mut Session<'_>) -> SendError {
    let packet = [9; 10_000];
    loop {
        if let Err(error) = session.send(packet) {
            return error;
        }
    }
}

fn a_handler_that_sends_too_much_is_told_and_may_go_on(on: On) {
    let handler = packet_fn(|session: &mut Session<'_>, packet: &[u8]| {
        if packet == b"overdo" {
            let error = overdo(session);
            assert!(matches!(error, SendError::Full { queued: 90_036, limit: 100_000, .. }), "{error:?}");
            return Ok(session.send("enough")?);
        }
        Ok(session.send(packet)?)
    });
    let limits = Limits::default().outbox_high(50_000).outbox_low(1000).outbox_hard(100_000);
    let served = on.serve(limits, handler);
    let mut bystander = served.connect();
    let mut client = served.connect();
    client.send("overdo");
    for _ in 0..9 {
        assert_eq!(client.recv(), [9; 10_000]);
    }
    assert_eq!(client.recv_text(), "enough");
    for client in [&mut client, &mut bystander] {
        client.assert_echo("still served");
    }
    assert_eq!(served.metrics().sends_refused, 1);
    drop((client, bystander));
    served.finish();
}

fn a_handler_that_passes_the_error_on_closes_the_slow_consumer(on: On) {
    let handler =
        packet_fn(
            |session: &mut Session<'_>, packet: &[u8]| {
                if packet == b"overdo" { Err(overdo(session).into()) } else { Ok(session.send(packet)?) }
            },
        );
    let limits = Limits::default().outbox_high(50_000).outbox_low(1000).outbox_hard(100_000);
    let served = on.serve(limits, handler);
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.send("overdo");
    assert_eq!(client.read_to_end().len(), 9 * 10_004, "what was queued before is delivered");
    drop(client);
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::Send);
    assert!(text.starts_with("send failed: outbox full: 90036 bytes wait"), "{text}");
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

#[derive(Clone)]
struct Dozing;

impl PacketHandler for Dozing {
    type State = ();

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        session.send(packet)?;
        if packet == b"doze" {
            session.pause();
            session.set_timer(framewire::TimerId(0), Duration::from_millis(5))?;
        }
        Ok(())
    }

    fn on_timer(&mut self, session: &mut Session<'_>, (): &mut (), _timer: framewire::TimerId) -> Handled {
        session.send("awake")?;
        session.resume();
        Ok(())
    }
}

fn a_paused_session_waits_and_loses_nothing(on: On) {
    let served = on.serve(Limits::default(), Dozing);
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    // All in one piece, so that what follows the pause was already received; the end of the stream as well.
    let wire: Vec<u8> = (0..200u32)
        .flat_map(|number| if number % 20 == 7 { frame(b"doze") } else { frame(&number.to_be_bytes()) })
        .collect();
    client.write(&wire);
    client.end();
    for number in 0..200u32 {
        if number % 20 == 7 {
            assert_eq!(client.recv_text(), "doze");
            assert_eq!(client.recv_text(), "awake", "nothing is handed out meanwhile");
        } else {
            assert_eq!(client.recv(), number.to_be_bytes());
        }
    }
    client.assert_end();
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::PeerClosed);
    bystander.assert_echo("still served");
    drop((client, bystander));
    served.finish();
}

fn the_session_that_buffers_most_is_ended_when_the_shard_has_too_much(on: On) {
    let limits = Limits::default().shard_memory(3 << 20).outbox_hard(16 << 20);
    let server = on.bind().framing(LengthPrefix::u32_be()).limits(limits).send_buffer(16 * 1024);
    let served = Served::start(server, packet_fn(|session, packet| Ok(session.send(packet)?)));
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
