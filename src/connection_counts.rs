//! Who is here: the numbers that acceptors decide by, shared by all threads of a server.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use crate::addr::Addr;

/// Sessions per shard and in all; per peer address only where there is a limit on it.
///
/// Entered by the acceptor before the connection is handed over, left by the shard when its socket is closed.
#[derive(Debug)]
pub(crate) struct ConnectionCounts {
    shards: Box<[AtomicUsize]>,
    forked: AtomicUsize,
    total: AtomicUsize,
    max_total: usize,
    peers: Option<Peers>,
}

#[derive(Debug)]
struct Peers {
    max: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// What has no room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Server,
    Peer,
}

impl ConnectionCounts {
    /// For this many standing shards.
    pub(crate) fn new(shards: usize, max_total: usize, max_per_peer: Option<usize>) -> Self {
        Self {
            shards: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            forked: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
            max_total,
            peers: max_per_peer.map(|max| Peers { max, counts: Mutex::default() }),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.total() >= self.max_total
    }

    /// Whether the peer has as many connections as one may have.
    pub(crate) fn peer_is_full(&self, peer: &Addr) -> bool {
        match (&self.peers, peer.ip()) {
            (Some(peers), Some(ip)) => peers.lock().get(&ip).is_some_and(|count| *count >= peers.max),
            _ => false,
        }
    }

    /// One more session on that standing shard, or on a forked one (`None`), unless that would be one too many.
    pub(crate) fn enter(&self, shard: Option<usize>, peer: &Addr) -> Result<(), Full> {
        let one_more = |total: usize| (total < self.max_total).then_some(total + 1);
        self.total.fetch_update(Relaxed, Relaxed, one_more).map_err(|_| Full::Server)?;
        if let (Some(peers), Some(ip)) = (&self.peers, peer.ip()) {
            let mut counts = peers.lock();
            let count = counts.entry(ip).or_default();
            if *count >= peers.max {
                self.total.fetch_sub(1, Relaxed);
                return Err(Full::Peer);
            }
            *count += 1;
        }
        self.load(shard).fetch_add(1, Relaxed);
        Ok(())
    }

    /// One fewer.
    pub(crate) fn leave(&self, shard: Option<usize>, peer: &Addr) {
        self.load(shard).fetch_sub(1, Relaxed);
        if let (Some(peers), Some(ip)) = (&self.peers, peer.ip()) {
            let mut counts = peers.lock();
            if let Some(count) = counts.get_mut(&ip) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&ip);
                }
            }
        }
        // Last: a reader that sees that a session has left finds its place on the shard and its peer's share free as well.
        self.total.fetch_sub(1, Release);
    }

    pub(crate) fn shards(&self) -> &[AtomicUsize] {
        &self.shards
    }

    pub(crate) fn forked(&self) -> usize {
        self.forked.load(Relaxed)
    }

    pub(crate) fn total(&self) -> usize {
        self.total.load(Acquire)
    }

    fn load(&self, shard: Option<usize>) -> &AtomicUsize {
        shard.and_then(|shard| self.shards.get(shard)).unwrap_or(&self.forked)
    }
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_exact_however_many_enter_at_once() -> Result<(), std::net::AddrParseError> {
        for (total, per_peer, expected) in [(100, None, 100), (500, Some(100), 100), (100, Some(500), 100)] {
            let census = ConnectionCounts::new(4, total, per_peer);
            let peer = Addr::Ip("10.0.0.1:1000".parse()?);
            let entered = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for shard in 0..4 {
                    let (census, peer, entered) = (&census, &peer, &entered);
                    scope.spawn(move || {
                        let got_in = (0..1_000).filter(|_| census.enter(Some(shard), peer).is_ok()).count();
                        entered.fetch_add(got_in, Relaxed);
                    });
                }
            });
            assert_eq!((entered.into_inner(), census.total()), (expected, expected));
        }
        Ok(())
    }

    #[test]
    fn who_sees_that_a_session_has_left_finds_its_place_free() -> Result<(), std::net::AddrParseError> {
        const TIMES: usize = 2_000;
        let census = ConnectionCounts::new(1, 10, Some(1));
        let peer = Addr::Ip("10.0.0.1:1000".parse()?);
        let entered = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for time in 1..=TIMES {
                    while entered.load(Acquire) < time {
                        std::thread::yield_now();
                    }
                    census.leave(Some(0), &peer);
                }
            });
            for time in 1..=TIMES {
                assert_eq!(census.enter(Some(0), &peer), Ok(()), "its place is taken");
                entered.store(time, Release);
                while census.total() > 0 {
                    std::thread::yield_now();
                }
                assert_eq!(census.shards()[0].load(Relaxed), 0);
            }
        });
        Ok(())
    }

    #[test]
    fn a_peer_is_full_at_its_limit_and_forgotten_when_it_left() -> Result<(), std::net::AddrParseError> {
        let census = ConnectionCounts::new(1, 2, Some(2));
        let peer = Addr::Ip("10.0.0.1:1000".parse()?);
        let same = Addr::Ip("10.0.0.1:2000".parse()?);
        assert_eq!(census.enter(Some(0), &peer), Ok(()));
        assert!(!census.peer_is_full(&same) && !census.is_full());
        assert_eq!(census.enter(None, &same), Ok(()));
        assert!(census.peer_is_full(&peer) && census.is_full());
        assert_eq!(census.enter(Some(0), &peer), Err(Full::Server), "the total is at its limit");
        census.leave(None, &same);
        census.leave(Some(0), &peer);
        assert_eq!((census.total(), census.forked()), (0, 0));
        assert!(census.peers.as_ref().is_some_and(|peers| peers.lock().is_empty()));
        Ok(())
    }
}
