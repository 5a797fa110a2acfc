use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{Ending, Shard, ShardContext, Visit, callbacks::guard};
use crate::{
    addr::Ends,
    error::{CloseReason, SendError},
    framing::Framing,
    handler::PacketHandler,
    id::Key,
    mailbox::{Mailbox, Rejected},
    session::{Deliver, SessionCommand},
    ticket::Completion,
};

/// A closure that runs on a shard's thread.
pub(crate) type Job = Box<dyn FnOnce(&mut ShardContext<'_>) + Send>;

/// What comes through the mailbox of a shard.
pub(crate) enum Command<T> {
    /// For one session, from a handle.
    Session(Key, SessionCommand),
    /// A connection that another thread accepted.
    Adopt(Arrival<T>),
    /// Close the sessions of this peer.
    ClosePeer(SocketAddr),
    /// Run this.
    Execute(Job),
    /// Close everything gracefully, within this time.
    Shutdown(Duration),
    /// Cut everything.
    Abort,
}

/// A connection on its way to its shard.
pub(crate) struct Arrival<T> {
    pub(crate) io: T,
    pub(crate) ends: Ends,
}

/// The mailbox of a shard as session handles see it.
pub(crate) struct Inlet<T>(pub(crate) Arc<Mailbox<Command<T>>>);

impl<T: Send> Deliver for Inlet<T> {
    fn deliver(&self, key: Key, command: SessionCommand, bytes: usize) -> Result<(), SendError> {
        self.0.post(Command::Session(key, command), bytes).map_err(|refused| match refused {
            Rejected::Full { queued, queued_bytes, .. } => {
                SendError::MailboxFull { commands: queued, bytes: queued_bytes }
            }
            Rejected::Closed { .. } => SendError::Closed,
        })
    }
}

impl<H: PacketHandler, F: Framing, T> Visit<'_, H, F, T> {
    /// Does what a handle asked for.
    pub(crate) fn handle_command(&mut self, command: SessionCommand) {
        match command {
            SessionCommand::Send { payload, completion } => self.send(&payload, completion),
            SessionCommand::Close => self.close(CloseReason::Local),
            SessionCommand::Abort => self.finish(CloseReason::Local, Ending::Reset),
            SessionCommand::Pause => self.slot.connection.pause(),
            SessionCommand::Resume => self.slot.connection.resume(self.turn),
        }
    }

    /// Without a completion there is nobody to tell of a failure but the session itself, which it ends.
    fn send(&mut self, payload: &[u8], completion: Option<Completion>) {
        if let Some(link) = self.slot.connection.link() {
            link.unreserve(payload.len());
        }
        match (guard("encode", || Ok(self.session().send(payload))), completion) {
            (Ok(Ok(())), None) => {}
            (Ok(Ok(())), Some(completion)) => {
                if let Some(outbox) = &mut self.slot.connection.outbox {
                    outbox.track(completion);
                }
            }
            (Ok(Err(error)), Some(completion)) => completion.refused(error),
            (Ok(Err(error)), None) => self.close(error.into()),
            (Err(panic), _) => self.fail(panic),
        }
        self.turn.settle_later(&mut self.slot.connection);
    }
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Closes the sessions of this peer.
    pub(crate) fn close_peer(&mut self, peer: SocketAddr) {
        for key in self.keys() {
            self.visit(key, |visit| {
                if visit.ends().peer().socket_addr() == Some(peer) {
                    visit.close(CloseReason::Local);
                }
            });
        }
    }
}
