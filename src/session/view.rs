use std::{
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    addr::{Addr, Origin},
    contained::{Contained, guard},
    encode::Encode,
    error::{CloseReason, LayerError, SendError},
    framing::{Framing, U32Header},
    id::SessionId,
    layer::Layer,
    session::{
        Connection, FramingSlot, Heartbeat, Medium, SessionCommand, SessionHandle, ShardCore, TimerError,
        TimerId,
    },
    time::ticks,
};

/// A session, within a callback. It cannot leave the callback; a [`SessionHandle`] can.
///
/// None of these methods calls another callback: whatever follows from them happens after the callback has returned.
pub struct Session<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) framing: &'a mut dyn FramingSlot,
    pub(super) core: &'a mut ShardCore,
    /// Of the framing: what most sends need of it.
    header: U32Header,
}

impl<'a> Session<'a> {
    #[inline]
    pub(crate) fn new(
        connection: &'a mut Connection,
        framing: &'a mut dyn FramingSlot,
        core: &'a mut ShardCore,
    ) -> Self {
        let header = U32Header::of(framing.length_header());
        Self::with_header(connection, framing, core, header)
    }

    /// As [`new`](Self::new), where the header of the framing is known.
    #[inline]
    pub(crate) fn with_header(
        connection: &'a mut Connection,
        framing: &'a mut dyn FramingSlot,
        core: &'a mut ShardCore,
        header: U32Header,
    ) -> Self {
        Self { connection, framing, core, header }
    }

    /// What it consists of.
    pub(super) fn parts(&mut self) -> (&mut Connection, &dyn FramingSlot, &mut ShardCore) {
        (self.connection, self.framing, self.core)
    }

    /// The header of the framing, which the callback may have replaced.
    #[inline]
    pub(crate) fn header(&self) -> U32Header {
        self.header
    }
}

impl Session<'_> {
    /// Sends a packet. It is framed into the outbox at once, and written after the current batch of received packets,
    /// together with everything else that was sent meanwhile. Never blocks.
    ///
    /// Bytes and texts are copied once. Other values (see [`Encode`]) are encoded once, into the outbox; whether there is
    /// room for them is known when they are there, unless their size hint shows earlier that there is none. If encoding
    /// fails or panics, nothing is left of it in the outbox.
    ///
    /// # Errors
    /// Nothing is queued then, and the session stays as it is unless the callback passes the error on with `?`.
    /// - [`SendError::Full`] if the packet would take the outbox above
    ///   [`Limits::outbox_hard`](crate::Limits::outbox_hard): the peer does not read as fast as we send.
    /// - [`SendError::Encode`] if the value cannot be encoded, or the framing cannot frame the payload.
    /// - [`SendError::Closed`] if the session is closing, as after [`close`](Self::close).
    #[inline(always)]
    pub fn send(&mut self, packet: impl Encode) -> Result<(), SendError> {
        match packet.as_payload() {
            Some(payload) => self.send_payload(payload),
            None => self.connection.enqueue_value(self.framing, &packet, self.core),
        }
    }

    #[inline(always)]
    fn send_payload(&mut self, packet: &[u8]) -> Result<(), SendError> {
        if self.connection.enqueue_in_place(self.header, packet, self.core) {
            return Ok(());
        }
        self.connection.enqueue(self.framing, packet, self.core)
    }

    /// Sends a packet to another session of the server, or to this one. Never blocks.
    ///
    /// Between sessions of one shard this takes no lock and wakes no thread: the packet is framed for the other session
    /// when this callback has returned, and written in the same turn. A session of another shard gets it through the
    /// mailbox of that shard. Packets that one session sends to another arrive in order, and do not overtake packets
    /// that another thread sent earlier through a [`SessionHandle`].
    ///
    /// `Ok` means that the packet is on its way, not that the other session is still open: if it has closed, or its
    /// whole service has ended, the packet is dropped. If the packet would take the outbox of the other session above twice
    /// [`Limits::outbox_hard`](crate::Limits::outbox_hard), because its peer does not read, that session is closed with
    /// [`CloseReason::Send`]. If the other session's framing cannot encode the packet, it is logged, counted and
    /// dropped.
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
    /// - [`SendError::MailboxFull`] if this callback has sent
    ///   [`Limits::mailbox_commands`](crate::Limits::mailbox_commands) packets already, or would exceed
    ///   [`Limits::mailbox_bytes`](crate::Limits::mailbox_bytes) (to sessions of other services on this thread, the
    ///   callbacks that run between two steps of the event loop have that much together); or if the mailbox of the other
    ///   shard is full.
    /// - [`SendError::Encode`] if the value cannot be encoded.
    /// - If `other` is this session, as [`send`](Self::send).
    pub fn send_to(&mut self, other: SessionId, packet: impl Encode) -> Result<(), SendError> {
        if other == self.id() {
            return self.send(packet);
        }
        let (commands, bytes) = self.core.effect_limits();
        if let Some(effects) = self.core.effects_for(other) {
            return match packet.as_payload() {
                Some(payload) => effects.send(other, payload, commands, bytes),
                None => effects.send(other, &packet.to_bytes()?, commands, bytes),
            };
        }
        let payload = packet.into_payload()?;
        let len = payload.len();
        let command = SessionCommand::Send { payload, completion: None, reserved: 0, overflow: None };
        self.route(other, command, len)
    }

    /// Puts a command into the mailbox of another shard. One that has ended has no sessions: that is no error, so that
    /// a handler behaves in the same way on every strategy.
    fn route(&mut self, other: SessionId, command: SessionCommand, bytes: usize) -> Result<(), SendError> {
        match self.core.shards.route(other, command, bytes) {
            Err(SendError::Closed) => Ok(()),
            routed => routed,
        }
    }

    /// Closes another session of the server, or this one, gracefully. Another session is closed after this callback has
    /// returned, and after the packets sent to it before. Does nothing if the session has ended. What a callback has
    /// asked of other sessions is done even if it fails or panics afterwards.
    ///
    /// # Errors
    /// [`SendError::MailboxFull`], as for [`send_to`](Self::send_to).
    pub fn close_session(&mut self, other: SessionId) -> Result<(), SendError> {
        if other == self.id() {
            self.close();
            return Ok(());
        }
        let (commands, _) = self.core.effect_limits();
        if let Some(effects) = self.core.effects_for(other) {
            return effects.close(other, CloseReason::Local, commands);
        }
        self.route(other, SessionCommand::Close(None), 0)
    }

    /// Closes the session gracefully: the outbox is flushed (for at most
    /// [`Limits::close_timeout`](crate::Limits::close_timeout)), our side of the stream is ended, and the peer is given
    /// up to [`Limits::linger_timeout`](crate::Limits::linger_timeout) to end its own. No further packet is handed out.
    /// Does nothing if the session is closing already.
    pub fn close(&mut self) {
        self.connection.close(CloseReason::Local, self.core);
    }

    /// As [`close`](Self::close), with a reason, which is a text or any error: `on_closing` and `on_close` get it as
    /// [`CloseReason::Handler`]. Returning `Err(`[`Failure::because`](crate::Failure::because)`(why))` from a callback
    /// does the same for a text. If a session is closed more than once, the first reason counts.
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

    /// Closes the session because its framing, or a layer, failed or panicked outside of a callback.
    pub(crate) fn fail(&mut self, reason: CloseReason) {
        if matches!(reason, CloseReason::Panicked { .. }) {
            let (id, peer) = (self.id(), self.connection.endpoints().peer());
            self.core.report_panic(id, &peer, &reason, "closing the session");
        }
        self.connection.close(reason, self.core);
    }

    /// Terminates the session when the callback has returned: the connection is reset, and what is queued is lost.
    pub fn abort(&mut self) {
        self.connection.abort(self.core);
    }

    /// Stops reading until [`resume`](Self::resume): packets that were already received wait, and so does the end of
    /// the peer's stream. Once the kernel's receive buffer is full, the peer cannot send any more (over UDP, what it sends
    /// meanwhile is lost). Idle, first-packet
    /// and packet timeouts do not expire during the pause. The handshake of a layer does not continue either, and has
    /// its whole time again after it.
    ///
    /// If the connection fails during the pause (a reset, a failed write), the session is terminated and the waiting
    /// packets are lost; without a pause they are handed out first.
    pub fn pause(&mut self) {
        self.connection.pause(self.core);
    }

    /// Reads again after a [`pause`](Self::pause). Packets that wait are handed out after the callback has returned.
    pub fn resume(&mut self) {
        self.connection.resume(self.core);
    }

    /// Sets a timer: [`on_timer`](crate::PacketHandler::on_timer) is called with `timer` once, `after` from now (in
    /// steps of 1 ms; never early). A timer that is set already is moved. All timers are cancelled when the session
    /// begins to close.
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
    /// [`TimerError`] if [`Limits::session_timers`](crate::Limits::session_timers) other timers (default 16) are set.
    pub fn set_timer(&mut self, timer: TimerId, after: Duration) -> Result<(), TimerError> {
        let (due, limit) = (self.core.clock.deadline(ticks(after)), self.core.limits.session_timers);
        let set = self.connection.set_timer(timer, due, limit, self.core);
        if set { Ok(()) } else { Err(TimerError::new(limit)) }
    }

    /// Cancels a timer. Returns `true` if it was set. `on_timer` is not called for it any more, even if it was due.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.connection.cancel_timer(timer, self.core)
    }

    /// Sets the session's heartbeat: a packet that is sent every so often from now on. One that was set before stops,
    /// and what it knew of the peer is forgotten; `None` only stops it. It costs no
    /// [timer](crate::Limits::session_timers). Does nothing if the session is closing.
    ///
    /// [`Heartbeat`] has an example, and says when a beat is sent, when it is skipped, and when the peer is given up.
    pub fn set_heartbeat(&mut self, heartbeat: impl Into<Option<Heartbeat>>) {
        self.connection.set_heartbeat(heartbeat.into(), self.core);
    }

    /// Sets the idle timeout of this session, in place of [`Limits::idle_timeout`](crate::Limits::idle_timeout):
    /// [`on_idle`](crate::PacketHandler::on_idle) is called when no byte came from the peer for so long, counted from
    /// the last one that did. `None` means no limit. Less than 1 ms counts as 1 ms. For protocols whose peers negotiate
    /// a keep-alive: MQTT 3.1.1, section 3.1.2.10, asks for 1.5 times what the client announces, and for no limit if it
    /// announces 0.
    ///
    /// ```
    /// use std::time::Duration;
    /// use framewire::packet_fn;
    ///
    /// let handler = packet_fn(|session, packet| {
    ///     if let Some(seconds) = std::str::from_utf8(packet)?.strip_prefix("KEEPALIVE ") {
    ///         let seconds = Duration::from_secs(seconds.parse::<u32>()?.into());
    ///         session.set_idle_timeout(Some(seconds * 3 / 2).filter(|timeout| !timeout.is_zero()));
    ///     }
    ///     Ok(())
    /// });
    /// ```
    pub fn set_idle_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.connection.set_idle_timeout(timeout.into(), self.core);
    }

    /// Sets the maximum age of this session, in place of [`Limits::max_age`](crate::Limits::max_age): so long after
    /// `on_open` has returned, it is closed gracefully with [`CloseReason::MaxAge`]; at once, if it is older already.
    /// `None` means no limit. Less than 1 ms counts as 1 ms. Nothing is subtracted from it
    /// ([`Limits::max_age_spread`](crate::Limits::max_age_spread)).
    pub fn set_max_age(&mut self, age: impl Into<Option<Duration>>) {
        self.connection.set_max_age(age.into(), self.core);
    }

    /// Replaces the framing in both directions: the next byte after the current packet goes to the new framing, and so
    /// does the next packet that is sent. The new framing is offered [`Limits::frame`](crate::Limits::frame) as its
    /// maximum. This may be called any number of times; a framing set here is on the heap. A UDP session has no framing:
    /// this closes it, with [`CloseReason::Handler`].
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
        if self.core.medium != Medium::Streams {
            return self.connection.close(CloseReason::Handler(Arc::new(NoStream)), self.core);
        }
        framing.offer_max(self.core.limits.frame);
        self.framing.swap(framing.into_inner());
        self.header = U32Header::of(self.framing.length_header());
        self.connection.framing_swapped(self.framing, self.core);
    }

    /// Inserts a layer between the framing and what is below it (the socket or other layers), in both directions: the
    /// next byte after the current packet goes to the layer, and so does the next packet that is sent. Packets sent
    /// before do not pass through it. This is how STARTTLS works; for TLS from the first byte see
    /// [`Server::layer`](crate::Server::layer).
    ///
    /// Until the layer is open, no packet is handed out and what is sent waits. If it is not open within
    /// [`Limits::handshake_timeout`](crate::Limits::handshake_timeout), the session is closed with
    /// [`CloseReason::Handshake`]. A session that gets more than 8 layers, or a layer while packets wait for the
    /// handshake of another or while only a part of a packet was received, is closed with [`CloseReason::Layer`]. Does
    /// nothing if the session is closing. A UDP session has no layers: this closes it, with [`CloseReason::Handler`].
    pub fn push_layer(&mut self, layer: impl Layer + 'static) {
        let layer: Contained<Box<dyn Layer>> = Contained::new(Box::new(layer));
        if self.core.medium != Medium::Streams {
            return self.connection.close(CloseReason::Handler(Arc::new(NoStream)), self.core);
        }
        // What was sent before goes through the layers below, which are the user's code.
        let pushed = guard("layer", || Ok(self.connection.push_layer(layer, self.core)?));
        match pushed {
            Ok(()) => {}
            Err(reason @ CloseReason::Layer(LayerError::Misplaced(_))) => {
                self.connection.close(reason, self.core);
            }
            Err(reason) => {
                self.connection.fail_layers(self.core);
                self.fail(reason);
            }
        }
    }

    /// Returns the protocol that the session's layers have negotiated with the peer (the ALPN of TLS, a WebSocket
    /// subprotocol), or `None` if there is none.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        self.connection.protocol()
    }

    /// Returns what TLS has agreed on with the peer: version, cipher suite, names, certificates. `None` if there is no TLS, or
    /// its handshake is not complete. See [`Server::tls`](crate::Server::tls).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(&self) -> Option<crate::tls::TlsInfo<'_>> {
        self.connection.tls()
    }

    /// Returns a handle to this session, which other threads and other sessions can use, also later.
    #[must_use]
    pub fn handle(&mut self) -> SessionHandle {
        SessionHandle { handle_state: self.connection.handle_state_or_new(self.framing, self.core) }
    }

    /// Returns the session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.core.id_of(self.connection.key())
    }

    /// Returns the peer's address: the one that a layer has set (as a layer for PROXY headers does), otherwise that of
    /// the socket.
    #[must_use]
    pub fn peer_addr(&self) -> Addr {
        self.connection.endpoints().peer()
    }

    /// Returns the address on our side.
    #[must_use]
    pub fn local_addr(&self) -> Addr {
        self.connection.endpoints().local()
    }

    /// Returns where the session comes from: which listener has accepted it, or which dial has made it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.connection.endpoints().origin()
    }

    /// Returns the session's counters.
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

/// What was asked of a session over UDP, or over a carrier, can only be done to a stream of bytes.
#[derive(Debug, Error)]
#[error(
    "only a stream of bytes has a framing and layers: a datagram is a packet, and so is what a carrier brings"
)]
struct NoStream;

/// The counters of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStats {
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes written to the kernel.
    pub bytes_out: u64,
    /// Packets handed to the handler.
    pub packets_in: u64,
    /// Packets queued in the outbox, by any kind of send, since the session began.
    pub packets_out: u64,
    /// Bytes that wait in the outbox; if there are none, bytes of layers (a handshake, for example) that wait.
    pub queued: usize,
    /// When `on_open` returned, to the millisecond.
    pub opened_at: Instant,
}
