//! Connections that this side makes, as its sessions see them.

use crate::{
    addr::DialProgress,
    dial::{Dial, DialStep, EndedDial, NewDial},
    error::{CloseReason, DialError},
    id::DialId,
    session::{Connection, Session, ShardCore, TimerPurpose},
};

impl Session<'_> {
    /// Makes a connection, which becomes a session on this thread: it can be reached by
    /// [`send_to`](Self::send_to) without a lock. It is begun when the callback has returned.
    ///
    /// What comes of it is told by [`on_open`](crate::PacketHandler::on_open), where
    /// [`origin`](Self::origin) has the same id, or by [`on_dial_failed`](crate::PacketHandler::on_dial_failed).
    ///
    /// ```
    /// use framewire::{Dial, Handled, Origin, PacketHandler, Session, SessionId};
    ///
    /// /// Each client gets a connection of its own to the server behind. (Its packets come back by `send_to`.)
    /// struct Front;
    ///
    /// impl PacketHandler for Front {
    ///     type State = Option<SessionId>;
    ///
    ///     fn on_open(&mut self, session: &mut Session<'_>) -> Handled<Option<SessionId>> {
    ///         if matches!(session.origin(), Origin::Accepted { .. }) {
    ///             session.connect(Dial::to("127.0.0.1:7001"))?;
    ///         }
    ///         Ok(None)
    ///     }
    ///
    ///     fn on_packet(&mut self, _: &mut Session<'_>, _: &mut Option<SessionId>, _: &[u8]) -> Handled {
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`DialError::TooMany`] if [`Limits::dials`](crate::Limits::dials) are under way on this shard,
    /// [`DialError::Stopped`] if the server is stopping, [`DialError::Unsuited`] if it asks for what this server does not
    /// have. Everything else is reported by `on_dial_failed`.
    pub fn connect(&mut self, dial: Dial) -> Result<DialId, DialError> {
        let (_, _, core) = self.parts();
        core.dial(dial)
    }

    /// Gives up a dial of this shard, as [`Upstream::close`](crate::Upstream::close) does from other threads: for one that is
    /// made [again and again](Dial::reconnect). When the callback has returned, its session is closed gracefully, or the
    /// attempt to connect ends; neither [`on_dial_failed`](crate::PacketHandler::on_dial_failed) nor another attempt follows.
    ///
    /// Does nothing if there is no such dial on this shard. One that does not reconnect and has no `Upstream` has ended when
    /// its session is open: then close the session.
    ///
    /// ```
    /// use framewire::{Origin, packet_fn};
    ///
    /// // A server that is dialled says that it will not come back.
    /// let handler = packet_fn(|session, packet| {
    ///     if let (b"moved", Origin::Dialled(dial)) = (packet, session.origin()) {
    ///         session.hang_up(dial);
    ///     }
    ///     Ok(())
    /// });
    /// # drop(handler);
    /// ```
    pub fn hang_up(&mut self, dial: DialId) {
        let (_, _, core) = self.parts();
        core.hang_up(dial);
    }
}

impl ShardCore {
    /// Records a dial.
    ///
    /// # Errors
    /// If it cannot be made here, there are too many, or the shard is stopping.
    pub(crate) fn dial(&mut self, dial: Dial) -> Result<DialId, DialError> {
        dial.check(self.medium)?;
        self.enter_dial()?;
        self.counters.dials += 1;
        let dial = NewDial::new(dial);
        let id = dial.id;
        self.dial_later(DialStep::Begin(dial));
        Ok(id)
    }

    /// Counts a dial among those that are under way.
    ///
    /// # Errors
    /// If there are too many, or the shard is stopping.
    pub(crate) fn enter_dial(&mut self) -> Result<(), DialError> {
        self.dials.enter(self.limits.dials)?;
        self.counters.dials_pending = self.dials.under_way() as u64;
        Ok(())
    }

    /// A dial has ended.
    pub(crate) fn leave_dial(&mut self) {
        self.dials.leave();
        self.counters.dials_pending = self.dials.under_way() as u64;
    }

    /// Records that a dial is to be given up.
    pub(crate) fn hang_up(&mut self, dial: DialId) {
        if self.dials.under_way() > 0 {
            self.dial_later(DialStep::HangUp(dial));
        }
    }

    /// Records what is to be done about a dial. A timer that is due now wakes the reactor for it.
    pub(crate) fn dial_later(&mut self, step: DialStep) {
        if !self.dials.is_stopped() {
            self.dials.push(step);
            self.arm_dials();
        }
    }

    /// Sees to it that what is recorded is done.
    pub(crate) fn arm_dials(&mut self) {
        if self.dials.alarm.is_none() && !self.dials.is_empty() {
            self.dials.alarm = Some(self.wheel.insert(self.clock.now(), TimerPurpose::Dials));
        }
    }

    /// The connection ends: if this side has made it, the dial is told, once.
    pub(crate) fn note_dial_ended(&mut self, connection: &mut Connection, reason: &CloseReason) {
        let peer = connection.endpoints.peer();
        let Some(dialled) = connection.endpoints.as_dialled_mut() else { return };
        let before = std::mem::replace(&mut dialled.progress, DialProgress::Ended);
        if before == DialProgress::Ended {
            return;
        }
        let (id, was_opened) = (dialled.dial, before == DialProgress::Opened);
        let ended = EndedDial { id, peer, reason: reason.clone(), was_opened };
        self.dial_later(DialStep::Ended(Box::new(ended)));
    }
}

impl Connection {
    /// Returns `true` if this side has made the connection.
    pub(crate) fn is_dialled(&self) -> bool {
        self.endpoints.listener().is_none()
    }

    /// `on_open` is about to be called. Returns the dial, if this side has made the connection.
    pub(crate) fn note_dial_opened(&mut self) -> Option<DialId> {
        let dialled = self.endpoints.as_dialled_mut()?;
        dialled.progress = DialProgress::Opened;
        Some(dialled.dial)
    }
}
