use std::sync::Arc;

use framewire::{CloseReason, FrameError, Handled, PacketHandler, Session, SessionInfo, Then, TimerId};

type Callback<S, R = ()> = Arc<dyn Fn(&mut Session<'_>, &mut S) -> Handled<R> + Send + Sync>;
type OnPacket<S> = Arc<dyn Fn(&mut Session<'_>, &mut S, &[u8]) -> Handled + Send + Sync>;
type OnTimer<S> = Arc<dyn Fn(&mut Session<'_>, &mut S, TimerId) -> Handled + Send + Sync>;
type OnError<S, R> = Arc<dyn Fn(&mut Session<'_>, &mut S, &FrameError) -> R + Send + Sync>;
type OnClose<S> = Arc<dyn Fn(&SessionInfo, S) + Send + Sync>;

/// A handler in closures, for a test that needs another callback than `on_packet` alone. A session begins with the default of its
/// state; a callback that is not given does what it does by default.
pub(crate) struct Scripted<S> {
    on_open: Callback<S>,
    on_packet: OnPacket<S>,
    on_drained: Callback<S>,
    on_timer: OnTimer<S>,
    on_idle: Callback<S, Then>,
    on_rejected: OnError<S, Handled>,
    on_violation: OnError<S, ()>,
    on_end: Callback<S, Then>,
    on_shutdown: Callback<S, Then>,
    on_close: OnClose<S>,
}

impl<S> Scripted<S> {
    /// Sends each packet back.
    pub(crate) fn echo() -> Self {
        Self::answering(|session, _, packet| Ok(session.send(packet)?))
    }

    pub(crate) fn answering(
        on_packet: impl Fn(&mut Session<'_>, &mut S, &[u8]) -> Handled + Send + Sync + 'static,
    ) -> Self {
        Self {
            on_open: Arc::new(|_, _| Ok(())),
            on_packet: Arc::new(on_packet),
            on_drained: Arc::new(|_, _| Ok(())),
            on_timer: Arc::new(|_, _, _| Ok(())),
            on_idle: Arc::new(|_, _| Ok(Then::Close)),
            on_rejected: Arc::new(|_, _, _| Ok(())),
            on_violation: Arc::new(|_, _, _| ()),
            on_end: Arc::new(|_, _| Ok(Then::Close)),
            on_shutdown: Arc::new(|_, _| Ok(Then::Close)),
            on_close: Arc::new(|_, _| ()),
        }
    }

    pub(crate) fn on_open(
        self,
        on_open: impl Fn(&mut Session<'_>, &mut S) -> Handled + Send + Sync + 'static,
    ) -> Self {
        Self { on_open: Arc::new(on_open), ..self }
    }

    pub(crate) fn on_drained(
        self,
        on_drained: impl Fn(&mut Session<'_>, &mut S) -> Handled + Send + Sync + 'static,
    ) -> Self {
        Self { on_drained: Arc::new(on_drained), ..self }
    }

    pub(crate) fn on_timer(
        self,
        on_timer: impl Fn(&mut Session<'_>, &mut S, TimerId) -> Handled + Send + Sync + 'static,
    ) -> Self {
        Self { on_timer: Arc::new(on_timer), ..self }
    }

    pub(crate) fn on_idle(
        self,
        on_idle: impl Fn(&mut Session<'_>, &mut S) -> Handled<Then> + Send + Sync + 'static,
    ) -> Self {
        Self { on_idle: Arc::new(on_idle), ..self }
    }

    pub(crate) fn on_rejected(
        self,
        on_rejected: impl Fn(&mut Session<'_>, &mut S, &FrameError) -> Handled + Send + Sync + 'static,
    ) -> Self {
        Self { on_rejected: Arc::new(on_rejected), ..self }
    }

    pub(crate) fn on_violation(
        self,
        on_violation: impl Fn(&mut Session<'_>, &mut S, &FrameError) + Send + Sync + 'static,
    ) -> Self {
        Self { on_violation: Arc::new(on_violation), ..self }
    }

    pub(crate) fn on_end(
        self,
        on_end: impl Fn(&mut Session<'_>, &mut S) -> Handled<Then> + Send + Sync + 'static,
    ) -> Self {
        Self { on_end: Arc::new(on_end), ..self }
    }

    pub(crate) fn on_shutdown(
        self,
        on_shutdown: impl Fn(&mut Session<'_>, &mut S) -> Handled<Then> + Send + Sync + 'static,
    ) -> Self {
        Self { on_shutdown: Arc::new(on_shutdown), ..self }
    }

    pub(crate) fn on_close(self, on_close: impl Fn(&SessionInfo, S) + Send + Sync + 'static) -> Self {
        Self { on_close: Arc::new(on_close), ..self }
    }
}

impl<S> Clone for Scripted<S> {
    fn clone(&self) -> Self {
        Self {
            on_open: self.on_open.clone(),
            on_packet: self.on_packet.clone(),
            on_drained: self.on_drained.clone(),
            on_timer: self.on_timer.clone(),
            on_idle: self.on_idle.clone(),
            on_rejected: self.on_rejected.clone(),
            on_violation: self.on_violation.clone(),
            on_end: self.on_end.clone(),
            on_shutdown: self.on_shutdown.clone(),
            on_close: self.on_close.clone(),
        }
    }
}

impl<S: Default> PacketHandler for Scripted<S> {
    type State = S;

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<S> {
        let mut state = S::default();
        (self.on_open)(session, &mut state)?;
        Ok(state)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, state: &mut S, packet: &[u8]) -> Handled {
        (self.on_packet)(session, state, packet)
    }

    fn on_drained(&mut self, session: &mut Session<'_>, state: &mut S) -> Handled {
        (self.on_drained)(session, state)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, state: &mut S, timer: TimerId) -> Handled {
        (self.on_timer)(session, state, timer)
    }

    fn on_idle(&mut self, session: &mut Session<'_>, state: &mut S) -> Handled<Then> {
        (self.on_idle)(session, state)
    }

    fn on_rejected(&mut self, session: &mut Session<'_>, state: &mut S, error: &FrameError) -> Handled {
        (self.on_rejected)(session, state, error)
    }

    fn on_violation(&mut self, session: &mut Session<'_>, state: &mut S, error: &FrameError) {
        (self.on_violation)(session, state, error);
    }

    fn on_end(&mut self, session: &mut Session<'_>, state: &mut S) -> Handled<Then> {
        (self.on_end)(session, state)
    }

    fn on_shutdown(&mut self, session: &mut Session<'_>, state: &mut S) -> Handled<Then> {
        (self.on_shutdown)(session, state)
    }

    fn on_close(&mut self, session: &SessionInfo, state: S, _reason: &CloseReason) {
        (self.on_close)(session, state);
    }
}
