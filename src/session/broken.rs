//! A connection that has failed, while what was received before is handed out.

use crate::{
    contained::Contained,
    error::CloseReason,
    session::{
        Connection, ShardCore,
        status::{Flags, Phase, ReadBlock},
    },
};

impl Connection {
    /// The connection has failed. What was received before is still handed out in later turns, within the time of a
    /// graceful close, in case the peer continues to send.
    ///
    /// # Errors
    /// Returns `reason` if the session is to be terminated at once: it is not open, it has nothing more to hand out, or
    /// it is paused, for an unknown time.
    #[cold]
    pub(crate) fn handle_broken(
        &mut self,
        reason: CloseReason,
        core: &mut ShardCore,
    ) -> Result<(), CloseReason> {
        if self.status.phase() != Phase::Open
            || self.status.has_block(ReadBlock::PAUSED)
            || self.status.has(Flags::END_TOLD)
        {
            return Err(reason);
        }
        if self.status.insert(Flags::BROKEN) {
            self.status.insert(Flags::READABLE | Flags::HANGUP);
            let extra = self.extra_or_new();
            extra.close_by = Some((core.clock.deadline(core.timeouts.close), core.clock.lost()));
            let kind = reason.kind();
            extra.reason = Some(Contained::new(reason));
            if let Some(handle_state) = self.handle_state() {
                handle_state.lose(kind);
            }
            self.discard_output(core);
            core.read_later(self);
        }
        Ok(())
    }

    /// Returns `true` if a session whose connection has failed stays, because something is left to hand out.
    #[cold]
    pub(crate) fn outlives_break(&mut self, core: &mut ShardCore) -> bool {
        self.discard_output(core);
        let is_late = self.close_by(core.clock.lost()).is_some_and(|at| at <= core.clock.now());
        // A stream that its peer has ended waits for its handler, as an end of a connection does.
        let is_paused = self.status.has_block(ReadBlock::PAUSED);
        let waits = !is_paused || self.status.has(Flags::END_SENT);
        let takes = self.status.phase() == Phase::Open && waits && !is_late;
        let lives = takes && self.status.has(Flags::READABLE | Flags::BACKLOG | Flags::ENDED);
        // Or when its partner takes packets again.
        if lives && !is_paused && !self.is_held() {
            core.read_later(self);
        }
        lives
    }

    /// Returns `true` if the connection has failed, so that nothing can be sent any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.status.has(Flags::BROKEN)
    }

    /// Discards what was to be sent over a connection that has failed.
    #[cold]
    pub(super) fn discard_output(&mut self, core: &mut ShardCore) {
        self.give_back_outbox(core);
        if self.status.has(Flags::LAYERED) {
            self.discard_wire(core);
        }
        self.status.remove(Flags::BLOCKED | Flags::DRAINED | Flags::FULL_AND_READ);
        if self.status.has_block(ReadBlock::FULL) && !self.is_linked() {
            self.lift(ReadBlock::FULL, core);
        }
    }
}
