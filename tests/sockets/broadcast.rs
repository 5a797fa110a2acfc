//! One packet for many sessions, on real sockets.

use std::{
    collections::HashSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::common::{
    Client, On, PATIENCE, Served, on_each_strategy_and_transport, on_each_strategy_uncompressed, until,
};
use framewire::{
    Channel, CloseKind, Decoded, EncodeError, FrameError, Framing, Handled, LengthPrefix, Limits,
    PacketHandler, SendError, ServerHandle, Session, SessionId, TicketError, bytes::BytesMut, encode_fn,
};

on_each_strategy_and_transport! {
    what_one_session_says_reaches_all_wherever_they_live
    broadcasts_of_another_thread_arrive_in_order_between_its_other_sends
    a_packet_goes_to_those_that_are_chosen_or_listed
    a_packet_for_many_sessions_is_encoded_once_on_each_shard
    what_a_callback_sends_by_different_ways_arrives_in_that_order
}

on_each_strategy_uncompressed! {
    a_ticket_tells_what_became_of_a_packet_at_each_session_that_is_listed
}

/// Broadcasts each packet.
#[derive(Clone)]
struct Shout(ServerHandle);

impl PacketHandler for Shout {
    type State = ();

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, _session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        self.0.broadcast(packet)?;
        Ok(())
    }
}

/// With a budget so small that nearly every broadcast takes several turns.
fn serve(on: On) -> Served {
    let server =
        on.bind().framing(LengthPrefix::u32_be()).limits(Limits::default().fanout_budget(3, 1 << 20));
    let handle = server.handle();
    Served::start(server, Shout(handle))
}

fn what_one_session_says_reaches_all_wherever_they_live(on: On) {
    let served = serve(on);
    let mut clients: Vec<Client> = (0..10).map(|_| served.connect()).collect();
    served.await_open();
    for round in 0..20 {
        let text = format!("round {round}");
        clients[round % 10].send(&text);
        for client in &mut clients {
            assert_eq!(client.recv_text(), text);
        }
    }
    drop(clients);
    served.finish();
}

fn broadcasts_of_another_thread_arrive_in_order_between_its_other_sends(on: On) {
    let served = serve(on);
    let (mut client, handle) = served.connect_known();
    let mut others: Vec<Client> = (0..9).map(|_| served.connect()).collect();
    served.await_open();
    for number in 0..100 {
        assert!(served.running.broadcast(format_args!("broadcast {number}")).is_ok_and(|shards| shards > 0));
        handle.send(format_args!("alone {number}")).expect("it is open");
    }
    for number in 0..100 {
        assert_eq!(client.recv_text(), format!("broadcast {number}"));
        assert_eq!(client.recv_text(), format!("alone {number}"));
        for other in &mut others {
            assert_eq!(other.recv_text(), format!("broadcast {number}"));
        }
    }
    drop((client, others));
    served.finish();
}

fn a_packet_goes_to_those_that_are_chosen_or_listed(on: On) {
    let served = serve(on);
    let mut known: Vec<(Client, SessionId)> = Vec::new();
    for _ in 0..6 {
        let (client, handle) = served.connect_known();
        known.push((client, handle.id()));
    }
    let server = &served.running;
    let odd: Vec<SessionId> = known.iter().skip(1).step_by(2).map(|(_, id)| *id).collect();
    let chosen = odd.clone();
    server.broadcast_where("chosen", move |session| chosen.contains(&session.id)).expect("there is room");
    server.send_to(&odd, "listed").expect("there is room");
    let unwilling = encode_fn(|_| Err(EncodeError::because("out of ink")));
    assert!(server.broadcast(unwilling).is_err_and(|error| error.to_string().contains("out of ink")));
    server.broadcast("all").expect("there is room");
    for (at, (client, _)) in known.iter_mut().enumerate() {
        if at % 2 == 1 {
            assert_eq!((client.recv_text().as_str(), client.recv_text().as_str()), ("chosen", "listed"));
        }
        assert_eq!(client.recv_text(), "all");
    }
    drop(known);
    until("they have ended", || server.session_count() == 0);
    server.send_to(&odd, "too late").expect("nobody is asked");
    served.finish();
}

/// A framing that counts what it encodes.
#[derive(Clone)]
struct Counting {
    framing: LengthPrefix,
    encoded: Arc<AtomicUsize>,
}

impl Framing for Counting {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        self.framing.decode(buf)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        self.encoded.fetch_add(1, Relaxed);
        self.framing.encode(payload, out)
    }
}

fn a_packet_for_many_sessions_is_encoded_once_on_each_shard(on: On) {
    let encoded = Arc::<AtomicUsize>::default();
    let framing = Counting { framing: LengthPrefix::u32_be(), encoded: encoded.clone() };
    let server = on.bind().framing(framing);
    let handle = server.handle();
    let served = Served::start(server, Shout(handle));
    let mut known: Vec<_> = (0..30).map(|_| served.connect_known()).collect();
    let room = Channel::new();
    known.iter().for_each(|(_, handle)| assert_eq!(room.join(handle), Ok(())));
    let shards: HashSet<_> = known.iter().map(|(_, handle)| handle.id().shard()).collect();
    let before = encoded.load(Relaxed);
    served.running.broadcast([7; 1_000]).expect("there is room");
    assert_eq!(room.publish([8; 100]), Ok(30));
    for (client, _) in &mut known {
        assert_eq!((client.recv(), client.recv()), (vec![7; 1_000], vec![8; 100]));
    }
    // What goes through layers is encoded by each session.
    let each = if on.is_layered() { 30 } else { shards.len() };
    assert_eq!(encoded.load(Relaxed) - before, 2 * each);
    drop(known);
    served.finish();
}

/// Sends each packet to all others, by every way there is.
#[derive(Clone)]
struct ByAllWays {
    server: ServerHandle,
    room: Channel,
}

/// What it appends to the packets, in order.
const WAYS: [&str; 6] =
    ["to each", "published", "to each again", "by handles", "to those listed", "broadcast"];

impl PacketHandler for ByAllWays {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        Ok(self.room.join(&session.handle())?)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        let me = session.id();
        let said = |way: &str| [packet, way.as_bytes()].concat();
        let others: Vec<_> = self.room.members().into_iter().filter(|other| other.id() != me).collect();
        let ids: Vec<SessionId> = others.iter().map(|other| other.id()).collect();
        let [each, published, again, by_handles, listed, broadcast] = WAYS.map(said);
        ids.iter().try_for_each(|other| session.send_to(*other, &each))?;
        self.room.publish_except(me, published)?;
        ids.iter().try_for_each(|other| session.send_to(*other, &again))?;
        others.iter().try_for_each(|other| other.send(&by_handles))?;
        self.server.send_to(&ids, listed)?;
        self.server.broadcast_where(broadcast, move |session| session.id != me)?;
        Ok(())
    }
}

fn what_a_callback_sends_by_different_ways_arrives_in_that_order(on: On) {
    let limits = Limits::default().fanout_budget(3, 1 << 20);
    let server = on.bind().framing(LengthPrefix::u32_be()).limits(limits);
    let handler = ByAllWays { server: server.handle(), room: Channel::new() };
    let served = Served::start(server, handler.clone());
    let mut clients: Vec<Client> = (0..7).map(|_| served.connect()).collect();
    until("all are members", || handler.room.len() == 7);
    let (speaker, hearers) = clients.split_first_mut().expect("there are seven");
    for number in 0..50 {
        speaker.send(format!("{number} "));
    }
    for number in 0..50 {
        for way in WAYS {
            for hearer in &mut *hearers {
                assert_eq!(hearer.recv_text(), format!("{number} {way}"));
            }
        }
    }
    drop(clients);
    served.finish();
}

fn a_ticket_tells_what_became_of_a_packet_at_each_session_that_is_listed(on: On) {
    let served = on.serve(
        Limits::default().frame(8 << 20).outbox_hard(32 << 20),
        Shout(On::SingleReactor.bind().handle()),
    );
    let (mut well, reads) = served.connect_known();
    let (left, has_left) = served.connect_known();
    let (stalled, never_reads) = served.known(Served::connect_narrow);
    drop(left);
    until("it has ended", || !has_left.is_open() && served.running.session_count() == 2);
    let elsewhere = SessionId::from_u128(1);
    let ids = [has_left.id(), reads.id(), elsewhere, never_reads.id(), reads.id()];
    let ticket = served.running.send_to_tracked(&ids, vec![7; 4 << 20]).expect("it can be encoded");
    assert_eq!(ticket.len(), 5);
    for _ in 0..2 {
        assert_eq!(well.recv().len(), 4 << 20);
    }
    until("all but one are told of", || ticket.pending() == 1);
    never_reads.abort().expect("there is room");
    let gone = Err(TicketError::Refused(SendError::Closed));
    let lost = Err(TicketError::Closed(CloseKind::Local));
    let expected = ids.into_iter().zip([gone.clone(), Ok(()), gone, lost, Ok(())]);
    assert_eq!(ticket.wait_timeout(PATIENCE), expected.collect::<Vec<_>>());
    drop((well, stalled));
    served.finish();
}

#[test]
fn a_server_that_does_not_run_takes_a_broadcast_for_nobody() {
    let server = On::SingleReactor.bind().framing(LengthPrefix::u32_be());
    let handle = server.handle();
    assert_eq!(handle.broadcast("x"), Ok(0));
    let running = server.spawn(Shout(handle.clone())).expect("it starts");
    drop(running);
    assert_eq!((handle.broadcast("x"), handle.send_to(&[], "x")), (Ok(0), Ok(0)));
}

#[test]
fn a_predicate_is_dropped_with_the_last_shard_that_has_asked_it() {
    let served = serve(On::WorkerPool);
    let client = served.connect();
    served.await_open();
    let (kept, asked) = (Arc::new(()), Arc::new(OnceLock::new()));
    let (held, told) = (kept.clone(), asked.clone());
    let which = move |_: &framewire::SessionInfo| {
        let _held = &held;
        told.set(()).is_ok()
    };
    served.running.broadcast_where("x", which).expect("there is room");
    until("it is dropped", || Arc::strong_count(&kept) == 1);
    assert!(asked.get().is_some());
    drop(client);
    served.finish();
}
