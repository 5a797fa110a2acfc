use std::ops::BitOr;

/// What the shard remembers about a session between events, in one number, so that one test tells an ordinary session
/// from all others: why no packets are handed out, the phase, and the flags.
///
/// ```text
/// │ unused: 2 │ flags: 24 │ phase: 2 │ read blocks: 4 │
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Status(u32);

/// Why no packets are handed out. Any of these blocks them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadBlock(u32);

impl ReadBlock {
    /// The handler or a handle has paused the session.
    pub(crate) const PAUSED: Self = Self(1);
    /// The outbox is above the high-water mark, or was, and has not fallen to the low one yet.
    pub(crate) const FULL: Self = Self(2);
    /// The session is closing.
    pub(crate) const CLOSING: Self = Self(4);
    /// A layer was pushed: the bytes that follow are for it.
    pub(crate) const UPGRADE: Self = Self(8);

    const ANY: u32 = 0b1111;
}

/// How far a session has come. The upper bit tells whether it is closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Packets go in and out.
    Open = 0b00,
    /// Its layers are in their handshakes; `on_open` was not called yet.
    Opening = 0b01,
    /// Closing: what is queued still goes out, what comes in is discarded.
    Draining = 0b10,
    /// Our end is sent; reading and discarding until the peer's comes, so that no reset destroys our last bytes.
    Lingering = 0b11,
}

const PHASE_SHIFT: u32 = 4;
const ANY_PHASE: u32 = 0b11 << PHASE_SHIFT;
const CLOSING_PHASE: u32 = 0b10 << PHASE_SHIFT;

/// What is true of a session, or due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags(u32);

/// Declares the flags, each with its bit: two with the same one do not compile.
macro_rules! flags {
    ($($(#[$doc:meta])+ $flag:ident = $bit:literal;)+) => {
        impl Flags {
            $($(#[$doc])+ pub(crate) const $flag: Self = Self(1 << $bit);)+
        }

        const _: () = {
            let taken = ReadBlock::ANY | ANY_PHASE;
            $(
                assert!(taken & 1 << $bit == 0, concat!("the bit of ", stringify!($flag), " is taken"));
                let taken = taken | 1 << $bit;
            )+
            let _ = taken;
        };
    };
}

flags! {
    /// The kernel may have more to read, and will not say so again.
    READABLE = 6;
    /// A short read does not mean that there is no more: an end of stream or an error was announced and must be found,
    /// or it is a Unix socket, where a read stops after bytes that carry descriptors.
    HANGUP = 7;
    /// The end of the stream was read.
    ENDED = 8;
    /// The kernel takes no more; an event will announce when it does.
    BLOCKED = 9;
    /// On the list of sessions to flush.
    DIRTY = 10;
    /// On the list of sessions to read without an event.
    UNFINISHED = 11;
    /// `on_drained` is due.
    DRAINED = 12;
    /// The inbox holds bytes that were not yet offered to the framing.
    BACKLOG = 13;
    /// To be reset rather than closed.
    ABORT = 14;
    /// A write was interrupted: not again before the next look at this session.
    RETRY = 15;
    /// The server shuts down: what waits in the inbox is handed out, nothing more is read, then the session is closed.
    SHUTDOWN = 16;
    /// The connection has failed: nothing is written any more, and what was received before is still handed out.
    BROKEN = 17;
    /// In the middle of a frame that is discarded.
    DISCARDING = 18;
    /// `on_closing` is due.
    CLOSING = 19;
    /// `on_end` was called: nothing more comes in, and our side stays open.
    END_TOLD = 20;
    /// Bytes go through layers.
    LAYERED = 21;
    /// It has a heartbeat.
    BEATS = 22;
    /// It has timeouts of its own, in place of those of the limits.
    OWN_TIMEOUTS = 23;
    /// What becomes of packets without room is not the default.
    OWN_OVERFLOW = 24;
    /// Its packets go to another session.
    LINKED = 25;
    /// Our side is to be ended behind what is queued, or has been; the peer's goes on.
    ENDING = 26;
    /// Our side has been ended, and the peer's goes on.
    END_SENT = 27;
    /// As [`ReadBlock::FULL`], where packets are handed out all the same.
    FULL_AND_READ = 28;
    /// Streams are multiplexed over it.
    CARRIES = 29;
}

impl Flags {
    /// All of them in one.
    pub(crate) const fn union(flags: &[Self]) -> Self {
        let mut all = 0;
        let mut rest = flags;
        while let [flag, others @ ..] = rest {
            all |= flag.0;
            rest = others;
        }
        Self(all)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Status {
    /// Returns `true` if the session is open, nothing blocks its packets, and none of these flags is set.
    #[inline]
    pub(super) fn is_open_without(self, flags: Flags) -> bool {
        self.0 & (ReadBlock::ANY | ANY_PHASE | flags.0) == 0
    }

    /// Returns `true` if any of the flags is set.
    #[inline]
    pub(super) fn has(self, flags: Flags) -> bool {
        self.0 & flags.0 != 0
    }

    /// Sets a flag. Returns `true` if it was not set before.
    #[inline]
    pub(super) fn insert(&mut self, flag: Flags) -> bool {
        let new = self.0 & flag.0 == 0;
        self.0 |= flag.0;
        new
    }

    /// Clears a flag. Returns `true` if it was set.
    #[inline]
    pub(super) fn remove(&mut self, flag: Flags) -> bool {
        let old = self.0 & flag.0 != 0;
        self.0 &= !flag.0;
        old
    }

    /// Returns `true` if anything blocks packets.
    #[inline]
    pub(super) fn is_blocked(self) -> bool {
        self.0 & ReadBlock::ANY != 0
    }

    #[inline]
    pub(super) fn has_block(self, block: ReadBlock) -> bool {
        self.0 & block.0 != 0
    }

    /// Returns `true` if the outbox is to drain, whether that blocks packets or not.
    #[inline]
    pub(super) fn is_full(self) -> bool {
        self.0 & (ReadBlock::FULL.0 | Flags::FULL_AND_READ.0) != 0
    }

    /// Returns `true` if this blocks packets, and nothing else does.
    pub(super) fn has_only_block(self, block: ReadBlock) -> bool {
        self.0 & ReadBlock::ANY == block.0
    }

    pub(super) fn block(&mut self, block: ReadBlock) {
        self.0 |= block.0;
    }

    pub(super) fn unblock(&mut self, block: ReadBlock) {
        self.0 &= !block.0;
    }

    #[inline]
    pub(super) fn phase(self) -> Phase {
        match self.0 >> PHASE_SHIFT & 0b11 {
            0b00 => Phase::Open,
            0b01 => Phase::Opening,
            0b10 => Phase::Draining,
            _ => Phase::Lingering,
        }
    }

    pub(super) fn set_phase(&mut self, phase: Phase) {
        self.0 = self.0 & !ANY_PHASE | (phase as u32) << PHASE_SHIFT;
    }

    /// Returns `true` if our side is to be ended when everything is sent, or has been.
    #[inline]
    pub(super) fn ends_our_side(self) -> bool {
        self.0 & (CLOSING_PHASE | Flags::ENDING.0) != 0
    }

    /// Returns `true` in the phases in which it closes.
    #[inline]
    pub(super) fn is_closing(self) -> bool {
        self.0 & CLOSING_PHASE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_tell_whether_they_changed() {
        let mut status = Status::default();
        assert!(status.insert(Flags::DIRTY));
        assert!(!status.insert(Flags::DIRTY));
        assert!(status.remove(Flags::DIRTY));
        assert!(!status.remove(Flags::DIRTY));
        assert!(!status.has(Flags::DIRTY | Flags::ENDED));
    }

    #[test]
    fn flags_phases_and_blocks_do_not_touch_each_other() {
        let flags = [Flags::READABLE, Flags::LAYERED];
        let blocks = [ReadBlock::PAUSED, ReadBlock::UPGRADE];
        let phases = [Phase::Lingering, Phase::Draining, Phase::Opening, Phase::Open];
        let mut status = Status::default();
        assert!(status.is_open_without(flags[0] | flags[1]));
        for (flag, block) in flags.into_iter().zip(blocks) {
            status.insert(flag);
            status.block(block);
            for phase in phases {
                status.set_phase(phase);
                assert_eq!(status.phase(), phase);
                assert_eq!(status.is_closing(), matches!(phase, Phase::Draining | Phase::Lingering));
                assert!(status.has(flag) && status.has_only_block(block));
            }
            assert!(!status.is_open_without(flag), "blocked");
            status.unblock(block);
            assert!(!status.is_open_without(flag), "{flag:?}");
            status.remove(flag);
            assert!(status.is_open_without(flag));
        }
    }
}
