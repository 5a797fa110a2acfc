//! The way into a shard from other threads: a bounded queue that wakes a sleeping shard once.
//!
//! ```text
//! any thread   post ──push──▶ [ control | ordinary ] ──take──▶ the shard's thread
//!                 └─signal: was ASLEEP? wake ─────────▲
//!
//! AWAKE ──post──▶ PENDING ──take──▶ AWAKE ──fall_asleep──▶ ASLEEP ──post, wake──▶ PENDING
//!                                     ▲──────wake_up────────┘
//! ```
//!
//! No wake-up is lost: a producer pushes *before* it signals, the shard clears the signal *before* it looks at the
//! queue, and it only falls asleep if the signal is still clear. The models in `crates/loom-models` check every
//! interleaving.

use std::{
    collections::VecDeque,
    fmt, io, mem,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use super::{
    primitives::{AtomicU8, Mutex, MutexGuard, Ordering},
    room::Room,
};

/// The shard works and has taken everything that was signalled.
const AWAKE: u8 = 0;
/// The shard waits in its poll: the next post must wake it.
const ASLEEP: u8 = 1;
/// Something was posted since the shard last looked; if it slept, it has been woken.
const PENDING: u8 = 2;
/// As `PENDING`, but the wake-up failed: the next post must try again.
const UNHEARD: u8 = 3;

/// Commands for which an emptied buffer keeps its memory. Memory beyond that, used in a burst, is freed.
const KEEP: usize = 1024;

/// Wakes a shard that waits in its poll, for example with mio's `Waker`.
pub trait Wake: Send + Sync {
    /// Makes the poll of the shard return, now or when it next begins.
    ///
    /// # Errors
    /// The system call failed. The command stays queued, and the next post wakes again.
    fn wake(&self) -> io::Result<()>;
}

/// How much may wait in a [`Mailbox`]. Both limits are exact; control commands count towards neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxLimits {
    /// The most commands. Default 65,536: a burst of one per session of a busy shard, a few MiB of memory.
    pub commands: usize,
    /// The most bytes that the commands may announce together. Default 64 MiB: 1 KiB for each of the commands. A
    /// command that announces more than the limit is never accepted.
    pub bytes: usize,
}

impl Default for MailboxLimits {
    fn default() -> Self {
        MailboxLimits { commands: 65_536, bytes: 64 << 20 }
    }
}

/// Why a command was not queued. It hands the command back.
#[non_exhaustive]
pub enum Rejected<C> {
    /// The shard is behind: one more command would exceed a limit.
    Full {
        /// What was posted.
        command: C,
        /// Ordinary commands that wait.
        queued: usize,
        /// Bytes that wait.
        queued_bytes: usize,
    },
    /// The shard has ended, and accepts no more commands.
    Closed {
        /// What was posted.
        command: C,
    },
}

/// The shard has ended, and accepts no more commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxClosed;

/// Whether one who waits for room in a mailbox may hope for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prospect {
    /// There is room now, or the shard has ended: to be tried again at once.
    Now,
    /// There is none yet; the [`Room`] will be told.
    Later,
    /// The command announces more than the mailbox ever holds.
    Never,
}

impl<C> Rejected<C> {
    /// Returns the command that was not queued.
    pub fn into_command(self) -> C {
        match self {
            Rejected::Full { command, .. } | Rejected::Closed { command } => command,
        }
    }
}

impl<C> fmt::Debug for Rejected<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejected::Full { queued, queued_bytes, .. } => f
                .debug_struct("Full")
                .field("queued", queued)
                .field("queued_bytes", queued_bytes)
                .finish_non_exhaustive(),
            Rejected::Closed { .. } => f.debug_struct("Closed").finish_non_exhaustive(),
        }
    }
}

/// A bounded queue of commands into one shard: many threads post, the shard's thread takes.
///
/// Commands of one thread and one lane are taken in the order in which they were posted; control commands overtake
/// ordinary ones. Memory: at most twice the limits (what waits, and the batch that was taken last).
pub struct Mailbox<C> {
    limits: MailboxLimits,
    waker: Arc<dyn Wake>,
    signal: AtomicU8,
    /// Written by the shard alone.
    leftover: AtomicBool,
    queue: Mutex<Queue<C>>,
    counters: Counters,
    room: Room,
}

/// Invariant: `ordinary.len() ≤ limits.commands`, `bytes ≤ limits.bytes`; both lanes are empty once `closed`.
struct Queue<C> {
    ordinary: VecDeque<C>,
    control: VecDeque<C>,
    /// What the ordinary commands announced.
    bytes: usize,
    closed: bool,
    /// A thread waits for room.
    awaited: bool,
}

/// Read by metrics only, so not part of the loom models.
#[derive(Default)]
struct Counters {
    queued: AtomicUsize,
    queued_bytes: AtomicUsize,
    wakeups: AtomicU64,
    failed_wakeups: AtomicU64,
}

impl<C> Mailbox<C> {
    /// Creates an empty mailbox of a shard that is awake. Allocates nothing until the first post.
    pub fn new(limits: MailboxLimits, waker: Arc<dyn Wake>) -> Self {
        let (ordinary, control) = (VecDeque::new(), VecDeque::new());
        let queue = Queue { ordinary, control, bytes: 0, closed: false, awaited: false };
        Mailbox {
            limits,
            waker,
            signal: AtomicU8::new(AWAKE),
            leftover: AtomicBool::new(false),
            queue: Mutex::new(queue),
            counters: Counters::default(),
            room: Room::default(),
        }
    }

    /// Queues `command`, which holds `bytes` bytes of memory, and wakes the shard if it is asleep. From any thread;
    /// never waits for the shard.
    ///
    /// The bytes count until the command is *taken*, not until it is executed.
    ///
    /// # Errors
    /// [`Rejected::Full`] if a limit would be exceeded, [`Rejected::Closed`] if the shard has ended.
    pub fn post(&self, command: C, bytes: usize) -> Result<(), Rejected<C>> {
        {
            let mut queue = self.lock();
            if queue.closed {
                return Err(Rejected::Closed { command });
            }
            let (queued, queued_bytes) = (queue.ordinary.len(), queue.bytes);
            if !queue.has_room(bytes, self.limits) {
                return Err(Rejected::Full { command, queued, queued_bytes });
            }
            queue.ordinary.push_back(command);
            queue.bytes += bytes;
            self.count(&queue);
        }
        self.signal();
        Ok(())
    }

    /// Queues a control command (a shutdown, an accepted socket): it is not refused when the mailbox is full, and
    /// overtakes ordinary commands. Nothing but its callers bounds this lane: post only what is bounded elsewhere.
    ///
    /// # Errors
    /// [`Rejected::Closed`] if the shard has ended.
    pub fn post_control(&self, command: C) -> Result<(), Rejected<C>> {
        {
            let mut queue = self.lock();
            if queue.closed {
                return Err(Rejected::Closed { command });
            }
            queue.control.push_back(command);
            self.count(&queue);
        }
        self.signal();
        Ok(())
    }

    /// Queues control commands together: however many there are, a sleeping shard is woken once.
    ///
    /// # Errors
    /// [`MailboxClosed`] if the shard has ended; then nothing is taken from `commands`.
    pub fn post_control_all(&self, commands: impl Iterator<Item = C>) -> Result<(), MailboxClosed> {
        {
            let mut queue = self.lock();
            if queue.closed {
                return Err(MailboxClosed);
            }
            queue.control.extend(commands);
            self.count(&queue);
        }
        self.signal();
        Ok(())
    }

    /// Refuses every later post, and returns what was not taken: control commands first, each lane in order.
    ///
    /// The shard closes its mailbox when it ends, so this does not wake it. Closing again returns nothing.
    #[must_use = "the commands that nobody took are to be answered or dropped"]
    pub fn close(&self) -> VecDeque<C> {
        let (mut left, mut ordinary) = {
            let mut queue = self.lock();
            queue.closed = true;
            queue.bytes = 0;
            let lanes = (mem::take(&mut queue.control), mem::take(&mut queue.ordinary));
            self.count(&queue);
            lanes
        };
        self.room.end();
        left.append(&mut ordinary);
        left
    }

    /// Returns how much may wait.
    pub fn limits(&self) -> MailboxLimits {
        self.limits
    }

    /// Returns where threads wait for room in this mailbox, and for that in the outboxes of the shard's sessions.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// After a refusal: asks that the [`room`](Self::room) is told when the shard next takes its commands. Returns
    /// whether a command of so many bytes may then be accepted.
    pub fn await_room(&self, bytes: usize) -> Prospect {
        if bytes > self.limits.bytes || self.limits.commands == 0 {
            return Prospect::Never;
        }
        let mut queue = self.lock();
        if queue.closed || queue.has_room(bytes, self.limits) {
            return Prospect::Now;
        }
        queue.awaited = true;
        Prospect::Later
    }

    /// Called by the shard: moves what was posted into `into`. One atomic load if nothing was.
    ///
    /// An empty `into` is exchanged for the whole queue, so that both buffers are reused. To an `into` that still holds
    /// commands only the control lane is added, at its front: ordinary commands wait, and count, until the batch is
    /// used up. Until then `fall_asleep` returns `false`. The memory of an emptied `into` beyond 1,024 commands is
    /// freed by the next call.
    #[inline]
    pub fn take(&self, into: &mut VecDeque<C>) {
        if into.is_empty() && into.capacity() > KEEP {
            into.shrink_to(KEEP);
        }
        if self.signal.load(Ordering::Acquire) != AWAKE {
            self.take_queue(into);
        }
    }

    #[inline(never)]
    fn take_queue(&self, into: &mut VecDeque<C>) {
        // Before the look: what is posted after it sets the signal again.
        self.signal.swap(AWAKE, Ordering::AcqRel);
        let (behind, awaited) = {
            let mut queue = self.lock();
            let behind = queue.move_to(into);
            self.count(&queue);
            (behind, !behind && mem::take(&mut queue.awaited))
        };
        if behind {
            self.signal.swap(PENDING, Ordering::AcqRel);
        }
        if awaited {
            self.room.freed();
        }
    }

    /// Called by the shard before it waits. Returns `true` if it may: the next post wakes it. Returns `false` if
    /// something is pending, which it must take first.
    #[must_use = "a shard that may not sleep must not wait"]
    pub fn fall_asleep(&self) -> bool {
        self.signal.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Called by the shard when its wait is over, whatever ended it. Posts need not wake it any more.
    pub fn wake_up(&self) {
        // Fails when a post came first; then it is pending, and `take` finds it.
        let _ = self.signal.compare_exchange(ASLEEP, AWAKE, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Called by the shard: notes if it has taken commands that it has not executed to the end yet.
    pub fn note_leftover(&self, left: bool) {
        self.leftover.store(left, Relaxed);
    }

    /// Returns `true` if the shard has executed everything that was posted. A post that happened before this call, on
    /// any thread, is seen.
    pub fn is_idle(&self) -> bool {
        self.queued() == 0 && !self.leftover.load(Relaxed)
    }

    /// Returns how many commands wait, in both lanes. For metrics: it may be a moment old, like all counters here.
    pub fn queued(&self) -> usize {
        self.counters.queued.load(Relaxed)
    }

    /// Returns the bytes that the waiting commands announced.
    pub fn queued_bytes(&self) -> usize {
        self.counters.queued_bytes.load(Relaxed)
    }

    /// Returns how often posts have woken the shard.
    pub fn wakeups(&self) -> u64 {
        self.counters.wakeups.load(Relaxed)
    }

    /// After a push: notes that something is pending, and wakes the shard if it sleeps.
    fn signal(&self) {
        // Producers in a burst share this cache line read-only. The lock orders it: a producer that pushed after the
        // shard's look sees the signal that the shard cleared before that look, or a newer one, never the old PENDING.
        if self.signal.load(Ordering::Relaxed) == PENDING {
            return;
        }
        if let ASLEEP | UNHEARD = self.signal.swap(PENDING, Ordering::AcqRel) {
            self.wake_shard();
        }
    }

    fn wake_shard(&self) {
        self.counters.wakeups.fetch_add(1, Relaxed);
        let Err(error) = self.waker.wake() else { return };
        // Not if the shard took in the meantime: then nothing is unheard.
        let _ = self.signal.compare_exchange(PENDING, UNHEARD, Ordering::AcqRel, Ordering::Acquire);
        if self.counters.failed_wakeups.fetch_add(1, Relaxed) == 0 {
            tracing::error!(%error, "cannot wake a shard, its commands wait; further failures are counted");
        }
    }

    fn count(&self, queue: &Queue<C>) {
        self.counters.queued.store(queue.ordinary.len() + queue.control.len(), Relaxed);
        self.counters.queued_bytes.store(queue.bytes, Relaxed);
    }

    /// No push or exchange leaves the queue half done, so a lock that a panic poisoned is as good as before.
    fn lock(&self) -> MutexGuard<'_, Queue<C>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Queue<C> {
    fn has_room(&self, bytes: usize, limits: MailboxLimits) -> bool {
        self.ordinary.len() < limits.commands && bytes <= limits.bytes.saturating_sub(self.bytes)
    }

    /// Returns `true` if ordinary commands had to stay behind.
    fn move_to(&mut self, into: &mut VecDeque<C>) -> bool {
        let room = into.is_empty();
        if room {
            mem::swap(&mut self.ordinary, into);
            self.bytes = 0;
        }
        while let Some(command) = self.control.pop_back() {
            into.push_front(command);
        }
        if self.control.capacity() > KEEP {
            self.control.shrink_to(KEEP);
        }
        !room && !self.ordinary.is_empty()
    }
}

impl<C> fmt::Debug for Mailbox<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("limits", &self.limits)
            .field("queued", &self.queued())
            .field("queued_bytes", &self.queued_bytes())
            .field("wakeups", &self.wakeups())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
