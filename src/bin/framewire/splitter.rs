use framewire::{Decoded, FrameError, Framing};

/// Bytes in, packets out: a framing with the bytes that it has not consumed yet.
#[derive(Debug)]
pub(crate) struct Splitter<F> {
    framing: F,
    buffer: Vec<u8>,
}

/// What was found at the front.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Packet(Vec<u8>),
    /// A frame that the framing refuses and steps over.
    Rejected(FrameError),
}

impl<F: Framing> Splitter<F> {
    pub(crate) fn new(framing: F) -> Self {
        Self { framing, buffer: Vec::new() }
    }

    /// More bytes from the peer.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next packet, if one is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, FrameError> {
        self.step(|framing, buffer| if buffer.is_empty() { Ok(None) } else { framing.decode(buffer) })
    }

    /// The next packet when no more bytes will come; `None` when nothing is left.
    pub(crate) fn next_at_end(&mut self) -> Result<Option<Piece>, FrameError> {
        if let Some(piece) = self.next()? {
            return Ok(Some(piece));
        }
        self.step(Framing::decode_eof)
    }

    fn step(
        &mut self,
        decode: impl Fn(&mut F, &mut [u8]) -> Result<Option<Decoded>, FrameError>,
    ) -> Result<Option<Piece>, FrameError> {
        loop {
            let piece = match decode(&mut self.framing, &mut self.buffer)? {
                None => return Ok(None),
                Some(Decoded::Packet { payload, consumed }) => {
                    let misframed = FrameError::Misframed { what: "a range outside of the buffer" };
                    let packet = self.buffer.get(payload).ok_or(misframed)?.to_vec();
                    self.drop_front(consumed)?;
                    Piece::Packet(packet)
                }
                Some(Decoded::Rejected { consumed, error }) => {
                    self.drop_front(consumed)?;
                    Piece::Rejected(error)
                }
                Some(Decoded::Skipped { consumed }) => {
                    self.drop_front(consumed)?;
                    continue;
                }
            };
            return Ok(Some(piece));
        }
    }

    fn drop_front(&mut self, consumed: usize) -> Result<(), FrameError> {
        if consumed == 0 || consumed > self.buffer.len() {
            return Err(FrameError::Misframed { what: "an impossible number of consumed bytes" });
        }
        self.buffer.drain(..consumed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use framewire::{LengthPrefix, Separator};

    use super::*;

    #[test]
    fn packets_come_out_however_the_bytes_come_in() {
        let mut splitter = Splitter::new(LengthPrefix::u8());
        let mut packets = Vec::new();
        for byte in b"\x02hi\0\x03you" {
            splitter.push(&[*byte]);
            while let Some(piece) = splitter.next().unwrap() {
                packets.push(piece);
            }
        }
        let packet = |bytes: &[u8]| Piece::Packet(bytes.to_vec());
        assert_eq!(packets, [packet(b"hi"), packet(b""), packet(b"you")]);
        assert_eq!(splitter.next_at_end(), Ok(None));
    }

    #[test]
    fn a_cut_off_packet_is_an_error_at_the_end() {
        let mut splitter = Splitter::new(LengthPrefix::u8());
        splitter.push(b"\x05hel");
        assert_eq!(splitter.next(), Ok(None));
        assert!(matches!(splitter.next_at_end(), Err(FrameError::Truncated { .. })));
    }

    #[test]
    fn a_last_line_without_its_end_counts_where_the_framing_says_so() {
        let mut splitter = Splitter::new(Separator::lines().deliver_tail());
        splitter.push(b"one\ntwo");
        assert_eq!(splitter.next_at_end(), Ok(Some(Piece::Packet(b"one".to_vec()))));
        assert_eq!(splitter.next_at_end(), Ok(Some(Piece::Packet(b"two".to_vec()))));
    }
}
