use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{Ending, Shard, ShardContext, callbacks::guard};
use crate::{
    addr::Ends,
    error::{CloseReason, SendError},
    framing::Framing,
    handler::PacketHandler,
    id::Key,
    mailbox::{Mailbox, Rejected},
    session::{Deliver, SessionCommand},
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

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    pub(crate) fn handle_command(&mut self, key: Key, command: SessionCommand) {
        match command {
            SessionCommand::Send { payload, completion } => {
                let Some(slot) = self.slots.get_mut(key) else { return };
                if let Some(link) = slot.connection.link() {
                    link.unreserve(payload.len());
                }
                let (connection, framing, turn) = (&mut slot.connection, &slot.framing, &mut self.turn);
                let sent = guard("encode", || Ok(connection.enqueue(framing, &payload, turn)));
                match (sent, completion) {
                    (Ok(Ok(())), None) => {}
                    (Ok(Ok(())), Some(completion)) => {
                        if let Some(outbox) = &mut connection.outbox {
                            outbox.track(completion);
                        }
                    }
                    (Ok(Err(error)), Some(completion)) => completion.refused(error),
                    (Ok(Err(error)), None) => connection.close(error.into(), turn),
                    (Err(panic), _) => super::callbacks::end(slot, panic, turn),
                }
                self.turn.settle_later(&mut slot.connection);
            }
            SessionCommand::Close => self.close(key, CloseReason::Local),
            SessionCommand::Abort => self.finish(key, CloseReason::Local, Ending::Reset),
            SessionCommand::Pause => {
                if let Some(slot) = self.slots.get_mut(key) {
                    slot.connection.pause();
                }
            }
            SessionCommand::Resume => {
                if let Some(slot) = self.slots.get_mut(key) {
                    slot.connection.resume(&mut self.turn);
                }
            }
        }
    }

    pub(crate) fn close_peer(&mut self, peer: SocketAddr) {
        for key in self.keys() {
            let is_peer =
                |slot: &super::Slot<F, H::State, T>| slot.connection.ends.peer().socket_addr() == Some(peer);
            if self.slots.get(key).is_some_and(is_peer) {
                self.close(key, CloseReason::Local);
            }
        }
    }
}
