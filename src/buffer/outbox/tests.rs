use proptest::prelude::*;

use super::{whole_packets::MadeRoom, *};
use crate::{
    buffer::Overflow,
    framing::{Framing, LengthPrefix},
    sync::{Gone, SendTicket},
};

fn put(outbox: &mut Outbox, bytes: &[u8]) {
    let done: Result<usize, ()> = outbox.append(bytes.len(), |out| {
        out.extend_from_slice(bytes);
        Ok(())
    });
    assert_eq!(done, Ok(bytes.len()));
}

fn pending(outbox: &Outbox) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let count = outbox.slices(&mut slices);
    let mut bytes = Vec::new();
    slices[..count].iter().for_each(|slice| bytes.extend_from_slice(slice));
    bytes
}

#[test]
fn a_failed_encode_leaves_nothing() {
    let mut outbox = Outbox::default();
    put(&mut outbox, b"ok");
    let failed = outbox.append(10, |out| {
        out.extend_from_slice(b"half a fra");
        Err("too long")
    });
    assert_eq!(failed, Err("too long"));
    assert_eq!((pending(&outbox), outbox.len()), (b"ok".to_vec(), 2));
}

#[test]
fn the_memory_of_a_failed_encode_can_be_given_back_wherever_it_was() {
    for before in [0, 1, 10, CHUNK - 1, CHUNK, 3 * CHUNK] {
        let mut outbox = Outbox::default();
        put(&mut outbox, &vec![7; before]);
        let failed = outbox.append(0, |out| {
            out.extend_from_slice(&vec![9; 20 * CHUNK]);
            Err("out of ink")
        });
        assert_eq!(failed, Err("out of ink"));
        outbox.take_back(0);
        assert!(outbox.capacity() <= before + 2 * CHUNK, "{} behind {before}", outbox.capacity());
        put(&mut outbox, b"whole");
        assert_eq!(pending(&outbox), [&vec![7; before][..], b"whole"].concat());
        assert_eq!(outbox.len(), before + 5);
    }
}

#[test]
fn a_panicking_encode_leaves_nothing() {
    let mut outbox = Outbox::default();
    put(&mut outbox, &[7; CHUNK]);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _: Result<usize, ()> = outbox.append(10, |out| {
            out.extend_from_slice(b"half a fra");
            panic!("in encode")
        });
    }));
    assert!(caught.is_err());
    assert_eq!((pending(&outbox).len(), outbox.len()), (CHUNK, CHUNK));
}

#[test]
fn a_short_rest_does_not_hold_a_large_buffer() {
    let mut outbox = Outbox::default();
    put(&mut outbox, &[1; 10_000]);
    outbox.advance(9_990);
    outbox.block(4);
    assert!(outbox.release_spare().is_some_and(|large| large.capacity() >= 10_000));
    assert!(outbox.capacity() < 1024);
    assert_eq!((pending(&outbox), outbox.blocked_since()), (vec![1; 10], Some(4)));
}

fn framed(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes()[..], payload].concat()
}

#[test]
fn spare_bytes_are_what_earlier_frames_have_left() {
    let framing = LengthPrefix::u32_be();
    let header = framing.length_header().unwrap();
    let mut outbox = Outbox::default();
    assert!(!outbox.append_in_place(|spare| header.write(b"first", spare)), "there are none yet");
    put(&mut outbox, &[1; 20]);
    assert!(!outbox.append_in_place(|spare| header.write(b"behind it", spare)), "nor behind what waits");
    assert_eq!(outbox.advance(20), 0);
    for payload in [&b"hello"[..], b"", b"abc"] {
        assert!(outbox.append_in_place(|spare| header.write(payload, spare)));
    }
    let expected = [framed(b"hello"), framed(b""), framed(b"abc")].concat();
    assert_eq!((pending(&outbox), outbox.len()), (expected.clone(), 20));
    assert!(!outbox.append_in_place(|spare| header.write(b"", spare)), "they are used up");
    put(&mut outbox, b"more");
    assert_eq!(outbox.advance(7), 17);
    assert_eq!(pending(&outbox), [&expected[7..], b"more"].concat());
}

#[test]
fn spare_bytes_are_given_up_where_a_frame_is_to_be_held_against_a_limit() {
    let framing = LengthPrefix::u32_be();
    let header = framing.length_header().unwrap();
    let with_spare = || {
        let mut outbox = Outbox::default();
        put(&mut outbox, &[1; 100]);
        outbox.advance(100);
        assert!(outbox.append_in_place(|spare| header.write(b"x", spare)));
        outbox
    };
    let mut sealed = with_spare();
    sealed.seal();
    assert!(!sealed.append_in_place(|spare| header.write(b"y", spare)));
    let mut tracked = with_spare();
    let (_ticket, completion) = SendTicket::pair(std::sync::Arc::<Gone>::default());
    tracked.track(completion);
    assert!(!tracked.append_in_place(|spare| header.write(b"y", spare)));
    let mut reset = with_spare();
    reset.reset(6);
    assert!(!reset.append_in_place(|spare| header.write(b"xyz", spare)), "more than it may keep");
    assert!(reset.append_in_place(|spare| header.write(b"xy", spare)));
    assert_eq!(pending(&reset), framed(b"xy"));
}

#[test]
fn shared_frames_are_not_copied_unless_they_are_short() {
    let long = Bytes::from(vec![7; 5_000]);
    let mut outbox = Outbox::default();
    put(&mut outbox, b"before");
    outbox.append_shared(&long);
    outbox.append_shared(&long.slice(..COPIED));
    put(&mut outbox, b"behind");
    assert_eq!(pending(&outbox), [b"before", &long[..], &[7; COPIED], b"behind"].concat());
    assert!(outbox.chunks().any(|chunk| chunk.as_ptr() == long.as_ptr()), "the same memory");
    assert_eq!((outbox.shared(), outbox.chunks().count()), (5_000, 3));
    assert!(outbox.capacity() < 2_000, "its own memory is that of its own frames");
    // Written in part, and then whole: what is behind follows, and no memory stays.
    assert_eq!(outbox.advance(6 + 4_999), 1 + COPIED + 6);
    assert_eq!(outbox.shared(), 1);
    assert_eq!(pending(&outbox), [&[7; 1 + COPIED][..], b"behind"].concat());
    assert_eq!(outbox.advance(1), COPIED + 6);
    assert_eq!((outbox.shared(), outbox.single().map(<[u8]>::len)), (0, Some(COPIED + 6)));
    assert_eq!(outbox.advance(COPIED + 6), 0);
    assert!(long.is_unique());
}

#[test]
fn a_stalled_session_holds_no_buffer_for_what_it_shares() {
    let mut outbox = Outbox::with_buffer(BytesMut::with_capacity(60_000));
    outbox.append_shared(&Bytes::from(vec![7; 5_000]));
    outbox.advance(1);
    outbox.block(4);
    assert!(outbox.release_spare().is_some_and(|buffer| buffer.capacity() >= 60_000));
    assert!(outbox.capacity() < 200);
    assert_eq!((outbox.len(), outbox.blocked_since()), (4_999, Some(4)));
    put(&mut outbox, &[1; 100]);
    assert!(outbox.capacity() < 1_000, "nor a large one for what is behind");
    outbox.reset(usize::MAX);
    assert_eq!((outbox.len(), outbox.shared()), (0, 0));
}

proptest! {
    #[test]
    fn what_goes_in_comes_out_in_order(
        steps in prop::collection::vec((0usize..70_000, 0usize..150_000, 0..3u8), 1..30)
    ) {
        let framing = LengthPrefix::u32_be();
        let header = framing.length_header().unwrap();
        let mut outbox = Outbox::default();
        // Repeats after a prime, so that no chunk can stand for another.
        let stream = (0..251).collect::<Vec<u8>>().repeat(30 * 70_010 / 251 + 300);
        let (mut expected, mut taken) = (Vec::new(), 0);
        for (append, take, kind) in steps {
            let append = if kind == 1 { append % 2_000 } else { append };
            let bytes = &stream[expected.len()..][..append];
            if kind > 0 {
                outbox.append_shared(&Bytes::copy_from_slice(bytes));
                expected.extend(bytes);
            } else if outbox.append_in_place(|spare| header.write(bytes, spare)) {
                expected.extend(framed(bytes));
            } else {
                put(&mut outbox, bytes);
                expected.extend(bytes);
            }
            prop_assert_eq!(outbox.len(), expected.len() - taken);
            let seen = pending(&outbox);
            prop_assert!(seen == expected[taken..][..seen.len()]);
            let take = take.min(seen.len());
            outbox.advance(take);
            taken += take;
            if outbox.is_empty() { outbox.reset(usize::MAX); }
            prop_assert!(outbox.len() <= outbox.capacity() + outbox.shared());
            if outbox.len() % 3 == 1 { outbox.release_spare(); }
            let closed: usize = outbox.tail.iter().map(Chunk::memory).sum();
            prop_assert_eq!(outbox.capacity(), outbox.head.capacity() + closed);
            let slices = outbox.chunks().count();
            prop_assert_eq!(outbox.single().is_some(), slices < 2);
        }
    }
}

#[test]
fn the_latest_packet_of_a_key_has_room_though_its_place_is_the_oldest() {
    let room = Room { packets: 10, bytes: 3_000, most: 4_000 };
    let mut outbox = Outbox::default();
    put(&mut outbox, b"first");
    let mut push = |key, byte, size: usize| {
        outbox.push_droppable(
            Chunk::Own(BytesMut::from(&*vec![byte; size])),
            Overflow::Latest(key),
            None,
            room,
        )
    };
    assert_eq!([push(1, b'a', 1_000), push(2, b'b', 1_000)], [MadeRoom::default(); 2]);
    let replaced = MadeRoom { replaced: true, ..MadeRoom::default() };
    assert_eq!(push(1, b'c', 1_500), replaced);
    assert_eq!(push(1, b'd', 2_500), MadeRoom { dropped: 1, ..replaced }, "the other one makes way");
    assert_eq!(push(1, b'e', 5_000), MadeRoom { dropped: 1, refused: true, ..replaced });
    assert_eq!(push(1, b'f', 2_500), MadeRoom::default());
    outbox.commit_all();
    assert_eq!(outbox.chunks().collect::<Vec<_>>().concat(), [&b"first"[..], &[b'f'; 2_500]].concat());
}

/// What a model of the queue knows of a packet that waits.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Model {
    Kept(u8),
    MayGo(u8),
    Key(u64, u8),
}

impl Model {
    fn number(self) -> u8 {
        match self {
            Self::Kept(number) | Self::MayGo(number) | Self::Key(_, number) => number,
        }
    }
}

proptest! {
    #[test]
    fn whole_packets_are_kept_replaced_and_dropped_as_a_list_of_them_would_be(
        steps in prop::collection::vec((0..6u8, 1usize..700, 0usize..900), 1..80)
    ) {
        let room = Room { packets: 5, bytes: usize::MAX, most: usize::MAX };
        let mut outbox = Outbox::default();
        // Something waits, so that what follows does too.
        put(&mut outbox, &[255; 600]);
        let (mut committed, mut waiting, mut sizes) = (vec![255; 600], Vec::<Model>::new(), Vec::new());
        for (number, (kind, size, take)) in steps.into_iter().enumerate() {
            let number = number as u8;
            sizes.push(size);
            let frame = vec![number; size];
            match kind {
                0 | 1 => {
                    put(&mut outbox, &frame);
                    if waiting.is_empty() { committed.extend(&frame) } else { waiting.push(Model::Kept(number)) }
                }
                2 | 3 => {
                    let shared = Chunk::Shared(Bytes::from(frame));
                    outbox.push_droppable(shared, Overflow::DropOldest, None, room);
                    waiting.push(Model::MayGo(number));
                }
                4 => {
                    let own = Chunk::Own(BytesMut::from(&frame[..]));
                    let made = outbox.push_droppable(own, Overflow::Latest(u64::from(number % 3)), None, room);
                    let new = Model::Key(u64::from(number % 3), number);
                    let same = |old: &&mut Model| matches!((**old, new), (Model::Key(a, _), Model::Key(b, _)) if a == b);
                    match waiting.iter_mut().find(same) {
                        Some(old) => *old = new,
                        None => waiting.push(new),
                    }
                    prop_assert!(!made.refused);
                }
                _ => {
                    outbox.commit_all();
                    waiting.drain(..).for_each(|packet| {
                        committed.extend(vec![packet.number(); sizes[packet.number() as usize]]);
                    });
                    let n = take.min(committed.len());
                    outbox.advance(n);
                    committed.drain(..n);
                }
            }
            let may_go = |packet: &Model| !matches!(packet, Model::Kept(_));
            while waiting.iter().filter(|packet| may_go(packet)).count() > 5 {
                let oldest = waiting.iter().position(may_go).unwrap();
                waiting.remove(oldest);
            }
            let bytes: usize = waiting.iter().map(|packet| sizes[packet.number() as usize]).sum();
            prop_assert_eq!(outbox.len(), committed.len() + bytes);
            prop_assert!(outbox.weight() >= outbox.len());
            prop_assert!(outbox.len() <= outbox.capacity() + outbox.shared());
            if !waiting.iter().any(may_go) && !waiting.is_empty() {
                // The queue stays while it has what is kept.
                prop_assert!(outbox.has_packets());
            }
        }
        outbox.commit_all();
        waiting.drain(..).for_each(|packet| {
            committed.extend(vec![packet.number(); sizes[packet.number() as usize]]);
        });
        prop_assert!(outbox.chunks().flatten().eq(&committed));
        outbox.advance(committed.len());
        prop_assert_eq!((outbox.weight(), outbox.has_packets()), (0, false));
    }
}
