use std::sync::Arc;

use super::{Event, Hub};
use crate::{
    addr::Addr,
    error::{CloseReason, Logged, RefusalCause},
    id::{SessionId, ShardId},
    log::{LogGate, logged},
    time::Tick,
};

/// By which a shard, or its acceptor, tells subscribers and the log what happens.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    pub(crate) shard: ShardId,
    pub(crate) hub: Arc<Hub>,
    pub(crate) gate: Arc<LogGate>,
}

impl Reporter {
    /// With a gate of its own.
    pub(crate) fn new(shard: ShardId, hub: Arc<Hub>) -> Self {
        Self { shard, hub, gate: Arc::new(LogGate::new()) }
    }

    /// A connection was refused before a shard had it. One that a shard had is logged as a session that has ended.
    pub(crate) fn turned_away(&self, now: Tick, peer: &Addr, cause: RefusalCause) {
        self.refused(peer, cause, None);
        logged!(self.gate, now, Refused DEBUG, shard = %self.shard, %peer, cause = cause.name(), "connection refused");
    }

    pub(crate) fn refused(&self, peer: &Addr, cause: RefusalCause, reason: Option<&CloseReason>) {
        self.hub.tell(|| Event::Refused { peer: peer.clone(), cause, reason: reason.cloned() });
    }

    /// User code that belongs to no session panicked.
    pub(crate) fn panicked(&self, now: Tick, callback: &'static str, message: &str, what: &'static str) {
        self.tell_panic(None, callback, message);
        logged!(self.gate, now, Panicked ERROR, shard = %self.shard, panic = %Logged(&message), "{what}");
    }

    pub(crate) fn tell_panic(&self, session: Option<SessionId>, callback: &'static str, message: &str) {
        let shard = self.shard;
        self.hub.tell(|| Event::Panicked { shard, session, callback, message: message.to_owned() });
    }
}
