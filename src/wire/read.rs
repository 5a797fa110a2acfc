use bytes::{Buf, Bytes};

use super::{
    MAX_LENGTH, WireError,
    leb128::{self, Width},
    names,
};

/// Reads what [`Buf`] has no methods for; implemented for every `Buf`. See [the module](crate::wire) for the formats.
///
/// After an error the buffer may have been advanced into the value that failed: the rest of such a packet is not to be
/// read.
///
/// ```
/// use framewire::{Handled, packet_fn, wire::WireRead};
///
/// let handler = packet_fn(|session, mut packet: &[u8]| {
///     let (number, name) = (packet.try_get_varint()?, packet.try_get_string(64)?);
///     Ok(session.send(format!("{name} is number {number}"))?)
/// });
/// ```
pub trait WireRead: Buf {
    /// Reads a bool: 0 or 1.
    ///
    /// # Errors
    /// [`WireError::NotBool`] for another byte, [`WireError::Truncated`] at the end.
    fn try_get_bool(&mut self) -> Result<bool, WireError> {
        let truncated = |_| WireError::Truncated { what: names::BOOL, needed: 1, remaining: 0 };
        match self.try_get_u8().map_err(truncated)? {
            0 => Ok(false),
            1 => Ok(true),
            byte => Err(WireError::NotBool { byte }),
        }
    }

    /// Reads a signed number of 32 bits, in two's complement: Minecraft's VarInt.
    ///
    /// # Errors
    /// [`WireError::Overflow`] above 32 bits or 5 bytes, [`WireError::Truncated`] at the end.
    fn try_get_varint(&mut self) -> Result<i32, WireError> {
        Ok(number(self, Width::Bits32, names::VARINT)? as i32)
    }

    /// Reads a signed number of 64 bits, in two's complement: Minecraft's VarLong, Protocol Buffers' `int64`.
    ///
    /// # Errors
    /// [`WireError::Overflow`] above 64 bits or 10 bytes, [`WireError::Truncated`] at the end.
    fn try_get_varlong(&mut self) -> Result<i64, WireError> {
        Ok(number(self, Width::Bits64, names::VARLONG)? as i64)
    }

    /// Reads an unsigned number of 32 bits: Protocol Buffers' `uint32`.
    ///
    /// # Errors
    /// [`WireError::Overflow`] above 32 bits or 5 bytes, [`WireError::Truncated`] at the end.
    fn try_get_uvarint32(&mut self) -> Result<u32, WireError> {
        Ok(number(self, Width::Bits32, names::UVARINT32)? as u32)
    }

    /// Reads an unsigned number of 64 bits: Protocol Buffers' `uint64`.
    ///
    /// # Errors
    /// [`WireError::Overflow`] above 64 bits or 10 bytes, [`WireError::Truncated`] at the end.
    fn try_get_uvarint64(&mut self) -> Result<u64, WireError> {
        number(self, Width::Bits64, names::UVARINT64)
    }

    /// Reads a signed number of 32 bits in zigzag form: Protocol Buffers' `sint32`.
    ///
    /// # Errors
    /// [`WireError::Overflow`] above 32 bits or 5 bytes, [`WireError::Truncated`] at the end.
    fn try_get_zigzag32(&mut self) -> Result<i32, WireError> {
        let folded = number(self, Width::Bits32, names::ZIGZAG32)? as u32;
        Ok((folded >> 1) as i32 ^ -((folded & 1) as i32))
    }

    /// Reads a signed number of 64 bits in zigzag form: Protocol Buffers' `sint64`.
    ///
    /// # Errors
    /// [`WireError::Overflow`] above 64 bits or 10 bytes, [`WireError::Truncated`] at the end.
    fn try_get_zigzag64(&mut self) -> Result<i64, WireError> {
        let folded = number(self, Width::Bits64, names::ZIGZAG64)?;
        Ok((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }

    /// Reads a byte array behind its length, of at most `max` bytes (2^31 - 1 at most; more is taken as that). From
    /// [`Bytes`] and [`BytesMut`](bytes::BytesMut) it is not copied; from others it is, once the packet is known to
    /// have as many bytes.
    ///
    /// # Errors
    /// [`WireError::TooLong`] above `max`, [`WireError::Truncated`] if fewer bytes are left than the length says,
    /// [`WireError::Overflow`] if the length has more than 32 bits.
    fn try_get_byte_array(&mut self, max: usize) -> Result<Bytes, WireError> {
        let len = length(self, max, names::BYTES)?;
        Ok(self.copy_to_bytes(len))
    }

    /// Reads a text in UTF-8 behind its length in bytes, of at most `max` bytes (2^31 - 1 at most; more is taken as
    /// that).
    ///
    /// Minecraft counts the maximum of a String in UTF-16 code units; n of these take up to 3 n bytes.
    ///
    /// # Errors
    /// [`WireError::NotUtf8`], and as for [`try_get_byte_array`](Self::try_get_byte_array).
    fn try_get_string(&mut self, max: usize) -> Result<String, WireError> {
        let len = length(self, max, names::STRING)?;
        // So many bytes are there.
        let mut bytes = vec![0; len];
        self.copy_to_slice(&mut bytes);
        String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            WireError::NotUtf8 { len, at }
        })
    }
}

impl<B: Buf + ?Sized> WireRead for B {}

/// Reads a number; usually all of it is in the first chunk.
#[inline]
fn number<B: Buf + ?Sized>(buf: &mut B, width: Width, what: &'static str) -> Result<u64, WireError> {
    match leb128::read(width, buf.chunk()) {
        Ok(Some((len, value))) => {
            buf.advance(len);
            Ok(value)
        }
        Ok(None) => number_across(buf, width, what),
        Err(leb128::Overflow) => Err(WireError::Overflow { what, bits: width.bits() }),
    }
}

/// Reads a number that the first chunk does not hold.
#[cold]
fn number_across<B: Buf + ?Sized>(buf: &mut B, width: Width, what: &'static str) -> Result<u64, WireError> {
    let mut bytes = [0; leb128::MOST_BYTES];
    for (place, slot) in bytes.iter_mut().take(width.most_bytes()).enumerate() {
        *slot = buf.try_get_u8().map_err(|_| WireError::Truncated {
            what,
            needed: place + 1,
            remaining: place,
        })?;
        if *slot < 0x80 {
            break;
        }
    }
    // Complete, or too long: the bytes that were not read are zeros, behind the last one.
    let read = leb128::read(width, &bytes).ok().flatten();
    read.map(|(_, value)| value).ok_or(WireError::Overflow { what, bits: width.bits() })
}

/// Reads the length of `what`, of which at most `max` bytes are allowed, and all must be there.
fn length<B: Buf + ?Sized>(buf: &mut B, max: usize, what: &'static str) -> Result<usize, WireError> {
    let len = number(buf, Width::Bits32, names::LENGTH)? as usize;
    let (max, remaining) = (max.min(MAX_LENGTH), buf.remaining());
    if len > max {
        return Err(WireError::TooLong { what, len, max });
    }
    if len > remaining {
        return Err(WireError::Truncated { what, needed: len, remaining });
    }
    Ok(len)
}
