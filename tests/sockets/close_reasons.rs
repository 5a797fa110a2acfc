//! When the handler is told that a session closes (at the beginning of it, not when the peer lets it end), and why.

use std::time::Duration;

use framewire::{CloseKind, Failure, Handled, LengthPrefix, Limits, Session, SessionHandle, packet_fn};

use crate::common::{Client, On, Served, on_each_strategy, on_each_strategy_and_transport};

on_each_strategy_and_transport! {
    a_peer_that_is_closed_but_keeps_its_end_open_is_told_of_at_once
    a_peer_that_does_not_take_what_was_sent_before_its_close_is_told_of_at_once
    a_session_that_a_handler_closes_is_told_of_for_that_reason
    each_way_to_close_a_session_may_say_why
}

on_each_strategy! {
    a_close_of_the_sessions_of_a_peer_may_say_why
}

/// A graceful close may take as long as the test.
fn unhurried() -> Limits {
    let long = Duration::from_secs(3600);
    Limits::default().linger_timeout(long).close_timeout(long).stall_timeout(long)
}

fn a_peer_that_is_closed_but_keeps_its_end_open_is_told_of_at_once(on: On) {
    let served = on.echo(unhurried());
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.assert_echo("well so far");
    assert_eq!(session.close(), Ok(()));
    assert_eq!(served.journal.await_closing(session.id()).0, CloseKind::Local);
    client.assert_end();
    assert_eq!(served.journal.ending(session.id()), None, "its end is still open");
    bystander.assert_echo("still served");
    drop(client);
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Local);
    drop(bystander);
    served.finish();
}

fn a_peer_that_does_not_take_what_was_sent_before_its_close_is_told_of_at_once(on: On) {
    const SENT: usize = 3 << 20;
    let handler = packet_fn(|session: &mut Session<'_>, _packet: &[u8]| {
        let sent = session.send(vec![1; SENT]);
        session.close();
        Ok(sent?)
    });
    let server =
        on.bind().framing(LengthPrefix::u32_be().max(SENT)).limits(unhurried()).send_buffer(16 * 1024);
    let served = Served::start(server, handler);
    let (mut client, session) = served.known(Served::connect_narrow);
    client.send("close me");
    assert_eq!(served.journal.await_closing(session.id()).0, CloseKind::Local);
    assert_eq!(served.journal.ending(session.id()), None, "it is not flushed");
    assert_eq!(client.recv(), vec![1; SENT], "and nothing of it is lost");
    client.assert_end();
    drop(client);
    served.finish();
}

fn a_session_that_a_handler_closes_is_told_of_for_that_reason(on: On) {
    let handler = packet_fn(|_: &mut Session<'_>, packet: &[u8]| -> Handled {
        Err(Failure::because(String::from_utf8_lossy(packet).into_owned()))
    });
    let served = on.serve(unhurried(), handler);
    let (mut client, session) = served.connect_known();
    client.send("not today");
    let told = served.journal.await_closing(session.id());
    assert_eq!(told, (CloseKind::Handler, "handler: not today".to_owned()));
    client.assert_end();
    drop(client);
    assert_eq!(served.journal.await_ending(session.id()), told);
    served.finish();
}

/// Echoes; "kick me" closes the session twice.
fn serve_kicks(on: On) -> Served {
    let handler = packet_fn(|session: &mut Session<'_>, packet: &[u8]| {
        if packet == b"kick me" {
            session.close_with("kicked");
            session.close_with("once is enough");
            return Ok(());
        }
        Ok(session.send(packet)?)
    });
    on.serve(Limits::default(), handler)
}

/// Closes that session in some way, and finds that the reason is told from the beginning of the end to its log.
fn kick(served: &Served, kick: impl FnOnce(&mut Client, &SessionHandle)) {
    let (mut client, session) = served.connect_known();
    client.assert_echo("well so far");
    kick(&mut client, &session);
    let kicked = (CloseKind::Handler, "handler: kicked".to_owned());
    assert_eq!(served.journal.await_closing(session.id()), kicked);
    client.assert_end();
    drop(client);
    assert_eq!(served.journal.await_ending(session.id()), kicked);
}

fn each_way_to_close_a_session_may_say_why(on: On) {
    let served = serve_kicks(on);
    let mut bystander = served.connect();
    kick(&served, |client, _| client.send("kick me"));
    kick(&served, |_, session| assert_eq!(session.close_with("kicked"), Ok(())));
    kick(&served, |_, session| {
        assert_eq!(served.running.close_with(session.id(), "kicked".to_owned()), Ok(()));
    });
    kick(&served, |_, session| {
        let id = session.id();
        let why = std::io::Error::other("kicked");
        assert_eq!(served.running.execute(id.shard(), move |shard| shard.close_with(id, why)), Ok(()));
    });
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

fn a_close_of_the_sessions_of_a_peer_may_say_why(on: On) {
    let served = serve_kicks(on);
    let mut bystander = served.connect();
    kick(&served, |client, _| {
        let peer = client.socket.local_addr().expect("bound").as_socket().expect("TCP");
        assert_eq!(served.running.close_peer_with(peer, "kicked"), Ok(()));
    });
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}
