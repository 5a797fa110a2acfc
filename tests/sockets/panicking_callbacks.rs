//! A panic in a callback, a framing, a job or a strategy ends the session it worked on, and nothing else.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use framewire::{
    CloseKind, CloseReason, Decoded, EncodeError, FrameError, Framing, Handled, LengthPrefix, Limits,
    Oversize, PacketHandler, SendError, Session, SessionInfo, Then, TimerId, packet_fn,
};

use crate::common::{Client, ON_PURPOSE, On, PATIENCE, Served, echo, frame, hush, on_each_strategy, until};

on_each_strategy! {
    a_panic_in_on_open_refuses_that_session
    a_panic_in_on_packet_ends_that_session
    a_panic_in_on_drained_ends_that_session
    a_panic_in_on_timer_ends_that_session
    a_panic_in_on_idle_ends_that_session
    a_panic_in_on_rejected_ends_that_session
    a_panic_in_on_shutdown_does_not_stop_the_shutdown
    a_panic_in_on_closing_is_counted_and_the_session_ends_as_it_would
    a_panic_in_on_close_is_counted_and_harms_nobody
    a_panic_in_the_decoding_of_a_framing_ends_that_session
    a_panic_in_the_encoding_of_a_framing_ends_that_session_and_keeps_what_was_sent
    a_panic_in_the_encoding_that_the_handler_catches_leaves_nothing_in_the_outbox
    a_panic_in_the_encoding_of_a_packet_sent_by_handle_ends_that_session
    a_panic_of_a_job_is_counted_and_harms_nobody
    a_panic_in_the_encoding_of_a_packet_sent_by_a_job_ends_that_session
    a_panic_of_the_strategy_refuses_that_connection
}

/// Where a trapped session panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spot {
    Open,
    Packet,
    Drained,
    Timer,
    Idle,
    Rejected,
    Shutdown,
    Closing,
    Close,
}

/// Echoes; the session that says "trap" panics at its spot.
#[derive(Clone)]
struct Fragile {
    spot: Spot,
    /// The next session panics when it opens.
    armed: Arc<AtomicBool>,
}

impl Fragile {
    fn new(spot: Spot) -> Self {
        Self { spot, armed: Arc::default() }
    }

    fn reach(&self, spot: Spot, trapped: bool) {
        assert!(!(trapped && self.spot == spot), "{ON_PURPOSE}: {spot:?}");
    }
}

type Outcome = Handled;

impl PacketHandler for Fragile {
    /// Whether it is trapped.
    type State = bool;

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled<bool> {
        self.reach(Spot::Open, self.armed.swap(false, Ordering::Relaxed));
        Ok(false)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, trapped: &mut bool, packet: &[u8]) -> Outcome {
        session.send(packet)?;
        if packet == b"trap" {
            *trapped = true;
            self.reach(Spot::Packet, true);
            session.set_timer(TimerId(1), Duration::from_millis(1))?;
            session.send([0; 100_000])?;
        }
        Ok(())
    }

    fn on_drained(&mut self, _session: &mut Session<'_>, trapped: &mut bool) -> Outcome {
        self.reach(Spot::Drained, *trapped);
        Ok(())
    }

    fn on_timer(&mut self, _session: &mut Session<'_>, trapped: &mut bool, _timer: TimerId) -> Outcome {
        self.reach(Spot::Timer, *trapped);
        Ok(())
    }

    fn on_idle(&mut self, _session: &mut Session<'_>, trapped: &mut bool) -> Handled<Then> {
        self.reach(Spot::Idle, *trapped);
        Ok(Then::Stay)
    }

    fn on_rejected(
        &mut self,
        _session: &mut Session<'_>,
        trapped: &mut bool,
        _error: &FrameError,
    ) -> Outcome {
        self.reach(Spot::Rejected, *trapped);
        Ok(())
    }

    fn on_shutdown(&mut self, session: &mut Session<'_>, trapped: &mut bool) -> Handled<Then> {
        let said = session.send("farewell");
        assert_eq!(said, Ok(()));
        self.reach(Spot::Shutdown, *trapped);
        Ok(Then::Close)
    }

    fn on_closing(&mut self, _session: &SessionInfo, trapped: &mut bool, _reason: &CloseReason) {
        self.reach(Spot::Closing, *trapped);
    }

    fn on_close(&mut self, _session: &SessionInfo, trapped: bool, _reason: &CloseReason) {
        self.reach(Spot::Close, trapped);
    }
}

fn serve(on: On, handler: Fragile) -> Served {
    hush();
    let limits =
        Limits::default().outbox_high(50_000).outbox_low(1000).idle_timeout(Duration::from_millis(30));
    let framing = LengthPrefix::u32_be().max(200_000).oversize(Oversize::Discard);
    Served::start(on.bind().framing(framing).limits(limits), handler)
}

/// Traps a session, does the rest to it, and finds that it ended by its panic and nobody else did.
fn spring(on: On, spot: Spot, callback: &str, rest: impl FnOnce(&mut Client)) {
    let served = serve(on, Fragile::new(spot));
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.send("trap");
    assert_eq!(client.recv(), b"trap", "what was sent before the panic is delivered");
    rest(&mut client);
    client.read_to_end();
    drop(client);
    let ending = served.journal.await_ending(session.id());
    assert_eq!(ending, (CloseKind::Panicked, format!("panic in {callback}: {ON_PURPOSE}: {spot:?}")));
    bystander.assert_echo("still served");
    until("the panic is counted", || served.metrics().panics == 1);
    assert_eq!(served.journal.closed(), 1);
    drop(bystander);
    served.finish();
}

fn a_panic_in_on_open_refuses_that_session(on: On) {
    let handler = Fragile::new(Spot::Open);
    let armed = handler.armed.clone();
    let served = serve(on, handler);
    let mut bystander = served.connect();
    bystander.assert_echo("open");
    armed.store(true, Ordering::Relaxed);
    served.assert_refused();
    served.until_counted("the panic is counted", |metrics| {
        (metrics.panics, metrics.refused_total(), metrics.opened) == (1, 1, 1)
    });
    bystander.assert_echo("still served");
    served.connect().assert_echo("and so are new ones");
    drop(bystander);
    served.finish();
}

fn a_panic_in_on_packet_ends_that_session(on: On) {
    spring(on, Spot::Packet, "on_packet", |_| {});
}

fn a_panic_in_on_drained_ends_that_session(on: On) {
    spring(on, Spot::Drained, "on_drained", |_| {});
}

fn a_panic_in_on_timer_ends_that_session(on: On) {
    spring(on, Spot::Timer, "on_timer", |_| {});
}

fn a_panic_in_on_idle_ends_that_session(on: On) {
    spring(on, Spot::Idle, "on_idle", |_| {});
}

fn a_panic_in_on_rejected_ends_that_session(on: On) {
    // A panic in a callback that comes with the bytes is told of as one in `on_packet`.
    spring(on, Spot::Rejected, "on_packet", |client| client.send(vec![0; 200_001]));
}

fn a_panic_in_on_shutdown_does_not_stop_the_shutdown(on: On) {
    let served = serve(on, Fragile::new(Spot::Shutdown));
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.send("trap");
    assert_eq!(client.recv(), b"trap");
    assert_eq!(client.recv().len(), 100_000);
    served.running.shutdown(PATIENCE);
    for client in [&mut client, &mut bystander] {
        assert_eq!(client.recv(), b"farewell");
        client.assert_end();
    }
    drop((client, bystander));
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Panicked);
    until("the panic is counted", || served.metrics().panics == 1);
    served.finish();
}

fn a_panic_in_on_closing_is_counted_and_the_session_ends_as_it_would(on: On) {
    a_panic_at_the_end_is_counted_and_harms_nobody(on, Spot::Closing);
}

fn a_panic_in_on_close_is_counted_and_harms_nobody(on: On) {
    a_panic_at_the_end_is_counted_and_harms_nobody(on, Spot::Close);
}

fn a_panic_at_the_end_is_counted_and_harms_nobody(on: On, spot: Spot) {
    let served = serve(on, Fragile::new(spot));
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.send("trap");
    assert_eq!(client.recv(), b"trap");
    client.end();
    client.read_to_end();
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::PeerClosed);
    until("the panic is counted", || served.metrics().panics == 1);
    bystander.assert_echo("still served");
    drop((client, bystander));
    served.finish();
}

/// Length prefixes, and two payloads that are too much for it.
#[derive(Clone)]
struct Brittle(LengthPrefix);

impl Framing for Brittle {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        assert!(!buf.ends_with(b"undecodable"), "{ON_PURPOSE}: decode");
        self.0.decode(buf)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        out.extend_from_slice(b"half a frame");
        assert!(payload != b"unencodable", "{ON_PURPOSE}: encode");
        out.truncate(out.len() - 12);
        self.0.encode(payload, out)
    }
}

fn serve_brittle(on: On) -> Served {
    hush();
    let echo = echo();
    Served::start(on.bind().framing(Brittle(LengthPrefix::u32_be())), echo)
}

fn a_panic_in_the_decoding_of_a_framing_ends_that_session(on: On) {
    let served = serve_brittle(on);
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.assert_echo("well so far");
    client.send("undecodable");
    client.assert_end();
    drop(client);
    let ending = served.journal.await_ending(session.id());
    assert_eq!(ending, (CloseKind::Panicked, format!("panic in on_packet: {ON_PURPOSE}: decode")));
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

fn a_panic_in_the_encoding_of_a_framing_ends_that_session_and_keeps_what_was_sent(on: On) {
    let served = serve_brittle(on);
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.write(&[frame(b"sent before"), frame(b"unencodable")].concat());
    assert_eq!(client.recv(), b"sent before");
    client.assert_end();
    drop(client);
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::Panicked);
    assert!(text.contains("on purpose: encode"), "{text}");
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

fn a_panic_in_the_encoding_that_the_handler_catches_leaves_nothing_in_the_outbox(on: On) {
    hush();
    let handler = packet_fn(|session: &mut Session<'_>, packet: &[u8]| {
        let sent = catch_unwind(AssertUnwindSafe(|| session.send(packet)));
        if sent.is_err() && packet == b"unencodable" {
            return Ok(());
        }
        Ok(session.send("whole")?)
    });
    let served = Served::start(on.bind().framing(Brittle(LengthPrefix::u32_be())), handler);
    let mut client = served.connect();
    // First into an outbox that is empty, and stays so; then behind a frame, and before one.
    client.send("unencodable");
    until("it was tried", || served.metrics().packets_in == 1);
    client.write(&[frame(b"one"), frame(b"unencodable"), frame(b"two")].concat());
    for reply in ["one", "whole", "two", "whole"] {
        assert_eq!(client.recv_text(), reply);
    }
    assert_eq!(served.metrics().panics, 0, "the handler has dealt with it");
    drop(client);
    served.finish();
}

fn a_panic_in_the_encoding_of_a_packet_sent_by_handle_ends_that_session(on: On) {
    let served = serve_brittle(on);
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    assert_eq!(session.send("sent before"), Ok(()));
    assert_eq!(session.send("unencodable"), Ok(()));
    assert_eq!(client.recv(), b"sent before");
    client.assert_end();
    drop(client);
    let ending = served.journal.await_ending(session.id());
    assert_eq!(ending, (CloseKind::Panicked, format!("panic in encode: {ON_PURPOSE}: encode")));
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

fn a_panic_of_a_job_is_counted_and_harms_nobody(on: On) {
    let served = serve_brittle(on);
    let (mut bystander, session) = served.connect_known();
    let told = served.running.execute(session.id().shard(), |_| panic!("{ON_PURPOSE}: a job"));
    assert_eq!(told, Ok(()));
    until("the panic is counted", || served.metrics().panics == 1);
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

fn a_panic_in_the_encoding_of_a_packet_sent_by_a_job_ends_that_session(on: On) {
    let served = serve_brittle(on);
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    let (id, (answer, answers)) = (session.id(), std::sync::mpsc::channel());
    let told = served.running.execute(id.shard(), move |shard| {
        for packet in ["sent before", "unencodable", "sent behind"] {
            answer.send(shard.send(id, packet)).expect("the test waits");
        }
    });
    assert_eq!(told, Ok(()));
    assert_eq!(answers.iter().collect::<Vec<_>>(), [Ok(()), Err(SendError::Closed), Err(SendError::Closed)]);
    assert_eq!(client.recv(), b"sent before");
    client.assert_end();
    drop(client);
    assert_eq!(served.journal.await_ending(id).0, CloseKind::Panicked);
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

/// Refuses by panic.
#[derive(Debug)]
struct Hesitant<S> {
    armed: Arc<AtomicBool>,
    inner: S,
}

impl<S: framewire::ForkingStrategy> framewire::ForkingStrategy for Hesitant<S> {
    fn workers(&self) -> usize {
        self.inner.workers()
    }

    fn place(
        &mut self,
        connection: &framewire::NewConnection<'_>,
        loads: framewire::ShardLoads<'_>,
    ) -> framewire::Placement {
        assert!(!self.armed.swap(false, Ordering::Relaxed), "{ON_PURPOSE}: place");
        self.inner.place(connection, loads)
    }
}

fn a_panic_of_the_strategy_refuses_that_connection(on: On) {
    hush();
    let armed = Arc::<AtomicBool>::default();
    let server = on.bind().framing(LengthPrefix::u32_be());
    let given = armed.clone();
    let server = match on.strategy() {
        On::WorkerPool => server.strategy(Hesitant { armed: given, inner: framewire::WorkerPool::new(2) }),
        On::ThreadPerConnection => {
            server.strategy(Hesitant { armed: given, inner: framewire::ThreadPerConnection::max(16) })
        }
        _ => server.strategy(Hesitant { armed: given, inner: framewire::SingleReactor::new() }),
    };
    let served = Served::start(server, echo());
    let mut bystander = served.connect();
    bystander.assert_echo("placed");
    armed.store(true, Ordering::Relaxed);
    served.assert_refused();
    bystander.assert_echo("still served");
    served.connect().assert_echo("and so are new ones");
    until("the panic is counted", || served.metrics().panics == 1);
    drop(bystander);
    served.finish();
}
