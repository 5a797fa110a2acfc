//! Where bytes wait: received and not yet framed, framed and not yet written. An idle session has neither.

mod chunk;
mod inbox;
mod outbox;
mod pool;
mod receive_buffer;
mod shared_memory;

pub(crate) use inbox::Inbox;
pub(crate) use outbox::MAX_SLICES;
pub use outbox::Outbox;
pub(crate) use pool::OutboxPool;
pub(crate) use receive_buffer::ReceiveBuffer;
pub(crate) use shared_memory::SharedMemory;
