//! Streams that are carried by sessions of another service.

use std::time::Duration;

use crate::{
    Addr, Heartbeat, Origin,
    error::{CloseKind, SendError},
    handler::Then,
    limits::Limits,
    runtime::Stop,
    session::{Session, TimerId},
    sim::{
        Callback, CarryingSetup, CarryingWorld, Conn, Heard, Probe, Sizes,
        carrying::{close, data, open},
    },
};

pub(super) fn world(setup: &CarryingSetup) -> CarryingWorld {
    CarryingWorld::new(setup, |_| ())
}

/// A client with this many open streams.
pub(super) fn client(world: &mut CarryingWorld, streams: u8) -> Conn {
    let conn = world.connect();
    world.run_for(1);
    world.say(conn, &(1..=streams).map(open).collect::<Vec<_>>());
    world.run_for(1);
    conn
}

fn told(world: &CarryingWorld) -> Vec<Callback> {
    world.log.lines().into_iter().map(|(_, _, told)| told).collect()
}

fn packet(payload: &[u8]) -> Callback {
    Callback::Packet(payload.to_vec())
}

/// What a client has heard, frame by frame: stream, letter, payload.
pub(super) fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let (packet, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
        frames.push((packet[0], packet[1], packet[2..].to_vec()));
        bytes = rest;
    }
    frames
}

pub(super) fn both_orders(mut scene: impl FnMut(CarryingSetup)) {
    for carriers_last in [false, true] {
        scene(CarryingSetup { carriers_last, ..CarryingSetup::default() });
    }
}

#[test]
fn a_stream_is_a_session_that_is_served_in_the_turn_in_which_its_carrier_reads() {
    both_orders(|setup| {
        let mut world = world(&setup);
        let conn = client(&mut world, 2);
        world.say(conn, &[data(1, b"one"), data(2, b""), data(1, b"two"), data(1, b"three")]);
        let turns = world.metrics().map(|metrics| metrics.turns);
        world.turn();
        assert_eq!(world.metrics().map(|metrics| metrics.turns), turns.map(|turns| turns + 1));
        let expected = [data(1, b"one"), data(1, b"two"), data(1, b"three"), data(2, b"")];
        let mut heard = frames(&world.hear(conn));
        heard.sort_by_key(|(stream, ..)| *stream);
        assert_eq!(heard, frames(&expected.concat()));
        let [open, one] = [Callback::Open, packet(b"one")];
        assert_eq!(told(&world)[..4], [open.clone(), open, one, packet(b"")]);
        let [carriers, streams] = world.metrics();
        assert_eq!((streams.sessions, streams.opened, streams.accepted), (2, 2, 2));
        assert_eq!((streams.packets_in, streams.bytes_in), (4, 11));
        assert_eq!((streams.packets_out, streams.bytes_out, streams.buffered), (4, 11, 0));
        assert_eq!((carriers.sessions, carriers.wakeups, streams.wakeups), (1, 0, 0));
    });
}

#[test]
fn a_stream_knows_its_carrier_its_peer_and_its_tag() {
    let mut world = CarryingWorld::new(&CarryingSetup::default(), |probe| {
        probe.open = Box::new(|session, ()| {
            let Origin::Carried { carrier, stream, tag } = session.origin() else { panic!("not carried") };
            let Addr::Stream { carrier: addr, peer } = session.peer_addr() else { panic!("no stream") };
            assert_eq!((stream, tag, peer), (5, 9, 7));
            assert!(addr.socket_addr().is_some() && carrier != session.id());
            assert_eq!(session.peer_addr().to_string(), format!("{addr}#7"));
            Ok(session.send("known")?)
        });
    });
    let conn = world.connect();
    world.run_for(1);
    world.say(conn, &[open(5)]);
    world.run_for(1);
    assert_eq!(world.hear(conn), data(5, b"known"));
}

#[test]
fn a_close_sends_what_is_queued_tells_the_peer_and_waits_for_nobody() {
    both_orders(|setup| {
        let mut world = CarryingWorld::new(&setup, |probe| {
            probe.packet = Box::new(|session, packet| {
                session.send(packet)?;
                session.close();
                assert_eq!(session.send("late"), Err(SendError::Closed));
                Ok(())
            });
        });
        let conn = client(&mut world, 1);
        world.say(conn, &[data(1, b"bye"), data(1, b"not handed out")]);
        world.turn();
        assert_eq!(world.hear(conn), [data(1, b"bye"), close(1)].concat());
        assert_eq!(
            told(&world),
            [
                Callback::Open,
                packet(b"bye"),
                Callback::Closing(CloseKind::Local),
                Callback::Close(CloseKind::Local)
            ]
        );
        world.assert_no_streams();
        // What comes for it is dropped, and its number can be used again.
        world.say(conn, &[data(1, b"dropped"), close(1), open(1), data(1, b"anew")]);
        world.turn();
        assert_eq!(world.hear(conn), [data(1, b"anew"), close(1)].concat());
        assert_eq!(world.metrics()[0].sessions, 1, "the carrier stays");
    });
}

#[test]
fn a_peer_that_ends_a_stream_is_told_nothing_more() {
    both_orders(|setup| {
        let mut world = CarryingWorld::new(&setup, |probe| {
            probe.end = Box::new(|session, ()| {
                session.send("farewell")?;
                Ok(Then::Stay)
            });
        });
        let conn = client(&mut world, 2);
        world.say(conn, &[data(1, b"last"), close(1), data(2, b"other")]);
        world.run_for(1);
        assert_eq!(frames(&world.hear(conn)), [(2, b'd', b"other".to_vec())], "what it has sent is lost");
        assert_eq!(world.log.closes(), [(world.now() - 1, CloseKind::PeerClosed)]);
        assert_eq!(world.log.count(&packet(b"last")), 1);
        assert_eq!(world.log.count(&Callback::End), 1);
        assert_eq!(world.metrics()[1].sessions, 1);
    });
}

#[test]
fn a_paused_stream_gets_what_has_come_and_then_its_end_when_it_resumes() {
    let mut world = CarryingWorld::new(&CarryingSetup::default(), |probe| {
        probe.open = Box::new(|session, ()| {
            session.pause();
            session.set_timer(TimerId(1), Duration::from_secs(60))?;
            Ok(())
        });
        probe.timer = Box::new(|session, _| {
            session.resume();
            Ok(())
        });
    });
    let conn = client(&mut world, 1);
    world.say(conn, &[data(1, b"one"), data(1, b"two"), close(1), open(1)]);
    world.run_for(59_000);
    assert_eq!(told(&world), [Callback::Open, Callback::Open], "the number is in use again");
    world.run_for(1_000);
    let expected = [packet(b"one"), packet(b"two"), Callback::End];
    assert_eq!(told(&world)[3..6], expected, "{:?}", told(&world));
    let kinds: Vec<_> = world.log.closes().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [CloseKind::PeerClosed]);
    assert!(world.hear(conn).is_empty());
}

#[test]
fn all_streams_end_with_their_carrier_each_once() {
    both_orders(|setup| {
        for how in 0..3 {
            let mut world = world(&setup);
            let (gone, stays) = (client(&mut world, 50), client(&mut world, 1));
            world.say(gone, &[data(3, b"last")]);
            match how {
                0 => world.network.lock().end(gone),
                1 => world.network.lock().reset(gone),
                _ => world.say(gone, &[b"\0\0\0\x01?".to_vec()]),
            }
            world.run_for(10);
            let kinds: Vec<_> = world.log.closes().into_iter().map(|(_, kind)| kind).collect();
            assert_eq!(kinds, [CloseKind::CarrierLost; 50]);
            world.say(stays, &[data(1, b"still there")]);
            world.run_for(1);
            assert_eq!(world.hear(stays), data(1, b"still there"));
            world.network.lock().end(stays);
            world.run_for(10);
            world.assert_no_streams();
        }
    });
}

#[test]
fn a_carrier_that_does_not_take_fills_the_outboxes_of_its_streams_and_nothing_else() {
    both_orders(|setup| {
        let setup = CarryingSetup {
            carriers: Limits::default().outbox_high(4_000).outbox_low(1_000),
            streams: Limits::default().outbox_high(2_000).outbox_low(500).outbox_hard(10_000),
            sizes: Sizes { down: 2_000, ..Sizes::default() },
            ..setup
        };
        let mut full = 0;
        let mut world = CarryingWorld::new(&setup, move |probe| {
            probe.packet = Box::new(move |session, packet| {
                if packet != b"flood" {
                    return Ok(session.send(packet)?);
                }
                for number in 0_u32.. {
                    match session.send([&number.to_be_bytes()[..], &[7; 996]].concat()) {
                        Ok(()) => {}
                        Err(SendError::Full { .. }) => break,
                        Err(error) => return Err(error.into()),
                    }
                    full = number;
                }
                assert_eq!(full, 8, "with 4 bytes for each, 9 packets of 1,000 bytes are below 10,000");
                Ok(())
            });
        });
        let (slow, other) = (client(&mut world, 3), client(&mut world, 1));
        world.say(slow, &[data(1, b"flood"), data(2, b"flood"), data(3, b"flood")]);
        world.run_for(10);
        world.say(other, &[data(1, b"served")]);
        world.run_for(1);
        assert_eq!(world.hear(other), data(1, b"served"));
        assert!(world.metrics()[0].queued < 8_000 && world.metrics()[1].queued > 15_000);
        let mut heard = Vec::new();
        for _ in 0..100 {
            heard.extend(world.hear(slow));
            world.run_for(1);
        }
        let mut next = [0_u32; 4];
        let mut last_of_first = 0;
        for (at, (stream, letter, payload)) in frames(&heard).into_iter().enumerate() {
            assert_eq!((letter, payload.len()), (b'd', 1_000));
            assert_eq!(payload[..4], next[usize::from(stream)].to_be_bytes(), "in order");
            next[usize::from(stream)] += 1;
            if stream == 1 {
                last_of_first = at;
            }
        }
        assert_eq!(next, [0, 9, 9, 9]);
        assert!(last_of_first > 12, "no stream has all before the others have any: {last_of_first}");
        assert_eq!(world.log.count(&Callback::Drained), 3);
        assert_eq!((world.metrics()[1].sessions, world.metrics()[1].buffered), (4, 0));
    });
}

#[test]
fn a_carrier_that_is_full_is_read_so_that_two_of_them_never_wait_for_each_other() {
    let setup = CarryingSetup {
        carriers: Limits::default().outbox_high(4_000).outbox_low(1_000),
        streams: Limits::default().outbox_high(2_000).outbox_low(500),
        inbox: 20_000,
        sizes: Sizes { down: 2_000, ..Sizes::default() },
        ..CarryingSetup::default()
    };
    let mut world = world(&setup);
    let conn = client(&mut world, 2);
    // It asks without reading: what it asks waits in the outbox of the stream, and in its inbox.
    for _ in 0..200 {
        world.say(conn, &[data(1, &[3; 100])]);
        world.run_for(1);
        assert_eq!(world.network.lock().unread(conn), 0, "the carrier is read");
    }
    assert_eq!(world.metrics()[1].sessions, 2);
    assert!(world.metrics()[1].buffered < 40_000);
    let mut heard = Vec::new();
    for _ in 0..200 {
        heard.extend(world.hear(conn));
        world.run_for(1);
    }
    assert_eq!(heard, data(1, &[3; 100]).repeat(200));
    for _ in 0..400 {
        world.say(conn, &[data(1, &[3; 100])]);
        world.run_for(1);
    }
    assert_eq!(world.log.count(&Callback::Closing(CloseKind::InboxFull)), 1, "the stream that overflows");
    heard.clear();
    world.say(conn, &[data(2, b"served")]);
    for _ in 0..50 {
        heard.extend(world.hear(conn));
        world.run_for(1);
    }
    assert!(frames(&heard).contains(&(2, b'd', b"served".to_vec())), "and no other");
}

#[test]
fn a_stream_that_takes_no_packets_is_closed_beyond_its_inbox_and_the_others_go_on() {
    let setup = CarryingSetup { inbox: 1_000, ..CarryingSetup::default() };
    let mut world = CarryingWorld::new(&setup, |probe| {
        probe.packet = Box::new(|session, packet| {
            if packet == b"pause" {
                session.pause();
            }
            Ok(session.send(packet)?)
        });
    });
    let conn = client(&mut world, 3);
    world.say(conn, &[data(1, b"pause"), data(2, b"pause"), data(1, &[1; 900]), data(2, &[2; 5_000])]);
    world.run_for(1);
    assert_eq!(world.metrics()[1].sessions, 3, "a single packet may be longer");
    world.say(conn, &[data(1, &[1; 92]), data(3, b"others")]);
    world.run_for(1);
    assert_eq!(world.metrics()[1].sessions, 3, "exactly what may wait");
    world.say(conn, &[data(1, b""), data(2, b""), data(3, b"others")]);
    world.run_for(1);
    let kinds: Vec<_> = world.log.closes().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [CloseKind::InboxFull; 2]);
    let heard: Vec<_> =
        frames(&world.hear(conn)).into_iter().map(|(stream, letter, _)| (stream, letter)).collect();
    let expected = [(1, b'd'), (2, b'd'), (3, b'd'), (1, b'c'), (2, b'c'), (3, b'd')];
    let sorted = |mut seen: Vec<_>| {
        seen.sort_unstable();
        seen
    };
    assert_eq!(sorted(heard), sorted(expected.to_vec()));
    assert_eq!(world.metrics()[1].sessions, 1);
}

#[test]
fn streams_beyond_the_limit_and_those_that_are_not_wanted_are_closed_at_once() {
    let setup = CarryingSetup { most: 2, ..CarryingSetup::default() };
    let mut world = CarryingWorld::new(&setup, |probe| {
        probe.open = Box::new(|session: &mut Session<'_>, ()| {
            if let Origin::Carried { stream: 9, .. } = session.origin() {
                session.send("no")?;
                return Err(crate::Failure::because("not this one"));
            }
            Ok(())
        });
    });
    let conn = client(&mut world, 3);
    assert_eq!(world.hear(conn), close(3));
    assert_eq!(world.metrics()[1].refused_total(), 1);
    world.say(conn, &[close(1), open(9), data(9, b"it was refused")]);
    world.run_for(1);
    world.say(conn, &[open(4), data(4, b"there is room")]);
    world.run_for(1);
    assert_eq!(
        frames(&world.hear(conn)),
        frames(&[data(9, b"no"), close(9), data(4, b"there is room")].concat())
    );
    assert_eq!(world.metrics()[1].refused_total(), 2);
}

#[test]
fn at_a_shutdown_streams_say_farewell_before_their_carriers_close() {
    both_orders(|setup| {
        let mut world = CarryingWorld::new(&setup, |probe| {
            probe.shutdown = Box::new(|session, ()| {
                session.send("farewell")?;
                session.set_timer(TimerId(1), Duration::from_millis(20))?;
                Ok(Then::Stay)
            });
            probe.timer = Box::new(|session, _| {
                session.close();
                Ok(())
            });
        });
        let conn = client(&mut world, 2);
        world.registries.iter().for_each(|registry| registry.stop(Stop::Within(Duration::from_secs(1))));
        world.run_for(10);
        let farewell = [data(1, b"farewell"), data(2, b"farewell")].concat();
        assert_eq!((world.hear(conn), world.hears(conn)), (farewell, Heard::Nothing));
        world.run_for(20);
        let mut closes = frames(&world.hear(conn));
        closes.sort_unstable();
        assert_eq!(closes, frames(&[close(1), close(2)].concat()));
        assert_eq!(world.hears(conn), Heard::End);
        world.network.lock().leave(conn);
        world.run_for(10);
        assert!(matches!(world.ended, Some(Ok(()))), "{:?}", world.ended);
        let kinds = world.log.closes().into_iter().map(|(_, kind)| kind);
        assert_eq!(kinds.collect::<Vec<_>>(), [CloseKind::Local; 2]);
        assert_eq!(world.carriers.closes().len(), 1);
        world.assert_no_streams();
        assert_eq!(world.network.lock().streams(), 0);
    });
}

#[test]
fn streams_are_stopped_alone_and_no_more_are_opened() {
    both_orders(|setup| {
        let mut world = world(&setup);
        let conn = client(&mut world, 2);
        world.registries[1].stop(Stop::Within(Duration::from_secs(1)));
        world.run_for(5);
        let mut closes = frames(&world.hear(conn));
        closes.sort_unstable();
        assert_eq!(closes, frames(&[close(1), close(2)].concat()));
        assert!(world.registries[1].shards().is_empty() && world.ended.is_none());
        world.say(conn, &[open(3), data(1, b"nobody"), close(1)]);
        world.run_for(5);
        assert_eq!(frames(&world.hear(conn)), [(3, b'x', Vec::new())]);
        world.log.assert_balanced(true);
        world.registries[0].stop(Stop::Within(Duration::from_secs(1)));
        world.network.lock().end(conn);
        world.run_for(10);
        assert!(matches!(world.ended, Some(Ok(()))), "{:?}", world.ended);
    });
}

#[test]
fn streams_outlive_the_carriers_service_by_nothing() {
    both_orders(|setup| {
        let mut world = world(&setup);
        client(&mut world, 5);
        world.registries[0].stop(Stop::Now);
        world.run_for(5);
        let kinds = world.log.closes().into_iter().map(|(_, kind)| kind);
        assert_eq!(kinds.collect::<Vec<_>>(), [CloseKind::CarrierLost; 5]);
        world.assert_no_streams();
        world.registries[1].stop(Stop::Now);
        world.run_for(5);
        assert!(matches!(world.ended, Some(Ok(()))), "{:?}", world.ended);
    });
}

#[test]
fn timers_heartbeats_and_idle_timeouts_run_as_for_connections() {
    let setup = CarryingSetup {
        streams: Limits::default().idle_timeout(Duration::from_millis(250)),
        ..CarryingSetup::default()
    };
    let mut world = CarryingWorld::new(&setup, |probe: &mut Probe| {
        probe.open = Box::new(|session, ()| {
            session.set_heartbeat(Heartbeat::every(Duration::from_millis(100), "beat")?);
            Ok(())
        });
    });
    let conn = client(&mut world, 1);
    world.run_for(300);
    let heard = frames(&world.hear(conn));
    assert_eq!(heard.len(), 3, "two beats and a close: {heard:?}");
    assert_eq!(heard[0], (1, b'd', b"beat".to_vec()));
    assert_eq!(heard[2], (1, b'c', Vec::new()));
    let kinds = world.log.closes().into_iter().map(|(_, kind)| kind);
    assert_eq!(kinds.collect::<Vec<_>>(), [CloseKind::Idle]);
    world.assert_no_streams();
}
