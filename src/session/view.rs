use std::{
    error::Error,
    fmt,
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    addr::Addr,
    contained::Contained,
    error::{CloseReason, SendError},
    framing::Framing,
    id::SessionId,
    session::{Connection, FramingSlot, SessionHandle, ShardCore},
    time::ticks,
};

/// A session, within a callback. It cannot leave the callback; a [`SessionHandle`] can.
///
/// What is asked of it here is recorded and takes effect when the callback has returned: a callback is never called
/// within another.
pub struct Session<'a> {
    connection: &'a mut Connection,
    framing: &'a mut dyn FramingSlot,
    core: &'a mut ShardCore,
}

impl<'a> Session<'a> {
    #[inline]
    pub(crate) fn new(
        connection: &'a mut Connection,
        framing: &'a mut dyn FramingSlot,
        core: &'a mut ShardCore,
    ) -> Self {
        Self { connection, framing, core }
    }
}

impl Session<'_> {
    /// Sends a packet: it is framed into the outbox now, and written when the callback's batch of packets is done,
    /// together with all that was sent in it. Never blocks.
    ///
    /// # Errors
    /// [`SendError::Full`] at [`Limits::outbox_hard`](crate::Limits::outbox_hard) (a peer that does not read; with `?` it
    /// is closed), [`SendError::Frame`] when the payload has no frame, [`SendError::Closed`] after
    /// [`close`](Self::close). Nothing was queued then.
    #[inline]
    pub fn send(&mut self, packet: impl AsRef<[u8]>) -> Result<(), SendError> {
        self.connection.enqueue(self.framing, packet.as_ref(), self.core)
    }

    /// Closes gracefully: what was sent is flushed (at most [`Limits::close_timeout`](crate::Limits::close_timeout)), our
    /// end of the stream is sent, and the peer's is awaited (at most
    /// [`Limits::linger_timeout`](crate::Limits::linger_timeout)). No further packet is handed out.
    pub fn close(&mut self) {
        self.connection.close(CloseReason::Local, self.core);
    }

    /// As [`close`](Self::close), and says why: the log and `on_close` show it, as [`CloseReason::Handler`]. Returning
    /// `Err(CloseReason::Handler(why.into().into()))` from a callback does the same. The first reason of a session counts.
    ///
    /// ```
    /// use framewire::packet_fn;
    ///
    /// let handler = packet_fn(|session, packet| {
    ///     if packet == b"quit" {
    ///         session.close_with("the user said goodbye");
    ///     }
    ///     Ok(session.send(packet)?)
    /// });
    /// ```
    pub fn close_with(&mut self, why: impl Into<Box<dyn Error + Send + Sync>>) {
        self.connection.close(CloseReason::Handler(why.into().into()), self.core);
    }

    /// Resets the connection: what is queued is lost.
    pub fn abort(&mut self) {
        self.connection.abort(self.core);
    }

    /// Stops reading: packets that were already received wait, and the kernel's window closes on the peer.
    ///
    /// The end of the peer's stream waits as well. A connection that fails meanwhile (a reset, a write that cannot be done)
    /// ends the session at once, and the packets that waited are lost; without a pause they are handed out first.
    pub fn pause(&mut self) {
        self.connection.pause(self.core);
    }

    /// Reads again after a [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.connection.resume(self.core);
    }

    /// Calls `on_timer` with `timer` once, `after` from now (granularity 1 ms; never early). A timer that is set already is
    /// moved. Timers are forgotten when the session begins to close.
    ///
    /// ```
    /// use std::time::Duration;
    /// use framewire::{Handled, PacketHandler, Session, TimerId};
    ///
    /// const TICK: TimerId = TimerId(0);
    ///
    /// /// Sends a line every second.
    /// #[derive(Clone)]
    /// struct Clock;
    ///
    /// impl PacketHandler for Clock {
    ///     type State = u64;
    ///
    ///     fn on_open(&mut self, session: &mut Session<'_>) -> Handled<u64> {
    ///         session.set_timer(TICK, Duration::from_secs(1))?;
    ///         Ok(0)
    ///     }
    ///
    ///     fn on_packet(&mut self, _: &mut Session<'_>, _: &mut u64, _: &[u8]) -> Handled {
    ///         Ok(())
    ///     }
    ///
    ///     fn on_timer(&mut self, session: &mut Session<'_>, ticks: &mut u64, timer: TimerId) -> Handled {
    ///         *ticks += 1;
    ///         session.send(format!("tick {ticks}"))?;
    ///         Ok(session.set_timer(timer, Duration::from_secs(1))?)
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`TimerError`] when [`Limits::session_timers`](crate::Limits::session_timers) others are set.
    pub fn set_timer(&mut self, timer: TimerId, after: Duration) -> Result<(), TimerError> {
        let (due, limit) = (self.core.clock.deadline(ticks(after)), self.core.limits.session_timers);
        let set = self.connection.set_timer(timer, due, limit, self.core);
        if set { Ok(()) } else { Err(TimerError { limit }) }
    }

    /// Forgets a timer; whether it was set. It does not ring after this, even if it was due.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.connection.cancel_timer(timer, self.core)
    }

    /// Replaces the framing, for both directions: the very next byte after this packet goes to the new one, and so does
    /// the next packet that is sent. It is offered [`Limits::frame`](crate::Limits::frame) as its maximum. It may be called
    /// again, and lives on the heap from the first time on.
    ///
    /// ```
    /// use framewire::{Handled, LengthPrefix, PacketHandler, Session};
    ///
    /// /// A line to log in, then binary.
    /// #[derive(Clone)]
    /// struct Login;
    ///
    /// impl PacketHandler for Login {
    ///     type State = Option<String>;
    ///
    ///     fn on_open(&mut self, _: &mut Session<'_>) -> Handled<Option<String>> {
    ///         Ok(None)
    ///     }
    ///
    ///     fn on_packet(
    ///         &mut self,
    ///         session: &mut Session<'_>,
    ///         user: &mut Option<String>,
    ///         packet: &[u8],
    ///     ) -> Handled {
    ///         if user.is_some() {
    ///             return Ok(session.send(packet)?);
    ///         }
    ///         *user = Some(String::from_utf8_lossy(packet).into_owned());
    ///         session.send("welcome")?; // still a line
    ///         session.set_framing(LengthPrefix::u32_be());
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn set_framing(&mut self, framing: impl Framing + 'static) {
        let mut framing: Contained<Box<dyn Framing>> = Contained::new(Box::new(framing));
        framing.offer_max(self.core.limits.frame);
        self.framing.swap(framing.into_inner());
        self.connection.framing_swapped(self.framing, self.core);
    }

    /// A handle to this session, for other threads, other sessions and later.
    #[must_use]
    pub fn handle(&mut self) -> SessionHandle {
        SessionHandle { handle_state: self.connection.handle_state_or_new(self.framing, self.core) }
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        SessionId { shard: self.core.shard, key: self.connection.key() }
    }

    /// The peer's address.
    #[must_use]
    pub fn peer_addr(&self) -> Addr {
        self.connection.endpoints().peer()
    }

    /// The address on our side that the peer connected to.
    #[must_use]
    pub fn local_addr(&self) -> Addr {
        self.connection.endpoints().local()
    }

    /// What went through this session so far.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        self.connection.stats(self.core.origin)
    }
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id())
            .field("peer", &self.peer_addr())
            .finish_non_exhaustive()
    }
}

/// The counters of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStats {
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes taken by the kernel.
    pub bytes_out: u64,
    /// Packets handed to the handler.
    pub packets_in: u64,
    /// Packets queued by `send`.
    pub packets_out: u64,
    /// Bytes that wait in the outbox.
    pub queued: usize,
    /// When the session was opened, to the millisecond.
    pub opened_at: Instant,
}

/// The name of a timer within its session: a number of the handler's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId(pub u32);

/// The session has as many timers as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{limit} timers are set on this session, the limit; cancel one or raise limits.session_timers")]
pub struct TimerError {
    limit: usize,
}
