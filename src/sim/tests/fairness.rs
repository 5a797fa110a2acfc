//! No session is starved by the bytes, small batches, timers or handles of others.

use std::time::Duration;

use crate::{
    SessionHandle, TimerId,
    limits::Limits,
    sim::{Callback, Setup, World, frame},
};

#[test]
fn a_firehose_leaves_the_others_their_turn() {
    let limits = Limits::default().read_budget(4 * 1024);
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.up = 1 << 20;
    let mut world = World::new(setup, |probe| {
        probe.quiet = true;
        probe.packet =
            Box::new(|session, packet| if packet.len() < 10 { Ok(session.send(packet)?) } else { Ok(()) });
    });
    let hoses = [(); 2].map(|()| world.connect());
    let others: Vec<_> = (0..20).map(|_| world.connect()).collect();
    world.run_for(1);
    for hose in hoses {
        (0..100).for_each(|_| assert!(world.net().say(hose, &frame(&[0; 10_000])) > 0));
    }
    for round in 0..20_u8 {
        others.iter().for_each(|conn| assert_eq!(world.net().say(*conn, &frame(&[round])), 5));
        let before: usize = hoses.iter().map(|hose| world.net().unread(*hose)).sum();
        world.turn();
        for conn in &others {
            assert_eq!(world.net().hear_all(*conn), frame(&[round]), "served in the same turn");
        }
        let after: usize = hoses.iter().map(|hose| world.net().unread(*hose)).sum();
        assert!(before > after || before == 0, "the firehoses go on too");
        assert!(before - after <= 2 * 2 * 64 * 1024, "by no more than a read over their budget, twice");
    }
    world.run_until(2);
    assert_eq!(hoses.map(|hose| world.network.lock().unread(hose)), [0, 0]);
}

#[test]
fn a_thousand_sessions_are_all_served_by_a_poll_that_tells_one_or_two_at_a_time() {
    for batch in [1, 2] {
        let mut setup = Setup::default();
        setup.sizes.batch = batch;
        let mut world = World::new(setup, |probe| probe.quiet = true);
        let conns: Vec<_> = (0..1_000).map(|_| world.connect()).collect();
        world.run_for(1);
        for round in 0..3_u8 {
            conns.iter().for_each(|conn| assert_eq!(world.net().say(*conn, &frame(&[round])), 5));
            let polls = world.net().polls;
            world.run_for(1);
            assert!(world.net().polls - polls <= 1_000 / batch as u64 + 2, "each is told once");
            for conn in &conns {
                assert_eq!(world.net().hear_all(*conn), frame(&[round]));
            }
        }
        conns.iter().for_each(|conn| world.net().end(*conn));
        world.run_to_rest();
        world.assert_empty();
    }
}

#[test]
fn a_storm_of_timers_fires_within_its_budget_and_input_is_served_between() {
    let limits = Limits::default().session_timers(1_000);
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        probe.packet = Box::new(|session, packet| {
            if packet == b"storm" {
                for timer in 0..1_000 {
                    session.set_timer(TimerId(timer), Duration::from_millis(500))?;
                }
            }
            Ok(session.send(packet)?)
        });
    });
    let stormy: Vec<_> = (0..100).map(|_| world.connect()).collect();
    let calm = world.connect();
    stormy.iter().for_each(|conn| assert!(world.net().say(*conn, &frame(b"storm")) > 0));
    world.run_until(499);
    assert_eq!(world.metrics().timers, 100_000);
    let fired = |world: &World| 100_000 - world.metrics().timers;
    let mut turns = 0_u64;
    while fired(&world) < 100_000 {
        let before = fired(&world);
        world.net().say(calm, &frame(&[turns as u8]));
        world.turn();
        if world.now() == 499 || turns == 0 {
            world.net().hear_all(calm);
        } else {
            assert_eq!(world.net().hear_all(calm), frame(&[turns as u8]), "input is served between");
        }
        if world.now() == 499 {
            world.net().pass(1);
        }
        assert!(fired(&world) - before <= 1_024);
        turns += 1;
        assert!(turns < 200);
    }
    assert_eq!(world.now(), 500);
    assert_eq!(world.log.times(&Callback::Timer(999)), [500; 100]);
}

#[test]
fn a_timer_that_an_earlier_one_cancels_in_the_same_batch_never_fires() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.open = Box::new(|session, ()| {
            (0..10).try_for_each(|timer| session.set_timer(TimerId(timer), Duration::from_millis(50)))?;
            Ok(())
        });
        probe.timer = Box::new(|session, timer| {
            assert!(session.cancel_timer(TimerId(timer + 1)) || timer == 8);
            Ok(())
        });
    });
    world.connect();
    world.run_to_rest();
    let fired: Vec<_> = world.log.lines().into_iter().filter(|line| line.2 != Callback::Open).collect();
    let fired: Vec<_> = fired.into_iter().map(|(tick, _, told)| (tick, told)).collect();
    assert_eq!(fired, [0, 2, 4, 6, 8].map(|timer| (50, Callback::Timer(timer))));
    assert_eq!(world.metrics().timers, 0);
}

#[test]
fn a_timer_set_in_a_timer_does_not_fire_in_the_same_turn() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.open = Box::new(|session, ()| Ok(session.set_timer(TimerId(0), Duration::ZERO)?));
        probe.timer = Box::new(|session, timer| {
            if timer < 20 { Ok(session.set_timer(TimerId(timer + 1), Duration::ZERO)?) } else { Ok(()) }
        });
    });
    world.connect();
    for fired in 0..20 {
        world.turn();
        assert!(world.log.lines().len() <= 2 + fired, "one timer in one turn");
    }
    world.run_to_rest();
    assert_eq!((world.log.lines().len(), world.now()), (22, 0));
}

#[test]
fn ping_pong_by_handles_within_one_loop_does_not_starve_timers_or_input() {
    let handles = std::sync::Arc::new(std::sync::Mutex::new(Vec::<SessionHandle>::new()));
    let mut world = World::new(Setup::default(), |probe| {
        let (joined, handles) = (handles.clone(), handles.clone());
        probe.quiet = true;
        probe.open = Box::new(move |session, ()| {
            joined.lock().expect("one thread").push(session.handle());
            Ok(session.set_timer(TimerId(1), Duration::from_millis(10))?)
        });
        // Each session passes a packet on to the other one's peer, which sends it back: for ever.
        probe.packet = Box::new(move |session, packet| {
            let handles = handles.lock().expect("one thread");
            let other = handles.iter().find(|handle| handle.id() != session.id());
            other.map_or(Ok(()), |other| Ok(other.send(packet)?))
        });
    });
    let [ping, pong, third] = [(); 3].map(|()| world.connect());
    world.run_for(1);
    world.net().say(ping, &frame(b"ball"));
    let mut passes = 0;
    for turn in 0..2_000 {
        world.turn();
        if turn % 100 == 0 {
            world.net().pass(1);
        }
        for (from, to) in [(ping, ping), (pong, pong)] {
            let ball = world.net().hear_all(from);
            passes += ball.len() / 8;
            world.net().say(to, &ball);
        }
    }
    assert!(passes > 500, "{passes} passes");
    assert_eq!(world.log.times(&Callback::Timer(1)).len(), 3, "timers fired in the midst of it");
    world.net().say(third, &frame(b"x"));
    world.run_for(1);
}

#[test]
fn a_listener_in_a_flood_leaves_the_others_their_turn() {
    for flooded in [0, 1, 2] {
        let mut world = World::new(Setup { listeners: 3, ..Setup::default() }, |probe| probe.quiet = true);
        world.run_for(1);
        let listeners = world.listeners().to_vec();
        for _ in 0..5_000 {
            world.net().connect(listeners[flooded]);
        }
        let calm: Vec<_> = (0..3).filter(|at| *at != flooded).map(|at| listeners[at]).collect();
        let calm: Vec<_> = calm.into_iter().map(|listener| world.net().connect(listener)).collect();
        calm.iter().for_each(|conn| assert_eq!(world.net().say(*conn, &frame(b"me")), 6));
        world.turn();
        world.turn();
        for conn in calm {
            assert_eq!(world.net().hear_all(conn), frame(b"me"), "served behind at most one batch");
        }
        assert!(world.metrics().accepted < 1_000, "the flood still lasts");
    }
}
