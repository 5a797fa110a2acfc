//! Streams whose packets find no place in their carrier, and peers that do not take what they are told of streams.

use super::streams::{both_orders, client, frames, world};
use crate::{
    error::CloseKind,
    limits::Limits,
    sim::{
        CarryingSetup, Sizes,
        carrying::{data, open},
    },
};

#[test]
fn a_packet_without_a_place_in_the_carrier_closes_its_stream_alone() {
    let mut world = world(&CarryingSetup::default());
    let conn = client(&mut world, 3);
    world.say(conn, &[data(1, b"unfit"), data(2, b"panic"), data(3, b"fine")]);
    world.run_for(1);
    let mut kinds: Vec<_> = world.log.closes().into_iter().map(|(_, kind)| kind).collect();
    kinds.sort_by_key(|kind| *kind as usize);
    assert_eq!(kinds, [CloseKind::Send, CloseKind::Panicked]);
    let mut heard = frames(&world.hear(conn));
    heard.sort_unstable();
    assert_eq!(heard, [(1, b'c', Vec::new()), (2, b'c', Vec::new()), (3, b'd', b"fine".to_vec())]);
    assert_eq!(world.metrics()[1].panics, 1);
}

#[test]
fn after_a_panic_while_the_end_of_a_stream_is_told_the_others_go_on() {
    let mut world = world(&CarryingSetup::default());
    let conn = client(&mut world, 1);
    world.say(conn, &[open(250), data(250, b"unfit"), data(1, b"fine")]);
    world.run_for(1);
    assert_eq!(frames(&world.hear(conn)), [(1, b'd', b"fine".to_vec())]);
    assert_eq!(world.metrics().map(|metrics| (metrics.sessions, metrics.panics)), [(1, 0), (1, 1)]);
    // Its number is free.
    world.say(conn, &[open(250), data(250, b"again")]);
    world.run_for(1);
    assert_eq!(frames(&world.hear(conn)), [(250, b'd', b"again".to_vec())]);
}

#[test]
fn a_peer_that_opens_streams_without_end_and_reads_nothing_loses_its_connection() {
    both_orders(|setup| {
        let setup = CarryingSetup {
            carriers: Limits::default().outbox_high(4_000).outbox_low(1_000).stall_timeout(None),
            sizes: Sizes { down: 2_000, ..Sizes::default() },
            most: 1,
            ..setup
        };
        let mut world = world(&setup);
        let conn = client(&mut world, 1);
        for _ in 0..200 {
            world.say(conn, &vec![open(2); 1_000]);
            world.run_for(10);
            if world.metrics()[1].sessions == 0 {
                break;
            }
        }
        let [carriers, streams] = world.metrics();
        assert_eq!((carriers.sessions, streams.sessions), (1, 0), "a graceful close of the carrier");
        // It was told of some before it was full, and reads that now; of the others there are as many as may wait.
        let mut told = Vec::new();
        for _ in 0..1_000 {
            told.extend(world.hear(conn));
            world.run_for(1);
        }
        assert_eq!(streams.refused_total() - frames(&told).len() as u64, 65_536);
        world.run_for(60_000);
        let carriers = &world.metrics()[0];
        assert_eq!((carriers.sessions, carriers.closed(CloseKind::StreamBacklog)), (0, 1));
    });
}
