use super::LoadError;

/// Bytes of the length prefix.
const PREFIX: usize = 4;
/// Bytes of a payload that tell one message from every other; a shorter payload carries as many as fit.
const STAMP: usize = 8;
/// One write holds at most this many bytes of frames, so that a deep pipeline of large frames needs no huge buffer.
const MAX_BATCH: usize = 1 << 20;

/// What the load sends, and what must come back: frames whose every byte is a function of connection and number.
///
/// ```text
/// | 00 00 00 40 | stamp: id and number | the same filler in every frame |
///   prefix, 4     8                      size - 8
/// ```
///
/// The stamp makes a lost, doubled, swapped or foreign frame visible; comparing costs one `memcmp` per frame.
pub(super) struct Pattern {
    /// Bytes of one frame on the wire.
    frame: usize,
    /// `batch` frames, one behind the other; stamps are patched before each write.
    outgoing: Vec<u8>,
    batch: usize,
    /// One frame to compare with.
    expected: Vec<u8>,
}

impl Pattern {
    /// Frames of `size` payload bytes, written up to `depth` at a time.
    pub(super) fn new(size: usize, depth: usize) -> Self {
        let frame = PREFIX + size;
        let mut one = Vec::with_capacity(frame);
        one.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
        one.extend((0..size).map(filler));
        let batch = depth.clamp(1, (MAX_BATCH / frame).max(1));
        Self { frame, outgoing: one.repeat(batch), batch, expected: one }
    }

    /// Bytes of one frame on the wire.
    pub(super) fn frame_len(&self) -> usize {
        self.frame
    }

    /// The bytes of frames `first..first + count` of connection `id`, less the `skip` bytes that are already written.
    ///
    /// At most as many frames as fit the buffer; the caller sees by the length how many those are.
    #[inline]
    pub(super) fn outgoing(&mut self, id: u64, first: u64, count: usize, skip: usize) -> &[u8] {
        let count = count.min(self.batch);
        for (frame, number) in self.outgoing.chunks_exact_mut(self.frame).take(count).zip(first..) {
            stamp(frame, id, number);
        }
        self.outgoing.get(skip..count * self.frame).unwrap_or_default()
    }

    /// Compares `seen` with the bytes from `offset` of frame `number` of connection `id`.
    #[inline]
    pub(super) fn check(
        &mut self,
        id: u64,
        number: u64,
        offset: usize,
        seen: &[u8],
    ) -> Result<(), LoadError> {
        stamp(&mut self.expected, id, number);
        let expected = self.expected.get(offset..offset + seen.len()).unwrap_or_default();
        if expected == seen { Ok(()) } else { Err(difference(number, offset, expected, seen)) }
    }
}

/// A filler byte; neither constant nor of a period that a buffer size could hide.
fn filler(at: usize) -> u8 {
    (at.wrapping_mul(167).wrapping_add(at >> 5) & 0xff) as u8
}

#[inline]
fn stamp(frame: &mut [u8], id: u64, number: u64) {
    let value = (id.rotate_left(40) ^ number).to_le_bytes();
    if let Some(place) = frame.get_mut(PREFIX..PREFIX + STAMP) {
        place.copy_from_slice(&value);
    } else if let Some(place) = frame.get_mut(PREFIX..) {
        for (to, from) in place.iter_mut().zip(value) {
            *to = from;
        }
    }
}

/// The first byte that differs, said so that a person finds it.
#[cold]
fn difference(number: u64, offset: usize, expected: &[u8], seen: &[u8]) -> LoadError {
    let at = expected.iter().zip(seen).take_while(|(a, b)| a == b).count();
    LoadError::WrongBytes {
        number,
        offset: offset + at,
        expected: expected.get(at).copied().unwrap_or_default(),
        seen: seen.get(at).copied().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_out_is_what_is_expected_back() {
        for size in [0, 1, 7, 8, 9, 64, 5000] {
            let mut pattern = Pattern::new(size, 3);
            let sent = pattern.outgoing(7, 40, 3, 0).to_vec();
            assert_eq!(sent.len(), 3 * (4 + size));
            for (frame, number) in sent.chunks_exact(4 + size).zip(40..) {
                assert!(pattern.check(7, number, 0, frame).is_ok());
            }
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_checked_in_both_parts() {
        let mut pattern = Pattern::new(20, 1);
        let sent = pattern.outgoing(1, 5, 1, 0).to_vec();
        for cut in 0..sent.len() {
            assert!(pattern.check(1, 5, 0, &sent[..cut]).is_ok());
            assert!(pattern.check(1, 5, cut, &sent[cut..]).is_ok());
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_is_found_and_named() {
        let mut pattern = Pattern::new(30, 1);
        let sent = pattern.outgoing(3, 9, 1, 0).to_vec();
        for at in 0..sent.len() {
            let mut seen = sent.clone();
            seen[at] ^= 1;
            let Err(LoadError::WrongBytes { number: 9, offset, expected, seen: byte }) =
                pattern.check(3, 9, 0, &seen)
            else {
                panic!("byte {at} was not noticed")
            };
            assert_eq!((offset, expected, byte), (at, sent[at], seen[at]));
        }
    }

    #[test]
    fn a_frame_of_another_number_or_connection_is_wrong() {
        let mut pattern = Pattern::new(8, 1);
        let sent = pattern.outgoing(3, 9, 1, 0).to_vec();
        assert!(pattern.check(3, 10, 0, &sent).is_err());
        assert!(pattern.check(4, 9, 0, &sent).is_err());
    }

    #[test]
    fn a_batch_is_cut_to_what_the_buffer_holds() {
        let mut pattern = Pattern::new(600_000, 16);
        assert_eq!(pattern.outgoing(0, 0, 16, 0).len(), 600_004);
        assert_eq!(pattern.outgoing(0, 0, 16, 600_000).len(), 4);
    }
}
