//! The N-th call fails, for every N.

use super::dials::{addr, last, to};
use crate::{
    ServeError,
    dial::UpstreamState,
    sim::{Answer, Call, Conn, Fail, Heard, Setup, World, errno, frame},
};

const FRAMES: usize = 20;

/// Accept, 20 frames there and back, close. How many calls that took.
fn script(fail: Option<Fail>) -> (World, [u64; Call::ALL.len()]) {
    let mut setup = Setup::default();
    setup.faults.fail = fail;
    setup.sizes.down = 100;
    let mut world = World::new(setup, |_| {});
    let conn = world.connect();
    let mut heard = Vec::new();
    for number in 0..FRAMES {
        let bytes = frame(&[number as u8; 150]);
        world.net().say(conn, &bytes);
        for _ in 0..20 {
            world.run_for(1);
            heard.extend(world.net().hear_all(conn));
        }
    }
    world.net().leave(conn);
    world.run_to_rest();
    let sent: Vec<u8> = (0..FRAMES).flat_map(|number| frame(&[number as u8; 150])).collect();
    assert!(sent.starts_with(&heard), "what came back is what was sent, as far as it came");
    assert!(fail.is_some() || sent == heard);
    let counts = Call::ALL.map(|call| world.net().calls.of(call));
    (world, counts)
}

fn still_serves(world: &mut World) {
    let conn: Conn = world.connect();
    world.net().say(conn, &frame(b"alive"));
    assert_eq!(world.expect(conn, 9), frame(b"alive"));
    world.net().end(conn);
    world.run_to_rest();
    assert_eq!(world.hears(conn), Heard::End);
}

#[test]
fn whichever_call_fails_nothing_leaks_and_the_loop_lives() {
    let (world, counts) = script(None);
    world.assert_empty();
    let mut tried = 0;
    let of_the_start = [Call::NewPoll, Call::Spawn];
    let calls = Call::ALL.into_iter().zip(counts);
    for (call, count) in calls.filter(|(call, _)| *call != Call::Poll && !of_the_start.contains(call)) {
        for errno in [errno::ENOMEM, errno::ECONNRESET, errno::EINTR, errno::EPIPE] {
            // The first registration is the listener's, without which there is no server.
            for nth in 1 + u64::from(call == Call::Register)..=count {
                let (mut world, _) = script(Some(Fail { call: Some(call), nth, errno }));
                world.assert_empty();
                still_serves(&mut world);
                world.assert_empty();
                tried += 1;
            }
        }
    }
    assert!(tried > 200, "only {tried} failures tried");
}

/// Two addresses are dialled, the first of which does not answer; some packets there and back; the end.
fn dialled(fail: Option<Fail>) -> (World, [u64; Call::ALL.len()]) {
    let mut setup = Setup::default();
    setup.faults.fail = fail;
    let mut world = World::new(setup, |_| {});
    world.net().answer(&addr(1), Answer::Silence, 0);
    world.net().answer(&addr(2), Answer::Accept, 2);
    world.net().answer(&addr(3), Answer::Accept, 2);
    let upstream = world.dial(to(&[addr(1), addr(2), addr(3)]).timeout(std::time::Duration::from_millis(10)));
    world.run_until(50);
    let open = world.metrics().opened;
    assert_eq!(open + world.log.failed_dials().len() as u64, 1, "it is told what has become of it, once");
    assert!(fail.is_some() || open == 1);
    if let UpstreamState::Up(_) = upstream.state() {
        let conn = last(&world);
        for _ in 0..3 {
            world.net().say(conn, &frame(b"are you there"));
            world.run_for(2);
        }
        world.net().leave(conn);
    }
    world.run_to_rest();
    assert_eq!(upstream.state(), UpstreamState::Closed);
    let counts = Call::ALL.map(|call| world.net().calls.of(call));
    (world, counts)
}

#[test]
fn whichever_call_fails_a_dial_is_answered_and_nothing_leaks() {
    let (world, counts) = dialled(None);
    world.assert_empty();
    let mut tried = 0;
    let of_the_start = [Call::NewPoll, Call::Spawn, Call::Poll];
    for (call, count) in Call::ALL.into_iter().zip(counts).filter(|(call, _)| !of_the_start.contains(call)) {
        for errno in [errno::ENOMEM, errno::ECONNRESET, errno::EINTR, errno::EAGAIN] {
            for nth in 1 + u64::from(call == Call::Register)..=count {
                let (mut world, _) = dialled(Some(Fail { call: Some(call), nth, errno }));
                world.assert_empty();
                still_serves(&mut world);
                world.assert_empty();
                tried += 1;
            }
        }
    }
    assert!(tried > 60, "only {tried} failures tried");
}

#[test]
fn an_interrupted_poll_changes_nothing() {
    let (_, counts) = script(None);
    for nth in 1..=counts[Call::Poll as usize] {
        let (mut world, _) = script(Some(Fail { call: Some(Call::Poll), nth, errno: errno::EINTR }));
        assert_eq!(world.metrics().packets_in, FRAMES as u64);
        still_serves(&mut world);
        world.assert_empty();
    }
}

#[test]
fn a_poll_that_fails_for_good_ends_the_loop_with_every_session_closed() {
    for nth in 2..10 {
        let mut setup = Setup::default();
        setup.faults.fail = Some(Fail { call: Some(Call::Poll), nth, errno: errno::EBADF });
        let mut world = World::new(setup, |_| {});
        let conns = [(); 5].map(|()| world.connect());
        for at in 0..30 {
            world.net().at(at, move |net| {
                net.say(conns[at as usize % 5], &frame(b"x"));
            });
        }
        world.run_to_rest();
        let Some(Err(ServeError::System { source, .. })) = world.ended.pop() else { panic!("it has ended") };
        assert_eq!(source.raw_os_error(), Some(errno::EBADF));
        assert_eq!((world.net().streams(), world.admission().total()), (0, 0));
        world.log.assert_balanced(true);
    }
}
