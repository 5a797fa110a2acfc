//! Layers that bring a framing of their own, and layers that tell the peer why the session closes.

use bytes::BytesMut;

use super::{
    layer_contracts::{kinds, panic_on_purpose},
    layers::{finish, hear_to_end, layers, say},
};
use crate::{
    error::{CloseKind, CloseReason, LayerError},
    framing::{Decoded, EncodeError, FrameError, Framing, LengthPrefix},
    layer::{Layer, LayerIo},
    sim::{Callback, Setup, World, frame},
};

/// Opens at the first byte, which says how long the lengths of packets are from then on. Says why the session closes.
struct Choosing {
    is_open: bool,
    ending: String,
}

impl Choosing {
    fn new() -> Self {
        Self { is_open: false, ending: "its side ends".to_owned() }
    }
}

impl Layer for Choosing {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        let mut rest = wire;
        if let (false, Some((choice, behind))) = (self.is_open, wire.split_first()) {
            self.is_open = true;
            match choice {
                b'1' => io.set_framing(LengthPrefix::u8()),
                b'2' => io.set_framing(LengthPrefix::u16_be()),
                b'!' => io.set_framing(Panicking),
                _ => assert_eq!(io.frame_limit(), 1 << 20),
            }
            io.open();
            rest = behind;
        }
        let passed = io.plain(rest);
        io.passed().make_ascii_uppercase();
        Ok(wire.len() - rest.len() + passed)
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        wire.extend_from_slice(plain);
        Ok(())
    }

    fn closing(&mut self, reason: &CloseReason) {
        self.ending = reason.to_string();
    }

    fn end(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        wire.extend_from_slice(self.ending.as_bytes());
        Ok(())
    }
}

/// A framing that panics as soon as it is set.
struct Panicking;

impl Framing for Panicking {
    fn decode(&mut self, _: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        Ok(None)
    }

    fn encode(&self, _: &[u8], _: &mut BytesMut) -> Result<(), EncodeError> {
        Ok(())
    }

    fn offer_max(&mut self, _: usize) {
        panic_on_purpose();
    }
}

#[test]
fn what_a_layer_passes_on_has_the_framing_that_it_has_set() {
    for (choice, wire) in [("0", frame(b"hello")), ("1", b"\x05hello".into()), ("2", b"\0\x05hello".into())] {
        let wire = [choice.as_bytes(), &wire].concat();
        for piece in [1, wire.len()] {
            let mut world = World::new(Setup { layers: layers(Choosing::new), ..Setup::default() }, |_| ());
            let conn = world.connect();
            for piece in wire.chunks(piece) {
                say(&world, conn, piece);
                world.run_for(1);
            }
            assert_eq!(world.log.count(&Callback::Packet(b"HELLO".into())), 1);
            assert_eq!(world.net().hear_all(conn), wire[1..].to_ascii_uppercase());
            finish(world, conn);
        }
    }
}

#[test]
fn a_framing_that_panics_when_a_layer_sets_it_ends_its_session_and_no_other() {
    let mut world = World::new(Setup { layers: layers(Choosing::new), ..Setup::default() }, |_| ());
    let (bystander, conn) = (world.connect(), world.connect());
    say(&world, conn, b"!\x05hello");
    world.run_for(10);
    world.net().leave(conn);
    say(&world, bystander, b"1\x02hi");
    world.run_for(10);
    assert_eq!(world.net().hear_all(bystander), b"\x02HI");
    assert_eq!(world.metrics().panics, 1);
    finish(world, bystander);
}

#[test]
fn a_layer_is_told_why_the_session_closes_before_it_ends_our_side() {
    let mut world = World::new(Setup { layers: layers(Choosing::new), ..Setup::default() }, |probe| {
        probe.packet = Box::new(|session, packet| {
            match packet {
                b"END" => session.end(),
                packet => session.close_with(String::from_utf8_lossy(packet).into_owned()),
            }
            Ok(())
        });
    });
    for (packet, said) in [(&b"\x03end"[..], "its side ends"), (b"\x04full", "handler: FULL")] {
        let conn = world.connect();
        say(&world, conn, b"1");
        say(&world, conn, packet);
        assert_eq!(hear_to_end(&mut world, conn), Some(said.into()));
        world.net().leave(conn);
        world.run_for(10);
    }
    assert_eq!(kinds(&world), [CloseKind::PeerClosed, CloseKind::Handler]);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_layer_that_fails_by_request_lets_earlier_replies_out_and_ends_behind_them() {
    struct Strict;
    impl Layer for Strict {
        fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
            io.open();
            let (fine, rest) =
                wire.split_at(wire.iter().position(|byte| *byte == b'!').unwrap_or(wire.len()));
            io.plain(fine);
            if !rest.is_empty() {
                io.fail(LayerError::malformed("a mark", rest));
            }
            Ok(fine.len())
        }

        fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
            wire.extend_from_slice(plain);
            Ok(())
        }

        fn end(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
            wire.extend_from_slice(b"bye");
            Ok(())
        }
    }
    let mut world = World::new(Setup { layers: layers(|| Strict), ..Setup::default() }, |_| ());
    let conn = world.connect();
    say(&world, conn, &[&frame(b"hello")[..], b"!more"].concat());
    assert_eq!(hear_to_end(&mut world, conn), Some([&frame(b"hello")[..], b"bye"].concat()));
    assert_eq!(world.log.count(&Callback::End), 0, "it is an error, not the peer's end");
    world.net().end(conn);
    world.run_for(10);
    assert_eq!(kinds(&world), [CloseKind::Layer]);
    finish(world, conn);
}
