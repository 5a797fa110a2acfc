//! framewire: servers that hold very many framed connections.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "framewire needs a 64-bit target: a poll token holds the slot of a session and its generation"
);

// Floor 0: bytes.
pub mod framing;
pub mod testing;

mod addr;
mod buffer;
mod census;
mod error;
mod id;
mod limits;
mod mailbox;
mod metrics;
mod slots;
mod sync;
mod ticket;
mod time;
mod timer_wheel;

// Floor 1: one session.
mod handler;
mod session;

// Floor 2: many sessions.
mod shard;
mod strategy;

// Floor 3: the world.
mod reactor;

// Floor 4: the facade.
mod server;

pub use addr::PeerAddr;
pub use error::{CloseKind, CloseReason, QueryError, SendError, ServeError, TicketError};
pub use framing::{
    ByteOrder, Decoded, FixedLength, FrameError, Framing, FramingConfigError, LengthField, LengthPrefix,
    Netstring, Oversize, Raw, Seen, Separator, UntilEof, VarintPrefix, framing_fn,
};
pub use handler::{PacketFn, PacketHandler, packet_fn};
pub use id::{SessionId, ShardId};
pub use limits::Limits;
pub use metrics::Metrics;
pub use server::{BindAddr, Running, Server, ServerHandle, Unframed};
pub use session::{Session, SessionHandle, SessionStats, TimerError, TimerId};
pub use shard::{SessionInfo, ShardContext};
pub use strategy::{
    Accepting, ForkingStrategy, Loads, Placement, SingleReactor, ThreadPerConnection, WorkerPool,
};
pub use ticket::SendTicket;

/// What `benches/` measures of the inside. No part of the interface: it may change in any release.
#[doc(hidden)]
pub mod internals {
    pub use crate::buffer::Outbox;
    pub use crate::mailbox::{Mailbox, MailboxLimits, Rejected, Ring};
    pub use crate::timer_wheel::{Fired, TimerKey, TimerWheel};
}
