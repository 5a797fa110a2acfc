//! Layers between the socket and the framing: handshakes, upgrades, ends, and what may go wrong in them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::layer_contracts::Acting;
use crate::{
    error::{CloseKind, LayerError, RefusalCause},
    events::Events,
    framing::LengthPrefix,
    layer::{Layer, LayerFactories},
    limits::Limits,
    session::SessionHandle,
    sim::{Callback, Conn, Heard, Probe, Setup, World, frame},
    testing::layers::{Scramble, Scrambler, StackedPeer},
};

pub(super) const KEY: u8 = 9;

pub(super) fn layers<L: Layer + 'static>(make: impl Fn() -> L + Send + Sync + 'static) -> LayerFactories {
    let mut layers = LayerFactories::default();
    layers.push(move |_| make());
    layers
}

fn scrambled(limits: Limits, change: impl Fn(&mut Probe)) -> World {
    World::new(Setup { limits, layers: layers(|| Scramble::new(KEY)), ..Setup::default() }, change)
}

pub(super) fn say(world: &World, conn: Conn, bytes: &[u8]) {
    assert_eq!(world.net().say(conn, bytes), bytes.len());
}

/// Runs until the client has heard the end of the stream, or for a minute; what it heard before.
pub(super) fn hear_to_end(world: &mut World, conn: Conn) -> Option<Vec<u8>> {
    let mut heard = Vec::new();
    for _ in 0..60_000 {
        match world.hears(conn) {
            Heard::Bytes(bytes) => heard.extend(bytes),
            Heard::End => return Some(heard),
            Heard::Reset => return None,
            Heard::Nothing => world.run_for(1),
        }
    }
    panic!("no end within a minute");
}

pub(super) fn finish(mut world: World, conn: Conn) {
    world.net().leave(conn);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_session_is_opened_when_its_layers_are_and_not_before() {
    let mut world = scrambled(Limits::default(), |_| ());
    let (conn, mut peer) = (world.connect(), Scrambler::new(KEY));
    for byte in peer.greet() {
        assert_eq!(world.log.count(&Callback::Open), 0);
        say(&world, conn, &[byte]);
        world.run_for(1);
    }
    assert_eq!(world.log.count(&Callback::Open), 1);
    let wire = peer.encode(&frame(b"hello"));
    for byte in wire {
        say(&world, conn, &[byte]);
        world.run_for(1);
    }
    let heard = world.net().hear_all(conn);
    assert_eq!(peer.decode(&heard), frame(b"hello"));
    finish(world, conn);
}

#[test]
fn on_open_knows_what_the_layers_have_found_out() {
    let mut setup = Setup::default();
    (0..3).for_each(|place| setup.layers.push(move |_| StackedPeer::layer(place)));
    let mut world = World::new(setup, |probe| {
        probe.open = Box::new(|session, ()| {
            assert_eq!(session.protocol(), Some(&b"scrambled"[..]));
            Ok(session.send(session.peer_addr().to_string())?)
        });
    });
    let (conn, mut peer) = (world.connect(), StackedPeer::default());
    let mut wire = peer.greet(([192, 0, 2, 7], 4711).into());
    wire.extend(peer.encode(&frame(b"at once")));
    say(&world, conn, &wire);
    world.run_for(10);
    let heard = world.net().hear_all(conn);
    assert_eq!(peer.decode(&heard), [frame(b"192.0.2.7:4711"), frame(b"at once")].concat());
    finish(world, conn);
}

#[test]
fn a_handshake_that_does_not_end_is_cut_at_its_deadline() {
    for said in 0..9 {
        let mut world = scrambled(Limits::default().handshake_timeout(Duration::from_secs(3)), |_| ());
        let conn = world.connect();
        say(&world, conn, &Scrambler::new(KEY).greet()[..said.min(7)]);
        world.run_until(2_990);
        assert_eq!(world.metrics().sessions, 1);
        world.run_until(3_010);
        assert_eq!(world.metrics().refused_total(), 1);
        assert!(hear_to_end(&mut world, conn).is_some());
        assert_eq!(world.log.lines(), []);
        finish(world, conn);
    }
}

#[test]
fn an_error_in_the_handshake_is_told_to_the_peer_before_the_end() {
    let mut world = scrambled(Limits::default(), |_| ());
    let events = Events::new(10, vec![world.registry.hub().clone()]);
    let conn = world.connect();
    say(&world, conn, b"SCR1GET / HTTP/1.1");
    assert_eq!(hear_to_end(&mut world, conn), Some(b"SCR2NO!".to_vec()));
    assert_eq!((world.metrics().refused(RefusalCause::Handshake), world.metrics().opened), (1, 0));
    let told: Vec<_> = events.try_iter().map(|event| event.to_string()).collect();
    assert!(matches!(&told[..], [one] if one.contains(" was refused: handshake: layer: ")), "{told:?}");
    finish(world, conn);
}

#[test]
fn a_peer_that_ends_its_side_in_the_handshake_is_let_go() {
    for said in 0..8 {
        let mut world = scrambled(Limits::default(), |_| ());
        let conn = world.connect();
        say(&world, conn, &Scrambler::new(KEY).greet()[..said]);
        world.net().end(conn);
        assert!(hear_to_end(&mut world, conn).is_some(), "{said}");
        assert_eq!((world.metrics().refused_total(), world.metrics().opened), (1, 0));
        finish(world, conn);
    }
}

#[test]
fn a_shutdown_does_not_wait_for_a_handshake() {
    let mut world = scrambled(Limits::default(), |_| ());
    let conn = world.connect();
    say(&world, conn, b"SCR1");
    world.run_for(5);
    world.shut_down(Duration::from_secs(60));
    assert_eq!(hear_to_end(&mut world, conn), Some(b"SCR2".to_vec()));
    world.net().leave(conn);
    world.run_to_rest();
    assert!(world.now() < 5_000 && world.has_stopped());
    world.assert_empty();
}

#[test]
fn the_goodbye_of_a_layer_goes_out_before_the_end() {
    for stalls in [false, true] {
        let mut world = scrambled(Limits::default(), |probe| {
            probe.packet = Box::new(|session, packet| {
                session.send(packet)?;
                session.close();
                Ok(())
            });
        });
        let (conn, mut peer) = (world.connect(), Scrambler::new(KEY));
        let packet = vec![5; if stalls { 200_000 } else { 10 }];
        let wire = [peer.greet(), peer.encode(&frame(&packet))].concat();
        let mut said = 0;
        while said < wire.len() {
            said += world.net().say(conn, &wire[said..]);
            world.run_for(1);
        }
        let heard = hear_to_end(&mut world, conn).expect("no reset");
        assert_eq!(peer.decode(&heard), frame(&packet));
        assert!(peer.was_ended());
        finish(world, conn);
    }
}

#[test]
fn the_last_block_of_the_peer_is_its_end_though_the_connection_goes_on() {
    let mut world = scrambled(Limits::default(), |_| ());
    let (conn, mut peer) = (world.connect(), Scrambler::new(KEY));
    let wire = [peer.greet(), peer.encode(&frame(b"last")), peer.end(), b"behind it".to_vec()].concat();
    say(&world, conn, &wire);
    let heard = hear_to_end(&mut world, conn).expect("no reset");
    assert_eq!(peer.decode(&heard), frame(b"last"));
    assert!(peer.was_ended());
    world.net().end(conn);
    world.run_to_rest();
    assert_eq!(world.log.closes().iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), [CloseKind::PeerClosed]);
    world.assert_empty();
}

#[test]
fn a_stream_that_is_cut_is_no_end() {
    let wire = {
        let mut peer = Scrambler::new(KEY);
        [peer.greet(), peer.encode(&frame(b"one")), peer.encode(&frame(b"two")), peer.end()].concat()
    };
    for cut in 8..=wire.len() {
        let setup = Setup { layers: layers(|| Scramble::new(KEY).strict()), ..Setup::default() };
        let mut world = World::new(setup, |_| ());
        let (conn, mut peer) = (world.connect(), Scrambler::new(KEY));
        say(&world, conn, &wire[..cut]);
        world.net().end(conn);
        let heard = hear_to_end(&mut world, conn).expect("no reset");
        let frames = peer.decode(&heard).len() / frame(b"one").len();
        assert_eq!(
            frames,
            if cut < 17 {
                0
            } else if cut < 26 {
                1
            } else {
                2
            },
            "{cut}"
        );
        let expected = if cut == wire.len() { CloseKind::PeerClosed } else { CloseKind::Layer };
        assert_eq!(world.log.closes().first().map(|(_, kind)| *kind), Some(expected), "{cut}");
        finish(world, conn);
    }
}

/// Pushes a layer when a packet asks for it, and replies before and after it.
fn upgrading(swap: bool) -> impl Fn(&mut Probe) {
    move |probe: &mut Probe| {
        probe.packet = Box::new(move |session, packet| {
            if packet != b"upgrade" {
                return Ok(session.send(packet)?);
            }
            session.send("plain")?;
            session.push_layer(Scramble::new(KEY));
            if swap {
                session.set_framing(LengthPrefix::u8());
            }
            Ok(session.send("scrambled")?)
        });
    }
}

#[test]
fn bytes_behind_an_upgrade_are_for_the_layer_however_they_come() {
    let mut wire = frame(b"upgrade");
    let mut peer = Scrambler::new(KEY);
    wire.extend(peer.greet());
    wire.extend(peer.encode(b"\x04more"));
    for cut in 0..=wire.len() {
        let mut world = World::new(Setup::default(), upgrading(true));
        let (conn, mut peer) = (world.connect(), Scrambler::new(KEY));
        say(&world, conn, &wire[..cut]);
        world.run_for(5);
        say(&world, conn, &wire[cut..]);
        world.run_for(5);
        let heard = world.net().hear_all(conn);
        let (plain, scrambled) = heard.split_at(frame(b"plain").len());
        assert_eq!(plain, frame(b"plain"), "what was sent before the upgrade is plain, cut at {cut}");
        assert_eq!(peer.decode(scrambled), b"\x09scrambled\x04more", "cut at {cut}");
        finish(world, conn);
    }
}

#[test]
fn an_upgrade_is_cut_at_its_deadline_and_told_to_the_handler() {
    let limits = Limits::default().handshake_timeout(Duration::from_secs(3));
    let mut world = World::new(Setup { limits, ..Setup::default() }, upgrading(false));
    let conn = world.connect();
    say(&world, conn, &frame(b"upgrade"));
    world.run_for(3_100);
    assert_eq!(world.log.closes().len(), 0, "it lingers");
    assert_eq!(world.log.count(&Callback::Closing(CloseKind::Handshake)), 1);
    assert_eq!(hear_to_end(&mut world, conn), Some(frame(b"plain")));
    finish(world, conn);
}

#[test]
fn a_full_outbox_waits_for_a_handshake_and_not_the_other_way_round() {
    let limits = Limits::default().outbox_high(1_000).outbox_low(100);
    let setup = Setup { limits, ..Setup::default() };
    let mut world = World::new(setup, |probe| {
        probe.packet = Box::new(|session, _| {
            session.push_layer(Scramble::new(KEY));
            Ok(session.send([3; 5_000])?)
        });
    });
    let (conn, mut peer) = (world.connect(), Scrambler::new(KEY));
    say(&world, conn, &frame(b"go"));
    world.run_for(5);
    say(&world, conn, &peer.greet());
    world.run_for(5);
    let heard = world.net().hear_all(conn);
    assert_eq!(peer.decode(&heard), frame(&[3; 5_000]));
    assert_eq!(world.log.count(&Callback::Drained), 1);
    finish(world, conn);
}

#[test]
fn a_close_waits_for_the_handshake_that_its_packets_wait_for() {
    for shakes in [true, false] {
        let mut world = World::new(Setup::default(), |probe| {
            probe.packet = Box::new(|session, _| {
                session.push_layer(Scramble::new(KEY));
                session.send("owed")?;
                session.close();
                Ok(())
            });
        });
        let (conn, mut peer) = (world.connect(), Scrambler::new(KEY));
        say(&world, conn, &frame(b"go"));
        world.run_for(5);
        if shakes {
            say(&world, conn, &peer.greet());
        }
        let heard = hear_to_end(&mut world, conn);
        assert_eq!(heard.is_some(), shakes, "what could not be sent is lost, and the peer is told so");
        assert_eq!(peer.decode(&heard.unwrap_or_default()), if shakes { frame(b"owed") } else { Vec::new() });
        finish(world, conn);
    }
}

/// A session in the handshake of an upgrade, and its handle.
fn upgrading_known() -> (World, SessionHandle) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let copy = kept.clone();
    let mut world = World::new(Setup::default(), move |probe| {
        let copy = copy.clone();
        probe.packet = Box::new(move |session, _| {
            copy.lock().expect("nobody panics").push(session.handle());
            session.push_layer(Scramble::new(KEY));
            Ok(())
        });
    });
    let conn = world.connect();
    say(&world, conn, &frame(b"go"));
    world.run_for(5);
    let handle = kept.lock().expect("nobody panics").remove(0);
    (world, handle)
}

#[test]
fn an_abort_in_a_handshake_is_a_reset() {
    let (mut world, handle) = upgrading_known();
    handle.abort().expect("it is open");
    world.run_for(5);
    assert_eq!(world.hears(Conn(0)), Heard::Reset);
    assert_eq!(world.log.closes().iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), [CloseKind::Local]);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_tracked_packet_is_written_when_the_kernel_has_its_last_byte_on_the_wire() {
    let (mut world, handle) = upgrading_known();
    let ticket = handle.send_tracked([1; 100_000]).expect("there is room");
    world.run_for(100);
    assert_eq!(ticket.outcome(), None, "it waits for the handshake");
    let mut peer = Scrambler::new(KEY);
    say(&world, Conn(0), &peer.greet());
    world.run_for(100);
    assert_eq!(ticket.outcome(), None, "the kernel takes 65,536 bytes at once");
    let heard = world.net().hear_all(Conn(0));
    let mut plain = peer.decode(&heard);
    world.run_for(100);
    assert_eq!(ticket.outcome(), Some(Ok(())));
    let heard = world.net().hear_all(Conn(0));
    plain.extend(peer.decode(&heard));
    assert_eq!(plain, frame(&[1; 100_000]));
    finish(world, Conn(0));
}

#[test]
fn a_layer_that_fails_lets_those_below_it_say_goodbye() {
    for is_open in [false, true] {
        let mut setup = Setup { layers: layers(|| Scramble::new(KEY)), ..Setup::default() };
        setup.layers.push(move |_| {
            Acting::new(move |wire, io| {
                if is_open {
                    io.open();
                }
                if wire.is_empty() {
                    return Ok(0);
                }
                io.wire().extend_from_slice(b"403");
                Err(LayerError::malformed("refused", wire))
            })
        });
        let mut world = World::new(setup, |_| ());
        let (conn, mut peer) = (world.connect(), Scrambler::new(KEY));
        say(&world, conn, &[peer.greet(), peer.encode(b"GET")].concat());
        world.run_for(100);
        let heard = hear_to_end(&mut world, conn).unwrap_or_default();
        assert_eq!(peer.decode(&heard), b"403");
        assert!(peer.was_ended(), "nobody has cut it off");
        world.net().end(conn);
        world.run_for(5);
        finish(world, conn);
    }
}
