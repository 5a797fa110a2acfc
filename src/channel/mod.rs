//! Channels: lists of sessions to which packets are published.

mod members;
mod names;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

pub use self::names::Channels;

use self::members::{Members, OnLeave, Removed};
use crate::{
    buffer::Overflow,
    contained::Contained,
    encode::Encode,
    error::{BroadcastError, JoinError},
    framing::EncodeError,
    id::SessionId,
    session::{HandleState, Membership, Roster, SessionHandle},
    sync::PublishTicket,
};

/// How a session has left a [`Channel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Left {
    /// By [`Channel::leave`].
    Left,
    /// By [`Channel::kick`].
    Kicked,
    /// The session has begun to close.
    Closed,
}

/// A list of sessions, its members, to which packets are published. Clones are cheap, and all are the same channel.
///
/// Members may be sessions of any server in the process, on any shard. A channel keeps no session open: a session that
/// closes leaves all its channels by itself, before its [`on_closing`](crate::PacketHandler::on_closing) is called.
///
/// All methods may be called from any thread and within callbacks. None blocks for long: a lock is held while the list
/// is changed or read, and while a packet is given to the shards of the members, but never while user code runs.
///
/// ```
/// use framewire::{Channel, Handled, PacketHandler, Session};
///
/// /// All are in one room, and hear what the others say.
/// #[derive(Clone)]
/// struct Chat {
///     room: Channel,
/// }
///
/// impl PacketHandler for Chat {
///     type State = ();
///
///     fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
///         let room = self.room.clone();
///         self.room.join_with(&session.handle(), move |id, how| {
///             let _ = room.publish(format_args!("{id} has gone: {how:?}")); // best effort
///         })?;
///         Ok(())
///     }
///
///     fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), said: &[u8]) -> Handled {
///         self.room.publish_except(session.id(), said)?;
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone, Default)]
pub struct Channel {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner(Mutex<Members>);

impl Channel {
    /// Creates a channel without members.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many members the channel, with all its clones, may have. Members that it has stay. Default: no limit
    /// but the number of sessions.
    #[must_use]
    pub fn max_members(self, members: usize) -> Self {
        self.inner.lock().limit_to(members);
        self
    }

    /// Sets what becomes of a packet, published to the channel or any of its clones from now on, for a member whose peer
    /// does not read as fast as is published. It goes before what the member has set for itself
    /// ([`Session::set_overflow`](crate::Session::set_overflow)). Default: [`Overflow::Close`], the member is closed.
    ///
    /// ```
    /// use framewire::{Channel, Overflow};
    ///
    /// /// Of each kind of news, a slow member gets the latest.
    /// fn weather() -> [Channel; 2] {
    ///     [1, 2].map(|kind| Channel::new().overflow(Overflow::Latest(kind)))
    /// }
    /// ```
    #[must_use]
    pub fn overflow(self, overflow: Overflow) -> Self {
        self.inner.lock().set_overflow(overflow);
        self
    }

    /// Makes a session a member: it gets what is published from now on.
    ///
    /// # Errors
    /// - [`JoinError::Closed`] if the session is closing or closed.
    /// - [`JoinError::AlreadyMember`] if it is a member.
    /// - [`JoinError::Full`] at [`max_members`](Self::max_members).
    pub fn join(&self, session: &SessionHandle) -> Result<(), JoinError> {
        self.add(session, None)
    }

    /// As [`join`](Self::join); calls `on_leave` once, when the session is no longer a member, whether it has left, was
    /// kicked or closes. No lock is held then, so `on_leave` may use this channel and any other.
    ///
    /// [`leave`](Self::leave) and [`kick`](Self::kick) call it before they return, so a panic in it reaches their
    /// caller. If the session closes, it is called on the session's shard, outside of any callback; then a panic is
    /// logged and counted.
    ///
    /// # Errors
    /// As for [`join`](Self::join). `on_leave` is dropped then.
    pub fn join_with(
        &self,
        session: &SessionHandle,
        on_leave: impl FnOnce(SessionId, Left) + Send + 'static,
    ) -> Result<(), JoinError> {
        self.add(session, Some(Contained::new(Box::new(on_leave))))
    }

    fn add(
        &self,
        session: &SessionHandle,
        mut on_leave: Option<Contained<OnLeave>>,
    ) -> Result<(), JoinError> {
        if !session.is_open() {
            return Err(JoinError::Closed);
        }
        let joined = session.handle_state.join(|| {
            let place = self.inner.lock().add(session, &mut on_leave)?;
            Ok(Membership { roster: self.inner.clone(), place })
        });
        joined.unwrap_or(Err(JoinError::Closed))
    }

    /// Ends the membership of a session, which is told by its id or its handle. Returns `false` if it was not a member.
    pub fn leave(&self, member: impl Into<SessionId>) -> bool {
        self.remove(member.into(), Left::Left)
    }

    /// As [`leave`](Self::leave), but `on_leave` is told that the session was kicked. The session stays open; to close
    /// it, see [`SessionHandle::close_with`].
    pub fn kick(&self, member: impl Into<SessionId>) -> bool {
        self.remove(member.into(), Left::Kicked)
    }

    fn remove(&self, member: SessionId, how: Left) -> bool {
        let removed = self.inner.lock().remove(member, None);
        let Some(Removed { handle, place, on_leave }) = removed else { return false };
        let roster: Arc<dyn Roster> = self.inner.clone();
        handle.handle_state.memberships.leave(&roster, place);
        tell(on_leave, member, how);
        true
    }

    /// Returns the number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.lock().len()
    }

    /// Returns `true` if the channel has no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns `true` if the session is a member.
    #[must_use]
    pub fn has(&self, session: impl Into<SessionId>) -> bool {
        self.inner.lock().has(session.into())
    }

    /// Returns the members, in no particular order.
    #[must_use]
    pub fn members(&self) -> Vec<SessionHandle> {
        self.inner.lock().handles()
    }

    /// Sends a packet to all members, and returns their number. Never blocks.
    ///
    /// The value is encoded once, here; `Bytes` are not copied. Each shard with members gets one command (within a callback,
    /// the callback's own shard gets it without its mailbox, after the callback), and sends the packet as [`ServerHandle::broadcast`](crate::ServerHandle::broadcast) does: within its budget, in order with
    /// everything else that this thread sends to a member, and without waiting for slow members. Those are closed at
    /// [`Limits::outbox_hard`](crate::Limits::outbox_hard), unless [`overflow`](Self::overflow) says otherwise.
    ///
    /// All members get what is published to this channel in the same order, whichever threads publish.
    ///
    /// # Errors
    /// - [`BroadcastError::Encode`] if the value cannot be encoded.
    /// - [`BroadcastError::MailboxFull`] if the mailboxes of some shards are full; the members on other shards get the
    ///   packet.
    pub fn publish(&self, packet: impl Encode) -> Result<usize, BroadcastError> {
        self.inner.publish(&packet.into_payload()?, None)
    }

    /// As [`publish`](Self::publish), to all members but this one, which need not be a member. This holds for this
    /// packet alone.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish).
    pub fn publish_except(
        &self,
        left_out: impl Into<SessionId>,
        packet: impl Encode,
    ) -> Result<usize, BroadcastError> {
        self.inner.publish(&packet.into_payload()?, Some(left_out.into()))
    }
}

impl Channel {
    /// As [`publish`](Self::publish), and returns a ticket that tells what became of the packet at each member. Never
    /// blocks.
    ///
    /// A member whose outbox has no room, or whose shard's mailbox is full, does not get the packet and stays open: the
    /// ticket tells [`TicketError::Refused`](crate::TicketError::Refused), or
    /// [`TicketError::Dropped`](crate::TicketError::Dropped) where the [`overflow`](Self::overflow) of the channel drops. Each member costs a shard a visit of its own
    /// and, until it is decided, 128 bytes against the limits of its outbox and its mailbox: to publish without a ticket
    /// is cheaper. For a list of sessions there is
    /// [`ServerHandle::send_to_tracked`](crate::ServerHandle::send_to_tracked).
    ///
    /// # Errors
    /// [`EncodeError`] if the value cannot be encoded.
    pub fn publish_tracked(&self, packet: impl Encode) -> Result<PublishTicket, EncodeError> {
        let payload = packet.into_payload()?;
        // The lock is released before the payload is dropped, which may run user code.
        let ticket = self.inner.lock().publish_tracked(&payload);
        Ok(ticket)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("members", &self.len()).finish_non_exhaustive()
    }
}

impl PartialEq for Channel {
    /// Returns `true` for two clones of one channel.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Channel {}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller keeps the payload until the lock is released: to drop it may run user code.
    fn publish(&self, payload: &Bytes, left_out: Option<SessionId>) -> Result<usize, BroadcastError> {
        self.lock().publish(payload, left_out)
    }
}

impl Roster for Inner {
    fn forget(&self, session: &Arc<HandleState>, place: u64) {
        let removed = self.lock().remove(session.id(), Some(place));
        if let Some(Removed { on_leave, .. }) = removed {
            tell(on_leave, session.id(), Left::Closed);
        }
    }
}

/// Calls what was to be called when the session leaves. No lock may be held.
fn tell(on_leave: Option<Contained<OnLeave>>, session: SessionId, how: Left) {
    if let Some(on_leave) = on_leave {
        (on_leave.into_inner())(session, how);
    }
}
