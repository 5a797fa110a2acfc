use std::{collections::HashMap, hash::Hash};

use crate::{framing::Framing, handler::PacketHandler, id::Key, shard::Shard, time::Tick};

/// The sessions of the peers of one socket, by their addresses, or of the streams of one carrier, by their numbers. The
/// hash is keyed: addresses can be forged, and numbers chosen, so that they would collide in any other.
#[derive(Debug)]
pub(super) struct Peers<A> {
    sessions: HashMap<A, Key>,
    /// The peer that was found last: packets often come several at a time.
    last: Option<(A, Key)>,
}

impl<A> Default for Peers<A> {
    fn default() -> Self {
        Self { sessions: HashMap::new(), last: None }
    }
}

impl<A: Copy + Eq + Hash> Peers<A> {
    #[inline]
    pub(super) fn find(&mut self, addr: A) -> Option<Key> {
        match self.last {
            Some((last, key)) if last == addr => Some(key),
            _ => {
                let key = *self.sessions.get(&addr)?;
                self.last = Some((addr, key));
                Some(key)
            }
        }
    }

    pub(super) fn insert(&mut self, addr: A, key: Key) {
        self.sessions.insert(addr, key);
        self.last = Some((addr, key));
    }

    /// Removes a peer whose session has ended, unless it has another by now. A table that has become much too large
    /// shrinks.
    pub(super) fn remove(&mut self, addr: A, is_alive: impl Fn(Key) -> bool) {
        if self.sessions.get(&addr).is_none_or(|key| is_alive(*key)) {
            return;
        }
        self.sessions.remove(&addr);
        self.last.take_if(|(last, _)| *last == addr);
        let most = (4 * self.sessions.len()).max(LEAST);
        if self.sessions.capacity() > 2 * most {
            self.sessions.shrink_to(most / 2);
        }
    }

    /// Removes all of them.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Key> + use<A> {
        self.last = None;
        std::mem::take(&mut self.sessions).into_values()
    }
}

/// A table of this many peers does not shrink.
const LEAST: usize = 1024;

/// The sessions that were silent for longest, for when one of them has to go.
///
/// A list is made of the eighth of all sessions that was heard least recently, and used until none is left that was not
/// heard since: so the next to go is always the one that was silent for longest, and finding it costs little more than
/// a look at one session.
#[derive(Debug, Default)]
pub(super) struct Idlest {
    /// When each was last heard, as it was when the list was made; the last is the idlest.
    list: Vec<(Tick, Key)>,
}

impl Idlest {
    /// Returns the session that was silent for longest, if there is any.
    pub(super) fn next<H, F, T>(&mut self, shard: &Shard<H, F, T>) -> Option<Key>
    where
        H: PacketHandler,
        F: Framing + Clone,
    {
        for _ in 0..2 {
            while let Some((heard, key)) = self.list.pop() {
                if shard.heard(key) == Some(heard) {
                    return Some(key);
                }
            }
            self.list.extend(shard.all_heard());
            keep_idlest(&mut self.list);
        }
        None
    }
}

/// Keeps an eighth of the list, the idlest last.
fn keep_idlest(list: &mut Vec<(Tick, Key)>) {
    let by_time = |(a, _): &(Tick, Key), (b, _): &(Tick, Key)| a.cmp(b);
    let most = list.len() / 8 + 1;
    if most < list.len() {
        list.select_nth_unstable_by(most, by_time);
        list.truncate(most);
        list.shrink_to(2 * most);
    }
    list.sort_unstable_by(|a, b| by_time(b, a));
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn key(slot: u32) -> Key {
        Key { slot, generation: 0 }
    }

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_peer_is_found_until_its_session_has_ended() {
        let mut peers = Peers::default();
        assert_eq!(peers.find(addr(1)), None);
        peers.insert(addr(1), key(1));
        peers.insert(addr(2), key(2));
        assert_eq!([1, 2, 2, 1].map(|port| peers.find(addr(port))), [1, 2, 2, 1].map(|slot| Some(key(slot))));
        peers.remove(addr(1), |_| false);
        assert_eq!((peers.find(addr(1)), peers.find(addr(2))), (None, Some(key(2))));
        peers.insert(addr(2), key(3));
        peers.remove(addr(2), |key| key.slot == 3);
        assert_eq!(peers.find(addr(2)), Some(key(3)), "its next session stays");
        peers.remove(addr(2), |_| false);
        assert_eq!(peers.find(addr(2)), None, "nor is it remembered as the last");
    }

    #[test]
    fn a_table_that_was_flooded_shrinks() {
        let mut peers = Peers::default();
        (1..20_000).for_each(|port| peers.insert(addr(port), key(port.into())));
        (1..20_000).for_each(|port| peers.remove(addr(port), |_| false));
        assert!(peers.sessions.capacity() <= 4 * LEAST, "{}", peers.sessions.capacity());
    }

    #[test]
    fn the_idlest_eighth_is_kept_the_idlest_last() {
        let mut list: Vec<_> = (0..80).map(|n| (Tick::from(n * 7 % 80), key(n))).collect();
        keep_idlest(&mut list);
        let times: Vec<Tick> = list.iter().map(|(time, _)| *time).collect();
        assert_eq!(times, (0..11).rev().collect::<Vec<_>>());
        keep_idlest(&mut Vec::new());
        let mut one = vec![(5, key(1))];
        keep_idlest(&mut one);
        assert_eq!(one, [(5, key(1))]);
    }
}
