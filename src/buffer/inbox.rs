use crate::time::Tick;

/// The unfinished frame of one session, and packets that wait: bytes received and not yet consumed by the framing.
///
/// ```text
/// [ consumed ... | held ............ ]
///                  ^ start
/// ```
///
/// It is created when a read ends inside a frame, and dropped when the frame is complete. It grows with the bytes that
/// came (at most by doubling), never by an announced length. Invariant: `start ≤ bytes.len() / 2`.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    /// When the first byte of the frame at the front came.
    since: Tick,
}

impl Inbox {
    pub(crate) fn new(tail: &[u8], now: Tick) -> Box<Self> {
        Box::new(Self { bytes: tail.to_vec(), start: 0, since: now })
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..).unwrap_or_default()
    }

    pub(crate) fn since(&self) -> Tick {
        self.since
    }

    /// Counts the time of the frame at the front from `now`.
    pub(crate) fn restart_clock(&mut self, now: Tick) {
        self.since = now;
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(crate) fn append(&mut self, received: &[u8]) {
        self.bytes.extend_from_slice(received);
    }

    /// Replaces everything with `tail`, whose first frame began at `since`.
    pub(crate) fn restart(&mut self, tail: &[u8], since: Tick) {
        self.bytes.clear();
        self.start = 0;
        self.bytes.extend_from_slice(tail);
        self.since = since;
        self.give_back();
    }

    /// Drops the first `n` bytes: what follows them began to arrive at `now`, as far as we know.
    ///
    /// The rest is moved to the front only when it is shorter than what was consumed, so that packets which are
    /// consumed one by one do not each cost a move of all the others.
    pub(crate) fn consume(&mut self, n: usize, now: Tick) {
        if n == 0 {
            return;
        }
        self.since = now;
        self.start = (self.start + n).min(self.bytes.len());
        if self.start > self.bytes.len() - self.start {
            self.bytes.drain(..self.start);
            self.start = 0;
            self.give_back();
        }
    }

    /// A short tail does not keep the memory of the long frame before it.
    fn give_back(&mut self) {
        if self.bytes.capacity() > 4096 && self.bytes.capacity() / 4 > self.bytes.len() {
            self.bytes.shrink_to(self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_the_bytes_that_came() {
        let mut inbox = Inbox::new(b"a", 0);
        for _ in 0..10_000 {
            inbox.append(b"b");
            assert!(inbox.capacity() <= 2 * inbox.as_slice().len().max(8));
        }
        inbox.consume(10_000, 3);
        assert_eq!(inbox.as_slice(), b"b");
        assert!(inbox.capacity() < 64, "kept {} bytes for one", inbox.capacity());
        assert_eq!(inbox.since(), 3);
    }

    #[test]
    fn an_untouched_frame_keeps_its_beginning() {
        let mut inbox = Inbox::new(b"abc", 5);
        inbox.append(b"d");
        inbox.consume(0, 9);
        assert_eq!((inbox.as_slice(), inbox.since()), (&b"abcd"[..], 5));
    }
}
