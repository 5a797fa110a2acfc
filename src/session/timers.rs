//! The timers that a handler sets on its session.

use thiserror::Error;

use crate::{
    id::SlotNumber,
    session::{Connection, ShardCore, TimerPurpose},
    time::Tick,
    timer_wheel::TimerKey,
};

/// Identifies a timer within its session, or within its shard: a number that the handler chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId(pub u32);

/// No timer was set, because the session or the shard has as many as
/// [`Limits::session_timers`](crate::Limits::session_timers) allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{limit} timers are set, the limit; cancel one or raise limits.session_timers")]
pub struct TimerError {
    limit: usize,
}

impl TimerError {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit }
    }
}

impl Connection {
    /// Sets a timer, or moves it. Returns `false` if `limit` others are set.
    pub(crate) fn set_timer(
        &mut self,
        timer: TimerId,
        due: Tick,
        limit: usize,
        core: &mut ShardCore,
    ) -> bool {
        let alarm = TimerPurpose::User(SlotNumber::of(self.key));
        let cold = self.cold.get_or_insert_default();
        if let Some(key) = cold.timer_mut(timer) {
            core.wheel.cancel(*key);
            *key = core.wheel.insert(due, alarm);
        } else if cold.timer_count() < limit {
            cold.add_timer((timer, core.wheel.insert(due, alarm)));
        } else {
            return false;
        }
        true
    }

    /// Removes a timer that is due. Returns its id, unless it was cancelled or moved in the same turn.
    pub(crate) fn take_timer(&mut self, rang: TimerKey) -> Option<TimerId> {
        Some(self.cold.as_mut()?.remove_timer(|(_, key)| *key == rang)?.0)
    }

    /// Cancels a timer. Returns `true` if it was set.
    pub(crate) fn cancel_timer(&mut self, timer: TimerId, core: &mut ShardCore) -> bool {
        let removed = self.cold.as_mut().and_then(|cold| cold.remove_timer(|(id, _)| *id == timer));
        removed.inspect(|(_, key)| _ = core.wheel.cancel(*key)).is_some()
    }

    pub(super) fn cancel_timers(&mut self, core: &mut ShardCore) {
        if let Some(cold) = &mut self.cold {
            for (_, key) in cold.take_timers() {
                core.wheel.cancel(key);
            }
        }
    }
}
