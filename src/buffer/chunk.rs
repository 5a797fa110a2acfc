use bytes::{Bytes, BytesMut};

/// Frames that follow each other in one piece of memory.
#[derive(Debug)]
pub(crate) enum Chunk {
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

/// Frees the memory that a chunk holds beyond its frames, if it is more than `spare` bytes.
pub(super) fn trim(chunk: &mut BytesMut, spare: usize) {
    if chunk.capacity() - chunk.len() > spare {
        *chunk = BytesMut::from(&**chunk);
    }
}

/// Appends what `encode` writes, and returns its length. After a failure, what it has written is removed.
pub(super) fn append_to<E>(
    chunk: &mut BytesMut,
    encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
) -> Result<usize, E> {
    let mut draft = AppendGuard { kept: chunk.len(), chunk };
    encode(draft.chunk)?;
    Ok(draft.keep())
}

/// A frame that is being appended; it is removed on drop unless it is kept.
struct AppendGuard<'a> {
    chunk: &'a mut BytesMut,
    kept: usize,
}

impl AppendGuard<'_> {
    /// Keeps the frame, and returns its length.
    fn keep(&mut self) -> usize {
        let before = std::mem::replace(&mut self.kept, self.chunk.len());
        self.kept.saturating_sub(before)
    }
}

impl Drop for AppendGuard<'_> {
    fn drop(&mut self) {
        self.chunk.truncate(self.kept);
    }
}
