use thiserror::Error;

use crate::{framing::EncodeError, id::ShardId};

/// Why a packet for many sessions did not go to all of them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BroadcastError {
    /// The value cannot be encoded. No session gets it.
    #[error("packet cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// The mailboxes of these shards are at [`Limits::mailbox_commands`](crate::Limits::mailbox_commands) or
    /// [`Limits::mailbox_bytes`](crate::Limits::mailbox_bytes): packets are sent faster than the shards pass them on.
    /// None of the sessions of these shards gets the packet; all sessions that it is for on other shards do.
    #[error(
        "mailboxes of {} shards full, {took} others took the packet; send slower or raise limits.mailbox_*",
        full.len()
    )]
    #[non_exhaustive]
    MailboxFull {
        /// The shards that did not take the packet, in rising order.
        full: Vec<ShardId>,
        /// How many shards took it.
        took: usize,
    },
}

/// Why a session did not become a member of a [`Channel`](crate::Channel).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The session is closing or closed.
    #[error("session closed")]
    Closed,
    /// The session is a member already.
    #[error("the session is a member already")]
    AlreadyMember,
    /// The channel has as many members as [`Channel::max_members`](crate::Channel::max_members) allows.
    #[error("the channel has {limit} members, its limit")]
    #[non_exhaustive]
    Full {
        /// The limit.
        limit: usize,
    },
}
