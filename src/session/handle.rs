use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

use crate::{
    encode::Encode,
    error::{SendError, Why},
    id::{Key, SessionId},
    session::memberships::{Membership, Memberships},
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
/// use std::{io::Read, net::TcpStream, sync::mpsc::{Sender, channel}, time::Duration};
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
/// assert_eq!(ticket.wait(Duration::from_secs(10)), Ok(()));
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
        self.handle_state.open.load(Ordering::Acquire)
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
        self.post(packet, None)
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
        let (ticket, completion) = SendTicket::pair();
        self.post(packet, Some(completion))?;
        Ok(ticket)
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
        self.handle_state.shard.deliver(self.handle_state.key, SessionCommand::Abort, 0)
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
        self.handle_state.shard.deliver(self.handle_state.key, command, 0)
    }

    fn post(&self, packet: impl Encode, completion: Option<Completion>) -> Result<(), SendError> {
        if !self.is_open() {
            return Err(SendError::Closed);
        }
        let payload = packet.into_payload()?;
        let held = payload.len().saturating_add(if completion.is_some() { TICKET } else { 0 });
        let reserved = held.saturating_add(self.handle_state.overhead.load(Ordering::Relaxed));
        self.handle_state.reserve(reserved)?;
        let command = SessionCommand::Send { payload, completion, reserved };
        let sent = self.handle_state.shard.deliver(self.handle_state.key, command, held);
        if sent.is_err() {
            self.handle_state.unreserve(reserved);
        }
        sent
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle").field("id", &self.id()).field("open", &self.is_open()).finish()
    }
}

impl PartialEq for SessionHandle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.handle_state, &other.handle_state)
    }
}

impl Eq for SessionHandle {}

/// A command from a handle to its session.
#[derive(Debug)]
pub(crate) enum SessionCommand {
    Send {
        payload: Bytes,
        completion: Option<Completion>,
        /// Bytes that [`HandleState`] has reserved for the packet.
        reserved: usize,
    },
    Close(Option<Why>),
    Abort,
    Pause,
    Resume,
}

/// The way into a shard, from any thread.
pub(crate) trait Deliver: Send + Sync {
    /// Returns the id of the session with this key.
    fn id_of(&self, key: Key) -> SessionId;

    /// `bytes` is what the command holds, for the mailbox's limit.
    fn deliver(&self, key: Key, command: SessionCommand, bytes: usize) -> Result<(), SendError>;

    /// Gives the shard a packet for all of these sessions but `except`.
    fn deliver_to_all(
        &self,
        payload: &Bytes,
        sessions: &Arc<Vec<Key>>,
        except: Option<Key>,
    ) -> Result<(), SendError>;

    /// Returns `true` if no command waits in the mailbox. A command is seen if another thread posted it before it
    /// notified this one.
    fn is_idle(&self) -> bool;

    /// Returns the hard limit of the outboxes of the shard's sessions, in bytes.
    fn outbox_limit(&self) -> usize;
}

/// The ways into all shards of the server.
pub(crate) trait Route: Send + Sync {
    /// `bytes` is what the command holds, for the mailbox's limit.
    fn route(&self, to: SessionId, command: SessionCommand, bytes: usize) -> Result<(), SendError>;
}

/// What all handles of one session share with it.
pub(crate) struct HandleState {
    key: Key,
    shard: Arc<dyn Deliver>,
    open: AtomicBool,
    /// Bytes reserved for packets in the mailbox, plus the bytes in the outbox. One counter for both, so that a packet
    /// that moves from the mailbox to the outbox is counted exactly once at every moment.
    queued: AtomicUsize,
    /// The part of `queued` that is in the outbox, as the shard last reported it. Only the shard writes it.
    backlog: AtomicUsize,
    /// Bytes of a frame beyond its payload.
    overhead: AtomicUsize,
    /// The channels that the session is in.
    pub(crate) memberships: Memberships,
}

impl HandleState {
    /// `overhead` is the length of a frame beyond its payload, in bytes.
    pub(crate) fn new(key: Key, shard: Arc<dyn Deliver>, overhead: usize) -> Self {
        let (queued, backlog) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let overhead = AtomicUsize::new(overhead);
        let (open, memberships) = (AtomicBool::new(true), Memberships::default());
        Self { key, shard, open, queued, backlog, overhead, memberships }
    }

    pub(crate) fn id(&self) -> SessionId {
        self.shard.id_of(self.key)
    }

    /// The way into the session's shard.
    pub(crate) fn shard(&self) -> &Arc<dyn Deliver> {
        &self.shard
    }

    /// The session has been shut: returns its memberships. It joins nothing more.
    pub(crate) fn close_memberships(&self) -> Vec<Membership> {
        debug_assert!(!self.open.load(Ordering::Acquire), "it is shut first");
        self.memberships.leave_all()
    }

    /// Puts the session on a list, see [`Memberships::join`].
    pub(crate) fn join<E>(&self, join: impl FnOnce() -> Result<Membership, E>) -> Option<Result<(), E>> {
        self.memberships.join(|| self.open.load(Ordering::Acquire), join)
    }

    /// Called when the session has another framing.
    pub(crate) fn set_overhead(&self, bytes: usize) {
        self.overhead.store(bytes, Ordering::Relaxed);
    }

    /// Makes handles refuse further packets.
    pub(crate) fn shut(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// Called by the shard: the outbox holds this many bytes.
    pub(crate) fn set_backlog(&self, bytes: usize) {
        self.take(0, bytes);
    }

    /// Called by the shard when it has taken a packet of `reserved` bytes from the mailbox and the outbox holds
    /// `backlog` bytes.
    pub(crate) fn take(&self, reserved: usize, backlog: usize) {
        let before = self.backlog.load(Ordering::Relaxed);
        // A decrease is added as its two's complement, hence the wrapping arithmetic.
        let change = backlog.wrapping_sub(before).wrapping_sub(reserved);
        if change != 0 {
            self.queued.fetch_add(change, Ordering::Relaxed);
        }
        if backlog != before {
            self.backlog.store(backlog, Ordering::Relaxed);
        }
    }

    fn unreserve(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn reserve(&self, bytes: usize) -> Result<(), SendError> {
        let limit = self.shard.outbox_limit();
        let queued = self.queued.fetch_add(bytes, Ordering::Relaxed);
        if queued.saturating_add(bytes) > limit {
            self.unreserve(bytes);
            return Err(SendError::Full { queued, limit });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::id::{ServerNumber, ShardId};

    #[derive(Default)]
    struct Shard(Mutex<Vec<SessionCommand>>);

    const KEY: Key = Key { slot: 2, generation: 3 };

    const LIMIT: usize = 10;

    impl Deliver for Shard {
        fn id_of(&self, key: Key) -> SessionId {
            ServerNumber::next().id(ShardId(1), key)
        }

        fn deliver(&self, _key: Key, command: SessionCommand, _bytes: usize) -> Result<(), SendError> {
            if let Ok(mut taken) = self.0.lock() {
                taken.push(command);
            }
            Ok(())
        }

        fn deliver_to_all(&self, _: &Bytes, _: &Arc<Vec<Key>>, _: Option<Key>) -> Result<(), SendError> {
            Err(SendError::Closed)
        }

        fn is_idle(&self) -> bool {
            self.0.lock().is_ok_and(|taken| taken.is_empty())
        }

        fn outbox_limit(&self) -> usize {
            LIMIT
        }
    }

    fn handle(shard: Arc<Shard>) -> SessionHandle {
        SessionHandle { handle_state: Arc::new(HandleState::new(KEY, shard, 0)) }
    }

    #[test]
    fn the_state_of_handles_takes_88_bytes_with_its_counts() {
        assert!(size_of::<HandleState>() + 2 * size_of::<usize>() <= 88);
    }

    #[test]
    fn a_handle_answers_full_at_the_limit_and_not_before() {
        let handle = handle(Arc::default());
        assert_eq!(handle.send([0; 10]), Ok(()));
        assert_eq!(handle.send([0; 1]), Err(SendError::Full { queued: 10, limit: 10 }));
        handle.handle_state.take(10, 6);
        assert_eq!(handle.send([0; 5]), Err(SendError::Full { queued: 6, limit: 10 }));
        assert_eq!(handle.send([0; 4]), Ok(()));
    }

    #[test]
    fn a_packet_counts_once_while_the_shard_takes_it() {
        const TIMES: usize = 20_000;
        let handle = handle(Arc::default());
        assert_eq!(handle.send([0; 6]), Ok(()));
        let handle_state = handle.handle_state.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..TIMES {
                    handle_state.take(6, 6);
                    // As if it was posted again.
                    handle_state.take(0usize.wrapping_sub(6), 0);
                }
            });
            for _ in 0..TIMES {
                assert_eq!(handle.send([0; 4]), Ok(()), "6 of 10 bytes are taken, wherever they are");
                handle.handle_state.unreserve(4);
            }
        });
    }

    #[test]
    fn a_handle_of_a_closed_session_answers_closed() {
        let shard = Arc::<Shard>::default();
        let handle = handle(shard.clone());
        handle.handle_state.shut();
        assert_eq!(handle.send("x"), Err(SendError::Closed));
        assert_eq!(handle.close(), Err(SendError::Closed));
        assert!(shard.0.lock().is_ok_and(|taken| taken.is_empty()));
    }
}
