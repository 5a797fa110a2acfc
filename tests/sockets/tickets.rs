//! What a ticket tells of its packet, and what a handle is told that sends without one.

use std::time::Duration;

use framewire::{CloseKind, LengthPrefix, Limits, SendError, SessionHandle, TicketError};

use crate::common::{
    Client, On, PATIENCE, Served, echo, on_each_strategy, on_each_strategy_uncompressed, until,
};

on_each_strategy_uncompressed! {
    a_ticket_tells_nothing_before_its_time
    a_handle_is_told_when_more_waits_than_the_outbox_may_hold
}

on_each_strategy! {
    a_ticket_tells_that_the_packet_was_written
    a_ticket_tells_that_the_session_closed_first
    a_ticket_tells_that_the_packet_was_refused_and_the_session_stays
}

fn a_ticket_tells_that_the_packet_was_written(on: On) {
    let served = on.echo(Limits::default());
    let (mut client, session) = served.connect_known();
    let tickets: Vec<_> =
        (0..50u8).map(|number| session.send_tracked([number; 5000]).expect("there is room")).collect();
    for number in 0..50u8 {
        assert_eq!(client.recv(), [number; 5000]);
    }
    for ticket in tickets {
        assert_eq!(ticket.wait_timeout(PATIENCE), Ok(()));
    }
    drop(client);
    served.finish();
}

/// A session whose kernel buffers are full, so that nothing more is written.
fn congested(on: On) -> (Served, Client, SessionHandle) {
    let echo = echo();
    let limits = Limits::default().outbox_hard(16 << 20);
    let server = on.bind().framing(LengthPrefix::u32_be()).limits(limits).send_buffer(16 * 1024);
    let served = Served::start(server, echo);
    let (client, session) = served.known(Served::connect_narrow);
    // More than a pair of small kernel buffers takes.
    assert_eq!(session.send(vec![7; 1 << 20]), Ok(()));
    (served, client, session)
}

fn a_ticket_tells_nothing_before_its_time(on: On) {
    let (served, mut client, session) = congested(on);
    let ticket = session.send_tracked("behind it").expect("there is room");
    let short = Duration::from_millis(20);
    assert_eq!(ticket.wait_timeout(short), Err(TicketError::TimedOut(short)));
    assert_eq!(ticket.outcome(), None);
    assert_eq!(client.recv().len(), 1 << 20);
    assert_eq!(client.recv_text(), "behind it");
    assert_eq!(ticket.wait_timeout(PATIENCE), Ok(()));
    drop(client);
    served.finish();
}

fn a_ticket_tells_that_the_session_closed_first(on: On) {
    let (served, client, session) = congested(on);
    let ticket = session.send_tracked("behind it").expect("there is room");
    client.reset();
    assert_eq!(ticket.wait_timeout(PATIENCE), Err(TicketError::Closed(CloseKind::Io)));
    let (served, _client, session) = {
        served.finish();
        congested(on)
    };
    let ticket = session.send_tracked("behind it").expect("there is room");
    session.abort().expect("it is open");
    assert_eq!(ticket.wait_timeout(PATIENCE), Err(TicketError::Closed(CloseKind::Local)));
    served.finish();
}

fn a_ticket_tells_that_the_packet_was_refused_and_the_session_stays(on: On) {
    let echo = echo();
    let served = Served::start(on.bind().framing(LengthPrefix::u8()), echo);
    let (mut client, session) = served.connect_known();
    let ticket = session.send_tracked([0; 300]).expect("it is refused later");
    let refused = ticket.wait_timeout(PATIENCE);
    assert!(matches!(refused, Err(TicketError::Refused(SendError::Encode(_)))), "{refused:?}");
    client.write(b"\x02ok");
    assert_eq!(client.read(3), b"\x02ok");
    // Without a ticket there is nobody to tell, and nobody to punish: it is counted.
    assert_eq!(session.send([0; 300]), Ok(()));
    assert_eq!(session.send("behind it"), Ok(()));
    assert_eq!(client.read(10), b"\x09behind it");
    until("the refusal is counted", || served.running.metrics().sends_refused == 1);
    drop(client);
    served.finish();
}

fn a_handle_is_told_when_more_waits_than_the_outbox_may_hold(on: On) {
    let (served, mut client, session) = congested(on);
    let (mut taken, packet) = (0, vec![1; 1 << 20]);
    let error = loop {
        match session.send(&packet) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 100, "the outbox takes without end");
    };
    assert!(matches!(error, SendError::Full { limit, .. } if limit == 16 << 20), "{error}");
    until("it is all in the outbox", || served.metrics().buffered >= 14 << 20);
    assert!(served.metrics().buffered < 40 << 20, "{} bytes buffered", served.metrics().buffered);
    for _ in 0..=taken {
        assert_eq!(client.recv().len(), 1 << 20);
    }
    client.assert_echo("still served");
    drop(client);
    served.finish();
}
