//! What a beat is on the wire: a packet like any other, by the framing and the layers that the session has by then.

use super::{
    heartbeats::{beat, ms, only_close, opening, opening_with},
    layers::{KEY, layers},
};
use crate::{
    Heartbeat,
    error::{CloseKind, SendError},
    framing::{FixedLength, Raw},
    limits::Limits,
    sim::{Setup, frame},
    testing::layers::{Scramble, Scrambler},
};

#[test]
fn beats_go_through_layers_and_not_before_these_are_open() {
    let limits = Limits::default();
    let setup = Setup { limits, layers: layers(|| Scramble::new(KEY)), ..Setup::default() };
    let mut world = opening_with(setup, |session| session.set_heartbeat(beat(100).lost_after(1)), |_| ());
    let (conn, mut peer) = (world.connect(), Scrambler::new(KEY));
    world.run_until(1_000);
    let greeting = peer.greet();
    world.net().say(conn, &greeting);
    world.run_until(1_150);
    let wire = world.net().hear_all(conn);
    assert_eq!(peer.decode(&wire), frame(b"beat"));
    world.run_until(1_250);
    assert_eq!(only_close(&world), (1_200, CloseKind::HeartbeatLost));
    world.net().leave(conn);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn beats_wait_for_no_handshake_of_a_layer_pushed_in_mid_stream() {
    let mut world = opening_with(
        Setup::default(),
        |session| session.set_heartbeat(beat(100)),
        |probe| {
            probe.packet = Box::new(|session, _| {
                session.push_layer(Scramble::new(KEY));
                Ok(())
            });
        },
    );
    let (conn, mut peer) = (world.connect(), Scrambler::new(KEY));
    world.net().say(conn, &frame(b"upgrade"));
    world.run_until(1_050);
    assert_eq!(world.metrics().packets_out, 0, "none is queued behind the handshake");
    let greeting = peer.greet();
    world.net().say(conn, &greeting);
    world.run_until(1_250);
    let wire = world.net().hear_all(conn);
    assert_eq!(peer.decode(&wire), [frame(b"beat"), frame(b"beat")].concat());
    world.net().leave(conn);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_beat_has_the_framing_that_the_session_has_by_then() {
    let mut world = opening(Limits::default(), |session| {
        session.set_heartbeat(beat(100));
        session.set_framing(Raw::new());
    });
    let conn = world.connect();
    world.run_until(150);
    assert_eq!(world.net().hear_all(conn), b"beat");
}

#[test]
fn a_beat_that_cannot_be_framed_ends_the_session_and_says_so() {
    let mut world = opening(Limits::default(), |session| {
        session.set_heartbeat(beat(100));
        session.set_framing(FixedLength::new(7).expect("a length"));
    });
    world.connect();
    world.run_until(150);
    assert_eq!(only_close(&world), (100, CloseKind::Send));
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_beat_longer_than_the_outbox_allows_ends_the_session() {
    let big = Heartbeat::every(ms(100), [7; 2_000]).expect("the period is possible");
    let limits = Limits::default().outbox_low(100).outbox_high(500).outbox_hard(1_000);
    let mut world = opening(limits, move |session| {
        session.set_heartbeat(big.clone());
        let full = session.send([7; 2_000]);
        assert!(matches!(full, Err(SendError::Full { .. })), "{full:?}");
    });
    world.connect();
    world.run_until(150);
    assert_eq!(only_close(&world), (100, CloseKind::Send));
    world.run_to_rest();
    world.assert_empty();
}
