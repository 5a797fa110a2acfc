use std::{any::type_name, fmt, fmt::Write, sync::Arc};

use bytes::Bytes;
use thiserror::Error;

use crate::wire::WireError;

/// What a packet can be read as: the way in, as [`Encode`](crate::Encode) is the way out.
///
/// Implemented for bytes (`&[u8]`, `Vec<u8>`, `Bytes`, `[u8; N]`) and texts in UTF-8 (`&str`, `String`). Values may
/// borrow from the packet. With the features `json`, `postcard`, `xml` and `zerocopy` there are wrappers for values of
/// serde and zerocopy, such as `Json`; with `lz4` one for compressed bytes.
///
/// ```
/// use framewire::{Decode, DecodeError, packet_fn, wire::WireRead};
///
/// struct Move<'p> { player: i32, chat: &'p [u8] }
///
/// impl<'p> Decode<'p> for Move<'p> {
///     fn decode(mut packet: &'p [u8]) -> Result<Self, DecodeError> {
///         let player = packet.try_get_varint()?;
///         Ok(Self { player, chat: packet })
///     }
/// }
///
/// let handler = packet_fn(|session, packet| {
///     let Move { player, chat } = Move::decode(packet)?; // an error closes the session with this reason
///     Ok(session.send(format_args!("{player} says {}", chat.escape_ascii()))?)
/// });
/// ```
pub trait Decode<'p>: Sized {
    /// Reads the whole packet.
    ///
    /// # Errors
    /// The packet is not such a value, or has bytes behind it.
    fn decode(packet: &'p [u8]) -> Result<Self, DecodeError>;
}

/// The peer has sent a packet that is not what it should be.
///
/// A callback that passes it on with `?` closes the session with
/// [`CloseReason::Handler`](crate::CloseReason::Handler). What a format says about a packet may quote it; 200 bytes of
/// that are kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A text is not UTF-8.
    #[error("packet of {len} bytes is not UTF-8 at byte {at}")]
    #[non_exhaustive]
    NotUtf8 {
        /// The length of the packet, in bytes.
        len: usize,
        /// How many of its bytes are UTF-8.
        at: usize,
    },
    /// The value has another length than the packet.
    #[error("packet has {len} bytes, {what} has {expected}")]
    #[non_exhaustive]
    Length {
        /// The length of the packet, in bytes.
        len: usize,
        /// The length of the value, in bytes.
        expected: usize,
        /// The type of the value.
        what: &'static str,
    },
    /// A part of the packet cannot be read, by [`wire`](crate::wire).
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The packet is not a value in its format.
    #[error("packet is no {what} in {format}: {why}")]
    #[non_exhaustive]
    Format {
        /// The name of the format.
        format: &'static str,
        /// The type of the value.
        what: &'static str,
        /// What is wrong, and where, as text for people.
        why: Arc<str>,
    },
    /// The packet is wrong for a reason of the handler's.
    #[error("{why}")]
    #[non_exhaustive]
    Invalid {
        /// What is wrong, as text for people.
        why: Arc<str>,
    },
}

impl DecodeError {
    /// Creates an error for a [`Decode`] of your own; `why` is shown as it is, up to 200 bytes of it.
    pub fn because(why: impl fmt::Display) -> Self {
        Self::Invalid { why: bounded(why) }
    }

    /// The packet is no value of the type `what` in this format.
    #[cfg(any(feature = "json", feature = "postcard", feature = "xml", feature = "zerocopy"))]
    pub(crate) fn format(format: &'static str, what: &'static str, why: impl fmt::Display) -> Self {
        Self::Format { format, what, why: bounded(why) }
    }

    /// The packet has not the length of `T`.
    pub(crate) fn length<T: ?Sized>(len: usize, expected: usize) -> Self {
        Self::Length { len, expected, what: type_name::<T>() }
    }
}

/// The most bytes that are kept of a text about a packet or a value: it may quote all of it.
const MOST_WHY: usize = 200;

/// The text of `why`, cut where it gets too long.
pub(crate) fn bounded(why: impl fmt::Display) -> Arc<str> {
    struct Bounded(String);

    impl Write for Bounded {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for char in text.chars() {
                if self.0.len() + char.len_utf8() > MOST_WHY {
                    self.0.push('…');
                    return Err(fmt::Error);
                }
                self.0.push(char);
            }
            Ok(())
        }
    }

    let mut text = Bounded(String::new());
    // An error only says that there was more.
    let _ = write!(text, "{why}");
    text.0.into()
}

impl<'p> Decode<'p> for &'p [u8] {
    fn decode(packet: &'p [u8]) -> Result<Self, DecodeError> {
        Ok(packet)
    }
}

impl Decode<'_> for Vec<u8> {
    fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        Ok(packet.to_vec())
    }
}

impl Decode<'_> for Bytes {
    fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self::copy_from_slice(packet))
    }
}

impl<const N: usize> Decode<'_> for [u8; N] {
    fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        packet.try_into().map_err(|_| DecodeError::length::<Self>(packet.len(), N))
    }
}

impl<'p> Decode<'p> for &'p str {
    fn decode(packet: &'p [u8]) -> Result<Self, DecodeError> {
        std::str::from_utf8(packet)
            .map_err(|error| DecodeError::NotUtf8 { len: packet.len(), at: error.valid_up_to() })
    }
}

impl Decode<'_> for String {
    fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        <&str>::decode(packet).map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_texts_are_the_packet() {
        let packet = "Grüße".as_bytes();
        assert_eq!(<&[u8]>::decode(packet), Ok(packet));
        assert_eq!(Vec::decode(packet), Ok(packet.to_vec()));
        assert_eq!(Bytes::decode(packet).as_deref(), Ok(packet));
        assert_eq!(<&str>::decode(packet), Ok("Grüße"));
        assert_eq!(String::decode(packet).as_deref(), Ok("Grüße"));
        assert_eq!(<[u8; 3]>::decode(b"abc"), Ok(*b"abc"));
    }

    #[test]
    fn errors_say_what_is_wrong_and_where() {
        let error = String::decode(b"abc\xff").unwrap_err();
        assert_eq!(error.to_string(), "packet of 4 bytes is not UTF-8 at byte 3");
        let error = <[u8; 3]>::decode(b"abcd").unwrap_err();
        assert_eq!(error.to_string(), "packet has 4 bytes, [u8; 3] has 3");
        assert_eq!(DecodeError::because("no such user").to_string(), "no such user");
    }

    #[test]
    fn a_packet_that_is_quoted_does_not_make_the_error_long() {
        let hostile = "ß".repeat(1 << 20);
        let error = DecodeError::because(format_args!("unknown field `{hostile}`")).to_string();
        assert!(error.len() <= MOST_WHY + '…'.len_utf8(), "{}", error.len());
        assert!(error.starts_with("unknown field `ßß") && error.ends_with('…'));
        assert_eq!(&*bounded("x".repeat(MOST_WHY)), "x".repeat(MOST_WHY), "not cut");
    }
}
