//! The timers that a handler sets on its session.

use crate::{
    id::SlotNumber,
    session::{Connection, ShardCore, TimerId, TimerPurpose},
    time::Tick,
    timer_wheel::TimerKey,
};

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
