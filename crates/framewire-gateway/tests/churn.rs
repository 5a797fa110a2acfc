//! Clients that come and go by the thousand, and leave nothing behind in the program. `cargo bench --bench churn` does so
//! for minutes.
#![cfg(target_os = "linux")]

mod common;

use std::{
    net::SocketAddr,
    thread::{self, JoinHandle},
};

use common::{
    KEY, Peer, message,
    running::{Running, server},
    wait_until,
};
use framewire_gateway::protocol::Command;

const THREADS: u32 = 4;
/// Bytes that the program may hold more after the second half than after the first: caches, not clients.
const TOLERANCE: u64 = 4 << 20;

/// Sends back what comes, until the link ends.
fn echo(mut link: Peer) -> JoinHandle<()> {
    thread::spawn(move || {
        while let Ok(frame) = link.try_frame() {
            if frame[4..8] != [0; 4] {
                link.write(&frame);
            }
        }
    })
}

/// Lets clients come, be served, and go in one of several ways.
fn churn([clients, servers, _]: [SocketAddr; 3], visits: u32) {
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for visit in (thread..visits).step_by(THREADS as usize) {
                    if visit % 50 == 0 {
                        let mut stranger = Peer::connect(servers);
                        stranger.prove(b"not the key", visit);
                        stranger.expect_silent_end();
                    }
                    let mut client = Peer::connect(clients);
                    let (conn, remote) = (client.new_conn(), visit % 2);
                    client.command(Command::Dial { conn, remote });
                    client.expect_command(Command::Accept { conn, remote });
                    let frame = message(conn, &visit.to_le_bytes());
                    client.write(&frame);
                    match visit % 5 {
                        // It leaves with its reply on the way.
                        0 => {}
                        // It leaves in the middle of a frame.
                        1 => client.write(&frame[..frame.len() - 1]),
                        2 => {
                            client.expect(&frame);
                            client.command(Command::Close { conn });
                            client.expect_command(Command::Close { conn });
                        }
                        // It leaves an ID behind that it has not dialed.
                        3 => {
                            client.expect(&frame);
                            client.new_conn();
                        }
                        _ => client.expect(&frame),
                    }
                }
            });
        }
    });
}

#[test]
fn thousands_of_clients_that_come_and_go_leave_nothing_behind() {
    const VISITS: u32 = 1_500;
    for (name, head) in [("churn-1", ""), ("churn-2", "workers = 2\nreuse_port = true\n")] {
        let mut running = Running::start(name, head);
        let addrs = running.addrs();
        let echoes = [0, 1].map(|id| echo(server(addrs[1], addrs[2], KEY, id)));
        let is_empty = || {
            let status = Running::status(addrs[2]);
            status["clients"] == 0 && status["connections"] == 0
        };
        churn(addrs, VISITS);
        wait_until(is_empty);
        let (descriptors, memory) = (running.descriptors(), running.memory());
        churn(addrs, VISITS);
        wait_until(is_empty);
        wait_until(|| running.descriptors() <= descriptors);
        let more = running.memory().saturating_sub(memory);
        assert!(more <= TOLERANCE, "{more} bytes more after as many clients again");
        wait_until(|| {
            let counters = &Running::status(addrs[2])["counters"];
            counters["closed"] == 2 * VISITS && counters["opened"] == 2 * VISITS
        });
        for link in Running::status(addrs[2])["servers"].as_array().expect("servers") {
            assert_eq!(link["connections"], 0, "every slot is given back");
        }
        drop(running);
        echoes.into_iter().for_each(|echo| echo.join().expect("no panic"));
    }
}
