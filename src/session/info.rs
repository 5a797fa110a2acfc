use crate::{addr::Addr, id::SessionId, session::SessionStats};

/// A session, as a list of them shows it, and as [`PacketHandler::on_close`](crate::PacketHandler::on_close) sees it for the
/// last time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Its id.
    pub id: SessionId,
    /// The peer's address.
    pub peer: Addr,
    /// The address on our side.
    pub local: Addr,
    /// What went through it.
    pub stats: SessionStats,
}
