use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use thiserror::Error;

use crate::{framing::FramingConfigError, id::ShardId};

/// The server could not start, or failed later.
///
/// A `main` that returns this error prints its text, because `{:?}` shows the same text as `{}`; `{:#?}` also shows the
/// source. A [`FramingConfigError`](crate::FramingConfigError) is converted to [`Config`](Self::Config) by `?`.
///
/// ```no_run
/// use framewire::{FixedLength, ServeError, Server, packet_fn};
///
/// fn main() -> Result<(), ServeError> {
///     Server::bind(("0.0.0.0", 7000))?
///         .framing(FixedLength::new(5)?)
///         .serve(packet_fn(|session, packet| Ok(session.send(packet)?)))
/// }
/// ```
#[derive(Clone, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The text is not an address that can be bound.
    #[error("{text:?} is no address to bind: {why}; give host:port, [v6]:port or unix:/path")]
    #[non_exhaustive]
    Address {
        /// The text.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The address cannot be bound.
    #[error("cannot bind {addr}: {source}")]
    #[non_exhaustive]
    Bind {
        /// The address.
        addr: String,
        /// The error of the system call.
        source: Arc<io::Error>,
    },
    /// A setting is invalid.
    #[error("{option}: {why}")]
    #[non_exhaustive]
    Config {
        /// The setting at fault, by its name in the builder.
        option: &'static str,
        /// What is wrong and what to do about it.
        why: String,
    },
    /// A system call that a reactor needs failed.
    #[error("cannot {action}: {source}")]
    #[non_exhaustive]
    System {
        /// What the reactor tried to do.
        action: &'static str,
        /// The error of the system call.
        source: Arc<io::Error>,
    },
    /// The closure that makes the handlers panicked.
    #[error("the factory of handlers panicked: {message}")]
    #[non_exhaustive]
    Factory {
        /// The message of the panic.
        message: String,
    },
    /// [`PacketHandler::on_start`](crate::PacketHandler::on_start) panicked.
    #[error("on_start of a handler panicked: {message}")]
    #[non_exhaustive]
    OnStart {
        /// The message of the panic.
        message: String,
    },
    /// The server did not stop in time: some of its shards still run, because a callback blocks.
    ///
    /// Their threads are left running. Each ends by itself once its callback returns, and its sessions are reset; a
    /// shard that has ended is no longer listed by [`ServerHandle::shards`](crate::ServerHandle::shards). Until then
    /// the handler's memory stays in use and, for the acceptor's shard, so does the address. Make the callback shorter,
    /// move its work to another thread, wait without a deadline ([`RunningServer::wait`](crate::RunningServer::wait)),
    /// or exit the process, which ends the threads.
    #[error(
        "the server was to stop within {grace:?}, and {}: does a handler block? Its thread ends when it returns",
        still_running(.shards)
    )]
    #[non_exhaustive]
    StillRunning {
        /// The shards that still run, in the order of their numbers.
        shards: Vec<ShardId>,
        /// How long they were given to stop.
        grace: Duration,
    },
    /// A reactor thread panicked outside of any callback: a bug in framewire.
    #[error("a reactor thread panicked; this is a defect of framewire, please report it")]
    Defect,
}

/// A `main` that returns the error prints this, so it is the readable text.
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
        move |source| Self::System { action, source: Arc::new(source) }
    }

    pub(crate) fn bind(addr: impl Into<String>, source: io::Error) -> Self {
        Self::Bind { addr: addr.into(), source: Arc::new(source) }
    }

    pub(crate) fn config((option, why): (&'static str, String)) -> Self {
        Self::Config { option, why }
    }
}

/// Lists a dozen shards at most: with one thread per connection there may be thousands.
fn still_running(shards: &[ShardId]) -> String {
    const MOST: usize = 12;
    let named: Vec<String> = shards.iter().take(MOST).map(ToString::to_string).collect();
    let list = named.join(", ");
    match (shards.len(), shards.len().saturating_sub(MOST)) {
        (1, _) => format!("shard {list} still runs"),
        (_, 0) => format!("shards {list} still run"),
        (_, more) => format!("shards {list} and {more} more still run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::FixedLength;

    #[test]
    fn shards_that_still_run_are_named_as_far_as_a_line_goes() {
        let error = |shards: u32| {
            let shards = (0..shards).map(ShardId).collect();
            ServeError::StillRunning { shards, grace: Duration::from_millis(500) }.to_string()
        };
        assert!(error(1).starts_with("the server was to stop within 500ms, and shard 0 still runs: "));
        assert!(error(3).contains("and shards 0, 1, 2 still run"));
        assert!(error(1000).contains("10, 11 and 988 more still run"));
    }

    #[test]
    fn a_main_shows_why_the_server_did_not_start_as_a_text() {
        let error = ServeError::bind("[::]:7", io::ErrorKind::AddrInUse.into());
        assert_eq!(format!("{error:?}"), error.to_string());
        assert_eq!(
            format!("{error:#?}"),
            "ServeError {\n    text: \"cannot bind [::]:7: address in use\",\n    source: Some(\n        Kind(\n            \
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
