use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::{Bytes, BytesMut};

/// How many bytes of frames the outboxes of one shard share. Each counts once, from when it was encoded until the last
/// outbox has written it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedMemory(Arc<AtomicUsize>);

impl SharedMemory {
    /// Makes bytes of `frames` that can be shared.
    pub(crate) fn share(&self, frames: BytesMut) -> Bytes {
        self.0.fetch_add(frames.capacity(), Relaxed);
        Bytes::from_owner(Counted { frames, memory: self.clone() })
    }

    /// Returns how many bytes of memory are shared now.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// Frames that are counted until they are dropped.
struct Counted {
    frames: BytesMut,
    memory: SharedMemory,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.frames
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.frames.capacity(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_frames_count_once_until_the_last_clone_is_dropped() {
        let memory = SharedMemory::default();
        let frames = memory.share(BytesMut::from(&[7; 100][..]));
        let parts = [frames.clone(), frames.slice(10..20)];
        drop(frames);
        assert_eq!((memory.bytes(), &parts[1][..]), (100, &[7; 10][..]));
        drop(parts);
        assert_eq!(memory.bytes(), 0);
    }
}
