/// The one buffer that a shard receives into.
///
/// ```text
///            tail of the session   received now
/// |  headroom ........ [ t a i l ][ n bytes ....... | free .... ]
///                      ^ region                     ^ region ends
/// |<------------ 64 KiB -------->|<--------- 64 KiB ----------->|
/// ```
///
/// Frames are decoded here, in place. The tail that a session kept is put *before* the bytes that were just received,
/// but only if it is short compared with them: so no read copies more than a fixed multiple of what it brought.
pub(crate) struct ReceiveBuffer {
    /// An array, so that slicing it needs no check of its length.
    bytes: Box<[u8; HEADROOM + SPACE]>,
}

/// Bytes in front of the space for receiving.
const HEADROOM: usize = 64 * 1024;
/// Bytes that one `recv` may bring: more gains nothing, less costs up to 4 % (measured).
const SPACE: usize = 64 * 1024;
/// A tail of this length costs nothing measurable to copy, however little was received.
const SHORT_TAIL: usize = 512;

impl ReceiveBuffer {
    pub(crate) fn new() -> Self {
        // A vector, because a boxed array would be built on the stack first.
        let bytes = vec![0; HEADROOM + SPACE].into_boxed_slice();
        Self { bytes: bytes.try_into().unwrap_or_else(|_| Box::new([0; HEADROOM + SPACE])) }
    }

    /// The space to receive into.
    #[inline]
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.bytes.get_mut(HEADROOM..).unwrap_or_default()
    }

    /// The `n` bytes that were received.
    #[inline]
    pub(crate) fn received(&mut self, n: usize) -> &mut [u8] {
        self.space().get_mut(..n).unwrap_or_default()
    }

    /// Returns `tail` followed by the `n` bytes that were received, or `None` if that copy would not pay.
    pub(crate) fn joined(&mut self, tail: &[u8], n: usize) -> Option<&mut [u8]> {
        if tail.len() > SHORT_TAIL.max(2 * n) {
            return None;
        }
        let start = HEADROOM.checked_sub(tail.len())?;
        self.bytes.get_mut(start..HEADROOM)?.copy_from_slice(tail);
        self.bytes.get_mut(start..HEADROOM + n)
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
    fn a_long_tail_is_not_copied_for_a_short_read() {
        let mut scratch = ReceiveBuffer::new();
        assert!(scratch.joined(&[0; SHORT_TAIL], 1).is_some());
        assert!(scratch.joined(&[0; SHORT_TAIL + 1], 1).is_none());
        assert!(scratch.joined(&[0; HEADROOM], SPACE).is_some());
        assert!(scratch.joined(&[0; HEADROOM + 1], SPACE).is_none());
    }
}
