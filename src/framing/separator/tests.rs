use super::*;
use crate::framing::EncodeError;

/// Feeds `wire` in pieces of `piece` bytes; returns the packets, then what stopped it. Checks the bound on what is
/// held.
fn packets(mut framing: Separator, wire: &[u8], piece: usize) -> (Vec<Vec<u8>>, Result<(), FrameError>) {
    let (mut held, mut packets) = (Vec::new(), Vec::new());
    for chunk in wire.chunks(piece) {
        held.extend_from_slice(chunk);
        while !held.is_empty() {
            match framing.decode(&mut held) {
                Ok(Some(Decoded::Packet { payload, consumed })) => {
                    packets.push(held[payload].to_vec());
                    held.drain(..consumed);
                }
                Ok(Some(Decoded::Skipped { consumed } | Decoded::Rejected { consumed, .. })) => {
                    held.drain(..consumed);
                }
                Ok(None) => break,
                Err(error) => return (packets, Err(error)),
            }
        }
        assert!(held.len() <= framing.max_frame().unwrap());
    }
    (packets, Ok(()))
}

fn strings(packets: &[Vec<u8>]) -> Vec<&str> {
    packets.iter().map(|packet| std::str::from_utf8(packet).unwrap()).collect()
}

#[test]
fn a_separator_takes_40_bytes_of_a_session() {
    assert!(size_of::<Separator>() <= 40, "{}", size_of::<Separator>());
}

#[test]
fn lines_lose_one_carriage_return_and_no_more() {
    for piece in 1..20 {
        let (packets, _) = packets(Separator::lines(), b"a\nb\r\nc\r\r\n\r\n\n\rd\n\r", piece);
        assert_eq!(strings(&packets), ["a", "b", "c\r", "", "", "\rd"]);
    }
}

#[test]
fn a_line_that_ends_in_a_carriage_return_survives_the_way_there_and_back() {
    let mut out = BytesMut::new();
    Separator::lines().encode(b"a\r", &mut out).unwrap();
    assert_eq!(out, b"a\r\r\n"[..]);
}

#[test]
fn crlf_keeps_lone_halves_in_the_packet() {
    for piece in 1..12 {
        assert_eq!(
            strings(&packets(Separator::crlf(), b"a\rb\nc\r\r\n\n\r\n", piece).0),
            ["a\rb\nc\r", "\n"]
        );
    }
}

#[test]
fn a_self_overlapping_separator_is_found_leftmost_and_without_overlap() {
    for piece in 1..8 {
        assert_eq!(strings(&packets(Separator::bytes("aab").unwrap(), b"aaabaab", piece).0), ["a", ""]);
        assert_eq!(strings(&packets(Separator::bytes("aa").unwrap(), b"xaaay", piece).0), ["x"]);
        assert_eq!(strings(&packets(Separator::bytes("abab").unwrap(), b"ababab", piece).0), [""]);
    }
}

#[test]
fn separators_that_cannot_work_are_refused_when_built() {
    use FramingConfigError as E;
    assert_eq!(Separator::bytes("").unwrap_err(), E::EmptySeparator);
    assert_eq!(Separator::any_of(["a", ""]).unwrap_err(), E::EmptySeparator);
    assert_eq!(Separator::any_of::<[&str; 0]>([]).unwrap_err(), E::SeparatorCount { count: 0, max: 64 });
    assert_eq!(
        Separator::any_of((0..65_u8).map(|b| [b])).unwrap_err(),
        E::SeparatorCount { count: 65, max: 64 }
    );
    assert_eq!(Separator::bytes([0; 256]).unwrap_err(), E::LongSeparator { len: 256, max: 255 });
    assert!(Separator::bytes([0; 255]).is_ok());
}

#[test]
fn a_packet_comes_with_its_separator_even_where_a_longer_one_could_grow() {
    let framing = Separator::any_of(["\r", "\r\n", "\r\n\r\n"]).unwrap();
    let mut lockstep = framing.clone();
    let first = Decoded::Packet { payload: 0..1, consumed: 2 };
    assert_eq!(lockstep.decode(&mut b"a\r".to_owned()), Ok(Some(first)));
    assert_eq!(lockstep.decode(&mut b"\n".to_owned()), Ok(Some(Decoded::Skipped { consumed: 1 })));
    let wire = b"a\r\nb\rc\r\n\r\nd\r\n\r\re\r";
    for piece in 1..=wire.len() {
        assert_eq!(
            strings(&packets(framing.clone(), wire, piece).0),
            ["a", "b", "c", "d", "", "", "e"],
            "{piece}"
        );
    }
}

#[test]
fn what_grows_no_further_belongs_to_the_next_packet() {
    let framing = Separator::any_of(["a", "abc"]).unwrap();
    for piece in 1..8 {
        assert_eq!(strings(&packets(framing.clone(), b"xabdaabca", piece).0), ["x", "bd", "", ""], "{piece}");
    }
    let mut at_end = framing.deliver_tail();
    assert_eq!(
        at_end.decode(&mut b"xab".to_owned()),
        Ok(Some(Decoded::Packet { payload: 0..1, consumed: 2 }))
    );
    assert_eq!(at_end.decode(&mut b"b".to_owned()), Ok(None), "bc would belong to the separator");
    let tail = Decoded::Packet { payload: 0..1, consumed: 1 };
    assert_eq!(at_end.decode_eof(&mut b"b".to_owned()), Ok(Some(tail)));
}

#[test]
fn the_separator_that_begins_first_wins_over_one_that_ends_first() {
    let framing = Separator::any_of(["abcd", "c"]).unwrap();
    for piece in 1..8 {
        assert_eq!(strings(&packets(framing.clone(), b"xabcdyabcc", piece).0), ["x", "yab", ""], "{piece}");
    }
    let mut at_end = framing;
    assert_eq!(at_end.decode(&mut b"xabc".to_owned()), Ok(None));
    let last = Decoded::Packet { payload: 0..3, consumed: 4 };
    assert_eq!(at_end.decode_eof(&mut b"xabc".to_owned()), Ok(Some(last)));
}

#[test]
fn a_packet_of_exactly_the_maximum_passes_wherever_its_separator_is_cut() {
    for separator in ["\n", "\r\n", "aab", "abab"] {
        let framing = Separator::bytes(separator).unwrap().max(5);
        let wire = format!("12345{separator}6{separator}");
        for piece in 1..=wire.len() {
            assert_eq!(strings(&packets(framing.clone(), wire.as_bytes(), piece).0), ["12345", "6"]);
        }
    }
    for piece in 1..8 {
        let (packets, end) = packets(Separator::lines().max(5), b"12345\r\n12345\n", piece);
        assert_eq!((strings(&packets), end), (vec!["12345", "12345"], Ok(())));
    }
}

#[test]
fn a_packet_over_the_maximum_is_refused_as_soon_as_it_is_certain() {
    let cases: [(Separator, &[u8]); 4] = [
        (Separator::nul(), b"123456"),
        (Separator::lines(), b"12345\r1"),
        (Separator::bytes("abab").unwrap(), b"12345abaa"),
        (Separator::any_of(["ab", "abc", "x"]).unwrap(), b"12345ac"),
    ];
    for (framing, wire) in cases {
        let mut framing = framing.max(5);
        for held in 1..wire.len() {
            assert_eq!(framing.decode(&mut wire[..held].to_vec()), Ok(None));
        }
        let error = FrameError::too_long(wire.len() as u64, 5, wire);
        assert_eq!(framing.decode(&mut wire.to_vec()), Err(error));
    }
}

#[test]
fn a_discarded_packet_is_reported_once_and_the_next_one_is_found() {
    for separator in ["\n", "aab", "\r\n"] {
        let framing = Separator::bytes(separator).unwrap().max(3).oversize(Oversize::Discard);
        let wire = format!("12345678901{separator}ok{separator}1234{separator}123{separator}");
        for piece in 1..=wire.len() {
            assert_eq!(
                strings(&packets(framing.clone(), wire.as_bytes(), piece).0),
                ["ok", "123"],
                "{piece}"
            );
        }
    }
}

#[test]
fn a_tail_without_separator_is_truncated_or_delivered_as_asked() {
    let tail = || b"abc".to_owned();
    assert_eq!(Separator::lines().decode_eof(&mut tail()), Err(FrameError::truncated(b"abc")));
    let mut delivering = Separator::lines().deliver_tail();
    let packet = Decoded::Packet { payload: 0..3, consumed: 3 };
    assert_eq!(delivering.decode_eof(&mut tail()), Ok(Some(packet)));
    assert_eq!(delivering.decode_eof(&mut []), Ok(None));
    let mut short = Separator::crlf().max(3).deliver_tail();
    assert_eq!(short.decode_eof(&mut b"abc\r".to_owned()), Err(FrameError::too_long(4, 3, b"abc\r")));
}

#[test]
fn a_payload_that_would_not_come_back_whole_is_refused_on_encode() {
    let refused = |framing: &Separator, payload: &[u8]| {
        let mut out = BytesMut::from(&b"before"[..]);
        let error = framing.encode(payload, &mut out).unwrap_err();
        assert!(matches!(error, EncodeError::Unencodable { .. }), "{error}");
        assert_eq!(out, b"before"[..]);
    };
    refused(&Separator::lines(), b"a\nb");
    refused(&Separator::bytes("aa").unwrap(), b"xa");
    refused(&Separator::any_of(["c", "abcd"]).unwrap(), b"xab");
    let mut out = BytesMut::new();
    Separator::any_of(["\r", "\r\n", "\n"]).unwrap().encode(b"a", &mut out).unwrap();
    assert_eq!(
        out,
        b"a\r\n"[..],
        "a lone carriage return would swallow a newline that the next packet begins with"
    );
}

#[test]
fn what_was_scanned_is_not_scanned_again() {
    for (mut framing, looked_back) in [
        (Separator::lines(), 0),
        (Separator::bytes("ab--").unwrap(), 3),
        (Separator::any_of(["ab--", "b"]).unwrap(), 0),
    ] {
        let mut held = Vec::new();
        for _ in 0..5_000 {
            held.push(b'x');
            assert_eq!(framing.decode(&mut held), Ok(None));
            assert!(framing.scanned + looked_back >= held.len(), "one read is scanned, not all that is held");
        }
    }
}
