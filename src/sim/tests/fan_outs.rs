//! What many sessions are sent: encoded once, held once, and written to each of them as soon as that is possible.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    Channel, Left,
    error::CloseKind,
    limits::Limits,
    sim::{
        Call, Callback, Faults, Heard, Rng, Setup, World, frame,
        tests::broadcast::{budget, heard, with_handles},
    },
    time::{MAX_STRIDE, Tick},
};

/// Clients that take no more than so many bytes before they read.
fn narrow(bytes: usize, limits: Limits) -> Setup {
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.down = bytes;
    setup
}

#[test]
fn a_broadcast_to_15_000_sessions_delays_no_packet_of_another_by_more_than_2_ms() {
    let mut world = World::new(Setup::default(), |_| ());
    let conns: Vec<_> = (0..15_000).map(|_| world.connect()).collect();
    world.run_for(1);
    assert_eq!(world.metrics().sessions, 15_000);
    // About 3 µs for each, as on a real network.
    world.net().sends_per_ms = 300;
    let from = world.now();
    for packet in [b"one", b"two"] {
        assert_eq!(world.broadcast(packet), Ok(1));
        assert_eq!(world.broadcast_where(packet, |_| true), Ok(1));
    }
    // Every millisecond another one of them says something, which is echoed as soon as it is read.
    let asks: Vec<(Tick, u8)> = (0..100).map(|n| (from + 1 + Tick::from(n), n)).collect();
    for (at, n) in asks.clone() {
        let conn = conns[usize::from(n) * 149 + 1];
        world.net().at(at, move |net| assert_eq!(net.say(conn, &frame(&[n])), 5));
    }
    world.run_to_rest();
    for (at, n) in asks {
        let read = world.log.times(&Callback::Packet(vec![n]));
        assert_eq!(read.len(), 1);
        assert!(read[0] - at <= 2, "packet {n} has waited for {} ms", read[0] - at);
    }
    assert!(world.now() - from >= 100, "the broadcasts took as long as that");
    assert_eq!(world.metrics().packets_out, 4 * 15_000 + 100);
}

#[test]
fn a_turn_spends_no_more_than_1_ms_on_fan_outs_however_many_there_are() {
    const PER_MS: u64 = 300;
    let (mut world, _conns, _) = with_handles(Setup::default(), 2_000);
    world.net().sends_per_ms = PER_MS;
    // They are not merged: a predicate may change its mind.
    (0..3).for_each(|n| assert_eq!(world.broadcast_where(&[n], |_| true), Ok(1)));
    let (mut sent, mut turns) = (0, 0);
    while sent < 3 * 2_000 && turns < 1_000 {
        world.turn();
        let before = std::mem::replace(&mut sent, world.metrics().packets_out);
        // The clock is read every so many visits.
        let most = PER_MS + u64::from(MAX_STRIDE);
        assert!(sent - before <= most, "{} in turn {turns}", sent - before);
        turns += 1;
    }
    assert_eq!(sent, 3 * 2_000, "it comes to its end");
}

#[test]
fn of_ten_thousand_sessions_a_broadcast_reaches_all_but_those_that_close_once_and_holds_one_copy() {
    let limits = Limits::default().outbox_low(4_000).outbox_high(8_000).outbox_hard(9_000);
    let mut world = World::new(narrow(2_500, limits), |probe| probe.quiet = true);
    let conns: Vec<_> = (0..10_000).map(|_| world.connect()).collect();
    world.run_for(1);
    assert_eq!(world.metrics().sessions, 10_000);
    // Every hundredth is stalled, every hundredth closes.
    let (mut got, mut closing) = (vec![Vec::new(); conns.len()], 0);
    let packets: Vec<Vec<u8>> = (0..8).map(|n| vec![n; 1_996]).collect();
    for (round, packet) in packets.iter().enumerate() {
        assert_eq!(world.broadcast(packet), Ok(1));
        for (at, conn) in conns.iter().enumerate().skip(1 + round).step_by(800) {
            closing += 1;
            if at % 2 == 0 { world.net().end(*conn) } else { world.net().reset(*conn) }
        }
        world.turn();
        while world.metrics().mailbox > 0 {
            world.turn();
        }
        for (at, conn) in conns.iter().enumerate().filter(|(at, _)| at % 100 != 0) {
            got[at].extend(world.net().hear_all(*conn));
        }
        let (held, alone) = (world.metrics().shared as usize, world.metrics().buffered as usize);
        assert!(held <= 8 * 2 * 2_000, "{held} bytes are shared: no more than one copy of each packet");
        assert!(alone < 100 * 1_000, "{alone} bytes for those that are stalled");
    }
    world.run_for(1);
    let all: Vec<u8> = packets.iter().flat_map(|packet| frame(packet)).collect();
    for (at, got) in got.iter().enumerate().filter(|(at, _)| at % 100 != 0) {
        let closes = (1..=8).contains(&(at % 800));
        assert!(if closes { all.starts_with(got) } else { all == *got }, "{at} got {} bytes", got.len());
    }
    // 2,500 bytes are with the network, and 4 packets and a part wait.
    let slow = world.log.count(&Callback::Closing(CloseKind::Send));
    assert_eq!((slow, closing), (100, 104), "stalled, and closed for it; closed by their peers");
    for conn in conns.iter().step_by(100) {
        let mut heard = Vec::new();
        while let Heard::Bytes(bytes) = world.hears(*conn) {
            heard.extend(bytes);
            world.turn();
        }
        assert!(heard.len() >= 5 * 2_000 && all.starts_with(&heard) && heard.len() % 2_000 == 0);
    }
    world.run_for(10);
    assert_eq!((world.metrics().shared, world.metrics().buffered), (0, 0));
    world.abort();
    world.run_to_rest();
    world.assert_gone();
}

#[test]
fn a_session_with_nothing_to_write_gets_a_broadcast_in_one_write_and_keeps_no_memory_for_it() {
    let (mut world, conns, handles) = with_handles(budget(4_096, 1 << 30), 50);
    let room = Channel::new();
    handles.iter().for_each(|handle| assert_eq!(room.join(handle), Ok(())));
    let before = world.net().calls.of(Call::Send);
    // Those that wait together share one write.
    for packet in [&[1; 100][..], &[2; 20_000], b"", &[3; 10]] {
        assert_eq!(world.broadcast(packet), Ok(1));
    }
    world.turn();
    assert_eq!(world.net().calls.of(Call::Send) - before, 50);
    for packet in [&[1; 100][..], &[2; 20_000], b"", &[3; 10]] {
        assert_eq!(room.publish(packet), Ok(50));
    }
    world.turn();
    assert_eq!(world.net().calls.of(Call::Send) - before, 100);
    let metrics = world.metrics();
    assert_eq!((metrics.shared, metrics.buffered, metrics.pooled), (0, 0, 0));
    let all = [frame(&[1; 100]), frame(&[2; 20_000]), frame(b""), frame(&[3; 10])].concat().repeat(2);
    assert!(heard(&world, &conns).iter().all(|heard| *heard == all));
    assert_eq!(world.metrics().packets_out, 50 * 8);
}

#[test]
fn only_the_one_that_is_left_out_of_a_merged_packet_does_not_get_it() {
    let (mut world, conns, handles) = with_handles(Setup::default(), 6);
    let room = Channel::new();
    handles.iter().for_each(|handle| assert_eq!(room.join(handle), Ok(())));
    for (number, handle) in handles.iter().enumerate() {
        assert_eq!(room.publish_except(handle, [number as u8; 700]), Ok(5));
    }
    world.turn();
    for (me, heard) in heard(&world, &conns).iter().enumerate() {
        let others = (0..6).filter(|other| *other != me).flat_map(|other| frame(&[other as u8; 700]));
        assert_eq!(*heard, others.collect::<Vec<u8>>());
    }
}

#[test]
fn shared_frames_count_once_against_the_memory_of_the_shard() {
    let limits = Limits::default().shard_memory(250_000);
    let (mut world, conns, _) = with_handles(narrow(1_000, limits), 40);
    assert_eq!(world.broadcast(&[1; 100_000]), Ok(1));
    world.run_for(1);
    let metrics = world.metrics();
    assert_eq!((metrics.sessions, metrics.packets_out), (40, 40), "40 of them would be 4 MB");
    assert!((100_000..=200_000).contains(&metrics.shared), "{} bytes are shared", metrics.shared);
    assert!(metrics.buffered < 10_000, "{} bytes are not", metrics.buffered);
    // One of them has read all; the others hold what they share, and are ended for it.
    assert_eq!(world.expect(conns[7], 100_004), frame(&[1; 100_000]));
    assert_eq!(world.broadcast(&[2; 200_000]), Ok(1));
    world.run_for(1);
    assert_eq!(world.log.count(&Callback::Close(CloseKind::Memory)), 39);
    assert_eq!(world.expect(conns[7], 200_004), frame(&[2; 200_000]));
    assert_eq!((world.metrics().shared, world.metrics().buffered), (0, 0));
}

#[test]
fn messages_to_one_member_neither_interleave_nor_overtake_however_they_are_sent_and_written() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let pick = |rng: &mut Rng, of: u64| rng.below(of) as usize;
        let mut setup = narrow(3_000, Limits::default().outbox_hard(64 << 20).fanout_budget(7, 1 << 20));
        (setup.seed, setup.workers) = (seed, if seed % 3 == 0 { 2 } else { 0 });
        setup.faults = Faults { short: 200, would_block: 200, interrupt: 50, ..Faults::none() };
        let (mut world, conns, handles) = with_handles(setup, 12);
        let room = Channel::new();
        handles.iter().for_each(|handle| assert_eq!(room.join(handle), Ok(())));
        // What each is to get, by its handle; which connection is whose is not known in a pool.
        let mut expected = vec![Vec::new(); handles.len()];
        let mut got = vec![Vec::new(); conns.len()];
        for number in 0..60_u32 {
            let size = [3, 100, 511, 512, 513, 2_000, 20_000][pick(&mut rng, 7)];
            let packet: Vec<u8> = number.to_be_bytes().into_iter().cycle().take(size).collect();
            let one = pick(&mut rng, 12);
            let mut left_out = None;
            match pick(&mut rng, 5) {
                0 => assert!(world.broadcast(&packet).is_ok()),
                1 => assert!(room.publish(&packet).is_ok()),
                2 => {
                    assert!(room.publish_except(&handles[one], &packet).is_ok());
                    left_out = Some(one);
                }
                3 => assert!(world.broadcast_where(&packet, |_| true).is_ok()),
                _ => {
                    assert_eq!(handles[one].send(&packet), Ok(()));
                    expected[one].extend(frame(&packet));
                    continue;
                }
            }
            for (at, expected) in expected.iter_mut().enumerate() {
                if left_out != Some(at) {
                    expected.extend(frame(&packet));
                }
            }
            if rng.chance(500) {
                world.step();
                conns.iter().zip(&mut got).for_each(|(conn, got)| got.extend(world.net().hear_all(*conn)));
            }
        }
        for _ in 0..100_000 {
            let goes_on = world.step();
            let mut heard = false;
            for (conn, got) in conns.iter().zip(&mut got) {
                let bytes = world.net().hear_all(*conn);
                heard |= !bytes.is_empty();
                got.extend(bytes);
            }
            if !goes_on && !heard {
                break;
            }
        }
        got.sort();
        expected.sort();
        assert!(got == expected, "seed {seed}");
        assert_eq!((world.metrics().shared, world.metrics().sessions), (0, 12));
    }
}

/// What is done to a channel while a packet is on its way to its members.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Deed {
    /// Session 6 joins.
    Join,
    /// Session 1 leaves.
    Leave,
    /// Session 2 is kicked.
    Kick,
    /// Session 0 is kicked, and its callback kicks all others.
    Dissolve,
    /// Session 3 closes.
    Close,
}

#[test]
fn what_happens_to_a_channel_during_a_publish_counts_for_the_next_one_in_whatever_order() {
    use Deed::{Close, Dissolve, Join, Kick, Leave};
    let deeds = [Join, Leave, Kick, Dissolve, Close];
    let orders = (0..125).map(|order| [order / 25, order / 5 % 5, order % 5].map(|deed: usize| deeds[deed]));
    for order in orders.filter(|[a, b, c]| a != b && b != c && a != c) {
        let (mut world, conns, handles) = with_handles(budget(2, 1 << 20), 7);
        let (room, left) = (Channel::new(), Arc::new(Mutex::new(Vec::new())));
        for (at, handle) in handles.iter().enumerate().take(6) {
            let (left, all, room_again) = (left.clone(), handles.clone(), room.clone());
            let on_leave = move |id, how| {
                left.lock().unwrap_or_else(PoisonError::into_inner).push(id);
                if at == 0 && how == Left::Kicked {
                    for other in &all {
                        room_again.kick(other);
                    }
                }
            };
            assert_eq!(room.join_with(handle, on_leave), Ok(()));
        }
        let mut members: BTreeSet<usize> = (0..6).collect();
        let mut expected = vec![Vec::new(); 7];
        let publish = |members: &BTreeSet<usize>, expected: &mut Vec<Vec<u8>>, packet: u8| {
            assert_eq!(room.publish([packet]), Ok(members.len()));
            members.iter().for_each(|at| expected[*at].extend(frame(&[packet])));
        };
        publish(&members, &mut expected, 0);
        world.turn();
        for (deed, packet) in order.into_iter().zip(1..) {
            match deed {
                Join => {
                    assert_eq!(room.join(&handles[6]), Ok(()));
                    members.insert(6);
                }
                Leave => assert_eq!(room.leave(&handles[1]), members.remove(&1)),
                Kick => assert_eq!(room.kick(&handles[2]), members.remove(&2)),
                Dissolve => {
                    assert!(room.kick(&handles[0]));
                    members.clear();
                }
                Close => {
                    assert_eq!(handles[3].close(), Ok(()));
                    // It leaves when it is told, which is behind what was published before.
                    world.run_for(5);
                    members.remove(&3);
                }
            }
            publish(&members, &mut expected, packet);
            world.turn();
        }
        world.run_for(10);
        assert_eq!(heard(&world, &conns), expected, "{order:?}");
        assert_eq!(room.len(), members.len());
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let told = left.len();
        left.sort_unstable();
        left.dedup();
        let gone = (0..6).filter(|at| !members.contains(at)).count();
        assert_eq!((told, left.len()), (gone, gone), "each was told of once: {order:?}");
    }
}
