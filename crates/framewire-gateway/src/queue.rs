use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

use crate::Side;

/// The place of an end of a virtual connection in its hub.
pub(crate) type EndSlot = u32;
/// No end.
pub(crate) const NO_END: EndSlot = EndSlot::MAX;

/// Frames that wait to be sent on one link.
///
/// ```text
/// bytes  │ frame │ frame     │ fr.. │      as they will be on the wire
/// frames │ 5: 12 │ 9: 20     │ 5: 8 │      which end each is for, and its length
/// ```
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    bytes: BytesMut,
    frames: VecDeque<Waiting>,
    /// Ends whose peers are not read from until less waits here.
    pub(crate) holding: Vec<EndSlot>,
}

/// One frame that waits.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// [`NO_END`] for a command.
    end: EndSlot,
    len: u32,
}

impl SendQueue {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    #[inline]
    pub(crate) fn push(&mut self, end: EndSlot, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.frames.push_back(Waiting { end, len: frame.len() as u32 });
    }

    /// Returns the whole frames at the front that have room, and at least one.
    pub(crate) fn front(&self, room: usize) -> &[u8] {
        if self.bytes.len() <= room {
            return &self.bytes;
        }
        let mut len = 0;
        for frame in &self.frames {
            let longer = len + frame.len as usize;
            if len > 0 && longer > room {
                break;
            }
            len = longer;
        }
        self.bytes.get(..len).unwrap_or(&self.bytes)
    }

    /// Removes `len` bytes, which [`front`](Self::front) has returned, and calls `left` with each frame that was for an
    /// end and its length.
    pub(crate) fn remove(&mut self, len: usize, mut left: impl FnMut(EndSlot, u32)) {
        let mut rest = len;
        while rest > 0 {
            let Some(frame) = self.frames.pop_front() else { break };
            rest = rest.saturating_sub(frame.len as usize);
            if frame.end != NO_END {
                left(frame.end, frame.len);
            }
        }
        self.bytes.advance(len.min(self.bytes.len()));
    }

    /// Forgets everything but memory for `kept` bytes of frames, and as much beside them.
    fn clear(&mut self, kept: usize) {
        // What was advanced is only found again by a buffer that is cleared.
        self.bytes.clear();
        if self.bytes.capacity() > kept {
            self.bytes = BytesMut::new();
        }
        self.frames.clear();
        self.frames.shrink_to(kept / 2 / size_of::<Waiting>());
        self.holding.clear();
        self.holding.shrink_to(kept / 2 / size_of::<EndSlot>());
    }
}

/// Empty queues for the next frames. Those of clients are many and short, those of servers few and long.
#[derive(Debug, Default)]
pub(crate) struct QueuePool {
    /// By side.
    #[expect(clippy::vec_box, reason = "links take them as they are, in their boxes")]
    empty: [Vec<Box<SendQueue>>; 2],
}

impl QueuePool {
    /// How many queues of a side are kept, and how long each may be, in bytes.
    const fn kept(side: Side) -> (usize, usize) {
        match side {
            Side::Client => (64, 4 * 1024),
            Side::Server => (4, 256 * 1024),
        }
    }

    pub(crate) fn take(&mut self, side: Side) -> Box<SendQueue> {
        self.empty[side.index()].pop().unwrap_or_default()
    }

    pub(crate) fn give_back(&mut self, side: Side, mut queue: Box<SendQueue>) {
        let (most, bytes) = Self::kept(side);
        if self.empty[side.index()].len() < most {
            queue.clear(bytes);
            self.empty[side.index()].push(queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> SendQueue {
        let mut queue = SendQueue::default();
        queue.push(5, b"first");
        queue.push(NO_END, b"command");
        queue.push(9, b"second frame");
        queue
    }

    #[test]
    fn whole_frames_come_out_in_order_and_one_at_least() {
        let queue = queue();
        for (room, front) in [
            (0, "first"),
            (11, "first"),
            (12, "firstcommand"),
            (23, "firstcommand"),
            (24, "firstcommandsecond frame"),
        ] {
            assert_eq!(queue.front(room), front.as_bytes(), "room for {room} bytes");
        }
    }

    #[test]
    fn each_frame_is_told_to_its_end_when_it_leaves() {
        let mut queue = queue();
        let mut left = Vec::new();
        queue.remove(queue.front(12).len(), |end, len| left.push((end, len)));
        assert_eq!((left.as_slice(), queue.len()), (&[(5, 5)][..], 12));
        queue.remove(queue.front(12).len(), |end, len| left.push((end, len)));
        assert_eq!((left.as_slice(), queue.is_empty()), (&[(5, 5), (9, 12)][..], true));
    }

    #[test]
    fn a_burst_does_not_keep_its_memory() {
        for side in [Side::Client, Side::Server] {
            let (most, bytes) = QueuePool::kept(side);
            let mut pool = QueuePool::default();
            let mut queues: Vec<_> = (0..2 * most).map(|_| pool.take(side)).collect();
            for queue in &mut queues {
                for _ in 0..10_000 {
                    queue.push(1, &[0; 100]);
                    queue.holding.push(1);
                }
            }
            queues.into_iter().for_each(|queue| pool.give_back(side, queue));
            assert_eq!(pool.empty.each_ref().map(Vec::len).iter().sum::<usize>(), most);
            for queue in &pool.empty[side.index()] {
                let beside = queue.frames.capacity() * size_of::<Waiting>();
                let holding = queue.holding.capacity() * size_of::<EndSlot>();
                assert!(queue.is_empty() && queue.bytes.capacity() <= bytes && beside + holding <= bytes);
            }
        }
    }
}
