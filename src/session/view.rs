use std::{
    error::Error,
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use thiserror::Error;

use crate::{
    addr::Addr,
    contained::Contained,
    error::{CloseReason, Logged, SendError},
    framing::Framing,
    id::SessionId,
    layer::Layer,
    session::{Connection, FramingSlot, SessionCommand, SessionHandle, ShardCore},
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
    #[inline(always)]
    pub fn send(&mut self, packet: impl AsRef<[u8]>) -> Result<(), SendError> {
        let packet = packet.as_ref();
        match self.framing.length_header() {
            Some(header) if self.connection.enqueue_in_place(header, packet, self.core) => Ok(()),
            _ => self.connection.enqueue(self.framing, packet, self.core),
        }
    }

    /// Sends a packet to another session of the server, or to this one. Never blocks.
    ///
    /// Between sessions of one shard this takes no lock and wakes no thread: the packet is framed for the other session
    /// when this callback has returned, and written in the same turn. A session of another shard gets it through the
    /// mailbox of that shard. Packets that one session sends to another arrive in order, also beside those that other threads
    /// send through a [`SessionHandle`]: none overtakes a packet that was sent before.
    ///
    /// `Ok` means that the packet is on its way, not that the other session is still there: one that has closed is sent
    /// nothing. A session whose peer reads so slowly that the packet finds its outbox at
    /// [`Limits::outbox_hard`](crate::Limits::outbox_hard) is closed with [`CloseReason::Send`]; a packet that has no frame
    /// in the other session's framing is logged, counted and dropped.
    ///
    /// ```
    /// use framewire::{Handled, PacketHandler, Session, SessionId};
    ///
    /// /// Passes packets on between the two sessions of a game. On one shard: `SingleReactor`.
    /// #[derive(Clone, Default)]
    /// struct Duel(Vec<SessionId>);
    ///
    /// impl PacketHandler for Duel {
    ///     type State = ();
    ///
    ///     fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
    ///         self.0.push(session.id());
    ///         Ok(())
    ///     }
    ///
    ///     fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
    ///         let me = session.id();
    ///         for other in self.0.iter().filter(|other| **other != me) {
    ///             session.send_to(*other, packet)?;
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`SendError::MailboxFull`] when this callback has sent more than
    /// [`Limits::mailbox_commands`](crate::Limits::mailbox_commands) packets or
    /// [`Limits::mailbox_bytes`](crate::Limits::mailbox_bytes), or the other shard cannot keep up; [`SendError::Closed`] when
    /// the other shard has ended; to itself, as [`send`](Self::send).
    pub fn send_to(&mut self, other: SessionId, packet: impl AsRef<[u8]>) -> Result<(), SendError> {
        let packet = packet.as_ref();
        if other == self.id() {
            return self.send(packet);
        }
        let (commands, bytes) = self.core.effect_limits();
        if let Some(effects) = self.core.effects_for(other) {
            return effects.send(other, packet, commands, bytes);
        }
        let payload = Bytes::copy_from_slice(packet);
        let command = SessionCommand::Send { payload, completion: None, reserved: 0 };
        self.core.shards.route(other, command, packet.len())
    }

    /// Closes another session of the server gracefully when this callback has returned, behind what was sent to it before;
    /// or this one. Nothing happens when it is gone.
    ///
    /// # Errors
    /// [`SendError::MailboxFull`] and [`SendError::Closed`], as [`send_to`](Self::send_to).
    pub fn close_session(&mut self, other: SessionId) -> Result<(), SendError> {
        if other == self.id() {
            self.close();
            return Ok(());
        }
        let (commands, _) = self.core.effect_limits();
        if let Some(effects) = self.core.effects_for(other) {
            return effects.close(other, CloseReason::Local, commands);
        }
        self.core.shards.route(other, SessionCommand::Close(None), 0)
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

    /// Its framing panicked outside of a callback.
    pub(crate) fn fail(&mut self, panic: CloseReason) {
        self.core.counters.panics += 1;
        tracing::error!(session = %self.id(), reason = %Logged(&panic), "closing the session");
        self.connection.close(panic, self.core);
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
        if set { Ok(()) } else { Err(TimerError::new(limit)) }
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

    /// Puts a layer between the framing and what there is (the socket, or other layers), for both directions: the very next byte
    /// after this packet goes to it, and so does the next packet that is sent. What was sent before does not. STARTTLS is
    /// this; for TLS from the first byte on see [`Server::layer`](crate::Server::layer).
    ///
    /// Until the layer is open no packet is handed out, and what is sent waits, for at most
    /// [`Limits::handshake_timeout`](crate::Limits::handshake_timeout). More than 8 layers, or one pushed while packets
    /// wait for the handshake of another, end the session with [`CloseReason::Layer`].
    pub fn push_layer(&mut self, layer: impl Layer + 'static) {
        let layer: Contained<Box<dyn Layer>> = Contained::new(Box::new(layer));
        if let Err(error) = self.connection.push_layer(layer, self.core) {
            self.connection.close(error.into(), self.core);
        }
    }

    /// What the session's layers have agreed with the peer to speak, as ALPN of TLS or a WebSocket subprotocol, if they have.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        self.connection.protocol()
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

    /// The peer's address; that which a layer has found out, as that of PROXY headers does, where one has.
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

/// The session, or the shard, has as many timers as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{limit} timers are set, the limit; cancel one or raise limits.session_timers")]
pub struct TimerError {
    limit: usize,
}

impl TimerError {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit }
    }
}
