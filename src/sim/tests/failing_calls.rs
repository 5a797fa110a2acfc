//! The N-th call fails, for every N.

use crate::{
    ServeError,
    sim::{Call, Conn, Fail, Heard, Setup, World, errno, frame},
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
