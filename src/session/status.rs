use std::ops::BitOr;

/// Why no packets are handed out. Any bit blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ReadBlock(u8);

impl ReadBlock {
    /// The handler or a handle has paused the session.
    pub(crate) const PAUSED: Self = Self(1);
    /// The outbox is above the high-water mark.
    pub(crate) const FULL: Self = Self(2);
    /// The session is closing.
    pub(crate) const CLOSING: Self = Self(4);
    /// A layer was pushed: the bytes that follow are for it.
    pub(crate) const UPGRADE: Self = Self(8);

    #[inline]
    pub(crate) fn any(self) -> bool {
        self.0 != 0
    }

    pub(crate) fn has(self, bit: Self) -> bool {
        self.0 & bit.0 != 0
    }

    /// Returns `true` if `bit` is set and no other.
    pub(crate) fn only(self, bit: Self) -> bool {
        self.0 == bit.0
    }

    pub(crate) fn set(&mut self, bit: Self) {
        self.0 |= bit.0;
    }

    pub(crate) fn clear(&mut self, bit: Self) {
        self.0 &= !bit.0;
    }
}

/// What the shard remembers about a session between events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(u16);

impl Flags {
    /// The kernel may have more to read, and will not say so again.
    pub(crate) const READABLE: Self = Self(1);
    /// A short read does not mean that there is no more: an end of stream or an error was announced and must be found,
    /// or it is a Unix socket, where a read stops after bytes that carry descriptors.
    pub(crate) const HANGUP: Self = Self(2);
    /// The end of the stream was read.
    pub(crate) const ENDED: Self = Self(4);
    /// The kernel takes no more; an event will announce when it does.
    pub(crate) const BLOCKED: Self = Self(8);
    /// On the list of sessions to flush.
    pub(crate) const DIRTY: Self = Self(16);
    /// On the list of sessions to read without an event.
    pub(crate) const UNFINISHED: Self = Self(32);
    /// `on_drained` is due.
    pub(crate) const DRAINED: Self = Self(64);
    /// The inbox holds bytes that were not yet offered to the framing.
    pub(crate) const BACKLOG: Self = Self(128);
    /// To be reset rather than closed.
    pub(crate) const ABORT: Self = Self(256);
    /// A write was interrupted: not again before the next look at this session.
    pub(crate) const RETRY: Self = Self(512);
    /// The server shuts down: what waits in the inbox is handed out, nothing more is read, then the session is closed.
    pub(crate) const SHUTDOWN: Self = Self(1024);
    /// The connection has failed: nothing is written any more, and what was received before is still handed out.
    pub(crate) const BROKEN: Self = Self(2048);
    /// In the middle of a frame that is discarded.
    pub(crate) const DISCARDING: Self = Self(4096);
    /// `on_closing` is due.
    pub(crate) const CLOSING: Self = Self(8192);
    /// `on_end` was called: nothing more comes in, and our side stays open.
    pub(crate) const END_TOLD: Self = Self(16384);
    /// Bytes go through layers.
    pub(crate) const LAYERED: Self = Self(32768);

    /// All of them in one.
    pub(crate) const fn union(flags: &[Self]) -> Self {
        let mut all = 0;
        let mut rest = flags;
        while let [mark, others @ ..] = rest {
            all |= mark.0;
            rest = others;
        }
        Self(all)
    }

    /// Returns `true` if any of them is set.
    #[inline]
    pub(crate) fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }

    /// Returns `true` if it was not set before.
    pub(crate) fn insert(&mut self, mark: Self) -> bool {
        let new = self.0 & mark.0 == 0;
        self.0 |= mark.0;
        new
    }

    /// Returns `true` if it was set.
    pub(crate) fn remove(&mut self, mark: Self) -> bool {
        let old = self.0 & mark.0 != 0;
        self.0 &= !mark.0;
        old
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_tell_whether_they_changed() {
        let mut flags = Flags::default();
        assert!(flags.insert(Flags::DIRTY));
        assert!(!flags.insert(Flags::DIRTY));
        assert!(flags.remove(Flags::DIRTY));
        assert!(!flags.remove(Flags::DIRTY));
        assert!(!flags.has(Flags::DIRTY | Flags::ENDED));
    }
}
