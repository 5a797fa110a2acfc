//! Sending datagrams: in the outbox each stands behind its length, which goes no further.

use std::io;

use crate::{
    log::logged,
    session::{Connection, ShardCore, status::Flags},
    time::Tick,
};

/// Bytes of the length before each datagram in an outbox.
const HEADER: usize = 4;

/// What carries the packets of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    /// Streams of bytes, which a framing cuts.
    Streams,
    /// Datagrams: each is a packet.
    Datagrams,
    /// Sessions of another service, whose packets bring them.
    Carriers,
}

impl Connection {
    /// Returns when something was last received.
    pub(crate) fn heard(&self) -> Tick {
        self.heard
    }

    /// Returns `true` if something waits to be sent.
    pub(crate) fn has_datagrams(&self) -> bool {
        self.queued() > 0
    }

    /// Returns the datagram to send next, if there is one and the session does not wait for the socket.
    #[inline]
    pub(crate) fn poll_datagram(&mut self, core: &mut ShardCore) -> Option<&[u8]> {
        if self.status.has(Flags::BLOCKED | Flags::BROKEN) {
            return None;
        }
        let outbox = self.outbox.as_mut()?;
        if outbox.has_packets() {
            outbox.commit_some();
        }
        if outbox.is_empty() {
            if self.status.has(Flags::OWN_OVERFLOW) {
                // What fits into spare bytes would be sent in any case.
                outbox.seal();
            }
            self.give_back_outbox(core);
        }
        self.front_datagram()
    }

    #[inline]
    fn front_datagram(&self) -> Option<&[u8]> {
        let (header, behind) = self.outbox.as_ref()?.chunks().next()?.split_first_chunk::<HEADER>()?;
        behind.get(..u32::from_be_bytes(*header) as usize)
    }

    /// The kernel has taken the datagram that was to be sent next, of `len` bytes.
    #[inline]
    pub(crate) fn handle_datagram_sent(&mut self, len: usize, core: &mut ShardCore) {
        self.count_written(len, core);
        self.advance_outbox(len.saturating_add(HEADER), core);
        self.lift_full(core);
    }

    /// The datagram that was to be sent next, of `len` bytes, cannot be sent: it is dropped.
    #[cold]
    pub(crate) fn handle_datagram_lost(&mut self, len: usize, error: &io::Error, core: &mut ShardCore) {
        core.counters.datagrams_unsent += 1;
        let (now, peer) = (core.clock.now(), self.endpoints.peer());
        logged!(
            core.reporter.gate, now, Datagram DEBUG,
            %peer, len, %error, "a datagram could not be sent"
        );
        self.lose_datagram(len, core);
    }

    /// Drops what waits to be sent, because too much waits for the socket.
    #[cold]
    pub(crate) fn drop_datagrams(&mut self, core: &mut ShardCore) {
        if let Some(outbox) = self.outbox.as_mut().filter(|outbox| outbox.has_packets()) {
            outbox.commit_all();
        }
        while let Some(len) = self.front_datagram().map(<[u8]>::len) {
            core.counters.datagrams_unsent += 1;
            self.lose_datagram(len, core);
        }
    }

    pub(crate) fn lose_datagram(&mut self, len: usize, core: &mut ShardCore) {
        if let Some(outbox) = &mut self.outbox {
            outbox.lose_tickets(len.saturating_add(HEADER));
        }
        self.advance_outbox(len.saturating_add(HEADER), core);
        self.lift_full(core);
    }

    /// The socket takes nothing now. Returns `true` if the session did not wait for it already.
    pub(crate) fn wait_for_socket(&mut self, core: &mut ShardCore) -> bool {
        if let Some(buffer) = self.outbox.as_mut().and_then(|outbox| outbox.release_spare()) {
            core.pool.put_buffer(buffer);
        }
        self.status.insert(Flags::BLOCKED)
    }

    /// Returns `true` if nothing will be sent or handed out any more.
    pub(crate) fn is_done(&self) -> bool {
        self.is_closing() && self.queued() == 0
    }
}
