use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;

use super::{WireError, WireRead, WireWrite, names};

type Read<T> = fn(&mut dyn Buf) -> Result<T, WireError>;

/// One kind of number, behind a common type.
struct Kind {
    what: &'static str,
    bits: u32,
    read: Read<i128>,
    write: fn(&mut Vec<u8>, i128) -> Result<(), WireError>,
    range: (i128, i128),
}

/// Reads through `&mut dyn Buf`, and so through every kind of `Buf`.
fn kinds() -> [Kind; 6] {
    let signed32 = (i32::MIN.into(), i32::MAX.into());
    let signed64 = (i64::MIN.into(), i64::MAX.into());
    [
        Kind {
            what: names::VARINT,
            bits: 32,
            read: |buf| buf.try_get_varint().map(Into::into),
            write: |out, value| out.try_put_varint(value as i32),
            range: signed32,
        },
        Kind {
            what: names::VARLONG,
            bits: 64,
            read: |buf| buf.try_get_varlong().map(Into::into),
            write: |out, value| out.try_put_varlong(value as i64),
            range: signed64,
        },
        Kind {
            what: names::UVARINT32,
            bits: 32,
            read: |buf| buf.try_get_uvarint32().map(Into::into),
            write: |out, value| out.try_put_uvarint32(value as u32),
            range: (0, u32::MAX.into()),
        },
        Kind {
            what: names::UVARINT64,
            bits: 64,
            read: |buf| buf.try_get_uvarint64().map(Into::into),
            write: |out, value| out.try_put_uvarint64(value as u64),
            range: (0, u64::MAX.into()),
        },
        Kind {
            what: names::ZIGZAG32,
            bits: 32,
            read: |buf| buf.try_get_zigzag32().map(Into::into),
            write: |out, value| out.try_put_zigzag32(value as i32),
            range: signed32,
        },
        Kind {
            what: names::ZIGZAG64,
            bits: 64,
            read: |buf| buf.try_get_zigzag64().map(Into::into),
            write: |out, value| out.try_put_zigzag64(value as i64),
            range: signed64,
        },
    ]
}

impl Kind {
    fn written(&self, value: i128) -> Vec<u8> {
        let mut out = Vec::new();
        (self.write)(&mut out, value).unwrap();
        out
    }

    fn read(&self, mut wire: &[u8]) -> Result<i128, WireError> {
        (self.read)(&mut wire)
    }

    /// Reads `wire` cut in two at each place, and expects the same every time, and nothing else to be consumed.
    #[track_caller]
    fn goes_there_and_back(&self, value: i128, wire: &[u8]) {
        assert_eq!(self.written(value), wire, "{} {value}", self.what);
        for cut in 0..=wire.len() {
            let (front, back) = wire.split_at(cut);
            let mut chain = front.chain(back).chain(&b"\xffrest"[..]);
            assert_eq!((self.read)(&mut chain), Ok(value), "{} {value} cut at {cut}", self.what);
            assert_eq!(chain.remaining(), 5);
        }
        for len in 0..wire.len() {
            let (needed, remaining) = (len + 1, len);
            let truncated = WireError::Truncated { what: self.what, needed, remaining };
            assert_eq!(self.read(&wire[..len]), Err(truncated));
        }
    }
}

fn kind(what: &str) -> Kind {
    kinds().into_iter().find(|kind| kind.what == what).unwrap()
}

/// The samples of <https://minecraft.wiki/w/Java_Edition_protocol/Data_types#VarInt_and_VarLong>.
#[test]
fn the_samples_of_the_minecraft_protocol_go_there_and_back() {
    let varints: [(i32, &[u8]); 11] = [
        (0, &[0x00]),
        (1, &[0x01]),
        (2, &[0x02]),
        (127, &[0x7f]),
        (128, &[0x80, 0x01]),
        (255, &[0xff, 0x01]),
        (25_565, &[0xdd, 0xc7, 0x01]),
        (2_097_151, &[0xff, 0xff, 0x7f]),
        (2_147_483_647, &[0xff, 0xff, 0xff, 0xff, 0x07]),
        (-1, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        (-2_147_483_648, &[0x80, 0x80, 0x80, 0x80, 0x08]),
    ];
    for (value, wire) in varints {
        kind(names::VARINT).goes_there_and_back(value.into(), wire);
    }
    let varlongs: [(i64, &[u8]); 11] = [
        (0, &[0x00]),
        (1, &[0x01]),
        (2, &[0x02]),
        (127, &[0x7f]),
        (128, &[0x80, 0x01]),
        (255, &[0xff, 0x01]),
        (2_147_483_647, &[0xff, 0xff, 0xff, 0xff, 0x07]),
        (9_223_372_036_854_775_807, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        (-1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        (-2_147_483_648, &[0x80, 0x80, 0x80, 0x80, 0xf8, 0xff, 0xff, 0xff, 0xff, 0x01]),
        (i64::MIN, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]),
    ];
    for (value, wire) in varlongs {
        kind(names::VARLONG).goes_there_and_back(value.into(), wire);
    }
}

/// The samples of <https://protobuf.dev/programming-guides/encoding/>: "Base 128 Varints" and "Signed Integers".
#[test]
fn the_samples_of_protocol_buffers_go_there_and_back() {
    for what in [names::UVARINT32, names::UVARINT64] {
        kind(what).goes_there_and_back(1, &[0x01]);
        kind(what).goes_there_and_back(150, &[0x96, 0x01]);
    }
    for what in [names::ZIGZAG32, names::ZIGZAG64] {
        for (value, folded) in [(0, 0), (-1, 1), (1, 2), (-2, 3)] {
            kind(what).goes_there_and_back(value, &[folded]);
        }
        kind(what).goes_there_and_back(0x7fff_ffff, &[0xfe, 0xff, 0xff, 0xff, 0x0f]);
        kind(what).goes_there_and_back(-0x8000_0000, &[0xff, 0xff, 0xff, 0xff, 0x0f]);
    }
    let minus_two = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    kind(names::VARLONG).goes_there_and_back(-2, &minus_two);
    let refused = Err(WireError::Overflow { what: names::VARINT, bits: 32 });
    assert_eq!(kind(names::VARINT).read(&minus_two), refused, "a negative int32 takes 10 bytes there");
}

#[test]
fn padded_numbers_are_read_up_to_the_most_bytes_of_their_type() {
    for kind in kinds() {
        let most = kind.bits as usize / 7 + 1;
        for len in 2..=most {
            let mut wire = vec![0x80; len];
            wire[len - 1] = 0;
            assert_eq!(kind.read(&wire), Ok(0), "{} of {len} bytes", kind.what);
        }
        let mut wire = vec![0x80; most + 1];
        wire[most] = 0;
        let overflow = Err(WireError::Overflow { what: kind.what, bits: kind.bits });
        assert_eq!(kind.read(&wire), overflow, "one byte more");
    }
}

#[test]
fn one_bit_too_many_is_an_error_and_so_is_a_number_that_never_ends() {
    for kind in kinds() {
        let most = kind.bits as usize / 7 + 1;
        let overflow = Err(WireError::Overflow { what: kind.what, bits: kind.bits });
        for last in [1 << (kind.bits % 7), 0x7f, 0x80, 0xff] {
            let mut wire = vec![0xff; most];
            wire[most - 1] = last;
            assert_eq!(kind.read(&wire), overflow, "{} with {last:#x} last", kind.what);
            let (front, back) = wire.split_at(3);
            assert_eq!((kind.read)(&mut front.chain(back)), overflow, "{} in two chunks", kind.what);
        }
        assert_eq!(kind.read(&[0xff; 1000]), overflow);
    }
}

#[test]
fn a_bool_is_0_or_1() {
    let mut out = BytesMut::new();
    out.try_put_bool(false).unwrap();
    out.try_put_bool(true).unwrap();
    assert_eq!(out, [0, 1][..]);
    assert_eq!((out.try_get_bool(), out.try_get_bool()), (Ok(false), Ok(true)));
    let truncated = WireError::Truncated { what: names::BOOL, needed: 1, remaining: 0 };
    assert_eq!(out.try_get_bool(), Err(truncated));
    for byte in 2..=255 {
        assert_eq!((&[byte][..]).try_get_bool(), Err(WireError::NotBool { byte }));
    }
}

#[test]
fn a_string_is_read_only_whole_and_up_to_its_maximum() {
    let text = "ß".repeat(100);
    let mut wire = Vec::new();
    wire.try_put_string(&text, 200).unwrap();
    assert_eq!(wire[..2], [200, 1]);
    assert_eq!((&wire[..]).try_get_string(200), Ok(text.clone()));
    assert_eq!((&wire[..]).try_get_byte_array(usize::MAX), Ok(Bytes::from(text.clone())));
    let too_long = |max| Err(WireError::TooLong { what: names::STRING, len: 200, max });
    assert_eq!((&wire[..]).try_get_string(199), too_long(199));
    assert_eq!((&wire[..2]).try_get_string(199), too_long(199), "before it is there");
    assert_eq!(
        wire.try_put_string(&text, 199),
        Err(WireError::TooLong { what: names::STRING, len: 200, max: 199 })
    );
    assert_eq!(wire.len(), 202, "nothing of it was written");
    for len in 0..wire.len() {
        let (what, needed, remaining) =
            if len < 2 { (names::LENGTH, len + 1, len) } else { (names::STRING, 200, len - 2) };
        let truncated = WireError::Truncated { what, needed, remaining };
        assert_eq!((&wire[..len]).try_get_string(200), Err(truncated));
        let (front, back) = wire.split_at(len);
        assert_eq!(front.chain(back).try_get_string(200).as_ref(), Ok(&text));
        assert_eq!(front.chain(back).try_get_byte_array(200).as_deref(), Ok(text.as_bytes()));
    }
}

#[test]
fn a_text_that_is_not_utf8_says_where() {
    let error = (&b"\x04ab\xffd"[..]).try_get_string(9).unwrap_err();
    assert_eq!(error, WireError::NotUtf8 { len: 4, at: 2 });
    assert_eq!((&b"\x02a\xc3"[..]).try_get_string(9), Err(WireError::NotUtf8 { len: 2, at: 1 }));
}

/// A buffer that claims to have bytes without end, and fails the test if one is taken.
struct Bottomless(&'static [u8]);

impl Buf for Bottomless {
    fn remaining(&self) -> usize {
        self.0.len()
    }
    fn chunk(&self) -> &[u8] {
        self.0
    }
    fn advance(&mut self, count: usize) {
        self.0 = &self.0[count..];
    }
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        panic!("{len} bytes are copied")
    }
    fn copy_to_slice(&mut self, slice: &mut [u8]) {
        panic!("{} bytes are copied", slice.len())
    }
}

#[test]
fn a_length_is_checked_before_anything_is_copied() {
    let lengths: [(&[u8], usize); 4] = [
        (&[0xff, 0xff, 0xff, 0xff, 0x07], i32::MAX as usize),
        (&[0xff, 0xff, 0xff, 0xff, 0x0f], u32::MAX as usize),
        (&[0x80, 0x80, 0x80, 0x80, 0x08], 1 << 31),
        (&[5, b'a', b'b', b'c', b'd'], 5),
    ];
    for (wire, len) in lengths {
        let bytes = Bottomless(wire).try_get_byte_array(usize::MAX).unwrap_err();
        let string = Bottomless(wire).try_get_string(usize::MAX).unwrap_err();
        for (error, what) in [(bytes, names::BYTES), (string, names::STRING)] {
            let max = i32::MAX as usize;
            let expected = if len > max {
                WireError::TooLong { what, len, max }
            } else {
                WireError::Truncated {
                    what,
                    needed: len,
                    remaining: wire.len() - if len == 5 { 1 } else { 5 },
                }
            };
            assert_eq!(error, expected);
        }
    }
    let overflow = WireError::Overflow { what: names::LENGTH, bits: 32 };
    assert_eq!(Bottomless(&[0xff, 0xff, 0xff, 0xff, 0x1f]).try_get_string(9), Err(overflow));
}

#[test]
fn what_has_no_room_is_not_written_in_part() {
    let mut space = [0; 4];
    let mut out = &mut space[..];
    assert_eq!(out.try_put_varint(-1), Err(WireError::NoRoom { what: names::VARINT, needed: 5, room: 4 }));
    assert_eq!(
        out.try_put_string("hello", 9),
        Err(WireError::NoRoom { what: names::STRING, needed: 6, room: 4 })
    );
    assert_eq!(out.try_put_string("hel", 9), Ok(()));
    assert_eq!(out.try_put_bool(true), Err(WireError::NoRoom { what: names::BOOL, needed: 1, room: 0 }));
    assert_eq!(space, *b"\x03hel");
}

#[test]
fn errors_say_what_is_wrong() {
    let shown = [
        (
            WireError::Truncated { what: names::VARINT, needed: 3, remaining: 2 },
            "packet ends within a VarInt: 3 bytes needed, 2 left",
        ),
        (WireError::Overflow { what: names::VARLONG, bits: 64 }, "a VarLong has more than 64 bits"),
        (
            WireError::TooLong { what: names::STRING, len: 9, max: 5 },
            "a string of 9 bytes is over the maximum of 5",
        ),
        (WireError::NotBool { byte: 7 }, "0x07 is no bool, which is 0 or 1"),
        (WireError::NotUtf8 { len: 9, at: 5 }, "a string of 9 bytes is not UTF-8 at byte 5"),
        (
            WireError::NoRoom { what: names::BOOL, needed: 1, room: 0 },
            "no room for a bool: 1 byte needed, 0 left",
        ),
    ];
    for (error, text) in shown {
        assert_eq!(error.to_string(), text);
    }
}

proptest! {
    #[test]
    fn every_number_goes_there_and_back(bits in any::<u64>(), shift in 0_u32..64) {
        for kind in kinds() {
            // Of each length, as many long ones as short ones.
            let value = match kind.range {
                (0, max) => i128::from(bits >> shift) & max,
                (_, max) if max == i32::MAX.into() => ((bits as i64 >> shift) as i32).into(),
                _ => (bits as i64 >> shift).into(),
            };
            kind.goes_there_and_back(value, &kind.written(value));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused_the_same_in_one_chunk_and_in_many(
        wire in proptest::collection::vec(prop_oneof![any::<u8>(), 0x80..=0xff_u8, 0..3_u8], 0..24),
        cut in 0..24_usize,
    ) {
        let (front, back) = wire.split_at(cut.min(wire.len()));
        for kind in kinds() {
            prop_assert_eq!(kind.read(&wire), (kind.read)(&mut front.chain(back)));
        }
        prop_assert_eq!((&wire[..]).try_get_string(9), front.chain(back).try_get_string(9));
        prop_assert_eq!((&wire[..]).try_get_byte_array(9), front.chain(back).try_get_byte_array(9));
    }

    #[test]
    fn every_text_goes_there_and_back(text in "\\PC{0,300}") {
        let mut wire = BytesMut::new();
        wire.try_put_string(&text, 1200).unwrap();
        prop_assert_eq!((&wire[..]).try_get_string(1200), Ok(text.clone()));
        prop_assert_eq!(wire.try_get_byte_array(1200), Ok(Bytes::from(text)));
        prop_assert!(wire.is_empty());
    }
}
