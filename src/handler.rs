//! [`PacketHandler`], the trait that an application implements.

use crate::{
    error::{CloseReason, DialError, Handled},
    framing::FrameError,
    id::DialId,
    session::{Session, SessionInfo, ShardContext, TimerId},
};

/// Handles the packets of all sessions of one shard.
///
/// Each shard has its own handler and runs it on the shard's thread, so `&mut self` needs no lock. Data that belongs to
/// one session goes into [`State`](Self::State), which is passed to every callback of that session.
///
/// A callback that returns `Err` closes its session gracefully with that reason: what was sent before is still
/// delivered. A callback that panics closes its session with [`CloseReason::Panicked`]; other sessions are not
/// affected. Callbacks never nest. They must not block: no other session of the shard is served until the callback
/// returns.
///
/// The callbacks of a session come in this order: `on_open`, then any of the others, then `on_closing` once and
/// `on_close` once. `on_packet` is not called after `on_end`.
///
/// ```
/// use framewire::{Handled, PacketHandler, Session};
///
/// /// Replies to each packet with its number.
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
    note = "wrap a closure in `packet_fn(|session, packet| Ok(session.send(packet)?))`, two in `session_fn` for a state of each session, or implement `PacketHandler` for a type"
)]
pub trait PacketHandler {
    /// The data of one session. It never leaves the shard's thread and need not be `Send`.
    type State;

    /// Called once for each handler, on the shard's thread, before its first session. This is the place to set the
    /// shard's timers. A panic here stops the server with [`ServeError::OnStart`](crate::ServeError::OnStart); on the
    /// thread of a single connection, it ends only that connection.
    fn on_start(&mut self, shard: &mut ShardContext<'_, Self::State>) {
        let _ = shard;
    }

    /// Called when a timer set with [`ShardContext::set_timer`] is due. Such a timer belongs to no session; use it for
    /// the tick of a game, or for a sweep over all sessions. A panic here is logged and counted, and the shard
    /// continues.
    fn on_shard_timer(&mut self, shard: &mut ShardContext<'_, Self::State>, timer: TimerId) {
        let _ = (shard, timer);
    }

    /// Called when a [`Dial`](crate::Dial) that was begun on this shard has failed, and nothing more will come of it:
    /// none of its addresses has led to a session, or the server is stopping. Another may be begun here. By default
    /// this does nothing but that the failure is logged, at level `DEBUG`. A panic here is logged and counted, and the
    /// shard continues.
    fn on_dial_failed(&mut self, shard: &mut ShardContext<'_, Self::State>, dial: DialId, error: &DialError) {
        let _ = (shard, dial, error);
    }

    /// Called when a connection was accepted, or [made](crate::Dial), and its [layers](crate::Layer), if any, are open: [`Session::protocol`]
    /// and [`Session::peer_addr`] return what the layers found out. Sends are allowed. Returns the state of the
    /// session.
    ///
    /// # Errors
    /// On `Err` the session is closed once what was sent has been delivered. Neither `on_closing` nor `on_close` is
    /// called for it.
    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<Self::State>;

    /// Called for each packet received. The slice is valid during the call only.
    ///
    /// # Errors
    /// On `Err` the session is closed with that reason, and gets no further packets.
    fn on_packet(&mut self, session: &mut Session<'_>, state: &mut Self::State, packet: &[u8]) -> Handled;

    /// Called when the outbox has drained: it was above [`Limits::outbox_high`](crate::Limits::outbox_high) and has
    /// fallen to [`Limits::outbox_low`](crate::Limits::outbox_low). More can be sent now. By default this does nothing.
    ///
    /// # Errors
    /// On `Err` the session is closed with that reason.
    fn on_drained(&mut self, session: &mut Session<'_>, state: &mut Self::State) -> Handled {
        let _ = (session, state);
        Ok(())
    }

    /// Called when a timer set with [`Session::set_timer`] is due. By default this does nothing.
    ///
    /// # Errors
    /// On `Err` the session is closed with that reason.
    fn on_timer(&mut self, session: &mut Session<'_>, state: &mut Self::State, timer: TimerId) -> Handled {
        let _ = (session, state, timer);
        Ok(())
    }

    /// Called when nothing was received for [`Limits::idle_timeout`](crate::Limits::idle_timeout) (off by default), or
    /// for the timeout that [`Session::set_idle_timeout`] has set.
    ///
    /// By default the session is closed with [`CloseReason::Idle`]. After [`Then::Stay`] this is called again when the
    /// same time has passed once more. For pings at regular intervals see [`Heartbeat`](crate::Heartbeat).
    ///
    /// # Errors
    /// On `Err` the session is closed with that reason.
    fn on_idle(&mut self, session: &mut Session<'_>, state: &mut Self::State) -> Handled<Then> {
        let _ = (session, state);
        Ok(Then::Close)
    }

    /// Called when the framing refused a frame and continues after it, as with
    /// [`Oversize::Discard`](crate::Oversize::Discard). By default the frame is only counted.
    ///
    /// # Errors
    /// On `Err` the session is closed with that reason.
    fn on_rejected(
        &mut self,
        session: &mut Session<'_>,
        state: &mut Self::State,
        error: &FrameError,
    ) -> Handled {
        let _ = (session, state, error);
        Ok(())
    }

    /// Called when the peer violated the protocol: the framing failed with `error`, and the session is about to be
    /// closed with [`CloseReason::Frame`]. What is sent here, such as the protocol's own error reply, is still
    /// delivered.
    fn on_violation(&mut self, session: &mut Session<'_>, state: &mut Self::State, error: &FrameError) {
        let _ = (session, state, error);
    }

    /// Called when the peer has ended its side of the stream: no packet follows. Called once, after the last packet,
    /// and not while the session is paused.
    ///
    /// By default the session is closed with [`CloseReason::PeerClosed`]: what was sent is delivered, but later replies
    /// are not. [`Then::Stay`] keeps our side open for replies that are still being computed, for example by another
    /// thread that has a [`SessionHandle`](crate::SessionHandle); the handler or the handle must close the session
    /// after the last reply. Until then [`Limits::idle_timeout`](crate::Limits::idle_timeout) and
    /// [`Limits::stall_timeout`](crate::Limits::stall_timeout) apply as before. Without an idle timeout, a session that
    /// is never closed stays until the peer's machine resets it. Where the connection has failed, so that nothing can
    /// be sent any more, the session is closed even after `Then::Stay`.
    ///
    /// # Errors
    /// On `Err` the session is closed with that reason.
    fn on_end(&mut self, session: &mut Session<'_>, state: &mut Self::State) -> Handled<Then> {
        let _ = (session, state);
        Ok(Then::Close)
    }

    /// Called when the server shuts down, once for each open session; a farewell may be sent. Packets that were
    /// received before and are still waiting, for example because the outbox is full, are handed to `on_packet` first.
    ///
    /// By default the session is closed gracefully with [`CloseReason::Shutdown`]. [`Then::Stay`] keeps it open, and
    /// reading, for as long as the grace period of [`ServerHandle::shutdown`](crate::ServerHandle::shutdown) lasts: the
    /// handler must close it when its work is done. Sessions that are still open at the end of the grace period are
    /// reset.
    ///
    /// # Errors
    /// On `Err` the session is closed with that reason.
    fn on_shutdown(&mut self, session: &mut Session<'_>, state: &mut Self::State) -> Handled<Then> {
        let _ = (session, state);
        Ok(Then::Close)
    }

    /// Called when the session begins to close: it hands out no more packets and accepts no more sends. Called exactly
    /// once for each `on_open` that returned `Ok`, whatever the cause, and never within another callback. The only
    /// callback of this session that follows is [`on_close`](Self::on_close).
    ///
    /// In a graceful close this is called at once, before the outbox is flushed and before the peer has ended its side.
    /// A peer can delay those, for at most [`Limits::close_timeout`](crate::Limits::close_timeout) and
    /// [`Limits::linger_timeout`](crate::Limits::linger_timeout). Where a session is terminated (a reset, a peer that
    /// has stopped reading, an abort), this is called immediately before `on_close`.
    ///
    /// So this is the place to keep track of who is present: remove the user from the room here, and do the final
    /// accounting in `on_close`. `reason` is why the close begins; `on_close` may get another reason if the close
    /// itself fails, as when the peer stops reading before everything is flushed. A panic here is logged and counted,
    /// and the close continues.
    fn on_closing(&mut self, session: &SessionInfo, state: &mut Self::State, reason: &CloseReason) {
        let _ = (session, state, reason);
    }

    /// Called when the session has ended, exactly once for each `on_open` that returned `Ok`, whatever the cause. It
    /// comes after [`on_closing`](Self::on_closing) and before the socket is closed, and is the last callback of the
    /// session.
    ///
    /// In a graceful close this is called when everything is flushed and the peer has ended its side, or
    /// [`Limits::linger_timeout`](crate::Limits::linger_timeout) has passed. Use it for what has to be final, such as
    /// the number of bytes sent. To announce that a user has left, use `on_closing`, which does not wait for the peer.
    fn on_close(&mut self, session: &SessionInfo, state: Self::State, reason: &CloseReason) {
        let _ = (session, state, reason);
    }
}

/// What happens to a session after a callback that decides about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Then {
    /// The session is closed gracefully: what was sent is delivered first.
    Close,
    /// The session stays open.
    Stay,
}

/// Makes a handler without state from a closure, which is called with the session and each packet.
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
/// The closure returns [`Handled`]: any error can be passed on with `?` and closes the session.
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
/// The closure is cloned for each shard, together with what it has captured. To share something between shards, capture
/// an `Arc`. For data that belongs to one session, see [`session_fn`].
pub fn packet_fn<C>(on_packet: C) -> PacketFn<C>
where
    C: FnMut(&mut Session<'_>, &[u8]) -> Handled,
{
    PacketFn { on_packet }
}

/// The handler that [`packet_fn`] returns.
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

/// Makes a handler with a state for each session from two closures: `on_open` returns the state of a new session, and
/// `on_packet` is called with the session, its state and each packet.
///
/// ```
/// use framewire::session_fn;
///
/// // Replies to each packet with its number.
/// let count = session_fn(
///     |_session| Ok(0_u64),
///     |session, seen, _packet| {
///         *seen += 1;
///         Ok(session.send(seen.to_string())?)
///     },
/// );
/// # let _server = framewire::Server::bind("127.0.0.1:0")?.framing(framewire::Raw::new()).spawn(count)?;
/// # Ok::<(), framewire::ServeError>(())
/// ```
///
/// Functions will do as well:
///
/// ```
/// use framewire::{Handled, Session, session_fn};
///
/// fn greet(session: &mut Session<'_>) -> Handled<Option<String>> {
///     session.send("who are you?")?;
///     Ok(None)
/// }
///
/// fn answer(session: &mut Session<'_>, user: &mut Option<String>, packet: &[u8]) -> Handled {
///     match user {
///         None => *user = Some(std::str::from_utf8(packet)?.to_owned()),
///         Some(name) => session.send(format!("hello {name}"))?,
///     }
///     Ok(())
/// }
///
/// let handler = session_fn(greet, answer);
/// # let _server = framewire::Server::bind("127.0.0.1:0")?.framing(framewire::Raw::new()).spawn(handler)?;
/// # Ok::<(), framewire::ServeError>(())
/// ```
///
/// An `Err` of either closes the session, as that of [`PacketHandler::on_open`] and [`PacketHandler::on_packet`] does.
/// The closures are cloned for each shard, together with what they have captured; to share something between shards,
/// capture an `Arc`. For the other callbacks, implement [`PacketHandler`].
pub fn session_fn<S, O, P>(on_open: O, on_packet: P) -> SessionFn<O, P>
where
    O: FnMut(&mut Session<'_>) -> Handled<S>,
    P: FnMut(&mut Session<'_>, &mut S, &[u8]) -> Handled,
{
    SessionFn { on_open, on_packet }
}

/// The handler that [`session_fn`] returns.
#[derive(Debug, Clone, Copy)]
pub struct SessionFn<O, P> {
    on_open: O,
    on_packet: P,
}

impl<S, O, P> PacketHandler for SessionFn<O, P>
where
    O: FnMut(&mut Session<'_>) -> Handled<S>,
    P: FnMut(&mut Session<'_>, &mut S, &[u8]) -> Handled,
{
    type State = S;

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<S> {
        (self.on_open)(session)
    }

    #[inline(always)]
    fn on_packet(&mut self, session: &mut Session<'_>, state: &mut S, packet: &[u8]) -> Handled {
        (self.on_packet)(session, state, packet)
    }
}
