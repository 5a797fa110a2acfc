use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use crate::{
    addr::PeerAddr,
    error::QueryError,
    id::{SessionId, ShardId},
    metrics::Metrics,
    reactor::Crew,
    session::SessionCommand,
    shard::{Command, SessionInfo, ShardContext},
};

/// How long a query waits for the shards to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running server, from any thread, callbacks included. Clones are cheap; it does not keep the server running.
#[derive(Clone)]
pub struct ServerHandle {
    crew: Arc<Crew>,
    addrs: Arc<[PeerAddr]>,
}

impl ServerHandle {
    pub(super) fn new(crew: Arc<Crew>, addrs: Arc<[PeerAddr]>) -> Self {
        Self { crew, addrs }
    }

    /// Stops accepting, calls `on_shutdown` for every session, closes them all gracefully, and after `grace` cuts those
    /// that are left. Returns at once: [`Running::wait`](crate::Running::wait) waits. Asked again, the earliest end counts.
    pub fn shutdown(&self, grace: Duration) {
        self.crew.begin_stopping();
        self.crew.tell_all(|| Command::Shutdown(grace));
    }

    /// Resets every connection and stops.
    pub fn abort(&self) {
        self.crew.begin_stopping();
        self.crew.tell_all(|| Command::Abort);
    }

    /// The addresses the server listens on.
    #[must_use]
    pub fn local_addrs(&self) -> &[PeerAddr] {
        &self.addrs
    }

    /// The first TCP address the server listens on, for the common case of one.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addrs.iter().find_map(PeerAddr::socket_addr)
    }

    /// How many sessions there are.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.crew.census.total()
    }

    /// All open sessions. Each shard is asked in turn, so the list is of no single moment.
    ///
    /// # Errors
    /// [`QueryError`]; within a callback always [`QueryError::WouldDeadlock`].
    pub fn sessions(&self) -> Result<Vec<SessionInfo>, QueryError> {
        if self.crew.is_aboard() {
            return Err(QueryError::WouldDeadlock);
        }
        let (sender, answers) = mpsc::channel();
        for shard in self.crew.shards() {
            let sender = sender.clone();
            let ask = move |shard: &mut ShardContext<'_>| {
                let _ = sender.send(shard.sessions());
            };
            self.crew.tell(shard, Command::Execute(Box::new(ask)));
        }
        drop(sender);
        // A shard that ends before it answers drops its sender, so this ends when all have done one or the other.
        let deadline = Instant::now() + PATIENCE;
        let mut sessions = Vec::new();
        loop {
            match answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(mut some) => sessions.append(&mut some),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(sessions),
                Err(mpsc::RecvTimeoutError::Timeout) => return Err(QueryError::TimedOut(PATIENCE)),
            }
        }
    }

    /// Closes a session gracefully. Nothing happens when it is gone. Does not wait.
    pub fn close(&self, session: SessionId) {
        self.crew.tell(session.shard, Command::Session(session.key, SessionCommand::Close));
    }

    /// Closes the sessions of this peer (address and port) gracefully. Does not wait.
    pub fn close_peer(&self, peer: SocketAddr) {
        self.crew.tell_all(|| Command::ClosePeer(peer));
    }

    /// Runs a closure on a shard's thread, between two turns. Does not wait for it. A panic in it is caught and counted.
    ///
    /// # Errors
    /// [`QueryError::Stopped`] when there is no such shard (any more).
    pub fn execute(
        &self,
        shard: ShardId,
        job: impl FnOnce(&mut ShardContext<'_>) + Send + 'static,
    ) -> Result<(), QueryError> {
        let told = self.crew.tell(shard, Command::Execute(Box::new(job)));
        if told { Ok(()) } else { Err(QueryError::Stopped) }
    }

    /// The shards that run now: the acceptor's own, the workers, and one for each forked connection.
    #[must_use]
    pub fn shards(&self) -> Vec<ShardId> {
        let mut shards = self.crew.shards();
        shards.sort_unstable();
        shards
    }

    /// What the server has counted. Cheap: no shard is asked.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.crew.metrics()
    }

    pub(super) fn close_timeout(&self) -> Duration {
        self.crew.limits.close_timeout
    }

    pub(super) fn is_within_callback(&self) -> bool {
        self.crew.is_aboard()
    }

    pub(super) fn wait_for_threads(&self) {
        self.crew.wait();
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle")
            .field("addrs", &self.addrs)
            .field("sessions", &self.session_count())
            .finish_non_exhaustive()
    }
}
