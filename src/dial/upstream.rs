use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    encode::Encode,
    error::SendError,
    id::{DialId, SessionId},
    limits::Limits,
    session::{Deliver, SessionHandle},
};

/// What a packet that is kept counts beside its own bytes: its place in the queue.
const PLACE: usize = size_of::<Bytes>();

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
        /// The most bytes of payload, and 32 for each packet.
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
    kept: VecDeque<Bytes>,
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
        let payload = packet.into_payload()?;
        let session = {
            let mut line = self.shared.line();
            match &line.state {
                LineState::Closed => return Err(SendError::Closed),
                LineState::Up(session) if line.kept.is_empty() => session.clone(),
                _ => return line.keep(payload, &self.shared),
            }
        };
        match session.send(payload.clone()) {
            Err(SendError::Closed) => self.shared.line().keep_behind(&session, payload, &self.shared),
            sent => sent,
        }
    }

    /// Ends it: closes its session gracefully, behind what this thread has sent before, or gives up the attempt to connect.
    /// Neither [`on_dial_failed`](crate::PacketHandler::on_dial_failed) nor another attempt follows. Packets that are kept
    /// are dropped. If the mailbox of its shard is full, the session is closed all the same, before what waits there.
    pub fn close(&self) {
        let (before, shard) = self.shared.line().end();
        if let LineState::Up(session) = before {
            // Behind what was sent before. When the session has ended, the shard finds that the upstream is closed.
            if session.close().is_ok() {
                return;
            }
        }
        if let Some(shard) = shard {
            shard.hang_up(self.shared.id);
        }
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
    fn keep(&mut self, packet: Bytes, shared: &Shared) -> Result<(), SendError> {
        let (most, longest) = (shared.keep, shared.longest);
        if most == 0 {
            return Err(SendError::NotConnected);
        }
        if packet.len() > longest {
            return Err(SendError::Full { queued: 0, limit: longest });
        }
        let cost = packet.len().saturating_add(PLACE);
        if cost > most.saturating_sub(self.kept_bytes) {
            return Err(SendError::Full { queued: self.kept_bytes, limit: most });
        }
        self.kept_bytes += cost;
        self.kept.push_back(packet);
        Ok(())
    }

    /// As `keep`, for a packet that `ended` has not taken: unless the next connection stands already.
    fn keep_behind(
        &mut self,
        ended: &SessionHandle,
        packet: Bytes,
        shared: &Shared,
    ) -> Result<(), SendError> {
        match &self.state {
            LineState::Closed => Err(SendError::Closed),
            LineState::Up(session) if session != ended && self.kept.is_empty() => session.send(packet),
            _ => self.keep(packet, shared),
        }
    }

    /// Sends what was kept, as far as there is room.
    fn deliver(&mut self) -> Kept {
        let LineState::Up(session) = &self.state else { return Kept::Nothing };
        while let Some(packet) = self.kept.front() {
            match session.send(packet.clone()) {
                // It has ended, which is told next: it waits for the next one.
                Err(SendError::Closed) => return Kept::Nothing,
                Err(SendError::Full { queued: 1.., .. } | SendError::MailboxFull { commands: 1.., .. }) => {
                    return Kept::Some;
                }
                // What finds no room where nothing waits never will: it would hold up all that is behind it. Bytes need no
                // encoding, so nothing else is refused here.
                Ok(()) | Err(_) => {
                    self.kept_bytes = self.kept_bytes.saturating_sub(packet.len() + PLACE);
                    self.kept.pop_front();
                }
            }
        }
        // Buffers of a long time without a connection are not held for ever.
        self.kept = VecDeque::new();
        Kept::Nothing
    }

    fn end(&mut self) -> (LineState, Option<Arc<dyn Deliver>>) {
        (self.kept, self.kept_bytes) = (VecDeque::new(), 0);
        (mem::replace(&mut self.state, LineState::Closed), self.shard.take())
    }
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
        let mut line = self.shared.line();
        if let LineState::Connecting = line.state {
            line.state = LineState::Up(session);
        }
        line.deliver()
    }

    /// Returns `true` if it was closed: no other attempt is made.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.shared.line().state, LineState::Closed)
    }

    /// Sends what is left of what was kept.
    pub(crate) fn deliver(&self) -> Kept {
        self.shared.line().deliver()
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
        let remains = self.shared.line().end();
        drop(remains);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
