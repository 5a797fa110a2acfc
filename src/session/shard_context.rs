use std::{error::Error, fmt, time::Duration};

use crate::{
    contained::guard,
    dial::Dial,
    encode::Encode,
    error::{CloseReason, DialError, SendError},
    id::{DialId, SessionId, ShardId},
    session::{Session, SessionHandle, SessionInfo, ShardCore, TimerError, TimerId},
    time::ticks,
};

/// A shard and its sessions with their states, within [`PacketHandler::on_start`](crate::PacketHandler::on_start),
/// [`PacketHandler::on_shard_timer`](crate::PacketHandler::on_shard_timer),
/// [`PacketHandler::on_dial_failed`](crate::PacketHandler::on_dial_failed), or a closure given to
/// [`ServerHandle::execute_with`](crate::ServerHandle::execute_with).
///
/// In a closure given to [`ServerHandle::execute`](crate::ServerHandle::execute), which does not depend on the
/// handler's type, `S` is `()`: the states are not accessible.
///
/// None of these methods calls a callback: whatever follows from them happens after the closure or callback has
/// returned.
pub struct ShardContext<'a, S = ()> {
    shard: &'a mut dyn Inspect<S>,
}

impl<'a, S> ShardContext<'a, S> {
    pub(crate) fn new(shard: &'a mut dyn Inspect<S>) -> Self {
        Self { shard }
    }

    /// Returns the shard's id.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.shard.core().shard
    }

    /// Returns the ids of the sessions of this shard that are open now.
    pub fn ids(&self) -> impl Iterator<Item = SessionId> + use<S> {
        self.shard.ids().into_iter()
    }

    /// Returns a snapshot of each open session of this shard.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.shard.sessions()
    }

    /// Calls `body` with a session and its state. Returns what `body` returned, or `None` if no such session is open on
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

    /// Calls `body` with each open session of this shard and its state.
    pub fn each(&mut self, mut body: impl FnMut(&mut Session<'_>, &mut S)) {
        for id in self.shard.ids() {
            self.shard.with(id, &mut body);
        }
    }

    /// Sends a packet to a session of this shard, as [`Session::send`] does.
    ///
    /// # Errors
    /// As for [`Session::send`]; [`SendError::Closed`] if no such session is open on this shard, or if its framing
    /// panics, which closes the session.
    pub fn send(&mut self, session: SessionId, packet: impl Encode) -> Result<(), SendError> {
        let encoded;
        let packet = match packet.as_payload() {
            Some(payload) => payload,
            None => {
                // Here, so that a panic of the value is not one of the session's framing.
                encoded = packet.to_bytes()?;
                &encoded
            }
        };
        let sent = self.with(session, |session, _| {
            guard("encode", || Ok::<_, CloseReason>(session.send(packet))).unwrap_or_else(|panic| {
                session.fail(panic);
                Err(SendError::Closed)
            })
        });
        sent.unwrap_or(Err(SendError::Closed))
    }

    /// Closes a session of this shard gracefully. Does nothing if no such session is open.
    pub fn close(&mut self, session: SessionId) {
        self.with(session, |session, _| session.close());
    }

    /// As [`close`](Self::close), with a reason, which is a text or any error:
    /// [`on_close`](crate::PacketHandler::on_close) gets it as [`CloseReason::Handler`](crate::CloseReason::Handler).
    pub fn close_with(&mut self, session: SessionId, why: impl Into<Box<dyn Error + Send + Sync>>) {
        self.with(session, |session, _| session.close_with(why));
    }

    /// Returns a handle to a session of this shard, or `None` if no such session is open.
    #[must_use]
    pub fn handle(&mut self, session: SessionId) -> Option<SessionHandle> {
        self.with(session, |session, _| session.handle())
    }

    /// Makes a connection, which becomes a session on this thread, as [`Session::connect`] does: in
    /// [`on_start`](crate::PacketHandler::on_start) to have it from the beginning, or in
    /// [`on_dial_failed`](crate::PacketHandler::on_dial_failed) to try elsewhere.
    ///
    /// # Errors
    /// As for [`Session::connect`].
    pub fn connect(&mut self, dial: Dial) -> Result<DialId, DialError> {
        self.shard.core_mut().dial(dial)
    }

    /// Gives up a dial of this shard, as [`Session::hang_up`] does.
    pub fn hang_up(&mut self, dial: DialId) {
        self.shard.core_mut().hang_up(dial);
    }

    /// Sets a timer of the shard: [`on_shard_timer`](crate::PacketHandler::on_shard_timer) is called with `timer` once,
    /// `after` from now (in steps of 1 ms; never early). A timer that is set already is moved. In a shutdown the timers
    /// are cancelled when the last session of the shard has ended.
    ///
    /// # Errors
    /// [`TimerError`] if [`Limits::session_timers`](crate::Limits::session_timers) other timers (default 16) are set on
    /// this shard.
    pub fn set_timer(&mut self, timer: TimerId, after: Duration) -> Result<(), TimerError> {
        let core = self.shard.core_mut();
        let (due, limit) = (core.clock.deadline(ticks(after)), core.limits.session_timers);
        if core.set_shard_timer(timer, due, limit) { Ok(()) } else { Err(TimerError::new(limit)) }
    }

    /// Cancels a timer of the shard. Returns `true` if it was set. `on_shard_timer` is not called for it any more, even
    /// if it was due.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.shard.core_mut().cancel_shard_timer(timer)
    }
}

impl<S> fmt::Debug for ShardContext<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardContext").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// A closure to call with a session and its state.
pub(crate) type Body<'b, S> = &'b mut dyn FnMut(&mut Session<'_>, &mut S);

/// The sessions of a shard without the types of its framing and its sockets.
pub(crate) trait Inspect<S> {
    fn core(&self) -> &ShardCore;
    fn core_mut(&mut self) -> &mut ShardCore;
    fn ids(&self) -> Vec<SessionId>;
    fn sessions(&self) -> Vec<SessionInfo>;
    /// Calls `body` if the session is open.
    fn with(&mut self, id: SessionId, body: Body<'_, S>);
}
