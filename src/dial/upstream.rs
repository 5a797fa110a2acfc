use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    encode::Encode,
    error::SendError,
    id::{DialId, SessionId},
    session::{Deliver, SessionHandle},
};

/// A connection that [`ServerHandle::connect`](crate::ServerHandle::connect) makes, as other threads have it. Clones are
/// cheap, and none keeps it open: it lives until [`close`](Self::close), until its connection ends, or with its server.
///
/// What is received goes to the handler of the server, whose callbacks know it by
/// [`Origin::Dialled`](crate::Origin::Dialled) with the same [`id`](Self::id).
///
/// ```
/// use std::time::Duration;
/// use framewire::{Dial, Separator, Server, UpstreamState, packet_fn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Server::unbound().framing(Separator::lines()).spawn(packet_fn(|_, _| Ok(())))?;
/// let upstream = client.connect(Dial::to("127.0.0.1:1"))?; // where nothing listens
/// while upstream.state() == UpstreamState::Connecting {
///     std::thread::yield_now();
/// }
/// assert_eq!(upstream.state(), UpstreamState::Closed);
/// assert!(upstream.send("hello").is_err());
/// client.stop(Duration::from_secs(5))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

/// How an [`Upstream`] stands at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpstreamState {
    /// It is being connected.
    Connecting,
    /// It is connected: this is its session.
    Up(SessionId),
    /// It has ended for good.
    Closed,
}

struct Shared {
    id: DialId,
    line: Mutex<Line>,
}

struct Line {
    state: LineState,
    /// The way to the shard that has it, once one has.
    shard: Option<Arc<dyn Deliver>>,
}

enum LineState {
    Connecting,
    Up(SessionHandle),
    Closed,
}

impl Upstream {
    /// Also returns what the shard that carries it out has of it.
    pub(crate) fn new(id: DialId) -> (Self, UpstreamSide) {
        let line = Mutex::new(Line { state: LineState::Connecting, shard: None });
        let shared = Arc::new(Shared { id, line });
        (Self { shared: shared.clone() }, UpstreamSide { shared })
    }

    /// Returns the id by which callbacks know it.
    #[must_use]
    pub fn id(&self) -> DialId {
        self.shared.id
    }

    /// Returns how it stands now.
    #[must_use]
    pub fn state(&self) -> UpstreamState {
        match &self.shared.line().state {
            LineState::Connecting => UpstreamState::Connecting,
            LineState::Up(session) => UpstreamState::Up(session.id()),
            LineState::Closed => UpstreamState::Closed,
        }
    }

    /// Sends a packet, as [`SessionHandle::send`] does. Never blocks.
    ///
    /// # Errors
    /// [`SendError::NotConnected`] while it is being connected, [`SendError::Closed`] when it has ended; and as
    /// [`SessionHandle::send`].
    pub fn send(&self, packet: impl Encode) -> Result<(), SendError> {
        let session = match &self.shared.line().state {
            LineState::Connecting => return Err(SendError::NotConnected),
            LineState::Closed => return Err(SendError::Closed),
            LineState::Up(session) => session.clone(),
        };
        session.send(packet)
    }

    /// Ends it: closes its session gracefully, or gives the attempt to connect up. Neither
    /// [`on_dial_failed`](crate::PacketHandler::on_dial_failed) nor another attempt follows.
    pub fn close(&self) {
        let mut line = self.shared.line();
        let before = std::mem::replace(&mut line.state, LineState::Closed);
        let shard = line.shard.take();
        drop(line);
        if let LineState::Up(session) = before {
            // If it is closing already, there is nothing to do.
            let _ = session.close();
        }
        if let Some(shard) = shard {
            shard.hang_up(self.shared.id);
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("id", &self.id()).field("state", &self.state()).finish()
    }
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upstream, as the shard has it. When this is dropped, the upstream is closed.
pub(crate) struct UpstreamSide {
    shared: Arc<Shared>,
}

impl UpstreamSide {
    /// A shard takes it over. Returns `false` if it was closed before.
    pub(crate) fn begin(&self, shard: &Arc<dyn Deliver>) -> bool {
        let mut line = self.shared.line();
        let is_wanted = !matches!(line.state, LineState::Closed);
        line.shard = is_wanted.then(|| shard.clone());
        is_wanted
    }

    /// It is connected. Returns `false` if it was closed before.
    pub(crate) fn go_up(&self, session: SessionHandle) -> bool {
        let mut line = self.shared.line();
        let is_wanted = !matches!(line.state, LineState::Closed);
        if is_wanted {
            line.state = LineState::Up(session);
        }
        is_wanted
    }
}

impl Drop for UpstreamSide {
    fn drop(&mut self) {
        let mut line = self.shared.line();
        line.shard = None;
        let _session = std::mem::replace(&mut line.state, LineState::Closed);
        drop(line);
    }
}
