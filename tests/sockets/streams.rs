//! Streams that are carried by the connections of another service, on each strategy that can.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use framewire::{
    Addr, Carried, Channel, CloseKind, EncodeError, Failure, Handled, LengthPrefix, Limits, Mux, NewStream,
    Origin, PacketHandler, Reactor, RunningServer, Server, ServerHandle, Session, SessionHandle,
    SingleReactor, Streams, ThreadPerConnection, TimerId, WorkerPool,
    bytes::{BufMut, BytesMut},
    packet_fn,
};

use crate::common::{Client, Journal, On, PATIENCE, Watched, addr_of, audit, echo, failure, on_udp, until};
use crate::handlers::Scripted;

on_udp! {
    streams_are_served_by_the_handler_of_connections
    a_long_packet_comes_back_whole
    streams_end_with_their_connection
    handles_and_channels_reach_streams_from_other_threads
    streams_of_one_thread_send_to_each_other
    a_client_that_does_not_read_holds_up_nobody_else
    timers_run
    streams_say_farewell_at_a_shutdown
}

/// A packet of a connection: the stream, what is done with it (open, data, close), and the payload.
struct Letters;

impl Mux for Letters {
    fn packet(&self, stream: u64, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        out.put_slice(&[stream as u8, b'd']);
        out.put_slice(payload);
        Ok(())
    }

    fn close(&self, stream: u64, out: &mut BytesMut) {
        out.put_slice(&[stream as u8, b'c']);
    }
}

fn carrier(streams: Streams) -> impl PacketHandler<State = ()> + Clone + Send + 'static {
    packet_fn(move |carrier, packet| match packet {
        [stream, b'o'] => Ok(streams.open(carrier, NewStream::new((*stream).into()))?),
        [stream, b'd', payload @ ..] => Ok(streams.deliver(carrier, (*stream).into(), payload)?),
        [stream, b'c'] => Ok(streams.end(carrier, (*stream).into())?),
        _ => Err(Failure::because("no such packet")),
    })
}

struct World {
    running: RunningServer,
    addr: Addr,
    /// Of the streams.
    streams: ServerHandle,
    journal: Journal,
}

fn start<H>(on: On, limits: Limits, handler: H) -> World
where
    H: PacketHandler + Clone + Send + 'static,
{
    let carriers = Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
    let carried: Server<Carried> = Server::carried(Letters).limits(limits);
    let (addr, streams) = (carriers.local_addrs().remove(0), carried.handle());
    let reactor = match on {
        On::WorkerPool => Reactor::new(WorkerPool::new(3)),
        _ => Reactor::new(SingleReactor::new()),
    };
    let journal = Journal::default();
    let carrier = carrier(carried.streams());
    let reactor = reactor.service(carriers, carrier).service(carried, Watched::new(handler, &journal));
    World { running: reactor.spawn().expect("it starts"), addr, streams, journal }
}

impl World {
    fn connect(&self, streams: u8) -> Client {
        let mut client = Client::connect(&addr_of(&self.addr)).expect("it listens");
        (1..=streams).for_each(|stream| client.send([stream, b'o']));
        client
    }

    /// Ends a test: the clients are gone.
    fn finish(self) {
        until("every stream has ended", || self.streams.session_count() == 0);
        let Self { running, streams, journal, .. } = self;
        running.stop(PATIENCE).expect("it stops in peace");
        audit(&streams, &journal);
    }
}

fn data(stream: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    [&[stream, b'd'], payload.as_ref()].concat()
}

fn streams_are_served_by_the_handler_of_connections(on: On) {
    let world = start(on, Limits::default(), echo());
    let mut clients: Vec<Client> = (0..6).map(|_| world.connect(20)).collect();
    for round in 0_u32..10 {
        for client in &mut clients {
            (1..=20).for_each(|stream| client.send(data(stream, round.to_string())));
        }
        for client in &mut clients {
            let mut heard: Vec<_> = (0..20).map(|_| client.recv()).collect();
            heard.sort_unstable();
            assert_eq!(heard, (1..=20).map(|stream| data(stream, round.to_string())).collect::<Vec<_>>());
        }
    }
    assert_eq!(world.streams.session_count(), 120);
    clients.iter_mut().for_each(|client| client.send([7, b'c']));
    until("the ended streams are gone", || world.streams.session_count() == 114);
    assert_eq!(world.streams.metrics().closed(CloseKind::PeerClosed), 6);
    drop(clients);
    world.finish();
}

fn a_long_packet_comes_back_whole(on: On) {
    let world = start(on, Limits::default(), echo());
    let mut client = world.connect(1);
    for len in [0, 1, 4_000, 65_536, 600_000] {
        let packet: Vec<u8> = (0..len).map(|at: u32| (at * 7 + at / 251) as u8).collect();
        client.send(data(1, &packet));
        assert!(client.recv() == data(1, &packet), "{len} bytes");
    }
    drop(client);
    world.finish();
}

fn streams_end_with_their_connection(on: On) {
    let world = start(on, Limits::default(), echo());
    let (mut stays, goes) = (world.connect(1), world.connect(100));
    until("the streams are open", || world.streams.session_count() == 101);
    drop(goes);
    until("they have ended", || world.streams.session_count() == 1);
    assert_eq!(world.streams.metrics().closed(CloseKind::CarrierLost), 100);
    stays.send(data(1, "still there"));
    assert_eq!(stays.recv(), data(1, "still there"));
    drop(stays);
    world.finish();
}

fn handles_and_channels_reach_streams_from_other_threads(on: On) {
    let world = start(on, Limits::default(), echo());
    let mut clients: Vec<Client> = (0..4).map(|_| world.connect(5)).collect();
    until("the streams are open", || world.streams.session_count() == 20);
    let (channel, handles) = (Channel::new(), world.journal.handles());
    handles.iter().for_each(|handle| channel.join(handle).expect("it is open"));
    let (publishing, sending): (Channel, Vec<SessionHandle>) = (channel.clone(), handles);
    let publisher = thread::spawn(move || {
        for number in 0_u32..50 {
            assert_eq!(publishing.publish(number.to_string()), Ok(20));
        }
        let tickets: Vec<_> = sending.iter().map(|handle| handle.send_tracked("last")).collect();
        tickets.into_iter().for_each(|ticket| assert_eq!(ticket.expect("there is room").wait(), Ok(())));
    });
    for client in &mut clients {
        let mut next = [0; 6];
        for _ in 0..51 * 5 {
            let packet = client.recv();
            let seen = &mut next[usize::from(packet[0])];
            let expected = if *seen == 50 { "last".to_owned() } else { seen.to_string() };
            assert_eq!(packet, data(packet[0], expected));
            *seen += 1;
        }
    }
    crate::common::join(publisher);
    // To each thread.
    assert!(world.streams.broadcast("to all").expect("it is posted") > 0);
    for client in &mut clients {
        let mut heard: Vec<_> = (0..5).map(|_| client.recv()).collect();
        heard.sort_unstable();
        assert_eq!(heard, (1..=5).map(|stream| data(stream, "to all")).collect::<Vec<_>>());
    }
    drop(clients);
    until("nobody is left in the channel", || channel.is_empty());
    world.finish();
}

/// Sends each packet to the session that has sent the one before.
#[derive(Clone, Default)]
struct Relay {
    last: Option<framewire::SessionId>,
}

impl PacketHandler for Relay {
    type State = ();

    fn on_open(&mut self, _: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        if let Some(last) = self.last.replace(session.id()) {
            session.send_to(last, packet)?;
        }
        Ok(())
    }
}

fn streams_of_one_thread_send_to_each_other(on: On) {
    let world = start(on, Limits::default(), Relay::default());
    let mut client = world.connect(2);
    for round in 0..100_u32 {
        client.send(data(1, round.to_string()));
        client.send(data(2, "and you"));
        if round > 0 {
            assert_eq!(client.recv(), data(2, round.to_string()));
        }
        assert_eq!(client.recv(), data(1, "and you"));
    }
    drop(client);
    world.finish();
}

fn a_client_that_does_not_read_holds_up_nobody_else(on: On) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let limits = Limits::default().outbox_high(64 * 1024).outbox_low(16 * 1024);
    let flood = packet_fn(move |session: &mut Session<'_>, packet: &[u8]| {
        if packet != b"flood" {
            return Ok(session.send(packet)?);
        }
        while session.stats().queued < 1_000_000 {
            session.send([7; 10_000])?;
            counted.fetch_add(10_000, Ordering::Relaxed);
        }
        Ok(())
    });
    let world = start(on, limits, flood);
    let (mut slow, mut other) = (world.connect(10), world.connect(10));
    (1..=10).for_each(|stream| slow.send(data(stream, "flood")));
    until("it is flooded", || sent.load(Ordering::Relaxed) >= 10_000_000);
    for round in 0..20_u32 {
        (1..=10).for_each(|stream| other.send(data(stream, round.to_string())));
        (1..=10).for_each(|_| drop(other.recv()));
    }
    let mut heard = 0;
    while heard < sent.load(Ordering::Relaxed) {
        heard += slow.recv().len() - 2;
    }
    slow.send(data(3, "and on"));
    assert_eq!(slow.recv(), data(3, "and on"));
    drop((slow, other));
    world.finish();
}

fn timers_run(on: On) {
    let handler = Scripted::<()>::echo()
        .on_open(|session, ()| {
            let Origin::Carried { stream, .. } = session.origin() else { panic!("not carried") };
            Ok(session.set_timer(TimerId(stream as u32), Duration::from_millis(20))?)
        })
        .on_timer(|session, (), timer| {
            session.send(format!("timer {}", timer.0))?;
            session.close();
            Ok(())
        });
    let world = start(on, Limits::default(), handler);
    let mut client = world.connect(3);
    let mut heard: Vec<_> = (0..6).map(|_| client.recv()).collect();
    heard.sort_unstable();
    let expected = (1..=3).flat_map(|n| [vec![n, b'c'], data(n, format!("timer {n}"))]);
    assert_eq!(heard, expected.collect::<Vec<_>>());
    drop(client);
    world.finish();
}

fn streams_say_farewell_at_a_shutdown(on: On) {
    let handler = Scripted::<()>::echo().on_shutdown(|session, ()| {
        session.send("farewell")?;
        Ok(framewire::Then::Close)
    });
    let world = start(on, Limits::default(), handler);
    let mut client = world.connect(2);
    until("the streams are open", || world.streams.session_count() == 2);
    world.running.handle().shutdown(PATIENCE);
    let mut heard: Vec<_> = (0..4).map(|_| client.recv()).collect();
    heard.sort_unstable();
    assert_eq!(
        heard,
        [vec![1, b'c'], data(1, "farewell"), vec![2, b'c'], data(2, "farewell")],
        "before the connection ends"
    );
    client.assert_end();
    drop(client);
    world.finish();
}

#[test]
fn streams_that_cannot_be_carried_are_refused_by_name() {
    let carriers = || Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
    let alone = failure(Server::carried(Letters).spawn(echo()));
    assert!(alone.contains("Reactor"), "{alone}");
    let threads = Reactor::new(ThreadPerConnection::max(10)).service(carriers(), echo());
    let threads = failure(threads.service(Server::carried(Letters), echo()).spawn());
    assert!(threads.contains("ThreadPerConnection cannot carry streams"), "{threads}");
    let also = Server::carried(Letters).also("127.0.0.1:0", LengthPrefix::u32_be()).expect("a free port");
    let also =
        failure(Reactor::new(SingleReactor::new()).service(carriers(), echo()).service(also, echo()).spawn());
    assert!(also.contains("carriers"), "{also}");
}

#[test]
fn a_carrier_of_another_reactor_is_told_that_it_is_elsewhere() {
    let carried = Server::carried(Letters);
    let streams = carried.streams();
    let elsewhere = packet_fn(move |session: &mut Session<'_>, _: &[u8]| {
        let refused = streams.open(session, NewStream::new(1)).map_err(|error| error.to_string());
        Ok(session.send(refused.expect_err("it is not here"))?)
    });
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
    let addr = addr_of(&server.local_addrs()[0]);
    let running = server.spawn(elsewhere).expect("it starts");
    let mut client = Client::connect(&addr).expect("it listens");
    client.send("open");
    assert!(String::from_utf8_lossy(&client.recv()).contains("not on this thread"));
    drop((client, running));
}

#[test]
fn streams_of_one_service_end_with_their_carrier_after_those_of_another_have_ended() {
    let carriers = Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
    let addr = carriers.local_addrs().remove(0);
    let (odd, even) = (Server::carried(Letters), Server::carried(Letters));
    let (handles, streams) = ([odd.handle(), even.handle()], [odd.streams(), even.streams()]);
    let carrier = packet_fn(move |carrier: &mut Session<'_>, packet: &[u8]| {
        let [stream, what, ..] = *packet else { return Err(Failure::because("no such packet")) };
        let [odd, even] = &streams;
        let streams = if stream % 2 == 1 { odd } else { even };
        match what {
            b'o' => Ok(streams.open(carrier, NewStream::new(stream.into()))?),
            _ => Ok(streams.end(carrier, stream.into())?),
        }
    });
    let reactor = Reactor::new(SingleReactor::new()).service(carriers, carrier);
    let running = reactor.service(odd, echo()).service(even, echo()).spawn().expect("it starts");
    let sessions = || handles.each_ref().map(|handle| handle.metrics().sessions);
    let mut client = Client::connect(&addr_of(&addr)).expect("it listens");
    client.send([1, b'o']);
    client.send([2, b'o']);
    until("both are open", || sessions() == [1, 1]);
    client.send([1, b'c']);
    until("the first has ended", || sessions() == [0, 1]);
    drop(client);
    until("the second has ended with its carrier", || sessions() == [0, 0]);
    running.stop(PATIENCE).expect("it stops");
}
