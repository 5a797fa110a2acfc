use std::{error::Error, fmt};

use super::{Shard, callbacks::guard};
use crate::{
    error::{CloseReason, SendError},
    framing::Framing,
    handler::PacketHandler,
    id::{SessionId, ShardId},
    session::{Session, SessionHandle, SessionInfo},
};

/// A shard, within a closure given to [`ServerHandle::execute`](crate::ServerHandle::execute).
pub struct ShardContext<'a> {
    shard: &'a mut dyn Inspect,
}

impl<'a> ShardContext<'a> {
    pub(super) fn new(shard: &'a mut dyn Inspect) -> Self {
        Self { shard }
    }

    /// Which shard this is.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.shard.id()
    }

    /// The open sessions of this shard.
    #[must_use]
    pub fn sessions(&mut self) -> Vec<SessionInfo> {
        self.shard.sessions()
    }

    /// Sends a packet to a session of this shard, as [`Session::send`] does.
    ///
    /// # Errors
    /// As [`Session::send`]; [`SendError::Closed`] for a session that is not open on this shard.
    pub fn send(&mut self, session: SessionId, packet: impl AsRef<[u8]>) -> Result<(), SendError> {
        self.shard.send(session, packet.as_ref())
    }

    /// Closes a session of this shard gracefully. Nothing happens when it is gone.
    pub fn close(&mut self, session: SessionId) {
        self.shard.close_session(session, CloseReason::Local);
    }

    /// As [`close`](Self::close), and says why, with a text or any error: the log and
    /// [`on_close`](crate::PacketHandler::on_close) show it, as [`CloseReason::Handler`](crate::CloseReason::Handler).
    pub fn close_with(&mut self, session: SessionId, why: impl Into<Box<dyn Error + Send + Sync>>) {
        self.shard.close_session(session, CloseReason::Handler(why.into().into()));
    }

    /// A handle to a session of this shard, if it is open.
    #[must_use]
    pub fn handle(&mut self, session: SessionId) -> Option<SessionHandle> {
        self.shard.handle(session)
    }
}

impl fmt::Debug for ShardContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardContext").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// A [`Shard`] without its types.
pub(super) trait Inspect {
    fn id(&self) -> ShardId;
    fn sessions(&mut self) -> Vec<SessionInfo>;
    fn send(&mut self, session: SessionId, packet: &[u8]) -> Result<(), SendError>;
    fn close_session(&mut self, session: SessionId, reason: CloseReason);
    fn handle(&mut self, session: SessionId) -> Option<SessionHandle>;
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    fn view<R>(&mut self, id: SessionId, body: impl FnOnce(&mut Session<'_>) -> R) -> Option<R> {
        if id.shard != self.core.shard {
            return None;
        }
        let answer = self.with_session(id.key, |access| {
            let answer = access.is_open().then(|| body(&mut access.session()));
            access.core.flush_later(&mut access.slot.connection);
            answer
        });
        answer.flatten()
    }
}

impl<H, F, T> Inspect for Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    fn id(&self) -> ShardId {
        self.core.shard
    }

    fn sessions(&mut self) -> Vec<SessionInfo> {
        let shard = self.core.shard;
        let open = self.slots.iter().filter(|(_, slot)| slot.connection.is_open());
        open.map(|(key, slot)| slot.connection.info(SessionId { shard, key }, self.core.origin)).collect()
    }

    fn send(&mut self, session: SessionId, packet: &[u8]) -> Result<(), SendError> {
        if session.shard != self.core.shard {
            return Err(SendError::Closed);
        }
        let sent = self.with_session(session.key, |access| {
            if !access.is_open() {
                return Err(SendError::Closed);
            }
            let sent = guard("encode", || Ok::<_, CloseReason>(access.session().send(packet)));
            access.core.flush_later(&mut access.slot.connection);
            sent.unwrap_or_else(|panic| {
                access.fail(panic);
                Err(SendError::Closed)
            })
        });
        sent.unwrap_or(Err(SendError::Closed))
    }

    fn close_session(&mut self, session: SessionId, reason: CloseReason) {
        if session.shard == self.core.shard {
            self.with_session(session.key, |access| access.close(reason));
        }
    }

    fn handle(&mut self, session: SessionId) -> Option<SessionHandle> {
        self.view(session, |session| session.handle())
    }
}
