//! Sessions that are streams, multiplexed over sessions of other services: on the one side what they receive and send, on
//! the other side the carrier that takes it.

use super::{Ending, SessionAccess, Shard};
use crate::{
    addr::Addr,
    contained::guard,
    encode::Encode,
    error::{CloseReason, RefusalCause, SendError},
    framing::Framing,
    handler::PacketHandler,
    id::SessionId,
};

/// What a session has of the carrier that it shares with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream {
    /// The place of the carrier.
    pub(crate) carrier: u32,
    pub(crate) number: u64,
}

/// A carrier, while it takes what its streams send.
pub(crate) trait Carry {
    /// Sends one packet.
    fn carry(&mut self, packet: &dyn Encode) -> Result<(), NotCarried>;

    /// Its peer opens streams, and was not told yet that so many have ended, because it does not read: it closes.
    fn overrun(&mut self, ends: usize);

    /// None is left of so many streams, all that a service was told of.
    fn note_unladen(&mut self, ended: u64);
}

/// Why a carrier did not take a packet.
#[derive(Debug)]
pub(crate) enum NotCarried {
    /// It takes none now; its streams are told when it does.
    Full,
    /// It is closing, of which its streams are told.
    Closing,
    /// The packet has no place in it.
    Unfit(CloseReason),
}

impl<H: PacketHandler, F: Framing, T> Carry for SessionAccess<'_, H, F, T> {
    fn carry(&mut self, packet: &dyn Encode) -> Result<(), NotCarried> {
        if !self.is_open() {
            return Err(NotCarried::Closing);
        }
        let (connection, framing, core) = (&mut self.slot.connection, &*self.slot.framing, &mut *self.core);
        if connection.is_full_for_streams() {
            return Err(NotCarried::Full);
        }
        let had_output = connection.queued() > 0;
        let sent = guard("encode", || Ok::<_, CloseReason>(connection.enqueue_value(framing, packet, core)));
        core.flush_later(connection);
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(SendError::Full { .. })) if had_output => {
                connection.hold_streams();
                Err(NotCarried::Full)
            }
            Ok(Err(SendError::Closed)) => Err(NotCarried::Closing),
            Ok(Err(error)) => Err(NotCarried::Unfit(error.into())),
            Err(panic) => Err(NotCarried::Unfit(panic)),
        }
    }

    fn overrun(&mut self, ends: usize) {
        if self.is_open() {
            self.close(CloseReason::StreamBacklog { ends });
        }
    }

    fn note_unladen(&mut self, ended: u64) {
        if self.is_alive() && self.slot.connection.note_unladen(ended) {
            self.close(CloseReason::Shutdown);
        }
    }
}

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// So many packets have come over the carrier, each behind its length. They are all handed out now: what bounds them
    /// is the carrier's share of the turn. If the session takes none, no more than `most` bytes wait.
    pub(crate) fn handle_packets(&mut self, packets: &mut [u8], count: u32, most: usize) {
        let payload = packets.len().saturating_sub(4 * count as usize);
        self.slot.connection.count_received(payload, self.core);
        if !self.is_open() {
            return;
        }
        let mut used = 0;
        if self.slot.connection.takes_packets() && !self.slot.connection.has_backlog() {
            self.share.grant(count);
            used = self.deliver_any(packets, self.core.clock.stamp());
        }
        let rest = packets.get(used..).unwrap_or_default();
        if rest.is_empty() || !self.is_open() {
            return;
        }
        let waiting = self.slot.connection.waiting();
        // A single packet may be longer.
        if waiting > 0 && rest.len() > most.saturating_sub(waiting) {
            let reason = CloseReason::InboxFull { waiting, more: rest.len(), limit: most };
            return self.close(reason);
        }
        self.slot.connection.keep_packets(rest, self.core);
    }

    /// The peer has ended the stream.
    pub(crate) fn handle_cut_off(&mut self) {
        self.slot.connection.handle_cut_off(self.core);
        if self.slot.connection.is_closing() {
            // What is queued has no receiver.
            return self.terminate(CloseReason::PeerClosed, Ending::Close);
        }
        self.handle_resumed();
    }

    /// The carrier has closed.
    pub(crate) fn handle_carrier_lost(&mut self, reason: CloseReason) {
        if let Err(reason) = self.slot.connection.handle_carrier_lost(reason, self.core) {
            self.terminate(reason, Ending::Close);
        }
    }

    /// The carrier is to take what the session has to send. Returns `true` if that is anything, and the session does not
    /// wait for the carrier already.
    pub(crate) fn wait_for_carrier(&mut self) -> bool {
        self.is_alive() && self.slot.connection.wait_for_carrier(self.core)
    }

    /// The packet of `len` bytes that was to be sent next has no place in the carrier: the session closes.
    #[cold]
    pub(crate) fn handle_unfit(&mut self, len: usize, reason: CloseReason) {
        self.slot.connection.lose_datagram(len, self.core);
        self.fail(reason);
    }
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Visits a session that carries streams. Returns `false` if it has ended.
    pub(crate) fn carry(&mut self, carrier: SessionId, write: &mut dyn FnMut(&mut dyn Carry)) -> bool {
        self.with_session(carrier.key, |access| write(access)).is_some()
    }

    /// A new stream gets no session.
    #[cold]
    pub(crate) fn refuse_stream(&mut self, peer: &Addr, cause: RefusalCause) {
        self.core.counters.count_refusal(cause);
        self.core.reporter.turned_away(self.core.clock.now(), peer, cause);
    }
}
