//! The timers that a handler sets on its session.

use crate::{
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
        let alarm = TimerPurpose::User(self.key);
        let timers = &mut self.cold.get_or_insert_default().timers;
        if let Some((_, key)) = timers.iter_mut().find(|(id, _)| *id == timer) {
            core.wheel.cancel(*key);
            *key = core.wheel.insert(due, alarm);
        } else if timers.len() < limit {
            timers.push((timer, core.wheel.insert(due, alarm)));
        } else {
            return false;
        }
        true
    }

    /// Removes a timer that is due. Returns its id, unless it was cancelled or moved in the same turn.
    pub(crate) fn take_timer(&mut self, rang: TimerKey) -> Option<TimerId> {
        let timers = &mut self.cold.as_mut()?.timers;
        let at = timers.iter().position(|(_, key)| *key == rang)?;
        Some(timers.swap_remove(at).0)
    }

    /// Cancels a timer. Returns `true` if it was set.
    pub(crate) fn cancel_timer(&mut self, timer: TimerId, core: &mut ShardCore) -> bool {
        let Some(cold) = &mut self.cold else { return false };
        let Some(at) = cold.timers.iter().position(|(id, _)| *id == timer) else { return false };
        let (_, key) = cold.timers.swap_remove(at);
        core.wheel.cancel(key);
        true
    }

    pub(super) fn cancel_timers(&mut self, core: &mut ShardCore) {
        if let Some(cold) = &mut self.cold {
            for (_, key) in std::mem::take(&mut cold.timers) {
                core.wheel.cancel(key);
            }
        }
    }
}
