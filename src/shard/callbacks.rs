//! Calling the user's code: one guard for all of it, so that a panic ends one session and nothing else.

use std::{io, time::Duration};

use super::{Command, Ending, HandlerJob, Job, SessionAccess, Shard};
use crate::{
    contained::{Contained, guard},
    dial::DialStep,
    error::{CloseReason, Handled, RefusalCause, discard},
    framing::{FrameError, Framing},
    handler::{PacketHandler, Then},
    log::logged,
    session::{Connection, Membership, Session, SessionInfo, ShardCore, TimerId},
};

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// Calls `on_open` for a new session. If the handler refuses it, what it sent is delivered, and nothing is read.
    pub(super) fn open_session(&mut self) {
        let dial = self.slot.connection.note_dial_opened();
        self.core.counters.dialled += u64::from(dial.is_some());
        let (id, watch) = (self.id(), self.core.begin_callback());
        let mut session = Session::new(&mut self.slot.connection, &mut *self.slot.framing, self.core);
        let opened = guarded("on_open", || self.handler.on_open(&mut session));
        self.core.end_callback(watch, Some(id), "on_open");
        #[cfg(feature = "websocket")]
        self.slot.connection.forget_upgrade();
        match opened {
            Ok(state) => {
                self.slot.state = Some(Contained::new(state));
                self.core.counters.opened += 1;
                self.slot.connection.begin(self.core);
                if let Some(dial) = dial {
                    self.core.dial_later(DialStep::Opened(dial, self.slot.connection.key()));
                }
            }
            Err(reason) => {
                let endpoints = self.slot.connection.endpoints();
                self.core.report_refusal(endpoints, RefusalCause::Handler, Some(&reason));
                if matches!(reason, CloseReason::Panicked { .. }) && self.slot.connection.queued() == 0 {
                    self.slot.connection.reset_at_end();
                }
                self.fail(reason);
            }
        }
        if self.slot.connection.has_output() {
            self.core.flush_later(&mut self.slot.connection);
        }
    }

    /// Ends a connection that cannot be served. Its `on_open` was not called.
    #[cold]
    pub(crate) fn refuse(&mut self, error: io::Error) {
        let (session, peer, now) = (self.id(), self.endpoints().peer(), self.core.clock.now());
        logged!(
            self.core.reporter.gate, now, Unpollable WARN,
            %session, %peer, %error, "cannot poll an accepted connection, closing it"
        );
        let reason = CloseReason::io(error);
        self.core.report_refusal(self.slot.connection.endpoints(), RefusalCause::Setup, Some(&reason));
        self.terminate(reason, Ending::Close);
    }

    pub(super) fn tell_drained(&mut self) {
        self.call("on_drained", |handler, session, state| handler.on_drained(session, state));
    }

    pub(super) fn tell_timer(&mut self, timer: TimerId) {
        self.call("on_timer", |handler, session, state| handler.on_timer(session, state, timer));
    }

    /// Calls `on_idle`: nothing was received for `timeout`.
    pub(super) fn tell_idle(&mut self, timeout: Duration) {
        match self.call("on_idle", |handler, session, state| handler.on_idle(session, state)) {
            Some(Then::Stay) if self.is_open() => self.slot.connection.listen_anew(self.core),
            Some(Then::Stay) | None => {}
            Some(Then::Close) => self.close(CloseReason::Idle(timeout)),
        }
    }

    /// Calls `on_end`: the last packet was handed out, and the peer has ended its side.
    pub(super) fn tell_end(&mut self) {
        self.slot.connection.note_end_told();
        let then = self.call("on_end", |handler, session, state| handler.on_end(session, state));
        // Nothing can be sent any more on a connection that has failed.
        if then == Some(Then::Stay) && !self.slot.connection.is_broken() {
            return;
        }
        if self.is_open() && self.slot.connection.owes_nothing() {
            self.terminate(CloseReason::PeerClosed, Ending::Close);
        } else {
            self.close(CloseReason::PeerClosed);
        }
    }

    /// Calls `on_shutdown`, and closes the session unless the handler has work to finish.
    pub(super) fn shut_down(&mut self) {
        match self.call("on_shutdown", |handler, session, state| handler.on_shutdown(session, state)) {
            Some(Then::Stay) => self.slot.connection.stay(self.core),
            Some(Then::Close) if self.slot.connection.closes_behind_streams(self.core) => {}
            Some(Then::Close) | None => self.close(CloseReason::Shutdown),
        }
    }

    /// Calls `on_closing`: the session has begun to close, and the callback that asked for it has returned.
    #[cold]
    pub(super) fn tell_closing(&mut self) {
        let id = self.id();
        self.core.leave_channels(&self.slot.connection);
        let info = self.slot.connection.info(id, self.core.origin);
        if self.slot.connection.is_dialled() {
            let reason = self.slot.connection.reason().cloned();
            reason.iter().for_each(|why| self.core.note_dial_ended(&mut self.slot.connection, why));
        }
        let Some(reason) = self.slot.connection.reason() else { return };
        if let Some(state) = &mut self.slot.state {
            tell_closing(self.handler, self.core, &info, state, reason);
        }
        self.slot.connection.note_closing_told();
    }

    /// The peer violated the protocol: calls `on_violation`, which may send a reply, then closes the session.
    #[cold]
    pub(super) fn violate(&mut self, error: FrameError) {
        self.core.counters.frames_too_long += u64::from(error.is_too_long());
        self.call("on_violation", |handler, session, state| {
            handler.on_violation(session, state, &error);
            Ok(())
        });
        self.close(error.into());
    }

    /// A callback failed: closes the session with that reason. What was sent before is delivered.
    #[cold]
    pub(super) fn fail(&mut self, reason: CloseReason) {
        if matches!(reason, CloseReason::Panicked { .. }) {
            let (id, peer) = (self.id(), self.endpoints().peer());
            self.core.report_panic(id, &peer, &reason, "closing the session");
        }
        self.close(reason);
    }

    /// Begins the graceful end. The first reason counts.
    pub(super) fn close(&mut self, reason: CloseReason) {
        if !self.slot.connection.is_closing() {
            self.slot.connection.close(reason, self.core);
        } else {
            let id = self.id();
            self.core.forget(id, self.slot.connection.endpoints(), Contained::new(reason));
        }
    }

    /// Calls one callback of an open session and handles its failure. Returns what it returned, unless it failed.
    fn call<R>(
        &mut self,
        name: &'static str,
        callback: impl FnOnce(&mut H, &mut Session<'_>, &mut H::State) -> Handled<R>,
    ) -> Option<R> {
        if !self.is_open() {
            return None;
        }
        let (id, watch) = (self.id(), self.core.begin_callback());
        let state = self.slot.state.as_deref_mut()?;
        let mut session = Session::new(&mut self.slot.connection, &mut *self.slot.framing, self.core);
        let called = guarded(name, || callback(self.handler, &mut session, state));
        self.core.end_callback(watch, Some(id), name);
        let returned = match called {
            Ok(returned) => Some(returned),
            Err(reason) => {
                self.fail(reason);
                None
            }
        };
        self.core.flush_later(&mut self.slot.connection);
        returned
    }
}

/// Which callbacks are still due for a session that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// `on_closing` and `on_close`.
    Closing,
    /// `on_close`.
    Closed,
}

fn tell_closing<H: PacketHandler>(
    handler: &mut H,
    core: &mut ShardCore,
    session: &SessionInfo,
    state: &mut H::State,
    reason: &CloseReason,
) {
    let watch = core.begin_callback();
    let told: Result<(), CloseReason> = guard("on_closing", || {
        handler.on_closing(session, state, reason);
        Ok(())
    });
    core.end_callback(watch, Some(session.id), "on_closing");
    if let Err(panic) = told {
        core.report_panic(session.id, &session.peer, &panic, "the session closes all the same");
    }
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// The session is over: calls `on_close`, and before that `on_closing` if it is still due.
    pub(super) fn tell_closed(
        &mut self,
        session: &SessionInfo,
        mut state: Contained<H::State>,
        reason: &CloseReason,
        before: Before,
    ) {
        if before == Before::Closing {
            tell_closing(&mut *self.handler, &mut self.core, session, &mut *state, reason);
        }
        let watch = self.core.begin_callback();
        let told: Result<(), CloseReason> = guard("on_close", || {
            self.handler.on_close(session, state.into_inner(), reason);
            Ok(())
        });
        self.core.end_callback(watch, Some(session.id), "on_close");
        if let Err(panic) = told {
            self.core.report_panic(session.id, &session.peer, &panic, "the session was already closed");
        }
    }

    /// Drops a command that was carried out, or never will be.
    pub(crate) fn discard(&mut self, command: Command<T>) {
        self.core.count_discarded(command.discard());
    }

    /// Runs a closure that was given to this shard. A panic in it is logged and counted.
    pub(crate) fn run(&mut self, job: Contained<Job>)
    where
        H: 'static,
    {
        let _ = match job.into_inner() {
            Job::Plain(job) => self.run_without_states("execute", job),
            Job::WithHandler(job) => match job.downcast::<HandlerJob<H>>() {
                Ok(job) => self.run_with("execute_with", *job),
                // The type was compared when the closure was given.
                Err(job) => return self.core.count_discarded(discard(job)),
            },
        };
    }

    /// Calls `on_start`, before the first turn.
    ///
    /// # Errors
    /// [`CloseReason::Panicked`] if the handler panicked.
    pub(crate) fn start(&mut self) -> Result<(), CloseReason> {
        self.run_with("on_start", |handler, shard| handler.on_start(shard))
    }

    /// Calls `on_shard_timer`: a timer of the shard is due.
    pub(super) fn tell_shard_timer(&mut self, timer: TimerId) {
        // A panic is logged and counted; the shard continues.
        let _ = self.run_with("on_shard_timer", |handler, shard| handler.on_shard_timer(shard, timer));
    }
}

impl ShardCore {
    /// The session closes: it leaves its channels, which runs user code.
    pub(super) fn leave_channels(&mut self, connection: &Connection) {
        let Some(handle_state) = connection.handle_state() else { return };
        for Membership { roster, place } in handle_state.close_memberships() {
            let told = guard("on_leave", || {
                roster.forget(handle_state, place);
                Ok::<_, CloseReason>(())
            });
            if let Err(panic) = told {
                let peer = connection.endpoints().peer();
                self.report_panic(handle_state.id(), &peer, &panic, "the session has left the channel");
            }
        }
    }
}

/// Runs a callback, see [`guard`].
#[inline]
fn guarded<R>(callback: &'static str, body: impl FnOnce() -> Handled<R>) -> Result<R, CloseReason> {
    guard(callback, || body().map_err(CloseReason::failed))
}
