use bytes::BytesMut;

use super::Outbox;

/// Empty outboxes of one shard, ready for the next session that sends.
///
/// A reply is encoded and written within one turn, so a handful serve a whole shard, and stay warm in the cache.
#[derive(Debug, Default)]
pub(crate) struct OutboxPool {
    #[allow(clippy::vec_box, reason = "sessions hold the boxes, which are to move between both as they are")]
    free: Vec<Box<Outbox>>,
}

/// Outboxes kept.
const KEPT: usize = 32;
/// A larger buffer is not kept: 32 × 256 KiB is what an idle shard may hold.
const LARGEST: usize = 256 * 1024;

impl OutboxPool {
    #[inline]
    pub(crate) fn take(&mut self) -> Box<Outbox> {
        self.free.pop().unwrap_or_default()
    }

    /// Takes back an outbox, whatever is still in it.
    #[inline]
    pub(crate) fn put(&mut self, mut outbox: Box<Outbox>) {
        outbox.reset();
        if self.free.len() < KEPT && outbox.capacity() <= LARGEST {
            self.free.push(outbox);
        }
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
        for _ in 0..2 * KEPT {
            pool.put(Box::default());
        }
        assert_eq!(pool.free.len(), KEPT);
        pool.free.clear();
        pool.put_buffer(BytesMut::with_capacity(LARGEST + 1));
        assert_eq!(pool.free.len(), 0);
        pool.put_buffer(BytesMut::with_capacity(100));
        assert!(pool.take().capacity() >= 100);
    }
}
