//! Blocking clients and listeners, against the server on every strategy, and against peers that behave badly.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use framewire::{
    Addr, CloseKind, Failure, FrameError, Framing, Heartbeat, LengthPrefix, Limits, Oversize, Raw,
    blocking::{Client, ClientError, Listener, Stream},
    bytes::BytesMut,
    encode_fn, packet_fn,
};
use socket2::{Domain, SockRef, Socket, Type};

use crate::common::{self, On, PATIENCE, Served, frame, instances, patient, until};

/// Makes one test per strategy of each of these scenarios, and one over a Unix socket.
macro_rules! on_each_strategy_and_a_unix_socket {
    ($($scenario:ident)+) => { $(
        instances! { $scenario:
            on_a_single_reactor = SingleReactor
            on_a_worker_pool = WorkerPool
            on_a_thread_per_connection = ThreadPerConnection
            on_a_unix_socket = UnixSocket
        }
    )+ };
}

on_each_strategy_and_a_unix_socket! {
    five_hundred_pipelined_messages_come_back_each_as_it_was_sent
    a_graceful_close_loses_nothing_of_what_was_sent
    replies_still_come_when_this_side_has_ended
    beats_go_out_while_recv_waits
}

const SHORT: Duration = Duration::from_millis(20);

fn connect<F: Framing>(served: &Served, framing: F) -> Client<F> {
    let client = Client::connect(served.running.local_addrs()[0].to_string(), framing);
    client.expect("the server listens").timeout(PATIENCE)
}

/// A client, and the bare socket that it is connected to.
fn with_bare_peer<F: Framing>(framing: F) -> (Client<F>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let client = Client::connect(listener.local_addr().expect("bound"), framing).expect("it listens");
    let (peer, _) = listener.accept().expect("a client has connected");
    peer.set_read_timeout(Some(PATIENCE)).expect("not zero");
    peer.set_write_timeout(Some(PATIENCE)).expect("not zero");
    (client.timeout(PATIENCE), peer)
}

/// A client whose kernel holds little of what it sends, and the bare socket that it is connected to.
fn with_narrow_peer<F: Framing>(framing: F) -> (Client<F>, TcpStream) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.set_recv_buffer_size(4096).expect("before it listens");
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    listener.listen(1).expect("bound");
    let stream = TcpStream::connect(listener.local_addr().expect("bound").as_socket().expect("TCP"));
    let stream = stream.expect("it listens");
    SockRef::from(&stream).set_send_buffer_size(4096).expect("a TCP socket");
    let client = Client::from_stream(stream, framing).expect("a connected socket");
    let (peer, _) = listener.accept().expect("a client has connected");
    (client.timeout(SHORT), peer.into())
}

fn received<F: Framing>(client: &mut Client<F>) -> String {
    let packet = client.recv().expect("a packet comes").expect("the peer has not ended");
    String::from_utf8(packet.to_vec()).expect("a text")
}

fn five_hundred_pipelined_messages_come_back_each_as_it_was_sent(on: On) {
    let served = on.echo(Limits::default());
    let mut client = connect(&served, LengthPrefix::u32_be());
    let message = |n: usize| format!("message {n}, {}", "x".repeat(n % 37 * 11));
    for n in 0..500 {
        client.send(message(n)).expect("the server reads");
    }
    let received: Vec<String> = (0..500).map(|_| received(&mut client)).collect();
    assert_eq!(received, (0..500).map(message).collect::<Vec<_>>());
    client.close().expect("the server ends its side");
    served.finish();
}

/// The server's replies are unread when the client closes; a bare close would reset the connection.
fn a_graceful_close_loses_nothing_of_what_was_sent(on: On) {
    let served = on.echo(patient());
    let mut client = connect(&served, LengthPrefix::u32_be());
    for n in 0..300_u32 {
        client.send([n as u8; 1000]).expect("the server reads");
    }
    client.close().expect("the server ends its side");
    until("the session has ended", || served.journal.closed() == 1);
    assert_eq!(served.journal.ended_by(CloseKind::PeerClosed), 1);
    served.until_counted("all have come", |metrics| metrics.packets_in == 300);
    served.finish();
}

fn replies_still_come_when_this_side_has_ended(on: On) {
    let served = on.echo(Limits::default());
    let mut client = connect(&served, LengthPrefix::u32_be());
    for text in ["one", "two"] {
        client.send(text).expect("the server reads");
    }
    client.end().expect("connected");
    client.end().expect("ended already");
    assert!(matches!(client.send("three"), Err(ClientError::Ended)));
    assert_eq!((received(&mut client), received(&mut client)), ("one".to_owned(), "two".to_owned()));
    for _ in 0..2 {
        assert!(matches!(client.recv(), Ok(None)), "the server has ended as well, and remains so");
    }
    client.close().expect("both sides have ended");
    served.finish();
}

fn beats_go_out_while_recv_waits(on: On) {
    let served = on.echo(Limits::default());
    let mut client = connect(&served, LengthPrefix::u32_be());
    // Lost after half a minute of silence, so that a busy machine is not taken for one.
    let beat = Heartbeat::every(Duration::from_millis(5), "beat").expect("a possible period");
    client.set_heartbeat(beat.lost_after(6000));
    for _ in 0..5 {
        assert_eq!(received(&mut client), "beat", "the server sends them back");
    }
    client.set_heartbeat(None);
    client.send("last").expect("the server reads");
    while received(&mut client) != "last" {}
    assert!(client.recv_timeout(SHORT).is_err_and(|error| error.is_timeout()), "no beat comes any more");
    client.close().expect("the server ends its side");
    served.finish();
}

#[test]
fn a_peer_that_answers_no_beat_is_given_up_and_may_come_back() {
    let (mut client, mut peer) = with_bare_peer(LengthPrefix::u8());
    let beat = Heartbeat::every(SHORT, "beat").expect("a possible period");
    client.set_heartbeat(beat.lost_after(3));
    let lost = client.recv().expect_err("the peer is silent");
    assert!(lost.to_string().starts_with("no answer to 3 heartbeats, nothing received for "), "{lost}");
    let mut beats = [0; 15];
    peer.read_exact(&mut beats).expect("three beats were sent");
    assert_eq!(beats, *b"\x04beat\x04beat\x04beat");
    peer.write_all(b"\x04late").expect("connected");
    assert_eq!(received(&mut client), "late");
}

#[test]
fn a_timeout_in_mid_frame_loses_no_byte_of_it() {
    let (mut client, mut peer) = with_bare_peer(LengthPrefix::u32_be());
    let bytes = [frame(b"first"), frame(b"second")].concat();
    for (at, byte) in bytes.chunks(1).enumerate() {
        assert!(!matches!(client.recv_timeout(Duration::ZERO), Ok(Some(_))), "not whole yet, at {at}");
        peer.write_all(byte).expect("connected");
        let held = (at + 1) % 9;
        if at + 1 < 9 {
            // The byte may be on its way still.
            until("it has come", || match client.recv_timeout(Duration::ZERO) {
                Err(ClientError::RecvTimedOut { held: now, .. }) => now == held,
                other => panic!("{other:?} at {at}"),
            });
        } else if at + 1 == 9 {
            assert_eq!(received(&mut client), "first");
        }
    }
    assert_eq!(received(&mut client), "second");
}

#[test]
fn a_packet_that_was_sent_in_part_ends_sending_and_not_receiving() {
    let (mut client, mut peer) = with_narrow_peer(LengthPrefix::u32_be());
    let cut = client.send(vec![7; 1 << 19]).expect_err("nobody reads it");
    assert!(
        matches!(cut, ClientError::CutOff { sent, len, after: SHORT, .. } if sent > 0 && sent < len && len == (1 << 19) + 4),
        "{cut}"
    );
    assert!(!cut.is_timeout(), "it cannot be tried again");
    for _ in 0..2 {
        let again = client.send("more").expect_err("it would be taken for the rest");
        assert_eq!(again.to_string(), cut.to_string());
    }
    peer.write_all(&frame(b"still there")).expect("connected");
    let mut client = client.timeout(PATIENCE);
    assert_eq!(received(&mut client), "still there");
    let closed = client.close().expect_err("the peer must not take it for an end");
    assert_eq!(closed.to_string(), cut.to_string());
    let end = peer.read_to_end(&mut Vec::new());
    assert!(end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset), "a reset");
}

#[test]
fn a_packet_of_which_nothing_could_be_sent_can_be_sent_again() {
    let (mut client, mut peer) = with_narrow_peer(Raw::new());
    // One byte is never sent in part.
    let mut sent = 0;
    let full = loop {
        match client.send([sent as u8]) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 1 << 24, "the kernel takes everything");
    };
    assert!(matches!(full, ClientError::SendTimedOut(SHORT)) && full.is_timeout(), "{full}");
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).map(|_| bytes)
    });
    let mut client = client.timeout(PATIENCE);
    client.send([sent as u8]).expect("the peer reads now");
    client.close().expect("it reads to the end");
    let bytes = common::join(reader).expect("the stream ends without a reset");
    assert!(bytes.iter().copied().eq((0..=sent).map(|n| n as u8)), "{} bytes", bytes.len());
}

#[test]
fn a_frame_over_the_maximum_is_refused_by_its_header() {
    let (client, mut peer) = with_bare_peer(LengthPrefix::u32_be());
    let mut client = client.max_frame(10);
    peer.write_all(&[frame(b"short"), vec![0xff; 4]].concat()).expect("connected");
    assert_eq!(received(&mut client), "short");
    for _ in 0..2 {
        let Err(ClientError::Frame(error)) = client.recv() else { panic!("too long") };
        assert!(matches!(*error, FrameError::TooLong { len: 0xffff_ffff, max: 10, .. }), "{error}");
    }
    client.send("goodbye").expect("this direction is in order");
    let mut goodbye = [0; 11];
    peer.read_exact(&mut goodbye).expect("connected");
    assert_eq!(goodbye[4..], *b"goodbye");
}

#[test]
fn a_frame_that_is_skipped_is_reported_once() {
    let (mut client, mut peer) = with_bare_peer(LengthPrefix::u8().max(4).oversize(Oversize::Discard));
    peer.write_all(b"\x03one\x09too long!\x05three\x04four").expect("connected");
    assert_eq!(received(&mut client), "one");
    for _ in 0..2 {
        assert!(matches!(client.recv(), Err(ClientError::Rejected(_))));
    }
    assert_eq!(received(&mut client), "four");
}

#[test]
fn a_stream_that_ends_in_mid_frame_is_no_clean_end() {
    let (mut client, mut peer) = with_bare_peer(LengthPrefix::u8());
    peer.write_all(b"\x03one\x05th").expect("connected");
    drop(peer);
    assert_eq!(received(&mut client), "one");
    for _ in 0..2 {
        let Err(ClientError::Frame(error)) = client.recv() else { panic!("cut off") };
        assert!(matches!(*error, FrameError::Truncated { have: 3, .. }), "{error}");
    }
}

#[test]
fn what_came_before_a_reset_is_received() {
    let (mut client, mut peer) = with_bare_peer(LengthPrefix::u8());
    peer.write_all(b"\x03one\x03two").expect("connected");
    assert_eq!(received(&mut client), "one");
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    drop(peer);
    assert_eq!(received(&mut client), "two");
    for _ in 0..2 {
        assert!(matches!(client.recv(), Err(ClientError::Io(_))), "reset");
    }
}

/// Nothing can be sent to a Unix socket that is closed, though what it has sent can still be received.
#[cfg(unix)]
#[test]
fn what_came_before_a_beat_that_fails_is_received() {
    let (near, mut peer) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let mut client = Client::from_stream(near, LengthPrefix::u8()).expect("an open socket").timeout(PATIENCE);
    client.set_heartbeat(Heartbeat::every(SHORT, "beat").expect("a possible period"));
    peer.write_all(b"\x03one\x03two").expect("connected");
    drop(peer);
    // The beat is due.
    thread::sleep(2 * SHORT);
    assert_eq!((received(&mut client), received(&mut client)), ("one".into(), "two".into()));
    assert!(matches!(client.recv(), Err(ClientError::Io(_))), "the beat");
    assert!(matches!(client.recv(), Ok(None)), "the end");
}

#[test]
fn a_peer_that_does_not_end_its_side_does_not_hold_up_a_close() {
    let (mut client, mut peer) = with_bare_peer(LengthPrefix::u8());
    client.send("last").expect("the peer reads");
    let error = client.close().expect_err("the peer stays");
    assert!(matches!(error, ClientError::PeerStays(_)), "{error}");
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).expect("the client's end is no reset");
    assert_eq!(bytes, b"\x04last");
}

#[test]
fn an_aborted_connection_is_reset() {
    let (client, mut peer) = with_bare_peer(LengthPrefix::u8());
    client.abort();
    let end = peer.read(&mut [0; 1]);
    assert!(end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
}

#[test]
fn a_packet_that_cannot_be_encoded_leaves_nothing_behind() {
    let (mut client, mut peer) = with_bare_peer(LengthPrefix::u8());
    let half = encode_fn(|out: &mut BytesMut| {
        out.extend_from_slice(b"half");
        Err(framewire::EncodeError::because("lost for words"))
    });
    let error = client.send(half).expect_err("it has no payload");
    assert_eq!(error.to_string(), "packet cannot be sent: lost for words");
    assert!(matches!(client.send([0; 256]), Err(ClientError::Encode(_))), "too long for the field");
    client.send("whole").expect("the peer reads");
    client.end().expect("connected");
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).expect("the client ends its side");
    assert_eq!(bytes, b"\x05whole");
}

#[test]
fn a_listener_serves_over_tcp_and_over_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("framewire-blocking-{}.sock", std::process::id()));
    for addr in ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())] {
        let mut listener = Listener::bind(&addr, LengthPrefix::u16_be()).expect("it is free");
        assert!(listener.accept_timeout(SHORT).expect("it listens").is_none(), "nobody comes");
        let to = listener.local_addr().to_string();
        let asking = thread::spawn(move || {
            let mut client = Client::connect(to, LengthPrefix::u16_be())?;
            client.send("question")?;
            let reply = client.recv()?.map(<[u8]>::to_vec);
            client.close().map(|()| reply)
        });
        let mut client = listener.accept_timeout(PATIENCE).expect("it listens").expect("a client comes");
        assert_eq!(client.local_addr().expect("connected"), *listener.local_addr());
        let replied = client.process_once(|replies, packet| replies.send([b"re: ", packet].concat()));
        assert!(matches!(replied, Ok(Some(Ok(())))), "{replied:?}");
        client.process(|_, _| Err(Failure::because("nothing else was asked"))).expect("the peer ends");
        client.close().expect("the peer has ended");
        assert_eq!(common::join(asking).expect("it was served"), Some(b"re: question".to_vec()));
    }
    assert!(!path.exists(), "its file is removed");
}

#[test]
fn a_closure_that_fails_ends_the_processing_and_not_the_client() {
    let (mut client, mut peer) = with_bare_peer(LengthPrefix::u8());
    peer.write_all(b"\x03bad\x04good").expect("connected");
    let failed = client.process(|_, packet| match packet {
        b"bad" => Err(Failure::because("a bad packet")),
        _ => Ok(()),
    });
    assert!(failed.is_err_and(|error| error.to_string() == "handler: a bad packet"));
    assert_eq!(received(&mut client), "good");
    client.end().expect("connected");
    peer.write_all(b"\x04last").expect("connected");
    let failed = client.process(|replies, packet| Ok(replies.send(packet)?));
    assert!(matches!(failed, Err(ClientError::Ended)), "{failed:?}");
}

#[test]
fn an_address_that_refuses_is_named_and_the_next_is_tried() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let closed = closed.expect("a free port");
    let error = Client::connect(closed, LengthPrefix::u8()).expect_err("nobody listens");
    assert!(error.to_string().starts_with(&format!("cannot connect to {closed}: ")), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let open = listener.local_addr().expect("bound");
    let client = Client::connect([closed, open], LengthPrefix::u8()).expect("the second listens");
    assert_eq!(client.peer_addr().expect("connected"), Addr::Ip(open));
}

/// A listener whose queue is full answers nobody.
#[test]
fn connecting_to_a_listener_that_does_not_answer_ends_in_time() {
    let path = std::env::temp_dir().join(format!("framewire-full-{}.sock", std::process::id()));
    for (domain, addr) in [
        (Domain::IPV4, socket2::SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))),
        (Domain::UNIX, socket2::SockAddr::unix(&path).expect("a short path")),
    ] {
        let listener = Socket::new(domain, Type::STREAM, None).expect("a socket");
        listener.bind(&addr).expect("a free address");
        listener.listen(0).expect("bound");
        let bound = listener.local_addr().expect("bound").as_socket();
        let to = bound.map_or_else(|| format!("unix:{}", path.display()), |addr| addr.to_string());
        let mut waiting = Vec::new();
        let error = loop {
            match Client::connect_timeout(&to, LengthPrefix::u8(), SHORT) {
                Ok(client) => waiting.push(client),
                Err(error) => break error,
            }
            assert!(waiting.len() < 100, "it has a longer queue than it was given");
        };
        assert!(error.is_timeout() && error.to_string().contains(&to), "{error}");
    }
    std::fs::remove_file(path).expect("it was bound");
}

#[test]
fn a_client_takes_over_a_stream_that_does_not_block() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    stream.set_nonblocking(true).expect("a socket");
    stream.set_read_timeout(Some(Duration::from_millis(1))).expect("not zero");
    let client = Client::from_stream(Stream::from(stream), LengthPrefix::u8());
    let mut client = client.expect("a connected socket").timeout(PATIENCE);
    let (mut peer, _) = listener.accept().expect("a client has connected");
    let late = thread::spawn(move || {
        thread::sleep(2 * SHORT);
        peer.write_all(b"\x04late").expect("connected");
    });
    assert_eq!(received(&mut client), "late");
    common::join(late);
}

/// The packet of a server that pushes, which the client asks for with nothing.
#[test]
fn a_client_without_a_timeout_waits_for_its_peer() {
    let served = On::WorkerPool.serve(
        Limits::default(),
        packet_fn(|session, packet| {
            session.set_heartbeat(Heartbeat::every(SHORT, "tick")?);
            Ok(session.send(packet)?)
        }),
    );
    let mut client = connect(&served, LengthPrefix::u32_be()).timeout(None);
    client.send("begin").expect("the server reads");
    assert_eq!(received(&mut client), "begin");
    for _ in 0..3 {
        assert_eq!(received(&mut client), "tick");
    }
    client.close().expect("the server ends its side");
    served.finish();
}
