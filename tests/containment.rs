//! Users' code that misbehaves outside of callbacks, and peers that misuse a pause: the shard lives, and the rest is served.

mod common;

use std::{
    net::TcpStream,
    panic::panic_any,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use bytes::BytesMut;
use common::{Client, ON_PURPOSE, On, PATIENCE, Served, frame, hush, on_each_strategy, until};
use framewire::{
    CloseKind, CloseReason, Decoded, ForkingStrategy, FrameError, Framing, LengthPrefix, Limits, Loads,
    PacketHandler, PeerAddr, Placement, Separator, ServeError, Server, Session, SessionHandle, ShardId,
    ThreadPerConnection, TimerId, WorkerPool, packet_fn,
};
use socket2::SockRef;

on_each_strategy! {
    a_panic_whose_payload_panics_again_ends_one_session
    a_framing_that_can_not_be_cloned_costs_that_connection
    a_state_that_panics_when_it_is_dropped_harms_nobody
    a_session_that_pauses_at_each_packet_does_not_pile_up_what_its_peer_sends
    a_framing_set_by_a_timer_gets_what_waits_already
    a_handle_knows_that_an_outbox_has_emptied
    a_refusal_that_never_moves_on_ends_the_session
    an_answer_to_a_broken_frame_is_delivered_before_the_end
    urgent_data_does_not_hide_what_follows_it
}

/// Panics when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("{ON_PURPOSE}: dropped");
        }
    }
}

fn a_panic_whose_payload_panics_again_ends_one_session(on: On) {
    hush();
    let served = on.serve(
        Limits::default(),
        packet_fn(|session, packet| {
            if packet == b"trap" {
                panic_any(Grenade);
            }
            session.send(packet)
        }),
    );
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.send("trap");
    client.assert_end();
    drop(client);
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Panicked);
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

/// Panics at the clones whose number is in `bad`.
struct Fickle {
    clones: Arc<AtomicUsize>,
    bad: Arc<AtomicUsize>,
    inner: LengthPrefix,
}

impl Clone for Fickle {
    fn clone(&self) -> Self {
        let number = self.clones.fetch_add(1, Ordering::SeqCst);
        assert!(number != self.bad.load(Ordering::SeqCst), "{}", format!("{ON_PURPOSE}: clone"));
        Self { clones: self.clones.clone(), bad: self.bad.clone(), inner: self.inner.clone() }
    }
}

impl Framing for Fickle {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        self.inner.decode(buf)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), FrameError> {
        self.inner.encode(payload, out)
    }
}

fn a_framing_that_can_not_be_cloned_costs_that_connection(on: On) {
    hush();
    let (clones, bad) = (Arc::<AtomicUsize>::default(), Arc::new(AtomicUsize::new(usize::MAX)));
    let framing = Fickle { clones: clones.clone(), bad: bad.clone(), inner: LengthPrefix::u32_be() };
    let served = Served::start(on.bind().framing(framing), packet_fn(|session, packet| session.send(packet)));
    let mut bystander = served.connect();
    bystander.assert_echo("served");
    bad.store(clones.load(Ordering::SeqCst), Ordering::SeqCst);
    let mut refused = Client::connect(&served.addr()).expect("it listens");
    assert_eq!(refused.read_to_any_end().0, b"");
    let mut next = served.connect();
    next.assert_echo("served as well");
    bystander.assert_echo("still served");
    assert!(served.metrics().refused >= 1);
    drop((bystander, next, refused));
    served.finish();
}

#[derive(Clone)]
struct Armed;

impl PacketHandler for Armed {
    type State = Grenade;

    fn on_open(&mut self, _session: &mut Session<'_>) -> Result<Grenade, CloseReason> {
        Ok(Grenade)
    }

    fn on_packet(
        &mut self,
        session: &mut Session<'_>,
        _: &mut Grenade,
        packet: &[u8],
    ) -> Result<(), CloseReason> {
        Ok(session.send(packet)?)
    }
}

fn a_state_that_panics_when_it_is_dropped_harms_nobody(on: On) {
    hush();
    let server = on.bind().framing(LengthPrefix::u32_be());
    let running = server.spawn(Armed).expect("it starts");
    let addr = running.local_addr().expect("TCP").into();
    for _ in 0..3 {
        let mut client = Client::connect(&addr).expect("it listens");
        client.assert_echo("served");
    }
    until("all have ended", || running.session_count() == 0);
    assert_eq!((running.metrics().closed_total(), running.metrics().panics), (3, 3));
    running.stop(PATIENCE).expect("the server lives");
}

/// Takes one packet at a time, and the next one a little later.
#[derive(Clone)]
struct Sluggish;

impl PacketHandler for Sluggish {
    type State = u32;

    fn on_open(&mut self, _session: &mut Session<'_>) -> Result<u32, CloseReason> {
        Ok(0)
    }

    fn on_packet(
        &mut self,
        session: &mut Session<'_>,
        next: &mut u32,
        packet: &[u8],
    ) -> Result<(), CloseReason> {
        assert_eq!(packet, next.to_be_bytes());
        *next += 1;
        session.pause();
        Ok(session.set_timer(TimerId(0), Duration::ZERO)?)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, next: &mut u32, _: TimerId) -> Result<(), CloseReason> {
        session.resume();
        // A busy shard: meanwhile more of the flood comes.
        thread::sleep(Duration::from_micros(300));
        if *next == PACKETS { Ok(session.send("all")?) } else { Ok(()) }
    }
}

const PACKETS: u32 = 400_000;

fn a_session_that_pauses_at_each_packet_does_not_pile_up_what_its_peer_sends(on: On) {
    // All of them would take long: the bound shows within the first hundreds.
    let served = on.serve(Limits::default().frame(100), Sluggish);
    let (mut flood, session) = served.connect_known();
    let stream: Vec<u8> = (0..PACKETS).flat_map(|number| frame(&number.to_be_bytes())).collect();
    let writing = thread::spawn(move || {
        flood.try_write(&stream);
        flood
    });
    let mut most = 0;
    until("some hundred packets were taken", || {
        most = most.max(served.metrics().buffered);
        served.metrics().packets_in >= 600
    });
    assert!(most <= 96 * 1024, "{most} bytes were buffered: more than one read of frames that wait");
    session.abort().expect("it is open");
    drop(writing.join().expect("the writer ends"));
    served.finish();
}

#[derive(Clone)]
struct Switch;

impl PacketHandler for Switch {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Result<(), CloseReason> {
        Ok(session.set_timer(TimerId(0), Duration::from_millis(50))?)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, _: &mut (), packet: &[u8]) -> Result<(), CloseReason> {
        Ok(session.send(packet)?)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, _: &mut (), _: TimerId) -> Result<(), CloseReason> {
        if session.stats().bytes_in < 4 {
            return Ok(session.set_timer(TimerId(0), Duration::from_millis(5))?);
        }
        session.set_framing(LengthPrefix::u8());
        Ok(())
    }
}

fn a_framing_set_by_a_timer_gets_what_waits_already(on: On) {
    let served = Served::start(on.bind().framing(Separator::lines()), Switch);
    let mut client = served.connect();
    client.write(b"\x03abc");
    assert_eq!(client.read(4), b"\x03abc", "no further byte has come");
    drop(client);
    served.finish();
}

fn a_handle_knows_that_an_outbox_has_emptied(on: On) {
    #[derive(Clone)]
    struct Introduce(mpsc::Sender<SessionHandle>);
    impl PacketHandler for Introduce {
        type State = ();
        fn on_open(&mut self, _session: &mut Session<'_>) -> Result<(), CloseReason> {
            Ok(())
        }
        fn on_packet(&mut self, session: &mut Session<'_>, _: &mut (), _: &[u8]) -> Result<(), CloseReason> {
            session.send([7; 50_000])?;
            self.0.send(session.handle()).map_err(CloseReason::handler)
        }
    }
    let (sender, handles) = mpsc::channel();
    let limits = Limits::default().outbox_low(1_000).outbox_high(60_000).outbox_hard(64_000);
    let served = on.serve(limits, Introduce(sender));
    let mut client = served.connect();
    client.send("who are you");
    let handle = handles.recv_timeout(PATIENCE).expect("it introduces itself");
    assert_eq!(client.recv().len(), 50_000);
    until("the handle has room", || handle.send([1; 20_000]) == Ok(()));
    assert_eq!(client.recv().len(), 20_000);
    drop((client, handle));
    served.finish();
}

/// Refuses what comes, for ever, without taking it.
#[derive(Clone)]
struct Stubborn;

impl Framing for Stubborn {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        Ok(Some(Decoded::Rejected { consumed: 0, error: FrameError::malformed("no", buf) }))
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), FrameError> {
        out.extend_from_slice(payload);
        Ok(())
    }
}

fn a_refusal_that_never_moves_on_ends_the_session(on: On) {
    let served =
        Served::start(on.bind().framing(Stubborn), packet_fn(|session, packet| session.send(packet)));
    let (mut client, session) = served.connect_known();
    client.write(b"x");
    client.assert_end();
    drop(client);
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::Frame);
    assert!(text.contains("the same refusal twice"), "{text}");
    served.finish();
}

#[derive(Clone)]
struct Polite;

impl PacketHandler for Polite {
    type State = ();

    fn on_open(&mut self, _session: &mut Session<'_>) -> Result<(), CloseReason> {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, _: &mut (), packet: &[u8]) -> Result<(), CloseReason> {
        session.send(packet)?;
        match packet {
            b"bad" => Err(FrameError::malformed("said so itself", packet).into()),
            _ => Ok(()),
        }
    }

    fn on_violation(&mut self, session: &mut Session<'_>, _: &mut (), error: &FrameError) {
        let _ = session.send(format!("-ERR {error}"));
    }
}

fn an_answer_to_a_broken_frame_is_delivered_before_the_end(on: On) {
    let served = on.serve(Limits::default().frame(1000), Polite);
    let mut client = served.connect();
    client.assert_echo("fine");
    client.write(&[0, 1, 0, 0]);
    let answer = client.recv_text();
    assert!(answer.starts_with("-ERR frame of 65536 bytes is over the maximum of 1000"), "{answer}");
    client.assert_end();
    // What a handler calls broken is no news to it.
    let mut other = served.connect();
    other.assert_echo("bad");
    other.assert_end();
    drop((client, other));
    served.finish();
}

fn urgent_data_does_not_hide_what_follows_it(on: On) {
    let served = Served::start(
        on.bind().framing(Separator::lines()),
        packet_fn(|session, packet| session.send(packet)),
    );
    for round in 0..20 {
        let addr = served.running.local_addr().expect("TCP");
        let stream = TcpStream::connect(addr).expect("it listens");
        let socket: SockRef<'_> = (&stream).into();
        socket.send(b"one\n").expect("sent");
        socket.send_out_of_band(b"!").expect("sent");
        socket.send(b"two\n").expect("sent");
        let mut heard = Vec::new();
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        while heard.len() < 8 {
            let mut some = [0; 64];
            let n = std::io::Read::read(&mut &stream, &mut some).expect("both lines come back");
            assert!(n > 0, "round {round}: ended after {heard:?}");
            heard.extend_from_slice(&some[..n]);
        }
        assert_eq!(heard, b"one\ntwo\n");
    }
    until("all have ended", || served.running.session_count() == 0);
    served.running.stop(PATIENCE).expect("it stops");
}

#[test]
fn a_worker_that_fails_while_the_server_starts_stops_it() {
    /// Starts so late that the worker has failed by then.
    struct Late(WorkerPool);
    impl ForkingStrategy for Late {
        fn workers(&self) -> usize {
            self.0.workers()
        }
        fn place(&mut self, peer: &PeerAddr, loads: Loads<'_>) -> Placement {
            self.0.place(peer, loads)
        }
        fn on_start(&mut self, _addrs: &[PeerAddr]) {
            thread::sleep(Duration::from_millis(200));
        }
    }
    hush();
    let server = Server::bind("127.0.0.1:0").expect("free").framing(LengthPrefix::u32_be());
    let running = server.strategy(Late(WorkerPool::new(2))).spawn_with(|shard: ShardId| {
        assert!(shard.index() != 1, "{}", format!("{ON_PURPOSE}: no database"));
        packet_fn(|session, packet| session.send(packet))
    });
    let stopped = running.expect("the threads start").wait();
    assert!(matches!(stopped, Err(ServeError::Factory { .. })), "{stopped:?}");
}

#[test]
fn a_handler_that_can_not_be_cloned_costs_that_connection() {
    #[derive(Default)]
    struct Once(Arc<AtomicUsize>);
    impl Clone for Once {
        fn clone(&self) -> Self {
            let number = self.0.fetch_add(1, Ordering::SeqCst);
            // 0 and 1 are for the acceptor's shard and for the seed of those to come.
            assert!(number != 3, "{}", format!("{ON_PURPOSE}: clone"));
            Self(self.0.clone())
        }
    }
    impl PacketHandler for Once {
        type State = ();
        fn on_open(&mut self, _session: &mut Session<'_>) -> Result<(), CloseReason> {
            Ok(())
        }
        fn on_packet(
            &mut self,
            session: &mut Session<'_>,
            _: &mut (),
            packet: &[u8],
        ) -> Result<(), CloseReason> {
            Ok(session.send(packet)?)
        }
    }
    hush();
    let server = Server::bind("127.0.0.1:0").expect("free").framing(LengthPrefix::u32_be());
    let running = server.strategy(ThreadPerConnection::max(10)).spawn(Once::default()).expect("it starts");
    let addr = running.local_addr().expect("TCP").into();
    let served = (0..3).filter(|_| {
        let mut client = Client::connect(&addr).expect("it listens");
        client.try_write(&frame(b"hello")) && client.try_read(9) == Some(frame(b"hello"))
    });
    assert_eq!(served.count(), 2);
    until("all have ended", || running.session_count() == 0);
    running.stop(PATIENCE).expect("it stops");
}

#[test]
fn idle_forked_connections_are_no_slow_turns() {
    let limits = Limits::default().idle_timeout(Duration::from_secs(60));
    let served = On::ThreadPerConnection.echo(limits);
    let first = served.connect();
    thread::sleep(Duration::from_millis(150));
    let mut others: Vec<Client> = (0..5).map(|_| served.connect()).collect();
    others.iter_mut().for_each(|client| client.assert_echo("served"));
    assert_eq!(served.metrics().slow_turns, 0);
    drop((first, others));
    served.finish();
}
