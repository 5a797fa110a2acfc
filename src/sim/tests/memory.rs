//! What limits count: everything that is held for a session, and nothing twice.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::BytesMut;

use crate::{
    SendTicket, SessionHandle,
    error::{CloseKind, SendError},
    framing::{Decoded, EncodeError, FrameError, Framing, LengthField, Raw},
    limits::Limits,
    sim::{Conn, Setup, World, frame},
};

const HARD: usize = 20_000;

fn setup() -> Setup {
    let limits = Limits::default()
        .outbox_low(2_000)
        .outbox_high(8_000)
        .outbox_hard(HARD)
        .stall_timeout(Duration::from_secs(60));
    let mut setup = Setup { limits, ..Setup::default() };
    (setup.sizes.up, setup.sizes.down) = (3_000, 1_000);
    setup
}

/// A session with this framing that owes its peer 3,000 bytes more than the network takes, and its handle.
fn stuck(setup: Setup, framing: impl Framing + Clone + Send + 'static) -> (World, Conn, SessionHandle) {
    let handles = Arc::new(Mutex::new(Vec::new()));
    let mut world = World::new(setup, |probe| {
        let (handles, framing) = (handles.clone(), framing.clone());
        probe.open = Box::new(move |session, ()| {
            session.set_framing(Raw::new());
            session.send([1; 4_000])?;
            session.set_framing(framing.clone());
            handles.lock().expect("one thread").push(session.handle());
            Ok(())
        });
    });
    let conn = world.connect();
    world.run_for(2);
    let handle = handles.lock().expect("one thread").pop().expect("it is open");
    (world, conn, handle)
}

/// Sends empty packets, so many at a time, until there is no room for one more.
fn send_until_full(
    world: &mut World,
    at_a_time: usize,
    mut send: impl FnMut() -> Result<(), SendError>,
) -> usize {
    for taken in 0..100_000 {
        match send() {
            Ok(()) if taken % at_a_time == 0 => world.run_for(1),
            Ok(()) => {}
            Err(SendError::Full { limit: HARD, .. }) => return taken,
            Err(error) => panic!("after {taken}: {error}"),
        }
    }
    panic!("there is room for ever");
}

#[test]
fn tickets_of_packets_without_a_byte_fill_the_outbox() {
    for at_a_time in [1, 7, 100_000] {
        let (mut world, conn, handle) = stuck(setup(), Raw::new());
        let mut tickets: Vec<SendTicket> = Vec::new();
        let taken = send_until_full(&mut world, at_a_time, || {
            handle.send_tracked("").map(|ticket| tickets.push(ticket))
        });
        world.run_for(1);
        let buffered = world.metrics().buffered as usize;
        assert!((50..=HARD / 64).contains(&taken), "{taken} tickets were taken");
        assert!((64 * taken..2 * HARD).contains(&buffered), "{taken} tickets are {buffered} bytes");
        assert_eq!(world.expect(conn, 4_000), [1; 4_000]);
        world.run_for(1);
        assert!(tickets.iter().all(|ticket| ticket.outcome() == Some(Ok(()))), "each is told in the end");
        assert_eq!(world.metrics().buffered, 0);
        assert_eq!(handle.send_tracked("").map(drop), Ok(()), "and there is room again");
    }
}

#[test]
fn tickets_count_against_the_memory_of_the_shard() {
    let mut setup = setup();
    setup.limits = setup.limits.shard_memory(10_000);
    let (mut world, _conn, handle) = stuck(setup, Raw::new());
    let tickets: Vec<_> = (0..100).map(|_| handle.send_tracked("").expect("there is room")).collect();
    world.run_to_rest();
    assert_eq!(world.log.closes().first().map(|(_, kind)| *kind), Some(CloseKind::Memory));
    assert!(tickets.iter().all(|ticket| ticket.outcome().is_some_and(|outcome| outcome.is_err())));
    world.assert_empty();
}

#[test]
fn an_outbox_at_its_hard_limit_holds_hardly_more_memory_than_bytes() {
    for size in [1, 60, 1_000, 9_000, 15_000, 30_000, 40_000, 64_000, 100_000] {
        let limits = Limits::default().shard_memory(5 << 20);
        let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
            probe.packet = Box::new(move |session, _| {
                while session.send(vec![7; size]).is_ok() {}
                Ok(())
            });
        });
        let conn = world.connect();
        world.net().say(conn, &frame(b"go"));
        world.run_for(10);
        let buffered = world.metrics().buffered;
        assert_eq!(world.log.closes(), [], "frames of {size} bytes");
        assert!((3 << 20..5 << 20).contains(&buffered), "frames of {size} bytes take {buffered}");
    }
}

/// A thousand bytes in front of each packet.
fn headed() -> LengthField {
    LengthField::builder(2).strip(1_000).adjustment(998).build().expect("the field is in the header")
}

#[test]
fn the_header_of_a_frame_counts_when_a_handle_sends() {
    for at_a_time in [1, 3, 100_000] {
        let (mut world, conn, handle) = stuck(setup(), headed());
        let taken = send_until_full(&mut world, at_a_time, || handle.send(""));
        world.run_for(1);
        assert!((16..=17).contains(&taken), "{taken} frames of 1000 bytes beside 3000");
        let owed = 4_000 + 1_000 * taken;
        assert_eq!(world.expect(conn, owed).len(), owed, "what was taken is delivered");
        assert_eq!(world.log.closes(), []);
    }
}

#[test]
fn the_header_of_a_frame_counts_when_a_callback_sends() {
    let mut world = World::new(setup(), |probe| {
        probe.open = Box::new(|session, ()| {
            session.set_framing(headed());
            let mut sent = 0;
            while session.send("").is_ok() {
                sent += 1;
            }
            assert_eq!((sent, session.stats().queued), (20, HARD));
            Ok(())
        });
    });
    let conn = world.connect();
    assert_eq!(world.expect(conn, HARD).len(), HARD);
    assert_eq!(world.metrics().sends_refused, 1);
    assert_eq!(world.metrics().panics, 0);
}

#[test]
fn idle_sessions_keep_no_more_for_their_next_sends_than_their_number_justifies() {
    const SHARE: u64 = 32 * 1024;
    let mut setup = Setup { limits: Limits::default(), ..Setup::default() };
    // A tenth of a reply at a time: each outbox is blocked for a while.
    setup.sizes.down = 20_000;
    let mut world =
        World::new(setup, |probe| probe.packet = Box::new(|session, _| Ok(session.send([7; 200_000])?)));
    let mut conns = Vec::new();
    for sessions in 1..=40 {
        conns.push(world.connect());
        for conn in &conns {
            world.net().say(*conn, &frame(b"go"));
        }
        for conn in &conns {
            assert_eq!(world.expect(*conn, 200_004).len(), 200_004);
        }
        let metrics = world.metrics();
        assert_eq!(metrics.buffered, 0);
        assert!(metrics.pooled <= sessions * SHARE, "{} bytes for {sessions} sessions", metrics.pooled);
    }
    assert!(world.metrics().pooled > 0, "there is a pool");
    for sessions in (0..40).rev() {
        world.net().leave(conns.pop().expect("one is left"));
        world.run_for(10);
        let pooled = world.metrics().pooled;
        assert!(pooled <= sessions * SHARE, "{pooled} bytes for {sessions} sessions");
    }
}

#[test]
fn what_is_kept_for_the_next_sends_goes_before_a_session_does() {
    let mut setup = setup();
    setup.limits = Limits::default().shard_memory(300_000);
    let mut world = World::new(setup, |probe| {
        probe.packet = Box::new(|session, packet| Ok(session.send(vec![7; 100 * packet.len()])?));
    });
    let conns: Vec<_> = (0..10).map(|_| world.connect()).collect();
    for _ in 0..2 {
        // All at once, so that each has an outbox of its own.
        conns.iter().for_each(|conn| assert_eq!(world.net().say(*conn, &frame(&[0; 200])), 204));
        conns.iter().for_each(|conn| assert_eq!(world.expect(*conn, 20_004).len(), 20_004));
    }
    assert!(world.metrics().pooled > 60_000, "{} bytes are kept", world.metrics().pooled);
    world.net().say(conns[0], &frame(&[0; 2_500]));
    world.run_for(2);
    assert_eq!(world.metrics().pooled, 0);
    assert_eq!(world.expect(conns[0], 250_004).len(), 250_004);
    assert_eq!(world.log.closes(), []);
}

/// Says everything a hundred times.
#[derive(Clone)]
struct Verbose;

impl Framing for Verbose {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        Raw::new().decode(buf)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        (0..100).for_each(|_| out.extend_from_slice(payload));
        Ok(())
    }
}

#[test]
fn frames_far_longer_than_their_packets_do_not_take_an_outbox_over_twice_its_limit() {
    let (mut world, _conn, handle) = stuck(setup(), Verbose);
    (0..100).for_each(|_| assert_eq!(handle.send([9; 10]), Ok(())));
    let tracked = handle.send_tracked([9; 10]).expect("there is room");
    for _ in 0..10 {
        world.turn();
        let buffered = world.metrics().buffered as usize;
        assert!(buffered <= 4 * HARD, "{buffered} bytes, by capacity");
    }
    assert!(!handle.is_open(), "it was told that all would go out");
    assert!(tracked.outcome().is_some_and(|outcome| outcome.is_err()));
    world.run_to_rest();
    assert_eq!(world.log.closes().first().map(|(_, kind)| *kind), Some(CloseKind::Send));
}
