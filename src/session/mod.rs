//! One connection as a machine: no socket, no clock. Bytes and commands go in; packets, bytes to write and deadlines come out.

mod connection;
mod flags;
mod framing_cell;
mod handle;
mod liveness;
mod shard_core;
mod transmit;
mod view;

pub use handle::SessionHandle;
pub use view::{Session, SessionStats, TimerError, TimerId};

pub(crate) use connection::{Connection, Phase};
pub(crate) use flags::{Flags, ReadBlock};
pub(crate) use framing_cell::{FramingCell, FramingSlot, overhead};
pub(crate) use handle::{Deliver, HandleState, SessionCommand};
pub(crate) use liveness::{TimeoutKind, Timeouts};
pub(crate) use shard_core::{ShardCore, TimerPurpose};
