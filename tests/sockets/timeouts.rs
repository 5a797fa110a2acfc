//! Sessions that end because their peer is silent or too slow.

use std::{thread, time::Duration};

use framewire::{CloseKind, LengthPrefix, Limits, Oversize, Session, Then};

use crate::common::{On, Served, echo, frame, on_each_strategy_and_transport, until};
use crate::handlers::Scripted;

on_each_strategy_and_transport! {
    a_frame_that_is_discarded_by_the_byte_ends_the_session
    a_silent_session_ends_idle
    a_handler_may_ping_instead_of_closing_an_idle_session
    a_session_without_a_first_packet_in_time_ends
    a_packet_that_is_not_completed_in_time_ends_the_session
}

fn a_frame_that_is_discarded_by_the_byte_ends_the_session(on: On) {
    let limits = Limits::default()
        .packet_timeout(Duration::from_millis(200))
        .linger_timeout(Duration::from_millis(50));
    let framing = LengthPrefix::u32_be().max(100).oversize(Oversize::Discard);
    let server = on.bind().framing(framing).limits(limits);
    let served = Served::start(server, echo());
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

fn a_silent_session_ends_idle(on: On) {
    let served = on.echo(Limits::default().idle_timeout(Duration::from_millis(100)));
    let (mut silent, session) = served.connect_known();
    let reading = std::thread::spawn(move || silent.assert_end());
    let ending = served.journal.await_ending(session.id());
    assert_eq!(ending, (CloseKind::Idle, "nothing received for 100ms".to_owned()));
    reading.join().expect("the stream ended well");
    served.finish();
}

/// Pings when idle, and gives up at the third time.
fn pinging() -> Scripted<u32> {
    let alive = |session: &mut Session<'_>, pings: &mut u32, packet: &[u8]| {
        *pings = 0;
        Ok(session.send(packet)?)
    };
    Scripted::answering(alive).on_idle(|session, pings| {
        *pings += 1;
        if *pings == 3 {
            return Ok(Then::Close);
        }
        session.send(format!("ping {pings}"))?;
        Ok(Then::Stay)
    })
}

fn a_handler_may_ping_instead_of_closing_an_idle_session(on: On) {
    let served = on.serve(Limits::default().idle_timeout(Duration::from_millis(10)), pinging());
    let (mut client, session) = served.connect_known();
    assert_eq!(client.recv_text(), "ping 1");
    assert_eq!(client.recv_text(), "ping 2");
    client.assert_end();
    drop(client);
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Idle);
    served.finish();
}

fn a_session_without_a_first_packet_in_time_ends(on: On) {
    let served = on.echo(Limits::default().first_packet_timeout(Duration::from_millis(3000)));
    let mut bystander = served.connect();
    bystander.assert_echo("in time");
    let (mut silent, silent_session) = served.connect_known();
    let (mut slow, slow_session) = served.connect_known();
    slow.write(&frame(b"not whole")[..5]);
    // The bystander has been here for longer than these two, and stays.
    for (client, session) in [(&mut silent, silent_session), (&mut slow, slow_session)] {
        client.assert_end();
        drop(client.socket.shutdown(std::net::Shutdown::Both));
        let ending = served.journal.await_ending(session.id());
        assert_eq!(ending, (CloseKind::FirstPacket, "no packet within 3s of connecting".to_owned()));
    }
    bystander.assert_echo("still served");
    drop((silent, slow, bystander));
    served.finish();
}

fn a_packet_that_is_not_completed_in_time_ends_the_session(on: On) {
    let served = on.echo(Limits::default().packet_timeout(Duration::from_millis(50)));
    let mut bystander = served.connect();
    bystander.assert_echo("whole");
    let (mut client, session) = served.connect_known();
    client.write(&[frame(b"whole"), frame(b"not whole")[..5].to_vec()].concat());
    assert_eq!(client.recv_text(), "whole");
    client.assert_end();
    drop(client);
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::SlowPacket);
    assert_eq!(text, "a packet was not completed within 50ms of its first byte");
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}
