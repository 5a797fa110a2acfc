//! Defects that were found here, each as the behaviour that it broke.

use std::time::Duration;

use crate::{
    error::{CloseKind, SendError},
    limits::Limits,
    reactor::sim::{Call, Fail, Setup, Told, World, errno, frame},
};

#[test]
fn a_send_that_is_refused_leaves_the_session_open() {
    let limits = Limits::default().frame(1_000).outbox_low(10).outbox_high(10).outbox_hard(2_000);
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        probe.packet = Box::new(|session, packet| {
            match packet {
                b"too long" => assert!(matches!(session.send([7; 1_001]), Err(SendError::Frame(_)))),
                b"too much" => assert!(matches!(session.send([7; 2_001]), Err(SendError::Full { .. }))),
                _ => session.send(packet)?,
            }
            Ok(())
        });
    });
    let conn = world.connect();
    for packet in [&b"too long"[..], b"too much", b"well"] {
        world.net().say(conn, &frame(packet));
        world.run_for(1);
    }
    assert_eq!(world.log.closes(), [], "nothing that was refused may end the session");
    assert_eq!(world.net().hear_all(conn), frame(b"well"));
    assert_eq!(world.metrics().buffered, 0, "a refused send holds no memory");
}

#[test]
fn a_listener_still_hears_after_another_one_has_failed() {
    let mut setup = Setup { listeners: 2, ..Setup::default() };
    setup.faults.fail = Some(Fail { call: Some(Call::Accept), nth: 1, errno: errno::EBADF });
    let mut world = World::new(setup, |_| {});
    world.run_for(10);
    let second = world.listeners()[1];
    let conn = world.net().connect(second);
    world.net().say(conn, &frame(b"anybody there?"));
    world.run_for(10);
    assert_eq!(world.net().hear_all(conn), frame(b"anybody there?"));
}

#[test]
fn a_half_packet_is_still_timed_after_a_pause() {
    let limits = Limits::default().packet_timeout(Duration::from_secs(3)).linger_timeout(Duration::ZERO);
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        probe.packet = Box::new(|session, packet| match packet {
            b"pause" => {
                session.pause();
                Ok(session.set_timer(crate::TimerId(1), Duration::from_secs(10))?)
            }
            _ => Ok(()),
        });
        probe.timer = Box::new(|session, _| {
            session.resume();
            Ok(())
        });
    });
    let conn = world.connect();
    let half = frame(b"never finished");
    world.net().say(conn, &[&frame(b"pause")[..], &half[..6]].concat());
    world.run_until(10_001);
    assert_eq!(world.log.closes(), [], "while nobody reads, nobody is slow");
    assert_eq!(world.log.count(&Told::Timer(1)), 1);
    world.run_to_rest();
    let closes = world.log.closes();
    assert_eq!(closes.len(), 1, "a half packet does not stay for ever");
    assert_eq!(closes[0].1, CloseKind::SlowPacket);
    assert!((13_000..=13_001).contains(&closes[0].0), "three seconds from the resume, not {}", closes[0].0);
}

#[test]
fn a_half_packet_before_a_pause_is_timed_from_the_resume() {
    let limits = Limits::default().packet_timeout(Duration::from_secs(3)).linger_timeout(Duration::ZERO);
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        probe.open = Box::new(|session, ()| {
            session.set_timer(crate::TimerId(1), Duration::from_secs(1))?;
            Ok(session.set_timer(crate::TimerId(2), Duration::from_secs(10))?)
        });
        probe.timer = Box::new(|session, timer| {
            if timer == 1 {
                session.pause()
            } else {
                session.resume()
            }
            Ok(())
        });
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"never finished")[..6]);
    world.run_until(10_001);
    assert_eq!(world.log.closes(), [], "while nobody reads, nobody is slow");
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(13_000, CloseKind::SlowPacket)]);
}
