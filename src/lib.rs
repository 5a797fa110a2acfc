//! framewire: servers that hold very many framed connections.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod framing;
mod mailbox;
mod sync;
mod timer_wheel;

pub use framing::{Decoded, FrameError, Framing, Oversize, Seen};

/// What `benches/` measures of the inside. No part of the interface: it may change in any release.
#[doc(hidden)]
pub mod internals {
    pub use crate::mailbox::{Mailbox, MailboxLimits, Rejected, Ring};
    pub use crate::timer_wheel::{TimerKey, TimerWheel};
}
