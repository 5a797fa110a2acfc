//! LEB128 (DWARF 5, section 7.6): the one place that reads and writes numbers of variable length.

/// The most bytes of any number: 64 bits in groups of 7.
pub(crate) const MOST_BYTES: usize = 10;

/// How many bits a number may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Bits32,
    Bits64,
}

impl Width {
    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::Bits32 => 32,
            Self::Bits64 => 64,
        }
    }

    /// The most bytes that such a number can take.
    pub(crate) fn most_bytes(self) -> usize {
        match self {
            Self::Bits32 => 5,
            Self::Bits64 => MOST_BYTES,
        }
    }

    /// The greatest value of the last possible byte: the bits that are left of 32 or 64.
    fn most_in_last(self) -> u8 {
        match self {
            Self::Bits32 => 0x0f,
            Self::Bits64 => 0x01,
        }
    }
}

/// The number has too many bits, or never ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflow;

/// Reads the number at the front of `buf`: how many bytes it takes, and its value. `None` while it is not complete.
/// Padded numbers are read: they take more than [`len`] bytes.
#[inline]
pub(crate) fn read(width: Width, buf: &[u8]) -> Result<Option<(usize, u64)>, Overflow> {
    let mut value = 0;
    for (place, byte) in buf.iter().take(width.most_bytes()).enumerate() {
        if place + 1 == width.most_bytes() && *byte > width.most_in_last() {
            return Err(Overflow);
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            return Ok(Some((place + 1, value)));
        }
    }
    Ok(None)
}

/// How many bytes `value` takes: one for each 7 bits, and one for 0.
#[inline]
pub(crate) fn len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// A number in its shortest form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoded {
    bytes: [u8; MOST_BYTES],
    len: usize,
}

impl AsRef<[u8]> for Encoded {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Encoded {
    #[inline]
    pub(crate) fn new(value: u64) -> Self {
        let (mut bytes, len) = ([0; MOST_BYTES], len(value));
        let mut rest = value;
        for (place, byte) in bytes.iter_mut().take(len).enumerate() {
            let more = if place + 1 < len { 0x80 } else { 0 };
            *byte = (rest & 0x7f) as u8 | more;
            rest >>= 7;
        }
        Self { bytes, len }
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
