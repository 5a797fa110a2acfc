use std::{fmt, io, sync::Arc, time::Duration};

use crate::{
    addr::Addr,
    error::{CloseReason, DialError, Logged, RefusalCause},
    id::{DialId, SessionId, ShardId},
};

/// Something that has happened to a server, see [`ServerHandle::events`](crate::ServerHandle::events).
///
/// It is displayed as one line of bounded length: what a peer may have chosen is escaped, so that it can be written to a
/// log or a terminal.
///
/// ```
/// use framewire::{Event, Events};
///
/// fn watch(events: &Events) {
///     for event in events.iter() {
///         match &event {
///             Event::Panicked { callback, .. } => eprintln!("page the author of {callback}: {event}"),
///             _ => eprintln!("{event}"),
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A connection was closed before it became an open session.
    #[non_exhaustive]
    Refused {
        /// The peer's address.
        peer: Addr,
        /// Why.
        cause: RefusalCause,
        /// What exactly went wrong, where that is known.
        reason: Option<CloseReason>,
    },
    /// A session has ended; `on_close` is called after this.
    #[non_exhaustive]
    Closed {
        /// Its id.
        session: SessionId,
        /// The peer's address.
        peer: Addr,
        /// Why.
        reason: CloseReason,
    },
    /// User code panicked, and the panic was caught.
    #[non_exhaustive]
    Panicked {
        /// The shard on whose thread it was.
        shard: ShardId,
        /// The session that it concerned, if it was one.
        session: Option<SessionId>,
        /// The name of the callback; `drop` for a destructor.
        callback: &'static str,
        /// The message of the panic.
        message: String,
    },
    /// An acceptor, or one of its listeners, accepts no more for now, and clients wait. Told once, however long the pause
    /// lasts.
    #[non_exhaustive]
    AcceptPaused {
        /// The shard whose thread accepts.
        shard: ShardId,
        /// The error of the system, for example that the process is out of descriptors; `None` if the server has as many
        /// connections, or handshakes, as it may have.
        error: Option<Arc<io::Error>>,
    },
    /// It accepts again.
    #[non_exhaustive]
    AcceptResumed {
        /// The shard whose thread accepts.
        shard: ShardId,
    },
    /// A dial has failed for good; `on_dial_failed` is called after this.
    #[non_exhaustive]
    DialFailed {
        /// The shard that carried it out, or that would have.
        shard: ShardId,
        /// Its id.
        dial: DialId,
        /// Why.
        error: DialError,
    },
    /// A dial is to be made again: an attempt has failed, or its connection has ended.
    #[non_exhaustive]
    Redialling {
        /// The shard that carries it out.
        shard: ShardId,
        /// Its id.
        dial: DialId,
        /// Why.
        error: DialError,
        /// How long it waits before that.
        pause: Duration,
    },
    /// A dial that was made again has opened another session.
    #[non_exhaustive]
    Reconnected {
        /// Its id.
        dial: DialId,
        /// The new session.
        session: SessionId,
        /// The peer's address.
        peer: Addr,
    },
    /// A [`TlsReloader`](crate::TlsReloader) of a [`TlsAcceptor`](crate::TlsAcceptor) that the server uses was called.
    #[cfg(feature = "tls")]
    #[non_exhaustive]
    TlsReloaded {
        /// Why nothing has changed; `None` if new handshakes use what the files hold now.
        error: Option<crate::error::TlsConfigError>,
    },
    /// A callback took longer than 100 ms, which held up all sessions of its shard.
    #[non_exhaustive]
    SlowCallback {
        /// The shard on whose thread it was.
        shard: ShardId,
        /// The session that it was called for, if it was one.
        session: Option<SessionId>,
        /// Its name.
        callback: &'static str,
        /// How long it took.
        took: Duration,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { peer, cause, reason: None } => {
                write!(f, "a connection from {peer} was refused: {}", cause.name())
            }
            Self::Refused { peer, cause, reason: Some(reason) } => {
                write!(f, "a connection from {peer} was refused: {}: {}", cause.name(), Logged(reason))
            }
            Self::Closed { session, peer, reason } => {
                write!(f, "session {session} of {peer} has ended: {}", Logged(reason))
            }
            Self::Panicked { session: Some(session), callback, message, .. } => {
                write!(f, "{callback} panicked for session {session}: {}", Logged(message))
            }
            Self::Panicked { shard, session: None, callback, message } => {
                write!(f, "{callback} panicked on shard {shard}: {}", Logged(message))
            }
            Self::AcceptPaused { shard, error: Some(error) } => {
                write!(f, "shard {shard} cannot accept, clients wait: {}", Logged(error))
            }
            Self::AcceptPaused { shard, error: None } => {
                write!(f, "shard {shard} does not accept, clients wait: the server is full")
            }
            Self::AcceptResumed { shard } => write!(f, "shard {shard} accepts again"),
            Self::DialFailed { dial, error, .. } => write!(f, "dial {dial} has failed: {}", Logged(error)),
            Self::Redialling { dial, error, pause, .. } => {
                write!(f, "dial {dial} is made again after {pause:?}: {}", Logged(error))
            }
            Self::Reconnected { dial, session, peer } => {
                write!(f, "dial {dial} has connected again, to {peer}: session {session}")
            }
            #[cfg(feature = "tls")]
            Self::TlsReloaded { error: None } => write!(f, "certificates were reloaded"),
            #[cfg(feature = "tls")]
            Self::TlsReloaded { error: Some(error) } => {
                write!(f, "certificates cannot be reloaded, the old ones stay: {}", Logged(error))
            }
            Self::SlowCallback { session: Some(session), callback, took, .. } => {
                write!(f, "{callback} took {took:?} for session {session}")
            }
            Self::SlowCallback { shard, session: None, callback, took } => {
                write!(f, "{callback} took {took:?} on shard {shard}")
            }
        }
    }
}
