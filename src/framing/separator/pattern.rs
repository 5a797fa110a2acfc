use std::sync::Arc;

use memchr::memmem::Finder;

use super::super::FramingConfigError;
use super::alternatives::{self, Alternatives};

/// What ends a packet. Sessions share the searchers; each session holds 16 bytes.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    Byte(u8),
    /// `\n`, and one `\r` before it.
    Line,
    Bytes(Arc<Finder<'static>>),
    AnyOf(Arc<Alternatives>),
}

/// What a search found. Places are counted from the front of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A separator at `start..end`; a longer one may still grow out of the alternative `growing`.
    At { start: usize, end: usize, growing: Option<u8> },
    /// No separator, and none can begin before `open`: the place to search on from, at most the end of the buffer.
    NotYet { open: usize },
}

/// Tells a search if more bytes can come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Open,
    Ended,
}

impl Pattern {
    pub(super) fn any_of<I>(separators: I) -> Result<Self, FramingConfigError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let list = alternatives::checked(separators)?;
        Ok(match list.as_slice() {
            [only] => Self::bytes(only),
            _ => Self::AnyOf(Arc::new(Alternatives::new(list))),
        })
    }

    /// `separator` is not empty.
    pub(super) fn bytes(separator: &[u8]) -> Self {
        match separator {
            [byte] => Self::Byte(*byte),
            _ => Self::Bytes(Arc::new(Finder::new(separator).into_owned())),
        }
    }

    /// The first separator in `buf`, knowing that none begins before `from`.
    #[inline]
    pub(super) fn find(&self, buf: &[u8], from: usize, stream: Stream) -> Found {
        let rest = buf.get(from..).unwrap_or_default();
        match self {
            Self::Byte(byte) => match memchr::memchr(*byte, rest) {
                Some(at) => Found::At { start: from + at, end: from + at + 1, growing: None },
                None => Found::NotYet { open: buf.len() },
            },
            Self::Line => find_line(buf, from, rest),
            Self::Bytes(finder) => match finder.find(rest) {
                Some(at) => {
                    Found::At { start: from + at, end: from + at + finder.needle().len(), growing: None }
                }
                // An incomplete one can begin only in the last bytes, of which there are one fewer than it has.
                None => {
                    Found::NotYet { open: from.max((buf.len() + 1).saturating_sub(finder.needle().len())) }
                }
            },
            Self::AnyOf(alternatives) => alternatives.find(buf, from, stream),
        }
    }

    /// The rest of a longer alternative at the front of `buf`, just after the alternative `last`. `NotYet` with an
    /// `open` of 0 means that it takes more bytes to tell.
    #[cold]
    pub(super) fn grow(&self, last: u8, buf: &[u8], stream: Stream) -> Found {
        match self {
            Self::AnyOf(alternatives) => alternatives.grow(last, buf, stream),
            _ => Found::NotYet { open: buf.len() },
        }
    }

    /// Where exactly an incomplete separator begins in `buf`; the end of `buf` if nowhere. `from` is what `find`
    /// returned.
    pub(super) fn open(&self, buf: &[u8], from: usize) -> usize {
        match self {
            Self::Bytes(finder) => (from..buf.len())
                .find(|at| buf.get(*at..).is_some_and(|tail| finder.needle().starts_with(tail)))
                .unwrap_or(buf.len()),
            _ => from,
        }
    }

    /// The separator to write after `payload`.
    pub(super) fn written_after(&self, payload: &[u8]) -> &[u8] {
        match self {
            Self::Byte(byte) => std::slice::from_ref(byte),
            Self::Line if payload.ends_with(b"\r") => b"\r\n",
            Self::Line => b"\n",
            Self::Bytes(finder) => finder.needle(),
            Self::AnyOf(alternatives) => alternatives.written(),
        }
    }

    /// Bytes of the longest separator.
    pub(super) fn longest(&self) -> usize {
        match self {
            Self::Byte(_) => 1,
            Self::Line => 2,
            Self::Bytes(finder) => finder.needle().len(),
            Self::AnyOf(alternatives) => alternatives.longest(),
        }
    }
}

#[inline]
fn find_line(buf: &[u8], from: usize, rest: &[u8]) -> Found {
    let newline = memchr::memchr(b'\n', rest).map(|at| from + at);
    let text = buf.get(..newline.unwrap_or(buf.len())).unwrap_or_default();
    let start = text.len() - usize::from(text.last() == Some(&b'\r'));
    match newline {
        Some(newline) => Found::At { start, end: newline + 1, growing: None },
        None => Found::NotYet { open: start },
    }
}
