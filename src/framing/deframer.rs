//! The loop that cuts a stream into frames, for clients, tests and tools; sessions share its checks.

use std::ops::Range;

use super::{DEFAULT_MAX_FRAME, Decoded, FrameError, Framing};

/// Cuts a stream into packets, without a socket: bytes go in, packets come out, as they do in a session. For clients,
/// tools and tests that do their own reading.
///
/// ```text
/// feed ──▶ [ consumed | frame | frame | unfini ] ──▶ poll_frame, poll_frame … until None
///                     |<------- held --------->|
/// ```
///
/// An unfinished frame of more than [`max_frame`](Framing::max_frame) bytes, or [`max`](Self::max) if the framing knows
/// no maximum, is an error.
///
/// ```
/// use framewire::framing::{Deframed, Deframer, LengthPrefix};
///
/// let mut deframer = Deframer::new(LengthPrefix::u8());
/// deframer.feed(b"\x02hi\x03y");
/// assert_eq!(deframer.poll_frame()?, Some(Deframed::Packet(b"hi")));
/// assert_eq!(deframer.poll_frame()?, None);
/// deframer.feed(b"ou");
/// assert_eq!(deframer.poll_frame()?, Some(Deframed::Packet(b"you")));
/// deframer.end();
/// assert_eq!(deframer.poll_frame()?, None);
/// # Ok::<(), framewire::FrameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Deframer<F> {
    framing: F,
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that were consumed.
    consumed: usize,
    /// The frame that follows them was refused.
    has_refused: bool,
    stage: Stage,
    /// The maximum for a framing that knows none; `None` holds an unfinished frame of any length.
    max: Option<usize>,
}

/// What was found next in a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Deframed<'a> {
    /// A packet.
    Packet(&'a [u8]),
    /// A frame that the framing refuses, and after which the stream goes on: see [`Decoded::Rejected`].
    Rejected(FrameError),
}

/// Which method of the framing is called next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// `decode`: more bytes may come.
    Open,
    /// `decode`, until it finds no more: the last bytes have come.
    Ending,
    /// `decode_eof`.
    Ended,
}

enum Cut {
    Packet(Range<usize>),
    NoPacket(NoPacket),
}

/// As [`Deframed`], with the place of the packet in the buffer, for callers that cannot hold a borrow of it.
pub(crate) enum Found {
    Packet(Range<usize>),
    Rejected(FrameError),
}

/// A buffer of more bytes than this is given back when most of it is empty.
const KEPT: usize = 64 * 1024;

impl<F: Framing> Deframer<F> {
    /// Creates a deframer at the beginning of a stream. For a framing that knows no maximum, the maximum is 1 MiB.
    pub fn new(framing: F) -> Self {
        Self {
            framing,
            buffer: Vec::new(),
            consumed: 0,
            has_refused: false,
            stage: Stage::Open,
            max: Some(DEFAULT_MAX_FRAME),
        }
    }

    /// Sets the maximum length of a frame, in bytes, as [`Limits::frame`](crate::Limits::frame) does for a server: it
    /// is offered to the framing. Call it before the first byte is fed.
    #[must_use]
    pub fn max(mut self, bytes: usize) -> Self {
        self.framing.offer_max(bytes);
        self.max = Some(bytes);
        self
    }

    /// Adds bytes that were received. After [`end`](Self::end) they are ignored.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.stage != Stage::Open {
            return;
        }
        // The rest is moved only if it is shorter than what is dropped: frames consumed one by one do not each move it.
        if self.consumed > self.buffer.len() - self.consumed {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
            // A short rest does not keep the memory of the long frame before it.
            let needed = (self.buffer.len() + bytes.len()).max(KEPT);
            if self.buffer.capacity() / 4 > needed {
                self.buffer.shrink_to(needed);
            }
        }
        self.buffer.extend_from_slice(bytes);
        self.has_refused = false;
    }

    /// Ends the stream: no more bytes will come. Whether what is left is a last packet or an error is up to the
    /// framing.
    pub fn end(&mut self) {
        if self.stage == Stage::Open {
            self.stage = Stage::Ending;
        }
    }

    /// Returns the next packet or refused frame; `None` if more bytes are needed, or if nothing is left after
    /// [`end`](Self::end). Do not call it again after an error.
    ///
    /// # Errors
    /// What the framing returns, [`FrameError::InvalidDecode`] if the framing returns an impossible range or makes no
    /// progress, and [`FrameError::TooLong`] if the unfinished frame is longer than the maximum.
    pub fn poll_frame(&mut self) -> Result<Option<Deframed<'_>>, FrameError> {
        Ok(match self.find()? {
            Some(Found::Packet(packet)) => self.buffer.get(packet).map(Deframed::Packet),
            Some(Found::Rejected(error)) => Some(Deframed::Rejected(error)),
            None => None,
        })
    }

    /// As [`poll_frame`](Self::poll_frame). The packet stays where it is until more is fed; [`packet`](Self::packet)
    /// returns it.
    pub(crate) fn find(&mut self) -> Result<Option<Found>, FrameError> {
        loop {
            match self.cut()? {
                Some(Cut::Packet(packet)) => return Ok(Some(Found::Packet(packet))),
                Some(Cut::NoPacket(NoPacket::Skipped)) => {}
                Some(Cut::NoPacket(NoPacket::Rejected(error))) => return Ok(Some(Found::Rejected(error))),
                None if self.stage == Stage::Ending => {
                    self.stage = Stage::Ended;
                    self.has_refused = false;
                }
                None if self.stage == Stage::Open => return self.within().map(|()| None),
                None => return Ok(None),
            }
        }
    }

    /// Returns a packet that was found at this place, with the framing.
    pub(crate) fn packet(&self, place: Range<usize>) -> (&[u8], &F) {
        (self.buffer.get(place).unwrap_or_default(), &self.framing)
    }

    pub(crate) fn framing(&self) -> &F {
        &self.framing
    }

    /// Returns the bytes that are not consumed yet.
    pub fn held(&self) -> &[u8] {
        self.buffer.get(self.consumed..).unwrap_or_default()
    }

    /// Takes the bytes that are not consumed yet: they are not for the framing.
    #[cfg(feature = "tls")]
    pub(crate) fn take_held(&mut self) -> Vec<u8> {
        let held = self.buffer.split_off(self.consumed);
        self.buffer.clear();
        self.consumed = 0;
        held
    }

    /// Creates a deframer that holds an unfinished frame of any length, to test whether the framing keeps its own
    /// maximum.
    pub(crate) fn unlimited(framing: F) -> Self {
        Self { max: None, ..Self::new(framing) }
    }

    /// Takes the next step: returns where a packet is in the buffer, or what else was found.
    fn cut(&mut self) -> Result<Option<Cut>, FrameError> {
        let Self { framing, buffer, consumed, has_refused, stage, .. } = self;
        let rest = buffer.get_mut(*consumed..).unwrap_or_default();
        let answer = stage.ask(framing, rest);
        let start = *consumed;
        match answer {
            Ok(None) => Ok(None),
            Ok(Some(Decoded::Packet { payload, consumed: frame })) => {
                packet(rest, payload.clone(), frame)?;
                *consumed += frame;
                *has_refused = false;
                Ok(Some(Cut::Packet(start + payload.start..start + payload.end)))
            }
            Ok(Some(Decoded::Skipped { consumed })) => self.step_over(NoPacket::Skipped, consumed),
            Ok(Some(Decoded::Rejected { consumed, error })) => {
                self.step_over(NoPacket::Rejected(error), consumed)
            }
            Err(error) => Err(error),
        }
    }

    fn step_over(&mut self, found: NoPacket, consumed: usize) -> Result<Option<Cut>, FrameError> {
        self.consumed += no_packet(&found, consumed, self.held().len(), self.has_refused)?;
        self.has_refused = consumed == 0;
        Ok(Some(Cut::NoPacket(found)))
    }

    fn within(&self) -> Result<(), FrameError> {
        let Some(max) = self.max else { return Ok(()) };
        let (held, max) = (self.held(), self.framing.max_frame().unwrap_or(max));
        if held.len() > max { Err(FrameError::too_long(held.len() as u64, max as u64, held)) } else { Ok(()) }
    }
}

impl Stage {
    /// Asks the framing for the next frame. `decode` is never called with an empty buffer.
    #[inline]
    pub(crate) fn ask<F: Framing>(
        self,
        framing: &mut F,
        rest: &mut [u8],
    ) -> Result<Option<Decoded>, FrameError> {
        match self {
            Self::Ended => framing.decode_eof(rest),
            Self::Open | Self::Ending if rest.is_empty() => Ok(None),
            Self::Open | Self::Ending => framing.decode(rest),
        }
    }
}

/// Returns the packet of a frame that `decode` has found at the front of `rest`, after checking that it lies within
/// `rest`, and that the frame consumes at least one byte and no more than there are.
#[inline]
pub(crate) fn packet(rest: &[u8], payload: Range<usize>, consumed: usize) -> Result<&[u8], FrameError> {
    let Some(packet) = rest.get(payload) else { return invalid("a packet outside of the buffer") };
    if consumed > rest.len() {
        return invalid("a frame longer than the buffer");
    }
    if consumed == 0 {
        return invalid("a frame of no bytes");
    }
    Ok(packet)
}

/// Returns how many of the `len` bytes at the front of the stream to drop for what was found and is no packet, after
/// checking it: no more than there are, and at least one, except for the first refusal of the same bytes. So a loop of
/// these comes to an end.
#[cold]
pub(crate) fn no_packet(
    found: &NoPacket,
    consumed: usize,
    len: usize,
    has_refused: bool,
) -> Result<usize, FrameError> {
    match (found, consumed) {
        (NoPacket::Rejected(_), 0) if has_refused => invalid("the same refusal twice"),
        (NoPacket::Skipped, 0) => invalid("a frame of no bytes"),
        (_, consumed) if consumed > len => invalid("a frame longer than the buffer"),
        _ => Ok(consumed),
    }
}

/// What was found, if not a packet.
pub(crate) enum NoPacket {
    Skipped,
    Rejected(FrameError),
}

#[cold]
fn invalid<T>(what: &'static str) -> Result<T, FrameError> {
    Err(FrameError::InvalidDecode { what })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bytes::BytesMut;

    use super::*;
    use crate::framing::{EncodeError, LengthPrefix, Separator};

    /// Everything that can be found now.
    fn packets<F: Framing>(deframer: &mut Deframer<F>) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while let Some(Deframed::Packet(packet)) = deframer.poll_frame().unwrap() {
            packets.push(packet.to_vec());
        }
        packets
    }

    fn is_invalid(end: Result<Option<Deframed<'_>>, FrameError>) -> bool {
        matches!(end, Err(FrameError::InvalidDecode { .. }))
    }

    fn is_rejected(end: Result<Option<Deframed<'_>>, FrameError>) -> bool {
        matches!(end, Ok(Some(Deframed::Rejected(_))))
    }

    /// A framing that returns what it was given, and then `None`; it knows no maximum.
    #[derive(Debug)]
    struct Script {
        decode: VecDeque<Decoded>,
        decode_eof: VecDeque<Decoded>,
    }

    impl Script {
        fn deframer<const N: usize, const M: usize>(
            decode: [Decoded; N],
            decode_eof: [Decoded; M],
        ) -> Deframer<Self> {
            Deframer::new(Self { decode: decode.into(), decode_eof: decode_eof.into() })
        }
    }

    impl Framing for Script {
        fn decode(&mut self, _: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
            Ok(self.decode.pop_front())
        }

        fn decode_eof(&mut self, _: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
            Ok(self.decode_eof.pop_front())
        }

        fn encode(&self, _: &[u8], _: &mut BytesMut) -> Result<(), EncodeError> {
            Ok(())
        }
    }

    fn packet(consumed: usize) -> Decoded {
        Decoded::Packet { payload: 0..1, consumed }
    }

    fn rejected(consumed: usize) -> Decoded {
        Decoded::Rejected { consumed, error: FrameError::truncated(&[]) }
    }

    #[test]
    fn packets_come_out_however_the_bytes_come_in() {
        for piece in 1..8 {
            let mut deframer = Deframer::new(LengthPrefix::u8());
            let mut found = Vec::new();
            for bytes in b"\x02hi\0\x03you".chunks(piece) {
                deframer.feed(bytes);
                found.extend(packets(&mut deframer));
            }
            assert_eq!(found, [&b"hi"[..], b"", b"you"]);
            deframer.end();
            assert_eq!(deframer.poll_frame(), Ok(None));
            assert_eq!(deframer.held(), b"");
        }
    }

    #[test]
    fn many_frames_leave_a_buffer_that_keeps_up_with_them() {
        let mut deframer = Deframer::new(LengthPrefix::u8());
        deframer.feed(b"\x01");
        for _ in 0..10_000 {
            deframer.feed(b"i\x01");
            assert_eq!(packets(&mut deframer), [b"i"]);
            assert_eq!(deframer.held(), b"\x01");
        }
        assert!(deframer.buffer.capacity() < 100, "{} bytes", deframer.buffer.capacity());
    }

    #[test]
    fn a_long_frame_does_not_keep_its_memory() {
        let mut deframer = Deframer::new(LengthPrefix::u32_be());
        deframer.feed(&[&500_000_u32.to_be_bytes()[..], &[7; 500_000]].concat());
        assert_eq!(packets(&mut deframer), [[7; 500_000]]);
        deframer.feed(b"\0\0\0\x01i");
        assert_eq!(packets(&mut deframer), [b"i"]);
        assert!(deframer.buffer.capacity() <= KEPT, "{} bytes", deframer.buffer.capacity());
    }

    #[test]
    fn a_cut_off_packet_is_an_error_at_the_end() {
        let mut deframer = Deframer::new(LengthPrefix::u8());
        deframer.feed(b"\x05hel");
        assert_eq!(deframer.poll_frame(), Ok(None));
        deframer.end();
        assert_eq!(deframer.poll_frame(), Err(FrameError::truncated(b"\x05hel")));
    }

    #[test]
    fn a_last_line_without_its_end_counts_where_the_framing_says_so() {
        let mut deframer = Deframer::new(Separator::lines().deliver_tail());
        deframer.feed(b"one\ntwo");
        deframer.end();
        deframer.feed(b" and more");
        assert_eq!(packets(&mut deframer), [b"one", b"two"]);
    }

    #[test]
    fn a_frame_is_refused_before_the_first_of_its_bytes_is_dropped() {
        let skipped = Decoded::Skipped { consumed: 2 };
        let mut deframer = Script::deframer([rejected(0), skipped, packet(1)], []);
        deframer.feed(b"xxy");
        assert!(is_rejected(deframer.poll_frame()));
        assert_eq!(deframer.poll_frame(), Ok(Some(Deframed::Packet(b"y"))));
    }

    #[test]
    fn the_same_refusal_twice_is_the_framings_own_fault() {
        let mut deframer = Script::deframer([rejected(0), rejected(0), rejected(0)], []);
        deframer.feed(b"x");
        assert!(is_rejected(deframer.poll_frame()));
        deframer.feed(b"x");
        assert!(is_rejected(deframer.poll_frame()), "more bytes came");
        assert!(is_invalid(deframer.poll_frame()));
    }

    #[test]
    fn an_end_that_is_refused_for_ever_comes_to_an_end() {
        let mut deframer = Script::deframer([], [rejected(0), rejected(0)]);
        deframer.end();
        assert!(is_rejected(deframer.poll_frame()));
        assert!(is_invalid(deframer.poll_frame()));
    }

    #[test]
    fn behind_the_end_of_the_stream_only_decode_eof_is_asked() {
        let mut deframer = Script::deframer([packet(1)], [packet(1), packet(1)]);
        deframer.feed(b"wxy");
        deframer.end();
        assert_eq!(deframer.poll_frame(), Ok(Some(Deframed::Packet(b"w"))), "what is whole comes first");
        assert_eq!(deframer.poll_frame(), Ok(Some(Deframed::Packet(b"x"))));
        deframer.framing.decode.push_back(packet(9));
        assert_eq!(deframer.poll_frame(), Ok(Some(Deframed::Packet(b"y"))));
        assert_eq!(deframer.poll_frame(), Ok(None));
    }

    #[test]
    fn an_impossible_answer_is_the_framings_own_fault() {
        let bad = [
            Decoded::Packet { payload: 0..9, consumed: 1 },
            #[allow(clippy::reversed_empty_ranges, reason = "a careless framing may answer so")]
            Decoded::Packet { payload: 2..1, consumed: 1 },
            packet(0),
            packet(9),
            Decoded::Packet { payload: 0..1, consumed: usize::MAX },
            Decoded::Skipped { consumed: 0 },
            Decoded::Skipped { consumed: 4 },
            rejected(4),
        ];
        for answer in bad {
            let mut deframer = Script::deframer([answer.clone()], []);
            deframer.feed(b"abc");
            assert!(is_invalid(deframer.poll_frame()), "{answer:?}");
        }
    }

    #[test]
    fn no_more_than_the_maximum_is_held_of_an_unfinished_frame() {
        let mut deframer = Script::deframer([], []).max(8);
        deframer.feed(b"12345678");
        assert_eq!(deframer.poll_frame(), Ok(None));
        deframer.feed(b"9");
        assert_eq!(deframer.poll_frame(), Err(FrameError::too_long(9, 8, b"123456789")));
        let mut deframer = Deframer::new(LengthPrefix::u8()).max(2);
        deframer.feed(b"\x03");
        assert_eq!(deframer.poll_frame(), Err(FrameError::too_long(3, 2, b"\x03")), "it was offered");
    }
}
