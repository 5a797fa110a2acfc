//! Errors: why a packet could not be queued, why a session ended, why a server could not start, each an enum of its
//! own.

mod broadcast;
mod dial;
mod dial_kind;
mod failure;
mod layer;
mod link;
mod logged;
mod refusal;
mod serve;
mod stream;
mod ticket;
#[cfg(feature = "tls")]
mod tls;

use std::{
    any::Any,
    error::Error,
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;

pub use self::{
    broadcast::{BroadcastError, JoinError},
    dial::DialError,
    dial_kind::DialErrorKind,
    failure::{Failure, Handled},
    layer::LayerError,
    link::LinkError,
    refusal::RefusalCause,
    serve::ServeError,
    stream::StreamError,
    ticket::{Outcome, TicketError},
};

#[cfg(feature = "tls")]
pub use self::tls::{TlsConfigError, TlsError};

pub(crate) use self::logged::Logged;

use crate::{
    framing::{EncodeError, FrameError},
    id::SessionId,
};

/// Why a packet was not queued, or a command was not accepted. The session is left as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The packet would take what waits for the session above [`Limits::outbox_hard`](crate::Limits::outbox_hard): the
    /// peer does not read as fast as we send. A callback that passes this on with `?` closes the session.
    #[error("outbox full: {queued} bytes wait for a peer that does not read, the limit is {limit}")]
    #[non_exhaustive]
    Full {
        /// Bytes that already wait for the session; for sends from a handle, including those still in the mailbox.
        queued: usize,
        /// The limit that applies, in bytes: [`Limits::outbox_hard`](crate::Limits::outbox_hard), or twice that where a
        /// packet from a handle or from another session was accepted before and finds no room now.
        limit: usize,
    },
    /// The mailbox of the session's shard is at [`Limits::mailbox_commands`](crate::Limits::mailbox_commands) or
    /// [`Limits::mailbox_bytes`](crate::Limits::mailbox_bytes): other threads send faster than the shard works. Also
    /// what one callback asks of other sessions is limited to as much.
    #[error(
        "mailbox of the shard full: {commands} commands of {bytes} bytes wait; send slower or raise limits.mailbox_*"
    )]
    #[non_exhaustive]
    MailboxFull {
        /// Commands that wait.
        commands: usize,
        /// Payload bytes that wait.
        bytes: usize,
    },
    /// The session is closing or closed, or its shard has ended.
    #[error("session closed")]
    Closed,
    /// The [`Upstream`](crate::Upstream) is not connected (yet), and keeps no packets.
    #[error("not connected, and packets are not kept meanwhile; send again when it is")]
    NotConnected,
    /// The framing cannot encode the payload, for example because it is too long. This is an error of the sender.
    #[error("payload cannot be framed: {0}")]
    Encode(#[from] EncodeError),
    /// [`SessionHandle::send_waiting`](crate::SessionHandle::send_waiting) was called on a thread that runs a shard, as
    /// all callbacks do: it might wait for itself.
    #[error("would wait within a callback, perhaps for itself; use send or send_then, or another thread")]
    WouldDeadlock,
}

/// Why a session ended. Each variant says who caused it. Clones share the details.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer ended its stream at a frame boundary: the normal end.
    #[error("the peer closed")]
    PeerClosed,
    /// The connection failed: the peer or the network reset it, or a system call failed.
    #[error("connection failed: {0}")]
    Io(#[source] Arc<io::Error>),
    /// The peer violated the protocol of the framing.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The handler or a handle closed or aborted the session and gave no reason.
    #[error("closed by this side")]
    Local,
    /// A send failed and the handler passed the error on with `?`. Also when a packet from a handle, or from another
    /// session, would take the outbox above twice [`Limits::outbox_hard`](crate::Limits::outbox_hard).
    #[error("send failed: {0}")]
    Send(#[from] SendError),
    /// The handler (with a [`Failure`] or `close_with`) or a handle closed the session for a reason of its own.
    #[error("handler: {0}")]
    Handler(#[source] Arc<dyn Error + Send + Sync>),
    /// A callback panicked.
    #[error("panic in {callback}: {message}")]
    #[non_exhaustive]
    Panicked {
        /// The name of the callback. A panic in the framing's `decode` is reported as one in `on_packet`.
        callback: &'static str,
        /// The message of the panic.
        message: String,
    },
    /// Nothing was received for [`Limits::idle_timeout`](crate::Limits::idle_timeout), or for the
    /// [timeout of the session](crate::Session::set_idle_timeout).
    #[error("nothing received for {0:?}")]
    Idle(Duration),
    /// The peer answered none of so many beats, see [`Heartbeat::lost_after`](crate::Heartbeat::lost_after).
    #[error("no answer to {beats} heartbeats, nothing received for {silence:?}")]
    #[non_exhaustive]
    HeartbeatLost {
        /// Beats in a row that were sent and had no answer.
        beats: u16,
        /// How long ago the last byte came from the peer or, if that is later, reading began or was resumed.
        silence: Duration,
    },
    /// The session was open for as long as it may be: [`Limits::max_age`](crate::Limits::max_age), less its part of the
    /// [spread](crate::Limits::max_age_spread), or the [maximum age of its own](crate::Session::set_max_age).
    #[error("open for {0:?}, the maximum age")]
    MaxAge(Duration),
    /// The peer did not read: the kernel took no byte of a non-empty outbox for
    /// [`Limits::stall_timeout`](crate::Limits::stall_timeout).
    #[error("the peer took none of {queued} queued bytes for {after:?}")]
    #[non_exhaustive]
    Stalled {
        /// Bytes that were still queued.
        queued: usize,
        /// The timeout.
        after: Duration,
    },
    /// No packet was received within [`Limits::first_packet_timeout`](crate::Limits::first_packet_timeout).
    #[error("no packet within {0:?} of connecting")]
    FirstPacket(Duration),
    /// The peer began a packet and did not complete it within
    /// [`Limits::packet_timeout`](crate::Limits::packet_timeout).
    #[error("a packet was not completed within {0:?} of its first byte")]
    SlowPacket(Duration),
    /// A layer was not open within [`Limits::handshake_timeout`](crate::Limits::handshake_timeout).
    #[error("the handshake was not over within {0:?}")]
    Handshake(Duration),
    /// A [layer](crate::Layer) failed, for example because the peer violated its protocol or ended the stream too
    /// early.
    #[error("layer: {0}")]
    Layer(#[from] LayerError),
    /// The shard was over [`Limits::shard_memory`](crate::Limits::shard_memory), and this session was among those that
    /// held the most.
    #[error("the shard buffers more than {limit} bytes and this session held {held}")]
    #[non_exhaustive]
    Memory {
        /// Bytes this session held.
        held: usize,
        /// The limit of the shard, in bytes.
        limit: usize,
    },
    /// The session that it was [linked](crate::Session::link) to closed, or could not be linked.
    #[error("linked to session {partner}, which {}", match why {
        Some(kind) => format!("closed ({kind:?})"),
        None => "was not open, or is linked to another".to_owned(),
    })]
    #[non_exhaustive]
    LinkLost {
        /// The other session.
        partner: SessionId,
        /// Why it closed; `None` if there never was a link.
        why: Option<CloseKind>,
    },
    /// Another UDP peer took its place: this one was silent for longest, see
    /// [`Beyond::ForgetIdlest`](crate::Beyond::ForgetIdlest).
    #[error("there is no room for more peers, and this one was silent for longest")]
    Forgotten,
    /// The session that [carried](crate::Streams) this stream closed, for a reason of this kind.
    #[error("its carrier, session {carrier}, closed ({why:?})")]
    #[non_exhaustive]
    CarrierLost {
        /// The session.
        carrier: SessionId,
        /// Why it closed.
        why: CloseKind,
    },
    /// The session, a stream that is [carried](crate::Streams), took no packets while more came for it than
    /// [may wait](crate::Server::inbox).
    #[error("{waiting} bytes wait because it takes no packets, and {more} more have come; {limit} may wait")]
    #[non_exhaustive]
    InboxFull {
        /// Bytes that wait.
        waiting: usize,
        /// Bytes that came in addition.
        more: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The session is a carrier of [streams](crate::Streams), and its peer opened one more while the ends of 65,536 others
    /// waited to be told to it: it opens streams and does not read.
    #[error("the peer opens streams and does not read: it was not told yet that {ends} of them have ended")]
    #[non_exhaustive]
    StreamBacklog {
        /// Streams whose ends wait.
        ends: usize,
    },
    /// The server was shut down.
    #[error("server shutdown")]
    Shutdown,
}

/// A reason given by the user: a text or any error. Shared, because one reason may close many sessions.
pub(crate) type Why = Arc<dyn Error + Send + Sync>;

impl CloseReason {
    /// The reason to close a session whose callback returned `failure`.
    pub(crate) fn failed(failure: Failure) -> Self {
        let error = failure.into_inner();
        match error.downcast_ref::<SendError>() {
            Some(error) => Self::Send(error.clone()),
            None => Self::Handler(error),
        }
    }

    pub(crate) fn io(error: impl Into<io::Error>) -> Self {
        Self::Io(Arc::new(error.into()))
    }

    /// The reason to close a session as this side asked, which may have said `why`.
    pub(crate) fn asked(why: Option<Why>) -> Self {
        why.map_or(Self::Local, Self::Handler)
    }

    /// Returns the reason without its details.
    #[must_use]
    pub fn kind(&self) -> CloseKind {
        match self {
            Self::PeerClosed => CloseKind::PeerClosed,
            Self::Io(_) => CloseKind::Io,
            Self::Frame(_) => CloseKind::Frame,
            Self::Local => CloseKind::Local,
            Self::Send(_) => CloseKind::Send,
            Self::Handler(_) => CloseKind::Handler,
            Self::Panicked { .. } => CloseKind::Panicked,
            Self::Idle(_) => CloseKind::Idle,
            Self::HeartbeatLost { .. } => CloseKind::HeartbeatLost,
            Self::MaxAge(_) => CloseKind::MaxAge,
            Self::Stalled { .. } => CloseKind::Stalled,
            Self::FirstPacket(_) => CloseKind::FirstPacket,
            Self::SlowPacket(_) => CloseKind::SlowPacket,
            Self::Handshake(_) => CloseKind::Handshake,
            Self::Layer(_) => CloseKind::Layer,
            Self::Memory { .. } => CloseKind::Memory,
            Self::LinkLost { .. } => CloseKind::LinkLost,
            Self::Forgotten => CloseKind::Forgotten,
            Self::CarrierLost { .. } => CloseKind::CarrierLost,
            Self::InboxFull { .. } => CloseKind::InboxFull,
            Self::StreamBacklog { .. } => CloseKind::StreamBacklog,
            Self::Shutdown => CloseKind::Shutdown,
        }
    }

    /// Returns `true` if it says no more than that the peer's stream has ended, whether it should or not.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self, Self::PeerClosed | Self::Layer(LayerError::Truncated { .. }))
    }

    pub(crate) fn panicked(callback: &'static str, panic: Box<dyn Any + Send>) -> Self {
        Self::Panicked { callback, message: panic_message(panic) }
    }
}

/// Returns the message of a caught panic. The payload is dropped here; if that panics again, the second payload is
/// leaked.
pub(crate) fn panic_message(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        mem::forget(again);
    }
    message.unwrap_or_else(|| "(no message)".to_owned())
}

/// Drops a value of the user's. Returns the message as an error if that panics.
pub(crate) fn discard(remains: impl Sized) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| drop(remains))).map_err(panic_message)
}

/// [`CloseReason`] without its details. Metrics count closed sessions by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseKind {
    /// See [`CloseReason::PeerClosed`].
    PeerClosed,
    /// See [`CloseReason::Io`].
    Io,
    /// See [`CloseReason::Frame`].
    Frame,
    /// See [`CloseReason::Local`].
    Local,
    /// See [`CloseReason::Send`].
    Send,
    /// See [`CloseReason::Handler`].
    Handler,
    /// See [`CloseReason::Panicked`].
    Panicked,
    /// See [`CloseReason::Idle`].
    Idle,
    /// See [`CloseReason::HeartbeatLost`].
    HeartbeatLost,
    /// See [`CloseReason::MaxAge`].
    MaxAge,
    /// See [`CloseReason::Stalled`].
    Stalled,
    /// See [`CloseReason::FirstPacket`].
    FirstPacket,
    /// See [`CloseReason::SlowPacket`].
    SlowPacket,
    /// See [`CloseReason::Handshake`].
    Handshake,
    /// See [`CloseReason::Layer`].
    Layer,
    /// See [`CloseReason::Memory`].
    Memory,
    /// See [`CloseReason::LinkLost`].
    LinkLost,
    /// See [`CloseReason::Forgotten`].
    Forgotten,
    /// See [`CloseReason::CarrierLost`].
    CarrierLost,
    /// See [`CloseReason::InboxFull`].
    InboxFull,
    /// See [`CloseReason::StreamBacklog`].
    StreamBacklog,
    /// See [`CloseReason::Shutdown`].
    Shutdown,
}

impl CloseKind {
    /// Every kind, in the order of [`CloseReason`].
    pub const ALL: [Self; 22] = [
        Self::PeerClosed,
        Self::Io,
        Self::Frame,
        Self::Local,
        Self::Send,
        Self::Handler,
        Self::Panicked,
        Self::Idle,
        Self::HeartbeatLost,
        Self::MaxAge,
        Self::Stalled,
        Self::FirstPacket,
        Self::SlowPacket,
        Self::Handshake,
        Self::Layer,
        Self::Memory,
        Self::LinkLost,
        Self::Forgotten,
        Self::CarrierLost,
        Self::InboxFull,
        Self::StreamBacklog,
        Self::Shutdown,
    ];

    /// Returns the name in snake case, for logs and exporters: `peer_closed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::Io => "io",
            Self::Frame => "frame",
            Self::Local => "local",
            Self::Send => "send",
            Self::Handler => "handler",
            Self::Panicked => "panicked",
            Self::Idle => "idle",
            Self::HeartbeatLost => "heartbeat_lost",
            Self::MaxAge => "max_age",
            Self::Stalled => "stalled",
            Self::FirstPacket => "first_packet",
            Self::SlowPacket => "slow_packet",
            Self::Handshake => "handshake",
            Self::Layer => "layer",
            Self::Memory => "memory",
            Self::LinkLost => "link_lost",
            Self::Forgotten => "forgotten",
            Self::CarrierLost => "carrier_lost",
            Self::InboxFull => "inbox_full",
            Self::StreamBacklog => "stream_backlog",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Why a request to a server, or to one of its shards, failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The shard or the server has stopped, or has not started yet.
    #[error("there is no such shard: the server has stopped, or not started yet")]
    NotRunning,
    /// The mailbox of a shard is full. Try again later, or raise
    /// [`Limits::mailbox_commands`](crate::Limits::mailbox_commands).
    #[error("the mailbox of a shard is full; ask again later, or raise limits.mailbox_commands")]
    Busy,
    /// A shard did not reply within this time, probably because its handler blocks.
    #[error("a shard did not answer within {0:?}; does a handler block?")]
    TimedOut(Duration),
    /// The handler of the server is not of the type that the closure takes.
    #[error("the closure is for a handler of type {asked}, and the server has one of type {serves}")]
    #[non_exhaustive]
    OtherHandler {
        /// The type that the closure takes.
        asked: &'static str,
        /// The type of the server's handler.
        serves: &'static str,
    },
    /// The request was made from a shard's own thread, which would wait for itself.
    #[error("asked from within a callback, which would wait for itself; ask from another thread")]
    WouldDeadlock,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_listed_in_the_order_of_their_numbers() {
        for (number, kind) in CloseKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

    #[test]
    fn a_panic_keeps_its_message() {
        let reason = CloseReason::panicked("on_packet", Box::new("boom"));
        assert_eq!(reason.to_string(), "panic in on_packet: boom");
        let reason = CloseReason::panicked("on_packet", Box::new(String::from("bang")));
        assert_eq!(reason.to_string(), "panic in on_packet: bang");
    }
}
