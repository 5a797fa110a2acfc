use std::sync::Arc;

use bytes::Bytes;

use crate::{
    buffer::Overflow,
    contained::Contained,
    error::{SendError, Why},
    id::{DialId, Key, SessionId},
    session::LinkSignal,
    sync::{Completion, Prospect, Room},
};

/// A command from a handle to its session.
#[derive(Debug)]
pub(crate) enum SessionCommand {
    Send {
        payload: Bytes,
        completion: Option<Completion>,
        /// Bytes that [`HandleState`] has reserved for the packet.
        reserved: usize,
        /// `None`: as the session has it.
        overflow: Option<Overflow>,
    },
    Close(Option<Why>),
    /// A packet that had to be sent found so many bytes of so many that may wait.
    CloseFull {
        queued: usize,
        limit: usize,
    },
    Abort,
    Pause,
    Resume,
    /// What another session says about their link.
    Link(LinkSignal),
}

impl SessionCommand {
    pub(super) fn take_completion(&mut self) -> Option<Completion> {
        if let Self::Send { completion, .. } = self { completion.take() } else { None }
    }
}

/// A command that a shard did not take, and why.
pub(crate) struct Undelivered {
    pub(crate) error: SendError,
    pub(crate) command: Option<Contained<SessionCommand>>,
}

/// The way into a shard, from any thread.
pub(crate) trait Deliver: Send + Sync {
    /// Lets the shard sum up, in due time, what was left out of the log.
    fn sum_up_log(&self) {}

    /// Returns the id of the session with this key.
    fn id_of(&self, key: Key) -> SessionId;

    /// `bytes` is what the command holds, for the mailbox's limit.
    fn deliver(&self, key: Key, command: SessionCommand, bytes: usize) -> Result<(), Undelivered>;

    /// Gives the shard a packet for all of these sessions but `except`. `listed` is what their list counts for, in bytes.
    fn deliver_to_all(
        &self,
        payload: &Bytes,
        sessions: &Arc<Vec<Key>>,
        listed: usize,
        except: Option<Key>,
        overflow: Overflow,
    ) -> Result<(), SendError>;

    /// The dial is to be given up, even if the mailbox is full.
    fn hang_up(&self, dial: DialId);

    /// Gives the shard a packet for all of these sessions, each with what tells its fate, in the same order. They are
    /// told too if the shard does not take it.
    fn deliver_tracked(
        &self,
        payload: &Bytes,
        sessions: &Arc<Vec<Key>>,
        overflow: Overflow,
        completions: Vec<Completion>,
    );

    /// Returns `true` if no command waits in the mailbox, nor one that a callback has posted past it. A command is seen if
    /// another thread posted it before it notified this one.
    fn is_idle(&self) -> bool;

    /// Returns where threads wait for room in the mailbox, and in the outboxes of the shard's sessions.
    fn room(&self) -> &Room;

    /// Leaves a mark in a full mailbox, see [`Mailbox::await_room`](crate::sync::Mailbox::await_room).
    fn await_room(&self, bytes: usize) -> Prospect;

    /// Counts a panic of user code that ran for one of its sessions, on whatever thread.
    fn count_panic(&self);

    /// Returns the hard limit of the outboxes of the shard's sessions, in bytes.
    fn outbox_limit(&self) -> usize;
}

/// The ways into all shards of the server.
pub(crate) trait Route: Send + Sync {
    /// `bytes` is what the command holds, for the mailbox's limit.
    fn route(&self, to: SessionId, command: SessionCommand, bytes: usize) -> Result<(), SendError>;
}
