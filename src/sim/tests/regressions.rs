//! Defects that were found here, each as the behaviour that it broke.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    SessionHandle, TimerId,
    error::{CloseKind, SendError},
    framing::{FrameError, Separator},
    limits::Limits,
    sim::{Call, Callback, Fail, Setup, World, errno, frame},
};

#[test]
fn a_send_that_is_refused_leaves_the_session_open() {
    let limits = Limits::default().frame(1_000).outbox_low(10).outbox_high(10).outbox_hard(2_000);
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        probe.packet = Box::new(|session, packet| {
            match packet {
                b"too long" => assert!(matches!(session.send([7; 1_001]), Err(SendError::Encode(_)))),
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
    assert_eq!(world.log.count(&Callback::Timer(1)), 1);
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

/// Lines from the first timer on, which fires at 100.
fn lines_from_the_timer(pauses: bool) -> World {
    World::new(Setup::default(), |probe| {
        probe.open = Box::new(|session, ()| Ok(session.set_timer(TimerId(1), Duration::from_millis(100))?));
        probe.packet = Box::new(move |session, packet| {
            if pauses && packet == b"pause" {
                session.pause();
            }
            Ok(())
        });
        probe.timer = Box::new(|session, _| {
            session.set_framing(Separator::lines());
            session.resume();
            Ok(())
        });
    })
}

#[test]
fn a_framing_that_is_swapped_in_a_timer_cuts_what_waits_at_once() {
    let mut world = lines_from_the_timer(false);
    let conn = world.connect();
    world.net().at(50, move |net| {
        net.say(conn, b"\0\0\x0fffor the old one, half; for the new\n");
    });
    world.run_until(101);
    let line = Callback::Packet(b"\0\0\x0fffor the old one, half; for the new".to_vec());
    assert_eq!(world.log.times(&line), [100]);
    world.net().leave(conn);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_framing_that_is_swapped_at_the_end_of_the_stream_cuts_what_waits() {
    let mut world = lines_from_the_timer(true);
    let conn = world.connect();
    let stream = [&frame(b"pause")[..], b"\0\0\x0fffor the old one, half; for the new\n"].concat();
    world.net().at(50, move |net| {
        net.say(conn, &stream);
        net.end(conn);
    });
    world.run_to_rest();
    let line = Callback::Packet(b"\0\0\x0fffor the old one, half; for the new".to_vec());
    assert_eq!(world.log.times(&line), [100]);
    assert_eq!(world.log.closes(), [(100, CloseKind::PeerClosed)]);
    world.assert_empty();
}

#[test]
fn a_handle_knows_that_the_outbox_is_empty_again() {
    let handles = Arc::new(Mutex::new(Vec::<SessionHandle>::new()));
    let limits = Limits::default().outbox_low(1_000).outbox_high(64_000).outbox_hard(64_000);
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        let handles = handles.clone();
        probe.packet = Box::new(move |session, _| {
            session.send([7; 50_000])?;
            handles.lock().expect("one thread").push(session.handle());
            Ok(())
        });
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"go"));
    world.run_for(1);
    assert_eq!(world.net().hear_all(conn).len(), 50_004, "all of it is written");
    let handle = handles.lock().expect("one thread").pop().expect("it was taken");
    assert_eq!(handle.send([8; 60_000]), Ok(()));
    world.run_for(1);
    assert_eq!(world.net().hear_all(conn), frame(&[8; 60_000]));
}

#[test]
fn a_reply_to_a_broken_wire_is_delivered_before_the_close() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.violation = Box::new(|session, ()| Ok(session.send("you broke the wire")?));
    });
    let conn = world.connect();
    world.net().say(conn, &[&frame(b"well")[..], &[0xff; 20]].concat());
    world.run_for(1);
    assert_eq!(world.net().hear_all(conn), [frame(b"well"), frame(b"you broke the wire")].concat());
    world.net().end(conn);
    world.run_to_rest();
    assert_eq!(world.log.count(&Callback::Violation), 1);
    assert_eq!(world.log.closes().last().map(|(_, kind)| *kind), Some(CloseKind::Frame));
}

#[test]
fn an_error_of_the_wire_that_the_handler_gives_itself_is_no_violation() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.packet = Box::new(|_, packet| Err(FrameError::malformed("no letter in front", packet).into()));
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"1"));
    world.net().end(conn);
    world.run_to_rest();
    assert_eq!((world.log.count(&Callback::Violation), world.log.closes().len()), (0, 1));
    assert_eq!(world.log.closes()[0].1, CloseKind::Handler);
    assert_eq!(world.net().hear_all(conn), b"");
}
