use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Network;
use crate::{
    error::{CloseKind, CloseReason},
    framing::FrameError,
    handler::PacketHandler,
    id::SessionId,
    session::{Session, TimerId},
    time::Tick,
};

/// What a handler was told, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Callback {
    Open,
    Packet(Vec<u8>),
    Drained,
    Timer(u32),
    Idle,
    Shutdown,
    Violation,
    Closing(CloseKind),
    Close(CloseKind),
}

/// How far a session has come, by what its handler was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Closing,
    Closed,
}

/// Everything that the handlers of one test were told, in order.
#[derive(Clone)]
pub(crate) struct Log {
    network: Network,
    lines: Arc<Mutex<Vec<(Tick, SessionId, Callback)>>>,
}

impl Log {
    pub(super) fn new(network: Network) -> Self {
        Self { network, lines: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Tick, SessionId, Callback)>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, session: SessionId, told: Callback) {
        let mut net = self.network.lock();
        net.progress += 1;
        let now = net.now;
        drop(net);
        self.lock().push((now, session, told));
    }

    pub(crate) fn lines(&self) -> Vec<(Tick, SessionId, Callback)> {
        self.lock().clone()
    }

    /// The times at which this was told to anybody.
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

    /// Each session: opened once, then what it is told, then closing once and closed once; nothing before, between these two,
    /// or after.
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

type Hook<A> = Box<dyn FnMut(&mut Session<'_>, A) -> Result<(), CloseReason>>;
type PacketHook = Box<dyn FnMut(&mut Session<'_>, &[u8]) -> Result<(), CloseReason>>;

/// A handler that logs what it is told, and by default sends each packet back.
pub(crate) struct Probe {
    log: Log,
    /// Whether packets are logged; off where there are very many.
    pub(crate) quiet: bool,
    pub(crate) open: Hook<()>,
    pub(crate) packet: PacketHook,
    pub(crate) timer: Hook<u32>,
    pub(crate) drained: Hook<()>,
    pub(crate) idle: Hook<CloseReason>,
    pub(crate) violation: Hook<()>,
    pub(crate) shutdown: Hook<()>,
    pub(crate) closing: Box<dyn FnMut(SessionId)>,
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
            idle: Box::new(|_, reason| Err(reason)),
            violation: Box::new(|_, ()| Ok(())),
            shutdown: Box::new(|_, ()| Ok(())),
            closing: Box::new(|_| ()),
        }
    }

    /// Lets so much time pass, for callbacks that block.
    pub(crate) fn block(&self) -> impl Fn(Tick) + 'static {
        let network = self.log.network.clone();
        move |time| network.lock().pass(time)
    }
}

impl PacketHandler for Probe {
    type State = SessionId;

    fn on_open(&mut self, session: &mut Session<'_>) -> Result<SessionId, CloseReason> {
        (self.open)(session, ())?;
        self.log.add(session.id(), Callback::Open);
        Ok(session.id())
    }

    fn on_packet(
        &mut self,
        session: &mut Session<'_>,
        state: &mut SessionId,
        packet: &[u8],
    ) -> Result<(), CloseReason> {
        assert_eq!(*state, session.id(), "the state of another session");
        if !self.quiet {
            self.log.add(session.id(), Callback::Packet(packet.to_vec()));
        }
        (self.packet)(session, packet)
    }

    fn on_drained(&mut self, session: &mut Session<'_>, _state: &mut SessionId) -> Result<(), CloseReason> {
        self.log.add(session.id(), Callback::Drained);
        (self.drained)(session, ())
    }

    fn on_timer(
        &mut self,
        session: &mut Session<'_>,
        _state: &mut SessionId,
        timer: TimerId,
    ) -> Result<(), CloseReason> {
        self.log.add(session.id(), Callback::Timer(timer.0));
        (self.timer)(session, timer.0)
    }

    fn on_idle(
        &mut self,
        session: &mut Session<'_>,
        _state: &mut SessionId,
        reason: CloseReason,
    ) -> Result<(), CloseReason> {
        self.log.add(session.id(), Callback::Idle);
        (self.idle)(session, reason)
    }

    fn on_violation(&mut self, session: &mut Session<'_>, _state: &mut SessionId, _error: &FrameError) {
        self.log.add(session.id(), Callback::Violation);
        let _ = (self.violation)(session, ());
    }

    fn on_shutdown(&mut self, session: &mut Session<'_>, _state: &mut SessionId) {
        self.log.add(session.id(), Callback::Shutdown);
        let _ = (self.shutdown)(session, ());
    }

    fn on_closing(&mut self, session: SessionId, state: &mut SessionId, reason: &CloseReason) {
        assert_eq!(*state, session, "the state of another session");
        self.log.add(session, Callback::Closing(reason.kind()));
        (self.closing)(session);
    }

    fn on_close(&mut self, session: SessionId, state: SessionId, reason: &CloseReason) {
        assert_eq!(state, session, "the state of another session");
        self.log.add(session, Callback::Close(reason.kind()));
    }
}
