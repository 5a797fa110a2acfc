//! Headers whose width depends on the length of the payload, which is known only when it is there.

use bytes::{BufMut, BytesMut};

use super::EncodeError;
use crate::encode::Encode;

/// Appends what `packet` encodes to behind room for a header of `guess` bytes, and puts in front what `header` returns
/// for its length. If that is not as wide as guessed, the payload is moved.
///
/// ```text
/// | before |  | payload ... |         the guess is one byte
/// | before | a c | payload ... |      the header has two
/// ```
pub(super) fn behind<H: AsRef<[u8]>>(
    guess: usize,
    packet: &dyn Encode,
    out: &mut BytesMut,
    header: impl FnOnce(usize) -> Result<H, EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_bytes(0, guess);
    let len = packet.append_to(out)?;
    let header = header(len)?;
    let header = header.as_ref();
    out.put_bytes(0, header.len().saturating_sub(guess));
    if let Some(frame) = out.get_mut(start..) {
        if header.len() != guess {
            frame.copy_within(guess..guess + len, header.len());
        }
        if let Some(room) = frame.get_mut(..header.len()) {
            room.copy_from_slice(header);
        }
    }
    out.truncate(start + header.len() + len);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::encode_fn;

    #[test]
    fn a_header_takes_its_place_whatever_was_guessed() {
        for guess in 0..5 {
            for header in ["", "a", "bc", "def"] {
                let mut out = BytesMut::from("before ");
                let packet = encode_fn(|out| {
                    out.put_slice(b"pay");
                    out.put_slice(b"load");
                    Ok(())
                });
                let made = behind(guess, &packet, &mut out, |len| {
                    assert_eq!(len, 7);
                    Ok(header)
                });
                assert_eq!(made, Ok(()));
                assert_eq!(out, format!("before {header}payload"));
            }
        }
    }
}
