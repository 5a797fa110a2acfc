use std::collections::VecDeque;

use super::NewDial;
use crate::{
    addr::Addr,
    error::{CloseReason, DialError},
    id::{DialId, Key},
    timer_wheel::TimerKey,
};

/// What the shard has for its reactor to do about dials, in order. One timer of the wheel, due at once, announces it, so
/// that a turn without dials does not have to ask.
///
/// Bounded: by [`Limits::dials`](crate::Limits::dials), by two steps of each session, and by what the callbacks of a turn
/// hang up.
#[derive(Default)]
pub(crate) struct DialBook {
    steps: VecDeque<DialStep>,
    pub(crate) alarm: Option<TimerKey>,
    /// Dials that were asked for and not ended yet.
    under_way: usize,
    stopped: bool,
}

/// One thing to be done.
pub(crate) enum DialStep {
    /// Begin this one.
    Begin(Box<NewDial>),
    /// Its session was opened.
    Opened(DialId, Key),
    /// Its connection ends.
    Ended(Box<EndedDial>),
    /// Its socket has an event.
    Ready(u32),
    /// A callback wants no more of it.
    HangUp(DialId),
}

/// A connection that ends.
pub(crate) struct EndedDial {
    pub(crate) id: DialId,
    pub(crate) peer: Addr,
    pub(crate) reason: CloseReason,
    /// `on_open` was called.
    pub(crate) was_opened: bool,
}

impl DialBook {
    /// Asks for one more dial.
    ///
    /// # Errors
    /// If there are as many as `limit`, or the shard is stopping.
    pub(crate) fn enter(&mut self, limit: usize) -> Result<(), DialError> {
        if self.stopped {
            return Err(DialError::Stopped);
        }
        if self.under_way >= limit {
            return Err(DialError::TooMany { limit });
        }
        self.under_way += 1;
        Ok(())
    }

    /// A dial has ended.
    pub(crate) fn leave(&mut self) {
        debug_assert!(self.under_way > 0, "more dials have ended than were begun");
        self.under_way = self.under_way.saturating_sub(1);
    }

    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// No more are begun.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(crate) fn push(&mut self, step: DialStep) {
        self.steps.push_back(step);
    }

    pub(crate) fn pop(&mut self) -> Option<DialStep> {
        self.steps.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}
