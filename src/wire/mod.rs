//! What [`bytes::Buf`] and [`bytes::BufMut`] lack for the protocols that packets are made of: bools, numbers of variable
//! length, and byte arrays and texts behind their length.
//!
//! [`WireRead`] and [`WireWrite`] are for every `Buf` and `BufMut`, such as a packet (`&[u8]`), [`bytes::Bytes`] and
//! [`bytes::BytesMut`]. Numbers of a fixed width are `bytes`' own `try_get_u32` and so on.
//!
//! ```text
//! VarInt 300    | ac 02 |               7 bits a byte, the low ones first; the top bit says that another byte follows
//! VarInt -1     | ff ff ff ff 0f |      as the u32 of the same bits, so it always takes all 5 bytes
//! zigzag -1     | 01 |                  0, -1, 1, -2, 2 … become 0, 1, 2, 3, 4 …
//! string "hi"   | 02 | h  i |           its length in bytes, as a VarInt
//! ```
//!
//! | type | methods | bytes | Minecraft | Protocol Buffers |
//! |---|---|---|---|---|
//! | `bool` | `try_get_bool`, `try_put_bool` | 1 | Boolean | `bool` |
//! | `i32` | `try_get_varint`, `try_put_varint` | 1 to 5 | VarInt | |
//! | `i64` | `try_get_varlong`, `try_put_varlong` | 1 to 10 | VarLong | `int64`, `int32` (see below) |
//! | `u32` | `try_get_uvarint32`, `try_put_uvarint32` | 1 to 5 | | `uint32` |
//! | `u64` | `try_get_uvarint64`, `try_put_uvarint64` | 1 to 10 | | `uint64` |
//! | `i32` | `try_get_zigzag32`, `try_put_zigzag32` | 1 to 5 | | `sint32` |
//! | `i64` | `try_get_zigzag64`, `try_put_zigzag64` | 1 to 10 | | `sint64` |
//! | bytes | `try_get_byte_array`, `try_put_byte_array` | length and bytes | Prefixed Array of Byte | `bytes` |
//! | text | `try_get_string`, `try_put_string` | length and UTF-8 | String | `string` |
//!
//! Sources: the [Minecraft protocol](https://minecraft.wiki/w/Java_Edition_protocol/Data_types) (before that
//! <https://wiki.vg/VarInt_And_VarLong>) and [Protocol Buffers' encoding](https://protobuf.dev/programming-guides/encoding/).
//! Protocol Buffers extend a negative `int32` to 64 bits, so that it takes 10 bytes: it is read with `try_get_varlong`
//! and narrowed, as `try_get_varint` refuses more than 5 bytes.
//!
//! # What is refused, and what is not
//!
//! - Nothing panics. Reading past the end is [`WireError::Truncated`], which says what was to be read and how many bytes
//!   it lacks; writing past the end of a buffer that does not grow is [`WireError::NoRoom`].
//! - A number with more bytes or more bits than its type has is [`WireError::Overflow`]: no bit is dropped silently, as
//!   the Minecraft wiki's code does with the last byte.
//! - **Padded numbers are accepted** up to the most bytes that the type can take: `80 00` is 0. The Minecraft protocol
//!   allows them, and Protocol Buffers do not forbid them. So a number that was read may have come in more bytes than
//!   writing it takes: compare and hash values, not their encodings. What is written here is always the shortest form.
//!   (The framing [`VarintPrefix`](crate::VarintPrefix) is stricter: it refuses padded lengths.)
//! - **Lengths allocate nothing.** A length is checked against the caller's maximum and against what is left of the
//!   packet before a byte is copied. A negative length is one of more than 2^31 - 1 bytes, which is over any maximum.
//!
//! ```
//! use framewire::wire::{WireError, WireRead, WireWrite};
//!
//! let mut packet = Vec::new();
//! packet.try_put_varint(-1)?;
//! packet.try_put_string("Grüße", 16)?;
//! assert_eq!(packet, b"\xff\xff\xff\xff\x0f\x07Gr\xc3\xbc\xc3\x9fe");
//!
//! let mut rest = &packet[..]; // a packet as a handler gets it
//! assert_eq!(rest.try_get_varint()?, -1);
//! assert_eq!(rest.try_get_string(16)?, "Grüße");
//! let error = rest.try_get_bool().unwrap_err();
//! assert_eq!(error.to_string(), "packet ends within a bool: 1 byte needed, 0 left");
//! # Ok::<(), WireError>(())
//! ```

mod error;
pub(crate) mod leb128;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use error::WireError;
pub use read::WireRead;
pub use write::WireWrite;

/// The most bytes of a byte array or a text, whatever the caller's maximum: 2^31 - 1, as both protocols have it.
const MAX_LENGTH: usize = i32::MAX as usize;

/// What is read and written, as errors name it.
mod names {
    pub(super) const BOOL: &str = "a bool";
    pub(super) const VARINT: &str = "a VarInt";
    pub(super) const VARLONG: &str = "a VarLong";
    pub(super) const UVARINT32: &str = "an unsigned 32-bit varint";
    pub(super) const UVARINT64: &str = "an unsigned 64-bit varint";
    pub(super) const ZIGZAG32: &str = "a zigzag 32-bit varint";
    pub(super) const ZIGZAG64: &str = "a zigzag 64-bit varint";
    pub(super) const LENGTH: &str = "a length";
    pub(super) const BYTES: &str = "a byte array";
    pub(super) const STRING: &str = "a string";
}
