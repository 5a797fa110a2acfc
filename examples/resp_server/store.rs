//! The keys and their values: bounded, and shared by all shards of the server.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::framing::bulk;

/// What a key costs besides its bytes and those of its value: the table, two allocations, a deadline.
pub(crate) const OVERHEAD: usize = 128;
/// How many expired keys one write removes at most.
const FORGET: usize = 16;

/// Parts with a lock each, so that the threads of the server seldom wait for one another.
pub(crate) struct Store {
    parts: Box<[Mutex<Part>]>,
    hasher: RandomState,
}

impl Store {
    /// `parts` of at most `max_memory` bytes together.
    pub(crate) fn new(parts: usize, max_memory: usize) -> Self {
        let parts = parts.max(1);
        let part = || Mutex::new(Part { max: max_memory / parts, ..Part::default() });
        Self { parts: std::iter::repeat_with(part).take(parts).collect(), hasher: RandomState::new() }
    }

    /// Locks the part that a key belongs to.
    pub(crate) fn part(&self, key: &[u8]) -> MutexGuard<'_, Part> {
        lock(&self.parts[self.place(key)])
    }

    /// Locks all of it, for commands on several keys, which must not be seen half done.
    pub(crate) fn whole(&self) -> Whole<'_> {
        Whole { store: self, parts: self.parts.iter().map(lock).collect() }
    }

    /// Always less than the number of parts.
    fn place(&self, key: &[u8]) -> usize {
        match self.parts.len() {
            1 => 0,
            parts => self.hasher.hash_one(key) as usize % parts,
        }
    }
}

/// A write is complete or not begun where a panic is possible, so the data behind a poisoned lock is sound.
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Whole<'a> {
    store: &'a Store,
    /// Always locked in the order of their numbers.
    parts: Vec<MutexGuard<'a, Part>>,
}

impl Whole<'_> {
    pub(crate) fn part(&mut self, key: &[u8]) -> &mut Part {
        &mut self.parts[self.store.place(key)]
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.entries.len()).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    pub(crate) fn clear(&mut self) {
        for part in &mut self.parts {
            **part = Part { max: part.max, ..Part::default() };
        }
    }

    /// Returns `true` if each part has room for `bytes` more: a command on several keys must not fail half way.
    pub(crate) fn has_room(&mut self, bytes: usize) -> bool {
        self.parts.iter_mut().all(|part| {
            part.forget();
            part.bytes.saturating_add(bytes) <= part.max
        })
    }
}

#[derive(Default)]
pub(crate) struct Part {
    entries: HashMap<Box<[u8]>, Entry>,
    deadlines: BTreeSet<(Instant, Box<[u8]>)>,
    /// ≤ `max`: what the keys cost.
    bytes: usize,
    max: usize,
}

struct Entry {
    /// In its wire format, `$3\r\nabc\r\n`: a GET has nothing to format.
    wire: Box<[u8]>,
    until: Option<Instant>,
}

/// When a write is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    Absent,
    Present,
}

impl When {
    fn is_met(self, present: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => !present,
            Self::Present => present,
        }
    }
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Yes,
    Unmet,
    Full,
}

/// Why a number was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAdded {
    NoNumber,
    Overflow,
    Full,
}

impl Part {
    /// Returns the value of a key in its wire format.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.entries.get(key).filter(|entry| entry.is_alive()).map(|entry| &*entry.wire)
    }

    /// Returns when the key expires, if it exists; the inner `None` means never.
    pub(crate) fn until(&self, key: &[u8]) -> Option<Option<Instant>> {
        self.entries.get(key).filter(|entry| entry.is_alive()).map(|entry| entry.until)
    }

    pub(crate) fn set(&mut self, key: &[u8], value: &[u8], when: When, until: Option<Instant>) -> Written {
        self.forget();
        let Some(entry) = self.entries.get_mut(key) else { return self.insert(key, value, when, until) };
        if !when.is_met(entry.is_alive()) {
            return Written::Unmet;
        }
        let bytes = self.bytes - entry.wire.len() + wire_len(value);
        if bytes > self.max {
            return Written::Full;
        }
        self.bytes = bytes;
        entry.write(value);
        let old = std::mem::replace(&mut entry.until, until);
        if old != until {
            self.move_deadline(key, old, until);
        }
        Written::Yes
    }

    fn insert(&mut self, key: &[u8], value: &[u8], when: When, until: Option<Instant>) -> Written {
        if !when.is_met(false) {
            return Written::Unmet;
        }
        let bytes = self.bytes + OVERHEAD + key.len() + wire_len(value);
        if bytes > self.max {
            return Written::Full;
        }
        self.bytes = bytes;
        self.entries.insert(key.into(), Entry { wire: to_wire(value), until });
        self.move_deadline(key, None, until);
        Written::Yes
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let Some((key, entry)) = self.entries.remove_entry(key) else { return false };
        self.bytes -= OVERHEAD + key.len() + entry.wire.len();
        let alive = entry.is_alive();
        if let Some(until) = entry.until {
            self.deadlines.remove(&(until, key));
        }
        alive
    }

    /// Adds to a number, which is 0 if the key does not exist, and returns the sum. Its expiry stays the same.
    pub(crate) fn add(&mut self, key: &[u8], delta: i64) -> Result<i64, NotAdded> {
        let old = self.get(key).map_or(Some(0), |wire| number(bulk(wire)?.0));
        let sum = old.ok_or(NotAdded::NoNumber)?.checked_add(delta).ok_or(NotAdded::Overflow)?;
        let until = self.until(key).flatten();
        match self.set(key, sum.to_string().as_bytes(), When::Always, until) {
            Written::Full => Err(NotAdded::Full),
            _ => Ok(sum),
        }
    }

    fn move_deadline(&mut self, key: &[u8], old: Option<Instant>, new: Option<Instant>) {
        if let Some(old) = old {
            self.deadlines.remove(&(old, key.into()));
        }
        if let Some(new) = new {
            self.deadlines.insert((new, key.into()));
        }
    }

    /// Removes some expired keys; most stores have none.
    fn forget(&mut self) {
        if self.deadlines.is_empty() {
            return;
        }
        let now = Instant::now();
        for _ in 0..FORGET {
            match self.deadlines.first() {
                Some((until, key)) if *until <= now => {
                    let key = key.clone();
                    self.remove(&key);
                }
                _ => return,
            }
        }
    }
}

impl Entry {
    fn is_alive(&self) -> bool {
        self.until.is_none_or(|until| until > Instant::now())
    }

    /// A value of the same length has the same head: most are written in place.
    fn write(&mut self, value: &[u8]) {
        let (old, new) = (self.wire.len(), wire_len(value));
        let place = old.saturating_sub(value.len() + 2)..old.saturating_sub(2);
        match self.wire.get_mut(place) {
            Some(place) if old == new => place.copy_from_slice(value),
            _ => self.wire = to_wire(value),
        }
    }
}

/// Bytes of a value as a bulk string.
fn wire_len(value: &[u8]) -> usize {
    value.len() + value.len().checked_ilog10().unwrap_or(0) as usize + 1 + "$\r\n\r\n".len()
}

fn to_wire(value: &[u8]) -> Box<[u8]> {
    let mut wire = Vec::with_capacity(wire_len(value));
    wire.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
    wire.extend_from_slice(value);
    wire.extend_from_slice(b"\r\n");
    wire.into()
}

/// Parses a number as Redis does: no plus, no spaces, no leading zeros.
pub(crate) fn number(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}
