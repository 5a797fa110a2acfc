//! Each peer that misbehaves costs itself something, and nobody else. One test for each row of what the original gets
//! wrong, over real sockets, on one thread and on several.

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    time::{Duration, Instant},
};

use common::{PATIENCE, Peer, THREADS, Threads, audit, message, start, wait_until};
use framewire_gateway::{GatewayLimits, RunningGateway, protocol::Command};

/// A frame of this size fills kernel buffers soon.
const LARGE: usize = 60_000;

/// Sends frames until the peer's kernel takes no more for a while, or `most` were written. Returns how many.
fn flood(peer: &mut Peer, conn: u32, most: usize) -> usize {
    let frame = message(conn, &[9; LARGE]);
    peer.stream().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut rest: Vec<u8> = Vec::new();
    let mut written = 0;
    'frames: while written < most {
        rest.extend_from_slice(&frame);
        while !rest.is_empty() {
            match peer.stream().write(&rest) {
                Ok(n) => drop(rest.drain(..n)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    break 'frames;
                }
                Err(error) => panic!("{error}"),
            }
        }
        written += 1;
    }
    peer.stream().set_write_timeout(Some(PATIENCE)).unwrap();
    written
}

#[test]
fn a_client_that_does_not_read_loses_its_connection_and_the_server_keeps_its_link() {
    for &threads in THREADS {
        let gateway = start(threads, GatewayLimits::default());
        let mut server = Peer::server(&gateway, 1);
        let (mut slow, mut bystander) = (Peer::client(&gateway), Peer::client(&gateway));
        let (flooded, quiet) = (slow.dial(1, &mut server), slow.dial(1, &mut server));
        let other = bystander.dial(1, &mut server);
        let mut ponged = 0;
        // More than any socket buffer takes; a Close comes when the queue of the gateway is full.
        while gateway.metrics().overflows == 0 {
            assert!(ponged < 2000, "120 MB were taken for a client that does not read");
            server.say(flooded, &[9; LARGE]);
            server.say(other, b"ping");
            bystander.expect(&message(other, b"ping"));
            ponged += 1;
        }
        server.expect_command(Command::Close { conn: flooded });
        // The connection is gone, the links and the other connections are not.
        server.say(quiet, b"you there");
        let mut seen = slow.frame();
        let mut floods = 0;
        let closed = Command::Close { conn: flooded }.frame();
        while seen != closed[..] {
            assert_eq!(seen, message(flooded, &[9; LARGE]), "whole, and in order");
            floods += 1;
            seen = slow.frame();
        }
        assert!(floods > 0);
        slow.expect(&message(quiet, b"you there"));
        slow.say(quiet, b"here");
        server.expect(&message(quiet, b"here"));
        drop((slow, bystander, server));
        audit(gateway);
    }
}

#[test]
fn a_server_that_does_not_read_stops_its_senders_and_loses_nothing() {
    for &threads in THREADS {
        let gateway = start(threads, GatewayLimits::default());
        let (mut slow, mut quick) = (Peer::server(&gateway, 1), Peer::server(&gateway, 2));
        let (mut sender, mut bystander) = (Peer::client(&gateway), Peer::client(&gateway));
        let conn = sender.dial(1, &mut slow);
        let other = bystander.dial(2, &mut quick);
        let mut sender_side = sender;
        let written = std::thread::scope(|scope| {
            let sending = scope.spawn(|| flood(&mut sender_side, conn, 2000));
            for _ in 0..200 {
                bystander.say(other, b"ping");
                quick.expect(&message(other, b"ping"));
            }
            sending.join().expect("no panic")
        });
        assert!(written < 2000, "120 MB were taken for a server that does not read, {threads:?}");
        assert!(gateway.metrics().holds > 0, "the sender is held, not dropped");
        for _ in 0..written {
            slow.expect(&message(conn, &[9; LARGE]));
        }
        assert_eq!(gateway.metrics().overflows, 0);
        drop((sender_side, bystander, slow, quick));
        audit(gateway);
    }
}

#[test]
fn nobody_can_send_on_or_close_a_connection_of_others() {
    for &threads in THREADS {
        let gateway = start(threads, GatewayLimits::default());
        let (mut client, mut server) = (Peer::client(&gateway), Peer::server(&gateway, 1));
        let conn = client.dial(1, &mut server);
        let (mut thief, mut thieving) = (Peer::client(&gateway), Peer::server(&gateway, 2));
        for thief in [&mut thief, &mut thieving] {
            for guess in 0..100 {
                thief.command(Command::Close { conn: guess });
                thief.command(Command::Dial { conn: guess, remote: 1 });
                thief.expect_command(Command::Refuse { conn: guess });
                if guess > 0 {
                    thief.say(guess, b"forged");
                    thief.expect_command(Command::Close { conn: guess });
                }
            }
        }
        client.say(conn, b"mine");
        server.expect(&message(conn, b"mine"));
        server.say(conn, b"yours");
        client.expect(&message(conn, b"yours"));
        assert_eq!(gateway.metrics().strays, 198);
        drop((client, server, thief, thieving));
        audit(gateway);
    }
}

#[test]
fn guesses_above_a_rate_end_the_link() {
    let gateway = start(Threads::One, GatewayLimits { strays_per_second: 50, ..GatewayLimits::default() });
    let mut guesser = Peer::client(&gateway);
    let began = Instant::now();
    let guess = message(77, b"guess");
    while gateway.metrics().links_strayed == 0 {
        assert!(began.elapsed() < PATIENCE);
        if guesser.stream().write_all(&guess.repeat(100)).is_err() {
            wait_until(|| gateway.metrics().links_strayed == 1);
        }
    }
    guesser.expect_end();
    audit(gateway);
}

#[test]
fn data_after_a_close_does_not_cost_the_sender_its_link() {
    for &threads in THREADS {
        let gateway = start(threads, GatewayLimits { strays_per_second: 10, ..GatewayLimits::default() });
        let (mut client, mut server) = (Peer::client(&gateway), Peer::server(&gateway, 1));
        for _ in 0..5 {
            let conn = client.dial(1, &mut server);
            client.command(Command::Close { conn });
            client.expect_command(Command::Close { conn });
            for _ in 0..100 {
                server.say(conn, b"in flight");
            }
            server.expect_command(Command::Close { conn });
        }
        wait_until(|| gateway.metrics().late > 0);
        server.expect_nothing();
        client.expect_nothing();
        drop((client, server));
        audit(gateway);
    }
}

#[test]
fn the_other_ends_hear_at_once_of_a_link_that_is_gone() {
    for &threads in THREADS {
        let gateway = start(threads, GatewayLimits::default());
        let mut server = Peer::server(&gateway, 1);
        let mut clients: Vec<Peer> = (0..10).map(|_| Peer::client(&gateway)).collect();
        let conns: Vec<u32> = clients.iter_mut().map(|client| client.dial(1, &mut server)).collect();
        let gone = clients.remove(0);
        drop(gone);
        server.expect_command(Command::Close { conn: conns[0] });
        drop(server);
        for (client, conn) in clients.iter_mut().zip(&conns[1..]) {
            client.expect_command(Command::Close { conn: *conn });
        }
        // And are served again by a server that comes back.
        let mut server = Peer::server(&gateway, 1);
        for client in &mut clients {
            client.dial(1, &mut server);
        }
        drop((clients, server));
        audit(gateway);
    }
}

#[test]
fn an_older_server_with_the_same_id_keeps_its_connections_and_is_found_again() {
    for &threads in THREADS {
        let gateway = start(threads, GatewayLimits::default());
        let mut client = Peer::client(&gateway);
        let mut older = Peer::server(&gateway, 1);
        let kept = client.dial(1, &mut older);
        let mut newer = Peer::server(&gateway, 1);
        wait_until(|| gateway.snapshot().servers.len() == 2);
        let conn = client.dial(1, &mut newer);
        client.say(kept, b"to the older");
        older.expect(&message(kept, b"to the older"));
        drop(newer);
        client.expect_command(Command::Close { conn });
        client.dial(1, &mut older);
        drop((client, older));
        audit(gateway);
    }
}

#[test]
fn a_server_dials_clients_within_their_limit() {
    for &threads in THREADS {
        let limits = GatewayLimits { connections_per_client: 2, ..GatewayLimits::default() };
        let gateway = start(threads, limits);
        let (mut client, mut server) = (Peer::client(&gateway), Peer::server(&gateway, 1));
        let dialed = client.dial(1, &mut server);
        let conn = server.new_conn();
        server.command(Command::Dial { conn, remote: 1 });
        server.expect_command(Command::Accept { conn, remote: 1 });
        client.expect_command(Command::Accept { conn, remote: 1 });
        let third = server.new_conn();
        for _ in 0..2 {
            server.command(Command::Dial { conn: third, remote: 1 });
            server.expect_command(Command::Refuse { conn: third });
        }
        client.command(Command::Close { conn: dialed });
        client.expect_command(Command::Close { conn: dialed });
        server.expect_command(Command::Close { conn: dialed });
        server.command(Command::Dial { conn: third, remote: 1 });
        server.expect_command(Command::Accept { conn: third, remote: 1 });
        drop((client, server));
        audit(gateway);
    }
}

#[test]
fn a_flood_of_commands_holds_up_nobody() {
    let gateway = start(Threads::One, GatewayLimits::default());
    let (mut client, mut server) = (Peer::client(&gateway), Peer::server(&gateway, 1));
    let conn = client.dial(1, &mut server);
    let flooder = Peer::client(&gateway);
    flooder.stream().set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let news = Command::New.frame().repeat(1000);
            let mut stream = flooder.stream();
            // Until its replies, which it does not read, stop it: it blocks, or its link is ended.
            for _ in 0..100_000 {
                if stream.write_all(&news).is_err() {
                    return true;
                }
            }
            false
        });
        for _ in 0..200 {
            client.say(conn, b"ping");
            server.expect(&message(conn, b"ping"));
        }
        assert!(flooding.join().expect("no panic"), "the flood is stopped");
    });
    drop((client, server, flooder));
    audit(gateway);
}

#[test]
fn links_that_come_and_go_leave_nothing_behind() {
    for &threads in THREADS {
        let gateway = start(threads, GatewayLimits::default());
        let mut server = Peer::server(&gateway, 1);
        for round in 0..200 {
            let mut client = Peer::client(&gateway);
            let conn = client.dial(1, &mut server);
            client.say(conn, b"hello");
            server.expect(&message(conn, b"hello"));
            match round % 3 {
                0 => server.command(Command::Close { conn }),
                1 => client.command(Command::Close { conn }),
                _ => {}
            }
            drop(client);
            server.expect_command(Command::Close { conn });
        }
        assert_eq!(connections(&gateway), 0);
        drop(server);
        audit(gateway);
    }
}

fn connections(gateway: &RunningGateway) -> usize {
    gateway.snapshot().connections
}

#[test]
fn a_peer_that_leaves_in_the_middle_of_a_frame_does_no_harm() {
    let gateway = start(Threads::One, GatewayLimits::default());
    let (mut client, mut server) = (Peer::client(&gateway), Peer::server(&gateway, 1));
    let conn = client.dial(1, &mut server);
    let frame = message(conn, b"never whole");
    client.write(&frame[..frame.len() - 1]);
    drop(client);
    server.expect_command(Command::Close { conn });
    let mut rest = [0; 1];
    server.stream().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let nothing = server.stream().read(&mut rest).unwrap_err();
    assert!(
        matches!(nothing.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "half a frame is not forwarded"
    );
    drop(server);
    audit(gateway);
}
