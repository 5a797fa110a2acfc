use super::{Ending, Shard, Slot};
use crate::{
    addr::Endpoints,
    error::CloseReason,
    framing::Framing,
    handler::PacketHandler,
    id::{Key, SessionId},
    session::ShardCore,
};

/// What is left of a session's share of the turn: frames, granted in parts, so that the clock is read in
/// between.
pub(super) struct Share {
    /// Frames that may still be handed out before more are granted.
    pub(super) frames: u32,
    /// Frames that were granted last.
    granted: u32,
    /// Frames that may still be granted.
    more: u32,
}

impl Share {
    #[inline]
    fn new(core: &ShardCore) -> Self {
        let budget = core.limits.packet_budget;
        let granted = core.clock.credit().min(budget);
        Self { frames: granted, granted, more: budget.wrapping_sub(granted) }
    }

    /// What was granted is used up: grants more, if the share and the time allow it.
    #[cold]
    pub(super) fn renew(&mut self, core: &mut ShardCore) {
        core.clock.spend(self.granted);
        if core.clock.is_part_over() {
            self.more = 0;
        }
        self.granted = self.more.min(core.clock.credit());
        self.frames = self.granted;
        self.more -= self.granted;
    }

    /// So many frames may be handed out in any case.
    pub(super) fn grant(&mut self, frames: u32) {
        let more = frames.saturating_sub(self.frames);
        (self.frames, self.granted) = (self.frames + more, self.granted + more);
    }

    /// The visit of a session is over: tells the clock how much was done.
    #[inline]
    fn end(&self, core: &mut ShardCore, key: Key) {
        // Neither wraps: no more is used than was granted.
        if core.clock.spend(self.granted.wrapping_sub(self.frames).wrapping_add(1)) {
            core.end_visit(key);
        }
    }
}

/// One session with all that its events need, for as long as they are handled: found once, used many times.
///
/// A session is never removed in the middle of it: a verdict is recorded, and carried out when the visit is over.
pub(crate) struct SessionAccess<'a, H: PacketHandler, F, T> {
    pub(super) handler: &'a mut H,
    pub(super) slot: &'a mut Slot<F, H::State, T>,
    pub(super) core: &'a mut ShardCore,
    pub(super) share: Share,
    /// Boxed, to keep the visit small: nearly all visits have none.
    verdict: Option<Box<(CloseReason, Ending)>>,
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Calls the closure with a session. Returns `None` if the session has ended.
    #[inline]
    pub(crate) fn with_session<R>(
        &mut self,
        key: Key,
        body: impl FnOnce(&mut SessionAccess<'_, H, F, T>) -> R,
    ) -> Option<R> {
        let slot = self.slots.get_mut(key)?;
        let (share, before) = (Share::new(&self.core), slot.connection.packets());
        let mut access =
            SessionAccess { handler: &mut *self.handler, slot, core: &mut self.core, share, verdict: None };
        let answer = body(&mut access);
        let SessionAccess { slot, core, share, verdict, .. } = access;
        // Once for the whole visit, since the shard's counters are not read in between.
        core.count_packets(before, slot.connection.packets());
        let holds = slot.connection.account(core);
        share.end(core, key);
        if let Some(verdict) = verdict {
            let (reason, how) = *verdict;
            self.terminate(key, reason, how);
        }
        if holds && self.is_over_memory() {
            self.make_room();
        }
        if !self.core.effects.is_empty() {
            self.apply_effects();
        }
        Some(answer)
    }
}

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// Ends the session when the visit is over; until then nothing more happens to it.
    #[cold]
    pub(crate) fn terminate(&mut self, reason: CloseReason, how: Ending) {
        self.verdict.get_or_insert_with(|| Box::new((reason, how)));
    }

    pub(crate) fn io(&mut self) -> &mut T {
        &mut self.slot.io
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        self.slot.connection.endpoints()
    }

    pub(super) fn id(&self) -> SessionId {
        self.core.id_of(self.slot.connection.key())
    }

    /// Returns `true` unless the session is to be terminated when the visit is over.
    #[inline]
    pub(super) fn is_alive(&self) -> bool {
        self.verdict.is_none()
    }

    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.is_alive() && self.slot.connection.is_open()
    }
}
