//! What a server counts, and how a snapshot is taken without stopping a shard.
//!
//! ```text
//! Counters of a shard ──end of its turn──▶ SharedCounters ──summed over the shards──▶ Metrics ──since()──▶ Rates
//!                                                                                        └──samples()──▶ Sample …
//! ```
//!
//! A number of its own is one entry of `metrics!` below; its comment is what [`Sample::help`] returns, so it has no links.

mod crowd;
mod declare;
mod rates;
mod sample;

use std::{
    fmt, mem,
    ops::AddAssign,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

pub(crate) use self::crowd::Crowd;
pub use self::{
    rates::Rates,
    sample::{Sample, SampleKind},
};

use self::declare::metrics;
use crate::{
    error::{CloseKind, DialErrorKind, RefusalCause},
    time::Nanos,
};

metrics! {
    // Published at the end of every turn.
    often {
        /// Sessions that are open or closing now.
        sessions: Gauge "framewire_sessions",
        /// Bytes buffered now in inboxes and outboxes, by capacity, and 128 bytes for each pending ticket.
        buffered: Gauge "framewire_buffered_bytes",
        /// Bytes of frames of broadcasts and channels that outboxes share now, each counted once.
        shared: Gauge "framewire_shared_bytes",
        /// Bytes that wait in outboxes now, for peers that do not read as fast as they are sent to.
        queued: Gauge "framewire_queued_bytes",
        /// Bytes of empty buffers that are kept for the next sends.
        pooled: Gauge "framewire_pooled_bytes",
        /// Timers set now.
        timers: Gauge "framewire_timers",
        /// Commands that wait in mailboxes now.
        mailbox: Gauge "framewire_mailbox_commands",
        /// Bytes received.
        bytes_in: Counter "framewire_received_bytes_total",
        /// Bytes taken by the kernel.
        bytes_out: Counter "framewire_sent_bytes_total",
        /// Packets handed to handlers.
        packets_in: Counter "framewire_received_packets_total",
        /// Packets queued to be sent.
        packets_out: Counter "framewire_sent_packets_total",
        /// Turns of the event loops.
        turns: Counter "framewire_turns_total",
    }
    // Published at the end of a turn in which one of them has changed.
    seldom {
        /// Sessions ever opened: `on_open` returned `Ok`.
        opened: Counter "framewire_opened_sessions_total",
        /// Connections ever accepted.
        accepted: Counter "framewire_accepted_connections_total",
        /// Connections handed to the strategy (`Placement::Detach`), which are no sessions.
        detached: Counter "framewire_detached_connections_total",
        /// Dials ever begun; those that were refused before are counted as failed alone.
        dials: Counter "framewire_dials_total",
        /// Sessions ever opened by dials.
        dialled: Counter "framewire_dialled_sessions_total",
        /// Dials that are under way now: those that are connecting, those that wait for another attempt, and those whose
        /// connection is made again when it ends, or has an upstream.
        dials_pending: Gauge "framewire_pending_dials",
        /// Dials of these that wait for another attempt now.
        dials_waiting: Gauge "framewire_waiting_dials",
        /// Times that accepting paused: out of descriptors or memory, or at the connection limit.
        accept_pauses: Counter "framewire_accept_pauses_total",
        /// Frames that were longer than the maximum, whether they ended the session or were skipped.
        frames_too_long: Counter "framewire_too_long_frames_total",
        /// Frames refused and skipped, for example with `Oversize::Discard`.
        frames_rejected: Counter "framewire_rejected_frames_total",
        /// Sends that failed with `SendError::Full`, and payloads sent by handle that could not be encoded.
        sends_refused: Counter "framewire_refused_sends_total",
        /// Sessions closed because a packet found no room in their outbox; not those that a callback closes by passing
        /// the error on.
        overflow_closed: Counter "framewire_overflow_closed_sessions_total",
        /// Packets not sent because they found no room and were to be refused.
        overflow_refused: Counter "framewire_overflow_refused_packets_total",
        /// Packets dropped while they waited, to make room for others.
        overflow_dropped: Counter "framewire_overflow_dropped_packets_total",
        /// Packets replaced while they waited, by a later one with the same key.
        overflow_replaced: Counter "framewire_overflow_replaced_packets_total",
        /// Datagrams that were longer than a UDP session may receive, and were dropped.
        datagrams_too_long: Counter "framewire_too_long_datagrams_total",
        /// Datagrams that were dropped because their UDP session took none: it was paused, its outbox was above the
        /// high-water mark, or it was closing.
        datagrams_missed: Counter "framewire_missed_datagrams_total",
        /// Datagrams that were queued and then dropped: the kernel refused them, or took none for so long that too many
        /// waited.
        datagrams_unsent: Counter "framewire_unsent_datagrams_total",
        /// Panics caught in callbacks, and in the destructors of values that a shard owned.
        panics: Counter "framewire_panics_total",
        /// Events of the poll for sessions that were already gone; harmless.
        stale_events: Counter "framewire_stale_events_total",
        /// Turns that took longer than 100 ms, waiting excluded: as a rule because a callback or a job blocked, which
        /// holds up all sessions of its shard.
        slow_turns: Counter "framewire_slow_turns_total",
    }
    // Read where it is counted when a snapshot is taken.
    elsewhere {
        /// Shards that run now, each on a thread: the acceptor's, the workers', and one for each forked connection.
        shards: Gauge "framewire_shards",
        /// The most sessions that were open or closing at once at the end of a turn, since the server was started.
        sessions_peak: Gauge "framewire_peak_sessions",
        /// Bytes of payload that wait in mailboxes now.
        mailbox_bytes: Gauge "framewire_mailbox_bytes",
        /// Times that another thread had to wake a sleeping shard.
        wakeups: Counter "framewire_wakeups_total",
    }
    // Published as `seldom`; counted by a label.
    families {
        /// Connections closed before they became open sessions, by cause.
        refused(refused_total, count_refusal): RefusalCause "cause" "framewire_refused_connections_total",
        /// Sessions that have ended, by the kind of their reason.
        closed(closed_total, count_close): CloseKind "reason" "framewire_closed_sessions_total",
        /// Dials that have failed for good, by the kind of their error.
        dials_failed(dials_failed_total, count_failed_dial): DialErrorKind "cause" "framewire_failed_dials_total",
        /// Times that a dial was to be made again, because an attempt had failed or its connection had ended, by the kind of
        /// that error.
        redials(redials_total, count_redial): DialErrorKind "cause" "framewire_redials_total",
    }
}

impl Counters {
    /// A turn took so long, waiting excluded.
    #[inline]
    pub(crate) fn count_busy(&mut self, took: Nanos) {
        // 64 bits of nanoseconds are 584 years.
        self.busy = self.busy.wrapping_add(took);
        if took > self.seldom.slowest_turn {
            self.slowest_turn = took;
        }
    }
}

impl SeldomCounters {
    #[cfg(test)]
    pub(crate) fn refused_total(&self) -> u64 {
        self.refused.iter().sum()
    }
}

impl SharedCounters {
    pub(crate) fn new(crowd: Arc<Crowd>) -> Self {
        Self { crowd, ..Self::default() }
    }

    /// A turn is over.
    #[inline]
    pub(crate) fn publish(&self, counters: &mut Counters) {
        let before = self.sessions.load(Relaxed);
        if before != counters.sessions {
            self.crowd.change(before, counters.sessions);
        }
        self.store_often(counters);
        if mem::take(&mut counters.is_changed) {
            self.store_seldom(&counters.seldom);
        }
    }

    /// The turn was measured, which is done when it is over: see [`Counters::count_busy`].
    #[inline]
    pub(crate) fn publish_time(&self, counters: &mut Counters) {
        self.busy.store(counters.busy, Relaxed);
        if mem::take(&mut counters.is_changed) {
            self.store_seldom(&counters.seldom);
        }
    }

    /// The shard has ended: adds what it has counted.
    pub(crate) fn retire_to(&self, metrics: &mut Metrics) {
        self.crowd.change(self.sessions.load(Relaxed), 0);
        let mut own = Metrics::default();
        self.add_to(&mut own);
        own.clear_gauges();
        *metrics += &own;
    }
}

impl Metrics {
    /// Returns what was counted since an `earlier` snapshot of the same server, per second.
    ///
    /// ```
    /// use std::{thread::sleep, time::Duration};
    /// use framewire::ServerHandle;
    ///
    /// fn print_load(server: &ServerHandle) {
    ///     let before = server.metrics();
    ///     sleep(Duration::from_secs(1));
    ///     let now = server.metrics();
    ///     let rates = now.since(&before);
    ///     println!("{:.0} packets/s, {:.0} %", rates.per_second(|m| m.packets_in), 100.0 * rates.busy_share());
    /// }
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Rates {
        Rates::new(self, earlier)
    }

    /// Returns every number with its name, for an exporter. The names are as Prometheus wants them (snake case, base
    /// units, counters end in `_total`), begin with `framewire_`, and are stable: a later release may add some.
    ///
    /// Feature `prometheus` makes a collector for the crate `prometheus-client` of a
    /// [`ServerHandle`](crate::ServerHandle); this is for any other.
    ///
    /// ```
    /// # fn show(server: &framewire::ServerHandle) {
    /// for sample in server.metrics().samples() {
    ///     println!("{sample}"); // framewire_closed_sessions_total{reason="idle"} 7
    /// }
    /// # }
    /// ```
    pub fn samples(&self) -> impl Iterator<Item = Sample> + use<> {
        let mut samples = Vec::new();
        self.collect(&mut samples);
        samples.extend([
            Sample::seconds(
                "framewire_busy_seconds_total",
                SampleKind::Counter,
                "Time that shards have spent in turns, waiting excluded.",
                self.busy,
            ),
            Sample::seconds(
                "framewire_slowest_turn_seconds",
                SampleKind::Gauge,
                "The longest turn since the server was started, waiting excluded.",
                self.slowest_turn,
            ),
            Sample::seconds(
                "framewire_uptime_seconds",
                SampleKind::Gauge,
                "Time since the server was started.",
                self.uptime,
            ),
        ]);
        samples.into_iter()
    }
}

/// Adds each number of the other snapshot, gauges and counters alike, to sum up several services: so the peak is that of
/// each service, added up. The uptime and the slowest turn are the longest.
impl AddAssign<&Self> for Metrics {
    fn add_assign(&mut self, other: &Self) {
        self.add(other);
        self.busy += other.busy;
        self.slowest_turn = self.slowest_turn.max(other.slowest_turn);
        self.uptime = self.uptime.max(other.uptime);
    }
}

/// Counters by a label, shown by name.
#[derive(Clone, PartialEq, Eq)]
struct ByLabel<K, const N: usize> {
    counts: [u64; N],
    labels: [K; N],
}

impl<K: Copy + fmt::Debug, const N: usize> fmt::Debug for ByLabel<K, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = self.labels.iter().zip(&self.counts).filter(|(_, count)| **count > 0);
        f.debug_map().entries(counted).finish()
    }
}

#[cfg(test)]
mod tests;
