use std::panic::catch_unwind;

use bytes::BufMut;

use super::*;
use crate::framing::{Decoded, Raw, UntilEof};

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

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), FrameError> {
        if payload.len() > 100 && self.0 != Fault::HasNoMaximum {
            return Err(FrameError::too_long(payload.len() as u64, 100, payload));
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
