#[cfg(feature = "websocket")]
use crate::websocket::CloseFrame;
use crate::{
    addr::{Addr, Origin},
    id::SessionId,
    session::SessionStats,
};

/// A snapshot of a session, as [`ServerHandle::sessions`](crate::ServerHandle::sessions) lists it and
/// [`PacketHandler::on_close`](crate::PacketHandler::on_close) gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// The session's id.
    pub id: SessionId,
    /// The peer's address, as [`Session::peer_addr`](crate::Session::peer_addr) returns it.
    pub peer: Addr,
    /// The address on our side.
    pub local: Addr,
    /// Where the session comes from.
    pub origin: Origin,
    /// The session's counters.
    pub stats: SessionStats,
    /// The close frame that the peer of a WebSocket has sent, once it has.
    #[cfg(feature = "websocket")]
    pub peer_close: Option<CloseFrame>,
}
