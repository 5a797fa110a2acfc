//! Listeners with a framing of their own: what their sessions speak, and what they share with all others.

use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
};

use framewire::{
    CloseKind, Failure, LengthPrefix, Limits, Netstring, Origin, PacketHandler, Reactor, Separator, Server,
    Session, SessionId, SingleReactor, ThreadPerConnection, WorkerPool, packet_fn,
};

use crate::common::{
    Client, On, PATIENCE, Served, addr_of, echo, failure, on_each_strategy_and_transport, until,
};
use crate::handlers::Scripted;

on_each_strategy_and_transport! {
    each_listener_has_its_framing_and_all_share_the_handler
    packets_from_elsewhere_are_framed_as_the_listener_of_the_session_says
    a_session_tells_which_listener_has_accepted_it
    the_limit_of_a_frame_holds_for_every_listener
    a_session_of_a_further_listener_can_change_its_framing
}

/// A server with three listeners: lengths of four bytes, lines, and lengths of one byte.
fn start<H>(on: On, limits: Limits, handler: H) -> Served
where
    H: PacketHandler + Clone + Send + 'static,
{
    let server = on.bind().framing(LengthPrefix::u32_be()).limits(limits);
    let server = on.also(server, Separator::lines());
    Served::start(on.also(server, LengthPrefix::u8()), handler)
}

/// A packet on the wire of each of them.
fn frames(packet: &str) -> [Vec<u8>; 3] {
    let len = u8::try_from(packet.len()).expect("a packet of a test is short");
    let prefixed = |header: &[u8]| [header, packet.as_bytes()].concat();
    [prefixed(&[0, 0, 0, len]), format!("{packet}\n").into_bytes(), prefixed(&[len])]
}

/// Sends a packet and receives it back.
fn assert_echo(client: &mut Client, listener: usize, packet: &str) {
    let frame = &frames(packet)[listener];
    client.write(frame);
    assert_eq!(&client.read(frame.len()), frame, "listener {listener}");
}

fn each_listener_has_its_framing_and_all_share_the_handler(on: On) {
    let served = start(on, Limits::default(), echo());
    let mut clients: Vec<_> = (0..9).map(|number| (number % 3, served.connect_to(number % 3))).collect();
    for (listener, client) in &mut clients {
        assert_echo(client, *listener, "at once");
    }
    for (listener, client) in &mut clients {
        for byte in frames("by the byte")[*listener].iter() {
            client.write(&[*byte]);
        }
        let frame = &frames("by the byte")[*listener];
        assert_eq!(&client.read(frame.len()), frame, "listener {listener}");
    }
    assert_eq!(served.running.session_count(), 9);
    drop(clients);
    served.finish();
}

fn packets_from_elsewhere_are_framed_as_the_listener_of_the_session_says(on: On) {
    let known = Arc::<Mutex<Vec<SessionId>>>::default();
    let handler = packet_fn(move |session, packet| {
        let mut known = known.lock().expect("nobody panics");
        known.push(session.id());
        if packet == b"all" {
            for id in known.iter() {
                session.send_to(*id, "to all")?;
            }
        }
        Ok(session.send(packet)?)
    });
    let served = start(on, Limits::default(), handler);
    let mut clients = Vec::new();
    for listener in [1, 0, 2] {
        let (mut client, session) = served.known(|served| served.connect_to(listener));
        session.send("by handle").expect("it is open");
        let frame = &frames("by handle")[listener];
        assert_eq!(&client.read(frame.len()), frame);
        if listener != 2 {
            assert_echo(&mut client, listener, "here");
        }
        clients.push((listener, client));
    }
    clients[2].1.write(&frames("all")[2]);
    for (listener, client) in &mut clients {
        let frame = &frames("to all")[*listener];
        assert_eq!(&client.read(frame.len()), frame);
    }
    assert_eq!(clients[2].1.read(4), frames("all")[2]);
    drop(clients);
    served.finish();
}

fn a_session_tells_which_listener_has_accepted_it(on: On) {
    let at_end = Arc::<Mutex<Vec<Origin>>>::default();
    let noted = at_end.clone();
    let tell = |session: &mut Session<'_>, (): &mut (), _: &[u8]| match session.origin() {
        Origin::Accepted { listener } => Ok(session.send(listener.to_string())?),
        other => Err(Failure::because(format!("{other:?}"))),
    };
    let handler = Scripted::answering(tell)
        .on_close(move |session, ()| noted.lock().expect("nobody panics").push(session.origin));
    let served = start(on, Limits::default(), handler);
    for listener in [2, 0, 1, 1] {
        let (mut client, session) = served.known(|served| served.connect_to(listener));
        client.write(&frames("which?")[listener]);
        let reply = &frames(&listener.to_string())[listener];
        assert_eq!(&client.read(reply.len()), reply);
        let sessions = served.running.sessions().expect("the shards answer");
        let origins: Vec<_> = sessions.iter().map(|session| session.origin).collect();
        assert_eq!(origins, [Origin::Accepted { listener }]);
        drop(client);
        served.journal.await_ending(session.id());
        until("it has left", || served.running.session_count() == 0);
    }
    let expected = [2, 0, 1, 1].map(|listener| Origin::Accepted { listener });
    assert_eq!(*at_end.lock().expect("nobody panics"), expected);
    served.finish();
}

fn the_limit_of_a_frame_holds_for_every_listener(on: On) {
    let served = start(on, Limits::default().frame(10), echo());
    for listener in 0..3 {
        let (mut client, session) = served.known(|served| served.connect_to(listener));
        assert_echo(&mut client, listener, "ten bytes.");
        client.write(&frames("eleven byte")[listener]);
        client.assert_end();
        drop(client);
        assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Frame, "listener {listener}");
    }
    served.finish();
}

fn a_session_of_a_further_listener_can_change_its_framing(on: On) {
    let handler = packet_fn(|session, packet| {
        session.send(packet)?;
        if packet == b"change" {
            session.set_framing(Netstring::new());
        }
        Ok(())
    });
    let served = start(on, Limits::default(), handler);
    let mut clients: Vec<Client> = (0..3).map(|listener| served.connect_to(listener)).collect();
    for (listener, client) in clients.iter_mut().enumerate() {
        let wire = [&frames("change")[listener][..], b"3:new,"].concat();
        client.write(&wire);
        assert_eq!(client.read(wire.len()), wire);
        assert_echo(&mut served.connect_to(listener), listener, "not the others");
    }
    drop(clients);
    served.finish();
}

/// A binary listener, and one for lines.
fn two() -> Server<LengthPrefix> {
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
    server.also("127.0.0.1:0", Separator::lines()).expect("a free port")
}

#[test]
fn workers_that_accept_for_themselves_listen_at_every_address() {
    let served = Served::start(two().strategy(WorkerPool::new(2).reuse_port()), echo());
    for listener in [0, 1] {
        let mut clients = Vec::new();
        let spread = || {
            let sessions = served.running.sessions().expect("the shards answer");
            [1, 2].map(|shard| sessions.iter().filter(|session| session.id.shard().index() == shard).count())
        };
        while spread().contains(&0) {
            assert!(clients.len() < 500, "one worker gets everybody: {:?}", spread());
            let mut client = served.connect_to(listener);
            assert_echo(&mut client, listener, "placed");
            clients.push(client);
        }
        drop(clients);
        until("they have left", || served.running.session_count() == 0);
    }
    served.finish();
}

#[test]
fn a_service_of_a_reactor_may_have_further_listeners() {
    let reactors = [
        Reactor::new(SingleReactor::new()),
        Reactor::new(WorkerPool::new(2)),
        Reactor::new(WorkerPool::new(2).reuse_port()),
        Reactor::new(ThreadPerConnection::max(100)),
    ];
    for reactor in reactors {
        let (first, second) = (two(), two());
        let handles = [first.handle(), second.handle()];
        let running = reactor.service(first, echo()).service(second, echo()).spawn().expect("it starts");
        let addrs: Vec<_> = handles.iter().flat_map(|service| service.local_addrs()).collect();
        assert_eq!((addrs.len(), &running.local_addrs()), (4, &addrs));
        for (at, addr) in addrs.iter().enumerate() {
            let mut client = Client::connect(&addr_of(addr)).expect("it listens");
            assert_echo(&mut client, at % 2, "hello");
            assert_eq!(handles[at / 2].session_count(), 1);
            drop(client);
            until("it has left", || running.session_count() == 0);
        }
        running.stop(PATIENCE).expect("it stops");
    }
}

#[test]
fn further_addresses_follow_the_first_ones_in_every_handle() {
    let server = Server::bind(["127.0.0.1:0", "127.0.0.1:0"]).expect("free ports");
    let (handle, first) = (server.handle(), server.local_addrs());
    let server = server.also(["127.0.0.1:0", "[::1]:0"], Separator::lines()).expect("free ports");
    let server =
        server.framing(Netstring::new()).also("127.0.0.1:0", LengthPrefix::u8()).expect("a free port");
    let all = server.local_addrs();
    assert_eq!((all.len(), &all[..2]), (5, &first[..]));
    assert_eq!(handle.local_addrs(), all);
    let served = Served::start(server, echo());
    assert_eq!(served.running.local_addrs(), all);
    for (listener, frame) in ["2:hi,", "2:hi,", "hi\n", "hi\n", "\x02hi"].into_iter().enumerate() {
        let mut client = served.connect_to(listener);
        client.write(frame.as_bytes());
        assert_eq!(client.read(frame.len()), frame.as_bytes());
    }
    served.finish();
}

#[test]
fn a_further_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("it is bound");
    let server = Server::bind("127.0.0.1:0").expect("a free port");
    let error = failure(server.also(addr, Separator::lines()));
    assert!(error.starts_with(&format!("cannot bind {addr}: ")), "{error}");
    let server = Server::bind("127.0.0.1:0").expect("a free port");
    assert!(failure(server.also("nonsense", Separator::lines())).contains("nonsense"));
}

#[test]
fn a_server_that_is_bound_shared_shares_its_further_addresses() {
    let shared = |addr: &str| {
        let server = Server::bind_shared("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
        Served::start(server.also(addr, Separator::lines()).expect("it is shared"), echo())
    };
    let first = shared("127.0.0.1:0");
    let second = shared(&first.running.local_addrs()[1].to_string());
    assert_eq!(first.running.local_addrs()[1], second.running.local_addrs()[1]);
    first.finish();
    assert_echo(&mut second.connect_to(1), 1, "the other has gone");
    second.finish();
}
