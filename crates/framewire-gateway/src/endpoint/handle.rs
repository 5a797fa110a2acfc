use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use framewire::{RunningServer, ServeError, ServerHandle, SessionId};

use super::{
    VirtualDialError,
    link::LinkHandler,
    pending::{Done, PendingDial},
};

/// Identifies a dial of an endpoint, and the virtual connection that comes of it ([`Virtual::dial`](super::Virtual::dial)). No
/// two dials of an endpoint have the same, for the first 2^48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialNumber(pub(super) u64);

/// What the links of an endpoint share.
pub(super) struct Shared {
    /// The session of each gateway's link, while it is up.
    links: Mutex<Vec<Option<SessionId>>>,
    changed: Condvar,
    dials: AtomicU64,
}

impl Shared {
    pub(super) fn new(gateways: usize) -> Self {
        let links = Mutex::new(vec![None; gateways]);
        Self { links, changed: Condvar::new(), dials: AtomicU64::new(1) }
    }

    fn links(&self) -> MutexGuard<'_, Vec<Option<SessionId>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn up(&self, gateway: usize, link: SessionId) {
        if let Some(place) = self.links().get_mut(gateway) {
            *place = Some(link);
        }
        self.changed.notify_all();
    }

    /// The link has ended; another may be there by now.
    pub(super) fn down(&self, gateway: usize, link: SessionId) {
        if let Some(place) = self.links().get_mut(gateway) {
            place.take_if(|known| *known == link);
        }
    }
}

/// Dials from any thread, and watches an endpoint.
#[derive(Clone)]
pub struct EndpointHandle {
    links: ServerHandle,
    sessions: ServerHandle,
    shared: Arc<Shared>,
}

impl EndpointHandle {
    pub(super) fn new(links: ServerHandle, sessions: ServerHandle, shared: Arc<Shared>) -> Self {
        Self { links, sessions, shared }
    }

    /// Opens a virtual connection over the first link that is up: to the server with this ID if this is a client, to the
    /// client with this number if it is a server.
    ///
    /// `done` is called once, on a thread of the endpoint or, if nothing can be tried, on this one: with `Ok` immediately before `on_open` of the session.
    /// [`Virtual::dial`](super::Virtual::dial) of that session is the number that this returns.
    pub fn dial(
        &self,
        remote: u32,
        within: Duration,
        done: impl FnOnce(Result<(), VirtualDialError>) + Send + 'static,
    ) -> DialNumber {
        let link = self.shared.links().iter().flatten().next().copied();
        self.dial_over(link, remote, within, Box::new(done))
    }

    /// As [`dial`](Self::dial), over the link to this gateway, counted from 0.
    pub fn dial_by(
        &self,
        gateway: usize,
        remote: u32,
        within: Duration,
        done: impl FnOnce(Result<(), VirtualDialError>) + Send + 'static,
    ) -> DialNumber {
        let link = self.shared.links().get(gateway).copied().flatten();
        self.dial_over(link, remote, within, Box::new(done))
    }

    fn dial_over(&self, link: Option<SessionId>, remote: u32, within: Duration, done: Done) -> DialNumber {
        let number = DialNumber(self.shared.dials.fetch_add(1, Ordering::Relaxed));
        let Some(link) = link else {
            done(Err(VirtualDialError::NotConnected));
            return number;
        };
        let dial = PendingDial::new(number, remote, within, done);
        // If it is dropped on the way, it says so.
        let posted = self.links.execute_with(link.shard(), move |handler: &mut LinkHandler, shard| {
            let mut dial = Some(dial);
            shard.with(link, |session, link| {
                if let Some(dial) = dial.take() {
                    handler.dial(session, link, dial);
                }
            });
            if let Some(dial) = dial {
                dial.end(Err(VirtualDialError::LinkLost));
            }
        });
        if let Err(error) = posted {
            tracing::debug!(%error, remote, "a virtual connection cannot be dialed");
        }
        number
    }

    /// Returns for each gateway, in the order in which they were given, whether its link is up.
    #[must_use]
    pub fn connected(&self) -> Vec<bool> {
        self.shared.links().iter().map(Option::is_some).collect()
    }

    /// Waits until the links to all gateways are up. Returns `true` if they are, `false` if that takes longer than `within`.
    /// A gateway does not say whether it takes the key of a server: after a wrong one, its link ends again.
    pub fn wait_connected(&self, within: Duration) -> bool {
        let began = Instant::now();
        let mut links = self.shared.links();
        while links.iter().any(Option::is_none) {
            let left = within.saturating_sub(began.elapsed());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(links, left);
            links = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Returns the handle to the virtual connections: how many there are, their metrics, broadcasts to them.
    #[must_use]
    pub fn sessions(&self) -> ServerHandle {
        self.sessions.clone()
    }

    /// Returns the handle to the links. To shut down, use [`RunningEndpoint::stop`].
    #[must_use]
    pub fn links(&self) -> ServerHandle {
        self.links.clone()
    }
}

impl fmt::Debug for EndpointHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointHandle").field("connected", &self.connected()).finish_non_exhaustive()
    }
}

/// An endpoint that runs. Dropping it stops it.
#[must_use = "dropping a running endpoint stops it"]
pub struct RunningEndpoint {
    running: RunningServer,
    handle: EndpointHandle,
}

impl RunningEndpoint {
    pub(super) fn new(running: RunningServer, handle: EndpointHandle) -> Self {
        Self { running, handle }
    }

    /// Returns a handle, for any thread.
    #[must_use]
    pub fn handle(&self) -> EndpointHandle {
        self.handle.clone()
    }

    /// As [`EndpointHandle::wait_connected`].
    pub fn wait_connected(&self, within: Duration) -> bool {
        self.handle.wait_connected(within)
    }

    /// Closes the virtual connections, then the links, within `grace`, and ends the threads.
    ///
    /// # Errors
    /// As for [`RunningServer::stop`].
    pub fn stop(self, grace: Duration) -> Result<(), ServeError> {
        self.running.stop(grace)
    }

    /// Waits until the endpoint has ended.
    ///
    /// # Errors
    /// As for [`RunningServer::wait`].
    pub fn wait(self) -> Result<(), ServeError> {
        self.running.wait()
    }
}

impl fmt::Debug for RunningEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningEndpoint").field("handle", &self.handle).finish_non_exhaustive()
    }
}
