//! Calling the user's code: one guard for all of it, so that a panic ends one session and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Job, Shard, ShardContext, Slot};
use crate::{
    error::CloseReason,
    framing::Framing,
    handler::PacketHandler,
    id::{Key, SessionId},
    session::{Mark, Phase, Session, TimerId, Turn},
};

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Tells the handler of a new session, which may refuse it.
    pub(crate) fn open(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let (handler, state, mut session) = parts(&mut self.handler, slot, &mut self.turn);
        let opened = guard("on_open", || handler.on_open(&mut session));
        match opened {
            Ok(made) => {
                *state = Some(made);
                self.turn.counters.opened += 1;
                slot.connection.arm(&mut self.turn);
            }
            Err(reason) => {
                self.turn.counters.refused += 1;
                self.turn.counters.panics += u64::from(matches!(reason, CloseReason::Panicked { .. }));
                refuse(slot, reason, &mut self.turn);
            }
        }
        if slot.connection.outbox.is_some() {
            self.turn.settle_later(&mut slot.connection);
        }
    }

    pub(super) fn tell_drained(&mut self, key: Key) {
        self.call(key, "on_drained", |handler, session, state| handler.on_drained(session, state));
    }

    pub(super) fn tell_timer(&mut self, key: Key, timer: TimerId) {
        self.call(key, "on_timer", |handler, session, state| handler.on_timer(session, state, timer));
    }

    pub(super) fn tell_idle(&mut self, key: Key, reason: CloseReason) {
        self.call(key, "on_idle", |handler, session, state| handler.on_idle(session, state, reason));
    }

    pub(super) fn say_farewell(&mut self, key: Key) {
        self.call(key, "on_shutdown", |handler, session, state| {
            handler.on_shutdown(session, state);
            Ok(())
        });
    }

    pub(super) fn tell_closed(&mut self, id: SessionId, state: H::State, reason: &CloseReason) {
        let handler = &mut self.handler;
        let told = guard("on_close", || {
            handler.on_close(id, state, reason);
            Ok(())
        });
        if let Err(panic) = told {
            self.turn.counters.panics += 1;
            tracing::error!(session = %id, %panic, "the session was already closed");
        }
    }

    /// Runs a closure that somebody sent to this shard.
    pub(crate) fn run(&mut self, job: Job) {
        let ran = guard("execute", || {
            job(&mut ShardContext::new(self));
            Ok(())
        });
        if let Err(panic) = ran {
            self.turn.counters.panics += 1;
            tracing::error!(shard = %self.turn.shard, %panic, "a closure given to execute failed");
        }
    }

    /// One callback of an open session, with its consequences.
    fn call(
        &mut self,
        key: Key,
        name: &'static str,
        callback: impl FnOnce(&mut H, &mut Session<'_>, &mut H::State) -> Result<(), CloseReason>,
    ) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.connection.phase != Phase::Open {
            return;
        }
        let (handler, Some(state), mut session) = parts(&mut self.handler, slot, &mut self.turn) else {
            return;
        };
        let done = guard(name, || callback(handler, &mut session, state));
        if let Err(reason) = done {
            end(slot, reason, &mut self.turn);
        }
        self.turn.settle_later(&mut slot.connection);
    }
}

/// A slot as the three things that a callback is given.
fn parts<'a, H: PacketHandler, F: Framing, T>(
    handler: &'a mut H,
    slot: &'a mut Slot<F, H::State, T>,
    turn: &'a mut Turn,
) -> (&'a mut H, &'a mut Option<H::State>, Session<'a>) {
    let session = Session { connection: &mut slot.connection, framing: &mut slot.framing, turn };
    (handler, &mut slot.state, session)
}

/// A callback failed: the session ends for that reason, after what was sent before.
pub(super) fn end<F, S, T>(slot: &mut Slot<F, S, T>, reason: CloseReason, turn: &mut Turn) {
    if matches!(reason, CloseReason::Panicked { .. }) {
        turn.counters.panics += 1;
        let id = SessionId { shard: turn.shard, key: slot.connection.key };
        tracing::error!(session = %id, peer = %slot.connection.ends.peer(), %reason, "closing the session");
        if let Some(outbox) = &mut slot.connection.outbox {
            outbox.repair();
        }
    }
    slot.connection.close(reason, turn);
}

/// `on_open` said no: what it sent is delivered, and nothing is read.
fn refuse<F, S, T>(slot: &mut Slot<F, S, T>, reason: CloseReason, turn: &mut Turn) {
    if slot.connection.queued() == 0 && matches!(reason, CloseReason::Panicked { .. }) {
        slot.connection.marks.insert(Mark::ABORT);
    }
    if let Some(outbox) = &mut slot.connection.outbox {
        outbox.repair();
    }
    slot.connection.close(reason, turn);
}

/// Runs user code. The state it worked on is dropped with its session, so a half-done change is seen by nobody.
pub(super) fn guard<R>(
    callback: &'static str,
    body: impl FnOnce() -> Result<R, CloseReason>,
) -> Result<R, CloseReason> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(CloseReason::panicked(callback, &*panic)))
}
