use std::{error::Error, fmt, sync::Arc};

use bytes::Bytes;

use crate::{
    buffer::Overflow,
    encode::Encode,
    error::{Outcome, SendError},
    id::SessionId,
    session::{HandleState, SessionCommand, Undelivered},
    sync::{Completion, SendTicket, TICKET},
};

/// A handle to a session, which any thread can use and keep for any length of time.
///
/// Clones are cheap. A handle does not keep its session open: once the session is closing, sends return
/// [`SendError::Closed`], and a handle never refers to a later session. Packets that one thread sends to a session
/// through handles arrive in order; packets of several threads interleave, each as a whole. They go through the mailbox
/// of the session's shard, which is processed after received packets were handed out: what a callback sends with
/// [`Session::send`](crate::Session::send) in that turn goes first.
///
/// ```
/// use std::{io::Read, net::TcpStream, sync::mpsc::{Sender, channel}};
/// use framewire::{Handled, Failure, PacketHandler, Separator, Server, Session, SessionHandle};
///
/// /// Hands each new session over to another thread.
/// #[derive(Clone)]
/// struct Register(Sender<SessionHandle>);
///
/// impl PacketHandler for Register {
///     type State = ();
///
///     fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
///         self.0.send(session.handle()).map_err(Failure::from)
///     }
///
///     fn on_packet(&mut self, _: &mut Session<'_>, _: &mut (), _: &[u8]) -> Handled {
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sessions, arrivals) = channel();
/// let server = Server::bind("127.0.0.1:0")?.framing(Separator::lines()).spawn(Register(sessions))?;
/// let mut peer = TcpStream::connect(server.local_addr().ok_or("not TCP")?)?;
///
/// let session = arrivals.recv()?;
/// session.send("news")?;
/// let ticket = session.send_tracked("more")?;
/// assert_eq!(ticket.wait(), Ok(()));
/// session.close()?;
///
/// let mut received = String::new();
/// peer.read_to_string(&mut received)?;
/// assert_eq!(received, "news\nmore\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SessionHandle {
    pub(crate) handle_state: Arc<HandleState>,
}

impl SessionHandle {
    /// Returns the session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.handle_state.id()
    }

    /// Returns `true` if the session still accepts packets. It may begin to close at any time after that.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.handle_state.is_open()
    }

    /// Sends a packet. It is copied or encoded once here, except for [`Bytes`] and other buffers that are passed by value
    /// (see [`Encode::into_payload`]), and framed on the session's shard. Never blocks.
    ///
    /// # Errors
    /// - [`SendError::Encode`] if the value cannot be encoded.
    /// - [`SendError::Closed`] if the session is closing or closed.
    /// - [`SendError::Full`] if the packet would take what waits for this session, in the mailbox and in the outbox,
    ///   above [`Limits::outbox_hard`](crate::Limits::outbox_hard).
    /// - [`SendError::MailboxFull`] if the mailbox of the shard is full.
    ///
    /// What goes wrong later, on the shard, is not reported here; [`send_tracked`](Self::send_tracked) reports it. A
    /// payload that the framing cannot encode, for example because it is too long, is logged, counted
    /// ([`Metrics::sends_refused`](crate::Metrics::sends_refused)) and dropped. A packet accepted here may find an
    /// outbox that callbacks have filled, so the shard allows it twice
    /// [`Limits::outbox_hard`](crate::Limits::outbox_hard); if the packet would exceed even that, the session is closed
    /// with [`CloseReason::Send`](crate::CloseReason::Send).
    pub fn send(&self, packet: impl Encode) -> Result<(), SendError> {
        let payload = self.payload_of(packet)?;
        self.post(payload, None, None).map_err(|unsent| unsent.error)
    }

    /// As [`send`](Self::send), where `overflow` says what becomes of the packet if there is no room for it.
    ///
    /// # Errors
    /// As for [`send`](Self::send), with these differences where it returns [`SendError::Full`]:
    /// - [`Overflow::Close`]: the session is closed, with [`CloseReason::Send`](crate::CloseReason::Send).
    /// - [`Overflow::DropOldest`] and [`Overflow::Latest`]: a full outbox is no error, because the shard makes room in
    ///   it. This is returned only when twice [`Limits::outbox_hard`](crate::Limits::outbox_hard) waits for the session,
    ///   most of it in the mailbox: the shard is behind. The same holds for [`send`](Self::send) where the session
    ///   drops packets ([`Session::set_overflow`](crate::Session::set_overflow)).
    ///
    /// What is refused or dropped later, on the shard, is counted ([`Metrics`](crate::Metrics)); what is refused here is
    /// not.
    pub fn send_as(&self, packet: impl Encode, overflow: Overflow) -> Result<(), SendError> {
        let payload = self.payload_of(packet)?;
        let sent = self.post(payload, None, Some(overflow)).map_err(|unsent| unsent.error);
        if let (Err(SendError::Full { queued, limit }), Overflow::Close) = (&sent, overflow) {
            // Behind what was sent before. If the mailbox has no room for that either, the next packet decides.
            let _ = self.deliver(SessionCommand::CloseFull { queued: *queued, limit: *limit });
        }
        sent
    }

    /// Sends a packet and returns a ticket that tells when it was written to the kernel, or why it was not. A tracked
    /// packet that the shard refuses does not close the session.
    ///
    /// Until its ticket is decided, each tracked packet counts as 128 bytes in addition to its frame, against
    /// [`Limits::outbox_hard`](crate::Limits::outbox_hard), [`Limits::mailbox_bytes`](crate::Limits::mailbox_bytes) and
    /// [`Limits::shard_memory`](crate::Limits::shard_memory).
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn send_tracked(&self, packet: impl Encode) -> Result<SendTicket, SendError> {
        let payload = self.payload_of(packet)?;
        let (ticket, completion) = SendTicket::pair(self.handle_state.clone());
        self.post(payload, Some(completion), None).map_err(|unsent| unsent.error)?;
        Ok(ticket)
    }

    /// Sends a packet, and calls `done` with what became of it: as [`send_tracked`](Self::send_tracked), for those who
    /// cannot wait, as within callbacks.
    ///
    /// `done` is called exactly once, whatever happens to the packet, the session or the server, and no lock is held
    /// then. If the packet was queued, that is on the thread of the session's shard, at the end of a turn of its event
    /// loop: like a callback, `done` must not block, and may send through handles and use channels. If this method
    /// returns an error, `done` is told the same, on the calling thread: before the method returns or, within a
    /// callback, at the end of the turn. A panic in `done` is logged and counted
    /// ([`Metrics::panics`](crate::Metrics::panics)), and affects nothing else.
    ///
    /// ```
    /// use std::sync::{Arc, atomic::{AtomicUsize, Ordering}};
    /// use framewire::{SendError, SessionHandle};
    ///
    /// /// Sends news, and counts those that were lost.
    /// fn inform(subscriber: &SessionHandle, news: &str, lost: &Arc<AtomicUsize>) {
    ///     let lost = lost.clone();
    ///     let _ = subscriber.send_then(news, move |outcome| { // the closure is told of errors too
    ///         if outcome.is_err() {
    ///             lost.fetch_add(1, Ordering::Relaxed);
    ///         }
    ///     });
    /// }
    /// ```
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn send_then(
        &self,
        packet: impl Encode,
        done: impl FnOnce(Outcome) + Send + 'static,
    ) -> Result<(), SendError> {
        let completion = Completion::calling(Box::new(done), self.handle_state.clone());
        let (payload, completion) = completion.encoding(|| self.payload_of(packet))?;
        self.post(payload, Some(completion), None).map_err(|Unsent { error, completion }| {
            if let Some(completion) = completion {
                completion.refused(error.clone());
            }
            error
        })
    }

    /// Closes the session gracefully, as [`Session::close`](crate::Session::close) does: what was sent before is
    /// delivered first.
    ///
    /// # Errors
    /// [`SendError::Closed`] if the session is closing or closed already; [`SendError::MailboxFull`] if the mailbox of
    /// the shard is full.
    pub fn close(&self) -> Result<(), SendError> {
        self.command(SessionCommand::Close(None))
    }

    /// As [`close`](Self::close), with a reason, which is a text or any error:
    /// [`on_close`](crate::PacketHandler::on_close) gets it as [`CloseReason::Handler`](crate::CloseReason::Handler).
    /// If a session is closed more than once, the first reason counts.
    ///
    /// # Errors
    /// As for [`close`](Self::close).
    pub fn close_with(&self, why: impl Into<Box<dyn Error + Send + Sync>>) -> Result<(), SendError> {
        self.command(SessionCommand::Close(Some(why.into().into())))
    }

    /// Terminates the session: the connection is reset, and what is queued is lost. Also terminates a session that is
    /// closing.
    ///
    /// # Errors
    /// [`SendError::Closed`] if the shard has ended; [`SendError::MailboxFull`] if the mailbox of the shard is full. If
    /// only the session has ended, this does nothing and returns `Ok`.
    pub fn abort(&self) -> Result<(), SendError> {
        self.deliver(SessionCommand::Abort)
    }

    /// Stops reading from the session, as [`Session::pause`](crate::Session::pause) does.
    ///
    /// # Errors
    /// [`SendError::Closed`] if the session is closing or closed; [`SendError::MailboxFull`] if the mailbox of the
    /// shard is full.
    pub fn pause(&self) -> Result<(), SendError> {
        self.command(SessionCommand::Pause)
    }

    /// Reads again after a [`pause`](Self::pause).
    ///
    /// # Errors
    /// As for [`pause`](Self::pause).
    pub fn resume(&self) -> Result<(), SendError> {
        self.command(SessionCommand::Resume)
    }

    fn command(&self, command: SessionCommand) -> Result<(), SendError> {
        if !self.is_open() {
            return Err(SendError::Closed);
        }
        self.deliver(command)
    }

    fn deliver(&self, command: SessionCommand) -> Result<(), SendError> {
        let HandleState { shard, key, .. } = &*self.handle_state;
        shard.deliver(*key, command, 0).map_err(|undelivered| undelivered.error)
    }

    pub(super) fn payload_of(&self, packet: impl Encode) -> Result<Bytes, SendError> {
        if !self.is_open() {
            return Err(SendError::Closed);
        }
        Ok(packet.into_payload()?)
    }

    pub(crate) fn post(
        &self,
        payload: Bytes,
        completion: Option<Completion>,
        overflow: Option<Overflow>,
    ) -> Result<(), Unsent> {
        let state = &*self.handle_state;
        if !state.is_open() {
            return Err(Unsent { error: SendError::Closed, completion });
        }
        let held = payload.len().saturating_add(if completion.is_some() { TICKET } else { 0 });
        let (reserved, limit) = (state.reserved_for(held), state.limit(overflow));
        if let Err(queued) = state.quota.reserve(reserved, limit) {
            return Err(Unsent { error: SendError::Full { queued, limit }, completion });
        }
        let command = SessionCommand::Send { payload, completion, reserved, overflow };
        state.shard.deliver(state.key, command, held).map_err(|undelivered| {
            state.tell(state.quota.unreserve(reserved));
            let Undelivered { error, mut command } = undelivered;
            Unsent { error, completion: command.as_mut().and_then(|command| command.take_completion()) }
        })
    }
}

/// Why a packet was not queued, and who is still to be told.
pub(crate) struct Unsent {
    pub(crate) error: SendError,
    pub(crate) completion: Option<Completion>,
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle").field("id", &self.id()).field("open", &self.is_open()).finish()
    }
}

impl From<&SessionHandle> for SessionId {
    fn from(session: &SessionHandle) -> Self {
        session.id()
    }
}

impl PartialEq for SessionHandle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.handle_state, &other.handle_state)
    }
}

impl Eq for SessionHandle {}
