//! What is counted, told to subscribers and logged, each in one place.

use std::time::Duration;

use crate::{
    addr::{Addr, Endpoints},
    contained::Contained,
    error::{CloseReason, Logged, RefusalCause},
    events::Event,
    id::{Key, SessionId},
    log::logged,
    session::ShardCore,
    time::{Nanos, SLOW_CALLBACK},
};

/// When a callback was called, if it is watched how long it takes.
#[must_use = "it ends with `end_callback`"]
pub(crate) struct Watch(Option<Begun>);

struct Begun {
    at: Nanos,
    /// What was slow before it.
    slow: Nanos,
}

impl ShardCore {
    /// A connection will never be an open session.
    pub(crate) fn report_refusal(
        &mut self,
        of: &Endpoints,
        cause: RefusalCause,
        reason: Option<&CloseReason>,
    ) {
        self.counters.count_refusal(cause);
        if self.reporter.hub.is_watched() {
            self.reporter.refused(&of.peer(), cause, reason);
        }
    }

    /// A session, or a connection that never became one, is over. `draining`: it was closing already.
    pub(crate) fn report_end(
        &mut self,
        session: SessionId,
        endpoints: &Endpoints,
        reason: &CloseReason,
        draining: bool,
    ) {
        let (now, kind) = (self.clock.now(), reason.kind());
        logged!(
            self.reporter.gate, now, SessionEnded DEBUG,
            %session, peer = %endpoints.peer(), ?kind, reason = %Logged(reason), draining, "session ended"
        );
    }

    /// An open session has ended.
    pub(crate) fn report_close(&mut self, session: SessionId, endpoints: &Endpoints, reason: &CloseReason) {
        self.counters.count_close(reason.kind());
        self.reporter.hub.tell(|| Event::Closed { session, peer: endpoints.peer(), reason: reason.clone() });
    }

    /// User code panicked for a session. `then` says what follows.
    #[cold]
    pub(crate) fn report_panic(
        &mut self,
        session: SessionId,
        peer: &Addr,
        panic: &CloseReason,
        then: &'static str,
    ) {
        let CloseReason::Panicked { callback, message } = panic else { return };
        self.counters.panics += 1;
        self.reporter.tell_panic(Some(session), callback, message);
        let now = self.clock.now();
        logged!(
            self.reporter.gate, now, Panicked ERROR,
            %session, %peer, reason = %Logged(panic), "{then}"
        );
    }

    /// User code that belongs to no session panicked. `then` says what follows.
    #[cold]
    pub(crate) fn report_shard_panic(&mut self, panic: &CloseReason, then: &'static str) {
        let CloseReason::Panicked { callback, message } = panic else { return };
        self.counters.panics += 1;
        self.reporter.panicked(self.clock.now(), callback, message, then);
    }

    /// Counts and reports the panic, if any, of dropping something that belonged to no session.
    pub(crate) fn count_discarded(&mut self, discarded: Result<(), String>) {
        if let Err(message) = discarded {
            self.counters.panics += 1;
            let then = "what a shard was given panicked when it was dropped";
            self.reporter.panicked(self.clock.now(), "drop", &message, then);
        }
    }

    /// Drops user data of a session.
    pub(crate) fn forget<R>(&mut self, session: SessionId, endpoints: &Endpoints, remains: Contained<R>) {
        if let Err(message) = remains.discard() {
            let panic = CloseReason::Panicked { callback: "drop", message };
            let then = "what was left of a session panicked when it was dropped";
            self.report_panic(session, &endpoints.peer(), &panic, then);
        }
    }

    /// A callback is about to be called, other than `on_packet`, which is watched by the visits of its session.
    #[inline]
    pub(crate) fn begin_callback(&mut self) -> Watch {
        if !self.clock.is_watched() {
            return Watch(None);
        }
        self.clock.read();
        Watch(Some(Begun { at: self.clock.read_at(), slow: self.clock.take_slow() }))
    }

    /// It has returned.
    #[inline]
    pub(crate) fn end_callback(&mut self, watch: Watch, session: Option<SessionId>, callback: &'static str) {
        let Watch(Some(begun)) = watch else { return };
        self.clock.read();
        self.clock.take_slow();
        let took = self.clock.read_at().saturating_sub(begun.at);
        self.clock.put_slow(begun.slow);
        if took > SLOW_CALLBACK {
            self.report_slow(session, callback, took);
        }
    }

    /// The clock was read at the end of a visit of this session: what took long before that was `on_packet`.
    #[cold]
    pub(crate) fn end_visit(&mut self, key: Key) {
        let took = self.clock.take_slow();
        if took > 0 {
            self.report_slow(Some(self.id_of(key)), "on_packet", took);
        }
    }

    /// A call took so long.
    pub(crate) fn report_slow(&self, session: Option<SessionId>, callback: &'static str, took: Nanos) {
        let (shard, took) = (self.shard, Duration::from_nanos(took));
        self.reporter.hub.tell(|| Event::SlowCallback { shard, session, callback, took });
    }

    /// A turn begins: calls are watched if a subscriber wants to know.
    #[inline]
    pub(crate) fn begin_watching(&mut self) {
        self.clock.watch(self.reporter.hub.is_watched());
    }
}
