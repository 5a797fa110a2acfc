use bytes::BytesMut;

use super::Outbox;

/// Empty outboxes of one shard, ready for the next session that sends.
///
/// A reply is usually encoded and written within one turn, so a few outboxes serve a whole shard, and stay warm in the
/// cache. Where packets go to other sessions (links, channels), as many are in use in a turn as there are receivers: so
/// many are kept while they are used, and no more than the number of sessions justifies: a shard of one session keeps
/// one, of 32 KiB at most.
#[derive(Debug, Default)]
pub(crate) struct OutboxPool {
    /// The one that was put back last, which is nearly always taken next. It counts as the others do.
    last: Option<Box<Outbox>>,
    #[allow(clippy::vec_box, reason = "sessions hold the boxes, which are to move between both as they are")]
    free: Vec<Box<Outbox>>,
    /// The outboxes at the bottom of `free` that were not taken since the last look.
    unused: usize,
    /// Outboxes that may come back before the next look.
    until_look: usize,
    /// Bytes of memory that they hold.
    bytes: usize,
    /// Bytes that wait in the outboxes of sessions which have not written all that they had.
    queued: usize,
    most: usize,
    most_bytes: usize,
    /// Spare bytes that an outbox may have: frames go there without a check of its limits.
    most_spare: usize,
}

/// Outboxes kept, at most: as many as a turn has events.
const MOST: usize = 1024;
/// A larger buffer is not kept.
const LARGEST: usize = 256 * 1024;
/// Bytes kept, at most, however many sessions there are.
const MOST_BYTES: usize = 32 * LARGEST;
/// What was not used while so many outboxes came back is freed.
const LOOK_EVERY: usize = 4 * MOST;
/// Bytes kept for each session.
const SHARE: usize = 32 * 1024;

impl OutboxPool {
    /// Creates a pool for outboxes with that high-water mark (bytes).
    pub(crate) fn new(outbox_high: usize) -> Self {
        Self { most_spare: outbox_high.min(LARGEST), ..Self::default() }
    }

    #[inline]
    pub(crate) fn take(&mut self) -> Box<Outbox> {
        let Some(outbox) = self.last.take() else { return self.take_other() };
        self.bytes = self.bytes.wrapping_sub(outbox.kept());
        outbox
    }

    fn take_other(&mut self) -> Box<Outbox> {
        let Some(outbox) = self.free.pop() else { return Box::default() };
        self.bytes -= outbox.kept();
        self.unused = self.unused.min(self.free.len());
        outbox
    }

    /// Takes back an outbox, whatever is still in it.
    pub(crate) fn put(&mut self, mut outbox: Box<Outbox>) {
        outbox.reset(self.most_spare);
        self.put_empty(outbox);
    }

    /// Takes back an outbox in which nothing waits.
    #[inline(always)]
    pub(crate) fn put_empty(&mut self, mut outbox: Box<Outbox>) {
        outbox.reset_empty(self.most_spare);
        let kept = outbox.kept();
        // No sum of buffers that exist wraps.
        let bytes = self.bytes.wrapping_add(kept);
        if self.last.is_some() || kept > LARGEST || bytes > self.most_bytes || outbox.counted() > 0 {
            return self.put_other(outbox);
        }
        self.last = Some(outbox);
        self.bytes = bytes;
    }

    /// Keeps an outbox beside the last one, if there is room for it.
    #[cold]
    fn put_other(&mut self, mut outbox: Box<Outbox>) {
        self.count_queued(&mut outbox);
        let bytes = self.bytes + outbox.kept();
        if outbox.kept() <= LARGEST && bytes <= self.most_bytes && self.count() < self.most {
            self.free.push(outbox);
            self.bytes = bytes;
        }
        self.until_look = self.until_look.checked_sub(1).unwrap_or_else(|| self.free_unused());
    }

    /// Frees what was not used since it was last called. Returns when it is to be called again.
    fn free_unused(&mut self) -> usize {
        for outbox in self.free.drain(..self.unused.min(self.free.len())) {
            self.bytes -= outbox.kept();
        }
        self.unused = self.free.len();
        LOOK_EVERY
    }

    fn count(&self) -> usize {
        self.free.len() + usize::from(self.last.is_some())
    }

    /// Frees what is more than that many sessions justify.
    pub(crate) fn fit(&mut self, sessions: usize) {
        self.most = sessions.min(MOST);
        self.most_bytes = sessions.saturating_mul(SHARE).min(MOST_BYTES);
        while self.count() > self.most || self.bytes > self.most_bytes {
            let Some(outbox) = self.free.pop().or_else(|| self.last.take()) else { break };
            self.bytes -= outbox.kept();
        }
    }

    /// Frees all of it.
    #[cold]
    pub(crate) fn clear(&mut self) {
        self.free.clear();
        self.last = None;
        self.bytes = 0;
    }

    /// Counts what waits in an outbox now, in place of what was counted there before.
    pub(crate) fn count_queued(&mut self, outbox: &mut Outbox) {
        let (before, now) = outbox.recount();
        self.queued = self.queued - before + now;
    }

    /// Returns the bytes that wait in outboxes.
    #[inline]
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Returns the bytes of memory that the pool holds.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes back a buffer without its outbox.
    pub(crate) fn put_buffer(&mut self, buffer: BytesMut) {
        self.put(Box::new(Outbox::with_buffer(buffer)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_keeps_a_bounded_number_of_bounded_buffers() {
        let mut pool = OutboxPool::default();
        pool.fit(10_000);
        for _ in 0..2 * MOST {
            pool.put(Box::default());
        }
        assert_eq!((pool.count(), pool.bytes()), (MOST, 0));
        pool.clear();
        pool.put_buffer(BytesMut::with_capacity(LARGEST + 1));
        assert_eq!(pool.count(), 0);
        pool.put_buffer(BytesMut::with_capacity(100));
        assert!(pool.bytes() >= 100);
        assert!(pool.take().capacity() >= 100);
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn what_was_in_use_at_the_same_time_is_kept_until_less_is_used() {
        let mut pool = OutboxPool::default();
        pool.fit(10_000);
        let use_at_once = |pool: &mut OutboxPool, count: usize| {
            let taken: Vec<_> = (0..count).map(|_| pool.take()).collect();
            taken.into_iter().for_each(|outbox| pool.put(outbox));
        };
        use_at_once(&mut pool, 300);
        assert_eq!(pool.count(), 300);
        (0..2 * LOOK_EVERY / 300).for_each(|_| use_at_once(&mut pool, 300));
        assert_eq!(pool.count(), 300, "as many are used each time");
        (0..3 * LOOK_EVERY / 9).for_each(|_| use_at_once(&mut pool, 10));
        assert_eq!(pool.count(), 10);
    }

    #[test]
    fn a_pool_of_many_sessions_keeps_no_more_bytes_than_one_of_a_few() {
        let mut pool = OutboxPool::new(LARGEST);
        pool.fit(100_000);
        (0..100).for_each(|_| pool.put_buffer(BytesMut::with_capacity(LARGEST)));
        assert_eq!((pool.count(), pool.bytes()), (32, MOST_BYTES));
    }

    #[test]
    fn the_pool_fits_the_number_of_sessions() {
        let mut pool = OutboxPool::default();
        pool.put_buffer(BytesMut::with_capacity(100));
        assert_eq!(pool.bytes(), 0, "nobody is there to use it");
        pool.fit(1);
        pool.put_buffer(BytesMut::with_capacity(SHARE + 1));
        assert_eq!(pool.bytes(), 0);
        (0..3).for_each(|_| pool.put_buffer(BytesMut::with_capacity(SHARE)));
        assert_eq!((pool.count(), pool.bytes()), (1, SHARE));
        pool.fit(3);
        (0..9).for_each(|_| pool.put_buffer(BytesMut::with_capacity(SHARE)));
        assert_eq!((pool.count(), pool.bytes()), (3, 3 * SHARE));
        pool.fit(2);
        assert_eq!((pool.count(), pool.bytes()), (2, 2 * SHARE));
        pool.fit(0);
        assert_eq!((pool.count(), pool.bytes()), (0, 0));
    }
}
