//! Layers that stretch or break their contract.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::BytesMut;

use super::layers::{KEY, finish, hear_to_end, layers, say};
use crate::{
    error::{CloseKind, LayerError},
    layer::{Layer, LayerIo},
    limits::Limits,
    session::TimerId,
    sim::{Callback, Conn, Setup, World, frame},
    testing::layers::{Scramble, Scrambler},
};

type Received = dyn FnMut(&[u8], &mut LayerIo<'_>) -> Result<usize, LayerError> + Send;

/// A layer that does what a test tells it to when it receives, and otherwise passes bytes on.
pub(super) struct Acting(Box<Received>);

impl Acting {
    pub(super) fn new(
        received: impl FnMut(&[u8], &mut LayerIo<'_>) -> Result<usize, LayerError> + Send + 'static,
    ) -> Self {
        Self(Box::new(received))
    }

    pub(super) fn passing() -> Self {
        Self::new(|wire, io| {
            io.open();
            Ok(io.plain(wire))
        })
    }
}

impl Layer for Acting {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        (self.0)(wire, io)
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        wire.extend_from_slice(plain);
        Ok(())
    }
}

pub(super) fn panic_on_purpose() -> ! {
    std::panic::resume_unwind(Box::new("on purpose"))
}

pub(super) fn kinds(world: &World) -> Vec<CloseKind> {
    world.log.closes().iter().map(|(_, kind)| *kind).collect()
}

/// A turn in which a layer has much to do of which nothing is seen.
pub(super) fn busy_turn(world: &mut World) {
    world.net().waits = false;
    world.turn();
    world.net().waits = true;
}

#[test]
fn a_session_whose_layer_panics_closes_as_gently_as_any_other() {
    let panicking = || {
        Acting::new(|wire, io| {
            io.open();
            if wire.contains(&b'!') {
                panic_on_purpose();
            }
            Ok(io.plain(wire))
        })
    };
    let mut world = World::new(Setup { layers: layers(panicking), ..Setup::default() }, |_| ());
    let conn = world.connect();
    say(&world, conn, &frame(b"hello"));
    world.run_for(5);
    say(&world, conn, b"!");
    world.run_for(5);
    say(&world, conn, b"more");
    world.run_for(100);
    assert_eq!(world.metrics().sessions, 1, "it lingers, so that no reset destroys its last bytes");
    assert_eq!(hear_to_end(&mut world, conn), Some(frame(b"hello")));
    world.net().end(conn);
    world.run_for(5);
    assert_eq!(kinds(&world), [CloseKind::Panicked]);
    finish(world, conn);
}

#[test]
fn what_one_layer_inflates_and_the_next_swallows_has_its_share_of_a_turn_too() {
    const ROUNDS: usize = 10_000;
    let calls = Arc::new(AtomicUsize::new(0));
    let mut setup = Setup::default();
    let counted = calls.clone();
    setup.layers.push(move |_| {
        let counted = counted.clone();
        Acting::new(move |wire, io| {
            io.open();
            if !wire.is_empty() || counted.load(Relaxed) > 0 {
                let round = counted.fetch_add(1, Relaxed);
                io.plain(&vec![0; if round < ROUNDS { io.room() } else { 1 }]);
            }
            Ok(wire.len())
        })
    });
    setup.layers.push(|_| {
        Acting::new(|wire, io| {
            io.open();
            Ok(wire.len())
        })
    });
    let mut world = World::new(setup, |_| ());
    let conn = world.connect();
    world.run_for(5);
    say(&world, conn, b"?");
    let bystander = world.connect();
    while calls.load(Relaxed) < ROUNDS {
        let before = calls.load(Relaxed);
        busy_turn(&mut world);
        let share = calls.load(Relaxed) - before;
        assert!(share <= 64, "{share} times 64 KiB in one turn");
    }
    world.net().leave(bystander);
    finish(world, conn);
}

#[test]
fn a_flood_of_tiny_records_has_its_share_of_a_turn() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let tiny = move || {
        let counted = counted.clone();
        Acting::new(move |wire, io| {
            io.open();
            counted.fetch_add(1, Relaxed);
            Ok(wire.len().min(1))
        })
    };
    let mut world = World::new(Setup { layers: layers(tiny), ..Setup::default() }, |_| ());
    let conn = world.connect();
    world.run_for(5);
    say(&world, conn, &[0; 50_000]);
    let mut most = 0;
    while calls.load(Relaxed) < 50_000 {
        let before = calls.load(Relaxed);
        busy_turn(&mut world);
        most = most.max(calls.load(Relaxed) - before);
    }
    assert!(most <= 256, "{most} records in one turn");
    finish(world, conn);
}

#[test]
fn nothing_that_comes_after_the_end_of_the_plain_stream_reaches_the_layer_that_ended_it() {
    let mut setup = Setup::default();
    // Byte by byte, so that the layer below still has some when the stream has ended.
    setup.layers.push(|_| {
        Acting::new(|wire, io| {
            io.open();
            Ok(io.plain(&wire[..wire.len().min(1)]))
        })
    });
    setup.layers.push(|_| {
        let mut has_ended = false;
        Acting::new(move |wire, io| {
            assert!(!has_ended, "called after the end");
            io.open();
            match wire.iter().position(|byte| *byte == b'.') {
                Some(end) => {
                    has_ended = true;
                    io.plain(&wire[..end]);
                    io.end();
                }
                None => drop(io.plain(wire)),
            }
            Ok(wire.len())
        })
    });
    let mut world = World::new(setup, |_| ());
    let conn = world.connect();
    say(&world, conn, &[frame(b"one"), b".".to_vec(), frame(b"two")].concat());
    assert_eq!(hear_to_end(&mut world, conn), Some(frame(b"one")));
    world.net().end(conn);
    world.run_for(5);
    assert_eq!((kinds(&world), world.metrics().panics), (vec![CloseKind::PeerClosed], 0));
    finish(world, conn);
}

#[test]
fn a_layer_that_ends_the_stream_and_says_that_it_is_done_has_ended_it() {
    let both = || {
        Acting::new(|wire, io| {
            io.open();
            if !wire.is_empty() {
                io.plain(&frame(b"last"));
                io.end();
                io.done();
            }
            Ok(wire.len())
        })
    };
    let mut world = World::new(Setup { layers: layers(both), ..Setup::default() }, |_| ());
    let conn = world.connect();
    say(&world, conn, b"!");
    assert_eq!(hear_to_end(&mut world, conn), Some(frame(b"last")));
    finish(world, conn);
}

#[test]
fn a_block_of_a_layer_that_does_not_become_whole_is_a_slow_packet() {
    for begin in [100, 20_000] {
        let limits = Limits::default().packet_timeout(Duration::from_secs(3));
        let setup = Setup { limits, layers: layers(|| Scramble::new(KEY)), ..Setup::default() };
        let mut world = World::new(setup, |_| ());
        let (conn, mut peer) = (world.connect(), Scrambler::new(KEY));
        say(&world, conn, &peer.greet());
        world.run_until(begin);
        let block = peer.encode(&frame(b"slow"));
        say(&world, conn, &block[..block.len() - 1]);
        world.run_until(begin + 2_990);
        assert_eq!(world.log.count(&Callback::Closing(CloseKind::SlowPacket)), 0);
        world.run_until(begin + 3_050);
        assert_eq!(world.log.count(&Callback::Closing(CloseKind::SlowPacket)), 1, "begun at {begin}");
        finish(world, conn);
    }
}

/// Claims to hold this many bytes, and counts what it was sent.
struct Holds(usize);

impl Layer for Holds {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        io.open();
        Ok(io.plain(wire))
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        self.0 = self.0.saturating_add(plain.len());
        wire.extend_from_slice(plain);
        Ok(())
    }

    fn buffered(&self) -> usize {
        self.0
    }
}

#[test]
fn a_layer_that_claims_to_hold_all_memory_loses_its_own_session() {
    let mut setup = Setup::default();
    (0..2).for_each(|_| setup.layers.push(|_| Holds(usize::MAX)));
    let mut world = World::new(setup, |_| ());
    let conn = world.connect();
    world.run_for(5);
    assert_eq!((world.metrics().sessions, kinds(&world)), (0, vec![CloseKind::Memory]));
    finish(world, conn);
}

#[test]
fn what_a_layer_holds_counts_as_soon_as_it_was_sent_something() {
    let mut world = World::new(Setup { layers: layers(|| Holds(0)), ..Setup::default() }, |probe| {
        probe.packet = Box::new(|session, _| Ok(session.send([1; 100_000])?));
    });
    let conn = world.connect();
    say(&world, conn, &frame(b"go"));
    assert_eq!(world.expect(conn, 100_004).len(), 100_004);
    world.run_for(5);
    assert!(world.metrics().buffered >= 100_000, "{}", world.metrics().buffered);
    finish(world, conn);
}

/// Keeps what it is sent until it is flushed, and has nothing to say at the end.
#[derive(Default)]
struct Keeps(Vec<u8>);

impl Layer for Keeps {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        io.open();
        Ok(io.plain(wire))
    }

    fn send(&mut self, plain: &[u8], _: &mut BytesMut) -> Result<(), LayerError> {
        self.0.extend_from_slice(plain);
        Ok(())
    }

    fn flush(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        wire.extend_from_slice(&std::mem::take(&mut self.0));
        Ok(())
    }
}

/// Says goodbye.
struct Parts;

impl Layer for Parts {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        io.open();
        Ok(io.plain(wire))
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        wire.extend_from_slice(plain);
        Ok(())
    }

    fn end(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        wire.extend_from_slice(b"goodbye");
        Ok(())
    }
}

#[test]
fn the_goodbye_of_a_layer_passes_layers_that_keep_bytes_back() {
    let mut setup = Setup::default();
    setup.layers.push(|_| Keeps::default());
    setup.layers.push(|_| Keeps::default());
    setup.layers.push(|_| Parts);
    let mut world = World::new(setup, |_| ());
    let conn = world.connect();
    say(&world, conn, &frame(b"hello"));
    world.net().end(conn);
    assert_eq!(hear_to_end(&mut world, conn), Some([frame(b"hello"), b"goodbye".to_vec()].concat()));
    finish(world, conn);
}

/// Panics when it is dropped.
struct Explodes;

impl Layer for Explodes {
    fn received(&mut self, _: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        io.done();
        Ok(0)
    }

    fn send(&mut self, _: &[u8], _: &mut BytesMut) -> Result<(), LayerError> {
        Ok(())
    }
}

impl Drop for Explodes {
    fn drop(&mut self) {
        panic_on_purpose();
    }
}

#[test]
fn a_layer_that_is_done_and_panics_when_it_is_dropped_is_counted_and_its_session_goes_on() {
    let mut world = World::new(Setup { layers: layers(|| Explodes), ..Setup::default() }, |_| ());
    let conn = world.connect();
    say(&world, conn, &frame(b"hello"));
    assert_eq!(world.expect(conn, 9), frame(b"hello"));
    assert_eq!(world.metrics().panics, 1);
    finish(world, conn);
}

/// A connection with the bytes of two sessions at once would show in this.
#[test]
fn eight_layers_pass_everything_on_in_order_however_it_comes() {
    for piece in [1, 7, 1_000, 60_000] {
        let mut setup = Setup::default();
        (0..8).for_each(|key| setup.layers.push(move |_| Scramble::new(key)));
        let mut world = World::new(setup, |_| ());
        let (conn, mut peers) = (world.connect(), (0..8).map(Scrambler::new).collect::<Vec<_>>());
        let mut wire = frame(&vec![3; if piece == 1 { 500 } else { 20_000 }]);
        let expected = wire.clone();
        for peer in peers.iter_mut().rev() {
            wire = [peer.greet(), peer.encode(&wire)].concat();
        }
        let mut heard = Vec::new();
        for piece in wire.chunks(piece) {
            say(&world, conn, piece);
            world.run_for(1);
            heard.extend(world.net().hear_all(conn));
        }
        world.run_for(10);
        heard.extend(world.net().hear_all(conn));
        for peer in &mut peers {
            heard = peer.decode(&heard);
        }
        assert_eq!(heard, expected, "in pieces of {piece}");
        finish(world, conn);
    }
}

#[test]
fn a_half_closed_session_with_layers_still_answers() {
    let mut world =
        World::new(Setup { layers: layers(|| Scramble::new(KEY)), ..Setup::default() }, |probe| {
            probe.end = Box::new(|session, ()| {
                session.set_timer(TimerId(1), Duration::from_millis(100))?;
                Ok(crate::handler::Then::Stay)
            });
            probe.timer = Box::new(|session, _| {
                session.send("late")?;
                session.close();
                Ok(())
            });
        });
    let (conn, mut peer): (Conn, _) = (world.connect(), Scrambler::new(KEY));
    say(&world, conn, &[peer.greet(), peer.encode(&frame(b"early")), peer.end()].concat());
    world.net().end(conn);
    let heard = hear_to_end(&mut world, conn).expect("no reset");
    assert_eq!(peer.decode(&heard), [frame(b"early"), frame(b"late")].concat());
    assert!(peer.was_ended() && world.now() >= 100);
    finish(world, conn);
}

#[test]
fn a_connection_whose_layers_cannot_be_made_is_closed_and_others_are_served() {
    let made = AtomicUsize::new(0);
    let first_panics = move || {
        if made.fetch_add(1, Relaxed) == 0 {
            panic_on_purpose();
        }
        Acting::passing()
    };
    let mut world = World::new(Setup { layers: layers(first_panics), ..Setup::default() }, |_| ());
    let (first, second) = (world.connect(), world.connect());
    say(&world, second, &frame(b"hello"));
    assert_eq!(world.expect(second, 9), frame(b"hello"));
    let metrics = world.metrics();
    assert_eq!((metrics.panics, metrics.refused_total(), metrics.sessions), (1, 1, 1));
    world.net().leave(first);
    finish(world, second);
}
