use std::{collections::BTreeMap, sync::Arc};

use super::ServerHandle;
use crate::{
    contained::Contained,
    encode::Encode,
    error::BroadcastError,
    framing::EncodeError,
    id::{Key, SessionId, ShardId},
    runtime::Posted,
    session::{Errand, SessionInfo},
    shard::Recipients,
    sync::{Addressee, Completion, PublishTicket},
};

impl ServerHandle {
    /// Sends a packet to all open sessions, those of all services of a [`Reactor`](crate::Reactor) alike. From any
    /// thread and within callbacks; never blocks. Returns how many shards took the packet.
    ///
    /// The value is encoded once, here; `Bytes` are not copied. Each shard gets one command, whatever its number of
    /// sessions (within a callback, the callback's own shard gets it without its mailbox, after the callback), and frames the packet once for all that have the service's own framing and no layers; the others frame
    /// it for themselves. A session for which nothing waits is written to at once, out of the common frame. Where the
    /// packet has to wait, frames of more than 512 bytes are shared by reference, and count once against
    /// [`Limits::shard_memory`](crate::Limits::shard_memory).
    ///
    /// A shard with many sessions does this in several turns of its event loop
    /// ([`Limits::fanout_budget`](crate::Limits::fanout_budget)), between which it serves its sessions. All broadcasts
    /// together get about 1 ms of each turn: that is what they add to the time for which a packet of another session
    /// waits, beside what the other sessions and other programs of the machine take. Sessions that open meanwhile may
    /// get the packet or not.
    ///
    /// **Order.** Packets that one thread sends to a session arrive in the order in which they were sent, whether by
    /// broadcasts, by [`SessionHandle`](crate::SessionHandle) or by [`Session::send_to`](crate::Session::send_to). What
    /// a callback sends to its own session by [`Session::send`](crate::Session::send), or on its shard by
    /// [`ShardContext`](crate::ShardContext), goes first.
    ///
    /// **Slow sessions** delay no other. A session whose outbox the packet would take above
    /// [`Limits::outbox_hard`](crate::Limits::outbox_hard) is closed, with
    /// [`CloseReason::Send`](crate::CloseReason::Send). A session whose framing cannot encode the packet is left out:
    /// this is counted ([`Metrics::sends_refused`](crate::Metrics::sends_refused)) and logged once for each shard.
    ///
    /// A server that does not run yet, or any more, has no shards: the result is `Ok(0)`.
    ///
    /// ```
    /// use framewire::{Handled, PacketHandler, ServerHandle, Session};
    ///
    /// /// A room: all hear what one says.
    /// #[derive(Clone)]
    /// struct Room(ServerHandle); // from `Server::handle`
    ///
    /// impl PacketHandler for Room {
    ///     type State = ();
    ///
    ///     fn on_open(&mut self, _: &mut Session<'_>) -> Handled {
    ///         Ok(())
    ///     }
    ///
    ///     fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), said: &[u8]) -> Handled {
    ///         let said = String::from_utf8_lossy(said);
    ///         self.0.broadcast(format_args!("{}: {said}", session.peer_addr()))?;
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// - [`BroadcastError::Encode`] if the value cannot be encoded.
    /// - [`BroadcastError::MailboxFull`] if the mailboxes of some shards are full. The error lists them; the other
    ///   shards took the packet. To send it to the rest later, call [`broadcast_where`](Self::broadcast_where) with
    ///   the predicate that [`SessionId::shard`] is among them.
    pub fn broadcast(&self, packet: impl Encode) -> Result<usize, BroadcastError> {
        self.fan_out(packet, &Recipients::All)
    }

    /// As [`broadcast`](Self::broadcast), to the sessions for which `which` returns `true`. It is called on the shards'
    /// threads, once for each open session, just before the packet is sent to that session.
    ///
    /// A panic in `which` is counted and logged; the sessions that are left on that shard do not get the packet.
    ///
    /// ```
    /// use framewire::{BroadcastError, Server, ServerHandle, SessionId};
    ///
    /// fn tell_others(server: &ServerHandle, me: SessionId) -> Result<usize, BroadcastError> {
    ///     server.broadcast_where("a user has come", move |session| session.id != me)
    /// }
    /// ```
    ///
    /// # Errors
    /// As for [`broadcast`](Self::broadcast).
    pub fn broadcast_where(
        &self,
        packet: impl Encode,
        which: impl Fn(&SessionInfo) -> bool + Send + Sync + 'static,
    ) -> Result<usize, BroadcastError> {
        self.fan_out(packet, &Recipients::Where(Arc::new(Contained::new(Box::new(which)))))
    }

    /// As [`broadcast`](Self::broadcast), to these sessions, on each shard in the order in which they are listed. Those
    /// that have ended, and those of other servers, are left out. A session that is listed twice gets the packet twice.
    ///
    /// # Errors
    /// As for [`broadcast`](Self::broadcast).
    pub fn send_to(&self, sessions: &[SessionId], packet: impl Encode) -> Result<usize, BroadcastError> {
        let payload = packet.into_payload()?;
        let mut by_shard: BTreeMap<ShardId, Vec<Key>> = BTreeMap::new();
        for session in sessions.iter().filter(|session| self.may_know(**session)) {
            by_shard.entry(session.shard).or_default().push(session.key);
        }
        let mut posted = Posted::default();
        for (shard, keys) in by_shard {
            if let Some(registry) = self.registry_of(shard) {
                registry.fan_out_on(shard, &payload, Recipients::These(Arc::new(keys)), &mut posted);
            }
        }
        posted.outcome()
    }

    /// As [`send_to`](Self::send_to), and returns a ticket that tells what became of the packet at each of the sessions.
    /// A session whose outbox has no room, or whose shard's mailbox is full, stays open: the ticket tells
    /// [`TicketError::Refused`](crate::TicketError::Refused). So it does, with
    /// [`SendError::Closed`](crate::SendError::Closed), of sessions that have ended before, or that belong to another
    /// server. Each session costs its shard a visit of its own and, until it is decided, 128 bytes against the limits
    /// of its outbox and its mailbox; one that has no handle yet gets the 88 bytes that handles share with it.
    ///
    /// [`broadcast`](Self::broadcast) has no ticket: which sessions it goes to is known on the shards alone. Who needs
    /// one lists them, here or in a [`Channel`](crate::Channel).
    ///
    /// ```
    /// use std::time::Duration;
    /// use framewire::{EncodeError, ServerHandle, SessionId};
    ///
    /// /// Returns those of the users whose peers have not taken the alarm within five seconds.
    /// fn alarm(server: &ServerHandle, users: &[SessionId]) -> Result<Vec<SessionId>, EncodeError> {
    ///     let told = server.send_to_tracked(users, "alarm")?.wait_timeout(Duration::from_secs(5));
    ///     Ok(told.into_iter().filter(|(_, outcome)| outcome.is_err()).map(|(user, _)| user).collect())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`EncodeError`] if the value cannot be encoded.
    pub fn send_to_tracked(
        &self,
        sessions: &[SessionId],
        packet: impl Encode,
    ) -> Result<PublishTicket, EncodeError> {
        let payload = packet.into_payload()?;
        let member = |id: &SessionId| (*id, Arc::<Errand>::default() as Arc<dyn Addressee>);
        let (ticket, completions) = PublishTicket::of(sessions.iter().map(member).collect());
        let mut by_shard: BTreeMap<ShardId, (Vec<Key>, Vec<Completion>)> = BTreeMap::new();
        for (session, completion) in sessions.iter().zip(completions) {
            if self.may_know(*session) {
                let (keys, completions) = by_shard.entry(session.shard).or_default();
                keys.push(session.key);
                completions.push(completion);
            }
        }
        for (shard, (keys, completions)) in by_shard {
            if let Some(registry) = self.registry_of(shard) {
                registry.fan_out_tracked(shard, &payload, keys, completions);
            }
        }
        Ok(ticket)
    }

    fn fan_out(&self, packet: impl Encode, to: &Recipients) -> Result<usize, BroadcastError> {
        let payload = packet.into_payload()?;
        let mut posted = Posted::default();
        self.registries().for_each(|registry| registry.fan_out(&payload, to, &mut posted));
        posted.outcome()
    }
}
