use std::{fmt, ops::Deref, time::Duration};

use super::ServerHandle;
use crate::{error::ServeError, reactor::ShardThread};

/// A server that serves on threads of its own.
///
/// Dropping it shuts the server down (within [`Limits::close_timeout`](crate::Limits::close_timeout)) and joins its
/// threads; keep it for as long as the server is to live. It dereferences to its [`ServerHandle`].
///
/// ```
/// use std::time::Duration;
/// use framewire::{Separator, Server, packet_fn};
///
/// # fn main() -> Result<(), framewire::ServeError> {
/// let echo = packet_fn(|session, packet| session.send(packet));
/// let server = Server::bind("127.0.0.1:0")?.framing(Separator::lines()).spawn(echo)?;
/// println!("listening on {:?}", server.local_addrs());
/// server.stop(Duration::from_secs(5))
/// # }
/// ```
#[must_use = "dropping it stops the server"]
pub struct Running {
    handle: ServerHandle,
    threads: Vec<ShardThread>,
}

impl Running {
    pub(super) fn new(handle: ServerHandle) -> Self {
        Self { handle, threads: Vec::new() }
    }

    pub(super) fn add(&mut self, thread: ShardThread) {
        self.threads.push(thread);
    }

    /// A handle, for other threads.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Waits until somebody shuts the server down, and it has. Within a callback, which would wait for itself, it returns
    /// at once (and so do the others here, and dropping).
    ///
    /// # Errors
    /// Why it stopped, if it was not asked to.
    pub fn wait(mut self) -> Result<(), ServeError> {
        self.join()
    }

    /// Shuts down as [`ServerHandle::shutdown`] does, and waits until it is done.
    ///
    /// # Errors
    /// Why it had stopped before, if it was not asked to.
    pub fn stop(mut self, grace: Duration) -> Result<(), ServeError> {
        self.handle.shutdown(grace);
        self.join()
    }

    fn join(&mut self) -> Result<(), ServeError> {
        if self.handle.is_within_callback() {
            tracing::error!("asked from within a callback to wait for the server; not waiting");
            self.threads.clear();
            return Ok(());
        }
        let mut outcome = Ok(());
        for thread in self.threads.drain(..) {
            let ended = thread.join().unwrap_or(Err(ServeError::Defect));
            outcome = outcome.and(ended);
        }
        self.handle.wait_for_threads();
        outcome
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        self.handle.shutdown(self.handle.close_timeout());
        if let Err(error) = self.join() {
            tracing::error!(%error, "the server had failed");
        }
    }
}

impl Deref for Running {
    type Target = ServerHandle;

    fn deref(&self) -> &ServerHandle {
        &self.handle
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("handle", &self.handle).finish_non_exhaustive()
    }
}
