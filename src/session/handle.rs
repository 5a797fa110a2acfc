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
    error::{SendError, Why},
    id::{Key, SessionId},
    sync::{Completion, SendTicket, TICKET},
};

/// A session, from any thread and for any length of time.
///
/// Clones are cheap. A handle does not keep its session open: when the session is gone, sends answer
/// [`SendError::Closed`], also when another session has its slot since. Packets that one thread sends through handles
/// arrive in order; those of several threads interleave, whole. They go through the mailbox of the session's shard, which
/// obeys after its packets were handed out: what a callback sends with [`Session::send`](crate::Session::send) goes first.
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
    /// The session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.handle_state.id
    }

    /// Whether the session still takes packets. It may close at any time after the answer.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.handle_state.open.load(Ordering::Acquire)
    }

    /// Sends a packet: it is copied once here, and framed on the session's shard. Never blocks.
    ///
    /// # Errors
    /// [`SendError::Closed`]; [`SendError::Full`] when what waits for this session reaches
    /// [`Limits::outbox_hard`](crate::Limits::outbox_hard); [`SendError::MailboxFull`] when the shard cannot keep up. A
    /// payload that has no frame (longer than the framing's maximum, say) is found on the shard, where it is logged,
    /// counted ([`Metrics::sends_refused`](crate::Metrics::sends_refused)) and dropped: use
    /// [`send_tracked`](Self::send_tracked) to be told. A session whose peer reads so slowly that the packet finds its
    /// outbox full all the same is closed.
    pub fn send(&self, packet: impl AsRef<[u8]>) -> Result<(), SendError> {
        self.send_bytes(Bytes::copy_from_slice(packet.as_ref()))
    }

    /// Sends bytes that are already shared, without copying them here.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_bytes(&self, packet: Bytes) -> Result<(), SendError> {
        self.post(packet, None)
    }

    /// Sends a packet and returns a ticket that tells when it was written to the kernel, or why not. A packet
    /// that is refused on the shard leaves the session open.
    ///
    /// Until its ticket is decided, a tracked packet costs 128 bytes beside its frame, also one that has no bytes. They count
    /// against [`Limits::outbox_hard`](crate::Limits::outbox_hard) and [`Limits::shard_memory`](crate::Limits::shard_memory).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_tracked(&self, packet: impl AsRef<[u8]>) -> Result<SendTicket, SendError> {
        let (ticket, completion) = SendTicket::pair();
        self.post(Bytes::copy_from_slice(packet.as_ref()), Some(completion))?;
        Ok(ticket)
    }

    /// Closes the session gracefully: what was sent before is delivered first.
    ///
    /// # Errors
    /// [`SendError::Closed`] when it is closing or closed already; [`SendError::MailboxFull`] when the shard cannot keep up.
    pub fn close(&self) -> Result<(), SendError> {
        self.command(SessionCommand::Close(None))
    }

    /// As [`close`](Self::close), and says why, with a text or any error: the log and
    /// [`on_close`](crate::PacketHandler::on_close) show it, as [`CloseReason::Handler`](crate::CloseReason::Handler). The
    /// first reason of a session counts.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn close_with(&self, why: impl Into<Box<dyn Error + Send + Sync>>) -> Result<(), SendError> {
        self.command(SessionCommand::Close(Some(why.into().into())))
    }

    /// Resets the connection: what is queued is lost, and the peer is told at once.
    ///
    /// # Errors
    /// [`SendError::Closed`] when its shard has ended; [`SendError::MailboxFull`] when the shard cannot keep up. Nothing
    /// happens, and the answer is `Ok`, when only the session is gone.
    pub fn abort(&self) -> Result<(), SendError> {
        self.handle_state.shard.deliver(self.handle_state.id.key, SessionCommand::Abort, 0)
    }

    /// Stops reading from the session, as [`Session::pause`](crate::Session::pause) does.
    ///
    /// # Errors
    /// [`SendError::Closed`]; [`SendError::MailboxFull`] when the shard cannot keep up.
    pub fn pause(&self) -> Result<(), SendError> {
        self.command(SessionCommand::Pause)
    }

    /// Reads again after a pause.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub fn resume(&self) -> Result<(), SendError> {
        self.command(SessionCommand::Resume)
    }

    fn command(&self, command: SessionCommand) -> Result<(), SendError> {
        if !self.is_open() {
            return Err(SendError::Closed);
        }
        self.handle_state.shard.deliver(self.handle_state.id.key, command, 0)
    }

    fn post(&self, payload: Bytes, completion: Option<Completion>) -> Result<(), SendError> {
        if !self.is_open() {
            return Err(SendError::Closed);
        }
        let held = payload.len().saturating_add(if completion.is_some() { TICKET } else { 0 });
        let reserved = held.saturating_add(self.handle_state.overhead.load(Ordering::Relaxed));
        self.handle_state.reserve(reserved)?;
        let command = SessionCommand::Send { payload, completion, reserved };
        let sent = self.handle_state.shard.deliver(self.handle_state.id.key, command, held);
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

/// What a handle asks of its session.
#[derive(Debug)]
pub(crate) enum SessionCommand {
    Send {
        payload: Bytes,
        completion: Option<Completion>,
        /// What the link has reserved for it.
        reserved: usize,
    },
    Close(Option<Why>),
    Abort,
    Pause,
    Resume,
}

/// The way into a shard, from any thread.
pub(crate) trait Deliver: Send + Sync {
    /// `bytes` is what the command holds, for the mailbox's limit.
    fn deliver(&self, key: Key, command: SessionCommand, bytes: usize) -> Result<(), SendError>;

    /// Whether no command waits for the shard to come to it. What another thread has posted before it told this one is seen.
    fn is_idle(&self) -> bool;
}

/// The ways into all shards of the server.
pub(crate) trait Route: Send + Sync {
    /// `bytes` is what the command holds, for the mailbox's limit.
    fn route(&self, to: SessionId, command: SessionCommand, bytes: usize) -> Result<(), SendError>;
}

/// What all handles of one session share with it.
pub(crate) struct HandleState {
    id: SessionId,
    shard: Arc<dyn Deliver>,
    open: AtomicBool,
    /// What is on its way through the mailbox will take of the outbox, and what that holds against its limit: in one, so that
    /// a packet on its way from one to the other counts once at every moment.
    queued: AtomicUsize,
    /// The part of it that the outbox holds, as the shard last said. Written by the shard alone.
    backlog: AtomicUsize,
    limit: usize,
    /// Bytes that a frame has beyond its payload.
    overhead: AtomicUsize,
}

impl HandleState {
    /// `limit` and `overhead` in bytes: of the outbox, and of a frame beyond its payload.
    pub(crate) fn new(id: SessionId, shard: Arc<dyn Deliver>, limit: usize, overhead: usize) -> Self {
        let (queued, backlog) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let overhead = AtomicUsize::new(overhead);
        Self { id, shard, open: AtomicBool::new(true), queued, backlog, limit, overhead }
    }

    /// The session has another framing.
    pub(crate) fn set_overhead(&self, bytes: usize) {
        self.overhead.store(bytes, Ordering::Relaxed);
    }

    /// Takes no more packets.
    pub(crate) fn shut(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// The shard: the outbox holds so much.
    pub(crate) fn set_backlog(&self, bytes: usize) {
        self.take(0, bytes);
    }

    /// The shard: has taken what was `reserved` from the mailbox, and the outbox holds `backlog` now.
    pub(crate) fn take(&self, reserved: usize, backlog: usize) {
        let before = self.backlog.load(Ordering::Relaxed);
        // Both ways, which wraps as it should.
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
        let queued = self.queued.fetch_add(bytes, Ordering::Relaxed);
        if queued.saturating_add(bytes) > self.limit {
            self.unreserve(bytes);
            return Err(SendError::Full { queued, limit: self.limit });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::id::ShardId;

    #[derive(Default)]
    struct Shard(Mutex<Vec<SessionCommand>>);

    impl Deliver for Shard {
        fn deliver(&self, _key: Key, command: SessionCommand, _bytes: usize) -> Result<(), SendError> {
            if let Ok(mut taken) = self.0.lock() {
                taken.push(command);
            }
            Ok(())
        }

        fn is_idle(&self) -> bool {
            self.0.lock().is_ok_and(|taken| taken.is_empty())
        }
    }

    fn handle(shard: Arc<Shard>, limit: usize) -> SessionHandle {
        let id = SessionId { shard: ShardId(1), key: Key { slot: 2, generation: 3 } };
        SessionHandle { handle_state: Arc::new(HandleState::new(id, shard, limit, 0)) }
    }

    #[test]
    fn a_handle_answers_full_at_the_limit_and_not_before() {
        let handle = handle(Arc::default(), 10);
        assert_eq!(handle.send([0; 10]), Ok(()));
        assert_eq!(handle.send([0; 1]), Err(SendError::Full { queued: 10, limit: 10 }));
        handle.handle_state.take(10, 6);
        assert_eq!(handle.send([0; 5]), Err(SendError::Full { queued: 6, limit: 10 }));
        assert_eq!(handle.send([0; 4]), Ok(()));
    }

    #[test]
    fn a_packet_counts_once_while_the_shard_takes_it() {
        const TIMES: usize = 20_000;
        let handle = handle(Arc::default(), 10);
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
        let handle = handle(shard.clone(), 10);
        handle.handle_state.shut();
        assert_eq!(handle.send("x"), Err(SendError::Closed));
        assert_eq!(handle.close(), Err(SendError::Closed));
        assert!(shard.0.lock().is_ok_and(|taken| taken.is_empty()));
    }
}
