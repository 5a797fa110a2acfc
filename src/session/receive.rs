//! Receiving: what came from the kernel, what of it waits for the framing, and whether more is wanted.

use crate::{
    buffer::Inbox,
    framing::FrameError,
    session::{
        Connection, FramingSlot, ShardCore, overhead,
        status::{Flags, Phase, ReadBlock},
    },
    time::Tick,
};

/// None of this is true of an ordinary session.
const NOT_ORDINARY: Flags = Flags::union(&[
    Flags::READABLE,
    Flags::HANGUP,
    Flags::ENDED,
    Flags::BLOCKED,
    Flags::UNFINISHED,
    Flags::BACKLOG,
    Flags::SHUTDOWN,
    Flags::BROKEN,
    Flags::DISCARDING,
    Flags::END_TOLD,
    Flags::LAYERED,
    Flags::LINKED,
]);

/// How the shard knows that the kernel has no more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputExhausted {
    /// The kernel returned `EWOULDBLOCK`.
    WouldBlock,
    /// The kernel filled less than the space it was given.
    ShortRead,
}

/// What follows when everything that waited has been handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputStep {
    /// The server shuts down, and `on_shutdown` of this session is due.
    ShutDown,
    /// The peer has ended its side.
    End,
}

impl Connection {
    /// The kernel announced something to read, or (`hangup`) that the end can be read.
    #[inline]
    pub(crate) fn handle_readable(&mut self, hangup: bool) {
        self.status.insert(if hangup { Flags::READABLE | Flags::HANGUP } else { Flags::READABLE });
    }

    /// Returns `true` if the kernel may have more to read.
    pub(crate) fn is_readable(&self) -> bool {
        self.status.has(Flags::READABLE)
    }

    /// Returns `true` if it waits for nothing but input, and that was just announced: what comes goes straight to the
    /// framing, without layers, and whatever else is true of few sessions.
    #[inline]
    pub(crate) fn is_ordinary(&self) -> bool {
        self.status.is_open_without(NOT_ORDINARY) && self.inbox.is_none()
    }

    /// Counts `n` received bytes, which the peer has sent by now.
    #[inline]
    pub(crate) fn count_received(&mut self, n: usize, core: &mut ShardCore) {
        self.heard = core.clock.stamp();
        // A counter of 64 bits does not overflow in practice.
        self.traffic.bytes_in = self.traffic.bytes_in.wrapping_add(n as u64);
        core.counters.bytes_in = core.counters.bytes_in.wrapping_add(n as u64);
    }

    /// Returns `true` if there may be something to receive, and it is wanted now.
    #[inline]
    pub(crate) fn wants_input(&self) -> bool {
        // What waits in the inbox is handed out first; otherwise the inbox of a session that often pauses would keep
        // growing.
        let takes = !self.status.is_blocked() || self.is_layered() && self.takes_for_handshake();
        let wanted = takes && !self.status.has(Flags::BACKLOG) || self.discards_input();
        wanted && self.status.has(Flags::READABLE) && !self.status.has(Flags::ENDED | Flags::SHUTDOWN)
    }

    /// The kernel has no more to read until its next event. Returns `true` if that is certain: once an end was
    /// announced, no further event comes, and a short read does not prove that there is no more.
    #[inline]
    pub(crate) fn handle_exhausted(&mut self, how: InputExhausted) -> bool {
        if how == InputExhausted::ShortRead && self.status.has(Flags::HANGUP) {
            return false;
        }
        self.status.remove(Flags::READABLE);
        true
    }

    /// Counts `n` received bytes. Returns `true` if they are wanted: a session that is closing discards them.
    #[inline]
    pub(crate) fn handle_received(&mut self, n: usize, core: &mut ShardCore) -> bool {
        self.count_received(n, core);
        !self.discards_input()
    }

    /// Returns `true` if what is received belongs to no one: the session is closing, and waits for no handshake.
    #[inline]
    fn discards_input(&self) -> bool {
        self.is_closing() && !(self.is_layered() && self.closes_behind_handshake())
    }

    /// The peer has ended its side.
    pub(crate) fn handle_end(&mut self) {
        self.status.insert(Flags::ENDED);
        self.status.remove(Flags::READABLE);
    }

    /// Makes the session try to read and to write, whatever the kernel has announced: only a system call shows for
    /// certain.
    pub(crate) fn doubt(&mut self) {
        self.status.insert(Flags::READABLE);
        self.status.remove(Flags::BLOCKED);
    }

    /// Returns `true` if the session waits to be served without an event, in this turn or the next.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.status.has(Flags::UNFINISHED)
    }

    /// Lets the session wait to be served without an event. Returns `true` if it did not already.
    pub(crate) fn wait(&mut self) -> bool {
        self.status.insert(Flags::UNFINISHED)
    }

    /// Called when a session that waited is served.
    pub(crate) fn begin_serving(&mut self) {
        self.status.remove(Flags::UNFINISHED);
    }

    /// Returns `true` if packets are handed out: the session is not paused or closing, and its outbox has room.
    #[inline]
    pub(crate) fn takes_packets(&self) -> bool {
        !self.status.is_blocked()
    }

    /// Counts a packet that goes to the handler.
    #[inline]
    pub(crate) fn count_packet_in(&mut self) {
        // A counter of 64 bits does not overflow in practice.
        self.traffic.packets_in = self.traffic.packets_in.wrapping_add(1);
    }

    /// Returns `true` if bytes wait that were not yet offered to the framing.
    pub(crate) fn has_backlog(&self) -> bool {
        self.status.has(Flags::BACKLOG)
    }

    /// Returns `true` if packets wait although the session is not paused, because its outbox is full or its share of
    /// the turn is used up.
    pub(super) fn has_packets_to_hand_out(&self) -> bool {
        self.status.phase() == Phase::Open
            && self.status.has(Flags::BACKLOG)
            && !self.status.has_block(ReadBlock::PAUSED)
    }

    /// The beginning of the frame that is to be continued.
    #[inline]
    pub(crate) fn take_inbox(&mut self) -> Option<Box<Inbox>> {
        self.inbox.take()
    }

    /// Returns what has waited and may be handed out now. What waits for layers is kept by them.
    pub(crate) fn poll_backlog(&mut self, core: &ShardCore) -> Option<Box<Inbox>> {
        if self.status.is_blocked() || !self.status.remove(Flags::BACKLOG) {
            return None;
        }
        let inbox = self.inbox.take()?;
        // The peer was not silent while its bytes waited for us.
        self.heard = core.clock.stamp();
        Some(inbox)
    }

    /// Returns what follows when everything that waited has been handed out.
    pub(crate) fn poll_input_step(&self) -> Option<InputStep> {
        if self.status.has(Flags::SHUTDOWN) {
            return (!self.has_packets_to_hand_out()).then_some(InputStep::ShutDown);
        }
        // The end comes after what still waits.
        let ended = self.status.has(Flags::ENDED) || self.is_layered() && self.has_plain_end();
        let ends = ended && !self.status.has(Flags::BACKLOG | Flags::END_TOLD);
        (ends && !self.status.is_blocked()).then_some(InputStep::End)
    }

    /// Keeps what the framing did not consume.
    pub(crate) fn keep_inbox(&mut self, inbox: Box<Inbox>) {
        self.inbox = Some(inbox).filter(|inbox| !inbox.as_slice().is_empty());
    }

    /// Keeps what the framing did not consume, in the `inbox` that held its beginning, if any; `used` bytes before it
    /// were consumed.
    pub(crate) fn keep_tail(
        &mut self,
        inbox: Option<Box<Inbox>>,
        tail: &[u8],
        used: usize,
        core: &ShardCore,
    ) {
        let now = core.clock.stamp();
        self.inbox = Some(match inbox {
            None => Inbox::new(tail, now),
            Some(mut inbox) => {
                let since = if used == 0 { inbox.since() } else { now };
                inbox.restart(tail, since);
                inbox
            }
        });
    }

    /// What is in the inbox waits: until the handler takes packets again, or for the next turn.
    pub(crate) fn put_off(&mut self, core: &mut ShardCore) {
        self.status.insert(Flags::BACKLOG);
        if !self.status.is_blocked() || self.is_layered() && self.takes_for_handshake() {
            core.read_later(self);
        }
    }

    /// What is in the inbox is the beginning of a frame, which may have `max` bytes.
    ///
    /// # Errors
    /// If it is longer than that.
    pub(crate) fn handle_unfinished(&mut self, max: usize, core: &mut ShardCore) -> Result<(), FrameError> {
        let held = self.inbox.as_ref().map_or(&[][..], |inbox| inbox.as_slice());
        if held.len() > max {
            return Err(FrameError::too_long(held.len() as u64, max as u64, held));
        }
        if core.limits.packet_timeout.is_some() {
            self.arm(core);
        }
        Ok(())
    }

    /// Removes one read block. If it was the last, what waits is handed out in the next turn. The time in which we did
    /// not read does not count against the peer.
    pub(super) fn lift(&mut self, cause: ReadBlock, core: &mut ShardCore) {
        self.status.unblock(cause);
        if self.status.is_blocked() {
            return;
        }
        let begin = core.clock.read_stamp();
        self.heard = begin;
        if self.traffic.packets_in == 0 {
            self.listen_from(begin);
        }
        if let Some(inbox) = &mut self.inbox {
            inbox.restart_clock(begin);
        }
        if self.is_layered() {
            self.restamp_layers(0, begin);
        }
        if self.status.remove(Flags::DISCARDING) {
            self.discard(begin, core);
        }
        self.arm(core);
        if self.status.has(Flags::READABLE | Flags::BACKLOG | Flags::ENDED | Flags::SHUTDOWN) {
            core.read_later(self);
        }
    }

    /// The framing discards a frame that began at `since`, or goes on discarding one whose beginning is known already.
    #[cold]
    pub(crate) fn discard(&mut self, since: Tick, core: &mut ShardCore) {
        if self.status.insert(Flags::DISCARDING) {
            self.extra_or_new().discarding_since = since;
            self.arm(core);
        }
    }

    /// The frame that was being discarded has ended, or there was none.
    pub(crate) fn end_discarding(&mut self) {
        self.status.remove(Flags::DISCARDING);
    }

    /// Called when the framing was replaced: the new one looks at the kept bytes from their beginning.
    pub(crate) fn framing_swapped(&mut self, framing: &dyn FramingSlot, core: &mut ShardCore) {
        if let Some(handle_state) = self.handle_state() {
            handle_state.set_overhead(overhead(framing));
        }
        self.status.remove(Flags::DISCARDING);
        if self.inbox.is_some() {
            self.status.insert(Flags::BACKLOG);
            if !self.status.is_blocked() {
                core.read_later(self);
            }
        }
    }
}
