use std::{
    io,
    sync::{Mutex, PoisonError, mpsc},
    thread::{self, Builder, JoinHandle},
    time::Duration,
};

use crate::{
    contained::{Contained, guard},
    error::{CloseReason, Logged},
    metrics::{Metrics, Rates},
};

/// A thread that shows a closure, every so often, what a server has counted.
#[derive(Debug)]
pub(crate) struct MetricsThread {
    thread: JoinHandle<()>,
    /// Closed when the thread has ended. In a mutex to be `Sync`.
    ended: Mutex<mpsc::Receiver<()>>,
}

/// What the thread needs of its server.
pub(crate) trait Measured: Send + 'static {
    /// Returns a snapshot.
    fn metrics(&self) -> Metrics;

    /// Waits so long, or until the server has ended; then it returns `true`.
    fn wait(&self, within: Duration) -> bool;
}

impl MetricsThread {
    /// The thread ends when the server has, after a last call. A closure that panics is called again the next time.
    pub(crate) fn start(
        every: Duration,
        server: impl Measured,
        report: impl FnMut(&Metrics, &Rates) + Send + 'static,
    ) -> io::Result<Self> {
        let (alive, ended) = mpsc::channel();
        let mut report = Contained::new(report);
        // Taken here: what happens before the thread gets to its first instruction counts.
        let mut before = server.metrics();
        let thread = Builder::new().name("framewire-metrics".into()).spawn(move || {
            let mut has_ended = false;
            while !has_ended {
                has_ended = server.wait(every);
                let now = server.metrics();
                let shown = guard("on_metrics", || {
                    (*report)(&now, &now.since(&before));
                    Ok::<_, CloseReason>(())
                });
                if let Err(panic) = shown {
                    tracing::error!(panic = %Logged(&panic), "it is called again the next time");
                }
                before = now;
            }
            drop(report);
            drop(alive);
        })?;
        Ok(Self { thread, ended: Mutex::new(ended) })
    }

    /// The server has ended: waits for the last call, for ever or so long.
    pub(crate) fn join(self, within: Option<Duration>) {
        if self.thread.thread().id() == thread::current().id() {
            return;
        }
        let ended = self.ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        let has_ended = match within {
            None => true,
            Some(within) => ended.recv_timeout(within) == Err(mpsc::RecvTimeoutError::Disconnected),
        };
        if !has_ended {
            tracing::error!("the closure of on_metrics blocks, its thread is left behind");
        } else if self.thread.join().is_err() {
            tracing::error!("the thread of on_metrics panicked");
        }
    }
}
