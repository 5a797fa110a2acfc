use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    Dispatch, HandOverError, Sys,
    accept_failure::{Failure, classify, copy_of},
    gate::stop_strategy,
    token::listener_token,
};
use crate::{
    addr::{Addr, Endpoints, NewConnection},
    contained::Contained,
    error::{RefusalCause, panic_message},
    events::{Event, Reporter},
    id::ShardId,
    log::logged,
    metrics::Counters,
    shard::Incoming,
    strategy::{Detached, ForkingStrategy, Placement, ShardLoads},
    sync::{Admission, Full},
    time::Tick,
};

/// Connections accepted in one turn; the rest follow in the next.
const BUDGET: usize = 64;
/// How long accepting pauses when the system has no descriptor or no memory for another connection (milliseconds).
const PAUSE: Tick = 100;
/// How long it pauses when as many handshakes are under way as may be: about as long as one of them takes (milliseconds).
const HANDSHAKE_PAUSE: Tick = 2;
/// How many connections in a row a listener may fail to accept before it pauses: as many as one turn accepts. Under a
/// security policy that forbids accepting, every one fails, for ever.
const FAILURES: u32 = BUDGET as u32;
const NOT_HANDED_OVER: &str = "cannot hand over an accepted connection";
/// At most one log line about that in this time (milliseconds).
const LOG_INTERVAL: Tick = 1000;

/// Accepts connections and hands each to the shard that it is placed on.
///
/// ```text
/// Ready ──nothing waits──▶ Idle ──event──▶ Ready
///   └──out of descriptors, server full──▶ Paused ──timer──▶ Ready
/// ```
///
/// A timer must end the pause: an edge-triggered listener that failed gets no second event, and would never accept
/// the clients that wait. A listener that fails again and again pauses alone, see [`FAILURES`].
pub(crate) struct Acceptor<Y: Sys> {
    listeners: Vec<ListenerState<Y::Listener>>,
    pub(super) strategy: Contained<Box<dyn ForkingStrategy>>,
    pub(super) dispatch: Box<dyn Dispatch<Y::Stream>>,
    pub(super) admission: Arc<Admission>,
    /// The shard of this acceptor's own thread.
    pub(super) here: ShardId,
    /// A reserve descriptor, released while the process is out of them so that a handler or a log still finds one.
    spare: Option<Y::Spare>,
    /// Accepted, and waiting until its own thread can be started, or until the server has room again.
    held: Option<Accepted<Y::Stream>>,
    /// For other standing shards, each with what was accepted for it in this turn: at most [`BUDGET`] in all, and none
    /// between turns. The buffers are kept.
    outgoing: Vec<(ShardId, Vec<Incoming<Y::Stream>>)>,
    now: Tick,
    paused_until: Option<Tick>,
    logged: Option<Tick>,
    budget: usize,
    /// The listener to try next.
    next: usize,
    full: bool,
    /// Subscribers were told that accepting pauses.
    is_paused: bool,
    reporter: Reporter,
    failure: Option<io::Error>,
    /// A listener was ready in this turn, or something was left of the turn before.
    is_active: bool,
}

/// A connection that was not admitted yet.
struct Accepted<T> {
    io: T,
    endpoints: Endpoints,
}

/// Where a connection is to live.
pub(crate) enum Placed<T> {
    /// On this thread.
    Here(Incoming<T>),
    /// On another one, or with the strategy.
    Elsewhere,
}

/// Where a connection goes.
#[derive(Debug, Clone, Copy)]
enum Destination {
    /// A standing shard.
    Shard(ShardId),
    /// A shard of its own.
    Fork,
    /// The strategy.
    Strategy,
}

struct ListenerState<L> {
    listener: L,
    /// Its number in its token. Unlike its index in the list, it does not change when another listener fails.
    number: usize,
    /// `None` if the address is a wildcard: then each connection has to be asked for its local address.
    local: Option<Addr>,
    ready: bool,
    /// Failed calls in a row.
    failures: u32,
    rests_until: Option<Tick>,
}

impl<L> ListenerState<L> {
    fn is_to_be_asked(&self) -> bool {
        self.ready && self.rests_until.is_none()
    }
}

/// What an acceptor is made of.
pub(crate) struct AcceptorConfig<Y: Sys> {
    pub(crate) listeners: Vec<(Y::Listener, Addr)>,
    pub(crate) strategy: Contained<Box<dyn ForkingStrategy>>,
    pub(crate) dispatch: Box<dyn Dispatch<Y::Stream>>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) here: ShardId,
    /// The number of its service on this thread, which its tokens carry.
    pub(crate) service: u8,
    pub(crate) reporter: Reporter,
}

impl<Y: Sys> Acceptor<Y> {
    /// Registers the listeners.
    pub(crate) fn new(sys: &mut Y, config: AcceptorConfig<Y>) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for (at, (mut listener, local)) in config.listeners.into_iter().enumerate() {
            sys.register_listener(&mut listener, listener_token(config.service, at))?;
            let wildcard = local.ip().is_some_and(|ip| ip.is_unspecified());
            let local = (!wildcard).then_some(local);
            listeners.push(ListenerState {
                listener,
                number: at,
                local,
                ready: true,
                failures: 0,
                rests_until: None,
            });
        }
        Ok(Self {
            listeners,
            strategy: config.strategy,
            dispatch: config.dispatch,
            admission: config.admission,
            here: config.here,
            spare: sys.spare().ok(),
            held: None,
            outgoing: Vec::new(),
            now: 0,
            paused_until: None,
            logged: None,
            budget: BUDGET,
            next: 0,
            full: false,
            is_paused: false,
            reporter: config.reporter,
            failure: None,
            is_active: true,
        })
    }

    /// Closes the listeners.
    pub(crate) fn stop(mut self, counters: &mut Counters) {
        self.listeners.clear();
        if let Some(held) = self.held.take() {
            self.turn_away(&held.endpoints.peer(), RefusalCause::Shutdown, counters);
        }
        stop_strategy(self.strategy, &self.reporter, self.now, counters);
    }

    /// Called when a listener has an event.
    pub(crate) fn handle_ready(&mut self, listener: usize) {
        if let Some(state) = self.listeners.iter_mut().find(|state| state.number == listener) {
            state.ready = true;
            self.is_active = true;
        }
    }

    /// Returns `false` if there is nothing to do before the next event of a listener.
    pub(crate) fn is_active(&self) -> bool {
        self.is_active
    }

    /// Returns `true` if there is something to accept that no event will announce.
    pub(crate) fn has_work(&self) -> bool {
        self.paused_until.is_none()
            && (self.held.is_some() || self.listeners.iter().any(ListenerState::is_to_be_asked))
    }

    /// When the next pause is over.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        self.listeners.iter().filter_map(|state| state.rests_until).chain(self.paused_until).min()
    }

    /// A turn is over.
    ///
    /// # Errors
    /// The error that leaves the server without a listener.
    pub(crate) fn end_turn(&mut self) -> io::Result<()> {
        self.is_active = self.has_work() || self.held.is_some() || self.deadline().is_some();
        self.failure.take().map_or(Ok(()), Err)
    }

    pub(crate) fn begin_turn(&mut self, now: Tick) {
        self.now = now;
        self.budget = BUDGET;
        let pauses = self.listeners.iter_mut().map(|state| &mut state.rests_until);
        for pause in pauses.chain([&mut self.paused_until]) {
            pause.take_if(|until| *until <= now);
        }
    }

    /// Places the next connection. One for another standing shard is set aside for [`hand_over`](Self::hand_over); one
    /// for a new shard has been handed over when this returns.
    pub(crate) fn poll_accept(&mut self, sys: &mut Y, counters: &mut Counters) -> Option<Placed<Y::Stream>> {
        while self.budget > 0 && self.paused_until.is_none() {
            let Some(accepted) = self.accept(sys, counters)? else { continue };
            let Some((incoming, destination)) = self.admit(sys, accepted, counters) else { continue };
            match destination {
                Destination::Shard(shard) if shard == self.here => return Some(Placed::Here(incoming)),
                Destination::Shard(shard) => self.set_aside(shard, incoming),
                Destination::Fork => self.fork(incoming, counters),
                Destination::Strategy => self.detach(sys, incoming, counters),
            }
            return Some(Placed::Elsewhere);
        }
        None
    }

    /// Accepts one connection, the held one first: `None` if none waits or the server is full, `Some(None)` if it was
    /// lost.
    fn accept(&mut self, sys: &mut Y, counters: &mut Counters) -> Option<Option<Accepted<Y::Stream>>> {
        let at = if self.held.is_none() { Some(self.next_ready()?) } else { None };
        if self.admission.is_full() {
            self.wait_for_room(counters);
            return None;
        }
        self.full = false;
        if self.admission.is_shaking_hands() {
            counters.accept_pauses += 1;
            self.tell_paused(None);
            self.paused_until = Some(self.now + HANDSHAKE_PAUSE);
            return None;
        }
        let Some(at) = at else {
            self.resume();
            return Some(self.held.take());
        };
        self.budget -= 1;
        let state = self.listeners.get_mut(at)?;
        match sys.accept(&mut state.listener) {
            Ok((io, peer)) => {
                state.failures = 0;
                counters.accepted += 1;
                let listener = state.number;
                let local = state.local.clone().map_or_else(|| sys.local_addr(&io), Ok).ok();
                self.resume();
                // Without an address the peer is gone already.
                if local.is_none() {
                    self.turn_away(&peer, RefusalCause::Vanished, counters);
                }
                Some(local.map(|local| Accepted { io, endpoints: Endpoints::new(peer, local, listener) }))
            }
            Err(error) => {
                self.handle_failure(sys, at, error, counters);
                Some(None)
            }
        }
    }

    /// Returns the next listener with waiting connections, in turn, so that no address starves the others.
    fn next_ready(&mut self) -> Option<usize> {
        let count = self.listeners.len();
        let at = (0..count).map(|step| (self.next + step) % count).find(|at| self.is_ready(*at))?;
        self.next = at + 1;
        Some(at)
    }

    fn is_ready(&self, at: usize) -> bool {
        self.listeners.get(at).is_some_and(ListenerState::is_to_be_asked)
    }

    /// Asks the strategy for a place, and the admission for a permit. A connection that gets none is reset, or held.
    fn admit(
        &mut self,
        sys: &mut Y,
        accepted: Accepted<Y::Stream>,
        counters: &mut Counters,
    ) -> Option<(Incoming<Y::Stream>, Destination)> {
        let peer = accepted.endpoints.peer();
        if self.admission.peer_is_full(&peer) {
            return self.refuse(sys, accepted, RefusalCause::PeerLimit, counters);
        }
        let destination = match self.place(&accepted, counters) {
            Placement::On(shard) if shard.index() < self.admission.standing() => Destination::Shard(shard),
            Placement::Fork => Destination::Fork,
            Placement::Detach => Destination::Strategy,
            Placement::On(_) | Placement::Refuse => {
                return self.refuse(sys, accepted, RefusalCause::Strategy, counters);
            }
        };
        let permit = match destination {
            Destination::Shard(shard) => self.admission.admit_accepted(Some(shard), &peer),
            Destination::Fork => self.admission.admit_accepted(None, &peer),
            Destination::Strategy => self.admission.admit_detached(&peer),
        };
        let permit = match permit {
            Ok(permit) => permit,
            // Another acceptor has taken the last place.
            Err(Full::Server) => {
                self.held = Some(accepted);
                self.wait_for_room(counters);
                return None;
            }
            Err(Full::Peer) => return self.refuse(sys, accepted, RefusalCause::PeerLimit, counters),
        };
        let Accepted { io, endpoints } = accepted;
        Some((Incoming { io, endpoints, permit }, destination))
    }

    fn place(&mut self, accepted: &Accepted<Y::Stream>, counters: &mut Counters) -> Placement {
        let connection = NewConnection::new(&accepted.endpoints);
        let (strategy, loads) = (&mut self.strategy, ShardLoads::new(&self.admission));
        catch_unwind(AssertUnwindSafe(|| strategy.place(&connection, loads))).unwrap_or_else(|panic| {
            counters.panics += 1;
            let then = "the forking strategy panicked in place";
            self.reporter.panicked(self.now, "place", &panic_message(panic), then);
            Placement::Refuse
        })
    }

    fn set_aside(&mut self, shard: ShardId, incoming: Incoming<Y::Stream>) {
        match self.outgoing.iter_mut().find(|(other, _)| *other == shard) {
            Some((_, batch)) => batch.push(incoming),
            None => self.outgoing.push((shard, vec![incoming])),
        }
    }

    /// Hands over the connections that were set aside: one hand-over, and at most one wake-up, for each shard.
    pub(crate) fn hand_over(&mut self, counters: &mut Counters) {
        let mut failure = None;
        for (shard, batch) in self.outgoing.iter_mut().filter(|(_, batch)| !batch.is_empty()) {
            let count = batch.len();
            let watched = if self.reporter.hub.is_watched() { batch.as_slice() } else { &[] };
            let peers: Vec<Addr> = watched.iter().map(|incoming| incoming.endpoints.peer()).collect();
            if let Err(error) = self.dispatch.send(*shard, batch.drain(..)) {
                (0..count).for_each(|_| counters.count_refusal(RefusalCause::NoThread));
                peers.iter().for_each(|peer| self.reporter.refused(peer, RefusalCause::NoThread, None));
                failure = Some(error);
            }
        }
        if let Some(error) = failure {
            self.pause(NOT_HANDED_OVER, &error, counters);
        }
    }

    /// Hands a connection to a new shard. A connection that comes back has to be admitted anew.
    fn fork(&mut self, incoming: Incoming<Y::Stream>, counters: &mut Counters) {
        let peer = incoming.endpoints.peer();
        let Err(HandOverError { error, incoming }) = self.dispatch.fork(incoming) else { return };
        if incoming.is_none() {
            self.turn_away(&peer, RefusalCause::Shutdown, counters);
        }
        self.held = incoming.map(|Incoming { io, endpoints, .. }| Accepted { io, endpoints });
        self.pause(NOT_HANDED_OVER, &error, counters);
    }

    /// Hands a connection to the strategy.
    fn detach(&mut self, sys: &mut Y, incoming: Incoming<Y::Stream>, counters: &mut Counters) {
        let Incoming { io, endpoints, permit } = incoming;
        let socket = match sys.detach(io) {
            Ok(socket) => socket,
            Err(error) => {
                self.turn_away(&endpoints.peer(), RefusalCause::Setup, counters);
                let (now, peer) = (self.now, endpoints.peer());
                logged!(
                    self.reporter.gate, now, Unpollable WARN,
                    %peer, %error, "a connection cannot be detached, closing it"
                );
                return;
            }
        };
        counters.detached += 1;
        let connection = Detached::new(socket, endpoints, permit);
        let strategy = &mut self.strategy;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| strategy.detach(connection))) {
            counters.panics += 1;
            let then = "the forking strategy panicked in detach";
            self.reporter.panicked(self.now, "detach", &panic_message(panic), then);
        }
    }

    fn handle_failure(&mut self, sys: &mut Y, at: usize, error: io::Error, counters: &mut Counters) {
        match classify(&error) {
            Failure::Empty => {
                if let Some(state) = self.listeners.get_mut(at) {
                    (state.ready, state.failures) = (false, 0);
                }
                if self.spare.is_none() {
                    self.spare = sys.spare().ok();
                }
                self.resume();
            }
            Failure::Next => self.count_failure(at, &error, counters),
            Failure::Exhausted => self.pause("cannot accept, clients wait", &error, counters),
            Failure::Fatal => {
                tracing::error!(%error, "a listener failed");
                self.listeners.swap_remove(at);
                if self.listeners.is_empty() {
                    self.failure = Some(error);
                }
            }
        }
    }

    /// The server is full: pauses accepting. This is logged once.
    fn wait_for_room(&mut self, counters: &mut Counters) {
        counters.accept_pauses += 1;
        if !self.full {
            self.full = true;
            tracing::warn!(connections = self.admission.total(), "the server is full, clients wait");
        }
        self.tell_paused(None);
        self.paused_until = Some(self.now + PAUSE);
    }

    fn count_failure(&mut self, at: usize, error: &io::Error, counters: &mut Counters) {
        let Some(state) = self.listeners.get_mut(at) else { return };
        state.failures += 1;
        if state.failures >= FAILURES {
            (state.failures, state.rests_until) = (0, Some(self.now + PAUSE));
            counters.accept_pauses += 1;
            self.tell_paused(Some(error));
            self.complain("a listener fails to accept again and again", error);
        }
    }

    fn pause(&mut self, why: &str, error: &io::Error, counters: &mut Counters) {
        counters.accept_pauses += 1;
        self.spare = None;
        self.paused_until = Some(self.now + PAUSE);
        self.tell_paused(Some(error));
        self.complain(why, error);
    }

    fn complain(&mut self, why: &str, error: &io::Error) {
        if self.logged.is_none_or(|at| self.now - at >= LOG_INTERVAL) {
            self.logged = Some(self.now);
            tracing::warn!(%error, pause_ms = PAUSE, "{why}; trying again after a pause");
        }
    }

    /// Tells subscribers, once, that accepting pauses.
    fn tell_paused(&mut self, error: Option<&io::Error>) {
        if std::mem::replace(&mut self.is_paused, true) {
            return;
        }
        let shard = self.reporter.shard;
        self.reporter
            .hub
            .tell(|| Event::AcceptPaused { shard, error: error.map(|error| Arc::new(copy_of(error))) });
    }

    /// It was possible to accept.
    fn resume(&mut self) {
        if std::mem::take(&mut self.is_paused) {
            let shard = self.reporter.shard;
            self.reporter.hub.tell(|| Event::AcceptResumed { shard });
        }
    }

    /// Resets a connection that is not served, so that its peer knows at once.
    fn refuse<R>(
        &self,
        sys: &mut Y,
        mut accepted: Accepted<Y::Stream>,
        cause: RefusalCause,
        counters: &mut Counters,
    ) -> Option<R> {
        self.turn_away(&accepted.endpoints.peer(), cause, counters);
        sys.make_reset(&mut accepted.io);
        None
    }

    fn turn_away(&self, peer: &Addr, cause: RefusalCause, counters: &mut Counters) {
        counters.count_refusal(cause);
        self.reporter.turned_away(self.now, peer, cause);
    }
}
