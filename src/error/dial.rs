use std::{
    io::{self, ErrorKind},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;

use crate::{addr::Addr, error::CloseReason};

/// Why a [`Dial`](crate::Dial) has failed. Of several addresses that were tried, this tells of the last one.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum DialError {
    /// The text names no address, or no address was given.
    #[error(
        "{text:?} is no address to connect to: {why}; give \"host:port\", \"[v6]:port\" or \"unix:/path\""
    )]
    #[non_exhaustive]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The name could not be looked up, or not within [`Dial::timeout`](crate::Dial::timeout).
    #[error("cannot look up {name}: {source}; is the name right, and does the name server answer?")]
    #[non_exhaustive]
    Lookup {
        /// The name and the port.
        name: String,
        /// What the system has reported.
        source: Arc<io::Error>,
    },
    /// The system or the peer refused the connection.
    #[error("cannot connect to {addr}: {source}{}", advice(source))]
    #[non_exhaustive]
    Connect {
        /// Where to.
        addr: Addr,
        /// What the system has reported.
        source: Arc<io::Error>,
    },
    /// Nothing came of it within [`Dial::timeout`](crate::Dial::timeout).
    #[error(
        "cannot connect to {addr}: no answer within {after:?}; does something drop its packets? for a peer that is only slow, give Dial::timeout more time"
    )]
    #[non_exhaustive]
    TimedOut {
        /// Where to.
        addr: Addr,
        /// The timeout.
        after: Duration,
    },
    /// The dial asks for what its server does not have: [UDP](crate::Dial::to_udp) of a server that is not on UDP, or the
    /// reverse; a framing or a layer over UDP.
    #[error("{why}")]
    #[non_exhaustive]
    Unsuited {
        /// What that is, and what to do.
        why: &'static str,
    },
    /// A server on UDP has a session with that peer already, over the socket that the dial was to use.
    #[error(
        "there is a session with {addr} already, over the same socket; send to that one, or dial from another server"
    )]
    #[non_exhaustive]
    Known {
        /// The peer.
        addr: Addr,
    },
    /// There is a connection, but no session came of it: one of its layers failed, or took too long, or its framing or
    /// its layers could not be made.
    #[error("connected to {addr}, and no session came of it: {reason}")]
    #[non_exhaustive]
    Opening {
        /// Where to.
        addr: Addr,
        /// What went wrong.
        reason: CloseReason,
    },
    /// The connection of a dial that [reconnects](crate::Dial::reconnect) has ended.
    /// [`on_dial_failed`](crate::PacketHandler::on_dial_failed) is called with this when no attempt is left.
    #[error("the connection to {addr} has ended: {reason}")]
    #[non_exhaustive]
    Lost {
        /// Where to.
        addr: Addr,
        /// Why the session ended.
        reason: CloseReason,
    },
    /// The server has as many connections as it may have, or the strategy allows no more.
    #[error(
        "no place for another connection beside {connections}; end some, or raise limits.connections or the limit of the strategy"
    )]
    #[non_exhaustive]
    Full {
        /// How many it has, dialled and accepted.
        connections: usize,
    },
    /// As many dials as [`Limits::dials`](crate::Limits::dials) allows are under way on this shard.
    #[error(
        "{limit} dials are under way on this shard already; wait for some of them, or raise limits.dials"
    )]
    #[non_exhaustive]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The connection was to have a thread of its own, and none could be started.
    #[error("cannot start a thread for the connection: {0}")]
    Thread(#[source] Arc<io::Error>),
    /// The server is stopping.
    #[error("the server is stopping, it connects to nothing any more")]
    Stopped,
}

impl DialError {
    pub(crate) fn connect(addr: Addr, source: io::Error) -> Self {
        Self::Connect { addr, source: Arc::new(source) }
    }

    pub(crate) fn lookup(name: String, source: io::Error) -> Self {
        Self::Lookup { name, source: Arc::new(source) }
    }
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::ConnectionRefused => "; does the server run, and does it listen there?",
        ErrorKind::NotFound => "; does the server run, and is the path right?",
        ErrorKind::PermissionDenied => "; may this process use it?",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_where_and_what_to_do() {
        let addr = Addr::Ip(([127, 0, 0, 1], 7).into());
        let refused = DialError::connect(addr.clone(), ErrorKind::ConnectionRefused.into());
        assert_eq!(
            refused.to_string(),
            "cannot connect to 127.0.0.1:7: connection refused; does the server run, and does it listen there?"
        );
        let late = DialError::TimedOut { addr, after: Duration::from_secs(5) };
        assert!(late.to_string().starts_with("cannot connect to 127.0.0.1:7: no answer within 5s; "));
    }
}
