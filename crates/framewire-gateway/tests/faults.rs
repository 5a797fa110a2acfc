//! What breaks peers of the program in earnest: signals, windows of no bytes, floods of nonsense. Others go on
//! meanwhile.
#![cfg(unix)]

mod common;

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command as Program, Stdio},
    thread,
    time::Duration,
};

use common::{
    KEY, PATIENCE, Peer,
    bystander::Bystander,
    cases::broken,
    message,
    running::{Running, server},
    wait_until,
};
use framewire_gateway::protocol::Command;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use socket2::{Domain, Socket, Type};

/// One thread, and several.
const HEADS: [&str; 2] = ["", "workers = 2\n"];
const LARGE: usize = 60_000;

/// The program, with somebody who does nothing wrong.
fn start(name: &str, head: &str) -> (Running, [SocketAddr; 3], Bystander) {
    let mut running = Running::start(&format!("{name}-{}", head.len()), head);
    let addrs = running.addrs();
    (running, addrs, Bystander::start(addrs))
}

/// A peer in a process of its own: the echo of the examples.
struct Process(Child);

impl Process {
    fn start(role: &str, id: u32, addr: SocketAddr) -> Self {
        let program = std::env::current_exe().expect("a path");
        let dir = program.parent().and_then(|deps| deps.parent()).expect("a directory");
        let mut child = Program::new(dir.join("examples/gateway_echo"))
            .args([role, &id.to_string(), &addr.to_string(), KEY])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the example is built with the tests");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert_eq!(line, "connected\n");
        Self(child)
    }

    /// Starts a server, and waits until it can be dialed.
    fn server(id: u32, [_, servers, page]: [SocketAddr; 3]) -> Self {
        let process = Self::start("server", id, servers);
        wait_until(|| takes_dials(page, id));
        process
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).expect("sent");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn takes_dials(page: SocketAddr, id: u32) -> bool {
    let status = Running::status(page);
    status["servers"].as_array().expect("servers").iter().any(|server| server["id"] == id)
}

fn counter(page: SocketAddr, name: &str) -> u64 {
    Running::status(page)["counters"][name].as_u64().expect("a counter")
}

/// Dials a server that is in another process.
fn dial(client: &mut Peer, remote: u32) -> u32 {
    let conn = client.new_conn();
    client.command(Command::Dial { conn, remote });
    client.expect_command(Command::Accept { conn, remote });
    conn
}

fn expect_echo(client: &mut Peer, conn: u32, payload: &[u8]) {
    client.say(conn, payload);
    client.expect(&message(conn, payload));
}

#[test]
fn clients_of_a_server_that_is_killed_are_told_and_served_by_the_next_one() {
    for head in HEADS {
        let (_running, addrs, bystander) = start("killed-server", head);
        let mut echo = Process::server(1, addrs);
        let mut clients: Vec<Peer> = (0..50).map(|_| Peer::connect(addrs[0])).collect();
        for _ in 0..3 {
            let conns: Vec<u32> = clients.iter_mut().map(|client| dial(client, 1)).collect();
            for (client, conn) in clients.iter_mut().zip(&conns) {
                expect_echo(client, *conn, b"served");
            }
            echo.signal(Signal::SIGKILL);
            for (client, conn) in clients.iter_mut().zip(conns) {
                client.expect_command(Command::Close { conn });
            }
            bystander.goes_on();
            wait_until(|| !takes_dials(addrs[2], 1));
            echo = Process::server(1, addrs);
        }
        bystander.stop();
    }
}

#[test]
fn a_server_is_told_of_clients_that_are_killed() {
    for head in HEADS {
        let (_running, addrs, bystander) = start("killed-clients", head);
        let mut own = server(addrs[1], addrs[2], KEY, 1);
        let clients: Vec<Process> = (0..10).map(|_| Process::start("client", 1, addrs[0])).collect();
        let accepted: Vec<[u8; 4]> = (0..10).map(|_| own.frame()[9..13].try_into().expect("an ID")).collect();
        clients.iter().for_each(|client| client.signal(Signal::SIGKILL));
        let mut closed: Vec<[u8; 4]> = (0..10)
            .map(|_| {
                let close = own.frame();
                assert_eq!(close[..9], [9, 0, 0, 0, 0, 0, 0, 0, 5]);
                close[9..13].try_into().expect("an ID")
            })
            .collect();
        closed.sort_unstable();
        let mut accepted = accepted;
        accepted.sort_unstable();
        assert_eq!(closed, accepted);
        bystander.goes_on();
        wait_until(|| Running::status(addrs[2])["connections"] == 1);
        bystander.stop();
    }
}

/// Writes until the peer's kernel takes no more for a while. Returns how many whole frames were written.
fn flood(peer: &mut Peer, conn: u32, most: usize) -> usize {
    let frame = message(conn, &[9; LARGE]);
    peer.stream().set_write_timeout(Some(Duration::from_millis(500))).expect("an option");
    for written in 0..most {
        match peer.stream().write_all(&frame) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return written;
            }
            Err(error) => panic!("{error}"),
        }
    }
    most
}

#[test]
fn a_server_that_is_stopped_holds_its_senders_and_goes_on_with_what_has_waited() {
    for head in HEADS {
        let (_running, addrs, bystander) = start("stopped-server", head);
        let echo = Process::server(1, addrs);
        let mut client = Peer::connect(addrs[0]);
        let mut flooder = Peer::connect(addrs[0]);
        let (conn, flooded) = (dial(&mut client, 1), dial(&mut flooder, 1));
        expect_echo(&mut client, conn, b"before");
        echo.signal(Signal::SIGSTOP);
        for number in 0..100_u32 {
            client.say(conn, &number.to_le_bytes());
        }
        let written = flood(&mut flooder, flooded, 2_000);
        assert!(written < 2_000, "120 MB were taken for a server that is stopped");
        bystander.goes_on();
        assert_eq!(counter(addrs[2], "overflows"), 0);
        assert!(counter(addrs[2], "holds") > 0);
        echo.signal(Signal::SIGCONT);
        for number in 0..100_u32 {
            client.expect(&message(conn, &number.to_le_bytes()));
        }
        drop(flooder);
        expect_echo(&mut client, conn, b"after");
        bystander.stop();
    }
}

#[test]
fn a_client_that_is_stopped_loses_its_connection_and_its_server_nothing() {
    for head in HEADS {
        let (_running, addrs, bystander) = start("stopped-client", head);
        let mut own = server(addrs[1], addrs[2], KEY, 1);
        let stopped = Process::start("client", 1, addrs[0]);
        let conn = u32::from_le_bytes(own.frame()[9..13].try_into().expect("an ID"));
        let mut client = Peer::connect(addrs[0]);
        let other = client.dial(1, &mut own);
        stopped.signal(Signal::SIGSTOP);
        let mut said = 0;
        while counter(addrs[2], "overflows") == 0 {
            assert!(said < 2_000, "120 MB were taken for a client that is stopped");
            own.say(conn, &[9; LARGE]);
            said += 1;
        }
        own.expect_command(Command::Close { conn });
        own.say(other, b"still here");
        client.expect(&message(other, b"still here"));
        bystander.goes_on();
        stopped.signal(Signal::SIGCONT);
        bystander.stop();
    }
}

#[test]
fn peers_that_write_one_byte_at_a_time_are_served_and_hold_up_nobody() {
    for head in HEADS {
        let (_running, addrs, bystander) = start("one-byte", head);
        let mut own = server(addrs[1], addrs[2], KEY, 1);
        let mut clients: Vec<Peer> = (0..10).map(|_| Peer::connect(addrs[0])).collect();
        let conns: Vec<u32> = clients.iter_mut().map(|client| client.dial(1, &mut own)).collect();
        let frames: Vec<Vec<u8>> = conns.iter().map(|conn| message(*conn, b"byte by byte")).collect();
        for at in 0..frames[0].len() {
            for (client, frame) in clients.iter_mut().zip(&frames) {
                client.write(&frame[at..=at]);
            }
            if at % 5 == 0 {
                bystander.goes_on();
            }
        }
        let mut seen: Vec<Vec<u8>> = frames.iter().map(|_| own.frame()).collect();
        seen.sort_unstable();
        let mut sent = frames.clone();
        sent.sort_unstable();
        assert_eq!(seen, sent);
        for byte in frames.concat() {
            own.write(&[byte]);
        }
        for (client, frame) in clients.iter_mut().zip(&frames) {
            client.expect(frame);
        }
        bystander.stop();
    }
}

/// Connects with the smallest window that the kernel gives.
fn narrow(addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(1).expect("an option");
    socket.connect(&addr.into()).expect("connected");
    socket.into()
}

#[test]
fn clients_whose_windows_are_closed_lose_what_overflows_and_are_told_when_they_read() {
    for head in HEADS {
        let (_running, addrs, bystander) = start("zero-window", head);
        let mut own = server(addrs[1], addrs[2], KEY, 1);
        let mut narrow: Vec<Peer> = (0..5).map(|_| Peer::of(narrow(addrs[0]))).collect();
        let conns: Vec<u32> = narrow.iter_mut().map(|client| client.dial(1, &mut own)).collect();
        let mut rounds = 0;
        while counter(addrs[2], "overflows") < 5 {
            assert!(rounds < 1_000, "300 MB were taken for clients that do not read");
            conns.iter().for_each(|conn| own.say(*conn, &[9; LARGE]));
            rounds += 1;
        }
        bystander.goes_on();
        let mut told: Vec<Vec<u8>> = conns.iter().map(|_| own.frame()).collect();
        told.sort_unstable();
        let mut closes: Vec<Vec<u8>> =
            conns.iter().map(|conn| Command::Close { conn: *conn }.frame().to_vec()).collect();
        closes.sort_unstable();
        assert_eq!(told, closes);
        for (client, conn) in narrow.iter_mut().zip(&conns) {
            let close = Command::Close { conn: *conn }.frame();
            let mut frame = client.frame();
            while frame != close[..] {
                assert_eq!(frame, message(*conn, &[9; LARGE]), "whole, and in order");
                frame = client.frame();
            }
            // The link itself is as good as before.
            client.expect_nothing();
        }
        bystander.stop();
    }
}

#[test]
fn floods_of_broken_frames_of_every_kind_end_their_own_links_only() {
    const EACH: usize = 10;
    let broken = broken();
    for head in HEADS {
        let (_running, addrs, bystander) = start("broken", head);
        thread::scope(|scope| {
            for frames in broken.chunks(4) {
                scope.spawn(move || {
                    for frame in (0..EACH).flat_map(|_| frames) {
                        let mut client = Peer::connect(addrs[0]);
                        client.write(frame);
                        client.expect_silent_end();
                        let mut server = Peer::connect(addrs[1]);
                        server.prove(KEY.as_bytes(), 1);
                        server.write(frame);
                        server.expect_silent_end();
                    }
                });
            }
            bystander.goes_on();
        });
        // Those that the framing finds are counted there.
        let by_commands = broken.iter().filter(|frame| frame.len() > 4 && frame[0] >= 4).count();
        assert_eq!(counter(addrs[2], "violations"), (2 * EACH * by_commands) as u64);
        bystander.stop();
    }
}

#[test]
fn a_storm_of_wrong_digests_lets_nobody_in_and_holds_up_nobody() {
    const THREADS: usize = 4;
    const EACH: usize = 100;
    for head in HEADS {
        let (_running, addrs, bystander) = start("digests", head);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let mut server = Peer::connect(addrs[1]);
                        server.prove(b"not the key", 1);
                        server.expect_silent_end();
                    }
                });
            }
            bystander.goes_on();
        });
        assert_eq!(counter(addrs[2], "servers_refused"), (THREADS * EACH) as u64);
        assert!(!takes_dials(addrs[2], 1));
        bystander.stop();
    }
}

#[test]
fn a_peer_that_says_nothing_is_let_go_of_when_it_leaves() {
    let (_running, addrs, bystander) = start("silent", "");
    let silent: Vec<TcpStream> =
        (0..200).map(|at| TcpStream::connect(addrs[at % 2]).expect("connected")).collect();
    wait_until(|| Running::status(addrs[2])["clients"] == 101);
    drop(silent);
    wait_until(|| Running::status(addrs[2])["clients"] == 1);
    bystander.stop();
    let mut page = TcpStream::connect(addrs[2]).expect("connected");
    page.set_read_timeout(Some(PATIENCE)).expect("an option");
    page.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
    let mut reply = String::new();
    page.read_to_string(&mut reply).expect("a text");
    assert!(reply.starts_with("HTTP/1.1 200 OK"));
}
