use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

/// The place of an end of a virtual connection in its hub.
pub(crate) type EndSlot = u32;

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
    /// `None` for a command.
    end: Option<EndSlot>,
    len: u32,
}

impl SendQueue {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn push(&mut self, end: Option<EndSlot>, frame: &[u8]) {
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
    pub(crate) fn remove(&mut self, len: usize, mut left: impl FnMut(EndSlot, usize)) {
        let mut rest = len;
        while rest > 0 {
            let Some(frame) = self.frames.pop_front() else { break };
            rest = rest.saturating_sub(frame.len as usize);
            if let Some(end) = frame.end {
                left(end, frame.len as usize);
            }
        }
        self.bytes.advance(len.min(self.bytes.len()));
    }

    /// Forgets everything but memory for a few frames.
    pub(crate) fn clear(&mut self) {
        const KEPT: usize = 64 * 1024;
        // What was advanced is only found again by a buffer that is cleared.
        self.bytes.clear();
        if self.bytes.capacity() > KEPT {
            self.bytes = BytesMut::new();
        }
        self.frames.clear();
        self.frames.shrink_to(KEPT / size_of::<Waiting>());
        self.holding.clear();
        self.holding.shrink_to(KEPT / size_of::<EndSlot>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> SendQueue {
        let mut queue = SendQueue::default();
        queue.push(Some(5), b"first");
        queue.push(None, b"command");
        queue.push(Some(9), b"second frame");
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
        let mut queue = SendQueue::default();
        for _ in 0..100_000 {
            queue.push(Some(1), &[0; 100]);
        }
        queue.clear();
        assert!(queue.is_empty() && queue.bytes.capacity() <= 64 * 1024 && queue.frames.capacity() <= 8192);
    }
}
