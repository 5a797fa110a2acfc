//! Separators against a model that sees the whole stream at once, for every short separator and stream over two letters.

use framewire::testing::Collector;
use framewire::{FrameError, Framing, Oversize, Separator};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;

/// The packets of `wire` and the tail: at each place, the longest separator that stands there.
fn model(separators: &[Vec<u8>], wire: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut packets, mut packet, mut rest) = (Vec::new(), Vec::new(), wire);
    while let Some((first, others)) = rest.split_first() {
        let here = separators.iter().filter(|separator| rest.starts_with(separator)).map(Vec::len).max();
        match here {
            Some(len) => {
                packets.push(std::mem::take(&mut packet));
                rest = &rest[len..];
            }
            None => {
                packet.push(*first);
                rest = others;
            }
        }
    }
    (packets, packet)
}

/// Every string over {a, b} of `lens` letters.
fn strings(lens: std::ops::RangeInclusive<u32>) -> impl Iterator<Item = Vec<u8>> {
    lens.flat_map(|len| {
        (0..1_u32 << len).map(move |bits| (0..len).map(|at| b'a' + (bits >> at & 1) as u8).collect())
    })
}

fn in_pieces(framing: &Separator, wire: &[u8], piece: usize) -> Collector<Separator> {
    let mut collector = Collector::new(framing.clone().deliver_tail());
    for chunk in wire.chunks(piece) {
        collector.feed(chunk).expect("nothing is too long here");
    }
    collector
}

fn check(separators: &[Vec<u8>], wire: &[u8], pieces: &[usize]) {
    let framing = Separator::any_of(separators).expect("none is empty");
    let (mut packets, tail) = model(separators, wire);
    packets.extend(Some(tail).filter(|tail| !tail.is_empty()));
    for piece in pieces {
        let mut collector = in_pieces(&framing, wire, *piece);
        collector.end().expect("the tail is delivered");
        assert_eq!(collector.packets(), packets, "{separators:?} in {} by {piece}", wire.escape_ascii());
    }
}

#[test]
fn every_short_separator_is_found_in_every_short_stream() {
    for separator in strings(1..=4) {
        for wire in strings(1..=9) {
            check(std::slice::from_ref(&separator), &wire, &[1, 2, 16]);
        }
    }
}

#[test]
fn every_pair_of_short_separators_is_found_in_every_short_stream() {
    let separators: Vec<_> = strings(1..=3).collect();
    for (at, first) in separators.iter().enumerate() {
        for second in &separators[at + 1..] {
            for wire in strings(1..=7) {
                check(&[first.clone(), second.clone()], &wire, &[1, 3, 16]);
            }
        }
    }
}

#[test]
fn a_packet_comes_with_the_last_byte_of_a_single_separator() {
    for separator in strings(1..=4) {
        let framing = Separator::bytes(&separator).expect("not empty");
        for wire in strings(6..=9) {
            for seen in 1..=wire.len() {
                let expected = model(std::slice::from_ref(&separator), &wire[..seen]).0;
                assert_eq!(in_pieces(&framing, &wire[..seen], 1).packets(), expected);
            }
        }
    }
}

#[test]
fn lines_are_the_alternatives_of_their_two_ends() {
    let ends = [b"\n".to_vec(), b"\r\n".to_vec()];
    for wire in strings(1..=8) {
        let wire: Vec<u8> = wire.iter().map(|byte| if *byte == b'a' { b'\r' } else { b'\n' }).collect();
        for piece in [1, 2, 16] {
            assert_eq!(in_pieces(&Separator::lines(), &wire, piece).packets(), model(&ends, &wire).0);
        }
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn alternatives_mean_what_the_model_says(
        separators in vec(vec(b'a'..=b'c', 1..=4), 1..=5),
        wire in vec(b'a'..=b'd', 0..40),
        piece in 1..8_usize,
    ) {
        check(&separators, &wire, &[piece]);
    }

    #[test]
    fn the_maximum_is_exact_for_alternatives_too(
        separators in vec(vec(b'a'..=b'c', 1..=4), 1..=4),
        wire in vec(b'a'..=b'd', 0..40),
        piece in 1..8_usize,
        max in 0..6_usize,
    ) {
        let framing = Separator::any_of(&separators).expect("none is empty").max(max);
        let packets = model(&separators, &wire).0;
        let kept: Vec<_> = packets.iter().filter(|packet| packet.len() <= max).cloned().collect();
        let mut discarding = Collector::new(framing.clone().oversize(Oversize::Discard));
        let mut closing = Collector::new(framing.clone());
        let mut end = Ok(());
        for chunk in wire.chunks(piece) {
            prop_assert_eq!(discarding.feed(chunk), Ok(()));
            prop_assert!(discarding.held().len() <= framing.max_frame().unwrap_or(0));
            end = end.and_then(|()| closing.feed(chunk));
        }
        let _ = discarding.end();
        prop_assert_eq!(discarding.packets(), &kept);
        let before: Vec<_> = packets.iter().take_while(|packet| packet.len() <= max).cloned().collect();
        let end = end.and_then(|()| closing.end());
        prop_assert_eq!(closing.packets(), &before);
        if before.len() < packets.len() {
            let is_too_long = matches!(end, Err(FrameError::TooLong { .. }));
            prop_assert!(is_too_long);
        }
    }

    #[test]
    fn what_encode_accepts_comes_back_behind_anything_else_it_accepts(
        separators in vec(vec(b'a'..=b'c', 1..=4), 1..=4),
        payloads in vec(vec(b'a'..=b'd', 0..6), 0..8),
    ) {
        let framing = Separator::any_of(&separators).expect("none is empty");
        let (mut wire, mut sent) = (bytes::BytesMut::new(), Vec::new());
        for payload in payloads {
            let before = wire.len();
            match framing.encode(&payload, &mut wire) {
                Ok(()) => sent.push(payload),
                Err(_) => prop_assert_eq!(wire.len(), before),
            }
        }
        let mut collector = Collector::new(framing);
        prop_assert_eq!(collector.feed(&wire), Ok(()));
        prop_assert_eq!(collector.packets(), &sent);
    }
}
