use thiserror::Error;

/// Why a value could not be read from a packet, or written into one.
///
/// After an error while reading, the buffer may have been advanced into the value that failed. After an error while
/// writing, nothing of the value was written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The packet ends before the value does.
    #[error("packet ends within {what}: {needed} {} needed, {remaining} left", bytes(*needed))]
    #[non_exhaustive]
    Truncated {
        /// What was to be read, as text for people.
        what: &'static str,
        /// How many bytes the value has; of a number of variable length, how many it has at least.
        needed: usize,
        /// How many bytes there were for it.
        remaining: usize,
    },
    /// A number has more bits than its type, or its bytes never end.
    #[error("{what} has more than {bits} bits")]
    #[non_exhaustive]
    Overflow {
        /// What was to be read, as text for people.
        what: &'static str,
        /// How many bits its type has.
        bits: u32,
    },
    /// A byte array or a text is longer than the caller's maximum.
    #[error("{what} of {len} bytes is over the maximum of {max}")]
    #[non_exhaustive]
    TooLong {
        /// What was to be read or written, as text for people.
        what: &'static str,
        /// Its length, in bytes.
        len: usize,
        /// The maximum, in bytes.
        max: usize,
    },
    /// A bool is neither 0 nor 1.
    #[error("{byte:#04x} is no bool, which is 0 or 1")]
    #[non_exhaustive]
    NotBool {
        /// The byte that was read.
        byte: u8,
    },
    /// A text is not UTF-8.
    #[error("a string of {len} bytes is not UTF-8 at byte {at}")]
    #[non_exhaustive]
    NotUtf8 {
        /// Its length, in bytes.
        len: usize,
        /// How many of its bytes are UTF-8.
        at: usize,
    },
    /// The buffer that is written into has no room for the value, and does not grow.
    #[error("no room for {what}: {needed} {} needed, {room} left", bytes(*needed))]
    #[non_exhaustive]
    NoRoom {
        /// What was to be written, as text for people.
        what: &'static str,
        /// How many bytes it takes.
        needed: usize,
        /// How many bytes there is room for.
        room: usize,
    },
}

fn bytes(count: usize) -> &'static str {
    if count == 1 { "byte" } else { "bytes" }
}
