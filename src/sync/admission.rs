use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use super::handshakes::{HandshakePermit, Handshakes};
use crate::{
    addr::{Addr, Networks},
    id::ShardId,
};

/// The connection counts and limits by which acceptors admit connections, shared by all threads of a server.
///
/// A connection is counted from [`admit`](Self::admit) until its permit is dropped, on whatever thread that is.
pub(crate) struct Admission {
    counts: Arc<Counts>,
    /// One for each standing shard, shared by its sessions; then that of the forked ones, and that of the detached.
    shares: Box<[Arc<Share>]>,
    /// Proxies, whose connections count for the clients that they are found to come from.
    proxies: Networks,
    /// Set if connections begin with a handshake.
    handshakes: Option<Arc<Handshakes>>,
}

/// A connection's place in the counts: it travels with the connection, and is dropped after its socket is closed.
#[derive(Debug)]
pub(crate) struct AdmissionPermit {
    /// `None` once it is deposited.
    share: Option<Arc<Share>>,
    /// Set if connections are counted per peer.
    peer: Option<IpAddr>,
    /// Set while a handshake is to come.
    handshake: Option<HandshakePermit>,
}

impl AdmissionPermit {
    /// Takes the place among the handshakes, for as long as the handshake lasts.
    pub(crate) fn take_handshake(&mut self) -> Option<HandshakePermit> {
        self.handshake.take()
    }
}

/// The permits of a shard's sessions, by the slots of these. Without a limit per peer they are all alike, and a session
/// takes no memory here.
#[derive(Debug, Default)]
pub(crate) struct DepositedPermits {
    share: Option<Arc<Share>>,
    len: usize,
    peers: HashMap<u32, IpAddr>,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Server,
    Peer,
}

/// Connections per shard and in all; per peer address only where there is a limit on it.
#[derive(Debug)]
struct Counts {
    shards: Box<[AtomicUsize]>,
    forked: AtomicUsize,
    detached: AtomicUsize,
    total: AtomicUsize,
    max_total: usize,
    peers: Option<Peers>,
}

#[derive(Debug)]
struct Peers {
    max: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// The counts, as the permits of one shard see them.
#[derive(Debug)]
struct Share {
    counts: Arc<Counts>,
    place: Place,
}

/// Where a connection lives.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// On a standing shard.
    Shard(ShardId),
    /// On a shard of its own.
    Forked,
    /// With the strategy.
    Detached,
}

impl Admission {
    /// Creates the counts for this many standing shards.
    pub(crate) fn new(standing: usize, max_total: usize, max_per_peer: Option<usize>) -> Self {
        let counts = Arc::new(Counts {
            shards: (0..standing).map(|_| AtomicUsize::new(0)).collect(),
            forked: AtomicUsize::new(0),
            detached: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
            max_total,
            peers: max_per_peer.map(|max| Peers { max, counts: Mutex::default() }),
        });
        let shards = (0..standing).map(|shard| Place::Shard(ShardId(shard as u32)));
        let places = shards.chain([Place::Forked, Place::Detached]);
        let shares = places.map(|place| Arc::new(Share { counts: counts.clone(), place }));
        Self { shares: shares.collect(), counts, proxies: Networks::default(), handshakes: None }
    }

    /// Connections begin with a handshake, of which so many may be under way.
    pub(crate) fn with_handshakes(mut self, max: usize) -> Self {
        self.handshakes = Some(Handshakes::new(max));
        self
    }

    /// Returns `true` if as many handshakes are under way as may be.
    pub(crate) fn is_shaking_hands(&self) -> bool {
        self.handshakes.as_ref().is_some_and(|handshakes| handshakes.is_full())
    }

    /// As [`admit`](Self::admit), of a connection that was accepted: its handshake counts too.
    pub(crate) fn admit_accepted(
        &self,
        shard: Option<ShardId>,
        peer: &Addr,
    ) -> Result<AdmissionPermit, Full> {
        let mut permit = self.admit(shard, peer)?;
        permit.handshake = self.handshakes.as_ref().map(Handshakes::begin);
        Ok(permit)
    }

    /// Connections from there count for no peer until it is known from whom they come.
    pub(crate) fn behind(mut self, proxies: Networks) -> Self {
        self.proxies = proxies;
        self
    }

    pub(crate) fn is_full(&self) -> bool {
        self.total() >= self.counts.max_total
    }

    /// Returns `true` if the peer has as many connections as one peer may have.
    pub(crate) fn peer_is_full(&self, peer: &Addr) -> bool {
        let counted = self.counted(peer);
        counted.is_some_and(|(peers, ip)| peers.lock().get(&ip).is_some_and(|count| *count >= peers.max))
    }

    /// Returns the address for which a connection counts, and where, if there is a limit.
    fn counted(&self, peer: &Addr) -> Option<(&Peers, IpAddr)> {
        let (peers, ip) = (self.counts.peers.as_ref()?, counted_ip(peer)?);
        (!self.proxies.contain(peer)).then_some((peers, ip))
    }

    /// Counts one more session on that standing shard, or on a forked one (`None`), unless that would exceed a limit.
    pub(crate) fn admit(&self, shard: Option<ShardId>, peer: &Addr) -> Result<AdmissionPermit, Full> {
        self.enter(shard.map_or(Place::Forked, Place::Shard), peer)
    }

    /// Counts one more connection that the strategy takes, unless that would exceed a limit.
    pub(crate) fn admit_detached(&self, peer: &Addr) -> Result<AdmissionPermit, Full> {
        self.enter(Place::Detached, peer)
    }

    /// Counts what stays on a thread of its own without a connection, whatever the limits: the thread is there.
    pub(crate) fn keep_forked(&self) -> AdmissionPermit {
        self.counts.total.fetch_add(1, Relaxed);
        self.permit(Place::Forked, None)
    }

    fn enter(&self, place: Place, peer: &Addr) -> Result<AdmissionPermit, Full> {
        let counts = &*self.counts;
        let one_more = |total: usize| (total < counts.max_total).then_some(total + 1);
        counts.total.fetch_update(Relaxed, Relaxed, one_more).map_err(|_| Full::Server)?;
        let peer = match self.counted(peer) {
            Some((peers, ip)) if peers.enter(ip) => Some(ip),
            Some(_) => {
                counts.total.fetch_sub(1, Relaxed);
                return Err(Full::Peer);
            }
            None => None,
        };
        Ok(self.permit(place, peer))
    }

    /// The total and the peer are counted already.
    fn permit(&self, place: Place, peer: Option<IpAddr>) -> AdmissionPermit {
        self.counts.of(place).fetch_add(1, Relaxed);
        let share = self.shares.get(match place {
            Place::Shard(shard) => shard.index(),
            Place::Forked => self.standing(),
            Place::Detached => self.standing() + 1,
        });
        AdmissionPermit { share: share.cloned(), peer, handshake: None }
    }

    /// How many standing shards there are.
    pub(crate) fn standing(&self) -> usize {
        self.counts.shards.len()
    }

    /// Sessions of a standing shard; `None` if there is no such shard.
    pub(crate) fn sessions(&self, shard: ShardId) -> Option<usize> {
        self.counts.shards.get(shard.index()).map(|sessions| sessions.load(Relaxed))
    }

    pub(crate) fn forked(&self) -> usize {
        self.counts.forked.load(Relaxed)
    }

    pub(crate) fn detached(&self) -> usize {
        self.counts.detached.load(Relaxed)
    }

    pub(crate) fn total(&self) -> usize {
        self.counts.total.load(Acquire)
    }
}

impl DepositedPermits {
    /// Takes the permit of the session in this slot.
    pub(crate) fn deposit(&mut self, slot: u32, mut permit: AdmissionPermit) {
        let Some(share) = permit.share.take() else { return };
        debug_assert!(self.share.as_ref().is_none_or(|own| Arc::ptr_eq(own, &share)), "of another shard");
        self.share = Some(share);
        self.len += 1;
        if let Some(peer) = permit.peer {
            self.peers.insert(slot, peer);
        }
    }

    /// Counts the session in this slot for `peer` from now on, who it is found to come from.
    ///
    /// # Errors
    /// Returns the limit if that peer has as many connections; then the session counts as before.
    pub(crate) fn recount(&mut self, slot: u32, peer: &Addr) -> Result<(), usize> {
        let peers = self.share.as_ref().and_then(|share| share.counts.peers.as_ref());
        let (Some(peers), Some(ip)) = (peers, counted_ip(peer)) else { return Ok(()) };
        if self.peers.get(&slot) == Some(&ip) {
            return Ok(());
        }
        if !peers.enter(ip) {
            return Err(peers.max);
        }
        if let Some(before) = self.peers.insert(slot, ip) {
            peers.leave(before);
        }
        Ok(())
    }

    /// Returns the permit of the session in this slot, which must have been deposited.
    pub(crate) fn withdraw(&mut self, slot: u32) -> AdmissionPermit {
        debug_assert!(self.len > 0, "slot {slot} has no permit");
        self.len -= 1;
        // An empty table, too, would hash the key first.
        let peer = if self.peers.is_empty() { None } else { self.peers.remove(&slot) };
        AdmissionPermit { share: self.share.clone(), peer, handshake: None }
    }
}

impl Drop for DepositedPermits {
    fn drop(&mut self) {
        let slots: Vec<u32> = self.peers.keys().copied().collect();
        slots.into_iter().for_each(|slot| drop(self.withdraw(slot)));
        while self.len > 0 {
            drop(self.withdraw(0));
        }
    }
}

impl Drop for AdmissionPermit {
    fn drop(&mut self) {
        let Some(share) = &self.share else { return };
        let Share { counts, place } = &**share;
        counts.of(*place).fetch_sub(1, Relaxed);
        if let (Some(peers), Some(ip)) = (&counts.peers, self.peer) {
            peers.leave(ip);
        }
        // Last: a reader that sees that a session has left finds its place on the shard and its peer's share free as well.
        counts.total.fetch_sub(1, Release);
    }
}

impl Counts {
    fn of(&self, place: Place) -> &AtomicUsize {
        match place {
            Place::Shard(shard) => self.shards.get(shard.index()).unwrap_or(&self.forked),
            Place::Forked => &self.forked,
            Place::Detached => &self.detached,
        }
    }
}

/// An IPv4 address counts as the same peer within IPv6 (`::ffff:10.0.0.1`): a listener of both families, and a proxy, may
/// name it in either way.
fn counted_ip(peer: &Addr) -> Option<IpAddr> {
    peer.ip().map(|ip| ip.to_canonical())
}

impl Peers {
    /// Counts one more connection of this peer if there is room for it. Returns `true` if so.
    fn enter(&self, peer: IpAddr) -> bool {
        let mut counts = self.lock();
        let count = counts.entry(peer).or_default();
        let has_room = *count < self.max;
        *count += usize::from(has_room);
        has_room
    }

    fn leave(&self, peer: IpAddr) {
        let mut counts = self.lock();
        if let Some(count) = counts.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&peer);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    type Tested = Result<(), std::net::AddrParseError>;

    #[test]
    fn limits_are_exact_however_many_enter_at_once() -> Tested {
        for (total, per_peer, expected) in [(100, None, 100), (500, Some(100), 100), (100, Some(500), 100)] {
            let admission = Admission::new(4, total, per_peer);
            let peer = Addr::Ip("10.0.0.1:1000".parse()?);
            let permits = Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                for shard in 0..4 {
                    let (admission, peer, permits) = (&admission, &peer, &permits);
                    scope.spawn(move || {
                        let admitted =
                            (0..1_000).filter_map(|_| admission.admit(Some(ShardId(shard)), peer).ok());
                        let admitted: Vec<_> = admitted.collect();
                        permits.lock().unwrap_or_else(PoisonError::into_inner).extend(admitted);
                    });
                }
            });
            let permits = permits.into_inner().unwrap_or_else(PoisonError::into_inner);
            assert_eq!((permits.len(), admission.total()), (expected, expected));
        }
        Ok(())
    }

    #[test]
    fn a_reader_that_sees_that_a_session_has_left_finds_its_place_free() -> Tested {
        const TIMES: usize = 2_000;
        let admission = Admission::new(1, 10, Some(1));
        let peer = Addr::Ip("10.0.0.1:1000".parse()?);
        let (sender, permits) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || permits.into_iter().for_each(drop::<AdmissionPermit>));
            for _ in 0..TIMES {
                let permit = admission.admit(Some(ShardId(0)), &peer);
                assert!(permit.is_ok_and(|permit| sender.send(permit).is_ok()), "its place is taken");
                while admission.total() > 0 {
                    std::thread::yield_now();
                }
                assert_eq!(admission.sessions(ShardId(0)), Some(0));
            }
            drop(sender);
        });
        Ok(())
    }

    #[test]
    fn a_peer_is_full_at_its_limit_and_forgotten_when_it_left() -> Tested {
        let admission = Admission::new(1, 2, Some(2));
        let peer = Addr::Ip("10.0.0.1:1000".parse()?);
        let same = Addr::Ip("10.0.0.1:2000".parse()?);
        let first = admission.admit(Some(ShardId(0)), &peer);
        assert!(!admission.peer_is_full(&same) && !admission.is_full());
        let second = admission.admit(None, &same);
        assert!(admission.peer_is_full(&peer) && admission.is_full());
        assert_eq!((admission.sessions(ShardId(0)), admission.forked()), (Some(1), 1));
        let third = admission.admit(Some(ShardId(0)), &peer);
        assert_eq!(third.err(), Some(Full::Server), "the total is at its limit");
        assert!(first.is_ok() && second.is_ok());
        drop((first, second));
        assert_eq!((admission.total(), admission.forked()), (0, 0));
        assert!(admission.counts.peers.as_ref().is_some_and(|peers| peers.lock().is_empty()));
        Ok(())
    }

    #[test]
    fn a_detached_connection_counts_for_the_limits_and_on_no_shard() -> Tested {
        let admission = Admission::new(1, 2, Some(1));
        let (peer, other) = (Addr::Ip("10.0.0.1:1000".parse()?), Addr::Ip("10.0.0.2:1000".parse()?));
        let permits = [admission.admit_detached(&peer), admission.admit_detached(&other)];
        assert!(permits.iter().all(Result::is_ok) && admission.peer_is_full(&peer) && admission.is_full());
        assert_eq!((admission.detached(), admission.forked()), (2, 0));
        assert_eq!(admission.sessions(ShardId(0)), Some(0));
        drop(permits);
        assert_eq!((admission.detached(), admission.total()), (0, 0));
        assert!(!admission.peer_is_full(&peer));
        Ok(())
    }

    #[test]
    fn a_connection_from_a_proxy_counts_for_no_peer_until_its_own_is_known() -> Result<(), Box<dyn Error>> {
        let admission = Admission::new(1, 10, Some(1)).behind(Networks::parse(["10.0.0.0/8"])?);
        let (proxy, client) = (Addr::Ip("10.0.0.1:1000".parse()?), Addr::Ip("192.0.2.7:4711".parse()?));
        let mut permits = DepositedPermits::default();
        for slot in 0..3 {
            permits.deposit(slot, admission.admit(Some(ShardId(0)), &proxy).map_err(|_| "it is full")?);
        }
        assert!(!admission.peer_is_full(&proxy));
        assert_eq!((permits.recount(0, &client), permits.recount(1, &client)), (Ok(()), Err(1)));
        assert_eq!(permits.recount(0, &client), Ok(()), "it is counted already");
        assert!(admission.peer_is_full(&client));
        drop(permits.withdraw(0));
        assert_eq!(permits.recount(1, &client), Ok(()));
        let other = Addr::Ip("192.0.2.8:4711".parse()?);
        assert_eq!(permits.recount(1, &other), Ok(()));
        assert!(!admission.peer_is_full(&client) && admission.peer_is_full(&other));
        drop(permits);
        assert_eq!(admission.total(), 0);
        assert!(admission.counts.peers.as_ref().is_some_and(|peers| peers.lock().is_empty()));
        Ok(())
    }

    #[test]
    fn an_ipv4_peer_counts_as_the_same_within_ipv6() -> Result<(), Box<dyn Error>> {
        let admission = Admission::new(1, 10, Some(1)).behind(Networks::parse(["10.0.0.0/8"])?);
        let (v4, mapped) = (Addr::Ip("192.0.2.7:1".parse()?), Addr::Ip("[::ffff:192.0.2.7]:2".parse()?));
        let permit = admission.admit(Some(ShardId(0)), &v4).map_err(|_| "it is full")?;
        assert!(admission.peer_is_full(&mapped));
        assert!(matches!(admission.admit(Some(ShardId(0)), &mapped), Err(Full::Peer)));
        let proxied = admission.admit(Some(ShardId(0)), &Addr::Ip("10.0.0.1:1".parse()?));
        let mut permits = DepositedPermits::default();
        permits.deposit(0, proxied.map_err(|_| "it is full")?);
        assert_eq!(permits.recount(0, &mapped), Err(1));
        drop(permit);
        assert_eq!((permits.recount(0, &mapped), permits.recount(0, &v4)), (Ok(()), Ok(())));
        Ok(())
    }

    #[test]
    fn a_peer_that_is_refused_takes_no_place() -> Tested {
        let admission = Admission::new(1, 10, Some(1));
        let peer = Addr::Ip("10.0.0.1:1000".parse()?);
        let permit = admission.admit(Some(ShardId(0)), &peer);
        assert!(permit.is_ok());
        assert_eq!(admission.admit(None, &peer).err(), Some(Full::Peer));
        assert_eq!((admission.total(), admission.forked()), (1, 0));
        Ok(())
    }

    #[test]
    fn a_permit_counts_while_it_is_deposited_and_until_it_is_dropped_after_that() -> Tested {
        for max_per_peer in [None, Some(3)] {
            let admission = Admission::new(1, 10, max_per_peer);
            let peer = Addr::Ip("10.0.0.1:1000".parse()?);
            let mut permits = DepositedPermits::default();
            for slot in 0..3 {
                let permit = admission.admit(Some(ShardId(0)), &peer);
                permits.deposit(slot, permit.expect("there is room"));
            }
            assert_eq!(admission.peer_is_full(&peer), max_per_peer.is_some());
            let permit = permits.withdraw(1);
            assert_eq!(admission.total(), 3);
            drop(permit);
            assert_eq!((admission.total(), admission.sessions(ShardId(0))), (2, Some(2)));
            assert!(!admission.peer_is_full(&peer));
            drop(permits);
            assert_eq!((admission.total(), admission.sessions(ShardId(0))), (0, Some(0)));
            let peers = admission.counts.peers.as_ref();
            assert!(peers.is_none_or(|peers| peers.lock().is_empty()));
        }
        Ok(())
    }
}
