//! Timers that are due.

use std::time::Duration;

use super::{Ending, SessionAccess, Shard};
use crate::{
    contained::guard,
    error::CloseReason,
    framing::Framing,
    handler::PacketHandler,
    id::Key,
    session::{BeatStep, Heartbeat, TimeoutKind, TimerPurpose},
    time::Tick,
    timer_wheel::{Fired, TimerKey},
};

/// Timers taken from the wheel at once; the rest follows when these have been handled.
const BATCH: usize = 1024;
/// A session with more to be read is not judged before that was read, but looked at again after this many ticks.
const LOOK_AGAIN: Tick = 10;

/// What is left to do for what an alarm was set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimerAction {
    /// Some deadline seems to have passed for the session: it is to be read from and written to, and judged
    /// ([`SessionAccess::judge`]) after that.
    Judge(Key),
    /// It has a beat to be written at once: the answer is awaited from now on.
    Write(Key),
    /// The timer of the dial with this number.
    Dial(u32, TimerKey),
    /// There is something to do about dials.
    Dials,
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Moves timers that are due by now to `due`, if that is empty: the last of it is the earliest.
    #[inline]
    pub(crate) fn take_due(&mut self, due: &mut Vec<Fired<TimerPurpose>>) {
        let now = self.core.clock.now();
        if due.is_empty() && self.core.wheel.next_deadline().is_some_and(|at| at <= now) {
            self.core.wheel.expire(now, BATCH, due);
            due.reverse();
        }
    }

    /// Does what a timer is for. Returns what is left to do.
    pub(crate) fn handle_timer(&mut self, fired: Fired<TimerPurpose>) -> Option<TimerAction> {
        match fired.item {
            TimerPurpose::Liveness(slot) => {
                let key = self.slots.key_in(slot)?;
                return self.with_session(key, |access| access.handle_alarm(key, fired.key))?;
            }
            TimerPurpose::User(slot) => {
                let key = self.slots.key_in(slot)?;
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
            TimerPurpose::Dial(number) => return Some(TimerAction::Dial(number.index() as u32, fired.key)),
            TimerPurpose::Dials => {
                // One that was cancelled may have been taken from the wheel before.
                let alarm = self.core.dials.alarm.take_if(|alarm| *alarm == fired.key);
                return alarm.map(|_| TimerAction::Dials);
            }
            TimerPurpose::Shutdown if self.core.cut_at.is_some_and(|(_, alarm)| alarm == fired.key) => {
                self.cut()
            }
            TimerPurpose::Shutdown => {}
            TimerPurpose::Log => self.sum_up_log(),
        }
        None
    }
}

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// The alarm has fired. A beat is sent without looking for input first, unless the peer seems to be lost.
    fn handle_alarm(&mut self, key: Key, rang: TimerKey) -> Option<TimerAction> {
        match self.slot.connection.handle_alarm(rang, self.core)? {
            TimeoutKind::Beat => match self.slot.connection.poll_beat(self.core) {
                Some(BeatStep::Lost { .. }) => Some(TimerAction::Judge(key)),
                step => self.take_step(step).then_some(TimerAction::Write(key)),
            },
            _ => Some(TimerAction::Judge(key)),
        }
    }

    /// Does what follows from a beat that was due. Returns `true` if there is something to be written at once.
    fn take_step(&mut self, step: Option<BeatStep>) -> bool {
        match step {
            Some(BeatStep::Lost { beats, silence }) => {
                self.close(CloseReason::HeartbeatLost { beats, silence })
            }
            Some(BeatStep::Send(heartbeat)) => {
                self.send_beat(&heartbeat);
                self.slot.connection.arm(self.core);
                return true;
            }
            Some(BeatStep::Skip) | None => self.slot.connection.arm(self.core),
        }
        false
    }

    fn send_beat(&mut self, heartbeat: &Heartbeat) {
        let (slot, core) = (&mut *self.slot, &mut *self.core);
        let (connection, framing) = (&mut slot.connection, &mut *slot.framing);
        let sent = guard("encode", || {
            #[cfg(feature = "websocket")]
            if framing.messages().is_some() {
                return Ok(connection.enqueue_ping(framing, heartbeat.packet(), core));
            }
            Ok::<_, CloseReason>(connection.enqueue(framing, heartbeat.packet(), core))
        });
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.close(error.into()),
            Err(panic) => self.fail(panic),
        }
    }

    /// Makes the session try to read and to write, whatever the kernel has announced: only a system call shows for
    /// certain.
    pub(crate) fn doubt(&mut self) {
        self.slot.connection.doubt();
    }

    /// Ends the session if a deadline of it has passed. Returns `true` if there is something to be written at once.
    pub(crate) fn judge(&mut self) -> bool {
        if !self.is_alive() {
            return false;
        }
        match self.slot.connection.poll_passed_deadline(self.core) {
            Some((_, TimeoutKind::Beat)) => {
                let step = self.slot.connection.poll_beat(self.core);
                return self.take_step(step);
            }
            Some((deadline, lapse)) => self.end_late(deadline, lapse),
            None => {}
        }
        false
    }

    /// Ends the session, unless this deadline may pass without harm.
    fn end_late(&mut self, deadline: Tick, lapse: TimeoutKind) {
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
                let timeout = self.slot.connection.idle_timeout(self.core).unwrap_or_default();
                self.tell_idle(Duration::from_millis(timeout));
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
            TimeoutKind::MaxAge => {
                let age = self.slot.connection.max_age(self.core).unwrap_or_default();
                self.close(CloseReason::MaxAge(Duration::from_millis(age)));
            }
            TimeoutKind::Beat => debug_assert!(false, "a beat ends no session by itself"),
            TimeoutKind::Close => {
                let unsent = self.slot.connection.queued() > 0;
                self.terminate(CloseReason::Local, if unsent { Ending::Reset } else { Ending::Close });
            }
        }
    }
}
