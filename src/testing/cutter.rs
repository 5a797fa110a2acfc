use crate::framing::{Decoded, FrameError, Framing};

/// Drives a framing as a session does, without socket or handler: bytes go in, packets come out.
///
/// It keeps everything that it was given and found, so it is for tests and tools, not for servers.
///
/// ```
/// use framewire::{Separator, testing::Cutter};
///
/// let mut cutter = Cutter::new(Separator::lines());
/// cutter.feed(b"one\ntw")?;
/// cutter.feed(b"o\n")?;
/// cutter.finish()?;
/// assert_eq!(cutter.packets(), [b"one", b"two"]);
/// # Ok::<(), framewire::FrameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Cutter<F> {
    framing: F,
    held: Vec<u8>,
    packets: Vec<Vec<u8>>,
    rejected: Vec<FrameError>,
}

impl<F: Framing> Cutter<F> {
    /// A new stream.
    pub fn new(framing: F) -> Self {
        Self { framing, held: Vec::new(), packets: Vec::new(), rejected: Vec::new() }
    }

    /// Reads `bytes` and cuts what is whole. Nothing is to be fed after an error.
    ///
    /// # Errors
    /// What the framing answers; [`FrameError::InvalidDecode`] where its answer is none.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        self.held.extend_from_slice(bytes);
        self.cut(F::decode, true)
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// As [`feed`](Self::feed); [`FrameError::Truncated`] for most framings when the stream ends inside a frame.
    pub fn finish(&mut self) -> Result<(), FrameError> {
        self.cut(F::decode_eof, false)
    }

    /// The packets so far.
    pub fn packets(&self) -> &[Vec<u8>] {
        &self.packets
    }

    /// The reports of [`Decoded::Rejected`] so far.
    pub fn rejected(&self) -> &[FrameError] {
        &self.rejected
    }

    /// The bytes that wait for the rest of their frame.
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    fn cut(
        &mut self,
        decode: impl Fn(&mut F, &mut [u8]) -> Result<Option<Decoded>, FrameError>,
        needs_bytes: bool,
    ) -> Result<(), FrameError> {
        let mut start = 0;
        let mut rejected_nothing = false;
        let end = loop {
            let Some(buf) = self.held.get_mut(start..) else { break Ok(()) };
            if needs_bytes && buf.is_empty() {
                break Ok(());
            }
            let before = buf.len();
            let consumed = match decode(&mut self.framing, buf) {
                Ok(Some(decoded)) => take(decoded, buf, &mut self.packets, &mut self.rejected),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            match consumed {
                Ok(0) if rejected_nothing || before == 0 => break misframed("two reports without progress"),
                Ok(consumed) => {
                    rejected_nothing = consumed == 0;
                    start += consumed;
                }
                Err(error) => break Err(error),
            }
            if start == self.held.len() {
                break Ok(());
            }
        };
        self.held.drain(..start);
        end
    }
}

/// Keeps what was found; gives how much to drop.
fn take(
    decoded: Decoded,
    buf: &[u8],
    packets: &mut Vec<Vec<u8>>,
    rejected: &mut Vec<FrameError>,
) -> Result<usize, FrameError> {
    let (consumed, least) = match decoded {
        Decoded::Packet { payload, consumed } => {
            let Some(packet) = buf.get(payload) else { return misframed("a packet outside of the buffer") };
            packets.push(packet.to_vec());
            (consumed, 1)
        }
        Decoded::Skipped { consumed } => (consumed, 1),
        Decoded::Rejected { consumed, error } => {
            rejected.push(error);
            (consumed, 0)
        }
    };
    match consumed {
        _ if consumed > buf.len() => misframed("more bytes consumed than there are"),
        _ if consumed < least => misframed("a frame of no bytes"),
        _ => Ok(consumed),
    }
}

fn misframed<T>(what: &'static str) -> Result<T, FrameError> {
    Err(FrameError::InvalidDecode { what })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::framing_fn;

    #[test]
    fn an_answer_that_is_none_is_the_framings_own_fault() {
        let bad = [
            Decoded::Packet { payload: 0..9, consumed: 1 },
            #[allow(clippy::reversed_empty_ranges, reason = "a careless framing may answer so")]
            Decoded::Packet { payload: 2..1, consumed: 1 },
            Decoded::Packet { payload: 0..1, consumed: 9 },
            Decoded::Packet { payload: 0..0, consumed: 0 },
            Decoded::Skipped { consumed: 0 },
            Decoded::Rejected { consumed: 0, error: FrameError::truncated(&[]) },
        ];
        for answer in bad {
            let always = framing_fn(
                |_: &mut [u8]| Ok(Some(answer.clone())),
                |_: &[u8], _: &mut bytes::BytesMut| Ok(()),
            );
            let error = Cutter::new(always).feed(b"abc").unwrap_err();
            assert!(matches!(error, FrameError::InvalidDecode { .. }), "{answer:?}: {error}");
        }
    }
}
