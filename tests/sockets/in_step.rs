//! Peers that send and wait for the reply, again and again. A thread that has one of them alone sleeps in its reads then, and hears
//! of nothing else for a while.

use std::{thread, time::Duration};

use framewire::{CloseKind, Limits};

use crate::common::{Client, On, PATIENCE, on_each_strategy_and_transport};

on_each_strategy_and_transport! {
    a_command_reaches_a_session_whose_peer_keeps_in_step
    a_peer_that_keeps_in_step_may_burst_fall_silent_and_end
    a_server_whose_peers_keep_in_step_shuts_down
}

fn keep_in_step(client: &mut Client) {
    (0..100).for_each(|_| client.assert_echo("in step"));
}

fn a_command_reaches_a_session_whose_peer_keeps_in_step(on: On) {
    let served = on.echo(Limits::default());
    let (mut client, session) = served.connect_known();
    for _ in 0..3 {
        keep_in_step(&mut client);
        let ticket = session.send_tracked("told").expect("there is room");
        assert_eq!(client.recv_text(), "told");
        assert_eq!(ticket.wait_timeout(PATIENCE), Ok(()));
    }
    keep_in_step(&mut client);
    session.close().expect("it is open");
    client.assert_end();
    drop(client);
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Local);
    served.finish();
}

fn a_peer_that_keeps_in_step_may_burst_fall_silent_and_end(on: On) {
    let served = on.echo(Limits::default());
    let (mut client, session) = served.connect_known();
    for _ in 0..2 {
        keep_in_step(&mut client);
        // Longer than a thread sleeps in its read.
        thread::sleep(Duration::from_millis(50));
        client.assert_echo("x".repeat(300_000));
    }
    keep_in_step(&mut client);
    client.end();
    client.assert_end();
    drop(client);
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::PeerClosed);
    served.finish();
}

fn a_server_whose_peers_keep_in_step_shuts_down(on: On) {
    let served = on.echo(Limits::default());
    let mut clients = [served.connect(), served.connect()];
    clients.iter_mut().for_each(keep_in_step);
    served.running.handle().shutdown(Duration::from_secs(5));
    clients.iter_mut().for_each(Client::assert_end);
    drop(clients);
    served.await_stop();
}
