//! What became of packets for an upstream is told once, whatever becomes of its connections.

use std::{
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::dials::{addr, end, last, to, world};
use crate::{
    Outcome, SendError, SendTicket, TicketError,
    dial::{Dial, Reconnect, Upstream, UpstreamState, WhileDown},
    error::CloseKind,
    sim::{Answer, Rng, Setup, World, errno, frame},
};

const MS: fn(u64) -> Duration = Duration::from_millis;
const KEEP: WhileDown = WhileDown::Keep { bytes: 100_000 };
const LOST: Outcome = Err(TicketError::Refused(SendError::NotConnected));

/// Made again after 50 ms, at most so many times.
fn again(attempts: u32) -> Dial {
    to(&[addr(1)]).reconnect(Reconnect::delays([MS(50)]).attempts(attempts)).while_down(KEEP)
}

/// A packet that is told of in both ways.
struct Sent {
    ticket: SendTicket,
    told: Arc<Mutex<Vec<Outcome>>>,
}

impl Sent {
    fn by(upstream: &Upstream, packet: &[u8]) -> Self {
        let ticket = upstream.send_tracked(packet).expect("there is room");
        let told = Arc::<Mutex<Vec<Outcome>>>::default();
        assert_eq!(upstream.send_then(packet, note(&told)), Ok(()));
        Self { ticket, told }
    }

    fn told(&self) -> Vec<Outcome> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn assert_waits(&self) {
        assert_eq!((self.ticket.outcome(), self.told()), (None, vec![]));
    }

    fn assert_is(&self, outcome: &Outcome) {
        assert_eq!((self.ticket.outcome(), self.told()), (Some(outcome.clone()), vec![outcome.clone()]));
    }
}

fn note(told: &Arc<Mutex<Vec<Outcome>>>) -> impl FnOnce(Outcome) + Send + 'static {
    let told = told.clone();
    move |outcome| told.lock().unwrap_or_else(PoisonError::into_inner).push(outcome)
}

fn connected(dial: Dial) -> (World, Upstream) {
    let mut world = world(Setup::default());
    world.net().answer(&addr(1), Answer::Accept, 1);
    let upstream = world.dial(dial);
    world.run_until(10);
    assert!(matches!(upstream.state(), UpstreamState::Up(_)));
    (world, upstream)
}

#[test]
fn a_packet_for_a_connection_is_told_of_when_it_is_written() {
    let (mut world, upstream) = connected(again(1));
    let sent = Sent::by(&upstream, b"hello");
    sent.assert_waits();
    world.run_for(1);
    sent.assert_is(&Ok(()));
    let conn = last(&world);
    assert_eq!(world.net().hear_all(conn), frame(b"hello").repeat(2));
    upstream.close();
    world.run_for(1);
    world.net().end(conn);
    end(world);
}

#[test]
fn a_packet_that_is_kept_is_told_of_when_a_later_connection_has_written_it() {
    let (mut world, upstream) = connected(again(10));
    let conn = last(&world);
    world.net().answer(&addr(1), Answer::Refuse(errno::ECONNREFUSED), 0);
    world.net().reset(conn);
    world.run_for(5);
    assert_eq!(upstream.state(), UpstreamState::Connecting);
    assert_eq!(upstream.send("before"), Ok(()));
    let sent = Sent::by(&upstream, b"kept");
    assert_eq!(upstream.send("behind"), Ok(()));
    world.run_for(200);
    sent.assert_waits();
    world.net().answer(&addr(1), Answer::Accept, 1);
    world.run_for(100);
    sent.assert_is(&Ok(()));
    let conn = last(&world);
    let expected = [&b"before"[..], b"kept", b"kept", b"behind"].map(frame).concat();
    assert_eq!(world.net().hear_all(conn), expected);
    upstream.close();
    world.run_for(1);
    world.net().end(conn);
    end(world);
}

#[test]
fn a_packet_that_breaks_with_its_connection_is_told_why_and_not_sent_again() {
    let mut setup = Setup::default();
    setup.sizes.down = 1_000;
    let mut world = world(setup);
    world.net().answer(&addr(1), Answer::Accept, 1);
    let upstream = world.dial(again(10));
    world.run_until(10);
    let sent = Sent::by(&upstream, &[7; 5_000]);
    world.run_for(5);
    sent.assert_waits();
    let conn = last(&world);
    world.net().reset(conn);
    world.run_for(5);
    sent.assert_is(&Err(TicketError::Closed(CloseKind::Io)));
    world.run_for(100);
    assert!(matches!(upstream.state(), UpstreamState::Up(_)));
    let conn = last(&world);
    assert_eq!(world.net().hear_all(conn), b"");
    upstream.close();
    world.run_for(1);
    world.net().end(conn);
    end(world);
}

#[test]
fn a_packet_that_is_kept_when_the_upstream_ends_is_told_so_however_it_ends() {
    let ends: [fn(&World, &Upstream); 4] = [
        |_, upstream| upstream.close(),
        |world, _| world.shut_down(MS(100)),
        |world, _| world.abort(),
        // No attempt is left.
        |_, _| (),
    ];
    for (workers, forks) in [(0, 0), (2, 0), (0, 2)] {
        for over in ends {
            let mut world = world(Setup { workers, forks, ..Setup::default() });
            world.net().answer(&addr(1), Answer::Refuse(errno::ECONNREFUSED), 1);
            let upstream = world.dial(again(3));
            world.run_until(60);
            let sent = Sent::by(&upstream, b"kept");
            over(&world, &upstream);
            world.run_for(1_000);
            sent.assert_is(&LOST);
            assert_eq!(upstream.state(), UpstreamState::Closed);
            world.abort();
            world.run_to_rest();
            world.assert_gone();
        }
    }
}

#[test]
fn a_packet_that_is_refused_is_told_of_as_the_method_says() {
    let (mut world, upstream) = connected(again(3).while_down(WhileDown::Refuse));
    let conn = last(&world);
    world.net().reset(conn);
    world.run_for(5);
    let told = Arc::<Mutex<Vec<Outcome>>>::default();
    assert_eq!(upstream.send_then("x", note(&told)), Err(SendError::NotConnected));
    assert_eq!(upstream.send_tracked("x").err(), Some(SendError::NotConnected));
    upstream.close();
    assert_eq!(upstream.send_then("x", note(&told)), Err(SendError::Closed));
    assert_eq!(upstream.send_tracked("x").err(), Some(SendError::Closed));
    let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(told, [LOST, Err(TicketError::Refused(SendError::Closed))]);
    world.run_for(1);
    end(world);
}

#[test]
fn what_is_kept_counts_for_its_ticket_too() {
    let mut world = world(Setup::default());
    let upstream = world.dial(again(3).while_down(WhileDown::Keep { bytes: 2 * (40 + 256) + 10 }));
    let first = upstream.send_tracked([0; 5]).expect("there is room");
    assert!(upstream.send_tracked([0; 6]).is_err());
    let second = upstream.send_tracked([0; 5]).expect("there is room");
    assert!(matches!(upstream.send([0; 0]), Err(SendError::Full { queued: 602, limit: 602 })));
    upstream.close();
    assert_eq!([first.outcome(), second.outcome()], [Some(LOST), Some(LOST)]);
    world.run_for(1);
    end(world);
}

#[test]
fn a_panic_in_what_is_called_is_counted_and_ends_nothing() {
    let (mut world, upstream) = connected(again(10));
    let bomb = |_: Outcome| resume_unwind(Box::new("boom"));
    assert_eq!(upstream.send_then("written", bomb), Ok(()));
    world.run_for(1);
    assert_eq!(world.metrics().panics, 1);
    let conn = last(&world);
    world.net().reset(conn);
    world.run_for(5);
    assert_eq!((upstream.send_then("kept", bomb), upstream.send_then("kept", bomb)), (Ok(()), Ok(())));
    let sent = Sent::by(&upstream, b"behind");
    upstream.close();
    assert_eq!(world.metrics().panics, 3);
    sent.assert_is(&LOST);
    world.run_for(1);
    end(world);
}

/// Connections that come and go, and packets all the time.
#[test]
fn every_ticket_is_decided_once_whatever_the_connections_do() {
    let (mut written, mut broken, mut lost) = (0, 0, 0);
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut setup = Setup { workers: rng.below(3) as usize, ..Setup::default() };
        setup.sizes.down = 300;
        let mut world = world(setup);
        let upstream = world.dial(again(4).while_down(WhileDown::Keep { bytes: 3_000 }));
        let (mut sent, mut refused) = (Vec::new(), 0);
        for _ in 0..rng.below(120) {
            match rng.below(12) {
                0 => world.net().answer(&addr(1), Answer::Accept, rng.below(20)),
                1 => world.net().answer(&addr(1), Answer::Refuse(errno::ECONNREFUSED), rng.below(20)),
                2 | 3 => {
                    let conn = world.net().attempts().last().map(|attempt| attempt.conn);
                    if let (Some(conn), UpstreamState::Up(_)) = (conn, upstream.state()) {
                        if rng.chance(500) { world.net().reset(conn) } else { world.net().end(conn) }
                    }
                }
                4 | 5 => {
                    let conn = world.net().attempts().last().map(|attempt| attempt.conn);
                    if let (Some(conn), UpstreamState::Up(_)) = (conn, upstream.state()) {
                        world.net().hear_all(conn);
                    }
                }
                6 if rng.chance(30) => upstream.close(),
                6 | 7 => world.run_for(rng.below(80)),
                _ => {
                    let told = Arc::<Mutex<Vec<Outcome>>>::default();
                    let packet = vec![7; rng.below(200) as usize];
                    let then = upstream.send_then(&packet, note(&told));
                    match (upstream.send_tracked(&packet), then) {
                        (Ok(ticket), Ok(())) => sent.push(Sent { ticket, told }),
                        (ticket, then) => {
                            let calls = told.lock().unwrap_or_else(PoisonError::into_inner).len();
                            assert!(then.is_ok() || calls == 1, "seed {seed}");
                            refused += usize::from(ticket.is_err());
                        }
                    }
                }
            }
        }
        if rng.chance(500) {
            world.abort()
        } else {
            world.shut_down(MS(rng.below(100)))
        }
        world.run_to_rest();
        let undecided = sent.iter().filter(|sent| sent.ticket.outcome().is_none()).count();
        let calls: Vec<usize> = sent.iter().map(|sent| sent.told().len()).collect();
        assert_eq!(undecided, 0, "seed {seed}: of {} tickets, {refused} refused", sent.len());
        assert!(calls.iter().all(|calls| *calls == 1), "seed {seed}: {calls:?}");
        assert_eq!(upstream.state(), UpstreamState::Closed);
        for outcome in sent.iter().flat_map(Sent::told) {
            match outcome {
                Ok(()) => written += 1,
                Err(TicketError::Closed(_)) => broken += 1,
                other => {
                    assert_eq!(other, LOST, "seed {seed}");
                    lost += 1;
                }
            }
        }
        world.assert_gone();
    }
    assert!(written > 100 && broken > 100 && lost > 100, "{written} written, {broken} broken, {lost} lost");
}
