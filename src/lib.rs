//! framewire: servers that hold very many framed connections.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod framing;
pub mod testing;

pub use framing::{
    ByteOrder, Decoded, FixedLength, FrameError, Framing, FramingConfigError, LengthField, LengthPrefix,
    Netstring, Oversize, Raw, Seen, Separator, UntilEof, VarintPrefix, framing_fn,
};
