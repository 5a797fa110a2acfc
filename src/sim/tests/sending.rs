//! What a session sends means the same whether its frames are copied to where earlier ones were, or appended anew: of two equal
//! bursts the first finds an outbox without spare bytes, the second one with them.

use std::sync::{Arc, Mutex};

use crate::{
    Limits, SendError,
    sim::{Callback, Setup, World, frame},
};

fn burst(packets: u8) -> Vec<u8> {
    (0..packets).flat_map(|number| frame(&[number; 10])).collect()
}

#[test]
fn a_handler_sees_exact_counts_in_the_middle_of_a_burst() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.packet = Box::new(|session, packet| {
            let before = session.stats();
            assert_eq!((before.packets_in, before.queued as u64 % 14), (before.packets_out + 1, 0));
            session.send(packet)?;
            let after = session.stats();
            assert_eq!((after.packets_in, after.packets_out), (before.packets_in, before.packets_out + 1));
            assert_eq!(after.queued, before.queued + 14);
            Ok(())
        });
    });
    let conn = world.connect();
    for round in 1..=3 {
        world.net().say(conn, &burst(40));
        assert_eq!(world.expect(conn, 40 * 14), burst(40));
        let metrics = world.metrics();
        assert_eq!((metrics.packets_in, metrics.packets_out, metrics.panics), (40 * round, 40 * round, 0));
    }
}

#[test]
fn a_packet_whose_handler_panics_is_counted() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.packet = Box::new(|session, packet| {
            session.send(packet)?;
            assert!(packet[0] != 2, "as asked for");
            Ok(())
        });
    });
    let conn = world.connect();
    world.net().say(conn, &burst(5));
    assert_eq!(world.expect(conn, 3 * 14), burst(3), "what was sent before is delivered");
    let metrics = world.metrics();
    assert_eq!((metrics.packets_in, metrics.packets_out, metrics.panics), (3, 3, 1));
}

#[test]
fn a_full_outbox_refuses_the_same_sends_wherever_their_frames_go() {
    let answers = Arc::new(Mutex::new(Vec::new()));
    let limits = Limits::default().outbox_low(20).outbox_high(60).outbox_hard(100);
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        let answers = answers.clone();
        probe.packet = Box::new(move |session, packet| {
            for len in [10, 30, 40, 20, 2, 1, 1] {
                let sent = session.send(vec![packet[0]; len]);
                let is_full = matches!(sent, Err(SendError::Full { .. }));
                assert!(sent.is_ok() || is_full);
                answers.lock().expect("one thread").push((is_full, session.stats().queued));
            }
            Ok(())
        });
    });
    let conn = world.connect();
    for round in 0..3 {
        world.net().say(conn, &frame(&[round]));
        let expected = [10, 30, 40, 2].map(|len| frame(&vec![round; len])).concat();
        assert_eq!(world.expect(conn, expected.len()), expected);
    }
    let answers = answers.lock().expect("one thread");
    let expected = [(false, 14), (false, 48), (false, 92), (true, 92), (false, 98), (true, 98), (true, 98)];
    assert_eq!(*answers, expected.repeat(3));
    assert_eq!(world.metrics().sends_refused, 9);
}

#[test]
fn nothing_is_sent_behind_a_close_where_earlier_frames_have_left_room() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.packet = Box::new(|session, packet| {
            session.send(packet)?;
            if packet[0] == 3 {
                session.close();
                assert_eq!(
                    session.send("late").map_err(|error| error.to_string()),
                    Err(SendError::Closed.to_string())
                );
            }
            Ok(())
        });
    });
    let conn = world.connect();
    world.net().say(conn, &burst(3));
    assert_eq!(world.expect(conn, 3 * 14), burst(3));
    world.net().say(conn, &frame(&[3; 2]));
    world.run_for(1);
    assert_eq!(world.expect(conn, 6), frame(&[3; 2]));
    assert_eq!(world.log.count(&Callback::Packet(vec![3; 2])), 1);
    assert_eq!(world.metrics().panics, 0);
}
