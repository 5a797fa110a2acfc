use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{dispatch::DispatchDials, peers::Idlest};
use crate::{
    addr::Addr,
    contained::Contained,
    error::{RefusalCause, panic_message},
    events::Reporter,
    framing::Framing,
    handler::PacketHandler,
    id::{Key, ShardId},
    metrics::Counters,
    shard::{Beyond, Shard},
    strategy::ForkingStrategy,
    sync::{Admission, AdmissionPermit, Full},
    time::Tick,
};

/// A strategy, and what hands over what it has placed elsewhere.
pub(crate) type Placing = (Contained<Box<dyn ForkingStrategy>>, Box<dyn DispatchDials>);

/// Who may become a peer of a shard.
pub(crate) struct Gate {
    pub(super) admission: Arc<Admission>,
    /// The shard, as the counts know it.
    pub(super) here: ShardId,
    /// Peers that the shard may have.
    most_here: usize,
    beyond: Beyond,
    /// On the thread of the acceptor, until the service stops: who places dials, and hands them over.
    pub(super) strategy: Option<Placing>,
    idlest: Idlest,
    reporter: Reporter,
}

impl Gate {
    pub(crate) fn new(
        admission: Arc<Admission>,
        here: ShardId,
        most_here: usize,
        beyond: Beyond,
        strategy: Option<Placing>,
        reporter: Reporter,
    ) -> Self {
        Self { admission, here, most_here, beyond, strategy, idlest: Idlest::default(), reporter }
    }

    /// Counts a new peer, if there is room for it.
    pub(super) fn admit(&self, addr: SocketAddr) -> Result<AdmissionPermit, RefusalCause> {
        let addr = Addr::Ip(addr);
        // Asked first: nobody is to be forgotten for a peer that gets no place in the end.
        if self.admission.peer_is_full(&addr) {
            return Err(RefusalCause::PeerLimit);
        }
        if self.admission.sessions(self.here).is_some_and(|sessions| sessions >= self.most_here) {
            return Err(RefusalCause::Full);
        }
        self.admission.admit(Some(self.here), &addr).map_err(|full| match full {
            Full::Server => RefusalCause::Full,
            Full::Peer => RefusalCause::PeerLimit,
        })
    }

    /// Returns the session that is to end so that another has room, if there is one.
    pub(super) fn choose<H, F, T>(&mut self, shard: &Shard<H, F, T>) -> Option<Key>
    where
        H: PacketHandler,
        F: Framing + Clone,
    {
        (self.beyond == Beyond::ForgetIdlest).then(|| self.idlest.next(shard))?
    }

    /// Nobody is admitted any more.
    pub(super) fn stop(&mut self, now: Tick, counters: &mut Counters) {
        if let Some((strategy, _)) = self.strategy.take() {
            stop_strategy(strategy, &self.reporter, now, counters);
        }
    }
}

/// Tells the strategy that nobody is accepted any more, and drops it.
pub(super) fn stop_strategy(
    mut strategy: Contained<Box<dyn ForkingStrategy>>,
    reporter: &Reporter,
    now: Tick,
    counters: &mut Counters,
) {
    let stopped = catch_unwind(AssertUnwindSafe(|| strategy.on_stop())).map_err(panic_message);
    for panic in [stopped, strategy.discard()].into_iter().filter_map(Result::err) {
        counters.panics += 1;
        let then = "the forking strategy panicked when accepting stopped";
        reporter.panicked(now, "on_stop", &panic, then);
    }
}
