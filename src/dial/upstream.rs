use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::parcel::{Parcel, Returned};
use crate::{
    encode::Encode,
    error::{Outcome, SendError},
    id::{DialId, SessionId},
    limits::Limits,
    session::{Deliver, Errand, SessionHandle},
    sync::{Completion, SendTicket},
};

/// A connection that [`ServerHandle::connect`](crate::ServerHandle::connect) makes, as other threads have it. With
/// [`Dial::reconnect`](crate::Dial::reconnect) it outlives its connections: each of them is a session of its own. Clones
/// are cheap, and none keeps it open: it lives until [`close`](Self::close), until no more attempts are made, or with its
/// server.
///
/// What is received goes to the handler of the server, whose callbacks know it by
/// [`Origin::Dialled`](crate::Origin::Dialled) with the same [`id`](Self::id).
///
/// **What was sent and not written** when a connection breaks is lost with it: nothing is sent again over the next one,
/// because only the application knows what its peer has got. [`WhileDown::Keep`] is about packets that are sent while
/// there is no connection.
///
/// ```
/// use std::time::Duration;
/// use framewire::{Dial, Separator, Server, UpstreamState, packet_fn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Server::unbound().framing(Separator::lines()).spawn(packet_fn(|_, _| Ok(())))?;
/// let upstream = client.connect(Dial::to("127.0.0.1:1"))?; // where nothing listens
/// while upstream.state() == UpstreamState::Connecting {
///     std::thread::yield_now();
/// }
/// assert_eq!(upstream.state(), UpstreamState::Closed);
/// assert!(upstream.send("hello").is_err());
/// client.stop(Duration::from_secs(5))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

/// How an [`Upstream`] stands at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpstreamState {
    /// It is being connected, or will be after a pause.
    Connecting,
    /// It is connected: this is its session.
    Up(SessionId),
    /// It has ended for good.
    Closed,
}

/// What becomes of packets that are sent by an [`Upstream`] while it is not connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhileDown {
    /// They are refused, with [`SendError::NotConnected`](crate::SendError::NotConnected).
    Refuse,
    /// They are kept, and sent in order when it is connected: behind what `on_open` sends, and before all that is sent
    /// later. More are refused with [`SendError::Full`](crate::SendError::Full), and so is a packet of more than
    /// [`Limits::outbox_hard`](crate::Limits::outbox_hard) or
    /// [`Limits::mailbox_bytes`](crate::Limits::mailbox_bytes), for which a session never has room. (One that its
    /// frame alone makes too long is dropped when it is connected.) What is kept when the upstream ends is dropped.
    Keep {
        /// The most bytes of payload, 40 for each packet, and 256 more for one that is
        /// [tracked](Upstream::send_tracked).
        bytes: usize,
    },
}

struct Shared {
    id: DialId,
    /// How much is kept.
    keep: usize,
    /// The longest packet that a session takes.
    longest: usize,
    line: Mutex<Line>,
}

struct Line {
    state: LineState,
    /// The way to the shard that has it, once one has.
    shard: Option<Arc<dyn Deliver>>,
    /// Packets for the next connection.
    kept: VecDeque<Parcel>,
    kept_bytes: usize,
}

enum LineState {
    Connecting,
    Up(SessionHandle),
    Closed,
}

/// What is left to be done for packets that were kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Nothing,
    /// There was no room for all of them: try again later.
    Some,
}

impl Upstream {
    /// Also returns what the shard that carries it out has of it.
    pub(crate) fn new(id: DialId, while_down: WhileDown, limits: &Limits) -> (Self, UpstreamSide) {
        let keep = match while_down {
            WhileDown::Refuse => 0,
            WhileDown::Keep { bytes } => bytes,
        };
        let (state, kept) = (LineState::Connecting, VecDeque::new());
        let line = Mutex::new(Line { state, shard: None, kept, kept_bytes: 0 });
        let longest = limits.outbox_hard.min(limits.mailbox_bytes);
        let shared = Arc::new(Shared { id, keep, longest, line });
        (Self { shared: shared.clone() }, UpstreamSide { shared })
    }

    /// Returns the id by which callbacks know it.
    #[must_use]
    pub fn id(&self) -> DialId {
        self.shared.id
    }

    /// Returns how it stands now.
    #[must_use]
    pub fn state(&self) -> UpstreamState {
        match &self.shared.line().state {
            LineState::Connecting => UpstreamState::Connecting,
            LineState::Up(session) => UpstreamState::Up(session.id()),
            LineState::Closed => UpstreamState::Closed,
        }
    }

    /// Sends a packet, as [`SessionHandle::send`] does. Never blocks.
    ///
    /// # Errors
    /// While it is not connected, what [`WhileDown`] says. [`SendError::Closed`] when it has ended for good; and as
    /// [`SessionHandle::send`].
    pub fn send(&self, packet: impl Encode) -> Result<(), SendError> {
        let parcel = Parcel::new(packet.into_payload()?);
        self.submit(parcel).map_err(|(error, _)| error)
    }

    /// As [`send`](Self::send), and returns a ticket that tells when the packet was written to the kernel, or why it was
    /// not. Every ticket is decided:
    ///
    /// - A packet that a connection has got is decided as [`SessionHandle::send_tracked`] says: if that connection breaks
    ///   first, it is [`TicketError::Closed`](crate::TicketError::Closed), with the reason of its session. It is not sent
    ///   again over the next one.
    /// - A packet that is kept while there is no connection ([`WhileDown::Keep`]) is decided when it was written to a
    ///   later one, however many attempts that takes. If the upstream ends before (it was closed or given up, or the
    ///   server has stopped), it is [`TicketError::Refused`](crate::TicketError::Refused) with
    ///   [`SendError::NotConnected`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use framewire::{SendError, TicketError, Upstream};
    ///
    /// /// Reports a reading, and tells whether it has left this machine.
    /// fn report(hub: &Upstream, reading: u32) -> Result<bool, SendError> {
    ///     let ticket = hub.send_tracked(reading.to_string())?;
    ///     Ok(match ticket.wait_timeout(Duration::from_secs(10)) {
    ///         Ok(()) => true,
    ///         Err(TicketError::TimedOut(_)) => false, // it may still be sent
    ///         Err(_) => false,
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn send_tracked(&self, packet: impl Encode) -> Result<SendTicket, SendError> {
        let payload = packet.into_payload()?;
        let (ticket, completion, errand) = Errand::ticket();
        self.submit(Parcel::tracked(payload, completion, errand)).map_err(|(error, _)| error)?;
        Ok(ticket)
    }

    /// As [`send`](Self::send), and calls `done` with what became of the packet: what a ticket of
    /// [`send_tracked`](Self::send_tracked) tells, in the way in which [`SessionHandle::send_then`] tells it. `done` is
    /// called exactly once; if this method returns an error, with the same one, as
    /// [`TicketError::Refused`](crate::TicketError::Refused).
    ///
    /// A packet that is kept when the upstream ends is told of on the thread that ends it: that of its shard, or the one
    /// that calls [`close`](Self::close).
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn send_then(
        &self,
        packet: impl Encode,
        done: impl FnOnce(Outcome) + Send + 'static,
    ) -> Result<(), SendError> {
        let errand = Arc::<Errand>::default();
        let completion = Completion::calling(Box::new(done), errand.clone());
        let (payload, completion) = completion.encoding(|| Ok(packet.into_payload()?))?;
        self.submit(Parcel::tracked(payload, completion, errand)).map_err(|(error, parcel)| {
            parcel.refuse(error.clone());
            error
        })
    }

    /// Gives a packet to the session, or keeps it. One that is not taken comes back, so that nothing of it is dropped, or
    /// told of, under the lock.
    fn submit(&self, parcel: Parcel) -> Result<(), Returned> {
        let session = {
            let mut line = self.shared.line();
            match &line.state {
                LineState::Closed => return Err((SendError::Closed, parcel)),
                LineState::Up(session) if line.kept.is_empty() => session.clone(),
                _ => return line.keep(parcel, &self.shared),
            }
        };
        match parcel.post(&session) {
            Err((SendError::Closed, parcel)) => {
                self.shared.line().keep_behind(&session, parcel, &self.shared)
            }
            sent => sent,
        }
    }

    /// Ends it: closes its session gracefully, behind what this thread has sent before, or gives up the attempt to connect.
    /// Neither [`on_dial_failed`](crate::PacketHandler::on_dial_failed) nor another attempt follows. Packets that are kept
    /// are dropped. If the mailbox of its shard is full, the session is closed all the same, before what waits there.
    pub fn close(&self) {
        let Remains { state, shard, kept } = self.shared.line().end();
        // Behind what was sent before. When the session has ended, the shard finds that the upstream is closed.
        let is_told = matches!(state, LineState::Up(session) if session.close().is_ok());
        if let Some(shard) = shard.as_ref().filter(|_| !is_told) {
            shard.hang_up(self.shared.id);
        }
        kept.into_iter().for_each(|parcel| parcel.lose(shard.as_ref()));
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("id", &self.id()).field("state", &self.state()).finish()
    }
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Keeps a packet for the next connection, if there is room for it here and will be there.
    fn keep(&mut self, parcel: Parcel, shared: &Shared) -> Result<(), Returned> {
        let (most, longest) = (shared.keep, shared.longest);
        if most == 0 {
            return Err((SendError::NotConnected, parcel));
        }
        if parcel.held() > longest {
            return Err((SendError::Full { queued: 0, limit: longest }, parcel));
        }
        let cost = parcel.cost();
        if cost > most.saturating_sub(self.kept_bytes) {
            return Err((SendError::Full { queued: self.kept_bytes, limit: most }, parcel));
        }
        self.kept_bytes += cost;
        self.kept.push_back(parcel);
        Ok(())
    }

    /// As `keep`, for a packet that `ended` has not taken: unless the next connection stands already.
    fn keep_behind(
        &mut self,
        ended: &SessionHandle,
        parcel: Parcel,
        shared: &Shared,
    ) -> Result<(), Returned> {
        match &self.state {
            LineState::Closed => Err((SendError::Closed, parcel)),
            LineState::Up(session) if session != ended && self.kept.is_empty() => parcel.post(session),
            _ => self.keep(parcel, shared),
        }
    }

    /// Sends what was kept, as far as there is room. What there will never be room for goes to `hopeless`.
    fn deliver(&mut self, hopeless: &mut Vec<Returned>) -> Kept {
        let LineState::Up(session) = &self.state else { return Kept::Nothing };
        while let Some(parcel) = self.kept.pop_front() {
            let cost = parcel.cost();
            match parcel.post(session) {
                // It has ended, which is told next: it waits for the next one.
                Err((SendError::Closed, parcel)) => {
                    self.kept.push_front(parcel);
                    return Kept::Nothing;
                }
                Err((
                    SendError::Full { queued: 1.., .. } | SendError::MailboxFull { commands: 1.., .. },
                    parcel,
                )) => {
                    self.kept.push_front(parcel);
                    return Kept::Some;
                }
                // What finds no room where nothing waits never will: it would hold up all that is behind it. Bytes need no
                // encoding, so nothing else is refused here.
                Err(never) => hopeless.push(never),
                Ok(()) => {}
            }
            self.kept_bytes = self.kept_bytes.saturating_sub(cost);
        }
        // Buffers of a long time without a connection are not held for ever.
        self.kept = VecDeque::new();
        Kept::Nothing
    }

    fn end(&mut self) -> Remains {
        self.kept_bytes = 0;
        Remains {
            state: mem::replace(&mut self.state, LineState::Closed),
            shard: self.shard.take(),
            kept: mem::take(&mut self.kept),
        }
    }
}

/// What is left of an upstream that has ended.
struct Remains {
    state: LineState,
    shard: Option<Arc<dyn Deliver>>,
    kept: VecDeque<Parcel>,
}

/// An upstream, as the shard has it. When this is dropped, the upstream is closed.
pub(crate) struct UpstreamSide {
    shared: Arc<Shared>,
}

impl UpstreamSide {
    /// A shard takes it over. Returns `false` if it was closed before.
    pub(crate) fn begin(&self, shard: &Arc<dyn Deliver>) -> bool {
        let mut line = self.shared.line();
        let is_wanted = !matches!(line.state, LineState::Closed);
        line.shard = is_wanted.then(|| shard.clone());
        is_wanted
    }

    /// It is connected, and gets what was kept. If it was closed before, the shard is told so by itself.
    pub(crate) fn go_up(&self, session: SessionHandle) -> Kept {
        {
            let mut line = self.shared.line();
            if let LineState::Connecting = line.state {
                line.state = LineState::Up(session);
            }
        }
        self.deliver()
    }

    /// Returns `true` if it was closed: no other attempt is made.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.shared.line().state, LineState::Closed)
    }

    /// Sends what is left of what was kept.
    pub(crate) fn deliver(&self) -> Kept {
        let mut hopeless = Vec::new();
        let kept = self.shared.line().deliver(&mut hopeless);
        hopeless.into_iter().for_each(|(error, parcel)| parcel.refuse(error));
        kept
    }

    /// Its connection has ended, and another will be made.
    pub(crate) fn go_down(&self) {
        let mut line = self.shared.line();
        if let LineState::Up(_) = line.state {
            line.state = LineState::Connecting;
        }
    }
}

impl Drop for UpstreamSide {
    fn drop(&mut self) {
        let Remains { shard, kept, .. } = self.shared.line().end();
        kept.into_iter().for_each(|parcel| parcel.lose(shard.as_ref()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::parcel::PLACE;

    #[test]
    fn no_more_is_kept_than_was_allowed() {
        let (upstream, side) =
            Upstream::new(DialId::next(), WhileDown::Keep { bytes: 3 * PLACE + 10 }, &Limits::default());
        assert_eq!(upstream.send([0; 7]), Ok(()));
        assert_eq!(upstream.send([0; 3]), Ok(()));
        let full = Err(SendError::Full { queued: 2 * PLACE + 10, limit: 3 * PLACE + 10 });
        assert_eq!(upstream.send([0; 1]), full);
        assert_eq!(upstream.send([0; 0]), Ok(()), "an empty one takes its place");
        assert!(upstream.send([0; 0]).is_err());
        drop(side);
        assert_eq!(
            (upstream.state(), upstream.send([0; 1])),
            (UpstreamState::Closed, Err(SendError::Closed))
        );
        assert_eq!(upstream.shared.line().kept.capacity(), 0);
    }

    #[test]
    fn nothing_is_kept_unless_asked_for() {
        let (upstream, _side) = Upstream::new(DialId::next(), WhileDown::Refuse, &Limits::default());
        assert_eq!(upstream.send("x"), Err(SendError::NotConnected));
    }
}
