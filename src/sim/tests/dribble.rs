//! Peers that send a byte now and then: a packet has its time from its first byte to its last, also one that is refused.

use std::time::Duration;

use crate::{
    TimerId,
    error::CloseKind,
    framing::{
        Framing, LengthField, LengthPrefix, Netstring, Oversize::Discard, Raw, Separator, UntilEof,
        VarintPrefix,
    },
    limits::Limits,
    sim::{Callback, Conn, Setup, World, frame},
};

/// Two seconds for a packet.
fn world<F: Framing + Clone + Send + 'static>(framing: F) -> (World, Conn) {
    let timeout = Duration::from_secs(2);
    let limits = Limits::default().packet_timeout(timeout).linger_timeout(Duration::ZERO);
    let world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        let framing = framing.clone();
        probe.open = Box::new(move |session, ()| {
            session.set_framing(framing.clone());
            Ok(())
        });
    });
    let conn = world.connect();
    (world, conn)
}

fn say_at(world: &World, conn: Conn, at: u64, bytes: impl Into<Vec<u8>>) {
    let bytes = bytes.into();
    world.net().at(at, move |net| {
        net.say(conn, &bytes);
    });
}

/// A byte every half second, from second 2 to second 20.
fn dribble(world: &World, conn: Conn, byte: u8) {
    (4..40).for_each(|half| say_at(world, conn, 500 * half, [byte]));
}

fn discarding() -> LengthPrefix {
    LengthPrefix::u32_be().max(10).oversize(Discard)
}

/// The front of a frame that is too long, and never ends, is refused at 1,100 and has begun at 100.
fn is_ended_in_time<F: Framing + Clone + Send + 'static>(name: &str, framing: F, front: &[u8], byte: u8) {
    let (mut world, conn) = world(framing);
    say_at(&world, conn, 100, &front[..1]);
    say_at(&world, conn, 1_100, &front[1..]);
    dribble(&world, conn, byte);
    world.run_until(10_000);
    assert_eq!(world.log.closes(), [(2_100, CloseKind::SlowPacket)], "{name}");
    assert_eq!(world.metrics().frames_rejected, 1, "{name}");
    world.assert_empty();
}

#[test]
fn a_frame_that_is_discarded_has_no_more_time_than_one_that_is_kept() {
    is_ended_in_time("prefix", LengthPrefix::u64_be().max(10).oversize(Discard), &[0x7f; 8], 0);
    let field = LengthField::builder(8).build().expect("it is plain").max(10).oversize(Discard);
    is_ended_in_time("field", field, &[0x7f; 8], 0);
    is_ended_in_time("varint", VarintPrefix::u64().max(10).oversize(Discard), b"\xff\xff\xff\xff\xff\x7f", 0);
    is_ended_in_time("netstring", Netstring::new().max(10).oversize(Discard), b"999999999:", b'x');
    is_ended_in_time("lines", Separator::lines().max(10).oversize(Discard), b"more than ten", b'x');
    is_ended_in_time(
        "half a separator",
        Separator::crlf().max(10).oversize(Discard),
        b"more than ten",
        b'\r',
    );
}

#[test]
fn a_stream_that_is_one_packet_has_the_time_of_one() {
    let (mut world, conn) = world(UntilEof::new());
    dribble(&world, conn, b'x');
    world.run_until(10_000);
    assert_eq!(world.log.closes(), [(4_000, CloseKind::SlowPacket)]);
}

#[test]
fn bytes_without_frames_are_never_late() {
    let (mut world, conn) = world(Raw::new());
    dribble(&world, conn, b'x');
    world.run_until(30_000);
    assert_eq!(world.log.closes(), []);
}

#[test]
fn a_frame_that_was_discarded_in_time_leaves_no_deadline_behind() {
    let (mut world, conn) = world(discarding());
    // In one piece, and over many reads.
    say_at(&world, conn, 100, frame(&[7; 90]));
    for (at, byte) in (0..).zip(frame(&[8; 90])) {
        say_at(&world, conn, 5_000 + 20 * at, [byte]);
    }
    say_at(&world, conn, 60_000, frame(b"still here"));
    world.run_until(100_000);
    assert_eq!(world.metrics().frames_rejected, 2);
    assert_eq!(world.log.closes(), []);
    assert_eq!(world.log.times(&Callback::Packet(b"still here".to_vec())), [60_000]);
}

#[test]
fn what_follows_a_discarded_frame_has_a_time_of_its_own() {
    for next in [&[0, 0][..], &[0, 0, 1, 0, 7, 7]] {
        let (mut world, conn) = world(discarding());
        let first = frame(&[7; 90]);
        say_at(&world, conn, 100, &first[..40]);
        say_at(&world, conn, 1_600, [&first[40..], next].concat());
        world.run_until(10_000);
        assert_eq!(world.log.closes(), [(3_600, CloseKind::SlowPacket)], "{next:?}");
    }
}

#[test]
fn a_discarded_frame_is_not_timed_while_nobody_listens() {
    let (mut world, conn) = {
        let limits = Limits::default().packet_timeout(Duration::from_secs(2)).linger_timeout(Duration::ZERO);
        let world = World::new(Setup { limits, ..Setup::default() }, |probe| {
            probe.open = Box::new(|session, ()| {
                session.set_framing(discarding());
                Ok(session.set_timer(TimerId(1), Duration::from_secs(1))?)
            });
            probe.timer = Box::new(|session, timer| {
                if timer == 2 {
                    session.resume();
                    return Ok(());
                }
                session.pause();
                Ok(session.set_timer(TimerId(2), Duration::from_secs(9))?)
            });
        });
        let conn = world.connect();
        (world, conn)
    };
    say_at(&world, conn, 500, &frame(&[7; 90])[..40]);
    world.run_until(30_000);
    assert_eq!(
        world.log.closes(),
        [(12_000, CloseKind::SlowPacket)],
        "two seconds from the end of the pause"
    );
}

#[test]
fn a_new_framing_knows_nothing_of_a_frame_that_the_old_one_discarded() {
    let (mut world, conn) = {
        let limits = Limits::default().packet_timeout(Duration::from_secs(2));
        let world = World::new(Setup { limits, ..Setup::default() }, |probe| {
            probe.open = Box::new(|session, ()| {
                session.set_framing(discarding());
                Ok(session.set_timer(TimerId(1), Duration::from_secs(1))?)
            });
            probe.timer = Box::new(|session, _| {
                session.set_framing(Raw::new());
                Ok(())
            });
        });
        let conn = world.connect();
        (world, conn)
    };
    say_at(&world, conn, 500, &frame(&[7; 90])[..40]);
    world.run_until(30_000);
    assert_eq!(world.log.closes(), []);
}
