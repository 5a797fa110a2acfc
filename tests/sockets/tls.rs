//! TLS over real sockets.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::mpsc::channel,
};

use framewire::{
    CloseKind, Dial, Event, Failure, Handled, LayerError, Limits, PacketHandler, RefusalCause, Separator,
    Server, Session, Sniff, Sniffed, Tls, TlsError, TlsVersion, blocking, packet_fn, session_fn,
    testing::LayerDriver,
};

use crate::common::{
    On, PATIENCE, Served, echo, instances,
    tls::{SERVER, common},
    until,
};

/// Makes one test per strategy of each of these scenarios.
macro_rules! on_each_strategy_over_tls {
    ($($scenario:ident)+) => { $(
        instances! { $scenario:
            on_a_single_reactor = Tls
            on_a_thread_per_connection = TlsOnThreads
            among_layers_on_a_worker_pool = TlsStacked
        }
    )+ };
}

on_each_strategy_over_tls! {
    a_session_knows_what_tls_has_agreed_on
    a_peer_that_leaves_without_a_goodbye_has_cut_the_stream
    clients_past_the_limit_of_handshakes_wait_until_another_is_through_or_has_failed
    one_port_serves_clients_with_tls_and_in_clear_text
}

/// A server of lines that switches to TLS when it is asked to, and tells whether it has.
fn mail(session: &mut Session<'_>, packet: &[u8]) -> Handled {
    match packet {
        b"STARTTLS" => {
            session.send("220 go ahead")?;
            session.push_layer(common().acceptor.layer());
            Ok(())
        }
        _ if session.tls().is_some() => Ok(session.send("250 in private")?),
        _ => Ok(session.send("530 in clear text")?),
    }
}

fn a_session_knows_what_tls_has_agreed_on(on: On) {
    let (tell, told) = channel();
    let handler = packet_fn(move |session: &mut Session<'_>, packet: &[u8]| {
        let tls = session.tls().ok_or_else(|| Failure::because("no TLS"))?;
        tell.send((tls.version(), tls.cipher_suite(), tls.server_name().map(str::to_owned)))?;
        Ok(session.send(packet)?)
    });
    let served = on.serve(Default::default(), handler);
    let mut client = served.connect();
    client.assert_echo("hello");
    let expected = (TlsVersion::Tls13, "TLS13_AES_256_GCM_SHA384", Some(SERVER.to_owned()));
    assert_eq!(told.recv_timeout(PATIENCE), Ok(expected));
    drop(client);
    served.finish();
}

fn a_peer_that_leaves_without_a_goodbye_has_cut_the_stream(on: On) {
    let served = on.echo(Default::default());
    for says_goodbye in [false, true] {
        let (mut client, session) = served.connect_known();
        client.assert_echo("hello");
        if says_goodbye {
            client.end();
            client.assert_end();
        } else {
            client.socket.shutdown(Shutdown::Write).expect("it is open");
        }
        let (kind, text) = served.journal.await_ending(session.id());
        let expected = if says_goodbye { CloseKind::PeerClosed } else { CloseKind::Layer };
        assert_eq!(kind, expected, "{text}");
        assert!(says_goodbye || text.contains("the stream was cut"), "{text}");
    }
    served.finish();
}

#[test]
fn what_is_dialled_over_tls_is_a_session_of_both_sides() {
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(Separator::lines());
    let served = Served::start(server.tls(&common().acceptor), echo());
    let (tell, told) = channel();
    let client = session_fn(
        |session: &mut Session<'_>| {
            let tls = session.tls().ok_or_else(|| Failure::because("on_open comes too early"))?;
            Ok(session.send(format!("{} {:?}", tls.cipher_suite(), tls.server_name()))?)
        },
        move |_, (), reply: &[u8]| Ok(tell.send(reply.to_vec())?),
    );
    let dialler = Server::unbound().framing(Separator::lines()).spawn(client).expect("it starts");
    let addr = served.running.local_addr().expect("TCP");
    let upstream = dialler.connect(Dial::to(addr).tls(&common().connector, SERVER)).expect("it runs");
    let reply = told.recv_timeout(PATIENCE).expect("it comes back");
    assert_eq!(String::from_utf8_lossy(&reply), "TLS13_AES_256_GCM_SHA384 Some(\"localhost\")");
    upstream.close();
    until("the server has seen the goodbye", || served.journal.ended_by(CloseKind::PeerClosed) == 1);
    dialler.stop(PATIENCE).expect("it stops");
    served.finish();
}

#[test]
fn a_dial_to_another_server_than_it_says_fails() {
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(Separator::lines());
    let served = Served::start(server.tls(&common().acceptor), echo());
    let (tell, told) = channel();

    #[derive(Clone)]
    struct Failing(std::sync::mpsc::Sender<String>);
    impl PacketHandler for Failing {
        type State = ();
        fn on_open(&mut self, _: &mut Session<'_>) -> Handled {
            Err(Failure::because("this must not open"))
        }
        fn on_packet(&mut self, _: &mut Session<'_>, (): &mut (), _: &[u8]) -> Handled {
            Ok(())
        }
        fn on_dial_failed(
            &mut self,
            _: &mut framewire::ShardContext<'_, ()>,
            _: framewire::DialId,
            error: &framewire::DialError,
        ) {
            // At its end, a test listens no more.
            let _ = self.0.send(error.to_string());
        }
    }
    let dialler = Server::unbound().framing(Separator::lines()).spawn(Failing(tell)).expect("it starts");
    let addr = served.running.local_addr().expect("TCP");
    for (name, said) in [("elsewhere", "not valid for name"), ("a:1", "is no name of a server")] {
        let _upstream = dialler.connect(Dial::to(addr).tls(&common().connector, name)).expect("it runs");
        let error = told.recv_timeout(PATIENCE).expect("it fails");
        assert!(error.contains(said), "{error}");
    }
    dialler.stop(PATIENCE).expect("it stops");
    served.finish();
}

#[test]
fn a_client_in_clear_text_is_told_by_an_alert_and_the_operator_by_the_reason() {
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(Separator::lines());
    let served = Served::start(server.tls(&common().acceptor), echo());
    let events = served.running.events(10);
    let mut peer = TcpStream::connect(served.running.local_addr().expect("TCP")).expect("it listens");
    peer.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
    peer.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
    let mut reply = Vec::new();
    peer.read_to_end(&mut reply).expect("an end");
    assert_eq!(reply, [0x15, 3, 3, 0, 2, 2, 10]);
    let Ok(Event::Refused { cause, reason: Some(reason), .. }) = events.recv_timeout(PATIENCE) else {
        panic!("it was refused");
    };
    assert_eq!((cause, reason.kind()), (RefusalCause::Handshake, CloseKind::Layer));
    assert!(matches!(TlsError::of(&reason), Some(TlsError::NotTls(_))), "{reason}");
    assert!(reason.to_string().ends_with("(this looks like an HTTP request)"), "{reason}");
    served.finish();
}

#[test]
fn a_client_with_tls_on_a_port_in_clear_text_is_seen_in_the_reason() {
    let served = On::SingleReactor.echo(Default::default());
    let (client, session) = served.connect_known();
    let hello = LayerDriver::new(common().connector.layer(SERVER)).expect("it begins").take_wire();
    (&client.socket).write_all(&hello).expect("it reads");
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::Frame);
    assert!(text.ends_with("(this looks like a TLS handshake)"), "{text}");
    drop(client);
    served.finish();
}

/// Reads a line in clear text.
fn line(peer: &mut impl Read) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        peer.read_exact(&mut byte).expect("a reply comes");
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("it is text")
}

/// A client that has switched to TLS.
fn switch(peer: &mut TcpStream) -> LayerDriver<Tls> {
    let mut tls = LayerDriver::new(common().connector.layer(SERVER)).expect("it begins");
    while !tls.is_open() {
        peer.write_all(&tls.take_wire()).expect("it reads");
        let mut wire = [0; 4096];
        let n = peer.read(&mut wire).expect("the handshake goes on");
        tls.receive(&wire[..n]).expect("the server knows TLS");
    }
    peer.write_all(&tls.take_wire()).expect("it reads");
    tls
}

#[test]
fn a_session_switches_to_tls_in_mid_stream() {
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(Separator::lines());
    let served = Served::start(server, packet_fn(mail));
    let mut peer = TcpStream::connect(served.running.local_addr().expect("TCP")).expect("it listens");
    peer.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
    peer.write_all(b"HELO\nSTARTTLS\n").expect("it reads");
    assert_eq!(line(&mut peer), "530 in clear text\n");
    assert_eq!(line(&mut peer), "220 go ahead\n");
    let mut tls = switch(&mut peer);
    tls.send(b"MAIL\n").expect("it is open");
    tls.end().expect("it is open");
    peer.write_all(&tls.take_wire()).expect("it reads");
    let (mut wire, mut plain) = ([0; 4096], Vec::new());
    while !tls.has_ended() {
        let n = peer.read(&mut wire).expect("it replies");
        plain.extend(tls.receive(&wire[..n]).expect("the server knows TLS"));
    }
    assert_eq!(plain, b"250 in private\n");
    drop(peer);
    served.finish();
}

/// The hole of CVE-2011-0411: what comes in clear text with the request must not be taken for what comes in private.
#[test]
fn clear_text_that_comes_with_the_request_to_switch_is_never_handed_out() {
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(Separator::lines());
    let (tell, told) = channel();
    let handler = packet_fn(move |session: &mut Session<'_>, packet: &[u8]| {
        tell.send(packet.to_vec())?;
        mail(session, packet)
    });
    let served = Served::start(server, handler);
    let (mut client, session) = served.connect_known();
    client.write(b"STARTTLS\nMAIL FROM:<mallory@example.com>\n");
    assert_eq!(line(&mut client), "220 go ahead\n");
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::Layer);
    assert!(text.contains("clear text came together with the request to switch to TLS"), "{text}");
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [b"STARTTLS"]);
    drop(client);
    served.finish();
}

#[test]
fn a_blocking_client_speaks_tls_from_the_start_and_in_mid_stream() {
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(Separator::lines());
    let served = Served::start(server, packet_fn(mail));
    let addr = served.running.local_addr().expect("TCP");
    let mut client = blocking::Client::connect(addr, Separator::lines()).expect("it listens");
    for (packet, reply) in [("HELO", "530 in clear text"), ("STARTTLS", "220 go ahead")] {
        client.send(packet).expect("it reads");
        assert_eq!(client.recv().expect("it replies"), Some(reply.as_bytes()));
    }
    let mut client = client.tls(&common().connector, SERVER).expect("the server agrees");
    assert_eq!(client.tls_info().map(|tls| tls.version()), Some(TlsVersion::Tls13));
    client.send("MAIL").expect("it reads");
    assert_eq!(client.recv().expect("it replies"), Some(&b"250 in private"[..]));
    client.close().expect("both say goodbye");
    until("the server has seen the goodbye", || served.journal.ended_by(CloseKind::PeerClosed) == 1);
    served.finish();

    let echo_server = Server::bind("127.0.0.1:0").expect("a free port").framing(Separator::lines());
    let limits = Limits::default().frame(4 << 20);
    let served = Served::start(echo_server.limits(limits).tls(&common().acceptor), echo());
    let addr = served.running.local_addr().expect("TCP");
    let connect = || blocking::Client::connect(addr, Separator::lines()).expect("it listens");
    let mut client = connect().tls(&common().connector, SERVER).expect("the server agrees");
    for len in [0, 1, 16_383, 16_384, 100_000] {
        let packet = vec![b'x'; len];
        client.send(&packet).expect("it reads");
        assert_eq!(client.recv().expect("it replies"), Some(&packet[..]));
    }
    client.close().expect("both say goodbye");
    let wrong = connect().tls(&common().connector, "elsewhere").map(drop).expect_err("another name");
    assert!(matches!(TlsError::of(&wrong), Some(TlsError::Protocol(_))), "{wrong}");
    served.finish();
}

#[test]
fn a_blocking_server_speaks_tls_and_tells_a_cut_from_an_end() {
    let mut listener = blocking::Listener::bind("127.0.0.1:0", Separator::lines()).expect("a free port");
    let addr = listener.local_addr().socket_addr().expect("TCP");
    for says_goodbye in [true, false] {
        let asking = std::thread::spawn(move || {
            let client = blocking::Client::connect(addr, Separator::lines()).expect("it listens");
            let mut client = client.tls(&common().connector, SERVER).expect("the server agrees");
            client.send("hello").expect("it reads");
            assert_eq!(client.recv().expect("it replies"), Some(&b"good day"[..]));
            if says_goodbye {
                client.close().expect("both say goodbye");
            }
        });
        let mut client =
            listener.accept().expect("it comes").accept_tls(&common().acceptor).expect("it agrees");
        assert_eq!(client.recv().expect("it asks"), Some(&b"hello"[..]));
        client.send("good day").expect("it reads");
        match client.recv() {
            Ok(None) => assert!(says_goodbye),
            Err(blocking::ClientError::Layer(error)) => {
                assert!(!says_goodbye && matches!(*error, LayerError::Truncated { .. }), "{error}");
            }
            other => panic!("neither an end nor a cut: {other:?}"),
        }
        if says_goodbye {
            client.close().expect("both say goodbye");
        }
        asking.join().expect("it does not panic");
    }
}

/// A client that makes its handshake as soon as it is let in, and gets its line back.
fn greet(client: blocking::Client<Separator>) -> blocking::Client<Separator> {
    let mut client = client.tls(&common().connector, SERVER).expect("it comes to its turn");
    client.send("hello").expect("it reads");
    assert_eq!(client.recv().expect("it replies"), Some(&b"hello"[..]));
    client
}

fn clients_past_the_limit_of_handshakes_wait_until_another_is_through_or_has_failed(on: On) {
    let server = on.strategy().bind().framing(Separator::lines());
    let served =
        Served::start(server.limits(Limits::default().handshakes(2)).tls(&common().acceptor), echo());
    let addr = served.running.local_addr().expect("TCP");
    let connect = || blocking::Client::connect(addr, Separator::lines()).expect("it listens");
    let in_handshake = |accepted| {
        let client = connect();
        served.until_counted("it is in its handshake", |metrics| metrics.accepted == accepted);
        client
    };
    let waiting = |accepted| {
        let client = connect();
        // The first pause after this may have begun before the client was there.
        let pauses = served.metrics().accept_pauses;
        served.until_counted("it was looked at", |metrics| metrics.accept_pauses >= pauses + 2);
        assert_eq!(served.metrics().accepted, accepted, "a client too many was accepted");
        std::thread::spawn(move || greet(client))
    };
    // As many as may be.
    let (first, second) = (in_handshake(1), in_handshake(2));
    let third = waiting(2);
    // One of them is through.
    let first = greet(first);
    let third = third.join().expect("it does not panic");
    let fourth = in_handshake(4);
    let fifth = waiting(4);
    // One of them fails.
    drop(second);
    let fifth = fifth.join().expect("it does not panic");
    served.until_counted("three got through", |metrics| (metrics.accepted, metrics.opened) == (5, 3));
    drop((first, third, fourth, fifth));
    served.finish();
}

fn one_port_serves_clients_with_tls_and_in_clear_text(on: On) {
    let tls = || common().acceptor.layer();
    let sniff = Sniff::new().when(|first| Sniffed::prefix(first, &[0x16]), tls);
    let served =
        Served::start(on.strategy().bind().framing(Separator::lines()).sniff(sniff), packet_fn(mail));
    let addr = served.running.local_addr().expect("TCP");
    let connect = || blocking::Client::connect(addr, Separator::lines()).expect("it listens");
    let ask = |client: &mut blocking::Client<Separator>, reply: &str| {
        client.send("HELO").expect("it reads");
        assert_eq!(client.recv().expect("it replies"), Some(reply.as_bytes()));
    };
    let mut clear = connect();
    ask(&mut clear, "530 in clear text");
    let mut secure = connect().tls(&common().connector, SERVER).expect("the server agrees");
    ask(&mut secure, "250 in private");
    ask(&mut clear, "530 in clear text");
    secure.close().expect("both say goodbye");
    clear.close().expect("there is nothing to say");
    until("both have ended", || served.journal.ended_by(CloseKind::PeerClosed) == 2);
    let mut cut = connect().tls(&common().connector, SERVER).expect("the server agrees");
    ask(&mut cut, "250 in private");
    drop(cut);
    until("the cut was noticed", || served.journal.ended_by(CloseKind::Layer) == 1);
    served.finish();
}
