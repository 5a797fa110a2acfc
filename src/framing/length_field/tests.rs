use super::*;
use crate::framing::EncodeError;

fn built(builder: LengthFieldBuilder) -> LengthField {
    builder.build().unwrap()
}

/// Decodes `frame`, and encodes what came out again.
fn packet_and_back(framing: LengthField, frame: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut buf = [frame, b"next"].concat();
    let decoded = framing.clone().decode(&mut buf).unwrap().unwrap();
    let Decoded::Packet { payload, consumed } = decoded else { panic!("{decoded:?}") };
    assert_eq!(consumed, frame.len());
    let packet = buf[payload].to_vec();
    let mut out = BytesMut::new();
    framing.encode(&packet, &mut out).unwrap();
    (packet, out.to_vec())
}

#[test]
fn a_field_takes_40_bytes_of_a_session() {
    assert!(size_of::<LengthField>() <= 40, "{}", size_of::<LengthField>());
}

/// The seven examples of Netty's documentation, decoded and encoded again.
#[test]
fn the_examples_of_netty_decode_as_documented_and_encode_back() {
    const HELLO: &[u8] = b"HELLO, WORLD";
    let f = LengthField::builder;
    let h = |header: &[u8]| [header, HELLO].concat();
    let mid = |head: &[u8], tail: &[u8]| [head, &[0xfe], tail, HELLO].concat();
    let cases = [
        (f(2), h(&[0, 12]), 0),
        (f(2).strip(2), h(&[0, 12]), 2),
        (f(2).adjustment(-2), h(&[0, 14]), 0),
        (f(2).length_includes_header(), h(&[0, 14]), 0),
        (f(3).offset(2), h(&[0xca, 0xfe, 0, 0, 12]), 0),
        (f(3).adjustment(2), h(&[0, 0, 12, 0xca, 0xfe]), 0),
        (f(2).offset(1).adjustment(1).strip(3), mid(&[0xca, 0, 12], &[]), 3),
        (f(2).offset(1).adjustment(-3).strip(3), mid(&[0xca, 0, 16], &[]), 3),
        (f(2).offset(1).length_includes_header().strip(1), mid(&[0xca, 0, 16], &[]), 1),
    ];
    for (builder, frame, strip) in cases {
        let builder = builder.header(&frame[..strip]);
        let (packet, back) = packet_and_back(built(builder.clone()), &frame);
        assert_eq!(packet, frame[strip..], "{builder:?}");
        assert_eq!(back, frame, "{builder:?}");
    }
}

#[test]
fn stripped_bytes_are_written_as_zeros_where_no_header_was_given() {
    let framing = built(LengthField::builder(1).offset(2).strip(3));
    let mut out = BytesMut::new();
    framing.encode(b"ab", &mut out).unwrap();
    assert_eq!(out, [0, 0, 2, b'a', b'b'][..]);
}

#[test]
fn a_field_that_is_not_stripped_is_overwritten_in_the_payload() {
    let framing = built(LengthField::builder(2).byte_order(ByteOrder::Little).offset(1));
    let mut out = BytesMut::new();
    framing.encode(b"m??body", &mut out).unwrap();
    assert_eq!(out, b"m\x04\0body"[..]);
    assert!(matches!(framing.encode(b"m?", &mut out), Err(EncodeError::Unencodable { .. })));
}

#[test]
fn settings_that_cannot_work_are_refused_when_built() {
    use FramingConfigError as E;
    let f = LengthField::builder;
    let cases = [
        (f(5), E::Width { width: 5 }),
        (f(0), E::Width { width: 0 }),
        (f(2).offset(65_534), E::Offset { end: 65_536, max: 65_535 }),
        (f(2).offset(usize::MAX), E::Offset { end: usize::MAX, max: 65_535 }),
        (f(2).strip(3), E::Strip { strip: 3, max: 2 }),
        (f(2).adjustment(-2).strip(3), E::Strip { strip: 3, max: 2 }),
        (f(2).adjustment(1).strip(4), E::Strip { strip: 4, max: 3 }),
        (f(4).offset(1).strip(3), E::StripInField { strip: 3 }),
        (f(2).strip(2).header([1]), E::Header { len: 1, strip: 2 }),
        (f(2).adjustment(1 << 31), E::Adjustment { adjustment: 1 << 31, max: (1 << 31) - 1 }),
        (f(2).adjustment(i64::MIN), E::Adjustment { adjustment: i64::MIN, max: (1 << 31) - 1 }),
    ];
    for (builder, error) in cases {
        assert_eq!(builder.clone().build().unwrap_err(), error, "{builder:?}");
    }
    assert!(f(2).adjustment(1).strip(3).build().is_ok(), "the header goes on behind the field");
}

#[test]
fn hostile_lengths_never_overflow_and_are_refused_with_the_field_alone() {
    let hostile = [1 << 31, (1 << 32) - 1, (1 << 32) + 5, 1 << 63, u64::MAX - 11, u64::MAX];
    for value in hostile {
        for adjustment in [0, -8, 8, i64::from(i32::MAX), -i64::from(i32::MAX)] {
            let framing = built(LengthField::builder(8).adjustment(adjustment)).max(1 << 20);
            for oversize in [Oversize::Close, Oversize::Discard] {
                let mut buf = value.to_be_bytes();
                let decoded = framing.clone().oversize(oversize).decode(&mut buf);
                let len = (i128::from(value) + i128::from(adjustment) + 8).min(u64::MAX.into());
                let expected = if len < 8 {
                    FrameError::malformed("the length does not reach the end of its own field", &buf)
                } else {
                    FrameError::too_long(len as u64, 1 << 20, &buf)
                };
                let rejected = Decoded::Rejected { consumed: 8, error: expected.clone() };
                if (8..=1 << 20).contains(&len) {
                    assert_eq!(decoded, Ok(None), "the adjustment brings it down to what is allowed");
                    continue;
                }
                let discarded = oversize == Oversize::Discard && len >= 8;
                let expected = if discarded { Ok(Some(rejected)) } else { Err(expected) };
                assert_eq!(decoded, expected, "{value} {adjustment}");
            }
        }
    }
}

#[test]
fn a_length_that_ends_before_its_own_field_is_malformed() {
    let mut framing = built(LengthField::builder(2).length_includes_header());
    assert_eq!(
        framing.decode(&mut [0, 2, 9]),
        Ok(Some(Decoded::Packet { payload: 0..2, consumed: 2 })),
        "an empty body"
    );
    assert!(matches!(framing.decode(&mut [0, 1, 9]), Err(FrameError::Malformed { .. })));
    assert!(matches!(framing.decode(&mut [0, 0]), Err(FrameError::Malformed { .. })));
}

#[test]
fn the_maximum_counts_the_whole_frame_after_adjustment() {
    let framing = built(LengthField::builder(1).offset(1).adjustment(1).strip(3)).max(10);
    let mut exact = [7, 7, 0, 1, 2, 3, 4, 5, 6, 7];
    assert!(matches!(framing.clone().decode(&mut exact), Ok(Some(Decoded::Packet { consumed: 10, .. }))));
    let error = framing.clone().decode(&mut [7, 8]).unwrap_err();
    assert_eq!(error, FrameError::too_long(11, 10, &[7, 8]));
    let mut out = BytesMut::new();
    assert_eq!(framing.encode(&[0; 7], &mut out), Ok(()));
    assert_eq!(framing.encode(&[0; 8], &mut out), Err(EncodeError::too_long(11, 10)));
    assert_eq!(framing.max_frame(), Some(10));
}

#[test]
fn a_payload_that_the_field_cannot_say_is_an_error() {
    let framing = built(LengthField::builder(1).length_includes_header().strip(1));
    assert_eq!(framing.max_frame(), Some(255), "the field counts itself");
    let mut out = BytesMut::new();
    assert_eq!(framing.encode(&[1; 254], &mut out), Ok(()));
    assert_eq!(framing.encode(&[1; 255], &mut out), Err(EncodeError::too_long(256, 255)));
}
