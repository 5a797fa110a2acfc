//! Endpoints on reactors, through real gateways: what serves connections serves virtual connections.

mod common;

use std::{sync::mpsc::channel, thread, time::Duration};

use common::{
    KEY, PATIENCE, Peer, THREADS, Threads, client_addr,
    endpoints::{Noted, echo, lock, options, registered, server, stop},
    server_addr, start, wait_until,
};
use framewire::{
    Channel, CloseKind, Handled, Limits, PacketHandler, SendError, Session, SingleReactor,
    ThreadPerConnection, WorkerPool, packet_fn,
};
use framewire_gateway::{
    Dialect, Gateway, GatewayLimits, Keys, LinkOptions, RunningGateway, ServerEndpoint, blocking::Endpoint,
    protocol::Command,
};

#[test]
fn a_handler_of_connections_serves_virtual_connections_of_clients_that_know_nothing_of_it() {
    for threads in THREADS {
        let gateway = start(*threads, GatewayLimits::default());
        let endpoint = server(&[&gateway], 7).spawn(echo()).expect("started");
        assert!(endpoint.wait_connected(PATIENCE));
        registered(&gateway, 7);
        let mut clients: Vec<Peer> = (0..3).map(|_| Peer::client(&gateway)).collect();
        for client in &mut clients {
            let conns: Vec<u32> = (0..3)
                .map(|_| {
                    let conn = client.new_conn();
                    client.command(Command::Dial { conn, remote: 7 });
                    client.expect_command(Command::Accept { conn, remote: 7 });
                    conn
                })
                .collect();
            for message in [&b"hello"[..], b"", &[7; 100_000]] {
                for conn in &conns {
                    client.say(*conn, message);
                    client.expect(&common::message(*conn, message));
                }
            }
        }
        assert_eq!(endpoint.handle().sessions().session_count(), 9);
        drop(clients);
        wait_until(|| endpoint.handle().sessions().session_count() == 0);
        stop(endpoint, vec![gateway]);
    }
}

#[test]
fn a_virtual_connection_is_closed_from_either_end_and_each_end_is_told() {
    let gateway = start(Threads::One, GatewayLimits::default());
    let noted = Noted::default();
    let endpoint = server(&[&gateway], 1).spawn(noted.clone()).expect("started");
    registered(&gateway, 1);
    let link = Endpoint::client(client_addr(&gateway)).expect("connected");
    let ours = link.dial(1, PATIENCE).expect("open");
    ours.send(b"quiet").expect("sent");
    wait_until(|| !lock(&noted.heard).is_empty());
    ours.close();
    wait_until(|| noted.closes().len() == 1);
    let theirs = link.dial(1, PATIENCE).expect("open");
    theirs.send(b"close").expect("sent");
    assert_eq!(theirs.recv(PATIENCE).expect("it comes"), Some(b"bye".to_vec()), "what was sent before");
    assert_eq!(theirs.recv(PATIENCE).expect("it comes"), None);
    wait_until(|| noted.closes().len() == 2);
    let client = lock(&noted.opened)[0].0.remote;
    assert_eq!(noted.closes(), [(client, CloseKind::PeerClosed), (client, CloseKind::Local)]);
    // A client that is gone closes what it had.
    let _third = link.dial(1, PATIENCE).expect("open");
    link.close();
    wait_until(|| noted.closes().len() == 3);
    stop(endpoint, vec![gateway]);
}

#[test]
fn gateways_are_told_apart_and_each_is_found_again_when_it_comes_back() {
    for pool in [false, true] {
        let mut gateways: Vec<RunningGateway> =
            (0..3).map(|_| start(Threads::One, GatewayLimits::default())).collect();
        let noted = Noted::default();
        let endpoint = server(&gateways.iter().collect::<Vec<_>>(), 5);
        let endpoint = match pool {
            true => endpoint.strategy(WorkerPool::new(2)),
            false => endpoint.strategy(SingleReactor::new()),
        };
        let endpoint = endpoint.spawn(noted.clone()).expect("started");
        let dial = |gateway: &RunningGateway| {
            registered(gateway, 5);
            let link = Endpoint::client(client_addr(gateway)).expect("connected");
            let conn = link.dial(5, PATIENCE).expect("open");
            conn.send(b"hello").expect("sent");
            assert_eq!(conn.recv(PATIENCE).expect("it comes"), Some(b"hello".to_vec()));
            (link, conn)
        };
        let open: Vec<_> = gateways.iter().map(dial).collect();
        let by: Vec<usize> = lock(&noted.opened).iter().map(|(known, _)| known.gateway).collect();
        assert_eq!(by, [0, 1, 2]);
        let (clients, servers) = (client_addr(&gateways[1]), server_addr(&gateways[1]));
        gateways.remove(1).stop(Duration::ZERO).expect("killed");
        wait_until(|| endpoint.handle().connected() == [true, false, true]);
        wait_until(|| noted.closes().len() == 1);
        // Its client's link may have ended before the server's.
        let (_, kind) = noted.closes()[0];
        assert!([CloseKind::CarrierLost, CloseKind::PeerClosed].contains(&kind), "{kind:?}");
        let keys = Keys::new([KEY]).expect("a key");
        let again =
            Gateway::new().clients(clients.to_string()).servers(servers.to_string(), Dialect::Md5, keys);
        let again = again.spawn().expect("its addresses are free");
        assert!(endpoint.wait_connected(PATIENCE), "it is found again");
        let anew = dial(&again);
        assert_eq!(lock(&noted.opened)[3].0.gateway, 1);
        for (_, conn) in [&open[0], &open[2], &anew] {
            conn.send(b"still there").expect("sent");
            assert_eq!(conn.recv(PATIENCE).expect("it comes"), Some(b"still there".to_vec()));
        }
        drop((open, anew));
        gateways.push(again);
        stop(endpoint, gateways);
    }
}

/// A process that is killed says nothing to either side.
#[cfg(unix)]
#[test]
fn sessions_of_a_gateway_that_is_killed_end_once_each_and_the_next_gateway_is_served() {
    const CONNECTIONS: usize = 40;
    let mut killed = common::running::Running::start("endpoint-killed", "");
    let [clients, servers, _] = killed.addrs();
    let noted = Noted::default();
    let endpoint = ServerEndpoint::new([servers.to_string()], 3, KEY).options(options());
    let endpoint = endpoint.spawn(noted.clone()).expect("started");
    assert!(endpoint.wait_connected(PATIENCE));
    let links: Vec<Endpoint> = (0..4).map(|_| Endpoint::client(clients).expect("connected")).collect();
    let dial = |link: &Endpoint| {
        // The gateway may not have read the digest yet.
        wait_until(|| link.dial(3, PATIENCE).is_ok());
    };
    links.iter().for_each(dial);
    let open: Vec<_> = (0..CONNECTIONS).map(|at| links[at % 4].dial(3, PATIENCE).expect("open")).collect();
    let before = links.len();
    wait_until(|| lock(&noted.opened).len() == before + CONNECTIONS && noted.closes().len() == before);
    killed.signal(9);
    wait_until(|| endpoint.handle().sessions().session_count() == 0);
    let closes = noted.closes().split_off(before);
    assert_eq!(closes.len(), CONNECTIONS, "each ends once");
    assert!(closes.iter().all(|(_, kind)| *kind == CloseKind::CarrierLost), "{closes:?}");
    drop((open, links));
    let keys = Keys::new([KEY]).expect("a key");
    let again = Gateway::new().clients(clients.to_string()).servers(servers.to_string(), Dialect::Md5, keys);
    let again = again.spawn().expect("its addresses are free");
    registered(&again, 3);
    let link = Endpoint::client(clients).expect("connected");
    let conn = link.dial(3, PATIENCE).expect("open");
    conn.send(b"hello").expect("sent");
    assert_eq!(conn.recv(PATIENCE).expect("it comes"), Some(b"hello".to_vec()));
    drop((link, conn));
    stop(endpoint, vec![again]);
}

#[test]
fn a_client_that_does_not_read_loses_its_connection_and_nobody_else_notices() {
    let gateway =
        start(Threads::One, GatewayLimits { connection_queue: 64 * 1024, ..GatewayLimits::default() });
    let flood = packet_fn(|session: &mut Session<'_>, packet: &[u8]| {
        if packet != b"flood" {
            return Ok(session.send(packet)?);
        }
        loop {
            match session.send([7; 1_000]) {
                Ok(()) => {}
                // The rest is not needed.
                Err(SendError::Full { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    });
    let limits = Limits::default().outbox_high(256 * 1024).outbox_hard(16 << 20);
    let endpoint = server(&[&gateway], 1).limits(limits).spawn(flood).expect("started");
    registered(&gateway, 1);
    let mut slow = Peer::client(&gateway);
    let conn = slow.new_conn();
    slow.command(Command::Dial { conn, remote: 1 });
    slow.expect_command(Command::Accept { conn, remote: 1 });
    let link = Endpoint::client(client_addr(&gateway)).expect("connected");
    let other = link.dial(1, PATIENCE).expect("open");
    slow.say(conn, b"flood");
    for round in 0..50_u32 {
        other.send(&round.to_be_bytes()).expect("sent");
        assert_eq!(other.recv(PATIENCE).expect("it comes"), Some(round.to_be_bytes().to_vec()));
    }
    wait_until(|| endpoint.handle().sessions().metrics().closed(CloseKind::PeerClosed) == 1);
    assert_eq!(endpoint.handle().sessions().session_count(), 1);
    drop((slow, link, other));
    stop(endpoint, vec![gateway]);
}

#[test]
fn a_message_that_no_gateway_forwards_is_refused_where_it_is_sent() {
    let gateway = start(Threads::One, GatewayLimits { max_length: 1_000, ..GatewayLimits::default() });
    let (told, sent) = channel();
    let handler = packet_fn(move |session: &mut Session<'_>, _: &[u8]| {
        let longest = session.send([1; 996]);
        told.send((longest, session.send([1; 997])))?;
        Ok(())
    });
    let options = LinkOptions { max_length: 1_000, ..options() };
    let endpoint = server(&[&gateway], 1).options(options).spawn(handler).expect("started");
    registered(&gateway, 1);
    let link = Endpoint::client(client_addr(&gateway)).expect("connected");
    let conn = link.dial(1, PATIENCE).expect("open");
    conn.send(b"go").expect("sent");
    let (longest, longer) = sent.recv_timeout(PATIENCE).expect("it was tried");
    assert_eq!(longest, Ok(()));
    assert!(matches!(longer, Err(SendError::Encode(_))), "{longer:?}");
    assert_eq!(conn.recv(PATIENCE).expect("it comes"), Some(vec![1; 996]));
    drop((link, conn));
    stop(endpoint, vec![gateway]);
}

#[test]
fn sessions_beyond_the_limit_are_closed_and_the_rest_is_served() {
    let gateway = start(Threads::One, GatewayLimits::default());
    let endpoint =
        server(&[&gateway], 1).limits(Limits::default().connections(2)).spawn(echo()).expect("started");
    registered(&gateway, 1);
    let link = Endpoint::client(client_addr(&gateway)).expect("connected");
    let served: Vec<_> = (0..2).map(|_| link.dial(1, PATIENCE).expect("open")).collect();
    let third = link.dial(1, PATIENCE).expect("the gateway accepts it");
    assert_eq!(third.recv(PATIENCE).expect("it ends"), None);
    wait_until(|| endpoint.handle().sessions().metrics().refused_total() == 1);
    for conn in &served {
        conn.send(b"served").expect("sent");
        assert_eq!(conn.recv(PATIENCE).expect("it comes"), Some(b"served".to_vec()));
    }
    served[0].close();
    wait_until(|| endpoint.handle().sessions().session_count() == 1);
    let fourth = link.dial(1, PATIENCE).expect("open");
    fourth.send(b"there is room").expect("sent");
    assert_eq!(fourth.recv(PATIENCE).expect("it comes"), Some(b"there is room".to_vec()));
    drop((link, served, third, fourth));
    stop(endpoint, vec![gateway]);
}

#[test]
fn a_channel_reaches_a_thousand_virtual_sessions() {
    const CLIENTS: usize = 100;
    const EACH: usize = 10;
    let gateway = start(Threads::One, GatewayLimits::default());
    let noted = Noted::default();
    let endpoint = server(&[&gateway], 1).spawn(noted.clone()).expect("started");
    registered(&gateway, 1);
    let mut clients: Vec<Peer> = (0..CLIENTS).map(|_| Peer::client(&gateway)).collect();
    for client in &mut clients {
        for _ in 0..EACH {
            let conn = client.new_conn();
            client.command(Command::Dial { conn, remote: 1 });
            client.expect_command(Command::Accept { conn, remote: 1 });
        }
    }
    wait_until(|| lock(&noted.opened).len() == CLIENTS * EACH);
    let channel = Channel::new();
    lock(&noted.opened).iter().for_each(|(_, handle)| channel.join(handle).expect("it is open"));
    let publishing = channel.clone();
    let publisher = thread::spawn(move || {
        for number in 0_u32..20 {
            assert_eq!(publishing.publish(number.to_string()), Ok(CLIENTS * EACH));
        }
    });
    for client in &mut clients {
        let mut next = std::collections::HashMap::new();
        for _ in 0..20 * EACH {
            let frame = client.frame();
            let seen: &mut u32 = next.entry(frame[4..8].to_vec()).or_default();
            assert_eq!(frame[8..], *seen.to_string().as_bytes(), "in order");
            *seen += 1;
        }
        assert_eq!(next.len(), EACH);
    }
    publisher.join().expect("it does not panic");
    drop(clients);
    wait_until(|| channel.is_empty());
    stop(endpoint, vec![gateway]);
}

#[test]
fn the_other_dialect_is_spoken_and_a_wrong_key_serves_nobody() {
    let keys = Keys::new([KEY]).expect("a key");
    let gateway = Gateway::new()
        .clients("127.0.0.1:0")
        .servers("127.0.0.1:0", Dialect::HmacSha256, keys)
        .spawn()
        .expect("started");
    let addr = server_addr(&gateway).to_string();
    let wrong = ServerEndpoint::new([addr.clone()], 1, "another key").dialect(Dialect::HmacSha256);
    let wrong = wrong.options(options()).spawn(echo()).expect("started");
    let right = ServerEndpoint::new([addr], 2, KEY).dialect(Dialect::HmacSha256);
    let right = right.options(options()).spawn(echo()).expect("started");
    registered(&gateway, 2);
    wait_until(|| gateway.metrics().servers_refused > 1);
    assert!(gateway.snapshot().servers.iter().all(|server| server.id == 2));
    let link = Endpoint::client(client_addr(&gateway)).expect("connected");
    let conn = link.dial(2, PATIENCE).expect("open");
    conn.send(b"hello").expect("sent");
    assert_eq!(conn.recv(PATIENCE).expect("it comes"), Some(b"hello".to_vec()));
    assert!(link.dial(1, PATIENCE).is_err());
    drop((link, conn));
    wrong.stop(PATIENCE).expect("it stops in peace");
    stop(right, vec![gateway]);
}

#[test]
fn a_stop_says_farewell_to_clients_before_the_link_ends() {
    #[derive(Clone)]
    struct Polite;

    impl PacketHandler for Polite {
        type State = ();

        fn on_open(&mut self, _: &mut Session<'_>) -> Handled {
            Ok(())
        }

        fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
            Ok(session.send(packet)?)
        }

        fn on_shutdown(&mut self, session: &mut Session<'_>, (): &mut ()) -> Handled<framewire::Then> {
            session.send("farewell")?;
            Ok(framewire::Then::Close)
        }
    }
    let gateway = start(Threads::One, GatewayLimits::default());
    let endpoint = server(&[&gateway], 1).spawn(Polite).expect("started");
    registered(&gateway, 1);
    let link = Endpoint::client(client_addr(&gateway)).expect("connected");
    let conns: Vec<_> = (0..5).map(|_| link.dial(1, PATIENCE).expect("open")).collect();
    wait_until(|| endpoint.handle().sessions().session_count() == 5);
    endpoint.stop(PATIENCE).expect("it stops in peace");
    for conn in &conns {
        assert_eq!(conn.recv(PATIENCE).expect("it comes"), Some(b"farewell".to_vec()));
        assert_eq!(conn.recv(PATIENCE).expect("it ends"), None);
    }
    drop((link, conns));
    gateway.stop(PATIENCE).expect("it stops in peace");
}

#[test]
fn a_thread_for_each_connection_is_refused_by_name() {
    let endpoint = ServerEndpoint::new(["127.0.0.1:1"], 1, KEY).strategy(ThreadPerConnection::max(10));
    let error = endpoint.spawn(echo()).expect_err("it cannot").to_string();
    assert!(error.contains("ThreadPerConnection cannot carry streams"), "{error}");
}
