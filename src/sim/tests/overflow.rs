//! What becomes of packets for a peer that does not read.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;

use crate::{
    Channel, Layer, LayerError, LayerIo, Overflow, SessionHandle,
    error::{CloseKind, SendError, TicketError},
    limits::Limits,
    session::Session,
    sim::{
        Callback, Conn, Faults, Rng, Setup, World, frame,
        tests::{broadcast::with_handles, layers::layers},
    },
};

const HIGH: usize = 8_000;
const HARD: usize = 20_000;

/// The network takes 1,000 bytes of what is sent to a client that does not read.
fn setup() -> Setup {
    let limits = Limits::default().outbox_low(4_000).outbox_high(HIGH).outbox_hard(HARD).outbox_packets(10);
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.down = 1_000;
    setup
}

/// A packet of 100 bytes that has this number.
fn numbered(number: u8) -> Vec<u8> {
    vec![number; 96]
}

/// The numbers of the packets that were heard, which are all whole.
fn numbers(heard: &[u8]) -> Vec<u8> {
    heard
        .chunks(100)
        .map(|packet| {
            assert_eq!(packet, frame(&numbered(packet[4])), "whole");
            packet[4]
        })
        .collect()
}

/// Everything that a client hears when it begins to read.
fn read_all(world: &mut World, conn: Conn) -> Vec<u8> {
    let mut heard = Vec::new();
    for _ in 0..1_000 {
        heard.extend(world.net().hear_all(conn));
        world.run_for(1);
    }
    heard
}

type Do = Box<dyn Fn(&mut Session<'_>, u8) -> Result<(), SendError> + Send + Sync>;

/// Sends so many packets to one session, one in each turn or all in one, from its own callback.
fn send_in_callback(at_once: bool, packets: u8, send: Do) -> (World, Conn) {
    let send = Arc::new(send);
    let mut world = World::new(setup(), |probe| {
        let send = send.clone();
        probe.packet = Box::new(move |session, packet| {
            let from = packet[0];
            for number in from..if at_once { packets } else { from + 1 } {
                send(session, number)?;
            }
            Ok(())
        });
    });
    let conn = world.connect();
    world.run_for(1);
    for number in 0..if at_once { 1 } else { packets } {
        world.net().say(conn, &frame(&[number]));
        world.run_for(1);
    }
    (world, conn)
}

#[test]
fn the_oldest_packets_go_and_the_latest_arrive_whole_and_in_order() {
    for at_once in [false, true] {
        let send: Do = Box::new(|session, number| session.send_as(numbered(number), Overflow::DropOldest));
        let (mut world, conn) = send_in_callback(at_once, 100, send);
        let heard = numbers(&read_all(&mut world, conn));
        assert!(heard.is_sorted() && heard.last() == Some(&99), "{heard:?}");
        let metrics = world.metrics();
        assert_eq!(metrics.overflow_dropped as usize, 100 - heard.len());
        assert_eq!(metrics.sessions, 1, "and the session stays");
        if !at_once {
            // 11 had left for the network, which took 10, and 10 waited.
            assert_eq!(heard, (0..11).chain(90..100).collect::<Vec<u8>>());
        }
        assert_eq!(metrics.buffered, 0);
    }
}

#[test]
fn a_later_packet_takes_the_place_of_the_one_with_its_key() {
    for at_once in [false, true] {
        let send: Do = Box::new(|session, number| {
            session.send_as(numbered(number), Overflow::Latest(u64::from(number % 3)))
        });
        let (mut world, conn) = send_in_callback(at_once, 100, send);
        let heard = numbers(&read_all(&mut world, conn));
        // In the places of the packets that came first: 0, 1 and 2; or 11, 12 and 13, when 11 had left.
        let expected: Vec<u8> =
            if at_once { vec![99, 97, 98] } else { (0..11).chain([98, 99, 97]).collect() };
        assert_eq!(heard, expected);
        let metrics = world.metrics();
        assert_eq!((metrics.overflow_replaced as usize, metrics.overflow_dropped), (100 - heard.len(), 0));
    }
}

#[test]
fn what_is_kept_stays_in_order_among_what_is_dropped() {
    let send: Do = Box::new(|session, number| match number % 10 {
        0 => session.send(numbered(number)),
        1 => session.send_as(numbered(number), Overflow::Latest(7)),
        _ => session.send_as(numbered(number), Overflow::DropOldest),
    });
    let (mut world, conn) = send_in_callback(false, 100, send);
    let heard = numbers(&read_all(&mut world, conn));
    assert!((0..10).all(|ten| heard.contains(&(ten * 10))), "{heard:?}");
    let kept_and_last: Vec<u8> = heard.iter().copied().filter(|number| number % 10 != 1).collect();
    assert!(kept_and_last.is_sorted(), "{heard:?}");
    assert_eq!(heard.last(), Some(&99));
    assert_eq!(
        heard.len() as u64 + world.metrics().overflow_dropped + world.metrics().overflow_replaced,
        100
    );
}

#[test]
fn a_packet_that_has_no_room_in_any_case_costs_no_other_its_place() {
    let send: Do = Box::new(|session, number| {
        let too_long = [0; HARD + 1];
        let refused = match number {
            21 => session.send_as(too_long, Overflow::Refuse),
            22 => session.send(too_long),
            _ => return session.send_as(numbered(number), Overflow::DropOldest),
        };
        assert!(matches!(refused, Err(SendError::Full { limit: HARD, .. })), "{refused:?}");
        Ok(())
    });
    let (mut world, conn) = send_in_callback(false, 23, send);
    assert_eq!(numbers(&read_all(&mut world, conn)), (0..21).collect::<Vec<u8>>());
    assert_eq!((world.metrics().overflow_dropped, world.metrics().overflow_refused), (0, 1));
}

#[test]
fn what_may_be_dropped_makes_way_and_never_stops_the_reading() {
    let send: Do = Box::new(|session, number| {
        if number < 50 {
            session.send_as(vec![number; 2_000], Overflow::DropOldest)
        } else {
            session.send(vec![number; 2_000])
        }
    });
    let (mut world, conn) = send_in_callback(false, 58, send);
    // A part of the first, and of the later ones as many as do not exceed the mark: they have gone for the 8 that stay.
    assert_eq!(world.log.count(&Callback::Packet(vec![57])), 0, "above the mark nothing is read");
    let metrics = world.metrics();
    assert!(metrics.overflow_dropped >= 46, "{}", metrics.overflow_dropped);
    let heard = read_all(&mut world, conn);
    let numbers: Vec<u8> = heard.chunks(2_004).map(|packet| packet[4]).collect();
    assert_eq!(numbers[0], 0, "which had begun");
    assert!(numbers.ends_with(&(50..58).collect::<Vec<u8>>()), "{numbers:?}");
    assert!(heard.chunks(2_004).all(|packet| packet == frame(&vec![packet[4]; 2_000])));
}

#[test]
fn a_packet_that_is_refused_is_lost_and_the_session_stays() {
    let send: Do = Box::new(|session, number| {
        let sent = session.send_as(vec![number; 2_000], Overflow::Refuse);
        assert!(matches!(sent, Ok(()) | Err(SendError::Full { .. })));
        Ok(())
    });
    let (mut world, conn) = send_in_callback(true, 20, send);
    assert_eq!((world.metrics().overflow_refused, world.metrics().sessions), (11, 1));
    let heard = read_all(&mut world, conn);
    assert_eq!(heard, (0..9).flat_map(|number| frame(&[number; 2_000])).collect::<Vec<u8>>());
}

#[test]
fn a_packet_that_must_arrive_closes_a_session_without_room_whatever_the_callback_does_with_the_error() {
    let send: Do = Box::new(|session, number| {
        let _ = session.send_as(vec![number; 2_000], Overflow::Close);
        Ok(())
    });
    let (mut world, conn) = send_in_callback(true, 20, send);
    assert_eq!(world.log.count(&Callback::Closing(CloseKind::Send)), 1);
    assert_eq!(world.metrics().overflow_closed, 1);
    let heard = read_all(&mut world, conn);
    assert_eq!(heard, (0..9).flat_map(|number| frame(&[number; 2_000])).collect::<Vec<u8>>());
}

/// What one of two sessions gets that does not read, while the other one gets everything.
fn send_to_slow(
    overflow: Overflow,
    send: impl Fn(&World, &[SessionHandle], &Channel, &[u8]),
) -> (World, Vec<u8>) {
    let (mut world, conns, handles) = with_handles(setup(), 2);
    let room = Channel::new().overflow(overflow);
    handles.iter().for_each(|handle| assert_eq!(room.join(handle), Ok(())));
    for number in 0..100 {
        send(&world, &handles, &room, &numbered(number));
        world.run_for(1);
        assert_eq!(world.net().hear_all(conns[1]), frame(&numbered(number)), "a slow member delays no other");
    }
    let heard = read_all(&mut world, conns[0]);
    (world, heard)
}

#[test]
fn members_of_a_channel_miss_what_the_channel_allows() {
    for (overflow, expected) in [
        // The network takes ten.
        (Overflow::DropOldest, (0..10).chain(90..100).collect::<Vec<u8>>()),
        (Overflow::Latest(3), (0..10).chain([99]).collect()),
        (Overflow::Close, (0..100).collect()),
    ] {
        let (world, heard) =
            send_to_slow(overflow, |_, _, room, packet| assert_eq!(room.publish(packet), Ok(2)));
        assert_eq!(numbers(&heard), expected, "{overflow:?}");
        let metrics = world.metrics();
        let lost = metrics.overflow_dropped + metrics.overflow_replaced;
        assert_eq!((lost as usize, metrics.shared, metrics.sessions), (100 - expected.len(), 0, 2));
    }
}

#[test]
fn a_session_misses_what_it_allows_of_everything_that_it_is_sent() {
    type Way = fn(&World, &[SessionHandle], &[u8]);
    // What is broadcast and finds the network full has not been given to it as the handles' packets have.
    let ways: [(u8, Way); 3] = [
        (10, |world, _, packet| assert_eq!(world.broadcast(packet), Ok(1))),
        (11, |_, handles, packet| handles.iter().for_each(|handle| assert_eq!(handle.send(packet), Ok(())))),
        (11, |_, handles, packet| {
            let one = handles[0].send_as(packet, Overflow::DropOldest);
            assert_eq!((one, handles[1].send_as(packet, Overflow::Close)), (Ok(()), Ok(())));
        }),
    ];
    for (given, send) in ways {
        let handles = Arc::new(Mutex::new(Vec::new()));
        let mut world = World::new(setup(), |probe| {
            let handles = handles.clone();
            probe.open = Box::new(move |session, ()| {
                session.set_overflow(Overflow::DropOldest);
                handles.lock().unwrap_or_else(PoisonError::into_inner).push(session.handle());
                Ok(())
            });
        });
        let conns = [(); 2].map(|()| world.connect());
        world.run_for(1);
        let handles = handles.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for number in 0..100 {
            send(&world, &handles, &numbered(number));
            world.run_for(1);
            assert_eq!(world.net().hear_all(conns[1]), frame(&numbered(number)));
        }
        let heard = numbers(&read_all(&mut world, conns[0]));
        assert_eq!(heard, (0..given).chain(90..100).collect::<Vec<u8>>());
        assert_eq!(world.metrics().overflow_dropped, 90 - u64::from(given));
    }
}

#[test]
fn tickets_of_dropped_packets_say_so_and_those_of_the_others_are_written() {
    let handles = Arc::new(Mutex::new(Vec::new()));
    let mut world = World::new(setup(), |probe| {
        let handles = handles.clone();
        probe.open = Box::new(move |session, ()| {
            session.set_overflow(Overflow::DropOldest);
            handles.lock().unwrap_or_else(PoisonError::into_inner).push(session.handle());
            Ok(())
        });
    });
    let conn = world.connect();
    world.run_for(1);
    let handle = handles.lock().unwrap_or_else(PoisonError::into_inner)[0].clone();
    let tickets: Vec<_> = (0..100)
        .map(|number| {
            let ticket = handle.send_tracked(numbered(number)).expect("there is room in the mailbox");
            world.run_for(1);
            ticket
        })
        .collect();
    let heard = numbers(&read_all(&mut world, conn));
    for (number, ticket) in tickets.iter().enumerate() {
        let expected = if heard.contains(&(number as u8)) { Ok(()) } else { Err(TicketError::Dropped) };
        assert_eq!(ticket.outcome(), Some(expected), "{number}");
    }
    assert!(heard.len() < 30 && heard.last() == Some(&99));
}

#[test]
fn what_waits_when_a_session_closes_still_goes_out_if_it_reads() {
    let send: Do = Box::new(|session, number| {
        session.send_as(numbered(number), Overflow::DropOldest)?;
        if number == 29 {
            session.close();
        }
        Ok(())
    });
    let (mut world, conn) = send_in_callback(false, 30, send);
    let heard = numbers(&read_all(&mut world, conn));
    assert_eq!(heard, (0..11).chain(20..30).collect::<Vec<u8>>());
}

/// A layer that changes nothing.
struct PassThrough;

impl Layer for PassThrough {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        io.open();
        Ok(io.plain(wire))
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        wire.extend_from_slice(plain);
        Ok(())
    }
}

#[test]
fn under_faults_and_through_layers_packets_are_lost_whole_or_not_at_all() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut setup = setup();
        setup.limits = setup.limits.outbox_hard(100_000);
        setup.seed = seed;
        setup.faults = Faults { short: 200, would_block: 200, interrupt: 50, ..Faults::none() };
        if seed % 3 == 0 {
            setup.layers = layers(|| PassThrough);
        }
        let (mut world, conns, handles) = with_handles(setup, 1);
        let (mut heard, mut kept) = (Vec::new(), Vec::new());
        for number in 0..250_u8 {
            let packet = vec![number; 1 + rng.below(600) as usize];
            let overflow = match rng.below(4) {
                0 => Overflow::DropOldest,
                1 => Overflow::Latest(number.into()),
                2 => Overflow::Refuse,
                _ => Overflow::Close,
            };
            if overflow == Overflow::Close {
                kept.push(number);
            }
            assert_eq!(handles[0].send_as(&packet, overflow), Ok(()));
            if rng.chance(700) {
                world.run_for(1);
            }
            if rng.chance(250) {
                heard.extend(world.net().hear_all(conns[0]));
            }
        }
        heard.extend(read_all(&mut world, conns[0]));
        let (mut rest, mut numbers) = (&heard[..], Vec::new());
        while let Some((header, behind)) = rest.split_first_chunk() {
            let (packet, next) = behind.split_at(u32::from_be_bytes(*header) as usize);
            assert!(packet.iter().all(|byte| *byte == packet[0]), "seed {seed}: it is whole");
            numbers.push(packet[0]);
            rest = next;
        }
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: in order, and none twice");
        assert!(kept.iter().all(|number| numbers.contains(number)), "seed {seed}: what is kept arrives");
        let metrics = world.metrics();
        let lost = metrics.overflow_dropped + metrics.overflow_refused + metrics.overflow_replaced;
        assert_eq!((numbers.len() as u64 + lost, metrics.overflow_closed), (250, 0), "seed {seed}");
        assert_eq!((metrics.buffered, metrics.sessions), (0, 1));
    }
}

/// As many packets of 1,000 bytes as a handle takes while the shard does not turn.
fn send_all_at_once(
    handle: &SessionHandle,
    send: impl Fn(&SessionHandle, &[u8]) -> Result<(), SendError>,
) -> (usize, SendError) {
    for number in 0..100 {
        if let Err(error) = send(handle, &[number; 996]) {
            return (number.into(), error);
        }
    }
    panic!("a handle takes whatever it gets")
}

#[test]
fn a_handle_leaves_it_to_the_shard_to_make_room_among_what_may_be_dropped() {
    type Send = fn(&SessionHandle, &[u8]) -> Result<(), SendError>;
    let ways: [(Overflow, Send); 3] = [
        (Overflow::Close, |handle, packet| handle.send_as(packet, Overflow::DropOldest)),
        (Overflow::Close, |handle, packet| handle.send_as(packet, Overflow::Latest(packet[0].into()))),
        (Overflow::DropOldest, |handle, packet| handle.send(packet)),
    ];
    for (own, send) in ways {
        let handles = Arc::new(Mutex::new(Vec::new()));
        let mut world = World::new(setup(), |probe| {
            let handles = handles.clone();
            probe.open = Box::new(move |session, ()| {
                handles.lock().unwrap_or_else(PoisonError::into_inner).push(session.handle());
                session.set_overflow(own);
                Ok(())
            });
        });
        let conn = world.connect();
        world.run_for(1);
        let handle = handles.lock().unwrap_or_else(PoisonError::into_inner)[0].clone();
        // The network has 1,000 bytes, and what may be dropped fills the outbox.
        for number in 0..20 {
            assert_eq!(send(&handle, &[number; 996]), Ok(()));
            world.run_for(1);
        }
        let before = world.metrics().queued as usize;
        assert!((HIGH / 2..=HIGH).contains(&before), "{before} bytes");
        let (took, error) = send_all_at_once(&handle, send);
        let SendError::Full { queued, limit } = error else { panic!("{error}") };
        assert_eq!(limit, 2 * HARD);
        assert!(queued <= limit && queued + 1_000 > limit, "{queued} bytes");
        assert!(took > HARD / 1_000, "{took} packets: more than of what is kept");
        world.run_for(1);
        let metrics = world.metrics();
        assert_eq!((metrics.overflow_closed, metrics.sessions), (0, 1));
        let heard = read_all(&mut world, conn);
        assert_eq!(heard.len() % 1_000, 0, "all are whole");
        let last = heard.chunks(1_000).last().map(|packet| usize::from(packet[4]));
        assert_eq!(last, Some(took - 1), "the latest was kept");
        assert_eq!(world.metrics().sessions, 1);
    }
}

#[test]
fn a_handle_at_the_limit_refuses_a_packet_or_closes_the_session_as_the_packet_says() {
    let (mut world, conns, handles) = with_handles(setup(), 2);
    let full = SendError::Full { queued: HARD, limit: HARD };
    for handle in &handles {
        assert_eq!(send_all_at_once(handle, |handle, packet| handle.send(packet)), (20, full.clone()));
    }
    assert_eq!(handles[0].send_as("x", Overflow::Refuse), Err(full.clone()));
    assert_eq!(handles[1].send_as("x", Overflow::Close), Err(full.clone()));
    assert_eq!(handles[1].send_as("x", Overflow::Close), Err(full));
    world.run_for(1);
    assert!(handles[0].is_open() && !handles[1].is_open());
    assert_eq!(world.metrics().overflow_closed, 1);
    assert_eq!(world.log.count(&Callback::Closing(CloseKind::Send)), 1);
    for conn in conns {
        assert_eq!(read_all(&mut world, conn).len(), 20 * 1_000, "what was sent before arrives");
    }
}

#[test]
fn of_packets_that_are_written_together_those_that_the_network_has_not_begun_to_take_may_still_be_dropped() {
    // 450 bytes are taken: four packets, and a half. The ten that may wait behind them are about to be written.
    let mut setup = setup();
    setup.sizes.down = 450;
    for (overflow, first, then) in [(Overflow::DropOldest, 0..5, 20..30), (Overflow::Close, 0..20, 20..50)] {
        let (mut world, conns, handles) = with_handles(setup.clone(), 1);
        let room = Channel::new().overflow(overflow);
        assert_eq!(room.join(&handles[0]), Ok(()));
        // In one turn, so that they are one write.
        (0..30).for_each(|number| assert_eq!(room.publish(numbered(number)), Ok(1)));
        world.run_for(1);
        for number in 30..60 {
            assert_eq!(room.publish(numbered(number)), Ok(1));
            world.run_for(1);
        }
        let heard = numbers(&read_all(&mut world, conns[0]));
        let expected: Vec<u8> = first.chain(then).chain(50..60).collect();
        assert_eq!(heard, expected, "{overflow:?}");
        assert_eq!(world.metrics().overflow_dropped as usize, 60 - expected.len());
        assert_eq!((world.metrics().shared, world.metrics().sessions), (0, 1));
    }
}
