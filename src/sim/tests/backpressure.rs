//! A reader that stops holds up no other session, and costs bounded memory.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    SessionHandle, SessionId, TimerId,
    error::{CloseKind, SendError},
    limits::{Limits, WhileFull},
    sim::{Callback, Setup, World, frame, tests::broadcast::with_handles},
};

fn limits() -> Limits {
    Limits::default()
        .outbox_low(2_000)
        .outbox_high(8_000)
        .outbox_hard(20_000)
        .stall_timeout(Duration::from_secs(60))
}

fn setup() -> Setup {
    let mut setup = Setup { limits: limits(), ..Setup::default() };
    (setup.sizes.up, setup.sizes.down) = (3_000, 1_000);
    setup
}

#[test]
fn a_reader_that_stops_and_resumes_gets_every_frame_once_and_in_order() {
    let mut world = World::new(setup(), |_| {});
    let conn = world.connect();
    let sent: Vec<u8> =
        (0..1_000_u32).flat_map(|number| frame(&[number.to_be_bytes(); 25].concat())).collect();
    let mut said = 0;
    for _ in 0..200 {
        said += world.net().say(conn, &sent[said..]);
        world.run_for(1);
        assert!(world.metrics().buffered < 64 * 1024, "one outbox and one inbox");
    }
    assert!(said < 20_000, "a peer that does not read its replies is not read from: {said} bytes were taken");
    let mut heard = Vec::new();
    while heard.len() < sent.len() {
        heard.extend(world.net().hear_all(conn));
        said += world.net().say(conn, &sent[said..]);
        world.run_for(1);
    }
    assert_eq!(heard, sent);
    assert!(world.log.count(&Callback::Drained) >= 1, "on_drained is called");
    world.net().leave(conn);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_handler_that_fills_the_outbox_is_told_full_at_the_hard_limit_and_drained_below_the_low_one() {
    let mut world = World::new(setup(), |probe| {
        probe.packet = Box::new(|session, _| {
            let mut sent = 0;
            let full = loop {
                match session.send([sent as u8; 96]) {
                    Ok(()) => sent += 1,
                    Err(full) => break full,
                }
            };
            assert!(matches!(full, SendError::Full { queued: 19_901..=20_000, limit: 20_000 }), "{full}");
            assert_eq!(sent, 200);
            Ok(())
        });
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"go"));
    world.run_for(1);
    assert_eq!(world.log.count(&Callback::Drained), 0);
    let mut heard = 0;
    while heard < 20_000 {
        let before = world.log.count(&Callback::Drained);
        heard += world.net().hear_all(conn).len();
        world.run_for(1);
        let drained = world.log.count(&Callback::Drained);
        assert!(drained == before || 20_000 - heard <= 3_000, "told early, with {heard} bytes heard");
    }
    assert_eq!(world.log.count(&Callback::Drained), 1);
}

#[test]
fn a_slow_consumer_is_closed_by_the_question_mark() {
    let mut world = World::new(setup(), |probe| {
        probe.packet = Box::new(|session, _| {
            loop {
                session.send([1; 500])?;
            }
        });
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"go"));
    world.run_to_rest();
    assert_eq!(world.log.closes().last().map(|(_, kind)| *kind), Some(CloseKind::Send));
    world.assert_empty();
}

#[test]
fn past_the_memory_of_the_shard_the_session_that_holds_most_is_ended() {
    let mut setup = setup();
    setup.limits = setup.limits.shard_memory(60_000);
    let mut world = World::new(setup, |probe| {
        probe.packet = Box::new(|session, packet| Ok(session.send(vec![1; 100 * packet.len()])?));
    });
    let conns: Vec<_> = (0..10).map(|_| world.connect()).collect();
    for (number, conn) in conns.iter().enumerate() {
        world.net().say(*conn, &frame(&vec![0; 20 * number + 10]));
        world.run_for(1);
        assert!(world.metrics().buffered <= 60_000);
    }
    let kinds: Vec<_> = world.log.closes().iter().map(|(_, kind)| *kind).collect();
    assert!(kinds.contains(&CloseKind::Memory));
    assert!(kinds.len() < 10);
}

#[test]
fn ten_thousand_peers_that_send_one_byte_and_wait_cost_what_they_sent() {
    const PEERS: u64 = 10_000;
    let mut world = World::new(Setup::default(), |probe| probe.quiet = true);
    let conns: Vec<_> = (0..PEERS).map(|_| world.connect()).collect();
    world.run_for(1);
    // The first byte of a length that promises gigabytes.
    conns.iter().for_each(|conn| assert_eq!(world.net().say(*conn, &[0x7f]), 1));
    world.run_for(1);
    let metrics = world.metrics();
    assert_eq!((metrics.sessions, metrics.bytes_in), (PEERS, PEERS));
    assert!((PEERS..=16 * PEERS).contains(&metrics.buffered), "{} bytes are held", metrics.buffered);
    conns.iter().for_each(|conn| world.net().end(*conn));
    world.run_to_rest();
    assert_eq!(world.metrics().closed(CloseKind::Frame), PEERS);
    world.assert_empty();
}

/// A session that pauses on each packet, and is resumed in time by its own timer or by a handle.
fn a_flood_waits_for(by_handle: bool) {
    const PACKETS: u32 = 5_000;
    let limits = Limits::default().frame(1_000);
    let handles = Arc::new(Mutex::new(Vec::<SessionHandle>::new()));
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        let handles = handles.clone();
        probe.packet = Box::new(move |session, _| {
            session.pause();
            if by_handle {
                handles.lock().expect("one thread").push(session.handle());
                return Ok(());
            }
            Ok(session.set_timer(TimerId(1), Duration::from_millis(1))?)
        });
        probe.timer = Box::new(|session, _| {
            session.resume();
            Ok(())
        });
    });
    let conn = world.connect();
    let packets: Vec<Vec<u8>> = (0..PACKETS).map(|number| number.to_be_bytes().repeat(50)).collect();
    let sent: Vec<u8> = packets.iter().flat_map(|packet| frame(packet)).collect();
    let mut said = 0;
    while world.metrics().packets_in < u64::from(PACKETS) {
        said += world.net().say(conn, &sent[said..]);
        for handle in handles.lock().expect("one thread").drain(..) {
            assert_eq!(handle.resume(), Ok(()));
        }
        world.run_for(1);
        let buffered = world.metrics().buffered;
        assert!(buffered <= 128 * 1024 + 1_000, "{buffered} bytes wait for a session that is paused");
        assert!(world.now() < 10_000, "packets are lost");
    }
    let told = world.log.lines().into_iter().map(|(_, _, told)| told);
    let told = told.filter(|told| matches!(told, Callback::Packet(_)));
    assert!(told.eq(packets.into_iter().map(Callback::Packet)), "each once, and in order");
    world.net().leave(conn);
    handles.lock().expect("one thread").drain(..).for_each(|handle| assert_eq!(handle.resume(), Ok(())));
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_flood_into_a_session_that_pauses_on_each_packet_is_bounded_and_kept_in_order() {
    a_flood_waits_for(false);
    a_flood_waits_for(true);
}

#[test]
fn past_the_memory_of_the_shard_the_largest_go_first_until_an_eighth_is_free() {
    const LIMIT: u64 = 60_000;
    let mut setup = setup();
    setup.limits = setup.limits.shard_memory(LIMIT as usize);
    let mut world = World::new(setup, |probe| {
        probe.packet = Box::new(|session, packet| match packet {
            [size] => Ok(session.send(vec![1; 200 * usize::from(*size)])?),
            _ => Ok(session.send(packet)?),
        });
    });
    let small: Vec<_> = (0..10).map(|_| world.connect()).collect();
    small.iter().for_each(|conn| assert_eq!(world.net().say(*conn, &frame(&[0; 90])[..50]), 50));
    let mut large = Vec::new();
    for size in 20_u8.. {
        let conn = world.connect();
        world.net().say(conn, &frame(&[size]));
        large.push(conn);
        world.run_for(1);
        if !world.log.closes().is_empty() {
            break;
        }
    }
    let buffered = world.metrics().buffered;
    assert!(buffered <= LIMIT - LIMIT / 8, "{buffered} bytes are left");
    assert!(world.log.closes().iter().all(|(_, kind)| *kind == CloseKind::Memory));
    let gone: Vec<bool> = large.iter().map(|conn| world.network.lock().was_reset(*conn)).collect();
    let ended = gone.iter().filter(|gone| **gone).count();
    assert!(ended >= 2 && ended < large.len(), "{gone:?}");
    assert!(gone.is_sorted(), "those that held most: {gone:?}");
    assert!(buffered + 10_000 > LIMIT - LIMIT / 8, "no more than it takes: {buffered} bytes are left");
    for conn in small {
        world.net().say(conn, &frame(&[0; 90])[50..]);
        assert_eq!(world.expect(conn, 94), frame(&[0; 90]), "who holds little is left alone");
    }
}

#[test]
fn an_outbox_that_is_full_again_is_not_called_drained() {
    let mut world = World::new(setup(), |probe| {
        probe.packet = Box::new(|session, _| {
            session.set_timer(TimerId(1), Duration::from_millis(500))?;
            Ok(session.send([1; 9_000])?)
        });
        // In the same turn in which the outbox has become short enough.
        probe.timer = Box::new(|session, _| {
            assert!(session.stats().queued <= 2_000);
            Ok(session.send([2; 9_000])?)
        });
        probe.drained = Box::new(|session, ()| {
            assert!(session.stats().queued <= 8_000, "{} bytes wait", session.stats().queued);
            Ok(())
        });
    });
    let conn = world.connect();
    world.net().say(conn, &frame(b"go"));
    for at in [10, 20, 30, 40, 50, 60, 500] {
        world.net().at(at, move |net| {
            net.hear_all(conn);
        });
    }
    world.run_until(501);
    assert_eq!(world.log.times(&Callback::Timer(1)), [500]);
    assert_eq!(world.log.count(&Callback::Drained), 0);
    let rest = world.expect(conn, 2 * 9_004 - 7_000);
    assert_eq!(rest.len(), 2 * 9_004 - 7_000);
    assert_eq!(world.log.count(&Callback::Drained), 1, "when it is short again");
    assert_eq!(world.metrics().panics, 0);
}

/// Sessions that are read from while their outboxes are full.
fn keep_reading() -> Setup {
    Setup { limits: limits().while_full(WhileFull::KeepReading), ..setup() }
}

#[test]
fn a_subscriber_that_does_not_read_is_heard_if_the_server_says_so() {
    for (setup, is_heard) in [(setup(), false), (keep_reading(), true)] {
        let (mut world, conns, handles) = with_handles(setup, 2);
        for number in 0..15 {
            assert_eq!(handles[0].send([number; 996]), Ok(()));
        }
        world.run_for(1);
        assert!(world.metrics().queued > 8_000, "above the high mark");
        let said = Callback::Packet(b"unsubscribe".to_vec());
        world.net().say(conns[0], &frame(b"unsubscribe"));
        world.run_for(10);
        assert_eq!(world.log.count(&said), usize::from(is_heard));
        assert_eq!(world.log.count(&Callback::Drained), 0);
        let mut heard = 0;
        while heard < 15_000 + 15 {
            let before = world.log.count(&Callback::Drained);
            heard += world.net().hear_all(conns[0]).len();
            world.run_for(1);
            let drained = world.log.count(&Callback::Drained);
            assert!(drained == before || 15_015 - heard <= 3_100, "told early, with {heard} bytes heard");
        }
        assert_eq!((world.log.count(&Callback::Drained), world.log.count(&said)), (1, 1));
        conns.into_iter().for_each(|conn| world.net().leave(conn));
        world.run_to_rest();
        world.assert_empty();
    }
}

#[test]
fn a_peer_that_asks_and_does_not_read_is_closed_at_the_hard_limit_if_it_is_read_from() {
    let mut world = World::new(keep_reading(), |_| {});
    let conn = world.connect();
    let asks: Vec<u8> = (0..250_u8).flat_map(|number| frame(&[number; 496])).collect();
    let mut said = 0;
    for _ in 0..200 {
        said += world.net().say(conn, &asks[said..]);
        world.run_for(1);
        assert!(world.metrics().buffered < 64 * 1024, "one outbox");
    }
    assert_eq!(world.log.count(&Callback::Closing(CloseKind::Send)), 1);
    assert!(said >= 20_000, "{said} bytes: it was read from up to the limit");
}

#[test]
fn a_session_that_is_read_from_though_it_is_full_may_be_linked() {
    let mut setup = keep_reading();
    setup.limits = setup.limits.outbox_hard(200_000);
    let waiting = Arc::<Mutex<Option<SessionId>>>::default();
    let mut world = World::new(setup, |probe| {
        let waiting = waiting.clone();
        probe.open = Box::new(move |session, ()| {
            let other = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
            session.send([7; 12_000])?;
            match other {
                Some(other) => session.link(other)?,
                None => *waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.id()),
            }
            Ok(())
        });
    });
    let conns = [(); 2].map(|()| world.connect());
    world.run_for(5);
    let all: Vec<u8> = (0..100_u8).flat_map(|number| frame(&[number; 496])).collect();
    let mut said = 0;
    for _ in 0..100 {
        said += world.net().say(conns[0], &all[said..]);
        world.run_for(1);
    }
    assert!(said < 20_000, "the partner's full outbox holds it up: {said} bytes");
    let mut heard = Vec::new();
    for _ in 0..200 {
        heard.extend(world.net().hear_all(conns[1]));
        said += world.net().say(conns[0], &all[said..]);
        world.run_for(1);
    }
    assert_eq!(heard.len(), 12_004 + all.len());
    assert!(heard.ends_with(&all));
}
