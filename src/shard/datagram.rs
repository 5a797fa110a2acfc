//! Sessions whose packets come and go as datagrams, through a socket that they share.

use std::{io, net::SocketAddr};

use super::{Command, Ending, SessionAccess, Shard};
use crate::{
    addr::Addr,
    buffer::ReceiveBuffer,
    error::{CloseReason, RefusalCause},
    framing::Framing,
    handler::PacketHandler,
    id::Key,
    log::logged,
    session::ShardCore,
    time::Tick,
};

/// How long a peer whose deadline has passed may wait to be judged, while datagrams lie unread that may be its own
/// (milliseconds).
const LOOK_AGAIN: Tick = 10;

/// The other end of a session over datagrams. `S` is a socket that the session has to itself.
#[derive(Debug)]
pub(crate) struct Peer<S> {
    /// Where its datagrams come from, and go to.
    pub(crate) addr: SocketAddr,
    pub(crate) via: Via<S>,
}

/// Through which socket the datagrams of a session go.
#[derive(Debug)]
pub(crate) enum Via<S> {
    /// The one with this number, which it shares with others.
    Shared(u16),
    /// Its own.
    Own(Box<S>),
}

/// What is done with a new UDP peer when there are as many as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Beyond {
    /// Its datagrams are dropped, and counted as [`RefusalCause::Full`](crate::RefusalCause::Full). The default: a flood from
    /// forged addresses cannot drive out the peers that are there.
    #[default]
    Refuse,
    /// The session whose peer was silent for longest ends with
    /// [`CloseReason::Forgotten`](crate::CloseReason::Forgotten). Of several workers each has an equal share of the peers, and
    /// forgets its own.
    ForgetIdlest,
}

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// A datagram of `n` bytes has come, and is in `buffer`. A session that takes no packets now loses it: what waits
    /// in the kernel waits for all peers.
    #[inline]
    pub(crate) fn handle_datagram(&mut self, buffer: &mut ReceiveBuffer, n: usize) {
        self.slot.connection.count_received(n, self.core);
        if !self.is_alive() || !self.slot.connection.takes_packets() {
            self.core.counters.datagrams_missed += 1;
            return;
        }
        let frame = buffer.counted(n);
        let len = frame.len();
        // A session that takes packets takes at least one, as its share of a visit is never empty; but a linked one whose
        // partner has been passed as much as a turn allows.
        if self.deliver_any(frame, self.core.clock.stamp()) < len && self.is_open() {
            self.core.counters.datagrams_missed += 1;
        }
    }

    /// Returns the datagram to send next, and to whom.
    #[inline]
    pub(crate) fn poll_datagram(&mut self) -> Option<(&mut T, &[u8])> {
        if !self.is_alive() {
            return None;
        }
        let datagram = self.slot.connection.poll_datagram(self.core)?;
        Some((&mut self.slot.io, datagram))
    }

    /// The kernel has taken that datagram, of `len` bytes.
    #[inline]
    pub(crate) fn handle_datagram_sent(&mut self, len: usize) {
        self.slot.connection.handle_datagram_sent(len, self.core);
    }

    /// A datagram is longer than `limit`.
    #[cold]
    pub(crate) fn refuse_datagram(&mut self, len: usize, limit: usize) {
        if let Some(peer) = self.endpoints().peer().socket_addr() {
            self.core.refuse_datagram(peer, len, limit);
        }
    }

    /// That datagram, of `len` bytes, cannot be sent. The session stays: the next may get through.
    #[cold]
    pub(crate) fn handle_datagram_lost(&mut self, len: usize, error: &io::Error) {
        self.slot.connection.handle_datagram_lost(len, error, self.core);
    }

    /// Sending was interrupted: it is tried again in the next turn.
    #[cold]
    pub(crate) fn send_later(&mut self) {
        self.core.flush_later(&mut self.slot.connection);
    }

    /// The socket takes nothing now. What waits for it is bounded: beyond `most` bytes in the whole shard, this session
    /// loses what it has. Returns `true` if the session is to be told when the socket takes something again.
    #[cold]
    pub(crate) fn wait_for_socket(&mut self, most: usize) -> bool {
        if self.core.pool.queued() > most {
            self.slot.connection.drop_datagrams(self.core);
        }
        self.slot.connection.has_datagrams() && self.slot.connection.wait_for_socket(self.core)
    }

    pub(crate) fn key(&self) -> Key {
        self.slot.connection.key()
    }

    /// Ends the session if it is closing and has nothing more to send: there is no end of the peer to wait for.
    pub(crate) fn end_if_done(&mut self) {
        if self.is_alive() && self.slot.connection.is_done() {
            self.terminate(CloseReason::Local, Ending::Close);
        }
    }

    /// As [`judge`](Self::judge), but not now if the silence of the peer may be our own: some datagrams are `unread`.
    pub(crate) fn judge_unless(&mut self, unread: bool) -> bool {
        if unread && self.is_alive() {
            self.slot.connection.look_again(LOOK_AGAIN, self.core);
            return false;
        }
        self.judge()
    }
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Returns `true` if the session has not ended.
    pub(crate) fn has(&self, key: Key) -> bool {
        self.slots.get(key).is_some()
    }

    /// Returns what a session has of its socket.
    pub(crate) fn io(&mut self, key: Key) -> Option<&mut T> {
        self.slots.get_mut(key).map(|slot| &mut slot.io)
    }

    /// Drops a command that was carried out, or never will be, from a mailbox to which sockets are posted.
    pub(crate) fn discard_command<S>(&mut self, command: Command<S>) {
        self.core.count_discarded(command.discard());
    }

    /// A new peer gets no session.
    #[cold]
    pub(crate) fn refuse_peer(&mut self, peer: SocketAddr, cause: RefusalCause) {
        self.core.counters.count_refusal(cause);
        self.core.reporter.turned_away(self.core.clock.now(), &Addr::Ip(peer), cause);
    }

    /// A datagram is longer than `limit`.
    #[cold]
    pub(crate) fn refuse_datagram(&mut self, peer: SocketAddr, len: usize, limit: usize) {
        self.core.refuse_datagram(peer, len, limit);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Returns when something was last received from the peer of a session.
    pub(crate) fn heard(&self, key: Key) -> Option<Tick> {
        self.slots.get(key).map(|slot| slot.connection.heard())
    }

    /// The sessions, with when something was last received from the peer of each.
    pub(crate) fn all_heard(&self) -> impl Iterator<Item = (Tick, Key)> {
        self.slots.iter().map(|(key, slot)| (slot.connection.heard(), key))
    }

    /// Ends a session so that another has room.
    pub(crate) fn forget_peer(&mut self, key: Key) {
        self.terminate(key, CloseReason::Forgotten, Ending::Close);
    }
}

impl ShardCore {
    fn refuse_datagram(&mut self, peer: SocketAddr, len: usize, limit: usize) {
        self.counters.datagrams_too_long += 1;
        let now = self.clock.now();
        logged!(
            self.reporter.gate, now, Datagram DEBUG,
            %peer, len, limit, "a datagram is too long, dropping it"
        );
    }
}
