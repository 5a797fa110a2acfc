//! Where bytes wait: received and not yet framed, framed and not yet written. An idle session has neither.

mod chunk;
mod inbox;
mod outbox;
mod overflow;
mod packet_queue;
mod pool;
mod receive_buffer;
mod shared_memory;

pub(crate) use chunk::Chunk;
pub(crate) use inbox::Inbox;
pub use outbox::Outbox;
pub(crate) use outbox::{MAX_SLICES, Room};
pub use overflow::Overflow;
pub(crate) use packet_queue::PACKET;
pub(crate) use pool::OutboxPool;
pub(crate) use receive_buffer::ReceiveBuffer;
pub(crate) use shared_memory::SharedMemory;
