//! Timers that are due.

use std::time::Duration;

use super::{Ending, SessionAccess, Shard};
use crate::{
    error::CloseReason,
    framing::Framing,
    handler::PacketHandler,
    id::Key,
    session::{TimeoutKind, TimerPurpose},
    time::Tick,
    timer_wheel::Fired,
};

/// Timers taken from the wheel at once; the rest follows when these have been handled.
const BATCH: usize = 1024;
/// A session with more to be read is not judged before that was read, but looked at again after this many ticks.
const LOOK_AGAIN: Tick = 10;

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Moves timers that are due by now to `due`, if that is empty: the last of it is the earliest.
    pub(crate) fn take_due(&mut self, due: &mut Vec<Fired<TimerPurpose>>) {
        let now = self.core.clock.now();
        if due.is_empty() && self.core.wheel.next_deadline().is_some_and(|at| at <= now) {
            self.core.wheel.expire(now, BATCH, due);
            due.reverse();
        }
    }

    /// Does what a timer is for. Returns the session that some deadline seems to have passed for: it is to be read from
    /// and written to, and judged ([`SessionAccess::judge`]) after that.
    pub(crate) fn handle_timer(&mut self, fired: Fired<TimerPurpose>) -> Option<Key> {
        match fired.item {
            TimerPurpose::Liveness(key) => {
                let lapsed = |access: &mut SessionAccess<'_, H, F, T>| {
                    access.slot.connection.handle_alarm(fired.key, access.core)
                };
                return self.with_session(key, lapsed).is_some_and(|lapsed| lapsed).then_some(key);
            }
            TimerPurpose::User(key) => {
                self.with_session(key, |access| {
                    if let Some(timer) = access.slot.connection.take_timer(fired.key) {
                        access.tell_timer(timer);
                    }
                });
            }
            TimerPurpose::Shard => {
                if let Some(timer) = self.core.take_shard_timer(fired.key) {
                    self.tell_shard_timer(timer);
                }
            }
            TimerPurpose::Shutdown if self.core.cut_at.is_some_and(|(_, alarm)| alarm == fired.key) => {
                self.cut()
            }
            TimerPurpose::Shutdown => {}
        }
        None
    }
}

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// Makes the session try to read and to write, whatever the kernel has announced: only a system call shows for
    /// certain.
    pub(crate) fn doubt(&mut self) {
        self.slot.connection.doubt();
    }

    /// Ends the session if a deadline of it has passed.
    pub(crate) fn judge(&mut self) {
        if !self.is_alive() {
            return;
        }
        let Some((deadline, lapse)) = self.slot.connection.poll_lapse(self.core) else { return };
        let waits = lapse.is_silence() && self.slot.connection.has_backlog();
        // A handshake that never has done gets the same time once more.
        let ends = lapse == TimeoutKind::Handshake
            && deadline + self.core.timeouts.handshake <= self.core.clock.now();
        if waits && !ends {
            // The peer is not silent: what it has sent waits for us.
            return self.slot.connection.look_again(LOOK_AGAIN, self.core);
        }
        let limits = &self.core.limits;
        let known = |timeout: Option<Duration>| timeout.unwrap_or_default();
        match lapse {
            TimeoutKind::Idle => {
                let timeout = known(limits.idle_timeout);
                self.tell_idle(timeout);
            }
            TimeoutKind::Stall => {
                let (queued, after) = (self.slot.connection.unsent(), known(limits.stall_timeout));
                // More important than that the peer had ended its side before.
                self.slot.connection.forget_reason();
                self.terminate(CloseReason::Stalled { queued, after }, Ending::Reset);
            }
            TimeoutKind::FirstPacket => {
                self.close(CloseReason::FirstPacket(known(limits.first_packet_timeout)))
            }
            TimeoutKind::SlowPacket => {
                let more = self.slot.connection.is_readable();
                // Only for a limited time: there may be no end of what is left to read.
                if more && self.slot.connection.may_wait(deadline, self.core) {
                    return self.slot.connection.look_again(LOOK_AGAIN, self.core);
                }
                self.close(CloseReason::SlowPacket(known(limits.packet_timeout)));
            }
            TimeoutKind::Handshake => {
                let reason = CloseReason::Handshake(limits.handshake_timeout);
                self.fail_layers(reason);
            }
            TimeoutKind::Close => {
                let unsent = self.slot.connection.queued() > 0;
                self.terminate(CloseReason::Local, if unsent { Ending::Reset } else { Ending::Close });
            }
        }
    }
}
