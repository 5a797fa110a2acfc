use std::panic::catch_unwind;

use bytes::BufMut;

use super::*;
use crate::framing::{Decoded, LengthPrefix, Raw, UntilEof};

/// A length byte before each packet, broken in the way that is asked for.
#[derive(Debug, Clone)]
struct Broken(Fault, usize);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    DropsTheTail,
    NeedsOneMoreByte,
    ForgetsAtACut,
    ReachesOutOfTheBuffer,
    HasNoMaximum,
    MakesUpAPacket,
}

impl Framing for Broken {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        let end = 1 + usize::from(buf[0] & 0x7f);
        self.1 += 1;
        let need = if self.0 == Fault::NeedsOneMoreByte { end + 1 } else { end };
        if self.0 != Fault::HasNoMaximum && end > 101 {
            return Err(FrameError::too_long(end as u64, 101, buf));
        }
        if buf.len() < need && !(self.0 == Fault::ReachesOutOfTheBuffer && buf[0] > 9) {
            return Ok(None);
        }
        let end = if self.0 == Fault::ForgetsAtACut && self.1 == 4 { end.max(2) - 1 } else { end };
        Ok(Some(Decoded::Packet { payload: 1..end, consumed: end }))
    }

    fn decode_eof(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        match self.0 {
            Fault::DropsTheTail => Ok(None),
            Fault::MakesUpAPacket if buf.len() > 1 => {
                Ok(Some(Decoded::Packet { payload: 1..buf.len(), consumed: buf.len() }))
            }
            _ if buf.is_empty() => Ok(None),
            _ => Err(FrameError::truncated(buf)),
        }
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        if payload.len() > 100 && self.0 != Fault::HasNoMaximum {
            return Err(EncodeError::too_long(payload.len() as u64, 100));
        }
        out.put_u8(payload.len() as u8);
        out.put_slice(payload);
        Ok(())
    }

    fn max_frame(&self) -> Option<usize> {
        Some(101)
    }
}

fn account(fault: Fault) -> Option<String> {
    let caught = catch_unwind(|| check(Broken(fault, 0), ["hello", "", "you there"])).err()?;
    Some(caught.downcast_ref::<String>().cloned().unwrap_or_default())
}

#[test]
fn a_framing_that_keeps_the_law_passes() {
    assert_eq!(account(Fault::None), None);
    check_stream(Raw::new().max(3), ["hello", "", "world"]);
    check_stream(UntilEof::new().max(100), ["hello", "", "world"]);
}

#[test]
fn each_fault_is_found_and_told() {
    let cases = [
        (Fault::DropsTheTail, "dropped in silence"),
        (Fault::NeedsOneMoreByte, "nothing where"),
        (Fault::ForgetsAtACut, "refused by decode"),
        (Fault::ReachesOutOfTheBuffer, "outside of the buffer"),
        (Fault::HasNoMaximum, "max_frame"),
        (Fault::MakesUpAPacket, "made up"),
    ];
    for (fault, told) in cases {
        let account = account(fault).unwrap_or_else(|| panic!("{fault:?} passes"));
        assert!(account.contains(told), "{fault:?}: {account}");
    }
}

/// Fills in a header that is not the one of `encode`.
#[derive(Debug, Clone)]
struct Forgetful(LengthPrefix);

impl Framing for Forgetful {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        self.0.decode(buf)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        self.0.encode(payload, out)
    }

    fn encode_with(
        &self,
        packet: &dyn Encode,
        _: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        out.extend_from_slice(&[0; 2]);
        packet.append_to(out).map(|_| ())
    }
}

#[test]
fn a_header_that_is_not_filled_in_is_found() {
    let caught = catch_unwind(|| check(Forgetful(LengthPrefix::u16_be()), ["", "hello"])).unwrap_err();
    let account = caught.downcast_ref::<String>().unwrap();
    assert!(account.starts_with("encode_with makes "), "{account}");
}

/// How a header announces its length, behind a byte that constant bytes get wrong.
#[derive(Debug, Clone, Copy)]
enum Header {
    Big16,
    Little32,
    Leb128,
    Decimal,
    /// `L00005`
    Hexadecimal,
}

/// Claims a maximum, refuses longer payloads on encode, and believes every header: at once, or until the frame is whole.
#[derive(Debug, Clone)]
struct Gullible {
    header: Header,
    /// Refuses what is too long once it has it all.
    looks_late: bool,
}

const CLAIMED: usize = 200;

impl Gullible {
    /// The length and where the body begins.
    fn read(&self, buf: &[u8]) -> Option<(usize, usize)> {
        let rest = buf.get(1..)?;
        match self.header {
            Header::Big16 => Some((usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 3)),
            Header::Little32 => Some((u32::from_le_bytes(*rest.first_chunk()?) as usize, 5)),
            Header::Leb128 => {
                let end = rest.iter().take(4).position(|byte| byte & 0x80 == 0)?;
                let groups = rest[..=end].iter().rev();
                Some((groups.fold(0, |sum, byte| (sum << 7) | usize::from(byte & 0x7f)), end + 2))
            }
            Header::Decimal => {
                let end = rest.iter().take(12).position(|byte| *byte == b'\n')?;
                let digits = std::str::from_utf8(&rest[..end]).ok()?;
                Some((digits.parse().ok()?, end + 2))
            }
            Header::Hexadecimal => {
                let digits = std::str::from_utf8(rest.get(..5)?).ok()?;
                Some((usize::from_str_radix(digits, 16).ok()?, 6))
            }
        }
    }
}

impl Framing for Gullible {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        if buf[0] != b'L' {
            return Err(FrameError::malformed("no L", buf));
        }
        let Some((len, start)) = self.read(buf) else {
            return if buf.len() > 20 { Err(FrameError::malformed("no length", buf)) } else { Ok(None) };
        };
        let end = start + len;
        if buf.len() < end {
            return Ok(None);
        }
        if self.looks_late && end > CLAIMED {
            return Err(FrameError::too_long(end as u64, CLAIMED as u64, buf));
        }
        Ok(Some(Decoded::Packet { payload: start..end, consumed: end }))
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        if payload.len() > CLAIMED - 6 {
            return Err(EncodeError::too_long(payload.len() as u64, CLAIMED as u64));
        }
        out.put_u8(b'L');
        match self.header {
            Header::Big16 => out.put_u16(payload.len() as u16),
            Header::Little32 => out.put_u32_le(payload.len() as u32),
            Header::Leb128 if payload.len() < 128 => out.put_u8(payload.len() as u8),
            Header::Leb128 => out.put_slice(&[payload.len() as u8 | 0x80, (payload.len() >> 7) as u8]),
            Header::Decimal => out.put_slice(format!("{}\n", payload.len()).as_bytes()),
            Header::Hexadecimal => out.put_slice(format!("{:05x}", payload.len()).as_bytes()),
        }
        out.put_slice(payload);
        Ok(())
    }

    fn max_frame(&self) -> Option<usize> {
        Some(CLAIMED)
    }
}

/// The same, with the check where it belongs.
#[derive(Debug, Clone)]
struct Careful(Gullible);

impl Framing for Careful {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        match self.0.read(buf) {
            Some((len, start)) if start + len > CLAIMED => {
                Err(FrameError::too_long((start + len) as u64, CLAIMED as u64, buf))
            }
            _ => self.0.decode(buf),
        }
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        self.0.encode(payload, out)
    }

    fn max_frame(&self) -> Option<usize> {
        Some(CLAIMED)
    }
}

#[test]
fn a_maximum_that_is_claimed_and_never_checked_is_found_whatever_the_header() {
    use Header::{Big16, Decimal, Hexadecimal, Leb128, Little32};
    for header in [Big16, Little32, Leb128, Decimal, Hexadecimal] {
        let payloads = ["hello", "", "L", "you there"];
        for looks_late in [false, true] {
            let framing = Gullible { header, looks_late };
            let caught = catch_unwind(|| check(framing.clone(), payloads));
            let account = caught.err().unwrap_or_else(|| panic!("{framing:?} passes"));
            let account = account.downcast_ref::<String>().cloned().unwrap_or_default();
            assert!(account.contains("more than max_frame says: 200"), "{framing:?}: {account}");
        }
        check(Careful(Gullible { header, looks_late: false }), payloads);
    }
}
