use bytes::{Buf, BytesMut};
use framewire::{Decoded, FrameError, Framing, framing::DEFAULT_MAX_FRAME};

/// Bytes in, packets out: a framing with the bytes that it has not consumed yet.
///
/// It asks a framing what a session asks it, in the same order, and takes and refuses the same answers.
#[derive(Debug)]
pub(crate) struct Splitter<F> {
    framing: F,
    buffer: BytesMut,
    /// The framing has refused what stands at the front, and has dropped nothing of it yet.
    refused_front: bool,
    /// The stream has ended and `decode` has returned all that it can.
    ending: bool,
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
        Self { framing, buffer: BytesMut::new(), refused_front: false, ending: false }
    }

    /// More bytes from the peer.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.refused_front = false;
    }

    /// What waits for the rest of its frame.
    pub(crate) fn held(&self) -> &[u8] {
        &self.buffer
    }

    /// The next packet, if one is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, FrameError> {
        let piece =
            self.step(|framing, buffer| if buffer.is_empty() { Ok(None) } else { framing.decode(buffer) })?;
        let max = self.framing.max_frame().unwrap_or(DEFAULT_MAX_FRAME);
        if piece.is_none() && self.buffer.len() > max {
            return Err(FrameError::too_long(self.buffer.len() as u64, max as u64, &self.buffer));
        }
        Ok(piece)
    }

    /// The next packet when no more bytes will come; `None` when nothing is left.
    pub(crate) fn next_at_end(&mut self) -> Result<Option<Piece>, FrameError> {
        if !self.ending {
            if let Some(piece) = self.next()? {
                return Ok(Some(piece));
            }
            self.ending = true;
            self.refused_front = false;
        }
        self.step(Framing::decode_eof)
    }

    fn step(
        &mut self,
        decode: impl Fn(&mut F, &mut [u8]) -> Result<Option<Decoded>, FrameError>,
    ) -> Result<Option<Piece>, FrameError> {
        while let Some(decoded) = decode(&mut self.framing, &mut self.buffer)? {
            match decoded {
                Decoded::Packet { payload, consumed } => {
                    let consumed = self.checked(consumed)?;
                    let outside = FrameError::InvalidDecode { what: "a packet outside of the buffer" };
                    let packet = self.buffer.get(payload).ok_or(outside)?.to_vec();
                    self.drop_front(consumed);
                    return Ok(Some(Piece::Packet(packet)));
                }
                Decoded::Skipped { consumed } => {
                    let consumed = self.checked(consumed)?;
                    self.drop_front(consumed);
                }
                Decoded::Rejected { consumed, error } => {
                    let consumed = consumed.min(self.buffer.len());
                    if consumed > 0 {
                        self.drop_front(consumed);
                    } else if std::mem::replace(&mut self.refused_front, true) {
                        return Err(FrameError::InvalidDecode { what: "the same refusal twice" });
                    }
                    return Ok(Some(Piece::Rejected(error)));
                }
            }
        }
        Ok(None)
    }

    fn checked(&self, consumed: usize) -> Result<usize, FrameError> {
        match consumed {
            0 => Err(FrameError::InvalidDecode { what: "a frame of no bytes" }),
            n if n > self.buffer.len() => {
                Err(FrameError::InvalidDecode { what: "a frame longer than the buffer" })
            }
            n => Ok(n),
        }
    }

    fn drop_front(&mut self, consumed: usize) {
        self.buffer.advance(consumed);
        self.refused_front = false;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bytes::BytesMut;
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

    /// A framing that answers as it is told, and then nothing.
    #[derive(Debug)]
    struct Script {
        decode: VecDeque<Decoded>,
        decode_eof: VecDeque<Decoded>,
    }

    impl Script {
        fn splitter<const N: usize, const M: usize>(
            decode: [Decoded; N],
            decode_eof: [Decoded; M],
        ) -> Splitter<Self> {
            Splitter::new(Self { decode: decode.into(), decode_eof: decode_eof.into() })
        }
    }

    impl Framing for Script {
        fn decode(&mut self, _: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
            Ok(self.decode.pop_front())
        }

        fn decode_eof(&mut self, _: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
            Ok(self.decode_eof.pop_front())
        }

        fn encode(&self, _: &[u8], _: &mut BytesMut) -> Result<(), FrameError> {
            Ok(())
        }

        fn max_frame(&self) -> Option<usize> {
            Some(8)
        }
    }

    fn packet(consumed: usize) -> Decoded {
        Decoded::Packet { payload: 0..1, consumed }
    }

    fn rejected(consumed: usize) -> Decoded {
        Decoded::Rejected { consumed, error: FrameError::truncated(&[]) }
    }

    #[test]
    fn a_frame_is_refused_before_the_first_of_its_bytes_is_dropped() {
        let skipped = Decoded::Skipped { consumed: 2 };
        let mut splitter = Script::splitter([rejected(0), skipped, packet(1)], []);
        splitter.push(b"xxy");
        assert!(matches!(splitter.next(), Ok(Some(Piece::Rejected(_)))));
        assert_eq!(splitter.next(), Ok(Some(Piece::Packet(b"y".to_vec()))));
    }

    #[test]
    fn the_same_refusal_twice_is_the_framings_own_fault() {
        let mut splitter = Script::splitter([rejected(0), rejected(0)], []);
        splitter.push(b"x");
        assert!(matches!(splitter.next(), Ok(Some(Piece::Rejected(_)))));
        assert!(matches!(splitter.next(), Err(FrameError::InvalidDecode { .. })));
    }

    #[test]
    fn a_refusal_may_consume_more_than_has_come() {
        let mut splitter = Script::splitter([rejected(9)], [rejected(9), rejected(9)]);
        splitter.push(b"x");
        assert!(matches!(splitter.next(), Ok(Some(Piece::Rejected(_)))));
        assert_eq!(splitter.held(), b"");
        assert!(matches!(splitter.next_at_end(), Ok(Some(Piece::Rejected(_)))));
        assert!(matches!(splitter.next_at_end(), Err(FrameError::InvalidDecode { .. })), "no progress");
    }

    #[test]
    fn behind_the_end_of_the_stream_only_decode_eof_is_asked() {
        let mut splitter = Script::splitter([], [packet(1), packet(1)]);
        splitter.push(b"xy");
        assert_eq!(splitter.next(), Ok(None));
        assert_eq!(splitter.next_at_end(), Ok(Some(Piece::Packet(b"x".to_vec()))));
        splitter.framing.decode.push_back(packet(9));
        assert_eq!(splitter.next_at_end(), Ok(Some(Piece::Packet(b"y".to_vec()))));
        assert_eq!(splitter.next_at_end(), Ok(None));
    }

    #[test]
    fn an_impossible_answer_is_the_framings_own_fault() {
        let outside = Decoded::Packet { payload: 0..9, consumed: 1 };
        for answer in [packet(0), packet(9), outside, Decoded::Skipped { consumed: 0 }] {
            let mut splitter = Script::splitter([answer.clone()], []);
            splitter.push(b"abc");
            assert!(matches!(splitter.next(), Err(FrameError::InvalidDecode { .. })), "{answer:?}");
        }
    }

    #[test]
    fn no_more_than_the_longest_frame_is_held() {
        let mut splitter = Script::splitter([], []);
        splitter.push(b"12345678");
        assert_eq!(splitter.next(), Ok(None));
        splitter.push(b"9");
        assert!(matches!(splitter.next(), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_last_line_without_its_end_counts_where_the_framing_says_so() {
        let mut splitter = Splitter::new(Separator::lines().deliver_tail());
        splitter.push(b"one\ntwo");
        assert_eq!(splitter.next_at_end(), Ok(Some(Piece::Packet(b"one".to_vec()))));
        assert_eq!(splitter.next_at_end(), Ok(Some(Piece::Packet(b"two".to_vec()))));
    }
}
