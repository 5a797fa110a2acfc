//! Whatever peers of a gateway send: arbitrary bytes, however they are cut.

use framewire::{Decoded, FrameError};
use proptest::{collection::vec, prelude::*};

use super::*;

const MAX_LENGTH: u32 = 60;

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let command = (0..8_u8, 0..9_u32, 0..9_u32, 0..3_usize).prop_map(|(kind, conn, remote, cut)| {
        let args = [&[kind][..], &conn.to_le_bytes(), &remote.to_le_bytes()].concat();
        let args = &args[..args.len() - 4 * cut];
        [&(args.len() as u32 + 4).to_le_bytes()[..], &[0; 4], args].concat()
    });
    let message = (1..9_u32, 0..60_usize).prop_map(|(conn, len)| {
        [&(len as u32 + 4).to_le_bytes()[..], &conn.to_le_bytes(), &vec![7; len]].concat()
    });
    prop_oneof![6 => command, 6 => message, 1 => vec(any::<u8>(), 0..12)]
}

/// Cuts a stream that comes in parts into frames.
fn cut(stream: &[u8], cuts: &[usize], preamble: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut framing = WholeFrames::new(MAX_LENGTH).after(preamble);
    let (mut buffer, mut rest, mut frames) = (BytesMut::new(), stream, Vec::new());
    for cut in cuts.iter().copied().chain([usize::MAX]) {
        let (part, behind) = rest.split_at(cut.min(rest.len()));
        rest = behind;
        buffer.extend_from_slice(part);
        loop {
            match framing.decode(&mut buffer) {
                Ok(Some(Decoded::Packet { payload, consumed })) => {
                    assert_eq!(payload, 0..consumed, "a frame is handed out whole");
                    frames.push(buffer.split_to(consumed).to_vec());
                }
                Ok(Some(other)) => panic!("{other:?}"),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(buffer.len() < framing.max_frame().expect("a bound"), "only an unfinished frame is kept");
    }
    (frames, None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_a_peer_sends_is_cut_into_the_same_frames_however_it_comes(
        pieces in vec(piece(), 0..20),
        cuts in vec(0..40_usize, 0..20),
        preamble in prop_oneof![Just(0), Just(20)],
    ) {
        let stream = pieces.concat();
        let (frames, error) = cut(&stream, &[], preamble);
        let is_same = |other: &Option<FrameError>| {
            // What is quoted depends on how much had come.
            other.as_ref().map(std::mem::discriminant) == error.as_ref().map(std::mem::discriminant)
        };
        for cuts in [cuts, vec![1; stream.len()]] {
            let (others, other) = cut(&stream, &cuts, preamble);
            prop_assert_eq!(&others, &frames);
            prop_assert!(is_same(&other), "{:?} and {:?}", other, error);
        }
        if error.is_none() {
            prop_assert!(stream.starts_with(&frames.concat()), "nothing is added or left out");
        }
    }

    #[test]
    fn arbitrary_frames_of_both_sides_break_nothing_and_hold_bounded_memory(
        sent in vec((0..4_usize, vec(piece(), 1..6)), 0..30),
        threads in 1..3_usize,
    ) {
        let limits = GatewayLimits { max_length: MAX_LENGTH, strays_per_second: 1_000, ..small() };
        let most = limits.server_queue + limits.road() + 64 * 1024;
        let mut world = World::new(threads, limits);
        let links = [world.client(0), world.client(threads - 1), world.server(0, 1), world.server(threads - 1, 2)];
        let mut ended = [false; 4];
        for (link, pieces) in sent {
            let (frames, error) = cut(&pieces.concat(), &[], 0);
            for frame in frames {
                let at = links[link];
                if !ended[link] && !world.hubs[at.0].is_held(at.1) {
                    ended[link] = world.hubs[at.0].frame(at.1, &frame).is_err();
                    world.run_until_idle();
                }
            }
            if (error.is_some() || ended[link]) && world.hubs[links[link].0].id(links[link].1).is_some() {
                ended[link] = true;
                world.leave(links[link]);
            }
            for (thread, slot) in links {
                prop_assert!(world.hubs[thread].waiting(slot) <= most);
            }
        }
        world.audit();
        for (link, is_gone) in links.into_iter().zip(ended) {
            if !is_gone {
                world.received(link);
                world.leave(link);
            }
        }
        prop_assert!(world.hubs.iter().all(|hub| hub.link_counts() == (0, 0)));
    }
}
