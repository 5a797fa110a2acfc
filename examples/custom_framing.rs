//! A framing of your own: COBS (Cheshire & Baker, 1999). `cargo run --release --example custom_framing`, then
//! `printf '\003\021\042\002\063\000' | nc -q1 127.0.0.1 7000 | xxd`, which comes back as it is.
//!
//! Packet 11 22 00 33 is frame 03 11 22 02 33 00: each code (03, 02) is the distance to the next zero of the packet.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use bytes::{BufMut, BytesMut};
use framewire::{Decoded, EncodeError, FrameError, Framing, Server, packet_fn};

/// The most bytes of a packet, and of its frame.
pub(crate) const MAX: usize = 4096;
const MAX_FRAME: usize = MAX + MAX / 254 + 2;

#[derive(Debug, Clone, Default)]
pub(crate) struct Cobs {
    scanned: usize, // Bytes without a zero, which are not scanned again.
}

impl Framing for Cobs {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        let rest = buf.get(self.scanned..).unwrap_or_default();
        let Some(zero) = rest.iter().position(|byte| *byte == 0).map(|at| self.scanned + at) else {
            self.scanned = buf.len();
            return within(MAX_FRAME - 1, buf.len(), buf).map(|()| None);
        };
        self.scanned = 0;
        let unescaped = buf.get_mut(..zero).and_then(unescape);
        let Some(len) = unescaped else { return Err(FrameError::malformed("not a COBS frame", buf)) };
        within(MAX, len, buf)?;
        Ok(Some(Decoded::Packet { payload: 0..len, consumed: zero + 1 }))
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        if payload.len() > MAX {
            return Err(EncodeError::too_long(payload.len() as u64, MAX as u64));
        }
        for run in payload.split(|byte| *byte == 0) {
            let blocks = run.chunks_exact(254);
            for block in blocks.clone().chain([blocks.remainder()]) {
                out.put_u8(block.len() as u8 + 1);
                out.put_slice(block);
            }
        }
        out.put_u8(0);
        Ok(())
    }

    fn max_frame(&self) -> Option<usize> {
        Some(MAX_FRAME)
    }
}

fn within(max: usize, len: usize, seen: &[u8]) -> Result<(), FrameError> {
    if len > max { Err(FrameError::too_long(len as u64, max as u64, seen)) } else { Ok(()) }
}

/// Decodes the packet in place, to the front of `frame`, and returns its length: decoding only shrinks.
fn unescape(frame: &mut [u8]) -> Option<usize> {
    let (mut read, mut written) = (0, 0);
    loop {
        let code = usize::from(*frame.get(read)?);
        let run = read + 1..read + code;
        frame.get(run.clone())?;
        frame.copy_within(run, written);
        (read, written) = (read + code, written + code - 1);
        match code {
            _ if read == frame.len() => return Some(written),
            0xff => {}
            _ => *frame.get_mut(written)? = 0,
        }
        written += usize::from(code < 0xff);
    }
}

fn main() -> Result<(), framewire::ServeError> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let echo = packet_fn(|session, packet| Ok(session.send(packet)?));
    let running = Server::bind(addr)?.framing(Cobs::default()).spawn(echo)?;
    running.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    running.wait()
}
