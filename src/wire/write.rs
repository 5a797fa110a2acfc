use bytes::BufMut;

use super::{MAX_LENGTH, WireError, leb128::Encoded, names};

/// Writes what [`BufMut`] has no methods for; implemented for every `BufMut`. See [the module](crate::wire) for the
/// formats. Numbers are written in their shortest form.
///
/// Into what grows, such as `Vec<u8>` and [`BytesMut`](bytes::BytesMut), only texts and byte arrays over their maximum
/// cannot be written. After an error nothing of the value was written.
///
/// ```
/// use framewire::{bytes::BytesMut, wire::{WireError, WireWrite}};
///
/// let mut packet = BytesMut::new();
/// packet.try_put_varint(300)?;
/// packet.try_put_string("hi", 16)?;
/// assert_eq!(packet, b"\xac\x02\x02hi"[..]);
/// assert!(packet.try_put_string("much too long a name", 16).is_err());
/// # Ok::<(), WireError>(())
/// ```
pub trait WireWrite: BufMut {
    /// Writes a bool as 0 or 1.
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    fn try_put_bool(&mut self, value: bool) -> Result<(), WireError> {
        put(self, names::BOOL, &[value.into()], &[])
    }

    /// Writes a signed number in two's complement, Minecraft's VarInt: 1 to 5 bytes, always 5 if it is negative.
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    fn try_put_varint(&mut self, value: i32) -> Result<(), WireError> {
        number(self, names::VARINT, (value as u32).into())
    }

    /// Writes a signed number in two's complement, Minecraft's VarLong and Protocol Buffers' `int64`: 1 to 10 bytes,
    /// always 10 if it is negative.
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    fn try_put_varlong(&mut self, value: i64) -> Result<(), WireError> {
        number(self, names::VARLONG, value as u64)
    }

    /// Writes an unsigned number, Protocol Buffers' `uint32`: 1 to 5 bytes.
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    fn try_put_uvarint32(&mut self, value: u32) -> Result<(), WireError> {
        number(self, names::UVARINT32, value.into())
    }

    /// Writes an unsigned number, Protocol Buffers' `uint64`: 1 to 10 bytes.
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    fn try_put_uvarint64(&mut self, value: u64) -> Result<(), WireError> {
        number(self, names::UVARINT64, value)
    }

    /// Writes a signed number in zigzag form, Protocol Buffers' `sint32`: 1 to 5 bytes, few if it is near 0.
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    fn try_put_zigzag32(&mut self, value: i32) -> Result<(), WireError> {
        number(self, names::ZIGZAG32, ((value << 1 ^ value >> 31) as u32).into())
    }

    /// Writes a signed number in zigzag form, Protocol Buffers' `sint64`: 1 to 10 bytes, few if it is near 0.
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    fn try_put_zigzag64(&mut self, value: i64) -> Result<(), WireError> {
        number(self, names::ZIGZAG64, (value << 1 ^ value >> 63) as u64)
    }

    /// Writes a byte array behind its length, of at most `max` bytes (2^31 - 1 at most; more is taken as that).
    ///
    /// # Errors
    /// [`WireError::TooLong`] above `max`, [`WireError::NoRoom`].
    fn try_put_byte_array(&mut self, bytes: &[u8], max: usize) -> Result<(), WireError> {
        array(self, names::BYTES, bytes, max)
    }

    /// Writes a text in UTF-8 behind its length in bytes, of at most `max` bytes (2^31 - 1 at most; more is taken as
    /// that).
    ///
    /// # Errors
    /// [`WireError::TooLong`] above `max`, [`WireError::NoRoom`].
    fn try_put_string(&mut self, text: &str, max: usize) -> Result<(), WireError> {
        array(self, names::STRING, text.as_bytes(), max)
    }
}

impl<B: BufMut + ?Sized> WireWrite for B {}

#[inline]
fn number<B: BufMut + ?Sized>(out: &mut B, what: &'static str, value: u64) -> Result<(), WireError> {
    put(out, what, Encoded::new(value).as_bytes(), &[])
}

fn array<B: BufMut + ?Sized>(
    out: &mut B,
    what: &'static str,
    bytes: &[u8],
    max: usize,
) -> Result<(), WireError> {
    let (len, max) = (bytes.len(), max.min(MAX_LENGTH));
    if len > max {
        return Err(WireError::TooLong { what, len, max });
    }
    put(out, what, Encoded::new(len as u64).as_bytes(), bytes)
}

/// Writes both parts, or nothing.
#[inline]
fn put<B: BufMut + ?Sized>(
    out: &mut B,
    what: &'static str,
    header: &[u8],
    bytes: &[u8],
) -> Result<(), WireError> {
    let (needed, room) = (header.len().saturating_add(bytes.len()), out.remaining_mut());
    if needed > room {
        return Err(WireError::NoRoom { what, needed, room });
    }
    out.put_slice(header);
    out.put_slice(bytes);
    Ok(())
}
