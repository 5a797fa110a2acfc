//! Timers that are due.

use std::time::Duration;

use super::{Ending, Shard, Visit};
use crate::{
    error::CloseReason,
    framing::Framing,
    handler::PacketHandler,
    id::Key,
    session::{Alarm, Lapse, Mark, Phase},
    time::Tick,
    timer_wheel::Fired,
};

/// Timers taken from the wheel at once; the rest follows when these have been handled.
const BATCH: usize = 1024;
/// A peer that has more to be read is not judged before that was read, but looked at again after so many ticks.
const LOOK_AGAIN: Tick = 10;

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Moves timers that are due by now to `due`, if that is empty: the last of it is the earliest.
    pub(crate) fn take_due(&mut self, due: &mut Vec<Fired<Alarm>>) {
        let now = self.turn.clock.now();
        if due.is_empty() && self.turn.wheel.next_deadline().is_some_and(|at| at <= now) {
            self.turn.wheel.expire(now, BATCH, due);
            due.reverse();
        }
    }

    /// Does what a timer is for. Returns the session that some deadline seems to have passed for: it is to be read from
    /// and written to, and judged ([`Visit::judge`]) after that.
    pub(crate) fn handle_timer(&mut self, fired: Fired<Alarm>) -> Option<Key> {
        match fired.item {
            Alarm::Liveness(key) => {
                let lapsed = |visit: &mut Visit<'_, H, F, T>| {
                    visit.slot.connection.handle_alarm(fired.key, visit.turn)
                };
                return self.visit(key, lapsed).is_some_and(|lapsed| lapsed).then_some(key);
            }
            Alarm::User(key) => {
                self.visit(key, |visit| {
                    if let Some(timer) = visit.slot.connection.take_timer(fired.key) {
                        visit.tell_timer(timer);
                    }
                });
            }
            Alarm::Shutdown if self.turn.cut_at.is_some_and(|(_, alarm)| alarm == fired.key) => self.cut(),
            Alarm::Shutdown => {}
        }
        None
    }
}

impl<H: PacketHandler, F: Framing, T> Visit<'_, H, F, T> {
    /// Whatever the kernel has announced: what it has to read, or takes, is not known for certain before it was asked.
    pub(crate) fn doubt(&mut self) {
        let marks = &mut self.slot.connection.marks;
        marks.insert(Mark::READABLE);
        marks.remove(Mark::BLOCKED);
    }

    /// Ends the session if a deadline of it has passed.
    pub(crate) fn judge(&mut self) {
        if !self.is_alive() {
            return;
        }
        let Some((deadline, lapse)) = self.slot.connection.poll_lapse(self.turn) else { return };
        if lapse.is_silence() && self.slot.connection.marks.has(Mark::BACKLOG) {
            // It has sent, and waits for us: what it has sent is handed out when its turn comes.
            return self.slot.connection.look_again(LOOK_AGAIN, self.turn);
        }
        let limits = &self.turn.limits;
        let known = |timeout: Option<Duration>| timeout.unwrap_or_default();
        match lapse {
            Lapse::Idle => {
                self.tell_idle(CloseReason::Idle(known(limits.idle_timeout)));
                if self.slot.connection.phase == Phase::Open {
                    self.slot.connection.listen_anew(self.turn);
                }
            }
            Lapse::Stall => {
                let (queued, after) = (self.slot.connection.unsent(), known(limits.stall_timeout));
                // It counts more than that the peer had ended its side before.
                self.slot.connection.forget_reason();
                self.finish(CloseReason::Stalled { queued, after }, Ending::Reset);
            }
            Lapse::FirstPacket => self.close(CloseReason::FirstPacket(known(limits.first_packet_timeout))),
            Lapse::SlowPacket => {
                let more = self.slot.connection.marks.has(Mark::READABLE);
                // Not for ever: what is left to read may be without end.
                if more && self.slot.connection.may_wait(deadline, self.turn) {
                    return self.slot.connection.look_again(LOOK_AGAIN, self.turn);
                }
                self.close(CloseReason::SlowPacket(known(limits.packet_timeout)));
            }
            Lapse::Close => {
                let unsent = self.slot.connection.queued() > 0;
                self.finish(CloseReason::Local, if unsent { Ending::Reset } else { Ending::Close });
            }
        }
    }
}
