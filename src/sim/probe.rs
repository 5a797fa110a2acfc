use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Network;
use crate::{
    error::{CloseKind, CloseReason, DialError, Handled},
    framing::FrameError,
    handler::{PacketHandler, Then},
    id::{DialId, SessionId},
    session::{Session, SessionInfo, ShardContext, TimerId},
    time::Tick,
};

/// A callback of a handler, and when it was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Callback {
    Open,
    Packet(Vec<u8>),
    Drained,
    Timer(u32),
    Idle,
    End,
    Shutdown,
    Violation,
    Closing(CloseKind),
    Close(CloseKind),
}

/// How far a session has come, by the callbacks that were called for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Closing,
    Closed,
}

/// All callbacks of the handlers of one test, in order.
#[derive(Clone)]
pub(crate) struct Log {
    network: Network,
    lines: Arc<Mutex<Vec<(Tick, SessionId, Callback)>>>,
    failed_dials: Arc<Mutex<Vec<(Tick, DialId, DialError)>>>,
}

impl Log {
    pub(super) fn new(network: Network) -> Self {
        Self { network, lines: Arc::default(), failed_dials: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Tick, SessionId, Callback)>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was done: the loop does not turn for nothing.
    fn touch(&self) -> Tick {
        let mut net = self.network.lock();
        net.progress += 1;
        net.now
    }

    fn add(&self, session: SessionId, told: Callback) {
        let now = self.touch();
        self.lock().push((now, session, told));
    }

    /// The calls of `on_dial_failed`.
    pub(crate) fn failed_dials(&self) -> Vec<(Tick, DialId, DialError)> {
        self.failed_dials.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn lines(&self) -> Vec<(Tick, SessionId, Callback)> {
        self.lock().clone()
    }

    /// The times at which this callback was called, for any session.
    pub(crate) fn times(&self, what: &Callback) -> Vec<Tick> {
        self.lock().iter().filter(|(_, _, told)| told == what).map(|(tick, _, _)| *tick).collect()
    }

    pub(crate) fn count(&self, what: &Callback) -> usize {
        self.times(what).len()
    }

    /// When and why sessions closed.
    pub(crate) fn closes(&self) -> Vec<(Tick, CloseKind)> {
        let close = |(tick, _, told): &(Tick, SessionId, Callback)| match told {
            Callback::Close(kind) => Some((*tick, *kind)),
            _ => None,
        };
        self.lock().iter().filter_map(close).collect()
    }

    /// Each session: opened once, then what it is told, then closing once and closed once; nothing before, between
    /// these two, or after.
    pub(crate) fn assert_balanced(&self, all_closed: bool) {
        let mut stages = std::collections::HashMap::new();
        for (_, session, told) in self.lock().iter() {
            match told {
                Callback::Open => {
                    assert!(stages.insert(*session, Stage::Open).is_none(), "{session} opened twice");
                }
                Callback::Closing(_) => {
                    let before = stages.insert(*session, Stage::Closing);
                    assert_eq!(before, Some(Stage::Open), "{session} closing when not open");
                }
                Callback::Close(_) => {
                    let before = stages.insert(*session, Stage::Closed);
                    assert_eq!(before, Some(Stage::Closing), "{session} closed when not closing");
                }
                told => {
                    let now = stages.get(session);
                    assert_eq!(now, Some(&Stage::Open), "{session} told {told:?} when not open");
                }
            }
        }
        let left = stages.values().filter(|stage| **stage != Stage::Closed).count();
        assert!(!all_closed || left == 0, "{left} sessions were never told that they closed");
    }
}

type Hook<A, R = ()> = Box<dyn FnMut(&mut Session<'_>, A) -> Handled<R> + Send>;
type PacketHook = Box<dyn FnMut(&mut Session<'_>, &[u8]) -> Handled + Send>;
/// Called with the shard and the timer that is due.
type ShardHook = Box<dyn FnMut(&mut ShardContext<'_, SessionId>, u32) + Send>;

type DialHook = Box<dyn FnMut(&mut ShardContext<'_, SessionId>, &DialError) + Send>;

/// A handler that logs its callbacks and by default sends each packet back.
pub(crate) struct Probe {
    log: Log,
    /// `true` if packets are logged; off where there are very many.
    pub(crate) quiet: bool,
    pub(crate) open: Hook<()>,
    pub(crate) packet: PacketHook,
    pub(crate) timer: Hook<u32>,
    pub(crate) drained: Hook<()>,
    pub(crate) idle: Hook<(), Then>,
    pub(crate) end: Hook<(), Then>,
    pub(crate) violation: Hook<()>,
    pub(crate) shutdown: Hook<(), Then>,
    pub(crate) closing: Box<dyn FnMut(SessionId) + Send>,
    pub(crate) start: ShardHook,
    pub(crate) shard_timer: ShardHook,
    pub(crate) dial_failed: DialHook,
}

impl Probe {
    pub(super) fn new(log: Log) -> Self {
        Self {
            log,
            quiet: false,
            open: Box::new(|_, ()| Ok(())),
            packet: Box::new(|session, packet| Ok(session.send(packet)?)),
            timer: Box::new(|_, _| Ok(())),
            drained: Box::new(|_, ()| Ok(())),
            idle: Box::new(|_, ()| Ok(Then::Close)),
            end: Box::new(|_, ()| Ok(Then::Close)),
            violation: Box::new(|_, ()| Ok(())),
            shutdown: Box::new(|_, ()| Ok(Then::Close)),
            closing: Box::new(|_| ()),
            start: Box::new(|_, _| ()),
            shard_timer: Box::new(|_, _| ()),
            dial_failed: Box::new(|_, _| ()),
        }
    }

    /// Lets so much time pass, for callbacks that block.
    pub(crate) fn block(&self) -> impl Fn(Tick) + Send + 'static {
        let network = self.log.network.clone();
        move |time| network.lock().pass(time)
    }
}

impl PacketHandler for Probe {
    type State = SessionId;

    fn on_start(&mut self, shard: &mut ShardContext<'_, SessionId>) {
        (self.start)(shard, 0);
    }

    fn on_shard_timer(&mut self, shard: &mut ShardContext<'_, SessionId>, timer: TimerId) {
        self.log.touch();
        (self.shard_timer)(shard, timer.0);
    }

    fn on_dial_failed(&mut self, shard: &mut ShardContext<'_, SessionId>, dial: DialId, error: &DialError) {
        let now = self.log.touch();
        let mut failed = self.log.failed_dials.lock().unwrap_or_else(PoisonError::into_inner);
        failed.push((now, dial, error.clone()));
        drop(failed);
        (self.dial_failed)(shard, error);
    }

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<SessionId> {
        (self.open)(session, ())?;
        self.log.add(session.id(), Callback::Open);
        Ok(session.id())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, state: &mut SessionId, packet: &[u8]) -> Handled {
        assert_eq!(*state, session.id(), "the state of another session");
        if !self.quiet {
            self.log.add(session.id(), Callback::Packet(packet.to_vec()));
        }
        (self.packet)(session, packet)
    }

    fn on_drained(&mut self, session: &mut Session<'_>, _state: &mut SessionId) -> Handled {
        self.log.add(session.id(), Callback::Drained);
        (self.drained)(session, ())
    }

    fn on_timer(&mut self, session: &mut Session<'_>, _state: &mut SessionId, timer: TimerId) -> Handled {
        self.log.add(session.id(), Callback::Timer(timer.0));
        (self.timer)(session, timer.0)
    }

    fn on_idle(&mut self, session: &mut Session<'_>, _state: &mut SessionId) -> Handled<Then> {
        self.log.add(session.id(), Callback::Idle);
        (self.idle)(session, ())
    }

    fn on_end(&mut self, session: &mut Session<'_>, _state: &mut SessionId) -> Handled<Then> {
        self.log.add(session.id(), Callback::End);
        (self.end)(session, ())
    }

    fn on_violation(&mut self, session: &mut Session<'_>, _state: &mut SessionId, _error: &FrameError) {
        self.log.add(session.id(), Callback::Violation);
        let _ = (self.violation)(session, ());
    }

    fn on_shutdown(&mut self, session: &mut Session<'_>, _state: &mut SessionId) -> Handled<Then> {
        self.log.add(session.id(), Callback::Shutdown);
        (self.shutdown)(session, ())
    }

    fn on_closing(&mut self, session: &SessionInfo, state: &mut SessionId, reason: &CloseReason) {
        assert_eq!(*state, session.id, "the state of another session");
        self.log.add(session.id, Callback::Closing(reason.kind()));
        (self.closing)(session.id);
    }

    fn on_close(&mut self, session: &SessionInfo, state: SessionId, reason: &CloseReason) {
        assert_eq!(state, session.id, "the state of another session");
        self.log.add(session.id, Callback::Close(reason.kind()));
    }
}
