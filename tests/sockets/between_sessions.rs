//! What sessions ask of each other by their ids, and what a closure on a shard's thread reaches, on real sockets.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    mpsc::{Sender, channel},
};
use std::time::Duration;

use crate::common::{Client, On, PATIENCE, Served, on_each_strategy_and_transport, until};
use framewire::{
    CloseKind, Handled, Limits, PacketHandler, QueryError, Session, SessionId, ShardContext, TimerId,
    packet_fn,
};

on_each_strategy_and_transport! {
    a_packet_reaches_every_other_session_wherever_it_lives
    a_session_is_closed_by_another_behind_what_it_was_sent
    a_timer_of_each_shard_reaches_all_of_its_sessions
    a_job_reaches_the_handler_of_its_shard_and_the_states
}

/// Who is there, for all shards.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Vec<SessionId>>>);

impl Room {
    fn lock(&self) -> MutexGuard<'_, Vec<SessionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends each packet to all others; "out" closes them.
#[derive(Clone, Default)]
struct Relay(Room);

impl PacketHandler for Relay {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        self.0.lock().push(session.id());
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        let me = session.id();
        let others: Vec<_> = self.0.lock().iter().copied().filter(|other| *other != me).collect();
        for other in others {
            session.send_to(other, packet)?;
            if packet == b"out" {
                session.close_session(other)?;
            }
        }
        Ok(())
    }
}

fn a_packet_reaches_every_other_session_wherever_it_lives(on: On) {
    let relay = Relay::default();
    let served = on.serve(Limits::default(), relay.clone());
    let mut clients: Vec<Client> = (0..5).map(|_| served.connect()).collect();
    until("all are there", || relay.0.lock().len() == 5);
    for round in 0..20 {
        let text = format!("round {round}");
        clients[round % 5].send(&text);
        for (at, client) in clients.iter_mut().enumerate() {
            if at != round % 5 {
                assert_eq!(client.recv_text(), text);
            }
        }
    }
    drop(clients);
    served.finish();
}

fn a_session_is_closed_by_another_behind_what_it_was_sent(on: On) {
    let relay = Relay::default();
    let served = on.serve(Limits::default(), relay.clone());
    let mut clients: Vec<Client> = (0..4).map(|_| served.connect()).collect();
    until("all are there", || relay.0.lock().len() == 4);
    clients[0].send("first");
    clients[0].send("out");
    for client in &mut clients[1..] {
        assert_eq!(client.recv_text(), "first");
        assert_eq!(client.recv_text(), "out");
        client.assert_end();
    }
    drop(clients);
    until("all have ended", || served.journal.closed() == 4);
    assert_eq!(served.journal.ended_by(CloseKind::Local), 3);
    served.finish();
}

/// Ticks on its shard.
#[derive(Clone)]
struct Ticking;

const TICK: TimerId = TimerId(1);

impl PacketHandler for Ticking {
    type State = u32;

    fn on_start(&mut self, shard: &mut ShardContext<'_, u32>) {
        shard.set_timer(TICK, Duration::from_millis(5)).expect("it is the only one");
    }

    fn on_shard_timer(&mut self, shard: &mut ShardContext<'_, u32>, timer: TimerId) {
        shard.set_timer(timer, Duration::from_millis(5)).expect("it is the only one");
        shard.each(|session, ticks| {
            *ticks += 1;
            session.send(format!("tick {ticks}")).expect("there is room");
        });
    }

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled<u32> {
        Ok(0)
    }

    fn on_packet(&mut self, _session: &mut Session<'_>, _ticks: &mut u32, _packet: &[u8]) -> Handled {
        Ok(())
    }
}

fn a_timer_of_each_shard_reaches_all_of_its_sessions(on: On) {
    let served = on.serve(Limits::default(), Ticking);
    let mut clients: Vec<Client> = (0..4).map(|_| served.connect()).collect();
    for tick in 1..=10 {
        for client in &mut clients {
            assert_eq!(client.recv_text(), format!("tick {tick}"));
        }
    }
    drop(clients);
    let server = served.running.handle();
    served.running.stop(PATIENCE).expect("a shard stops in spite of its timers");
    assert_eq!(server.metrics().timers, 0);
}

/// Counts its shard's packets, and each session's.
#[derive(Clone)]
struct Counting {
    packets: u64,
    opened: Sender<SessionId>,
}

impl PacketHandler for Counting {
    type State = u64;

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<u64> {
        self.opened.send(session.id())?;
        Ok(0)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, packets: &mut u64, packet: &[u8]) -> Handled {
        self.packets += 1;
        *packets += 1;
        Ok(session.send(packet)?)
    }
}

fn a_job_reaches_the_handler_of_its_shard_and_the_states(on: On) {
    let (opened, arrivals) = channel();
    // Unwatched, so that the handler is of the type that the job asks for.
    let server = on.bind().framing(framewire::LengthPrefix::u32_be());
    let addr = crate::common::addr_of(&server.local_addrs()[0]);
    let running = server.spawn(Counting { packets: 0, opened }).expect("it starts");
    let mut client = Client::connect(&addr).expect("it listens");
    for _ in 0..3 {
        client.assert_echo("counted");
    }
    let session = arrivals.recv_timeout(PATIENCE).expect("it was opened");
    let (answer, answers) = channel();
    let asked = running.execute_with(session.shard(), move |handler: &mut Counting, shard| {
        let known: Vec<SessionId> = shard.ids().collect();
        let own = shard.with(session, |session, packets| {
            session.send("seen").expect("there is room");
            *packets
        });
        answer.send((known, handler.packets, own)).expect("it is awaited");
    });
    assert_eq!(asked, Ok(()));
    assert_eq!(answers.recv_timeout(PATIENCE), Ok((vec![session], 3, Some(3))));
    assert_eq!(client.recv_text(), "seen");
    drop(client);
    running.stop(PATIENCE).expect("it stops");
}

#[test]
fn a_job_for_another_handler_is_refused_and_says_so() {
    let echo = packet_fn(|session, packet| Ok(session.send(packet)?));
    let served: Served = On::SingleReactor.serve(Limits::default(), echo);
    let shard = served.running.shards()[0];
    let refused = served.running.execute_with(shard, |_: &mut Ticking, _| ());
    assert!(matches!(refused, Err(QueryError::OtherHandler { .. })), "{refused:?}");
    let text = refused.map_err(|error| error.to_string());
    assert!(
        text.as_ref().is_err_and(|text| text.contains("Ticking") && text.contains("Watched")),
        "{text:?}"
    );
    served.finish();
}
