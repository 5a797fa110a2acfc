use std::{
    io::{self, ErrorKind},
    time::Duration,
};

use super::{Carriers, Ready, Sys};
use crate::{
    buffer::ReceiveBuffer,
    error::CloseReason,
    id::{SessionId, ShardId},
    session::{Effect, Effects},
    shard::Carry,
    sync::has_answers_left,
    time::Tick,
};

/// The steps of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Serves the sessions that have events, and those that wait.
    Read,
    Accept,
    /// Carries out commands of other threads.
    Obey,
    /// Handles the deadlines that have passed.
    Expire,
    /// Writes what was sent outside of the sessions' own events.
    Flush,
}

/// The order of the steps.
pub(crate) const STEPS: [Step; 5] = [Step::Read, Step::Accept, Step::Obey, Step::Expire, Step::Flush];

/// One service on one thread, as the event loop sees it, whatever its handler and its framing are. The methods are called
/// in the order in which they stand here.
pub(crate) trait Service<Y: Sys> {
    /// Its shard on this thread.
    fn shard(&self) -> ShardId;

    /// Called before the first turn: starts the handler. Returns the message if it panicked.
    fn start(&mut self) -> Result<(), CloseReason>;

    /// Called when the turn before is over: measures how long it took.
    fn judge_last_turn(&mut self);

    /// Returns when the poll is to end (0 while work is left, else the next deadline), and the current time.
    fn poll_deadline(&mut self) -> (Tick, Option<Tick>);

    /// Called before the wait; returns `false` if something is in the mailbox.
    fn fall_asleep(&self) -> bool;

    /// Called after the wait, which was to end at `expected`.
    fn wake_up(&mut self, expected: Option<Tick>);

    /// Where the events of this turn go.
    fn ready(&mut self) -> &mut Vec<Ready>;

    /// Returns `true` if it has events or work that was left over.
    fn is_busy(&self) -> bool;

    /// Takes this step of the turn, for which it has its part of the time that so many busy services share.
    fn run(&mut self, step: Step, busy: Tick, sys: &mut Y, buffer: &mut ReceiveBuffer);

    /// Takes what its callbacks have asked of sessions of other services on this thread.
    fn outgoing(&mut self) -> &mut Effects;

    /// Executes what a callback of another service on this thread has asked of a session of this service.
    fn apply(&mut self, effect: Effect, packet: &mut [u8]);

    /// Has its streams send what they have over their carriers, if its sessions are streams.
    fn carry_out(&mut self, carriers: &mut Carriers<'_, Y>) {
        let _ = carriers;
    }

    /// Visits a session that carries streams of another service on this thread, which takes what `write` gives it.
    /// Returns `false` if it has ended.
    fn carry(&mut self, carrier: SessionId, write: &mut dyn FnMut(&mut dyn Carry)) -> bool;

    /// # Errors
    /// The error with which the listeners have failed.
    fn end_turn(&mut self, sys: &mut Y) -> io::Result<Flow>;

    /// Takes a whole turn as the only service of its thread, from judging the last one to the end of this one: so the
    /// loop makes one virtual call for it, and the compiler sees all of it.
    ///
    /// # Errors
    /// The error with which the poll or the listeners have failed.
    fn turn(&mut self, sys: &mut Y, buffer: &mut ReceiveBuffer) -> io::Result<Flow> {
        self.judge_last_turn();
        let (now, deadline) = self.poll_deadline();
        let deadline = earlier(deadline, buffer.poll_deadline(now));
        let mut wait = deadline.map(|at| Duration::from_millis(at.saturating_sub(now)));
        if wait != Some(Duration::ZERO) && (has_answers_left() || !self.fall_asleep()) {
            wait = Some(Duration::ZERO);
        }
        self.ready().clear();
        let polled = sys.poll(self.ready(), wait);
        self.wake_up(deadline);
        match polled {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        STEPS.into_iter().for_each(|step| self.run(step, 1, sys, buffer));
        self.end_turn(sys)
    }

    /// Called after the last turn, or when the poll has failed: closes every session and drops the user's values. Returns
    /// what is still to be done for sessions of other services on this thread.
    fn finish(self: Box<Self>, sys: &mut Y) -> Effects;
}

/// Returns the earlier of two deadlines.
#[inline]
pub(crate) fn earlier(one: Option<Tick>, other: Option<Tick>) -> Option<Tick> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (only, None) | (None, only) => only,
    }
}

/// What a service does after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    Stop,
}
