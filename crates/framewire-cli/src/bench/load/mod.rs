//! The load generator: connections on mio, every reply compared byte for byte.
//!
//! One thread per load core, each with its own share of the connections. The caller conducts: it waits until
//! [`Load::ready`], lets the threads warm up, marks the window that is measured and ends it; the threads then wait for
//! what is still under way and hand back their histograms.

mod broadcast;
mod churn;
mod echo;
mod error;
mod generator;
mod pattern;
mod peer;

pub(crate) use error::LoadError;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::machine::{self, Cores};

/// How long replies may be missing before a run has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Traffic {
    /// Each connection has this many messages under way and sends the next when one comes back.
    Closed { pipeline: usize },
    /// This many messages a second over all connections, whether or not replies come.
    Open { rate: f64 },
    /// Connect, one message, close; again and again on each slot.
    Churn,
    /// One connection sends, and all receive; this many messages are under way.
    Publish { in_flight: usize },
    /// One message on each connection, then silence.
    Idle,
}

/// A load, ready to be started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadSpec {
    pub to: SocketAddr,
    /// Connections that send.
    pub active: usize,
    /// Connections that stay silent after their first message.
    pub silent: usize,
    /// Payload bytes.
    pub size: usize,
    pub traffic: Traffic,
}

impl LoadSpec {
    /// The share of thread `index` of `threads`.
    fn share(&self, index: usize, threads: usize) -> Self {
        let part = |total: usize| total / threads + usize::from(index < total % threads);
        let traffic = match self.traffic {
            Traffic::Open { rate } => {
                Traffic::Open { rate: rate * part(self.active) as f64 / self.active.max(1) as f64 }
            }
            other => other,
        };
        Self { active: part(self.active), silent: part(self.silent), traffic, ..*self }
    }
}

/// What the threads found in the window that was measured.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Nanoseconds.
    pub latency: Histogram<u64>,
    /// Open loop: how late messages left, against the schedule; nanoseconds.
    pub lag: Histogram<u64>,
}

impl Outcome {
    fn new() -> Result<Self, LoadError> {
        // 3 digits; a minute is more than `PATIENCE` lets anything take
        let histogram = || {
            Histogram::new_with_bounds(1, 60_000_000_000, 3)
                .map_err(|error| LoadError::Generator(std::io::Error::other(error.to_string())))
        };
        Ok(Self { latency: histogram()?, lag: histogram()? })
    }

    fn add(&mut self, other: &Self) {
        // both have the same bounds, so that adding cannot fail
        let _ = self.latency.add(&other.latency);
        let _ = self.lag.add(&other.lag);
    }
}

/// The part of the run that is on; the threads look at it once per turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Connect,
    Warm,
    Measure,
    Drain,
}

/// What the threads of one load and the conductor share.
#[derive(Debug, Default)]
struct Shared {
    phase: AtomicU8,
    called_off: AtomicBool,
    /// Messages verified (in churn: connections ended well); one counter per thread would be no faster, it is one
    /// relaxed add per read batch.
    messages: AtomicU64,
    connected: AtomicU64,
}

impl Shared {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Connect,
            1 => Phase::Warm,
            2 => Phase::Measure,
            _ => Phase::Drain,
        }
    }

    fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }
}

enum Note {
    Ready,
    Ended(Result<Outcome, LoadError>),
}

/// A load under way. Dropping it calls it off and waits for its threads.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    notes: Receiver<Note>,
    threads: Vec<JoinHandle<()>>,
    deadline: Instant,
}

impl Load {
    /// Starts to connect; `cores` are those that the threads are pinned to, one each.
    pub(crate) fn start(spec: &LoadSpec, cores: &Cores) -> Result<Self, LoadError> {
        let shared = Arc::new(Shared::default());
        let (sender, notes) = channel();
        let count = match spec.traffic {
            // what is in flight depends on all subscribers
            Traffic::Publish { .. } => 1,
            _ => cores.threads().min(spec.active.max(spec.silent)).max(1),
        };
        let mut load = Self { shared, notes, threads: Vec::new(), deadline: Instant::now() + PATIENCE * 6 };
        for index in 0..count {
            let thread = LoadThread {
                spec: spec.share(index, count),
                first_id: (index as u64) << 32,
                shared: Arc::clone(&load.shared),
                core: cores.nth(index),
            };
            load.threads.push(thread.start(sender.clone())?);
        }
        Ok(load)
    }

    /// Waits until every connection is open and has received one reply.
    pub(crate) fn ready(&mut self) -> Result<(), LoadError> {
        for _ in 0..self.threads.len() {
            match self.next()? {
                Note::Ready => {}
                Note::Ended(result) => return Err(result.err().unwrap_or(LoadError::CalledOff)),
            }
        }
        Ok(())
    }

    /// Starts sending; nothing is recorded yet.
    pub(crate) fn warm_up(&self) {
        self.shared.set(Phase::Warm);
    }

    /// From now on latencies are recorded.
    pub(crate) fn measure(&self) {
        self.shared.set(Phase::Measure);
    }

    /// Stops sending, waits for what is under way, and returns what was recorded.
    pub(crate) fn finish(mut self) -> Result<Outcome, LoadError> {
        self.shared.set(Phase::Drain);
        self.deadline = Instant::now() + PATIENCE * 2;
        let mut sum = Outcome::new()?;
        for _ in 0..self.threads.len() {
            if let Note::Ended(result) = self.next()? {
                sum.add(&result?);
            }
        }
        Ok(sum)
    }

    /// Messages verified so far; in churn, connections that ended well.
    pub(crate) fn messages(&self) -> u64 {
        self.shared.messages.load(Ordering::Relaxed)
    }

    /// Connections that have received a reply so far.
    pub(crate) fn connected(&self) -> u64 {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// Returns `true` if a thread has ended, which before [`finish`](Self::finish) means that it failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    fn next(&self) -> Result<Note, LoadError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.notes.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => LoadError::Generator(std::io::ErrorKind::TimedOut.into()),
            RecvTimeoutError::Disconnected => LoadError::CalledOff,
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.called_off.store(true, Ordering::Release);
        self.shared.set(Phase::Drain);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct LoadThread {
    spec: LoadSpec,
    first_id: u64,
    shared: Arc<Shared>,
    core: Option<usize>,
}

impl LoadThread {
    fn start(self, notes: Sender<Note>) -> Result<JoinHandle<()>, LoadError> {
        std::thread::Builder::new()
            .name("load".into())
            .spawn(move || {
                if let Some(core) = self.core {
                    machine::pin_thread(&[core]);
                }
                let result = self.run(&notes);
                let failed = result.is_err();
                let _ = notes.send(Note::Ended(result));
                // only now, so that what is read first is why, and not that the others were called off
                if failed {
                    self.shared.called_off.store(true, Ordering::Release);
                }
            })
            .map_err(LoadError::Generator)
    }

    fn run(&self, notes: &Sender<Note>) -> Result<Outcome, LoadError> {
        let ready = || drop(notes.send(Note::Ready));
        match self.spec.traffic {
            Traffic::Churn => churn::run(&self.spec, self.first_id, &self.shared, ready),
            Traffic::Publish { in_flight } => {
                broadcast::run(&self.spec, in_flight, self.first_id, &self.shared, ready)
            }
            _ => echo::run(&self.spec, self.first_id, &self.shared, ready),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_threads_make_up_the_whole_load() {
        let spec = LoadSpec {
            to: ([127, 0, 0, 1], 1).into(),
            active: 10,
            silent: 7,
            size: 64,
            traffic: Traffic::Open { rate: 1000.0 },
        };
        let shares: Vec<_> = (0..3).map(|index| spec.share(index, 3)).collect();
        assert_eq!(shares.iter().map(|share| share.active).sum::<usize>(), 10);
        assert_eq!(shares.iter().map(|share| share.silent).sum::<usize>(), 7);
        let rate = |share: &LoadSpec| match share.traffic {
            Traffic::Open { rate } => rate,
            _ => 0.0,
        };
        assert!((shares.iter().map(rate).sum::<f64>() - 1000.0).abs() < 1e-6);
    }
}
