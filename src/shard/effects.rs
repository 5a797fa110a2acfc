//! Doing what a callback has asked of other sessions, after it has returned.

use std::mem;

use super::{SessionAccess, Shard};
use crate::{
    framing::Framing,
    handler::PacketHandler,
    session::{Effect, Effects},
};

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Does what was asked, in order. No callback runs meanwhile that could ask for more: callbacks that become due
    /// wait until the sessions are flushed. What linked sessions then tell each other is done at once.
    #[cold]
    pub(super) fn apply_effects(&mut self) {
        if self.core.effects.is_empty() {
            return;
        }
        let mut effects = mem::take(&mut self.core.effects);
        effects.drain(|effect, packet| self.apply(effect, packet));
        self.core.effects.reuse(effects);
    }

    /// Returns what callbacks have asked of sessions of other services on this thread.
    pub(crate) fn outgoing(&mut self) -> &mut Effects {
        &mut self.core.outgoing
    }

    /// Does what was asked of a session of this shard.
    pub(crate) fn apply(&mut self, effect: Effect, packet: &[u8]) {
        match effect {
            Effect::Send { to, .. } => {
                self.with_session(to.key, |access| access.take_packet(packet));
            }
            Effect::Close { session, reason } => {
                self.with_session(session.key, |access| access.close(reason.into_inner()));
            }
            Effect::Pass { to, .. } => {
                self.with_session(to.key, |access| access.take_passed(packet));
            }
            Effect::Signal { to, signal } => self.signal(to, signal),
            // For services that carry streams, which take it before.
            Effect::Stream { .. } => {}
        }
    }
}

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// Sends a packet that another session on this thread has sent to this one.
    fn take_packet(&mut self, packet: &[u8]) {
        if self.is_open() {
            self.send(packet, None, 0, None);
        }
    }
}
