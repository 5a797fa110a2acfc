//! One connection as a state machine without a socket or a clock: bytes and commands go in; packets, bytes to write and
//! deadlines come out.

mod broken;
mod cold_state;
mod connection;
mod datagram;
mod deliver;
mod dialling;
mod effects;
mod framing_cell;
mod handle;
mod handle_state;
mod heartbeat;
mod info;
mod keep_alive;
mod layer_buffers;
mod layer_stack;
mod layer_wire;
mod layered;
mod link;
mod liveness;
mod memberships;
mod mux;
mod overflow;
mod proxied;
mod receive;
mod reports;
mod shard_context;
mod shard_core;
mod status;
mod streams;
mod timers;
mod transmit;
mod values;
mod view;
mod waiting;
#[cfg(feature = "websocket")]
mod websocket;

pub use handle::SessionHandle;
pub use heartbeat::{Heartbeat, HeartbeatError};
pub use info::SessionInfo;
pub use mux::Mux;
pub use shard_context::ShardContext;
pub use streams::{NewStream, Streams};
pub use timers::{TimerError, TimerId};
pub use view::{Session, SessionStats};

pub(crate) use connection::{Connection, ShutdownStep};
pub(crate) use datagram::Medium;
pub(crate) use deliver::{Deliver, Route, SessionCommand, Undelivered};
pub(crate) use effects::{Effect, Effects};
pub(crate) use framing_cell::{FramingCell, FramingSlot, overhead};
pub(crate) use handle::Unsent;
pub(crate) use handle_state::HandleState;
pub(crate) use keep_alive::{BeatStep, KeepAlives};
pub(crate) use layer_buffers::LayerBuffers;
pub(crate) use layer_stack::MOST_LAYERS;
pub(crate) use link::{LinkSignal, Links};
pub(crate) use liveness::{TimeoutKind, Timeouts};
pub(crate) use memberships::{Membership, Roster};
pub(crate) use mux::StreamPacket;
pub(crate) use overflow::Outgoing;
pub(crate) use receive::{InputExhausted, InputStep};
pub(crate) use shard_context::{Body, Inspect};
pub(crate) use shard_core::{CoreConfig, ShardCore, TimerPurpose};
pub(crate) use streams::{CarriedService, OpenStream, StreamEffect};
pub(crate) use transmit::{Due, Slices, Transmit};
