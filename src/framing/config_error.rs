use thiserror::Error;

/// A framing was set up in a way that cannot work: the doing of the program, not of a peer.
///
/// Given by the constructors and builders of the framings, before any byte is read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FramingConfigError {
    /// A length field of that many bytes.
    #[error("a length field of {width} bytes cannot be read; use 1, 2, 3, 4 or 8")]
    Width {
        /// The width that was asked for, in bytes.
        width: usize,
    },
    /// The length field ends too far into the frame.
    #[error("the length field ends {end} bytes into the frame; use an offset that keeps it within {max}")]
    Offset {
        /// Offset plus width, in bytes.
        end: usize,
        /// The furthest place where it may end.
        max: usize,
    },
    /// An adjustment that no header needs.
    #[error("an adjustment of {adjustment} bytes is out of range; use one within {max} either way")]
    Adjustment {
        /// The adjustment that was asked for, in bytes.
        adjustment: i64,
        /// The largest one, in bytes.
        max: i64,
    },
    /// More bytes are to be stripped than the shortest frame has.
    #[error("stripping {strip} bytes is more than the shortest frame has; strip at most {max}")]
    Strip {
        /// The bytes to strip that were asked for.
        strip: usize,
        /// Bytes of the shortest frame.
        max: usize,
    },
    /// The bytes to strip end inside the length field.
    #[error(
        "stripping {strip} bytes cuts the length field in two; strip up to its beginning or past its end"
    )]
    StripInField {
        /// The bytes to strip that were asked for.
        strip: usize,
    },
    /// The header to write is not as long as the part that is stripped.
    #[error(
        "a header of {len} bytes was given where {strip} are stripped; give as many bytes as are stripped"
    )]
    Header {
        /// Bytes of the header that was given.
        len: usize,
        /// The bytes to strip.
        strip: usize,
    },
    /// A separator without bytes: it would be found everywhere.
    #[error("a separator is empty; give it at least one byte")]
    EmptySeparator,
    /// A separator that is too long.
    #[error("a separator of {len} bytes is too long; use at most {max}")]
    LongSeparator {
        /// Bytes of the separator.
        len: usize,
        /// The most that it may have.
        max: usize,
    },
    /// No separator at all, or too many alternatives.
    #[error("{count} separators were given; give 1 to {max}")]
    SeparatorCount {
        /// How many were given.
        count: usize,
        /// The most that may be given.
        max: usize,
    },
    /// A fixed length of 0: a frame must take at least one byte.
    #[error("a fixed length of 0 bytes makes no frame; use at least 1")]
    ZeroLength,
}
