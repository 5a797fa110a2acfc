//! Connections that are made again: when, how often, and what becomes of packets meanwhile.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::dials::{addr, end, last, to, world};
use crate::{
    SendError,
    dial::{Dial, Reconnect, Upstream, UpstreamState, WhileDown},
    error::{DialError, DialErrorKind},
    events::{Event, Events},
    id::DialId,
    limits::Limits,
    sim::{Answer, Callback, Conn, Setup, World, errno, frame},
};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn attempts(world: &World) -> Vec<u64> {
    world.net().attempts().iter().map(|attempt| attempt.at).collect()
}

fn again(delays: &[u64]) -> Dial {
    to(&[addr(1)]).reconnect(Reconnect::delays(delays.iter().copied().map(MS)))
}

#[test]
fn a_connection_that_ends_is_made_again_and_each_is_a_session_of_its_own() {
    let mut world = world(Setup::default());
    world.net().answer(&addr(1), Answer::Accept, 2);
    let upstream = world.dial(again(&[50]));
    for round in 0..3 {
        world.run_until(40 + 100 * round);
        let UpstreamState::Up(session) = upstream.state() else { panic!("it is up in round {round}") };
        assert_eq!(world.log.count(&Callback::Open), 1 + round as usize);
        assert_eq!(world.log.lines().last().map(|(_, id, _)| *id), Some(session));
        let conn = last(&world);
        world.net().reset(conn);
        world.run_for(5);
        assert_eq!(
            (upstream.state(), upstream.send("x")),
            (UpstreamState::Connecting, Err(SendError::NotConnected))
        );
    }
    upstream.close();
    assert_eq!(world.log.failed_dials().len(), 0);
    end(world);
}

#[test]
fn attempts_follow_each_other_after_their_pauses_until_none_is_left() {
    let mut world = world(Setup::default());
    let plan = Reconnect::delays([10, 20, 30].map(MS)).attempts(4);
    let upstream = world.dial(to(&[addr(1)]).reconnect(plan));
    world.run_to_rest();
    assert_eq!(attempts(&world), [0, 10, 30, 60, 90]);
    let failed = world.log.failed_dials();
    assert!(matches!(failed[..], [(90, _, DialError::Connect { .. })]), "told once: {failed:?}");
    assert_eq!(upstream.state(), UpstreamState::Closed);
    end(world);
}

#[test]
fn pauses_begin_anew_after_a_connection_that_was_stable() {
    let mut world = world(Setup::default());
    world.net().answer(&addr(1), Answer::Accept, 0);
    let plan = Reconnect::delays([10, 1_000].map(MS)).stable_after(MS(500));
    let upstream = world.dial(to(&[addr(1)]).reconnect(plan));
    let lose_at = |world: &mut World, tick| {
        world.run_until(tick);
        let conn = last(world);
        world.net().reset(conn);
    };
    lose_at(&mut world, 100);
    lose_at(&mut world, 200);
    lose_at(&mut world, 1_900);
    world.run_until(2_000);
    assert_eq!(
        attempts(&world),
        [0, 110, 1_200, 1_910],
        "one that stood for 700 ms is stable, one for 90 ms is not"
    );
    upstream.close();
    end(world);
}

#[test]
fn one_that_is_lost_after_the_last_attempt_is_told() {
    let mut world = world(Setup::default());
    world.net().answer(&addr(1), Answer::Reset, 0);
    let upstream = world.dial(to(&[addr(1)]).reconnect(Reconnect::delays([MS(5)]).attempts(2)));
    world.run_to_rest();
    assert_eq!(world.metrics().opened, 3);
    let failed = world.log.failed_dials();
    assert!(matches!(failed[..], [(_, _, DialError::Lost { .. })]), "{failed:?}");
    assert_eq!(upstream.state(), UpstreamState::Closed);
    end(world);
}

#[test]
fn packets_that_are_kept_arrive_in_order_before_later_ones() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.open = Box::new(|session, ()| Ok(session.send("log in")?));
    });
    world.net().answer(&addr(1), Answer::Refuse(errno::ECONNREFUSED), 0);
    world.net().at(95, |net| net.answer(&addr(1), Answer::Accept, 1));
    let upstream = world.dial(again(&[50]).while_down(WhileDown::Keep { bytes: 1_000 }));
    for number in 0..10_u32 {
        world.run_for(10);
        assert_eq!(upstream.send(number.to_string()), Ok(()));
    }
    world.run_until(110);
    assert_eq!(upstream.send("last"), Ok(()));
    world.run_until(120);
    let mut expected = frame(b"log in");
    (0..10).for_each(|number: u32| expected.extend(frame(number.to_string().as_bytes())));
    expected.extend(frame(b"last"));
    let conn = last(&world);
    assert_eq!(world.net().hear_all(conn), expected);
    upstream.close();
    world.run_for(1);
    world.net().end(conn);
    end(world);
}

#[test]
fn what_is_kept_and_finds_no_room_at_once_is_sent_when_there_is_some() {
    let limits = Limits::default().outbox_hard(2_000).outbox_high(1_000).outbox_low(100);
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.down = 500;
    let mut world = world(setup);
    world.net().answer(&addr(1), Answer::Accept, 20);
    let upstream = world.dial(again(&[50]).while_down(WhileDown::Keep { bytes: 100_000 }));
    let packet = |number: u8| vec![number; 400];
    (0..20).for_each(|number| assert_eq!(upstream.send(packet(number)), Ok(())));
    world.run_until(30);
    let conn = last(&world);
    let mut heard = Vec::new();
    for _ in 0..200 {
        heard.extend(world.net().hear_all(conn));
        world.run_for(5);
    }
    let expected: Vec<u8> = (0..20).flat_map(|number| frame(&packet(number))).collect();
    assert_eq!(heard, expected);
    upstream.close();
    world.run_for(1);
    world.net().end(conn);
    end(world);
}

#[test]
fn what_was_sent_over_a_connection_that_broke_is_not_sent_again() {
    let mut setup = Setup::default();
    setup.sizes.down = 4;
    let mut world = world(setup);
    world.net().answer(&addr(1), Answer::Accept, 1);
    let upstream = world.dial(again(&[20]).while_down(WhileDown::Keep { bytes: 1_000 }));
    world.run_until(10);
    assert_eq!(upstream.send("lost with it"), Ok(()));
    world.run_until(15);
    let conn = last(&world);
    world.net().reset(conn);
    world.run_until(20);
    assert_eq!(upstream.send("new"), Ok(()));
    world.run_until(100);
    let conn = last(&world);
    assert_eq!(world.expect(conn, 7), frame(b"new"));
    upstream.close();
    world.run_for(1);
    world.net().end(conn);
    end(world);
}

#[test]
fn a_close_goes_behind_what_was_sent_before_and_no_attempt_follows() {
    for dial in [to(&[addr(1)]), again(&[50])] {
        let mut world = world(Setup::default());
        world.net().answer(&addr(1), Answer::Accept, 1);
        let upstream = world.dial(dial);
        world.run_until(10);
        assert_eq!((upstream.send("thank you"), upstream.send("good bye")), (Ok(()), Ok(())));
        upstream.close();
        assert_eq!(upstream.state(), UpstreamState::Closed);
        world.run_for(10);
        let conn = last(&world);
        assert_eq!(world.net().hear_all(conn), [frame(b"thank you"), frame(b"good bye")].concat());
        world.net().end(conn);
        world.run_for(1_000);
        assert_eq!((attempts(&world).len(), world.log.failed_dials().len()), (1, 0));
        end(world);
    }
}

#[test]
fn a_close_while_the_connection_breaks_ends_the_attempts() {
    let mut world = world(Setup::default());
    world.net().answer(&addr(1), Answer::Accept, 1);
    let upstream = world.dial(again(&[50]));
    world.run_until(10);
    let conn = last(&world);
    world.net().reset(conn);
    upstream.close();
    world.run_for(1_000);
    assert_eq!((attempts(&world).len(), world.log.failed_dials().len()), (1, 0));
    end(world);
}

#[test]
fn a_packet_for_which_there_is_never_room_holds_up_no_other() {
    let limits = Limits::default().outbox_hard(2_000).outbox_high(1_000).outbox_low(100);
    let mut world = world(Setup { limits, ..Setup::default() });
    world.net().answer(&addr(1), Answer::Accept, 20);
    let upstream = world.dial(again(&[50]).while_down(WhileDown::Keep { bytes: 100_000 }));
    let full = Err(SendError::Full { queued: 0, limit: 2_000 });
    assert_eq!(upstream.send(vec![1; 2_001]), full, "as it is when there is a connection");
    // There would be room for this one, but not for its header.
    assert_eq!((upstream.send(vec![1; 2_000]), upstream.send("next")), (Ok(()), Ok(())));
    world.run_until(100);
    let conn = last(&world);
    assert_eq!(world.net().hear_all(conn), frame(b"next"));
    assert_eq!(upstream.send("later"), Ok(()));
    world.run_until(200);
    assert_eq!(world.net().hear_all(conn), frame(b"later"));
    upstream.close();
    world.run_for(1);
    world.net().end(conn);
    end(world);
}

#[test]
fn a_stop_or_a_close_between_two_attempts_ends_them() {
    for (workers, forks) in [(0, 0), (2, 0), (0, 2)] {
        for closes in [false, true] {
            let mut world = world(Setup { workers, forks, ..Setup::default() });
            let upstream = world.dial(again(&[60_000]));
            world.run_until(10);
            assert_eq!(upstream.state(), UpstreamState::Connecting);
            if closes {
                upstream.close();
                world.run_until(20);
                assert_eq!(world.shards(), 1 + workers, "a thread of its own ends with it");
            } else {
                world.shut_down(Duration::from_secs(1));
                world.run_to_rest();
                let failed = world.log.failed_dials();
                assert!(matches!(failed[..], [(10, _, DialError::Stopped)]), "{failed:?}");
            }
            assert_eq!(upstream.state(), UpstreamState::Closed);
            world.shut_down(Duration::from_secs(1));
            world.run_to_rest();
            assert!(world.now() < 100);
            world.assert_gone();
        }
    }
}

#[test]
fn callbacks_can_dial_what_is_made_again() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.start = Box::new(|shard, _| {
            shard.connect(again(&[10])).expect("it is the first");
        });
    });
    world.net().answer(&addr(1), Answer::Accept, 0);
    for tick in [5, 50, 100] {
        world.run_until(tick);
        let conn = last(&world);
        world.net().reset(conn);
    }
    world.run_until(150);
    assert_eq!(attempts(&world), [0, 15, 60, 110]);
    world.abort();
    world.run_to_rest();
    world.assert_gone();
}

#[test]
fn callbacks_can_give_up_what_they_have_dialled() {
    for answer in [Answer::Accept, Answer::Silence, Answer::Refuse(errno::ECONNREFUSED)] {
        let is_up = matches!(answer, Answer::Accept);
        let dialled = Arc::<Mutex<Option<DialId>>>::default();
        let mut world = World::new(Setup::default(), |probe| {
            let (asked, given_up) = (dialled.clone(), dialled.clone());
            probe.start = Box::new(move |shard, _| {
                let dial = shard.connect(again(&[1_000])).expect("it is the first");
                *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(dial);
            });
            probe.packet = Box::new(move |session, _| {
                let dial = given_up.lock().unwrap_or_else(PoisonError::into_inner).take();
                dial.into_iter().for_each(|dial| session.hang_up(dial));
                Ok(())
            });
        });
        world.net().answer(&addr(1), answer, 1);
        world.run_until(10);
        let conn = last(&world);
        let client = world.connect();
        world.net().say(client, &frame(b"enough"));
        world.run_until(20);
        world.net().end(client);
        if is_up {
            world.net().end(conn);
        }
        world.run_until(10_000);
        assert_eq!((attempts(&world).len(), world.log.failed_dials().len()), (1, 0));
        assert_eq!(world.metrics().sessions, 0);
        end(world);
    }
}

/// A server with 2,000 clients dies, stays away for ten seconds, and comes back.
#[test]
fn the_clients_of_a_server_that_comes_back_do_not_come_together() {
    const CLIENTS: usize = 2_000;
    const BACK_AT: u64 = 11_000;
    let mut world = world(Setup::default());
    world.net().answer(&addr(1), Answer::Accept, 1);
    let plan = Reconnect::exponential(MS(250), Duration::from_secs(8));
    let upstreams: Vec<Upstream> =
        (0..CLIENTS).map(|_| world.dial(to(&[addr(1)]).reconnect(plan.clone()))).collect();
    world.run_until(1_000);
    assert_eq!(world.metrics().opened, CLIENTS as u64);
    let conns: Vec<Conn> = world.net().attempts().iter().map(|attempt| attempt.conn).collect();
    world.net().answer(&addr(1), Answer::Refuse(errno::ECONNREFUSED), 1);
    conns.into_iter().for_each(|conn| world.net().reset(conn));
    world.run_until(BACK_AT);
    world.net().answer(&addr(1), Answer::Accept, 1);
    world.run_until(BACK_AT + 9_000);
    assert!(
        upstreams.iter().all(|upstream| matches!(upstream.state(), UpstreamState::Up(_))),
        "all have found it"
    );
    // How many came in each tenth of a second.
    let mut buckets = [0_usize; 90];
    for attempt in world.net().attempts().iter().filter(|attempt| attempt.at > BACK_AT) {
        buckets[(attempt.at - BACK_AT) as usize / 100] += 1;
    }
    let (fullest, used) = (buckets.iter().max().copied(), buckets.iter().filter(|count| **count > 0).count());
    assert_eq!(buckets.iter().sum::<usize>(), CLIENTS, "each came once");
    // Evenly over 8 s it would be 25.
    assert!(fullest < Some(CLIENTS / 20) && used > 60, "{buckets:?}");
    world.abort();
    world.run_to_rest();
    world.assert_gone();
}

#[test]
fn what_becomes_of_dials_is_counted_and_told() {
    let mut world = world(Setup::default());
    let events = Events::new(100, vec![world.registry.hub().clone()]);
    let plan = || Reconnect::delays([MS(10)]).attempts(2);
    world.net().answer(&addr(1), Answer::Accept, 2);
    world.net().answer(&addr(2), Answer::Silence, 0);
    let upstream = world.dial(to(&[addr(1)]).reconnect(plan()));
    let slow = world.dial(to(&[addr(2)]).timeout(MS(5)).reconnect(plan()));
    world.dial(to(&[addr(3)]));
    world.run_until(8);
    let counted = |world: &World| {
        let metrics = world.metrics();
        (metrics.dials, metrics.dialled, metrics.dials_pending, metrics.dials_waiting)
    };
    assert_eq!(counted(&world), (3, 1, 2, 1), "one has failed, one is up, one waits");
    let conn = last_to(&world, 1);
    world.net().reset(conn);
    world.run_until(9);
    assert_eq!(counted(&world), (3, 1, 2, 2));
    world.run_until(100);
    assert_eq!(counted(&world), (3, 2, 1, 0), "one is up again, one has given up");
    let metrics = world.metrics();
    assert_eq!((metrics.redials(DialErrorKind::TimedOut), metrics.redials(DialErrorKind::Lost)), (2, 1));
    assert_eq!(metrics.dials_failed(DialErrorKind::Refused), 1);
    assert_eq!((metrics.dials_failed(DialErrorKind::TimedOut), metrics.dials_failed_total()), (1, 2));

    let told: Vec<Event> = events.try_iter().collect();
    let of = |wanted: DialId| {
        let told = told.iter().filter_map(move |event| match event {
            Event::Redialling { dial, error, pause, .. } if *dial == wanted => {
                Some(format!("{} after {pause:?}", error.kind().name()))
            }
            Event::Reconnected { dial, peer, .. } if *dial == wanted => Some(format!("again {peer}")),
            Event::DialFailed { dial, error, .. } if *dial == wanted => Some(error.kind().name().to_owned()),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(of(upstream.id()), ["lost after 10ms", "again 192.0.2.1:1"]);
    assert_eq!(of(slow.id()), ["timed_out after 10ms", "timed_out after 10ms", "timed_out"]);
    let lines: Vec<String> = told.iter().map(ToString::to_string).collect();
    let again =
        format!("dial {} is made again after 10ms: the connection to 192.0.2.1:1 has ended: ", upstream.id());
    assert!(lines.iter().any(|line| line.starts_with(&again)), "{lines:?}");
    upstream.close();
    world.run_for(1);
    assert_eq!(counted(&world), (3, 2, 0, 0));
    let conn = last_to(&world, 1);
    world.net().end(conn);
    end(world);
}

/// The connection that was made last to this port.
fn last_to(world: &World, port: u16) -> Conn {
    world.net().attempts().iter().rev().find(|attempt| attempt.to == addr(port)).expect("it was dialled").conn
}
