use super::{CloseReason, LayerError};

/// Why a connection was closed before it became an open session. Metrics count refused connections by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalCause {
    /// The strategy refused it, named a shard that does not exist, or panicked.
    Strategy,
    /// Its peer has as many connections as [`Limits::connections_per_peer`](crate::Limits::connections_per_peer)
    /// allows.
    PeerLimit,
    /// There are as many UDP peers as [`Limits::connections`](crate::Limits::connections) or the strategy allows.
    /// Counted for each datagram of a peer that gets no session.
    Full,
    /// [`PacketHandler::on_open`](crate::PacketHandler::on_open) failed or panicked.
    Handler,
    /// It ended before its layers were open: the handshake failed or took too long, or either side gave up.
    Handshake,
    /// Its peer was gone when it was accepted.
    Vanished,
    /// It could not be set up: a framing or a layer panicked when it was made for it, or the system could not poll it.
    Setup,
    /// The thread for which it was meant has ended.
    NoThread,
    /// The server was stopping.
    Shutdown,
}

impl RefusalCause {
    /// Every cause.
    pub const ALL: [Self; 9] = [
        Self::Strategy,
        Self::PeerLimit,
        Self::Full,
        Self::Handler,
        Self::Handshake,
        Self::Vanished,
        Self::Setup,
        Self::NoThread,
        Self::Shutdown,
    ];

    /// The cause of a session that ends before its layers are open.
    pub(crate) fn in_handshake(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::Layer(LayerError::PeerLimit { .. }) => Self::PeerLimit,
            _ => Self::Handshake,
        }
    }

    /// Returns the name in snake case, for logs and exporters: `peer_limit`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Strategy => "strategy",
            Self::PeerLimit => "peer_limit",
            Self::Full => "full",
            Self::Handler => "handler",
            Self::Handshake => "handshake",
            Self::Vanished => "vanished",
            Self::Setup => "setup",
            Self::NoThread => "no_thread",
            Self::Shutdown => "shutdown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_listed_in_the_order_of_their_numbers() {
        for (number, cause) in RefusalCause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, number);
        }
    }
}
