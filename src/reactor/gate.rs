use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::peers::Idlest;
use crate::{
    addr::Addr,
    contained::Contained,
    error::{RefusalCause, panic_message},
    events::Reporter,
    framing::LengthPrefix,
    handler::PacketHandler,
    id::{Key, ShardId},
    metrics::Counters,
    shard::{Beyond, Peer, Shard},
    strategy::ForkingStrategy,
    sync::{Admission, AdmissionPermit, Full},
    time::Tick,
};

/// Who may become a peer of a shard.
pub(crate) struct Gate {
    admission: Arc<Admission>,
    /// The shard, as the counts know it.
    here: ShardId,
    /// Peers that the shard may have.
    most_here: usize,
    beyond: Beyond,
    /// On the thread of the acceptor, until the service stops.
    strategy: Option<Contained<Box<dyn ForkingStrategy>>>,
    idlest: Idlest,
    reporter: Reporter,
}

impl Gate {
    pub(crate) fn new(
        admission: Arc<Admission>,
        here: ShardId,
        most_here: usize,
        beyond: Beyond,
        strategy: Option<Contained<Box<dyn ForkingStrategy>>>,
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
    pub(super) fn choose<H: PacketHandler>(&mut self, shard: &Shard<H, LengthPrefix, Peer>) -> Option<Key> {
        (self.beyond == Beyond::ForgetIdlest).then(|| self.idlest.next(shard))?
    }

    /// Nobody is admitted any more.
    pub(super) fn stop(&mut self, now: Tick, counters: &mut Counters) {
        if let Some(strategy) = self.strategy.take() {
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
