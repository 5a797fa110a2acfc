//! What a server counts, and how a snapshot is taken without stopping a shard.

use std::{
    fmt,
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::error::CloseKind;

const KINDS: usize = CloseKind::ALL.len();

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// The counters of one shard, as plain numbers: only its own thread touches them.
        #[derive(Debug, Default, Clone)]
        pub(crate) struct Counters {
            $(pub(crate) $name: u64,)+
            pub(crate) closed: [u64; KINDS],
        }

        /// The same, for readers on other threads: each shard stores into its own once per turn, and never reads it.
        #[derive(Debug, Default)]
        pub(crate) struct SharedCounters {
            $($name: AtomicU64,)+
            closed: [AtomicU64; KINDS],
        }

        impl SharedCounters {
            pub(crate) fn publish(&self, counters: &Counters) {
                $(self.$name.store(counters.$name, Relaxed);)+
                for (shared, own) in self.closed.iter().zip(&counters.closed) {
                    shared.store(*own, Relaxed);
                }
            }

            pub(crate) fn add_to(&self, metrics: &mut Metrics) {
                $(metrics.$name += self.$name.load(Relaxed);)+
                for (sum, shared) in metrics.closed.0.iter_mut().zip(&self.closed) {
                    *sum += shared.load(Relaxed);
                }
            }
        }

        /// A snapshot of a server's counters, summed over its shards. See
        /// [`ServerHandle::metrics`](crate::ServerHandle::metrics).
        ///
        /// Each shard publishes its numbers at the end of each turn, so those of different shards may be a turn apart.
        /// Counters only rise; gauges are as they were at the end of that turn.
        #[derive(Debug, Default, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[$doc])+ pub $name: u64,)+
            closed: ByKind,
        }

        impl Metrics {
            fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
                for (sum, closed) in self.closed.0.iter_mut().zip(&other.closed.0) {
                    *sum += closed;
                }
            }
        }
    };
}

counters! {
    /// Sessions that are open or closing now (gauge).
    sessions,
    /// Bytes buffered now in inboxes and outboxes, by capacity, and 128 bytes for each pending ticket (gauge).
    buffered,
    /// Bytes of empty buffers that are kept for the next sends (gauge).
    pooled,
    /// Timers set now (gauge).
    timers,
    /// Commands that wait in mailboxes now (gauge).
    mailbox,
    /// Sessions ever opened (`on_open` returned `Ok`).
    opened,
    /// Connections ever accepted.
    accepted,
    /// Connections closed before they became open sessions: refused by the strategy, by the limit per peer or by
    /// `on_open`, or failed in the handshake of a layer.
    refused,
    /// Times that accepting paused: out of descriptors or memory, or at the connection limit.
    accept_pauses,
    /// Bytes received.
    bytes_in,
    /// Bytes taken by the kernel.
    bytes_out,
    /// Packets handed to handlers.
    packets_in,
    /// Packets queued to be sent.
    packets_out,
    /// Frames refused and skipped, for example with [`Oversize::Discard`](crate::Oversize::Discard).
    frames_rejected,
    /// Sends that failed with [`SendError::Full`](crate::SendError::Full), and payloads sent by handle that could not
    /// be encoded.
    sends_refused,
    /// Panics caught in callbacks, and in the destructors of values that a shard owned.
    panics,
    /// Events for sessions that were already gone; harmless.
    stale_events,
    /// Turns of the event loops.
    turns,
    /// Times that another thread had to wake a sleeping shard.
    wakeups,
    /// Turns that took longer than 100 ms, waiting excluded: as a rule because a callback or a job blocked, which holds
    /// up all sessions of its shard.
    slow_turns,
}

/// Adds each number of the other snapshot, gauges and counters alike, to sum up several services.
impl AddAssign<&Self> for Metrics {
    fn add_assign(&mut self, other: &Self) {
        self.add(other);
    }
}

impl Metrics {
    /// Returns how many sessions have ended for a reason of this kind.
    #[must_use]
    pub fn closed(&self, kind: CloseKind) -> u64 {
        self.closed.0.get(kind as usize).copied().unwrap_or_default()
    }

    /// Returns how many sessions have ended, for any reason.
    #[must_use]
    pub fn closed_total(&self) -> u64 {
        self.closed.0.iter().sum()
    }
}

/// The number of ended sessions for each [`CloseKind`], shown by name.
#[derive(Default, Clone, PartialEq, Eq)]
struct ByKind([u64; KINDS]);

impl fmt::Debug for ByKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = CloseKind::ALL.iter().zip(&self.0).filter(|(_, count)| **count > 0);
        f.debug_map().entries(counted).finish()
    }
}

impl Counters {
    pub(crate) fn count_close(&mut self, kind: CloseKind) {
        if let Some(count) = self.closed.get_mut(kind as usize) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_the_sum_of_what_the_shards_published() {
        let mut own = Counters { bytes_in: 5, sessions: 1, ..Counters::default() };
        own.count_close(CloseKind::Idle);
        let (a, b) = (SharedCounters::default(), SharedCounters::default());
        a.publish(&own);
        b.publish(&own);
        let mut metrics = Metrics::default();
        a.add_to(&mut metrics);
        b.add_to(&mut metrics);
        assert_eq!((metrics.bytes_in, metrics.sessions, metrics.closed(CloseKind::Idle)), (10, 2, 2));
        assert_eq!(metrics.closed_total(), 2);
        assert!(format!("{metrics:?}").ends_with("closed: {Idle: 2} }"), "{metrics:?}");
    }
}
