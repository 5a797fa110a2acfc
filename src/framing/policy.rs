//! What the bounded framings share: the default maximum, and what happens above a maximum.

use super::{Decoded, FrameError, Oversize};

/// The maximum of a framing that was neither given one by `max` nor offered one by a server: 1 MiB. The documentation
/// of each framing says which bytes it counts.
pub const DEFAULT_MAX_FRAME: usize = 1 << 20;

/// [`DEFAULT_MAX_FRAME`] as the framings keep it: 4 bytes, since one lives in each of very many sessions.
pub(super) const DEFAULT_MAX: u32 = 1 << 20;

/// A maximum as the framings keep it; larger values are taken as 4 GiB - 1.
pub(super) fn clamp(max: usize) -> u32 {
    u32::try_from(max).unwrap_or(u32::MAX)
}

/// A length on the wire as a length in memory.
pub(super) fn in_memory(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// What a framing does above its maximum, and whether its user chose that maximum. Two bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Policy {
    pub(super) oversize: Oversize,
    pub(super) max_is_chosen: bool,
}

impl Policy {
    /// Refuses the frame at the front of `buf`, which takes `frame` bytes on the wire: returns `error` if the session
    /// is to end; otherwise stores in `left` how many of its bytes are still to come.
    #[cold]
    pub(super) fn refuse(
        self,
        left: &mut u64,
        frame: u64,
        buf: &[u8],
        error: FrameError,
    ) -> Result<Option<Decoded>, FrameError> {
        match self.oversize {
            Oversize::Close => Err(error),
            Oversize::Discard => {
                let consumed = in_memory(frame).min(buf.len());
                *left = frame - consumed as u64;
                Ok(Some(Decoded::Rejected { consumed, error }))
            }
        }
    }
}

/// Skips what `buf` holds of the `left` bytes of a refused frame.
#[cold]
pub(super) fn skip(left: &mut u64, buf: &[u8]) -> Decoded {
    let consumed = in_memory(*left).min(buf.len());
    *left -= consumed as u64;
    Decoded::Skipped { consumed }
}

/// Ends the stream for a framing that makes no packet of the rest in `buf`, with `left` bytes of a refused frame to
/// come.
pub(super) fn end(left: u64, buf: &[u8]) -> Result<Option<Decoded>, FrameError> {
    if left == 0 && buf.is_empty() { Ok(None) } else { Err(FrameError::truncated(buf)) }
}
