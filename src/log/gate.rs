use std::{
    fmt,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::LogKind;
use crate::time::Tick;

/// Lines of one kind in a second.
const LINES: u32 = 10;
/// The second in which they are counted (milliseconds).
const SECOND: Tick = 1000;
/// What was left out is summed up after this time (milliseconds).
const SUM_UP: Tick = 10_000;

const KINDS: usize = LogKind::ALL.len();

/// Bounds what is logged by one standing shard, or by the acceptor's shard together with all that are forked for one
/// connection each.
pub(crate) struct LogGate {
    state: Mutex<State>,
    /// Lets the shard that has this gate call [`sum_up`](Self::sum_up) in due time.
    remind: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Debug, Default)]
struct State {
    flows: [Flow; KINDS],
    /// The shard was reminded, and has not summed up yet.
    is_reminded: bool,
}

/// The lines of one kind.
#[derive(Debug, Default)]
struct Flow {
    /// When the current second began.
    since: Tick,
    /// Lines in it.
    lines: u32,
    /// Lines that were left out.
    more: u64,
    /// When the first of these was.
    more_since: Tick,
}

impl LogGate {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), remind: OnceLock::new() }
    }

    /// Called once, with what reminds the shard that has this gate.
    pub(crate) fn set_reminder(&self, remind: impl Fn() + Send + Sync + 'static) {
        let _ = self.remind.set(Box::new(remind));
    }

    /// Returns `true` if a line of this kind may be written now. Otherwise it is counted.
    pub(crate) fn admits(&self, kind: LogKind, now: Tick) -> bool {
        let mut state = self.lock();
        let Some(flow) = state.flows.get_mut(kind as usize) else { return true };
        if flow.admits(now) {
            return true;
        }
        if !std::mem::replace(&mut state.is_reminded, true) {
            drop(state);
            if let Some(remind) = self.remind.get() {
                remind();
            }
        }
        false
    }

    /// Sums up the kinds of which lines were left out for long enough. Returns when it is to be called again, if at all.
    pub(crate) fn sum_up(&self, now: Tick) -> Option<Tick> {
        let mut next = None::<Tick>;
        let mut state = self.lock();
        let mut due = Vec::new();
        for (kind, flow) in LogKind::ALL.iter().zip(&mut state.flows) {
            match flow.due() {
                Some(at) if at <= now => due.push((*kind, flow.take(now))),
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        state.is_reminded = next.is_some();
        drop(state);
        // Not while the gate is locked: a subscriber of `tracing` is user code.
        due.into_iter().for_each(|(kind, left_out)| left_out.log(kind));
        next
    }

    /// The shard ends: sums up what was left out.
    pub(crate) fn finish(&self, now: Tick) {
        let due: Vec<_> = {
            let mut state = self.lock();
            let flows = LogKind::ALL.iter().zip(&mut state.flows).filter(|(_, flow)| flow.more > 0);
            flows.map(|(kind, flow)| (*kind, flow.take(now))).collect()
        };
        due.into_iter().for_each(|(kind, left_out)| left_out.log(kind));
    }

    /// Nothing is changed half, so a lock that a panic poisoned is as good as before.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flow {
    fn admits(&mut self, now: Tick) -> bool {
        // The clocks of several shards may be some milliseconds apart.
        if now.saturating_sub(self.since) >= SECOND {
            (self.since, self.lines) = (now, 0);
        }
        if self.lines < LINES {
            self.lines += 1;
            return true;
        }
        if self.more == 0 {
            self.more_since = now;
        }
        self.more += 1;
        false
    }

    /// When what was left out is to be summed up.
    fn due(&self) -> Option<Tick> {
        (self.more > 0).then_some(self.more_since + SUM_UP)
    }

    fn take(&mut self, now: Tick) -> LeftOut {
        let time = now.saturating_sub(self.more_since);
        LeftOut { lines: std::mem::take(&mut self.more), seconds: time.div_ceil(SECOND).max(1) }
    }
}

/// How many lines were left out, in how many seconds.
struct LeftOut {
    lines: u64,
    seconds: u64,
}

impl LeftOut {
    fn log(self, kind: LogKind) {
        kind.sum_up(&grouped(self.lines), self.seconds);
    }
}

/// Writes a number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Debug for LogGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogGate").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    };

    use super::*;

    /// How many lines the gate admits, of so many from this time on, one each millisecond.
    fn admitted(gate: &LogGate, kind: LogKind, from: Tick, lines: Tick) -> usize {
        (from..from + lines).filter(|now| gate.admits(kind, *now)).count()
    }

    fn left_out(gate: &LogGate, kind: LogKind) -> u64 {
        gate.lock().flows[kind as usize].more
    }

    #[test]
    fn a_kind_has_ten_lines_a_second_and_takes_none_from_another() {
        let gate = LogGate::new();
        assert_eq!(admitted(&gate, LogKind::SessionEnded, 5_000, 999), 10);
        assert_eq!(admitted(&gate, LogKind::Panicked, 5_500, 1), 1);
        assert_eq!(admitted(&gate, LogKind::SessionEnded, 6_000, 500), 10, "the next second");
        assert_eq!(left_out(&gate, LogKind::SessionEnded), 989 + 490);
        assert_eq!(left_out(&gate, LogKind::Panicked), 0);
    }

    #[test]
    fn the_shard_is_reminded_once_and_sums_up_ten_seconds_after_the_first_line_that_was_left_out() {
        let (gate, reminded) = (LogGate::new(), Arc::new(AtomicU32::new(0)));
        let count = reminded.clone();
        gate.set_reminder(move || {
            count.fetch_add(1, Relaxed);
        });
        admitted(&gate, LogKind::SessionEnded, 0, 10);
        assert_eq!((reminded.load(Relaxed), gate.sum_up(0)), (0, None));
        admitted(&gate, LogKind::SessionEnded, 10, 100);
        admitted(&gate, LogKind::Panicked, 500, 20);
        assert_eq!(reminded.load(Relaxed), 1, "once for all");
        assert_eq!(gate.sum_up(10_009), Some(10_010));
        assert_eq!(gate.sum_up(10_010), Some(10_510), "the other kind began later");
        assert_eq!((left_out(&gate, LogKind::SessionEnded), left_out(&gate, LogKind::Panicked)), (0, 10));
        assert_eq!(gate.sum_up(10_510), None);
        admitted(&gate, LogKind::Panicked, 20_000, 11);
        assert_eq!(reminded.load(Relaxed), 2, "again, for the next flood");
        gate.finish(20_100);
        assert_eq!(left_out(&gate, LogKind::Panicked), 0);
    }

    #[test]
    fn numbers_are_written_in_groups() {
        let written = [0, 999, 1_000, 12_345, 1_234_567].map(grouped);
        assert_eq!(written, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }
}
