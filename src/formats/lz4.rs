use bytes::{BufMut, BytesMut};
use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

use crate::{
    decode::{Decode, DecodeError},
    encode::Encode,
    framing::EncodeError,
};

/// The length of the plain bytes, in front of the block.
const LENGTH: usize = 4;
/// Plain bytes that [`Decode`] takes at most.
const MAX: usize = 1024 * 1024;
/// The most plain bytes for which one byte of a block can stand.
const MOST_PER_BYTE: u64 = 255;

/// A packet that is compressed for itself, by LZ4. With the feature `lz4`.
///
/// The packet depends on no other: it may be broadcast, dropped, or kept for later, and neither side holds memory between
/// two of them. LZ4 is faster than DEFLATE by far, and compresses less; packets of less than some hundred bytes hardly
/// become shorter. For streams of small packets, see `Deflate`.
///
/// ```
/// use framewire::{Decode, Lz4, packet_fn};
///
/// let handler = packet_fn(|session, packet| {
///     let Lz4(text) = Lz4::decode(packet)?; // at most 1 MiB of plain bytes
///     Ok(session.send(Lz4(text))?)
/// });
/// # drop(handler);
/// ```
///
/// What is sent may be any value that can be sent: `Lz4(Json(&order))` is encoded first, and then compressed.
///
/// # In a packet
/// Four bytes with the number of plain bytes, the lowest first, and then one [block of
/// LZ4](https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md): what `lz4.block.compress(bytes)` makes in Python, and
/// `compress_prepend_size` of lz4_flex in Rust.
///
/// # What a hostile packet can cost
/// - **Memory:** the announced length is checked before anything is reserved: it is no more than 1 MiB, or what
///   [`decode_max`](Self::decode_max) is given, and no more than 255 times the length of the packet, which is the most
///   that a block can stand for.
/// - **Time:** each plain byte is written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lz4<T>(pub T);

impl<T: Encode> Encode for Lz4<T> {
    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self.0.as_payload() {
            Some(plain) => compress(plain, out),
            None => compress(&self.0.to_bytes()?, out),
        }
    }
}

fn compress(plain: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
    let len = u32::try_from(plain.len())
        .map_err(|_| EncodeError::too_long(plain.len() as u64, u64::from(u32::MAX)))?;
    out.put_u32_le(len);
    let start = out.len();
    out.resize(start + get_maximum_output_size(plain.len()), 0);
    let made = compress_into(plain, out.get_mut(start..).unwrap_or_default());
    let made = made.map_err(|error| EncodeError::because(format_args!("cannot be compressed: {error}")))?;
    out.truncate(start + made);
    Ok(())
}

impl Lz4<Vec<u8>> {
    /// As [`decode`](Decode::decode), of packets that stand for `max` bytes at most.
    ///
    /// # Errors
    /// If the packet announces more than `max` bytes, or is no such block.
    pub fn decode_max(packet: &[u8], max: usize) -> Result<Self, DecodeError> {
        let refused = |why: std::fmt::Arguments<'_>| {
            DecodeError::because(format_args!("packet of {} bytes is no LZ4: {why}", packet.len()))
        };
        let Some((len, block)) = packet.split_first_chunk::<LENGTH>() else {
            return Err(refused(format_args!("it has no length in front")));
        };
        let len = u32::from_le_bytes(*len);
        if u64::from(len) > max as u64 {
            return Err(refused(format_args!("it stands for {len} bytes, {max} at most")));
        }
        if u64::from(len) > block.len() as u64 * MOST_PER_BYTE {
            return Err(refused(format_args!(
                "it stands for {len} bytes, more than a block of its length can"
            )));
        }
        let mut plain = vec![0; len as usize];
        match decompress_into(block, &mut plain) {
            Ok(made) if made == plain.len() => Ok(Self(plain)),
            Ok(made) => Err(refused(format_args!("it has {made} bytes, and announces {len}"))),
            Err(error) => Err(refused(format_args!("{error}"))),
        }
    }
}

impl<'p> Decode<'p> for Lz4<Vec<u8>> {
    fn decode(packet: &'p [u8]) -> Result<Self, DecodeError> {
        Self::decode_max(packet, MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn a_packet_comes_back(plain in vec(0..5_u8, 0..3_000)) {
            let packet = Lz4(&plain).to_bytes().unwrap();
            prop_assert_eq!(Lz4::decode(&packet), Ok(Lz4(plain)));
        }

        #[test]
        fn no_bytes_do_harm(len in 0..100_000_u32, block in vec(any::<u8>(), 0..400)) {
            let packet = [&len.to_le_bytes()[..], &block].concat();
            if let Ok(Lz4(plain)) = Lz4::decode(&packet) {
                prop_assert_eq!(plain.len(), len as usize);
            }
        }
    }

    #[test]
    fn what_repeats_becomes_short_and_what_does_not_hardly_longer() {
        let repeated = Lz4(vec![7; 100_000]).to_bytes().unwrap();
        assert!(repeated.len() < 500, "{}", repeated.len());
        assert_eq!(Lz4::decode(&repeated).unwrap().0, vec![7; 100_000]);
        let hello = Lz4("hello").to_bytes().unwrap();
        assert_eq!(hello, b"\x05\0\0\0\x50hello"[..]);
        assert_eq!(Lz4("").to_bytes().unwrap(), b"\0\0\0\0\0"[..]);
        assert_eq!(Lz4::decode(b"\0\0\0\0\0"), Ok(Lz4(Vec::new())));
    }

    #[test]
    fn a_value_is_encoded_before_it_is_compressed_and_behind_what_is_there() {
        let mut out = BytesMut::from(&b"before"[..]);
        Lz4(format_args!("{}-{}", 1, 2)).encode(&mut out).unwrap();
        assert_eq!(out, b"before\x03\0\0\0\x301-2"[..]);
    }

    #[test]
    fn bombs_and_broken_blocks_are_refused_before_they_cost_anything() {
        let huge = Lz4(vec![0; MAX + 1]).to_bytes().unwrap();
        let short = Lz4(vec![0; 1_000]).to_bytes().unwrap();
        let longer = [&1_001_u32.to_le_bytes()[..], &short[4..]].concat();
        let shorter = [&999_u32.to_le_bytes()[..], &short[4..]].concat();
        for (packet, why) in [
            (&b""[..], "it has no length in front"),
            (b"\x01\0\0", "it has no length in front"),
            (&huge, "it stands for 1048577 bytes, 1048576 at most"),
            (b"\xff\xff\xff\xff\0", "it stands for 4294967295 bytes, 1048576 at most"),
            (b"\0\0\x0f\0\x1f\0\0\0\xff", "it stands for 983040 bytes, more than a block of its length can"),
            (b"\x01\0\0\0", "it stands for 1 bytes, more than a block of its length can"),
            (&longer, "it has 1000 bytes, and announces 1001"),
            (&shorter, "provided output is too small"),
            (b"\x05\0\0\0\x50hell", "literal is out of bounds of the input"),
            // A match that begins before the first byte.
            (b"\x06\0\0\0\x10a\xff\xff\x10a", "offset"),
        ] {
            let error = Lz4::decode(packet).unwrap_err().to_string();
            assert!(error.contains(" is no LZ4: ") && error.contains(why), "{error}, not {why}");
        }
        assert_eq!(Lz4::decode_max(&huge, MAX + 1).map(|Lz4(plain)| plain.len()), Ok(MAX + 1));
        let error = Lz4::decode_max(&short, 999).unwrap_err().to_string();
        assert!(error.ends_with("it stands for 1000 bytes, 999 at most"), "{error}");
    }
}
