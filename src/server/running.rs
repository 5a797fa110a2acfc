use std::{fmt, ops::Deref, time::Duration};

use super::{ServerHandle, signals::SignalWatch};
use crate::{
    error::{ServeError, panic_message},
    metrics::{Metrics, Rates},
    runtime::{Measured, MetricsThread, ShardThread},
};

/// The time after the deadline of a shutdown in which remaining sessions are cut and the threads end. It is short
/// enough for `stop` to return within 100 ms of the deadline.
const OVERTIME: Duration = Duration::from_millis(75);

/// A running server, on threads of its own.
///
/// Dropping it shuts the server down and waits for its threads, as [`stop`](Self::stop) does with
/// [`Limits::close_timeout`](crate::Limits::close_timeout); a thread whose callback blocks longer is left behind, and
/// this is logged. Keep it for as long as the server is to live. It dereferences to its [`ServerHandle`].
///
/// ```
/// use std::time::Duration;
/// use framewire::{Separator, Server, packet_fn};
///
/// # fn main() -> Result<(), framewire::ServeError> {
/// let echo = packet_fn(|session, packet| Ok(session.send(packet)?));
/// let server = Server::bind("127.0.0.1:0")?.framing(Separator::lines()).spawn(echo)?;
/// println!("listening on {:?}", server.local_addrs());
/// server.stop(Duration::from_secs(5))
/// # }
/// ```
#[must_use = "dropping it stops the server"]
pub struct RunningServer {
    handle: ServerHandle,
    threads: Vec<ShardThread>,
    metrics_threads: Vec<MetricsThread>,
    _signals: SignalWatch,
}

impl RunningServer {
    pub(super) fn new(handle: ServerHandle, signals: SignalWatch) -> Self {
        Self { handle, threads: Vec::new(), metrics_threads: Vec::new(), _signals: signals }
    }

    pub(super) fn add(&mut self, thread: ShardThread) {
        self.threads.push(thread);
    }

    /// Returns a handle, for other threads.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Calls `report` with the server's metrics, and their rates since the last call, `every` so often, on a thread of its
    /// own: what it does holds up no session. The thread ends with the server, after a last call, for which
    /// [`wait`](Self::wait) and [`stop`](Self::stop) wait within their time. A panic in it is logged, and it is called
    /// again the next time. This may be called several times.
    ///
    /// ```
    /// use std::time::Duration;
    /// use framewire::{Separator, Server, packet_fn};
    ///
    /// # fn main() -> Result<(), framewire::ServeError> {
    /// let echo = packet_fn(|session, packet| Ok(session.send(packet)?));
    /// let mut server = Server::bind("127.0.0.1:0")?.framing(Separator::lines()).spawn(echo)?;
    /// server.on_metrics(Duration::from_secs(10), |metrics, rates| {
    ///     let (sessions, packets) = (metrics.sessions, rates.per_second(|metrics| metrics.packets_in));
    ///     eprintln!("{sessions} sessions, {packets:.0} packets/s, {:.0} % busy", 100.0 * rates.busy_share());
    /// })?;
    /// server.stop(Duration::from_secs(5))
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ServeError::Config`] if `every` is less than a millisecond, [`ServeError::System`] if no thread can be started.
    pub fn on_metrics(
        &mut self,
        every: Duration,
        report: impl FnMut(&Metrics, &Rates) + Send + 'static,
    ) -> Result<(), ServeError> {
        if every < Duration::from_millis(1) {
            let why = format!("every {every:?} is too often; give at least a millisecond");
            return Err(ServeError::config(("on_metrics", why)));
        }
        let thread = MetricsThread::start(every, self.handle(), report);
        self.metrics_threads.push(thread.map_err(ServeError::system("start a thread"))?);
        Ok(())
    }

    /// Waits until the server was shut down, or has failed, and its last thread has ended, however long a callback
    /// blocks: see [`stop`](Self::stop) for a wait with a deadline. Within a callback of the server, which would wait
    /// for itself, it returns at once; so do `stop` and dropping.
    ///
    /// # Errors
    /// Why the server stopped, if it was not asked to.
    pub fn wait(mut self) -> Result<(), ServeError> {
        self.join(None)
    }

    /// Shuts down as [`ServerHandle::shutdown`] does, and waits until that is done: at most 100 ms longer than `grace`.
    ///
    /// A callback that blocks cannot be interrupted. If one blocks beyond the deadline, its thread is left behind: when
    /// the callback returns, the remaining sessions of its shard are reset, `on_close` is called for each, and the
    /// thread ends.
    ///
    /// # Errors
    /// [`ServeError::StillRunning`] names the shards that block; any other error says why the server had stopped before
    /// this call.
    pub fn stop(mut self, grace: Duration) -> Result<(), ServeError> {
        self.handle.shutdown(grace);
        self.join(Some(grace))
    }

    fn join(&mut self, grace: Option<Duration>) -> Result<(), ServeError> {
        if self.handle.is_within_callback() {
            tracing::error!("asked from within a callback to wait for the server; not waiting");
            self.threads.clear();
            return Ok(());
        }
        let within = grace.map(|grace| grace.saturating_add(OVERTIME));
        let left = match self.handle.wait_for_threads(within) {
            Ok(left) => left,
            Err(shards) => {
                // Shards whose callback returns after the deadline must not go on serving.
                self.handle.abort();
                self.threads.clear();
                return Err(ServeError::StillRunning { shards, grace: grace.unwrap_or_default() });
            }
        };
        self.metrics_threads.drain(..).for_each(|thread| thread.join(left));
        let mut outcome = Ok(());
        for thread in self.threads.drain(..) {
            let ended = thread.join().unwrap_or_else(|panic| {
                tracing::error!(panic = panic_message(panic), "a thread panicked when its shard had ended");
                Err(ServeError::Defect)
            });
            outcome = outcome.and(ended);
        }
        outcome
    }
}

impl Measured for ServerHandle {
    fn metrics(&self) -> Metrics {
        Self::metrics(self)
    }

    fn wait(&self, within: Duration) -> bool {
        self.wait_for_threads(Some(within)).is_ok()
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        let grace = self.handle.close_timeout();
        self.handle.shutdown(grace);
        if let Err(error) = self.join(Some(grace)) {
            tracing::error!(%error, "a server that was dropped did not stop in peace");
        }
    }
}

impl Deref for RunningServer {
    type Target = ServerHandle;

    fn deref(&self) -> &ServerHandle {
        &self.handle
    }
}

impl fmt::Debug for RunningServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningServer").field("handle", &self.handle).finish_non_exhaustive()
    }
}
