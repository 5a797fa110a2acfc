use crate::time::Tick;

/// The one buffer that the shards of a thread receive into.
///
/// ```text
///            tail of the session   received now
/// |  headroom ........ [ t a i l ][ n bytes ....... | free .... ]
///                      ^ region                     ^ region ends
/// |<----------- headroom ------->|<---------- space ----------->|
/// ```
///
/// Both halves have the same length, which grows from 512 bytes to 64 KiB as reads fill the space: of thousands of
/// threads with a session each, few need more than the least. A while after it has grown it is as small as in the
/// beginning again.
///
/// Frames are decoded here, in place. The tail that a session kept is put *before* the bytes that were just received,
/// but only if it is short compared with them: so no read copies more than a fixed multiple of what it brought.
pub(crate) struct ReceiveBuffer {
    /// Divided in the middle, which needs no check of its length.
    bytes: Box<[u8]>,
    /// The space that it returns to.
    least: usize,
    /// When it does so; `None` until it is known that it has grown.
    until: Option<Tick>,
    /// When it last did so, and how long it had been larger then (milliseconds); 0 at first.
    shrunk_at: Tick,
    pause: Tick,
}

/// Bytes that one `recv` may bring, to begin with.
const FIRST_SPACE: usize = 512;
/// And at most: more gains nothing, less costs up to 4 % (measured).
const SPACE: usize = 64 * 1024;
/// How many times its size the buffer grows to when a read has filled it.
const GROWTH: usize = 8;
/// For how long the buffer stays larger (milliseconds). Whether that is still needed shows only when it is smaller:
/// then a read fills it, and it grows again.
const PAUSE: Tick = 1_000;
/// It stays twice as long each time, and at most so long, if it had to grow again within this time: to grow takes some
/// microseconds.
const LONGEST_PAUSE: Tick = 64_000;
/// A tail of this length costs nothing measurable to copy, however little was received.
const SHORT_TAIL: usize = 512;

impl ReceiveBuffer {
    pub(crate) fn new() -> Self {
        Self::with_space(FIRST_SPACE)
    }

    fn with_space(space: usize) -> Self {
        Self { bytes: Self::bytes(space), least: space, until: None, shrunk_at: 0, pause: 0 }
    }

    fn bytes(space: usize) -> Box<[u8]> {
        vec![0; 2 * space].into_boxed_slice()
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
        if self.least < SPACE {
            *self = Self::with_space(SPACE);
        }
    }

    #[cold]
    fn enlarge(&mut self) {
        self.bytes = Self::bytes((self.bytes.len() / 2 * GROWTH).min(SPACE));
    }

    /// Called before each wait of the thread, at the time `now`: a buffer that has been larger for long enough shrinks.
    /// Returns when to call this again at the latest, even if nothing happens until then.
    #[inline]
    pub(crate) fn poll_deadline(&mut self, now: Tick) -> Option<Tick> {
        if self.bytes.len() == 2 * self.least { None } else { self.review(now) }
    }

    #[inline(never)]
    fn review(&mut self, now: Tick) -> Option<Tick> {
        let until = *self.until.get_or_insert_with(|| {
            let again = self.pause > 0 && now.saturating_sub(self.shrunk_at) <= LONGEST_PAUSE;
            self.pause = if again { (2 * self.pause).min(LONGEST_PAUSE) } else { PAUSE };
            now.saturating_add(self.pause)
        });
        if now < until {
            return Some(until);
        }
        self.bytes = Self::bytes(self.least);
        (self.until, self.shrunk_at) = (None, now);
        None
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

    /// Fills the space as a read does, at the time `now`, and returns when the buffer is to be looked at again.
    fn fill(buffer: &mut ReceiveBuffer, now: Tick) -> Option<Tick> {
        buffer.grow();
        buffer.poll_deadline(now)
    }

    #[test]
    fn a_buffer_that_has_grown_is_as_small_as_before_after_a_second_even_if_nothing_happens() {
        let mut buffer = ReceiveBuffer::new();
        assert_eq!(buffer.poll_deadline(5), None, "there is nothing to wait for");
        assert_eq!(fill(&mut buffer, 10), Some(10 + PAUSE));
        assert_eq!(fill(&mut buffer, 500), Some(10 + PAUSE), "that it grows further puts nothing off");
        assert_eq!(buffer.space().len(), 64 * FIRST_SPACE);
        assert_eq!(buffer.poll_deadline(9 + PAUSE), Some(10 + PAUSE));
        assert_eq!(buffer.space().len(), 64 * FIRST_SPACE);
        assert_eq!(buffer.poll_deadline(10 + PAUSE), None);
        assert_eq!(buffer.space().len(), FIRST_SPACE);
        assert_eq!(buffer.poll_deadline(Tick::MAX), None);
    }

    #[test]
    fn a_buffer_that_grows_again_and_again_shrinks_ever_more_seldom() {
        let mut buffer = ReceiveBuffer::new();
        let (mut now, mut pauses) = (0, Vec::new());
        for _ in 0..9 {
            let until = fill(&mut buffer, now).expect("it has grown");
            pauses.push((until - now) / PAUSE);
            assert_eq!(buffer.poll_deadline(until), None);
            now = until + 1;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        now += LONGEST_PAUSE;
        assert_eq!(fill(&mut buffer, now), Some(now + PAUSE), "it was small for long enough");
    }

    #[test]
    fn a_buffer_for_datagrams_stays_as_large_as_one_may_be() {
        let mut buffer = ReceiveBuffer::new();
        assert!(fill(&mut buffer, 0).is_some());
        buffer.open_wide();
        assert_eq!(buffer.poll_deadline(0), None);
        assert_eq!(buffer.poll_deadline(2 * PAUSE), None);
        assert_eq!(buffer.space().len(), SPACE);
        buffer.space()[..3].copy_from_slice(b"abc");
        buffer.open_wide();
        assert_eq!(buffer.received(3), b"abc", "to ask for it again loses nothing");
    }
}
