use thiserror::Error;

/// A framing was set up in a way that cannot work: an error of the program, not of a peer.
///
/// Returned by the constructors and builders of the framings, before any byte is read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FramingConfigError {
    /// A length field cannot have that many bytes.
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
        /// The furthest offset at which it may end, in bytes.
        max: usize,
    },
    /// The adjustment is out of range.
    #[error("an adjustment of {adjustment} bytes is out of range; use one within {max} either way")]
    Adjustment {
        /// The adjustment that was asked for, in bytes.
        adjustment: i64,
        /// The largest allowed one, in bytes, positive or negative.
        max: i64,
    },
    /// More bytes are to be stripped than the shortest frame has.
    #[error("stripping {strip} bytes is more than the shortest frame has; strip at most {max}")]
    Strip {
        /// How many bytes were to be stripped.
        strip: usize,
        /// The length of the shortest frame, in bytes.
        max: usize,
    },
    /// The bytes to strip end inside the length field.
    #[error(
        "stripping {strip} bytes cuts the length field in two; strip up to its beginning or past its end"
    )]
    StripInField {
        /// How many bytes were to be stripped.
        strip: usize,
    },
    /// The header to write is not as long as the part that is stripped.
    #[error(
        "a header of {len} bytes was given where {strip} are stripped; give as many bytes as are stripped"
    )]
    Header {
        /// The length of the header that was given, in bytes.
        len: usize,
        /// How many bytes are stripped.
        strip: usize,
    },
    /// A separator is empty: it would be found everywhere.
    #[error("a separator is empty; give it at least one byte")]
    EmptySeparator,
    /// A separator is too long.
    #[error("a separator of {len} bytes is too long; use at most {max}")]
    LongSeparator {
        /// The length of the separator, in bytes.
        len: usize,
        /// The most bytes that it may have.
        max: usize,
    },
    /// No separator was given, or too many.
    #[error("{count} separators were given; give 1 to {max}")]
    SeparatorCount {
        /// How many were given.
        count: usize,
        /// How many may be given at most.
        max: usize,
    },
    /// The fixed length is 0: a frame must take at least one byte.
    #[error("a fixed length of 0 bytes makes no frame; use at least 1")]
    ZeroLength,
}
