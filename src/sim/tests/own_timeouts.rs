//! Idle timeouts and maximum ages that sessions have of their own, to the millisecond of virtual time.

use std::time::Duration;

use super::heartbeats::{answer_at, ms, only_close, opening, opening_with};
use crate::{
    TimerId,
    error::CloseKind,
    handler::Then,
    limits::Limits,
    sim::{Callback, Setup, World, frame},
};

#[test]
fn an_idle_timeout_of_its_own_replaces_that_of_the_limits() {
    let told = |own: Option<Duration>| {
        let limits = Limits::default().idle_timeout(ms(500)).linger_timeout(ms(0));
        let mut world = opening(limits, move |session| session.set_idle_timeout(own));
        let conn = world.connect();
        answer_at(&world, conn, &[100]);
        world.run_until(5_000);
        world.log.times(&Callback::Idle)
    };
    assert_eq!(told(Some(ms(200))), [300]);
    assert_eq!(told(Some(ms(2_000))), [2_100]);
    assert!(told(None).is_empty());
}

#[test]
fn a_negotiated_idle_timeout_counts_from_the_last_byte_and_may_be_set_again() {
    let mut world = opening_with(
        Setup::default(),
        |session| assert_eq!(session.set_timer(TimerId(1), ms(300)), Ok(())),
        |probe| {
            probe.timer = Box::new(|session, _| {
                session.set_idle_timeout(ms(400));
                Ok(())
            });
            probe.idle = Box::new(|session, ()| {
                session.set_idle_timeout(ms(1_000));
                Ok(Then::Stay)
            });
        },
    );
    let conn = world.connect();
    answer_at(&world, conn, &[50]);
    world.run_until(2_000);
    assert_eq!(world.log.times(&Callback::Idle), [450, 1_450]);
}

#[test]
fn a_session_is_closed_gracefully_at_its_maximum_age_however_busy_it_is() {
    let limits = Limits::default().max_age(ms(1_000)).max_age_spread(ms(0));
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        let mut own = Some(ms(400));
        probe.open = Box::new(move |session, ()| {
            if let Some(age) = own.take() {
                session.set_max_age(age);
            }
            Ok(())
        });
    });
    let early = world.connect();
    world.run_until(100);
    let late = world.connect();
    for conn in [early, late] {
        answer_at(&world, conn, &[300, 399, 400, 1_000, 1_099]);
        world.net().at(1_500, move |net| net.end(conn));
    }
    world.run_to_rest();
    assert_eq!(world.log.times(&Callback::Closing(CloseKind::MaxAge)), [400, 1_100]);
    assert_eq!(world.net().hear_all(late).len(), 5 * 8, "everything was answered");
    world.assert_empty();
}

#[test]
fn a_maximum_age_that_has_passed_when_it_is_set_ends_the_session_at_once_and_none_lifts_it() {
    let limits = Limits::default().max_age(ms(1_000));
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        probe.packet = Box::new(|session, packet| {
            session.set_max_age((packet == b"short").then_some(ms(100)));
            Ok(())
        });
    });
    let [short, ever] = [(); 2].map(|()| world.connect());
    world.run_until(500);
    world.net().say(short, &frame(b"short"));
    world.net().say(ever, &frame(b"ever"));
    world.run_until(60_000);
    assert_eq!(only_close(&world), (500, CloseKind::MaxAge));
    world.net().leave(ever);
    world.run_to_rest();
    world.assert_empty();
}

/// When sessions end that have connected together.
fn ends_of(sessions: usize, limits: Limits) -> Vec<u64> {
    let mut world = World::new(Setup { limits: limits.linger_timeout(ms(0)), ..Setup::default() }, |_| ());
    (0..sessions).for_each(|_| {
        world.connect();
    });
    world.run_to_rest();
    world.assert_empty();
    world.log.times(&Callback::Closing(CloseKind::MaxAge))
}

#[test]
fn sessions_that_connect_together_reach_their_maximum_age_spread_over_its_last_tenth() {
    let ends = ends_of(500, Limits::default().max_age(ms(100_000)));
    assert_eq!(ends.len(), 500);
    assert!(ends.iter().all(|at| (90_000..=100_000).contains(at)), "{ends:?}");
    let in_second = |second: u64| ends.iter().filter(|at| **at / 1_000 == second).count();
    let most = (90..100).map(in_second).max();
    assert!((90..100).all(|second| in_second(second) >= 20) && most <= Some(100), "50 a second: {ends:?}");
    assert_eq!(
        ends_of(500, Limits::default().max_age(ms(100_000)).max_age_spread(ms(0))),
        vec![100_000; 500]
    );
    let half = ends_of(500, Limits::default().max_age(ms(1_000)).max_age_spread(ms(500)));
    assert!(half.iter().all(|at| (500..=1_000).contains(at)), "{half:?}");
    assert!(half.iter().any(|at| *at < 550) && half.iter().any(|at| *at > 950), "{half:?}");
}
