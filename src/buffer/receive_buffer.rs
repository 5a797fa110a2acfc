/// The one buffer that a shard receives into.
///
/// ```text
///            tail of the session   received now
/// |  headroom ........ [ t a i l ][ n bytes ....... | free .... ]
///                      ^ region                     ^ region ends
/// |<----------- headroom ------->|<---------- space ----------->|
/// ```
///
/// Both halves have the same length, which grows from 512 bytes to 64 KiB as reads fill the space: of thousands of threads
/// with a session each, few need more than the least.
///
/// Frames are decoded here, in place. The tail that a session kept is put *before* the bytes that were just received,
/// but only if it is short compared with them: so no read copies more than a fixed multiple of what it brought.
pub(crate) struct ReceiveBuffer {
    /// Divided in the middle, which needs no check of its length.
    bytes: Box<[u8]>,
}

/// Bytes that one `recv` may bring, to begin with.
const FIRST_SPACE: usize = 512;
/// And at most: more gains nothing, less costs up to 4 % (measured).
const SPACE: usize = 64 * 1024;
/// How many times its size the buffer grows to when a read has filled it.
const GROWTH: usize = 8;
/// A tail of this length costs nothing measurable to copy, however little was received.
const SHORT_TAIL: usize = 512;

impl ReceiveBuffer {
    pub(crate) fn new() -> Self {
        Self::with_space(FIRST_SPACE)
    }

    fn with_space(space: usize) -> Self {
        Self { bytes: vec![0; 2 * space].into_boxed_slice() }
    }

    /// The space to receive into.
    #[inline]
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let middle = self.bytes.len() / 2;
        self.bytes.split_at_mut(middle).1
    }

    /// A read has filled the space, and was handled: the next may bring more. What the buffer holds is lost.
    #[inline]
    pub(crate) fn grow(&mut self) {
        if self.bytes.len() < 2 * SPACE {
            self.enlarge();
        }
    }

    /// From now on the space is the largest: no datagram is cut. What the buffer holds is lost.
    pub(crate) fn open_wide(&mut self) {
        if self.bytes.len() < 2 * SPACE {
            *self = Self::with_space(SPACE);
        }
    }

    #[cold]
    fn enlarge(&mut self) {
        *self = Self::with_space((self.bytes.len() / 2 * GROWTH).min(SPACE));
    }

    /// The `n` bytes that were received.
    #[inline]
    pub(crate) fn received(&mut self, n: usize) -> &mut [u8] {
        self.space().get_mut(..n).unwrap_or_default()
    }

    /// The `n` bytes that were received, behind their number in four bytes in network order.
    #[inline]
    pub(crate) fn counted(&mut self, n: usize) -> &mut [u8] {
        let (front, space) = self.bytes.split_at_mut(self.bytes.len() / 2);
        let n = n.min(space.len());
        if let Some(header) = front.last_chunk_mut() {
            *header = (n as u32).to_be_bytes();
        }
        let middle = self.bytes.len() / 2;
        self.bytes.get_mut(middle.wrapping_sub(4)..middle + n).unwrap_or_default()
    }

    /// Returns `tail` followed by the `n` bytes that were received, or `None` if that copy would not pay.
    pub(crate) fn joined(&mut self, tail: &[u8], n: usize) -> Option<&mut [u8]> {
        if tail.len() > SHORT_TAIL.max(2 * n) {
            return None;
        }
        let middle = self.bytes.len() / 2;
        let start = middle.checked_sub(tail.len())?;
        self.bytes.get_mut(start..middle)?.copy_from_slice(tail);
        self.bytes.get_mut(start..middle + n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_stands_before_what_was_received() {
        let mut scratch = ReceiveBuffer::new();
        scratch.space()[..3].copy_from_slice(b"def");
        assert_eq!(scratch.received(3), b"def");
        assert_eq!(scratch.joined(b"abc", 3).map(|region| region.to_vec()), Some(b"abcdef".to_vec()));
    }

    #[test]
    fn received_bytes_stand_behind_their_number() {
        let mut scratch = ReceiveBuffer::new();
        scratch.open_wide();
        assert_eq!(scratch.space().len(), SPACE);
        scratch.space()[..3].copy_from_slice(b"abc");
        assert_eq!(scratch.counted(3), b"\0\0\0\x03abc");
        assert_eq!(scratch.counted(0), [0; 4]);
        assert_eq!(scratch.counted(SPACE).len(), 4 + SPACE);
    }

    #[test]
    fn a_long_tail_is_not_copied_for_a_short_read() {
        let mut scratch = ReceiveBuffer::new();
        assert!(scratch.joined(&[0; SHORT_TAIL], 1).is_some());
        assert!(scratch.joined(&[0; SHORT_TAIL + 1], 1).is_none());
        assert!(scratch.joined(&[0; FIRST_SPACE], FIRST_SPACE).is_some());
        assert!(scratch.joined(&[0; FIRST_SPACE + 1], FIRST_SPACE).is_none());
    }

    #[test]
    fn the_buffer_grows_as_reads_fill_it_up_to_its_limit() {
        let mut scratch = ReceiveBuffer::new();
        let mut spaces = Vec::new();
        for _ in 0..4 {
            spaces.push(scratch.space().len());
            scratch.grow();
        }
        assert_eq!(spaces, [FIRST_SPACE, 8 * FIRST_SPACE, 64 * FIRST_SPACE, SPACE]);
        assert!(scratch.joined(&[0; SPACE], SPACE).is_some());
    }
}
