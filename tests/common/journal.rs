use std::sync::{Arc, Mutex, MutexGuard};

use framewire::{
    CloseKind, CloseReason, DialError, DialId, FrameError, Handled, PacketHandler, Session, SessionHandle,
    SessionId, SessionInfo, ShardContext, Then, TimerId,
};

/// What the callbacks said about the beginning and the end of each session, in the order of the beginnings.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<Life>>>);

struct Life {
    handle: SessionHandle,
    closings: Vec<(CloseKind, String)>,
    endings: Vec<(CloseKind, String)>,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Vec<Life>> {
        self.0.lock().expect("nobody panics while the journal is open")
    }

    pub(crate) fn opened(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn newest(&self) -> SessionHandle {
        self.lock().last().expect("a session was opened").handle.clone()
    }

    /// Returns a handle of every session that was opened.
    pub(crate) fn handles(&self) -> Vec<SessionHandle> {
        self.lock().iter().map(|life| life.handle.clone()).collect()
    }

    /// Returns why the session began to close, once it has.
    pub(crate) fn closing(&self, id: SessionId) -> Option<(CloseKind, String)> {
        self.lock().iter().find(|life| life.handle.id() == id)?.closings.first().cloned()
    }

    /// Waits until the session has begun to close.
    pub(crate) fn await_closing(&self, id: SessionId) -> (CloseKind, String) {
        super::until("the session closes", || self.closing(id).is_some());
        self.closing(id).expect("it does")
    }

    /// Returns why the session ended, once it has.
    pub(crate) fn ending(&self, id: SessionId) -> Option<(CloseKind, String)> {
        self.lock().iter().find(|life| life.handle.id() == id)?.endings.first().cloned()
    }

    pub(crate) fn closed(&self) -> usize {
        self.lock().iter().filter(|life| !life.endings.is_empty()).count()
    }

    /// Returns how many sessions ended in this way.
    pub(crate) fn ended_by(&self, kind: CloseKind) -> usize {
        self.lock().iter().flat_map(|life| &life.endings).filter(|(ending, _)| *ending == kind).count()
    }

    /// Waits for the end of the session.
    pub(crate) fn await_ending(&self, id: SessionId) -> (CloseKind, String) {
        super::until("the session has ended", || self.ending(id).is_some());
        self.ending(id).expect("it has")
    }

    pub(crate) fn assert_balanced(&self) {
        for life in self.lock().iter() {
            assert_eq!(life.closings.len(), 1, "on_closing of {}: {:?}", life.handle.id(), life.closings);
            assert_eq!(life.endings.len(), 1, "on_close of {}: {:?}", life.handle.id(), life.endings);
        }
    }

    fn begin(&self, handle: SessionHandle) {
        let mut lives = self.lock();
        assert!(lives.iter().all(|life| life.handle.id() != handle.id()), "an id was used twice");
        lives.push(Life { handle, closings: Vec::new(), endings: Vec::new() });
    }

    fn begin_end(&self, id: SessionId, reason: &CloseReason) {
        let mut lives = self.lock();
        let life = lives.iter_mut().rev().find(|life| life.handle.id() == id);
        let life = life.expect("on_closing only of what was opened");
        assert!(life.endings.is_empty(), "on_closing of {id} after its on_close");
        life.closings.push((reason.kind(), reason.to_string()));
    }

    fn end(&self, id: SessionId, reason: &CloseReason) {
        let mut lives = self.lock();
        let life = lives.iter_mut().rev().find(|life| life.handle.id() == id);
        let life = life.expect("on_close only of what was opened");
        assert_eq!(life.closings.len(), 1, "on_close of {id} before its on_closing");
        life.endings.push((reason.kind(), reason.to_string()));
    }
}

/// A handler that writes a journal of its sessions.
#[derive(Clone)]
pub(crate) struct Watched<H> {
    inner: H,
    journal: Journal,
}

impl<H> Watched<H> {
    pub(crate) fn new(inner: H, journal: &Journal) -> Self {
        Self { inner, journal: journal.clone() }
    }
}

type Outcome = Handled;

impl<H: PacketHandler> PacketHandler for Watched<H> {
    type State = H::State;

    fn on_start(&mut self, shard: &mut ShardContext<'_, H::State>) {
        self.inner.on_start(shard);
    }

    fn on_shard_timer(&mut self, shard: &mut ShardContext<'_, H::State>, timer: TimerId) {
        self.inner.on_shard_timer(shard, timer);
    }

    fn on_dial_failed(&mut self, shard: &mut ShardContext<'_, H::State>, dial: DialId, error: &DialError) {
        self.inner.on_dial_failed(shard, dial, error);
    }

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<H::State> {
        let state = self.inner.on_open(session)?;
        self.journal.begin(session.handle());
        Ok(state)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, state: &mut H::State, packet: &[u8]) -> Outcome {
        self.inner.on_packet(session, state, packet)
    }

    fn on_drained(&mut self, session: &mut Session<'_>, state: &mut H::State) -> Outcome {
        self.inner.on_drained(session, state)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, state: &mut H::State, timer: TimerId) -> Outcome {
        self.inner.on_timer(session, state, timer)
    }

    fn on_idle(&mut self, session: &mut Session<'_>, state: &mut H::State) -> Handled<Then> {
        self.inner.on_idle(session, state)
    }

    fn on_end(&mut self, session: &mut Session<'_>, state: &mut H::State) -> Handled<Then> {
        self.inner.on_end(session, state)
    }

    fn on_violation(&mut self, session: &mut Session<'_>, state: &mut H::State, error: &FrameError) {
        self.inner.on_violation(session, state, error);
    }

    fn on_rejected(
        &mut self,
        session: &mut Session<'_>,
        state: &mut H::State,
        error: &FrameError,
    ) -> Outcome {
        self.inner.on_rejected(session, state, error)
    }

    fn on_shutdown(&mut self, session: &mut Session<'_>, state: &mut H::State) -> Handled<Then> {
        self.inner.on_shutdown(session, state)
    }

    fn on_closing(&mut self, session: &SessionInfo, state: &mut H::State, reason: &CloseReason) {
        self.journal.begin_end(session.id, reason);
        self.inner.on_closing(session, state, reason);
    }

    fn on_close(&mut self, session: &SessionInfo, state: H::State, reason: &CloseReason) {
        self.journal.end(session.id, reason);
        self.inner.on_close(session, state, reason);
    }
}
