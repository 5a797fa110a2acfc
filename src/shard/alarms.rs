//! Timers that are due.

use super::{Ending, Shard};
use crate::{
    error::CloseReason,
    framing::Framing,
    handler::PacketHandler,
    id::Key,
    session::{Alarm, Lapse},
    timer_wheel::{Fired, TimerKey},
};

/// Timers handled in one turn; the rest follow in the next, after whatever has come in between.
const BUDGET: usize = 1024;

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Does what is due by now.
    pub(crate) fn expire(&mut self, due: &mut Vec<Fired<Alarm>>) {
        if self.turn.wheel.next_deadline().is_none_or(|at| at > self.turn.now) {
            return;
        }
        self.turn.wheel.expire(self.turn.now, BUDGET, due);
        for Fired { key: rang, item: alarm, .. } in due.drain(..) {
            match alarm {
                Alarm::Liveness(key) => self.handle_liveness(key, rang),
                Alarm::User(key, timer) => {
                    let wanted =
                        |connection: &mut crate::session::Connection| connection.take_timer(timer, rang);
                    if self.slots.get_mut(key).is_some_and(|slot| wanted(&mut slot.connection)) {
                        self.tell_timer(key, timer);
                    }
                }
                Alarm::Shutdown => self.cut(),
            }
        }
    }

    fn handle_liveness(&mut self, key: Key, rang: TimerKey) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let Some(lapse) = slot.connection.handle_alarm(rang, &mut self.turn) else { return };
        let limits = &self.turn.limits;
        let known = |timeout: Option<std::time::Duration>| timeout.unwrap_or_default();
        match lapse {
            Lapse::Idle => {
                let reason = CloseReason::Idle(known(limits.idle_timeout));
                slot.connection.heard = self.turn.now;
                slot.connection.arm(&mut self.turn);
                self.tell_idle(key, reason);
            }
            Lapse::Stall => {
                let queued = slot.connection.queued();
                let after = known(limits.stall_timeout);
                self.finish(key, CloseReason::Stalled { queued, after }, Ending::Reset);
            }
            Lapse::FirstPacket => {
                self.close(key, CloseReason::FirstPacket(known(limits.first_packet_timeout)))
            }
            Lapse::SlowPacket => self.close(key, CloseReason::SlowPacket(known(limits.packet_timeout))),
            Lapse::Close => {
                let unsent = slot.connection.queued() > 0;
                self.finish(key, CloseReason::Local, if unsent { Ending::Reset } else { Ending::Close });
            }
        }
    }
}
