//! Packets that a session cannot take: its handler is told, and decides what follows.

use framewire::{CloseKind, EncodeError, LengthPrefix, Limits, SendError, Session, packet_fn};

use crate::common::{On, Served, on_each_strategy_and_transport, until};

on_each_strategy_and_transport! {
    a_handler_that_sends_too_much_is_told_and_may_go_on
    a_handler_that_passes_the_error_on_closes_the_slow_consumer
    a_packet_that_cannot_be_framed_is_refused_and_the_session_goes_on
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

fn a_packet_that_cannot_be_framed_is_refused_and_the_session_goes_on(on: On) {
    let handler = packet_fn(|session: &mut Session<'_>, packet: &[u8]| {
        if packet == b"too much" {
            // Nothing waits yet, so that the refused packet is the only one.
            let refused = session.send([0; 300]);
            assert!(matches!(refused, Err(SendError::Encode(EncodeError::TooLong { .. }))), "{refused:?}");
            let refused = session.send(vec![0; 5 << 20]);
            assert!(
                matches!(refused, Err(SendError::Full { queued: 0, limit, .. }) if limit == 4 << 20),
                "{refused:?}"
            );
            return Ok(());
        }
        Ok(session.send(packet)?)
    });
    let served = Served::start(on.bind().framing(LengthPrefix::u8()), handler);
    let (mut bystander, mut client) = (served.connect(), served.connect());
    client.write(b"\x08too much");
    until("it was read", || served.metrics().packets_in == 1);
    client.write(b"\x05still");
    assert_eq!(client.read(6), b"\x05still");
    bystander.write(b"\x06served");
    assert_eq!(bystander.read(7), b"\x06served");
    drop((client, bystander));
    served.finish();
}
