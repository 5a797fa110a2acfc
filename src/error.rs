//! Why a packet could not be queued, why a session ended, why a server could not start: one enum per question.

use std::{
    any::Any,
    error::Error,
    fmt::{self, Write as _},
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;

use crate::{
    framing::{FrameError, FramingConfigError},
    id::ShardId,
};

/// We can not queue this packet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The session's outbox is at [`Limits::outbox_hard`](crate::Limits::outbox_hard): the peer does not read as fast as
    /// we send. `?` in a callback closes this slow consumer.
    #[error("outbox full: {queued} bytes wait for a peer that does not read, the limit is {limit}")]
    Full {
        /// Bytes already queued for the session.
        queued: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The mailbox of the session's shard is full: other threads send faster than the shard works.
    #[error(
        "mailbox of the shard full: {commands} commands of {bytes} bytes wait; send slower or raise limits.mailbox_*"
    )]
    MailboxFull {
        /// Commands waiting.
        commands: usize,
        /// Payload bytes waiting.
        bytes: usize,
    },
    /// The session is closing or closed.
    #[error("session closed")]
    Closed,
    /// The payload has no frame; the fault is the sender's.
    #[error("payload can not be framed: {0}")]
    Frame(#[from] FrameError),
}

/// Why a session ended. Each variant says whose doing it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer ended its stream at a frame boundary. The normal end.
    #[error("the peer closed")]
    PeerClosed,
    /// The peer, or the network, reset the connection.
    #[error("connection reset: {0}")]
    Reset(#[source] io::Error),
    /// The peer broke the wire.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The handler, or a handle, closed or aborted the session, and gave no reason.
    #[error("closed by this side")]
    Local,
    /// A send failed and the handler passed the error on.
    #[error("send failed: {0}")]
    Send(#[from] SendError),
    /// The handler, or a handle, ended the session for a reason of its own.
    #[error("handler: {0}")]
    Handler(#[source] Why),
    /// A callback panicked; the message is the panic's.
    #[error("panic in {callback}: {message}")]
    Panicked {
        /// The callback, by name. A panic in the framing's `decode` is counted as one in `on_packet`, for which it runs.
        callback: &'static str,
        /// What it said.
        message: String,
    },
    /// Nothing was received for [`Limits::idle_timeout`](crate::Limits::idle_timeout).
    #[error("nothing received for {0:?}")]
    Idle(Duration),
    /// The peer did not read: no byte left the outbox for [`Limits::stall_timeout`](crate::Limits::stall_timeout).
    #[error("the peer took none of {queued} queued bytes for {after:?}")]
    Stalled {
        /// Bytes that were still queued.
        queued: usize,
        /// The timeout.
        after: Duration,
    },
    /// No packet within [`Limits::first_packet_timeout`](crate::Limits::first_packet_timeout).
    #[error("no packet within {0:?} of connecting")]
    FirstPacket(Duration),
    /// A packet was begun and not completed within [`Limits::packet_timeout`](crate::Limits::packet_timeout).
    #[error("a packet was not completed within {0:?} of its first byte")]
    SlowPacket(Duration),
    /// The shard was over [`Limits::shard_memory`](crate::Limits::shard_memory), and this session held most.
    #[error("the shard buffers more than {limit} bytes and this session held {held}")]
    Memory {
        /// Bytes this session held.
        held: usize,
        /// The limit of the shard.
        limit: usize,
    },
    /// The server shut down.
    #[error("server shutdown")]
    Shutdown,
}

/// A reason of the user's own: a text or any error. One may be given for many sessions.
pub(crate) type Why = Arc<dyn Error + Send + Sync>;

impl CloseReason {
    /// A reason of the handler's own.
    ///
    /// ```
    /// use framewire::CloseReason;
    /// assert_eq!(CloseReason::handler("bad password").to_string(), "handler: bad password");
    /// ```
    pub fn handler(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Handler(error.into().into())
    }

    /// This side asked for the end, and may have said why.
    pub(crate) fn asked(why: Option<Why>) -> Self {
        why.map_or(Self::Local, Self::Handler)
    }

    /// The reason without its details.
    #[must_use]
    pub fn kind(&self) -> CloseKind {
        match self {
            Self::PeerClosed => CloseKind::PeerClosed,
            Self::Reset(_) => CloseKind::Reset,
            Self::Frame(_) => CloseKind::Frame,
            Self::Local => CloseKind::Local,
            Self::Send(_) => CloseKind::Send,
            Self::Handler(_) => CloseKind::Handler,
            Self::Panicked { .. } => CloseKind::Panicked,
            Self::Idle(_) => CloseKind::Idle,
            Self::Stalled { .. } => CloseKind::Stalled,
            Self::FirstPacket(_) => CloseKind::FirstPacket,
            Self::SlowPacket(_) => CloseKind::SlowPacket,
            Self::Memory { .. } => CloseKind::Memory,
            Self::Shutdown => CloseKind::Shutdown,
        }
    }

    pub(crate) fn panicked(callback: &'static str, panic: Box<dyn Any + Send>) -> Self {
        Self::Panicked { callback, message: panic_message(panic) }
    }
}

/// The most bytes of one reason in the log.
const LOGGED: usize = 512;

/// A reason as the log shows it: on one line, with what is not printable escaped, cut after 512 bytes. The texts of this
/// crate are short and quote peers in hex only, but a handler's own reason may hold whatever a peer has sent, and its
/// `Display` is the user's code, which may panic.
pub(crate) struct Logged<'a, T>(pub(crate) &'a T);

impl<T: fmt::Display> fmt::Display for Logged<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Line { text: String::new(), is_full: false };
        let said = catch_unwind(AssertUnwindSafe(|| write!(line, "{}", self.0)));
        f.write_str(&line.text)?;
        match said {
            Err(panic) => write!(f, " (then its Display panicked: {})", Logged(&panic_message(panic))),
            Ok(_) if line.is_full => f.write_str("…"),
            Ok(_) => Ok(()),
        }
    }
}

struct Line {
    text: String,
    is_full: bool,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let before = self.text.len();
            match character {
                '"' | '\'' => self.text.push(character),
                _ => self.text.extend(character.escape_debug()),
            }
            if self.is_full || self.text.len() > LOGGED {
                self.text.truncate(before);
                self.is_full = true;
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

/// What a caught panic said. What it carried is dropped here, which may panic again: that one is forgotten.
pub(crate) fn panic_message(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        mem::forget(again);
    }
    message.unwrap_or_else(|| "(no message)".to_owned())
}

/// Drops what is the user's, which may panic; the answer is what that panic said.
pub(crate) fn discard(remains: impl Sized) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| drop(remains))).map_err(panic_message)
}

impl From<io::Error> for CloseReason {
    fn from(error: io::Error) -> Self {
        Self::Handler(Arc::new(error))
    }
}

/// [`CloseReason`] without its details: what metrics count by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseKind {
    /// See [`CloseReason::PeerClosed`].
    PeerClosed,
    /// See [`CloseReason::Reset`].
    Reset,
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
    /// See [`CloseReason::Stalled`].
    Stalled,
    /// See [`CloseReason::FirstPacket`].
    FirstPacket,
    /// See [`CloseReason::SlowPacket`].
    SlowPacket,
    /// See [`CloseReason::Memory`].
    Memory,
    /// See [`CloseReason::Shutdown`].
    Shutdown,
}

impl CloseKind {
    /// Every kind, in the order of [`CloseReason`].
    pub const ALL: [Self; 13] = [
        Self::PeerClosed,
        Self::Reset,
        Self::Frame,
        Self::Local,
        Self::Send,
        Self::Handler,
        Self::Panicked,
        Self::Idle,
        Self::Stalled,
        Self::FirstPacket,
        Self::SlowPacket,
        Self::Memory,
        Self::Shutdown,
    ];
}

/// The server could not start, or its reactor failed.
///
/// A `main` that returns it shows its text: its `Debug` is that text too, but for `{:#?}`, which shows the source beside it.
/// What the set-up of a framing finds wrong becomes one by `?`.
///
/// ```no_run
/// use framewire::{FixedLength, ServeError, Server, packet_fn};
///
/// fn main() -> Result<(), ServeError> {
///     Server::bind(("0.0.0.0", 7000))?
///         .framing(FixedLength::new(5)?)
///         .serve(packet_fn(|session, packet| session.send(packet)))
/// }
/// ```
#[derive(Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The text names no address.
    #[error("{text:?} is no address to bind: {why}; give host:port, [v6]:port or unix:/path")]
    #[non_exhaustive]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The address can not be bound.
    #[error("can not bind {addr}: {source}")]
    #[non_exhaustive]
    Bind {
        /// The address.
        addr: String,
        /// What the system said.
        source: io::Error,
    },
    /// A setting can not work.
    #[error("{option}: {why}")]
    #[non_exhaustive]
    Config {
        /// The option at fault, as it is called in the builder.
        option: &'static str,
        /// What is wrong and what to do.
        why: String,
    },
    /// The system refused what a reactor needs.
    #[error("can not {action}: {source}")]
    #[non_exhaustive]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The factory of handlers panicked.
    #[error("the factory of handlers panicked: {message}")]
    #[non_exhaustive]
    Factory {
        /// What it said.
        message: String,
    },
    /// It was time for the server to have stopped, and some of its shards still run: a callback of theirs blocks.
    ///
    /// Their threads are left behind. Each ends by itself once its callback returns, with its sessions reset
    /// ([`ServerHandle::shards`](crate::ServerHandle::shards) tells when); until then the handler's memory and, for the
    /// acceptor's shard, the address stay taken. Shorten what blocks or give it a thread of its own, wait without a
    /// deadline ([`Running::wait`](crate::Running::wait)), or end the process, which ends the threads.
    #[error(
        "the server was to stop within {grace:?}, and {} still: does a handler block? Its thread ends when it returns",
        still_running(.shards)
    )]
    #[non_exhaustive]
    StillRunning {
        /// The shards, in the order of their numbers.
        shards: Vec<ShardId>,
        /// How long they were given.
        grace: Duration,
    },
    /// A reactor thread panicked outside of any callback: a defect of framewire.
    #[error("a reactor thread panicked; this is a defect of framewire, please report it")]
    Defect,
}

/// What `main` prints.
impl fmt::Debug for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            let text = self.to_string();
            f.debug_struct("ServeError").field("text", &text).field("source", &self.source()).finish()
        } else {
            fmt::Display::fmt(self, f)
        }
    }
}

impl From<FramingConfigError> for ServeError {
    fn from(error: FramingConfigError) -> Self {
        Self::config(("framing", error.to_string()))
    }
}

impl ServeError {
    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }

    pub(crate) fn config((option, why): (&'static str, String)) -> Self {
        Self::Config { option, why }
    }
}

/// At most a dozen by number: each connection may have a shard of its own.
fn still_running(shards: &[ShardId]) -> String {
    const MOST: usize = 12;
    let named: Vec<String> = shards.iter().take(MOST).map(ToString::to_string).collect();
    let list = named.join(", ");
    match (shards.len(), shards.len().saturating_sub(MOST)) {
        (1, _) => format!("shard {list} runs"),
        (_, 0) => format!("shards {list} run"),
        (_, more) => format!("shards {list} and {more} more run"),
    }
}

/// The answer of a whole server could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The shard, or the server, has stopped, or has not started yet.
    #[error("there is no such shard: the server has stopped, or not started yet")]
    Stopped,
    /// The mailbox of a shard is full.
    #[error("the mailbox of a shard is full; ask again later, or raise limits.mailbox_commands")]
    Busy,
    /// A shard did not answer in time: its handler blocks.
    #[error("a shard did not answer within {0:?}; does a handler block?")]
    TimedOut(Duration),
    /// Asked from a shard's own thread, which would wait for itself.
    #[error("asked from within a callback, which would wait for itself; ask from another thread")]
    WouldDeadlock,
}

/// What became of a tracked send. See [`SendTicket::wait`](crate::SendTicket::wait).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The session ended before the packet was written to the kernel in full.
    #[error("the session closed before the packet was written")]
    Closed,
    /// Not yet decided when the wait was over. The packet may still be written.
    #[error("not written within {0:?}")]
    TimedOut(Duration),
    /// The packet was refused when the shard came to it.
    #[error("refused: {0}")]
    Refused(#[from] SendError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::FixedLength;

    #[test]
    fn kinds_are_listed_in_the_order_of_their_numbers() {
        for (number, kind) in CloseKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

    #[test]
    fn shards_that_still_run_are_named_as_far_as_a_line_goes() {
        let error = |shards: u32| {
            let shards = (0..shards).map(ShardId).collect();
            ServeError::StillRunning { shards, grace: Duration::from_millis(500) }.to_string()
        };
        assert!(error(1).starts_with("the server was to stop within 500ms, and shard 0 runs still: "));
        assert!(error(3).contains("and shards 0, 1, 2 run still"));
        assert!(error(1000).contains("10, 11 and 988 more run still"));
    }

    #[test]
    fn a_panic_keeps_its_message() {
        let reason = CloseReason::panicked("on_packet", Box::new("boom"));
        assert_eq!(reason.to_string(), "panic in on_packet: boom");
        let reason = CloseReason::panicked("on_packet", Box::new(String::from("bang")));
        assert_eq!(reason.to_string(), "panic in on_packet: bang");
    }

    #[test]
    fn a_reason_in_the_log_is_one_line_of_bounded_length_without_control_characters() {
        let reason = CloseReason::handler("no such \"user\": o'neil\r\nforged line \u{1b}[2J\u{202e}\\");
        assert_eq!(
            Logged(&reason).to_string(),
            "handler: no such \"user\": o'neil\\r\\nforged line \\u{1b}[2J\\u{202e}\\\\"
        );
        for long in ["x", "\n", "ü", "\u{1b}"] {
            let line = Logged(&CloseReason::handler(long.repeat(10_000))).to_string();
            assert!((LOGGED - 8..=LOGGED + '…'.len_utf8()).contains(&line.len()), "{} bytes", line.len());
            assert!(line.ends_with('…') && !line.contains(char::is_control), "{line}");
        }
    }

    #[test]
    fn a_reason_that_panics_when_it_is_shown_says_so_in_the_log() {
        #[derive(Debug)]
        struct Shy;
        impl fmt::Display for Shy {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("I am")?;
                panic!("not\ntelling");
            }
        }
        impl Error for Shy {}
        let line = Logged(&CloseReason::handler(Shy)).to_string();
        assert_eq!(line, "handler: I am (then its Display panicked: not\\ntelling)");
    }

    #[test]
    fn what_the_wire_did_is_told_in_few_bytes_all_of_them_printable() {
        let hostile: Vec<u8> = (0..=255).cycle().take(5_000).collect();
        let errors = [
            FrameError::too_long(u64::MAX, u64::MAX, &hostile),
            FrameError::malformed("the length is no number", &hostile),
            FrameError::truncated(&hostile),
            FrameError::truncated(b"GET /\r\n\r\n"),
            FrameError::Misframed { what: "a packet outside of the buffer" },
        ];
        for error in errors {
            let text = CloseReason::from(error).to_string();
            assert!(text.len() < 250 && !text.contains(char::is_control), "{text}");
            assert_eq!(Logged(&text).to_string(), text, "nothing is left to escape");
        }
    }

    #[test]
    fn a_main_shows_why_the_server_did_not_start_as_a_text() {
        let error = ServeError::Bind { addr: "[::]:7".into(), source: io::ErrorKind::AddrInUse.into() };
        assert_eq!(format!("{error:?}"), error.to_string());
        assert_eq!(
            format!("{error:#?}"),
            "ServeError {\n    text: \"can not bind [::]:7: address in use\",\n    source: Some(\n        Kind(\n            \
             AddrInUse,\n        ),\n    ),\n}"
        );
    }

    #[test]
    fn a_framing_that_was_set_up_wrongly_is_a_reason_not_to_start() {
        fn set_up() -> Result<FixedLength, ServeError> {
            Ok(FixedLength::new(0)?)
        }
        let error = set_up().err().map(|error| error.to_string());
        assert_eq!(
            error.as_deref(),
            Some("framing: a fixed length of 0 bytes makes no frame; use at least 1")
        );
    }
}
