//! Dials of endpoints, of both sides: each ends, and is taken for no other.

mod common;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
    time::Duration,
};

use common::{
    PATIENCE, THREADS, Threads, client_addr,
    endpoints::{Noted, dial, echo, lock, options, registered, server, stop},
    start, wait_until,
};
use framewire::{CloseKind, Limits};
use framewire_gateway::{ClientEndpoint, GatewayLimits, VirtualDialError, protocol::Command};

#[test]
fn a_client_endpoint_dials_servers_and_has_several_connections_over_one_link() {
    for threads in THREADS {
        let gateway = start(*threads, GatewayLimits::default());
        let servers: Vec<_> =
            [1, 2].map(|id| server(&[&gateway], id).spawn(echo()).expect("started")).into_iter().collect();
        [1, 2].into_iter().for_each(|id| registered(&gateway, id));
        let noted = Noted::default();
        let client = ClientEndpoint::new([client_addr(&gateway).to_string()]).options(options());
        let client = client.spawn(noted.clone()).expect("started");
        let early = dial(&client, 1, PATIENCE).recv_timeout(PATIENCE).expect("it ends");
        assert!(matches!(early, Ok(()) | Err(VirtualDialError::NotConnected)), "{early:?}");
        assert!(client.wait_connected(PATIENCE));
        let before = usize::from(early.is_ok());
        wait_until(|| lock(&noted.opened).len() == before);
        let outcomes = [1, 2, 1].map(|id| dial(&client, id, PATIENCE));
        for outcome in outcomes {
            assert_eq!(outcome.recv_timeout(PATIENCE), Ok(Ok(())));
        }
        wait_until(|| lock(&noted.opened).len() == before + 3);
        let opened: Vec<_> = lock(&noted.opened).clone().split_off(before);
        let mut remotes: Vec<u32> = opened.iter().map(|(known, _)| known.remote).collect();
        remotes.sort_unstable();
        assert_eq!(remotes, [1, 1, 2]);
        let mut dials: Vec<_> = opened.iter().map(|(known, _)| known.dial.expect("dialed here")).collect();
        dials.sort_unstable();
        dials.dedup();
        assert_eq!(dials.len(), 3);
        opened.iter().for_each(|(_, handle)| handle.send("quiet").expect("it is open"));
        wait_until(|| lock(&noted.heard).len() == 3);
        let nobody = dial(&client, 99, PATIENCE).recv_timeout(PATIENCE).expect("it ends");
        assert!(matches!(nobody, Err(VirtualDialError::Refused { remote: 99, .. })), "{nobody:?}");
        client.stop(PATIENCE).expect("it stops in peace");
        for server in servers {
            wait_until(|| server.handle().sessions().session_count() == 0);
            server.stop(PATIENCE).expect("it stops in peace");
        }
        gateway.stop(PATIENCE).expect("it stops in peace");
    }
}

#[test]
fn a_server_endpoint_dials_clients() {
    let gateway = start(Threads::One, GatewayLimits::default());
    let noted = Noted::default();
    let server = server(&[&gateway], 1).spawn(noted.clone()).expect("started");
    registered(&gateway, 1);
    let accepting = Noted::default();
    let client = ClientEndpoint::new([client_addr(&gateway).to_string()]).options(options());
    let client = client.limits(Limits::default().connections(1)).spawn(accepting.clone()).expect("started");
    assert!(client.wait_connected(PATIENCE));
    // The client makes itself known.
    assert_eq!(dial(&client, 1, PATIENCE).recv_timeout(PATIENCE), Ok(Ok(())));
    wait_until(|| lock(&noted.opened).len() == 1);
    let (known, handle) = lock(&noted.opened)[0].clone();
    assert_eq!(known.dial, None, "the client has dialed");
    handle.close().expect("it is open");
    wait_until(|| client.handle().sessions().session_count() == 0);
    assert_eq!(dial(&server, known.remote, PATIENCE).recv_timeout(PATIENCE), Ok(Ok(())));
    wait_until(|| lock(&accepting.opened).len() == 2);
    let (incoming, _) = lock(&accepting.opened)[1].clone();
    assert_eq!((incoming.remote, incoming.dial), (1, None));
    // Another one is beyond the client's limit: it is accepted by the gateway, and closed by the client.
    assert_eq!(dial(&server, known.remote, PATIENCE).recv_timeout(PATIENCE), Ok(Ok(())));
    wait_until(|| noted.closes().iter().filter(|(_, kind)| *kind == CloseKind::PeerClosed).count() == 1);
    client.stop(PATIENCE).expect("it stops in peace");
    stop(server, vec![gateway]);
}

#[test]
fn every_dial_ends_also_when_the_gateway_says_nothing_or_the_link_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address").to_string();
    let client = ClientEndpoint::new([addr]).options(options()).spawn(echo()).expect("started");
    let (silent, _) = listener.accept().expect("it dials");
    assert!(client.wait_connected(PATIENCE));
    let late = dial(&client, 1, Duration::from_millis(30));
    assert_eq!(late.recv_timeout(PATIENCE), Ok(Err(VirtualDialError::TimedOut(Duration::from_millis(30)))));
    let counted = Arc::new(AtomicUsize::new(0));
    let lost: Vec<_> = (0..10)
        .map(|_| {
            let counted = counted.clone();
            let (told, outcome) = channel();
            client.handle().dial(1, PATIENCE, move |how| {
                counted.fetch_add(1, Ordering::Relaxed);
                told.send(how).expect("the test waits");
            });
            outcome
        })
        .collect();
    // All of them have asked.
    let mut asked = [0; 11 * 9];
    (&silent).read_exact(&mut asked).expect("they ask");
    drop(silent);
    for outcome in lost {
        assert_eq!(outcome.recv_timeout(PATIENCE), Ok(Err(VirtualDialError::LinkLost)));
    }
    assert_eq!(counted.load(Ordering::Relaxed), 10, "each is told once");
    drop(listener);
    client.stop(PATIENCE).expect("it stops in peace");
}

fn say(mut link: &TcpStream, command: Command) {
    link.write_all(&command.frame()).expect("written");
}

fn hear(mut link: &TcpStream, command: Command) {
    let frame = command.frame();
    let mut heard = vec![0; frame.len()];
    link.read_exact(&mut heard).expect("it comes");
    assert_eq!(heard, *frame, "{command:?}");
}

/// The link ends, and nothing more comes over it.
fn expect_end(mut link: &TcpStream) {
    let ended = link.read(&mut [0]);
    let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    assert!(matches!(&ended, Ok(0)) || ended.as_ref().is_err_and(reset), "{ended:?}");
}

#[test]
fn an_accept_that_comes_too_late_is_closed_and_not_taken_for_another() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address").to_string();
    let noted = Noted::default();
    let client = ClientEndpoint::new([addr]).options(options()).spawn(noted.clone()).expect("started");
    let (link, _) = listener.accept().expect("it dials");
    link.set_read_timeout(Some(PATIENCE)).expect("an option");
    assert!(client.wait_connected(PATIENCE));
    let (say, hear) = (|command| say(&link, command), |command| hear(&link, command));
    let late = dial(&client, 5, Duration::from_millis(50));
    hear(Command::New);
    say(Command::Open { conn: 8 });
    hear(Command::Dial { conn: 8, remote: 5 });
    assert!(matches!(late.recv_timeout(PATIENCE), Ok(Err(VirtualDialError::TimedOut(_)))));
    say(Command::Accept { conn: 8, remote: 5 });
    hear(Command::Close { conn: 8 });
    // One of the other side is accepted, with whatever number.
    say(Command::Accept { conn: 9, remote: 6 });
    wait_until(|| lock(&noted.opened).len() == 1);
    assert_eq!(lock(&noted.opened)[0].0.dial, None);
    say(Command::Ping);
    hear(Command::Ping);
    drop((link, listener));
    client.stop(PATIENCE).expect("it stops in peace");
}

#[test]
fn a_gateway_that_gives_a_connection_the_id_of_commands_loses_the_link() {
    for command in [Command::Open { conn: 0 }, Command::Accept { conn: 0, remote: 6 }] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("an address").to_string();
        let noted = Noted::default();
        let client = ClientEndpoint::new([addr]).options(options()).spawn(noted.clone()).expect("started");
        let (link, _) = listener.accept().expect("it dials");
        link.set_read_timeout(Some(PATIENCE)).expect("an option");
        assert!(client.wait_connected(PATIENCE));
        say(&link, command);
        expect_end(&link);
        assert!(lock(&noted.opened).is_empty());
        drop((link, listener));
        client.stop(PATIENCE).expect("it stops in peace");
    }
}

#[test]
fn as_many_dials_wait_for_a_gateway_as_may_and_one_more_when_one_is_answered() {
    const MOST: u32 = 1024;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address").to_string();
    let client = ClientEndpoint::new([addr]).options(options()).spawn(echo()).expect("started");
    let (link, _) = listener.accept().expect("it dials");
    link.set_read_timeout(Some(PATIENCE)).expect("an option");
    assert!(client.wait_connected(PATIENCE));
    let waiting: Vec<_> = (1..=MOST)
        .map(|conn| {
            let outcome = dial(&client, 5, PATIENCE * 10);
            hear(&link, Command::New);
            say(&link, Command::Open { conn });
            hear(&link, Command::Dial { conn, remote: 5 });
            outcome
        })
        .collect();
    let too_many = Ok(Err(VirtualDialError::TooMany(MOST as usize)));
    assert_eq!(dial(&client, 5, PATIENCE).recv_timeout(PATIENCE), too_many);
    say(&link, Command::Refuse { conn: 1 });
    let refused = waiting[0].recv_timeout(PATIENCE).expect("it ends");
    assert!(matches!(refused, Err(VirtualDialError::Refused { remote: 5, .. })), "{refused:?}");
    let last = dial(&client, 6, PATIENCE);
    hear(&link, Command::New);
    assert_eq!(dial(&client, 5, PATIENCE).recv_timeout(PATIENCE), too_many);
    drop((link, listener));
    for outcome in waiting.into_iter().skip(1).chain([last]) {
        assert_eq!(outcome.recv_timeout(PATIENCE), Ok(Err(VirtualDialError::LinkLost)));
    }
    client.stop(PATIENCE).expect("it stops in peace");
}

#[test]
fn a_gateway_that_gives_two_dials_the_same_id_loses_the_link() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address").to_string();
    let client = ClientEndpoint::new([addr]).options(options()).spawn(echo()).expect("started");
    let (link, _) = listener.accept().expect("it dials");
    link.set_read_timeout(Some(PATIENCE)).expect("an option");
    assert!(client.wait_connected(PATIENCE));
    let outcomes = [5, 6].map(|remote| dial(&client, remote, PATIENCE));
    hear(&link, Command::New);
    hear(&link, Command::New);
    say(&link, Command::Open { conn: 8 });
    hear(&link, Command::Dial { conn: 8, remote: 5 });
    say(&link, Command::Open { conn: 8 });
    expect_end(&link);
    for outcome in outcomes {
        assert_eq!(outcome.recv_timeout(PATIENCE), Ok(Err(VirtualDialError::LinkLost)));
    }
    drop((link, listener));
    client.stop(PATIENCE).expect("it stops in peace");
}
