use super::super::FramingConfigError;
use super::pattern::{Found, Stream};

/// The most bytes that one separator may have: 255. It bounds what is scanned again when a stream comes in small
/// pieces.
pub const MAX_SEPARATOR: usize = 255;

/// The most alternatives that a [`Separator`](super::Separator) may have: 64. It bounds the work for each place where a
/// separator could begin.
pub const MAX_SEPARATORS: usize = 64;

/// Several separators, of which the one that begins first wins, and of those the longest.
#[derive(Debug)]
pub(super) struct Alternatives {
    /// The longest first.
    list: Vec<Box<[u8]>>,
    first: FirstByte,
    written: Box<[u8]>,
}

/// How to find the next place where an alternative could begin: with memchr for up to three different first bytes.
#[derive(Debug)]
enum FirstByte {
    One(u8),
    Two(u8, u8),
    Three(u8, u8, u8),
    Many(Box<[bool; 256]>),
}

/// What was found at one place.
enum Here {
    Nothing,
    /// The beginning of an alternative, up to the end of the buffer.
    Part,
    Whole {
        index: usize,
        len: usize,
        /// A longer one may still grow out of it.
        longer: bool,
    },
}

/// The separators without repetitions, in the given order.
pub(super) fn checked<I>(separators: I) -> Result<Vec<Box<[u8]>>, FramingConfigError>
where
    I: IntoIterator,
    I::Item: AsRef<[u8]>,
{
    let mut list: Vec<Box<[u8]>> = Vec::new();
    for separator in separators {
        let separator = separator.as_ref();
        match separator.len() {
            0 => return Err(FramingConfigError::EmptySeparator),
            len if len > MAX_SEPARATOR => {
                return Err(FramingConfigError::LongSeparator { len, max: MAX_SEPARATOR });
            }
            _ if list.iter().any(|known| **known == *separator) => {}
            _ => list.push(separator.into()),
        }
    }
    match list.len() {
        1..=MAX_SEPARATORS => Ok(list),
        count => Err(FramingConfigError::SeparatorCount { count, max: MAX_SEPARATORS }),
    }
}

impl Alternatives {
    /// `list` is as [`checked`] returns it.
    pub(super) fn new(mut list: Vec<Box<[u8]>>) -> Self {
        // One that begins another would be taken for that if the next packet happens to start with the rest of it.
        let is_begun_by =
            |one: &[u8]| list.iter().any(|other| other.len() > one.len() && other.starts_with(one));
        let written = list.iter().find(|one| !is_begun_by(one)).cloned().unwrap_or_default();
        list.sort_by_key(|one| std::cmp::Reverse(one.len()));
        Self { first: FirstByte::of(&list), list, written }
    }

    pub(super) fn written(&self) -> &[u8] {
        &self.written
    }

    pub(super) fn longest(&self) -> usize {
        self.list.first().map_or(0, |longest| longest.len())
    }

    pub(super) fn find(&self, buf: &[u8], from: usize, stream: Stream) -> Found {
        let mut place = from;
        while let Some(rest) = buf.get(place..) {
            let Some(skipped) = self.first.position(rest) else { break };
            place += skipped;
            match self.look(&[], buf.get(place..).unwrap_or_default(), stream) {
                Here::Whole { index, len, longer } => {
                    let growing = if longer { u8::try_from(index).ok() } else { None };
                    return Found::At { start: place, end: place + len, growing };
                }
                Here::Part => return Found::NotYet { open: place },
                Here::Nothing => place += 1,
            }
        }
        Found::NotYet { open: buf.len() }
    }

    /// See `Pattern::grow`.
    pub(super) fn grow(&self, last: u8, buf: &[u8], stream: Stream) -> Found {
        let last = self.list.get(usize::from(last)).map_or(&[][..], |alternative| alternative);
        match self.look(last, buf, stream) {
            Here::Whole { index, len, longer } => {
                let growing = if longer { u8::try_from(index).ok() } else { None };
                Found::At { start: 0, end: len, growing }
            }
            Here::Part => Found::NotYet { open: 0 },
            Here::Nothing => Found::NotYet { open: buf.len() },
        }
    }

    /// Which alternative continues with `rest` after `before`, which was seen already.
    fn look(&self, before: &[u8], rest: &[u8], stream: Stream) -> Here {
        let mut longer = false;
        for (index, alternative) in self.list.iter().enumerate() {
            let Some(tail) = alternative.strip_prefix(before).filter(|tail| !tail.is_empty()) else {
                continue;
            };
            if rest.starts_with(tail) {
                return Here::Whole { index, len: tail.len(), longer };
            }
            longer |= stream == Stream::Open && tail.starts_with(rest);
        }
        if longer { Here::Part } else { Here::Nothing }
    }
}

impl FirstByte {
    fn of(list: &[Box<[u8]>]) -> Self {
        let mut is_first = Box::new([false; 256]);
        let mut firsts = Vec::new();
        for byte in list.iter().filter_map(|alternative| alternative.first()) {
            if let Some(slot) = is_first.get_mut(usize::from(*byte)).filter(|slot| !**slot) {
                *slot = true;
                firsts.push(*byte);
            }
        }
        match *firsts.as_slice() {
            [a] => Self::One(a),
            [a, b] => Self::Two(a, b),
            [a, b, c] => Self::Three(a, b, c),
            _ => Self::Many(is_first),
        }
    }

    /// The first place in `buf` where an alternative could begin.
    fn position(&self, buf: &[u8]) -> Option<usize> {
        match self {
            Self::One(a) => memchr::memchr(*a, buf),
            Self::Two(a, b) => memchr::memchr2(*a, *b, buf),
            Self::Three(a, b, c) => memchr::memchr3(*a, *b, *c, buf),
            Self::Many(is_first) => {
                buf.iter().position(|byte| is_first.get(usize::from(*byte)).copied().unwrap_or(false))
            }
        }
    }
}
