//! Where threads wait until a shard has room for what they want to send.
//!
//! ```text
//! sender   seen ──▶ try: full ──▶ leave a mark ──▶ still full? ──▶ wait for a later number than seen
//! shard                makes room ──▶ finds the mark, takes it away ──▶ freed: number + 1, wakes all
//! ```
//!
//! The mark stands in the word, or under the lock, that says how full it is: either the shard finds the mark after it
//! has made room, or the sender finds the room after it has left the mark. `crates/loom-models` checks it.

use std::{
    fmt,
    sync::PoisonError,
    time::{Duration, Instant},
};

use super::primitives::{Condvar, Mutex, MutexGuard};

/// Longer than this no thread waits at a stretch: a deadline beyond the range of the clock is for ever.
const STRETCH: Duration = Duration::from_secs(3600);

/// Where the threads wait that want to send to sessions of one shard. They are woken together, and each looks for itself.
#[derive(Default)]
pub struct Room {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How often room was made for those who waited.
    freed: u64,
    ended: bool,
}

/// How a wait has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// Room was made since the look, perhaps for others.
    Freed,
    /// The shard has ended.
    Ended,
    /// The deadline has passed.
    TimedOut,
}

impl Room {
    /// Returns how often room was made. To be called before the first try, for [`wait`](Self::wait).
    pub fn seen(&self) -> u64 {
        self.lock().freed
    }

    /// Called when room was made and a mark was found: wakes all that wait.
    #[cold]
    pub fn freed(&self) {
        self.lock().freed += 1;
        self.changed.notify_all();
    }

    /// The shard has ended: nobody waits any more.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits until room was made since it was [`seen`](Self::seen), at most until `deadline`.
    #[expect(clippy::disallowed_methods, reason = "it waits on a thread that is not the server's")]
    pub fn wait(&self, seen: u64, deadline: Option<Instant>) -> Waited {
        let mut state = self.lock();
        loop {
            if state.ended {
                return Waited::Ended;
            }
            if state.freed != seen {
                return Waited::Freed;
            }
            let left = deadline.map_or(STRETCH, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Waited::TimedOut;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Room")
    }
}
