//! What the sessions of a service without streams of their own share, to send and receive their packets.

use super::{Carriers, Ready, Sys, connect::Connect, connector::Connected, placing::PlacedDial};
use crate::{
    buffer::ReceiveBuffer,
    dial::NewDial,
    error::DialError,
    framing::LengthPrefix,
    handler::PacketHandler,
    id::{Key, SessionId},
    metrics::Counters,
    session::StreamEffect,
    shard::{Ended, SessionAccess, Shard},
    time::Tick,
};

/// The sessions, as a port sees them.
pub(crate) struct PortContext<H: PacketHandler, T> {
    pub(super) shard: Shard<H, LengthPrefix, T>,
    /// When this turn began.
    pub(super) began: Tick,
    /// The sessions that were served in this turn.
    pub(super) served: Vec<Key>,
}

/// A session of a [`Port`], while it is visited.
pub(crate) type PortAccess<'a, H, T> = SessionAccess<'a, H, LengthPrefix, T>;

/// What the sessions of a shard share to send and receive their packets.
pub(crate) trait Port<Y: Sys, H: PacketHandler>: Sized {
    /// The place of one session in it.
    type Io;

    /// How sessions with chosen peers are opened.
    type Connect: Connect<Y, Io = Self::Io>;

    /// Notes what the events of this turn say.
    fn take_events(&mut self, events: &[Ready], shard: &mut Shard<H, LengthPrefix, Self::Io>);

    /// Receives packets, and hands them to their sessions. `share` is the part of the turn that it may take.
    fn read(
        &mut self,
        context: &mut PortContext<H, Self::Io>,
        share: Tick,
        sys: &mut Y,
        buffer: &mut ReceiveBuffer,
    );

    /// Sends what a session has to send.
    fn transmit(&mut self, sys: &mut Y, access: &mut PortAccess<'_, H, Self::Io>);

    /// Returns a session that had to wait and may send now, once for each time it waited.
    fn next_waiting(&mut self) -> Option<Key>;

    /// Returns `true` if work is left that no event will announce.
    fn has_work(&self) -> bool;

    /// Returns when there is something to do, if nothing happens before.
    fn deadline(&self) -> Option<Tick>;

    /// Returns `true` if a peer may only seem to be silent, because what it sends was not read yet.
    fn hides_input(&self, now: Tick) -> bool;

    /// Finds a thread for a dial that another one asked for.
    fn place_dial(&mut self, dial: Box<NewDial>, counters: &mut Counters) -> PlacedDial;

    /// Opens a session with a chosen peer.
    ///
    /// # Errors
    /// Why there is none.
    fn adopt_dialled(
        &mut self,
        context: &mut PortContext<H, Self::Io>,
        sys: &mut Y,
        connected: Connected<Self::Io>,
    ) -> Result<Key, DialError>;

    /// Forgets a session that has ended. Its `on_close` was called.
    fn forget(&mut self, ended: Ended<Self::Io>, shard: &Shard<H, LengthPrefix, Self::Io>);

    /// A turn is over.
    fn end_turn(&mut self, shard: &Shard<H, LengthPrefix, Self::Io>) {
        let _ = shard;
    }

    /// There are no new sessions any more.
    fn stop(&mut self, now: Tick, counters: &mut Counters);

    /// Handles what a carrier tells its streams. `packets` are those of [`StreamEffect::Packets`].
    fn handle_carrier(
        &mut self,
        context: &mut PortContext<H, Self::Io>,
        carrier: SessionId,
        about: StreamEffect,
        packets: &mut [u8],
    ) {
        let _ = (context, carrier, about, packets);
    }

    /// Returns `true` if something is to be sent over carriers that take it.
    fn has_to_carry(&self) -> bool {
        false
    }

    /// Returns `true` if something is still to be sent over carriers, if need be later.
    fn is_carrying(&self) -> bool {
        false
    }

    /// Sends over the carriers what their streams have to send.
    fn carry_out(&mut self, context: &mut PortContext<H, Self::Io>, carriers: &mut Carriers<'_, Y>) {
        let _ = (context, carriers);
    }
}

impl<H: PacketHandler, T> PortContext<H, T> {
    /// Called after a session was served. It must not be blamed for a silence during which its shard was busy with a
    /// callback: what was stamped just before the callback counts from now.
    pub(super) fn note_served(&mut self, key: Key) {
        self.served.push(key);
        if self.shard.clock().is_outdated() {
            self.restamp();
        }
    }

    #[cold]
    pub(super) fn restamp(&mut self) {
        let to = self.shard.clock().stamp();
        let Some(from) = self.shard.clock().take_outdated() else { return };
        for key in &self.served {
            self.shard.restamp(*key, from, to);
        }
    }

    /// Tells the port of the sessions that have ended.
    pub(super) fn close_ended<Y: Sys, P: Port<Y, H, Io = T>>(&mut self, port: &mut P) {
        while let Some(ended) = self.shard.poll_ended() {
            port.forget(ended, &self.shard);
        }
    }
}
