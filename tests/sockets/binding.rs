//! The addresses of a server: which can be bound, which cannot, and what is told of them.

use std::net::SocketAddr;

use framewire::{Addr, LengthPrefix, Server, Session, Unframed, WorkerPool, packet_fn};
use socket2::SockAddr;

use crate::common::{Client, Served, failure};

#[test]
fn a_taken_port_is_named_and_its_server_goes_on() {
    let first = Served::echo(Server::bind("127.0.0.1:0").expect("a free port"));
    let mut client = first.connect();
    let addr = first.running.local_addr().expect("bound to TCP");
    let text = failure(Server::bind(addr));
    assert!(text.starts_with(&format!("cannot bind {addr}: ")), "{text}");
    client.assert_echo("still served");
    drop(client);
    first.finish();
}

#[test]
fn an_address_that_is_none_or_not_ours_is_named() {
    for text in ["nonsense", "127.0.0.1", "127.0.0.1:70000", "unix:"] {
        let error = failure(Server::bind(text));
        assert!(error.contains(&format!("{text:?} is no address to bind")), "{error}");
    }
    // Of the range for documentation: no machine has it.
    let error = failure(Server::bind("192.0.2.1:0"));
    assert!(error.starts_with("cannot bind 192.0.2.1:0: "), "{error}");
    let error = failure(Server::bind("unix:/nonexistent/directory/socket"));
    assert!(error.starts_with("cannot bind unix:/nonexistent/directory/socket: "), "{error}");
}

#[test]
fn several_addresses_of_several_kinds_are_served_by_one_server() {
    let path = std::env::temp_dir().join(format!("framewire-several-{}.sock", std::process::id()));
    let addrs = ["127.0.0.1:0".to_owned(), "[::1]:0".to_owned(), format!("unix:{}", path.display())];
    let server = Server::bind(addrs).expect("three free addresses");
    let bound = server.local_addrs();
    assert_eq!(bound.len(), 3);
    let served = Served::echo(server.strategy(WorkerPool::new(2)));
    assert_eq!(served.running.local_addrs(), bound);
    let mut clients = Vec::new();
    for addr in &bound {
        let addr = match addr {
            Addr::Ip(addr) => (*addr).into(),
            _ => SockAddr::unix(&path).expect("a path"),
        };
        let mut client = Client::connect(&addr).expect("the server listens");
        client.assert_echo(format!("{addr:?}"));
        clients.push(client);
    }
    let sessions = served.running.sessions().expect("the shards answer");
    for addr in &bound {
        assert!(sessions.iter().any(|session| session.local == *addr), "{addr}: {sessions:?}");
    }
    drop(clients);
    served.finish();
}

#[test]
fn a_wildcard_tells_each_session_the_address_it_was_reached_at() {
    let served = Served::echo(Server::bind("0.0.0.0:0").expect("a free port"));
    let port = served.running.local_addr().expect("bound to TCP").port();
    let mut client = Client::connect(&SocketAddr::from(([127, 0, 0, 7], port)).into()).expect("it listens");
    client.assert_echo("here");
    let sessions = served.running.sessions().expect("the shards answer");
    assert_eq!(sessions[0].local, Addr::Ip(SocketAddr::from(([127, 0, 0, 7], port))));
    assert_eq!(sessions[0].peer.socket_addr(), client.socket.local_addr().expect("bound").as_socket());
    drop(client);
    served.finish();
}

/// A server that tells its name.
fn named(server: Server<Unframed>, name: &'static str) -> Served {
    let handler = packet_fn(move |session: &mut Session<'_>, _packet: &[u8]| Ok(session.send(name)?));
    Served::start(server.framing(LengthPrefix::u32_be()), handler)
}

#[test]
fn two_servers_of_one_process_share_an_address_that_is_bound_shared() {
    let first = named(Server::bind_shared("127.0.0.1:0").expect("a free port"), "first");
    let addr = first.running.local_addr().expect("bound to TCP");
    let second = named(Server::bind_shared(addr).expect("it is shared"), "second");
    let mut met = [0; 2];
    let mut clients = Vec::new();
    // The kernel spreads by a hash of the ports.
    while met.contains(&0) {
        assert!(clients.len() < 500, "one server gets everybody: {met:?}");
        let mut client = Client::connect(&addr.into()).expect("both listen");
        client.send("who?");
        met[usize::from(client.recv_text() == "second")] += 1;
        clients.push(client);
    }
    assert_eq!((first.journal.opened(), second.journal.opened()), (met[0], met[1]));
    // One goes; the other serves everybody from then on.
    drop(clients);
    first.finish();
    for _ in 0..20 {
        let mut client = Client::connect(&addr.into()).expect("one listens");
        client.send("who?");
        assert_eq!(client.recv_text(), "second");
    }
    second.finish();
}
