//! Who is let in, who is refused, and who waits.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Barrier,
    thread,
};

use framewire::{CloseKind, LengthPrefix, Limits, Server, SingleReactor, ThreadPerConnection, WorkerPool};

use crate::common::{
    Client, On, Served, echo, frame, on_each_strategy, on_each_strategy_and_transport, until,
};

on_each_strategy_and_transport! {
    clients_past_the_connection_limit_wait_and_are_served_in_their_turn
}

on_each_strategy! {
    one_peer_address_has_no_more_connections_than_it_may
    a_strategy_refuses_past_its_maximum_and_admits_again_below_it
}

fn from(served: &Served, source: Ipv4Addr) -> Client {
    served.connect_with(|socket| socket.bind(&SocketAddr::from((source, 0)).into()))
}

fn assert_refused(served: &Served, source: Ipv4Addr) {
    served.assert_refused_with(|socket| socket.bind(&SocketAddr::from((source, 0)).into()));
}

fn one_peer_address_has_no_more_connections_than_it_may(on: On) {
    let served = on.echo(Limits::default().connections_per_peer(2));
    let (here, there) = (Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2));
    let mut clients: Vec<Client> = [here, there, here, there].map(|source| from(&served, source)).into();
    for client in &mut clients {
        client.assert_echo("admitted");
    }
    for source in [here, there, here] {
        assert_refused(&served, source);
    }
    until("the refused are counted", || served.metrics().refused_total() == 3);
    // One leaves, one may come.
    drop(clients.swap_remove(0));
    until("it has left", || served.running.session_count() == 3);
    let mut next = from(&served, here);
    next.assert_echo("admitted again");
    assert_refused(&served, here);
    for client in &mut clients {
        client.assert_echo("still served");
    }
    drop((clients, next));
    served.finish();
}

fn a_strategy_refuses_past_its_maximum_and_admits_again_below_it(on: On) {
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
    let (server, room) = match on.strategy() {
        On::WorkerPool => (server.strategy(WorkerPool::new(2).max_sessions(2)), 4),
        On::ThreadPerConnection => (server.strategy(ThreadPerConnection::max(3)), 3),
        _ => (server.strategy(SingleReactor::new().max_sessions(3)), 3),
    };
    let served = Served::start(server, echo());
    let mut clients: Vec<Client> = (0..room).map(|_| served.connect()).collect();
    for client in &mut clients {
        client.assert_echo("admitted");
    }
    for _ in 0..3 {
        served.assert_refused();
    }
    drop(clients.pop());
    until("one has left", || served.running.session_count() == room - 1);
    clients.push(served.connect());
    for client in &mut clients {
        client.assert_echo("still served");
    }
    until("the refused are counted", || served.metrics().refused_total() == 3);
    drop(clients);
    served.finish();
}

fn clients_past_the_connection_limit_wait_and_are_served_in_their_turn(on: On) {
    let served = on.echo(Limits::default().connections(3));
    let mut clients: Vec<Client> = (0..12)
        .map(|number: u8| {
            let mut client = served.connect();
            client.send([number]);
            client
        })
        .collect();
    until("accepting has paused", || served.metrics().accept_pauses > 0);
    assert!(served.running.session_count() <= 3);
    assert!(served.metrics().accepted <= 3);
    for (number, mut client) in clients.drain(..).enumerate() {
        assert_eq!(client.recv(), [number as u8]);
        assert!(served.running.session_count() <= 3);
        client.end();
    }
    until("all have left", || served.journal.ended_by(CloseKind::PeerClosed) == 12);
    assert_eq!(served.metrics().refused_total(), 0);
    served.finish();
}

/// Sixty clients that come all at once to workers that accept for themselves.
fn come_at_once(limits: Limits) -> (Served, Vec<io::Result<Client>>) {
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
    let server = server.strategy(WorkerPool::new(4).reuse_port()).limits(limits);
    let served = Served::start(server, echo());
    let addr = served.addr();
    let start = Barrier::new(60);
    let clients: Vec<io::Result<Client>> = thread::scope(|scope| {
        let connect = || {
            let mut client = Client::connect(&addr);
            start.wait();
            // Who is refused may find out here, or has while it connected.
            if let Ok(client) = &mut client {
                client.try_write(&frame(b"let me in"));
            }
            client
        };
        let threads: Vec<_> = (0..60).map(|_| scope.spawn(connect)).collect();
        threads.into_iter().map(|thread| thread.join().expect("nobody panics")).collect()
    });
    until("as many as may are in", || served.metrics().opened == 7);
    (served, clients)
}

#[test]
fn the_connection_limit_is_exact_where_each_worker_accepts_and_all_others_wait() {
    let (served, clients) = come_at_once(Limits::default().connections(7));
    until("every worker has met the limit", || served.metrics().accept_pauses >= 4);
    assert_eq!((served.running.session_count(), served.journal.opened()), (7, 7));
    // Each worker has its own queue, so who is next is not known; but all are served, once there is room.
    thread::scope(|scope| {
        for client in clients {
            let mut client = client.expect("nobody is refused");
            scope.spawn(move || assert_eq!(client.recv(), b"let me in"));
        }
    });
    served.until_counted("all have been", |metrics| metrics.opened == 60);
    assert_eq!(served.metrics().refused_total(), 0, "nobody was turned away");
    served.finish();
}

#[test]
fn the_limit_of_a_peer_is_exact_where_each_worker_accepts() {
    let (served, clients) = come_at_once(Limits::default().connections_per_peer(7));
    for failed in clients.iter().filter_map(|client| client.as_ref().err()) {
        assert_eq!(failed.kind(), io::ErrorKind::ConnectionReset, "{failed}");
    }
    served.until_counted("all others were refused", |metrics| metrics.refused_total() == 53);
    until("nobody is at the door", || served.running.session_count() == 7);
    assert_eq!(served.journal.opened(), 7);
    drop(clients);
    served.finish();
}
