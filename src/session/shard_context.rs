use std::{error::Error, fmt, time::Duration};

use crate::{
    contained::guard,
    error::{CloseReason, SendError},
    id::{SessionId, ShardId},
    session::{Session, SessionHandle, SessionInfo, ShardCore, TimerError, TimerId},
    time::ticks,
};

/// A shard, within [`PacketHandler::on_start`](crate::PacketHandler::on_start), [`PacketHandler::on_shard_timer`](crate::PacketHandler::on_shard_timer), or a closure given to
/// [`ServerHandle::execute_with`](crate::ServerHandle::execute_with): the sessions of this thread, with their states.
///
/// In a closure given to [`ServerHandle::execute`](crate::ServerHandle::execute), which knows nothing of the handler, `S` is
/// `()`, and so is what stands for the states.
///
/// What is asked of the sessions is recorded, and takes effect when the closure or callback has returned.
pub struct ShardContext<'a, S = ()> {
    shard: &'a mut dyn Inspect<S>,
}

impl<'a, S> ShardContext<'a, S> {
    pub(crate) fn new(shard: &'a mut dyn Inspect<S>) -> Self {
        Self { shard }
    }

    /// Which shard this is.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.shard.core().shard
    }

    /// The ids of the open sessions of this shard, as they are now.
    pub fn ids(&self) -> impl Iterator<Item = SessionId> + use<S> {
        self.shard.ids().into_iter()
    }

    /// The open sessions of this shard.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.shard.sessions()
    }

    /// Does something with a session and its state; returns what that returned, or `None` for a session that is not open on
    /// this shard.
    ///
    /// ```
    /// use std::time::Duration;
    /// use framewire::{Handled, PacketHandler, Session, ShardContext, TimerId};
    ///
    /// const TICK: TimerId = TimerId(0);
    ///
    /// /// Tells every session, 20 times a second, how many packets it has sent.
    /// #[derive(Clone)]
    /// struct Game;
    ///
    /// impl PacketHandler for Game {
    ///     type State = u64;
    ///
    ///     fn on_start(&mut self, shard: &mut ShardContext<'_, u64>) {
    ///         let _ = shard.set_timer(TICK, Duration::from_millis(50)); // the only timer: there is room for it
    ///     }
    ///
    ///     fn on_shard_timer(&mut self, shard: &mut ShardContext<'_, u64>, tick: TimerId) {
    ///         let _ = shard.set_timer(tick, Duration::from_millis(50));
    ///         shard.each(|session, packets| {
    ///             if session.send(packets.to_string()).is_err() {
    ///                 session.close(); // it does not read
    ///             }
    ///         });
    ///     }
    ///
    ///     fn on_open(&mut self, _: &mut Session<'_>) -> Handled<u64> {
    ///         Ok(0)
    ///     }
    ///
    ///     fn on_packet(&mut self, _: &mut Session<'_>, packets: &mut u64, _: &[u8]) -> Handled {
    ///         *packets += 1;
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn with<R>(&mut self, id: SessionId, body: impl FnOnce(&mut Session<'_>, &mut S) -> R) -> Option<R> {
        let (mut body, mut returned) = (Some(body), None);
        self.shard.with(id, &mut |session, state| {
            returned = body.take().map(|body| body(session, state));
        });
        returned
    }

    /// Does something with each open session and its state.
    pub fn each(&mut self, mut body: impl FnMut(&mut Session<'_>, &mut S)) {
        for id in self.shard.ids() {
            self.shard.with(id, &mut body);
        }
    }

    /// Sends a packet to a session of this shard, as [`Session::send`] does.
    ///
    /// # Errors
    /// As [`Session::send`]; [`SendError::Closed`] for a session that is not open on this shard.
    pub fn send(&mut self, session: SessionId, packet: impl AsRef<[u8]>) -> Result<(), SendError> {
        let packet = packet.as_ref();
        let sent = self.with(session, |session, _| {
            guard("encode", || Ok::<_, CloseReason>(session.send(packet))).unwrap_or_else(|panic| {
                session.fail(panic);
                Err(SendError::Closed)
            })
        });
        sent.unwrap_or(Err(SendError::Closed))
    }

    /// Closes a session of this shard gracefully. Nothing happens when it is gone.
    pub fn close(&mut self, session: SessionId) {
        self.with(session, |session, _| session.close());
    }

    /// As [`close`](Self::close), and says why, with a text or any error: the log and
    /// [`on_close`](crate::PacketHandler::on_close) show it, as [`CloseReason::Handler`](crate::CloseReason::Handler).
    pub fn close_with(&mut self, session: SessionId, why: impl Into<Box<dyn Error + Send + Sync>>) {
        self.with(session, |session, _| session.close_with(why));
    }

    /// A handle to a session of this shard, if it is open.
    #[must_use]
    pub fn handle(&mut self, session: SessionId) -> Option<SessionHandle> {
        self.with(session, |session, _| session.handle())
    }

    /// Calls [`on_shard_timer`](crate::PacketHandler::on_shard_timer) with `timer` once, `after` from now (granularity 1 ms; never early). A timer
    /// that is set already is moved. A shard that shuts down forgets its timers when its last session has ended.
    ///
    /// # Errors
    /// [`TimerError`] when [`Limits::session_timers`](crate::Limits::session_timers) others are set on this shard.
    pub fn set_timer(&mut self, timer: TimerId, after: Duration) -> Result<(), TimerError> {
        let core = self.shard.core_mut();
        let (due, limit) = (core.clock.deadline(ticks(after)), core.limits.session_timers);
        if core.set_shard_timer(timer, due, limit) { Ok(()) } else { Err(TimerError::new(limit)) }
    }

    /// Forgets a timer of the shard. It is not called any more, even if it was due. Returns `true` if it was set.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.shard.core_mut().cancel_shard_timer(timer)
    }
}

impl<S> fmt::Debug for ShardContext<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardContext").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// What can be done to the session of an id, with its state.
pub(crate) type Body<'b, S> = &'b mut dyn FnMut(&mut Session<'_>, &mut S);

/// The sessions of a shard without the types of its framing and its sockets.
pub(crate) trait Inspect<S> {
    fn core(&self) -> &ShardCore;
    fn core_mut(&mut self) -> &mut ShardCore;
    fn ids(&self) -> Vec<SessionId>;
    fn sessions(&self) -> Vec<SessionInfo>;
    /// Does it, if the session is open.
    fn with(&mut self, id: SessionId, body: Body<'_, S>);
}
