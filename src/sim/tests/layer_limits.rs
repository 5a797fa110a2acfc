//! What layers cost at most, whatever a peer or they themselves do: memory, time, and their own session.

use std::time::Duration;

use bytes::BytesMut;

use super::layers::{KEY, finish, hear_to_end, layers, say};
use crate::{
    error::{CloseKind, LayerError, SendError},
    layer::{Layer, LayerIo},
    limits::Limits,
    sim::{Heard, Setup, World, frame},
    testing::layers::{Scramble, Scrambler},
};

#[test]
fn packets_wait_within_their_limit_for_a_peer_that_does_not_read() {
    let limits = Limits::default().outbox_high(10_000).outbox_low(1_000).outbox_hard(300_000);
    let mut setup = Setup { limits, layers: layers(|| Scramble::new(KEY)), ..Setup::default() };
    setup.sizes.down = 1_000;
    let mut world = World::new(setup, |probe| {
        probe.packet = Box::new(|session, _| {
            let sent = (0..).take_while(|_| session.send([7; 10_000]).is_ok()).count();
            assert_eq!(sent, 29);
            assert!(matches!(session.send([7; 10_000]), Err(SendError::Full { queued: 290_116, .. })));
            Ok(())
        });
    });
    let (conn, mut peer) = (world.connect(), Scrambler::new(KEY));
    say(&world, conn, &[peer.greet(), peer.encode(&frame(b"go"))].concat());
    world.run_for(10);
    let held = world.metrics().buffered;
    assert!((290_000..600_000).contains(&held), "{held}");
    let mut plain = Vec::new();
    while plain.len() < 290_116 {
        let heard = world.net().hear_all(conn);
        plain.extend(peer.decode(&heard));
        world.run_for(1);
    }
    assert_eq!(plain, frame(&[7; 10_000]).repeat(29));
    world.run_for(10);
    assert!(world.metrics().buffered < 1_000, "{}", world.metrics().buffered);
    finish(world, conn);
}

/// Makes frames without end of every byte: what inflating may come to.
struct Bomb(usize);

impl Layer for Bomb {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        io.open();
        self.0 += wire.len() * 100_000;
        let frames = self.0.min(io.room() / 1_004);
        self.0 -= frames;
        let given = io.plain(&frame(&[0; 1_000]).repeat(frames));
        assert_eq!(given, frames * 1_004);
        let rest = io.room();
        if self.0 > 0 {
            // The room is used up, so that it is called again.
            io.plain(&frame(&vec![0; rest - 4]));
        }
        Ok(wire.len())
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        wire.extend_from_slice(plain);
        Ok(())
    }
}

#[test]
fn what_a_few_bytes_are_inflated_to_is_handed_out_in_shares_and_never_held() {
    let mut setup = Setup { layers: layers(|| Bomb(0)), ..Setup::default() };
    setup.limits = Limits::default().read_budget(100_000);
    let mut world = World::new(setup, |probe| {
        probe.quiet = true;
        probe.packet = Box::new(|_, _| Ok(()));
    });
    let (bomb, bystander) = (world.connect(), world.connect());
    say(&world, bomb, b"!");
    world.turn();
    let mut most = 0;
    for _ in 0..200 {
        let before = world.metrics().packets_in;
        world.turn();
        assert!(world.metrics().packets_in - before <= 2 * 64, "a share of the turn, and no more");
        most = most.max(world.metrics().buffered);
    }
    assert!(most < 300_000, "{most} bytes were held");
    assert!(world.metrics().packets_in < 30_000);
    world.net().reset(bomb);
    world.net().leave(bystander);
    world.run_to_rest();
    world.assert_empty();
}

/// Never finds the end of what it waits for.
struct Greedy;

impl Layer for Greedy {
    fn received(&mut self, _: &[u8], _: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        Ok(0)
    }

    fn send(&mut self, _: &[u8], _: &mut BytesMut) -> Result<(), LayerError> {
        Ok(())
    }
}

#[test]
fn a_handshake_without_end_holds_no_more_than_its_limit() {
    let mut world = World::new(Setup { layers: layers(|| Greedy), ..Setup::default() }, |_| ());
    let conn = world.connect();
    let mut most = 0;
    while world.metrics().refused_total() == 0 {
        world.net().say(conn, &[1; 10_000]);
        world.run_for(1);
        most = most.max(world.metrics().buffered);
    }
    assert!((100_000..400_000).contains(&most), "{most}");
    assert!(world.now() < 1_000);
    finish(world, conn);
}

/// Panics where it is told to.
struct Panics(&'static str);

impl Panics {
    fn at(&self, place: &str) {
        if self.0 == place {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    }
}

impl Layer for Panics {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        io.open();
        io.plain(wire);
        if !wire.is_empty() {
            self.at("received");
        }
        Ok(wire.len())
    }

    fn received_end(&mut self) -> Result<(), LayerError> {
        self.at("received_end");
        Ok(())
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        self.at("send");
        wire.extend_from_slice(plain);
        Ok(())
    }

    fn flush(&mut self, _: &mut BytesMut) -> Result<(), LayerError> {
        self.at("flush");
        Ok(())
    }

    fn end(&mut self, _: &mut BytesMut) -> Result<(), LayerError> {
        self.at("end");
        Ok(())
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        self.at("drop");
    }
}

#[test]
fn a_layer_that_panics_ends_its_session_and_nothing_else() {
    for place in ["received", "received_end", "send", "flush", "end", "drop"] {
        let mut world =
            World::new(Setup { layers: layers(move || Panics(place)), ..Setup::default() }, |_| ());
        let conn = world.connect();
        say(&world, conn, &frame(b"hello"));
        world.run_for(5);
        world.net().end(conn);
        assert!(hear_to_end(&mut world, conn).is_some(), "{place}");
        world.run_for(5);
        let kinds: Vec<_> = world.log.closes().iter().map(|(_, kind)| *kind).collect();
        let before = matches!(place, "drop" | "end");
        let expected = if before { CloseKind::PeerClosed } else { CloseKind::Panicked };
        assert_eq!(kinds, [expected], "{place}");
        assert_eq!(world.metrics().panics, 1, "{place}");
        finish(world, conn);
    }
}

#[test]
fn layers_that_cannot_be_pushed_end_the_session() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.packet = Box::new(|session, packet| {
            if packet == b"many" {
                (0..9).for_each(|_| session.push_layer(Scramble::new(KEY)));
                return Ok(());
            }
            session.push_layer(Scramble::new(KEY));
            session.send("waits for it")?;
            session.push_layer(Scramble::new(KEY));
            Ok(())
        });
    });
    for packet in ["many", "early"] {
        let conn = world.connect();
        say(&world, conn, &frame(packet.as_bytes()));
        world.run_for(6_000);
        world.net().leave(conn);
    }
    world.run_to_rest();
    let kinds: Vec<_> = world.log.closes().iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, [CloseKind::Layer; 2]);
    world.assert_empty();
}

#[test]
fn a_peer_that_does_not_read_in_its_handshake_is_found_stalled() {
    let limits =
        Limits::default().handshake_timeout(Duration::from_secs(60)).stall_timeout(Duration::from_secs(5));
    let mut setup = Setup { limits, layers: layers(|| Scramble::new(KEY)), ..Setup::default() };
    setup.sizes.down = 2;
    let mut world = World::new(setup, |_| ());
    let conn = world.connect();
    say(&world, conn, b"SCR1");
    world.run_until(4_990);
    assert_eq!(world.metrics().sessions, 1);
    world.run_until(5_020);
    assert_eq!((world.metrics().sessions, world.metrics().refused_total()), (0, 1));
    assert_eq!(world.hears(conn), Heard::Reset);
    finish(world, conn);
}
