//! What a user writes: a handler of packets.

use crate::{
    error::{CloseReason, Handled},
    framing::FrameError,
    session::{Session, SessionInfo, ShardContext, TimerId},
};

/// Handles the packets of all sessions of one shard.
///
/// There is one handler per shard, on the shard's thread, so `&mut self` needs no lock; what belongs to one session is
/// [`State`](Self::State) and is handed back beside it. A callback that returns `Err` ends its session gracefully for that
/// reason: what was sent before is still delivered. A callback that panics ends its session with
/// [`CloseReason::Panicked`] and nobody else's. Callbacks never nest, and they must not block: the shard waits for them.
///
/// A session's callbacks come in this order: `on_open`, then any of the others, then `on_closing` once and `on_close` once. No
/// `on_packet` comes after `on_end`.
///
/// ```
/// use framewire::{Handled, PacketHandler, Session};
///
/// /// Answers each packet with its number.
/// #[derive(Clone)]
/// struct Count;
///
/// impl PacketHandler for Count {
///     type State = u64;
///
///     fn on_open(&mut self, _session: &mut Session<'_>) -> Handled<u64> {
///         Ok(0)
///     }
///
///     fn on_packet(&mut self, session: &mut Session<'_>, seen: &mut u64, _packet: &[u8]) -> Handled {
///         *seen += 1;
///         Ok(session.send(seen.to_string())?)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no packet handler",
    note = "wrap a closure in `packet_fn(|session, packet| Ok(session.send(packet)?))`, or implement `PacketHandler` for a type"
)]
pub trait PacketHandler {
    /// What is kept for one session. It never leaves the shard's thread and need not be `Send`.
    type State;

    /// The shard begins: called once for each handler, on the shard's thread, before its first session. The place to set the
    /// shard's timers. A panic here stops the server with [`ServeError::Factory`](crate::ServeError::Factory); on a thread per
    /// connection it costs that connection.
    fn on_start(&mut self, shard: &mut ShardContext<'_, Self::State>) {
        let _ = shard;
    }

    /// A timer set with [`ShardContext::set_timer`] is due: the tick of a game, a sweep over all sessions. It belongs to no
    /// session; a panic here is logged and counted, and the shard goes on.
    fn on_shard_timer(&mut self, shard: &mut ShardContext<'_, Self::State>, timer: TimerId) {
        let _ = (shard, timer);
    }

    /// A connection was accepted, and its [layers](crate::Layer) are through: what they have found out is known
    /// ([`Session::protocol`], [`Session::peer_addr`]). Sends are allowed.
    ///
    /// # Errors
    /// The session is closed, after what was sent has been delivered, and `on_close` is not called for it.
    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<Self::State>;

    /// A packet came. The slice is valid during the call.
    ///
    /// # Errors
    /// The session ends for this reason; no further packet of it is handed out.
    fn on_packet(&mut self, session: &mut Session<'_>, state: &mut Self::State, packet: &[u8]) -> Handled;

    /// The outbox was above the high-water mark and is now below the low one: time to send more.
    ///
    /// # Errors
    /// The session ends for this reason.
    fn on_drained(&mut self, session: &mut Session<'_>, state: &mut Self::State) -> Handled {
        let _ = (session, state);
        Ok(())
    }

    /// A timer set with [`Session::set_timer`] is due.
    ///
    /// # Errors
    /// The session ends for this reason.
    fn on_timer(&mut self, session: &mut Session<'_>, state: &mut Self::State, timer: TimerId) -> Handled {
        let _ = (session, state, timer);
        Ok(())
    }

    /// Nothing was received for [`Limits::idle_timeout`](crate::Limits::idle_timeout). By default the session ends with
    /// [`CloseReason::Idle`]. After [`Then::Stay`] this is called again when as much time has passed again, which suits a
    /// handler that sends a ping.
    ///
    /// # Errors
    /// The session ends for this reason.
    fn on_idle(&mut self, session: &mut Session<'_>, state: &mut Self::State) -> Handled<Then> {
        let _ = (session, state);
        Ok(Then::Close)
    }

    /// The framing refused a frame and goes on behind it ([`Oversize::Discard`](crate::Oversize::Discard)). By default
    /// it is counted and nothing else.
    ///
    /// # Errors
    /// The session ends for this reason.
    fn on_rejected(
        &mut self,
        session: &mut Session<'_>,
        state: &mut Self::State,
        error: &FrameError,
    ) -> Handled {
        let _ = (session, state, error);
        Ok(())
    }

    /// The peer broke the wire: the framing failed with `error`, and the session is about to be closed for it. What is sent
    /// here, a protocol's own error reply, is still delivered.
    fn on_violation(&mut self, session: &mut Session<'_>, state: &mut Self::State, error: &FrameError) {
        let _ = (session, state, error);
    }

    /// The peer has ended its side of the stream: no packet comes after this. Called once, behind the last packet, and not
    /// while the session is paused.
    ///
    /// By default the session closes with [`CloseReason::PeerClosed`]: what was sent is delivered, a reply that comes later
    /// is not. [`Then::Stay`] keeps our side open for replies that are still being computed, as on another thread with a
    /// [`SessionHandle`](crate::SessionHandle): the handler, or a handle, closes the session when the last one is sent.
    /// Until then [`Limits::idle_timeout`](crate::Limits::idle_timeout) and
    /// [`Limits::stall_timeout`](crate::Limits::stall_timeout) bound it as before; without an idle timeout a session that
    /// nothing closes stays until the peer's machine resets it.
    ///
    /// # Errors
    /// The session ends for this reason.
    fn on_end(&mut self, session: &mut Session<'_>, state: &mut Self::State) -> Handled<Then> {
        let _ = (session, state);
        Ok(Then::Close)
    }

    /// The server shuts down; a farewell may be sent. Called once for each open session, behind the packets that were
    /// received before and wait for a full outbox.
    ///
    /// By default the session closes gracefully with [`CloseReason::Shutdown`]. [`Then::Stay`] keeps it open, reading and
    /// all, for as long as the grace period of [`ServerHandle::shutdown`](crate::ServerHandle::shutdown) lasts: the handler
    /// closes it when its work is done, and what is left at the end is reset.
    ///
    /// # Errors
    /// The session ends for this reason.
    fn on_shutdown(&mut self, session: &mut Session<'_>, state: &mut Self::State) -> Handled<Then> {
        let _ = (session, state);
        Ok(Then::Close)
    }

    /// The session hands out no more packets and takes no more sends. Called exactly once for each `on_open` that
    /// returned `Ok`, whatever the cause, and never within another callback. Nothing of this session is called after it
    /// but [`on_close`](Self::on_close).
    ///
    /// At the beginning of a graceful close it comes in the turn in which that was asked for, before the outbox is
    /// flushed and the peer's end awaited, which a peer can draw out to [`Limits::close_timeout`](crate::Limits::close_timeout)
    /// and [`Limits::linger_timeout`](crate::Limits::linger_timeout); where a session ends at once (a reset, a peer that
    /// does not read, an abort), it comes immediately before `on_close`.
    ///
    /// So this is the place to keep track of who is there: take the user out of the room here, and do the final accounting
    /// in `on_close`. `reason` is why the close begins; `on_close` may be told another one, when the close itself fails
    /// (the peer stops reading before it is flushed). A panic here is counted, and the session goes on closing.
    fn on_closing(&mut self, session: &SessionInfo, state: &mut Self::State, reason: &CloseReason) {
        let _ = (session, state, reason);
    }

    /// The session has ended. Called exactly once for each `on_open` that returned `Ok`, whatever the cause, after
    /// [`on_closing`](Self::on_closing) and before the descriptor is closed; nothing of this session is called after it.
    ///
    /// After a graceful close this is when everything is flushed and the peer has ended its side too, or has not within
    /// [`Limits::linger_timeout`](crate::Limits::linger_timeout): the place for what has to be final, as the bytes that
    /// were sent. Who is to be told that a user has left need not wait for it: see `on_closing`.
    fn on_close(&mut self, session: &SessionInfo, state: Self::State, reason: &CloseReason) {
        let _ = (session, state, reason);
    }
}

/// What becomes of a session after a callback that may keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Then {
    /// It closes gracefully: what was sent is delivered first.
    Close,
    /// It stays open.
    Stay,
}

/// A handler without state from a closure over the session and the packet.
///
/// ```no_run
/// use framewire::{packet_fn, Separator, Server};
///
/// # fn main() -> Result<(), framewire::ServeError> {
/// Server::bind("127.0.0.1:7000")?
///     .framing(Separator::lines())
///     .serve(packet_fn(|session, packet| Ok(session.send(packet)?)))
/// # }
/// ```
///
/// The closure returns [`Handled`]: any error ends the session, by `?`.
///
/// ```
/// use framewire::packet_fn;
///
/// let greet = packet_fn(|session, packet| {
///     let name = std::str::from_utf8(packet)?;
///     session.send(format!("hello {name}"))?;
///     if name == "nobody" {
///         session.close();
///     }
///     Ok(())
/// });
/// ```
///
/// It is cloned for each shard, and what it has captured with it; to share something between shards, capture an `Arc`.
pub fn packet_fn<C>(on_packet: C) -> PacketFn<C>
where
    C: FnMut(&mut Session<'_>, &[u8]) -> Handled,
{
    PacketFn { on_packet }
}

/// See [`packet_fn`].
#[derive(Debug, Clone, Copy)]
pub struct PacketFn<C> {
    on_packet: C,
}

impl<C> PacketHandler for PacketFn<C>
where
    C: FnMut(&mut Session<'_>, &[u8]) -> Handled,
{
    type State = ();

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled {
        Ok(())
    }

    #[inline(always)]
    fn on_packet(&mut self, session: &mut Session<'_>, _state: &mut (), packet: &[u8]) -> Handled {
        (self.on_packet)(session, packet)
    }
}
