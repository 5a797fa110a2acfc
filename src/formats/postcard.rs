use std::any::type_name;

use bytes::BytesMut;
use postcard::{Deserializer, ser_flavors::Flavor};
use serde::{Deserialize, Serialize};

use super::{guard::Guard, unwritable};
use crate::{
    decode::{Decode, DecodeError},
    encode::Encode,
    framing::EncodeError,
};

/// A value in the binary format [postcard](https://postcard.jamesmunns.com/wire-format), by serde. With the feature
/// `postcard`.
///
/// ```
/// use framewire::{Decode, Postcard, packet_fn};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// enum Command<'p> { Say(&'p str), Move { x: i16, y: i16 } }
///
/// let handler = packet_fn(|session, packet| {
///     match Postcard::<Command>::decode(packet)? {
///         Postcard(Command::Say(text)) => Ok(session.send(Postcard(&Command::Say(text)))?),
///         Postcard(Command::Move { x, y }) => Ok(session.send(Postcard(&(x, y)))?),
///     }
/// });
/// ```
///
/// The format has no names in it and does not describe itself: both sides need the same types, in the same version. A
/// packet is one value; bytes behind it are refused.
///
/// # What a hostile packet can cost
/// - **Memory:** whatever lengths a packet announces, memory is reserved for no more elements than it has bytes, and 1024,
///   in all lists and maps together, and for at most 1 MiB of them in one list. Beyond that, memory follows what was read.
/// - **Time:** a list of values that take no bytes, such as `Vec<()>`, could have any length. All lists and maps of a
///   packet together have no more elements than the packet has bytes, and 1024.
/// - **Stack:** values are read up to a depth of 128: each struct, list, map, option, newtype and variant is one deeper
///   than what it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Postcard<T>(pub T);

const FORMAT: &str = "postcard";

impl<T: Serialize> Encode for Postcard<T> {
    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        postcard::serialize_with_flavor(&self.0, Out(out)).map_err(|error| unwritable::<T>(FORMAT, error))
    }
}

/// The end of the packet, as postcard writes to it.
struct Out<'a>(&'a mut BytesMut);

impl Flavor for Out<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

impl<'p, T: Deserialize<'p>> Decode<'p> for Postcard<T> {
    fn decode(packet: &'p [u8]) -> Result<Self, DecodeError> {
        let guard = Guard::new(packet);
        let mut deserializer = Deserializer::from_bytes(packet);
        let value = guard.read(&mut deserializer);
        let rest = deserializer.finalize().map_or(0, <[u8]>::len);
        let at = packet.len().saturating_sub(rest);
        let refused = |why: &dyn std::fmt::Display| {
            DecodeError::format(FORMAT, type_name::<T>(), format_args!("{why} at byte {at}"))
        };
        match (value, guard.refusal()) {
            (Ok(value), _) if rest == 0 => Ok(Self(value)),
            (Ok(_), _) => Err(refused(&format_args!("{rest} bytes too many"))),
            (Err(_), Some(why)) => Err(refused(&why)),
            (Err(error), None) => Err(refused(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::wire::WireWrite;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Command<'p> {
        Say(&'p str),
        Move { x: i16, y: i16 },
    }

    /// The examples of <https://postcard.jamesmunns.com/wire-format>: varints, zigzag, enums by number.
    #[test]
    fn a_value_goes_there_and_back_and_may_borrow_from_the_packet() {
        let packet = Postcard(&Command::Say("hi")).to_bytes().unwrap();
        assert_eq!(packet, b"\x00\x02hi"[..]);
        assert_eq!(Postcard::decode(&packet), Ok(Postcard(Command::Say("hi"))));
        let packet = Postcard(&Command::Move { x: -1, y: 300 }).to_bytes().unwrap();
        assert_eq!(packet, b"\x01\x01\xd8\x04"[..]);
        assert_eq!(Postcard::decode(&packet), Ok(Postcard(Command::Move { x: -1, y: 300 })));
    }

    #[test]
    fn a_packet_that_is_no_such_value_says_what_and_where() {
        let command = type_name::<Command<'_>>();
        for (packet, why) in [
            (&b"\x00\x05hi"[..], "Hit the end of buffer, expected more data at byte 2"),
            (b"\x00\x01\xff", "Tried to parse invalid utf-8 at byte 3"),
            (b"\x07", "Serde Deserialization Error at byte 1"),
            (b"\x01\x00\x00abc", "3 bytes too many at byte 3"),
            (b"", "Hit the end of buffer, expected more data at byte 0"),
        ] {
            let error = Postcard::<Command<'_>>::decode(packet).unwrap_err();
            assert_eq!(error.to_string(), format!("packet is no {command} in postcard: {why}"));
        }
    }

    #[test]
    fn a_list_whose_length_is_not_known_is_not_sent() {
        struct Endless;
        impl Serialize for Endless {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq((0..).take_while(|number| *number < 3))
            }
        }
        let error = Postcard(Endless).to_bytes().unwrap_err();
        assert!(
            error.to_string().ends_with("as postcard: The length of a sequence must be known"),
            "{error}"
        );
    }

    /// A list that announces `len` elements, and nothing else.
    fn announced(len: u64) -> Vec<u8> {
        let mut packet = Vec::new();
        packet.try_put_uvarint64(len).unwrap();
        packet
    }

    /// Counts what a deserializer has announced.
    #[derive(Debug)]
    struct Hinted(Option<usize>);

    impl<'de> Deserialize<'de> for Hinted {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Look;
            impl<'de> serde::de::Visitor<'de> for Look {
                type Value = Hinted;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a list")
                }
                fn visit_seq<A: serde::de::SeqAccess<'de>>(self, seq: A) -> Result<Hinted, A::Error> {
                    Ok(Hinted(seq.size_hint()))
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Hinted, A::Error> {
                    Ok(Hinted(map.size_hint()))
                }
            }
            if deserializer.is_human_readable() {
                return Err(serde::de::Error::custom("postcard is not for people"));
            }
            deserializer.deserialize_map(Look)
        }
    }

    #[test]
    fn a_length_in_a_packet_promises_no_more_than_the_packet_can_hold() {
        for len in [5_000, 1 << 32, u64::MAX] {
            let packet = announced(len);
            let Postcard(Hinted(hint)) = Postcard::decode(&packet).unwrap();
            assert!(hint.is_none_or(|hint| hint <= 1024 + packet.len()), "{hint:?} of {len}");
            assert!(Postcard::<Vec<u64>>::decode(&packet).is_err());
            assert!(Postcard::<String>::decode(&packet).is_err());
            assert!(Postcard::<BTreeMap<u8, u8>>::decode(&packet).is_err());
        }
    }

    #[test]
    fn many_lengths_together_promise_no_more_than_the_packet_can_hold() {
        let packet = [&[100][..], &announced(u64::MAX).repeat(100)].concat();
        let Postcard(hints) = Postcard::<Vec<Hinted>>::decode(&packet).unwrap();
        let promised: usize = hints.iter().filter_map(|hinted| hinted.0).sum();
        assert!(hints.len() == 100 && promised <= 1024 + packet.len(), "{promised}");
    }

    #[test]
    fn a_list_of_nothings_ends() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Nothing;
        let few = Postcard(vec![Nothing, Nothing]).to_bytes().unwrap();
        assert_eq!(Postcard::decode(&few), Ok(Postcard(vec![Nothing, Nothing])));
        for len in [2_000, u64::MAX] {
            let packet = announced(len);
            let many = [Postcard::<Vec<()>>::decode(&packet).unwrap_err(), {
                Postcard::<Vec<Nothing>>::decode(&packet).unwrap_err()
            }];
            for error in many {
                assert!(
                    error.to_string().contains("more elements than a packet of this length may have"),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn a_deep_packet_is_refused_before_the_stack_is_used_up() {
        #[derive(Debug, Serialize, Deserialize)]
        struct List {
            next: Option<Box<List>>,
        }
        #[derive(Debug, Serialize, Deserialize)]
        enum Tree {
            Leaf,
            Branch(Box<Tree>),
        }
        #[derive(Debug, Serialize, Deserialize)]
        struct Nested(Vec<Nested>);
        let deep = [1; 1_000_000];
        let errors = [
            Postcard::<List>::decode(&deep).map(|_| ()).unwrap_err(),
            Postcard::<Tree>::decode(&deep).map(|_| ()).unwrap_err(),
            Postcard::<Nested>::decode(&deep).map(|_| ()).unwrap_err(),
        ];
        for error in errors {
            assert!(error.to_string().contains("nested deeper than 128 at byte "), "{error}");
        }
        let shallow = [&[1; 60][..], &[0]].concat();
        assert!(Postcard::<List>::decode(&shallow).is_ok());
        assert!(Postcard::<Tree>::decode(&shallow).is_ok());
    }

    proptest! {
        #[test]
        fn any_texts_and_numbers_go_there_and_back(values in vec(any::<(String, i64, Option<bool>, [char; 3])>(), 0..5)) {
            let packet = Postcard(&values).to_bytes().unwrap();
            prop_assert_eq!(Postcard::decode(&packet), Ok(Postcard(values)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(packet: Vec<u8>) {
            let _ = Postcard::<Vec<(String, Option<Vec<u64>>)>>::decode(&packet);
            let _ = Postcard::<Command<'_>>::decode(&packet);
        }
    }
}
