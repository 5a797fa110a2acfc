//! framewire: servers that hold very many framed connections.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod framing;

pub use framing::{Decoded, FrameError, Framing, Oversize, Seen};
