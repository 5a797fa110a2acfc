//! Listeners: several for each side, on several threads, and one for each worker.

mod common;

use common::{KEY, Peer, Threads, audit, message, start, wait_until};
use framewire_gateway::{Dialect, Gateway, GatewayLimits, Keys};

/// Sockets that listen on this port, as the kernel has them.
#[cfg(target_os = "linux")]
fn listening(port: u16) -> usize {
    const LISTEN: &str = "0A";
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let is_one = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
        local.ends_with(&format!(":{port:04X}")) && state == LISTEN
    };
    sockets.lines().filter(is_one).count()
}

#[cfg(target_os = "linux")]
#[test]
fn each_worker_has_a_listener_of_its_own_if_that_is_asked_for() {
    for (threads, listeners) in [(Threads::One, 1), (Threads::Several, 1), (Threads::Accepting, 2)] {
        let gateway = start(threads, GatewayLimits::default());
        for addr in [common::client_addr(&gateway), common::server_addr(&gateway)] {
            assert_eq!(listening(addr.port()), listeners, "{threads:?}");
        }
        audit(gateway);
    }
}

/// So many links that each of two workers certainly has some: the kernel spreads them by a hash.
#[cfg(target_os = "linux")]
#[test]
fn links_that_workers_accept_for_themselves_reach_each_other_across_them() {
    let gateway = start(Threads::Accepting, GatewayLimits::default());
    let mut servers: Vec<Peer> = (0..4).map(|id| Peer::server(&gateway, id)).collect();
    let mut clients: Vec<Peer> = (0..32).map(|_| Peer::client(&gateway)).collect();
    for client in &mut clients {
        for (id, server) in (0..).zip(&mut servers) {
            let conn = client.dial(id, server);
            let [there, back] = [message(conn, b"there"), message(conn, b"back")];
            client.write(&there);
            server.expect(&there);
            server.write(&back);
            client.expect(&back);
        }
    }
    assert_eq!(gateway.snapshot().connections, 4 * 32);
    drop((clients, servers));
    audit(gateway);
}

#[test]
fn every_listener_of_a_side_leads_to_the_same_gateway() {
    let keys = [KEY, "another key"].map(|key| Keys::new([key]).unwrap());
    let mut gateway = Gateway::new().clients("127.0.0.1:0").clients("127.0.0.1:0").workers(2);
    if cfg!(target_os = "linux") {
        gateway = gateway.reuse_port();
    }
    for keys in keys {
        gateway = gateway.servers("127.0.0.1:0", Dialect::Md5, keys);
    }
    let gateway = gateway.spawn().unwrap();
    let addr = |addr: &framewire::Addr| addr.socket_addr().expect("TCP");
    let mut servers = Vec::new();
    for (id, (at, key)) in (1..).zip(gateway.server_addrs().iter().zip([KEY, "another key"])) {
        let mut server = Peer::connect(addr(at));
        server.prove(key.as_bytes(), id);
        wait_until(|| gateway.snapshot().servers.iter().any(|server| server.id == id));
        servers.push(server);
    }
    let mut clients: Vec<Peer> = gateway.client_addrs().iter().map(|at| Peer::connect(addr(at))).collect();
    assert_eq!(clients.len(), 2);
    for client in &mut clients {
        for (id, server) in (1..).zip(&mut servers) {
            let conn = client.dial(id, server);
            client.say(conn, b"hello");
            server.expect(&message(conn, b"hello"));
        }
    }
    drop((clients, servers));
    audit(gateway);
}

#[test]
fn workers_that_accept_for_themselves_are_refused_where_they_cannot() {
    let without_workers = Gateway::new()
        .clients("127.0.0.1:0")
        .servers("127.0.0.1:0", Dialect::Md5, Keys::open_to_all())
        .reuse_port();
    let error = without_workers.spawn().unwrap_err().to_string();
    assert!(error.contains("0 workers"), "{error}");
}
