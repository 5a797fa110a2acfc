//! Layers pushed at odd moments, and what waits for their handshakes.

use std::time::Duration;

use bytes::BytesMut;

use super::{
    layer_contracts::{Acting, busy_turn, kinds, panic_on_purpose},
    layers::{KEY, finish, hear_to_end, layers, say},
};
use crate::{
    ShardContext,
    contained::Contained,
    error::{CloseKind, LayerError},
    layer::{Layer, LayerIo},
    limits::Limits,
    session::TimerId,
    shard::{Command, Job},
    sim::{Callback, Setup, World, frame},
    testing::layers::{Scramble, Scrambler},
};

#[test]
fn a_stalled_peer_is_found_although_a_layer_was_pushed_meanwhile() {
    let limits = Limits::default().stall_timeout(Duration::from_secs(5));
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.down = 1_000;
    let mut world = World::new(setup, |probe| {
        probe.packet = Box::new(|session, packet| {
            match packet {
                b"upgrade" => session.push_layer(Scramble::new(KEY)),
                _ => session.send([7; 5_000])?,
            }
            Ok(())
        });
    });
    let conn = world.connect();
    say(&world, conn, &frame(b"go"));
    world.run_for(10);
    say(&world, conn, &[frame(b"upgrade"), Scrambler::new(KEY).greet()].concat());
    world.run_for(6_000);
    assert_eq!(kinds(&world), [CloseKind::Stalled]);
    finish(world, conn);
}

#[test]
fn a_peer_that_leaves_in_the_handshake_that_a_close_waits_for_ends_the_wait() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.packet = Box::new(|session, _| {
            session.push_layer(Scramble::new(KEY));
            session.send("owed")?;
            session.close();
            Ok(())
        });
    });
    let conn = world.connect();
    say(&world, conn, &frame(b"go"));
    world.run_for(5);
    world.net().end(conn);
    world.run_for(100);
    assert_eq!((world.metrics().sessions, kinds(&world)), (0, vec![CloseKind::Local]));
    finish(world, conn);
}

#[test]
fn a_layer_is_not_pushed_into_the_middle_of_a_packet() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.open = Box::new(|session, ()| Ok(session.set_timer(TimerId(1), Duration::from_millis(50))?));
        probe.timer = Box::new(|session, _| {
            session.push_layer(Scramble::new(KEY));
            Ok(())
        });
    });
    let (whole, part) = (world.connect(), world.connect());
    say(&world, whole, &frame(b"hello"));
    say(&world, part, &frame(b"hello")[..7]);
    world.run_for(60);
    say(&world, whole, &Scrambler::new(KEY).greet());
    world.run_for(10);
    assert_eq!(world.log.count(&Callback::Closing(CloseKind::Layer)), 1);
    assert!(hear_to_end(&mut world, part).is_some_and(|heard| heard.is_empty()));
    world.net().leave(part);
    world.run_for(5);
    assert_eq!(world.metrics().sessions, 1);
    finish(world, whole);
}

#[test]
fn a_handshake_has_no_deadline_while_the_handler_has_paused_it() {
    let limits = Limits::default().handshake_timeout(Duration::from_secs(3));
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        probe.packet = Box::new(|session, packet| {
            if packet != b"upgrade" {
                return Ok(session.send(packet)?);
            }
            session.push_layer(Scramble::new(KEY));
            session.pause();
            Ok(session.set_timer(TimerId(1), Duration::from_secs(20))?)
        });
        probe.timer = Box::new(|session, _| {
            session.resume();
            Ok(())
        });
    });
    let (answers, silent) = (world.connect(), world.connect());
    let mut peer = Scrambler::new(KEY);
    say(&world, silent, &frame(b"upgrade"));
    say(&world, answers, &frame(b"upgrade"));
    world.run_for(5);
    say(&world, answers, &[peer.greet(), peer.encode(&frame(b"patient"))].concat());
    world.run_until(20_100);
    let heard = world.net().hear_all(answers);
    assert_eq!(peer.decode(&heard), frame(b"patient"));
    world.run_until(22_900);
    assert_eq!(world.log.count(&Callback::Closing(CloseKind::Handshake)), 0);
    world.run_until(23_100);
    assert_eq!(world.log.count(&Callback::Closing(CloseKind::Handshake)), 1, "the other one");
    world.net().leave(silent);
    finish(world, answers);
}

#[test]
fn a_handshake_that_is_always_busy_is_cut_all_the_same() {
    let limits = Limits::default().handshake_timeout(Duration::from_secs(3));
    let busy = || Acting::new(|wire, _| Ok(wire.len().min(1)));
    let mut world = World::new(Setup { limits, layers: layers(busy), ..Setup::default() }, |_| ());
    let conn = world.connect();
    while world.metrics().refused_total() == 0 {
        assert!(world.now() < 6_100, "it is never cut");
        let mut net = world.net();
        net.say(conn, &[0; 1_000]);
        net.pass(1);
        drop(net);
        busy_turn(&mut world);
    }
    finish(world, conn);
}

#[test]
fn a_close_that_waits_for_a_handshake_reads_no_more_than_the_peer_does() {
    let limits = Limits::default().outbox_high(10_000).outbox_low(1_000);
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.down = 1_000;
    let mut world = World::new(setup, |probe| {
        probe.packet = Box::new(|session, _| {
            session.push_layer(Acting::new(|wire, io| {
                io.wire().extend_from_slice(wire);
                Ok(wire.len())
            }));
            session.send("owed")?;
            session.close();
            Ok(())
        });
    });
    let conn = world.connect();
    say(&world, conn, &frame(b"go"));
    world.run_for(5);
    let mut most = 0;
    for _ in 0..500 {
        world.net().say(conn, &[0; 10_000]);
        world.run_for(1);
        most = most.max(world.metrics().buffered);
    }
    assert!((10_000..300_000).contains(&most), "{most}");
    finish(world, conn);
}

/// Cannot carry what is sent before a layer is pushed.
struct Fails;

impl Layer for Fails {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        io.open();
        Ok(io.plain(wire))
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        if plain.ends_with(b"!") {
            panic_on_purpose();
        }
        wire.extend_from_slice(plain);
        Ok(())
    }
}

#[test]
fn a_layer_that_panics_while_a_job_pushes_another_ends_its_own_session_only() {
    let mut world = World::new(Setup { layers: layers(|| Fails), ..Setup::default() }, |_| ());
    let conns = [(); 3].map(|()| world.connect());
    world.run_for(5);
    let job: Box<dyn FnOnce(&mut ShardContext<'_>) + Send> = Box::new(|shard| {
        let mut texts = ["first", "second!", "third"].into_iter();
        shard.each(|session, ()| {
            session.send(texts.next().unwrap_or_default()).expect("there is room");
            session.push_layer(Acting::passing());
        });
    });
    world.post(0, Command::Execute(Contained::new(Job::Plain(job))));
    world.run_for(5);
    assert_eq!(world.net().hear_all(conns[0]), frame(b"first"));
    assert_eq!(world.net().hear_all(conns[2]), frame(b"third"));
    say(&world, conns[2], &frame(b"still there"));
    assert_eq!(world.expect(conns[2], 15), frame(b"still there"));
    assert_eq!(world.metrics().panics, 1);
    assert_eq!(world.log.count(&Callback::Closing(CloseKind::Panicked)), 1);
    for conn in conns {
        world.net().leave(conn);
    }
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_layer_pushed_when_a_session_opens_gets_all_that_was_received() {
    for first in [false, true] {
        let mut setup = Setup::default();
        if first {
            setup.layers.push(|_| Acting::passing());
        }
        let mut world = World::new(setup, |probe| {
            probe.open = Box::new(|session, ()| {
                session.push_layer(Scramble::new(KEY));
                session.push_layer(Scramble::new(KEY));
                Ok(session.send("welcome")?)
            });
        });
        let (conn, mut outer, mut inner) = (world.connect(), Scrambler::new(KEY), Scrambler::new(KEY));
        let mut plain = inner.greet();
        plain.extend(inner.encode(&frame(b"hello")));
        say(&world, conn, &[outer.greet(), outer.encode(&plain)].concat());
        world.run_for(10);
        let heard = world.net().hear_all(conn);
        let heard = inner.decode(&outer.decode(&heard));
        assert_eq!(heard, [frame(b"welcome"), frame(b"hello")].concat());
        finish(world, conn);
    }
}
