//! The frames of both protocols that peers speak: fastway's, and that of the echo servers.

use std::io::{self, ErrorKind};

/// Bytes of the length at the front of a frame, in both.
pub(super) const LENGTH: usize = 4;
/// The longest frame that peers take.
const MOST: usize = 2 << 20;

/// How a frame is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// LENGTH u32 little-endian, CONN_ID u32, payload; LENGTH counts CONN_ID.
    Gateway,
    /// Length u32 big-endian, payload.
    Echo,
}

/// What a peer or a gateway sends beside messages: a frame whose CONN_ID is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    New,
    Dial { conn: u32, remote: u32 },
    Accept { conn: u32, remote: u32 },
    Ping,
}

impl Command {
    pub(super) fn frame(self) -> Vec<u8> {
        let (kind, args) = match self {
            Self::New => (0, vec![]),
            Self::Dial { conn, remote } => (2, vec![conn, remote]),
            Self::Accept { conn, remote } => (4, vec![conn, remote]),
            Self::Ping => (6, vec![]),
        };
        let args: Vec<u8> = args.into_iter().flat_map(u32::to_le_bytes).collect();
        Wire::Gateway.frame(0, &[&[kind][..], &args].concat())
    }
}

impl Wire {
    /// Returns a message as a frame.
    pub(super) fn frame(self, conn: u32, payload: &[u8]) -> Vec<u8> {
        let len = payload.len() as u32;
        match self {
            Self::Gateway => [&(len + 4).to_le_bytes()[..], &conn.to_le_bytes(), payload].concat(),
            Self::Echo => [&len.to_be_bytes()[..], payload].concat(),
        }
    }

    /// Returns the length of the frame at the front, if it is whole.
    pub(super) fn whole(self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let Some(length) = bytes.first_chunk() else { return Ok(None) };
        let length = match self {
            Self::Gateway => u32::from_le_bytes(*length),
            Self::Echo => u32::from_be_bytes(*length),
        };
        let whole = LENGTH + length as usize;
        if whole > MOST {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("a frame of {whole} bytes came")));
        }
        Ok((bytes.len() >= whole).then_some(whole))
    }
}

/// Returns the number at a place of a frame.
pub(super) fn u32_at(frame: &[u8], at: usize) -> io::Result<u32> {
    let bytes = frame.get(at..).and_then(|rest| rest.first_chunk());
    Ok(u32::from_le_bytes(*bytes.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "half a frame came"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_documented_bytes() {
        assert_eq!(Command::New.frame(), [5, 0, 0, 0, 0, 0, 0, 0, 0]);
        let dial = Command::Dial { conn: 4, remote: 1 };
        assert_eq!(dial.frame(), [13, 0, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(Wire::Gateway.frame(4, b"hi"), [6, 0, 0, 0, 4, 0, 0, 0, b'h', b'i']);
        assert_eq!(Wire::Echo.frame(4, b"hi"), [0, 0, 0, 2, b'h', b'i']);
    }

    #[test]
    fn only_a_whole_frame_is_one_and_a_huge_one_never() {
        for wire in [Wire::Gateway, Wire::Echo] {
            let frame = wire.frame(1, b"hello");
            for short in 0..frame.len() {
                assert_eq!(wire.whole(&frame[..short]).unwrap(), None);
            }
            assert_eq!(wire.whole(&frame).unwrap(), Some(frame.len()));
            assert!(wire.whole(&[0xff; 4]).is_err());
        }
    }
}
