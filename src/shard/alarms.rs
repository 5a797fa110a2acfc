//! Timers that are due.

use std::time::Duration;

use super::{Ending, Shard, Visit};
use crate::{
    error::CloseReason,
    framing::Framing,
    handler::PacketHandler,
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
                Alarm::Liveness(key) => {
                    self.visit(key, |visit| visit.handle_liveness(rang));
                }
                Alarm::User(key) => {
                    self.visit(key, |visit| {
                        if let Some(timer) = visit.slot.connection.take_timer(rang) {
                            visit.tell_timer(timer);
                        }
                    });
                }
                Alarm::Shutdown => self.cut(),
            }
        }
    }
}

impl<H: PacketHandler, F: Framing, T> Visit<'_, H, F, T> {
    fn handle_liveness(&mut self, rang: TimerKey) {
        let Some(lapse) = self.slot.connection.handle_alarm(rang, self.turn) else { return };
        let limits = &self.turn.limits;
        let known = |timeout: Option<Duration>| timeout.unwrap_or_default();
        match lapse {
            Lapse::Idle => {
                let reason = CloseReason::Idle(known(limits.idle_timeout));
                self.slot.connection.heard = self.turn.now;
                self.slot.connection.arm(self.turn);
                self.tell_idle(reason);
            }
            Lapse::Stall => {
                let (queued, after) = (self.slot.connection.unsent(), known(limits.stall_timeout));
                // It counts more than that the peer had ended its side before.
                self.slot.connection.forget_reason();
                self.finish(CloseReason::Stalled { queued, after }, Ending::Reset);
            }
            Lapse::FirstPacket => self.close(CloseReason::FirstPacket(known(limits.first_packet_timeout))),
            Lapse::SlowPacket => self.close(CloseReason::SlowPacket(known(limits.packet_timeout))),
            Lapse::Close => {
                let unsent = self.slot.connection.queued() > 0;
                self.finish(CloseReason::Local, if unsent { Ending::Reset } else { Ending::Close });
            }
        }
    }
}
