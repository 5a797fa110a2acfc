use bytes::{Bytes, BytesMut};

/// Frames that follow each other in one piece of memory.
#[derive(Debug)]
pub(super) enum Chunk {
    /// Of one session.
    Own(BytesMut),
    /// Of many sessions: the memory is counted where they were encoded.
    Shared(Bytes),
}

impl Chunk {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(frames) => frames,
            Self::Shared(frames) => frames,
        }
    }

    pub(super) fn own(&self) -> Option<&BytesMut> {
        if let Self::Own(frames) = self { Some(frames) } else { None }
    }

    pub(super) fn own_mut(&mut self) -> Option<&mut BytesMut> {
        if let Self::Own(frames) = self { Some(frames) } else { None }
    }

    /// Bytes of shared memory that it keeps.
    pub(super) fn shared(&self) -> usize {
        if let Self::Shared(frames) = self { frames.len() } else { 0 }
    }

    /// Bytes of memory that it takes, what it shares excluded.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.own().map_or(0, BytesMut::capacity)
    }
}
