use std::{collections::VecDeque, sync::Arc};

use bytes::BytesMut;

use super::{peers::Peers, port::PortAccess};
use crate::{
    addr::CarrierEnds,
    contained::guard,
    error::CloseReason,
    framing::LengthPrefix,
    handler::PacketHandler,
    id::{Key, SessionId},
    session::{Mux, OpenStream, StreamPacket},
    shard::{Carry, NotCarried, Shard, Stream},
};

/// Bytes that a stream sends before the next stream of the same carrier has its turn.
const TURN: usize = 16 * 1024;

/// While the ends of so many streams wait for a carrier that takes nothing, its peer may open no more: one that opens
/// streams and reads nothing would let them grow without end.
pub(super) const MOST_CLOSED: usize = 64 * 1024;

/// Streams that wait for a carrier are looked through for those that have ended when they are so many more than twice
/// its sessions.
const MOST_ENDED: usize = 1024;

/// A session of another service, and its streams.
pub(super) struct Carrier {
    pub(super) ends: Arc<CarrierEnds>,
    /// The sessions of its open streams.
    pub(super) streams: Peers<u64>,
    /// Sessions that have or had a place here.
    pub(super) sessions: usize,
    /// Streams that it has told of.
    pub(super) opened: u64,
    /// Streams that have something to send, each once, in the order in which they have their turn.
    pub(super) waiting: VecDeque<Key>,
    /// Streams whose end the peer is to be told.
    pub(super) closed: VecDeque<u64>,
    /// It takes nothing, until it says that it does.
    pub(super) is_blocked: bool,
    /// It is on the list of those that are due.
    pub(super) is_due: bool,
    pub(super) is_lost: bool,
    /// Its peer has opened more streams than it takes the ends of: it is to close.
    pub(super) is_overrun: bool,
}

impl Carrier {
    pub(super) fn new(id: SessionId, new: &OpenStream) -> Self {
        let ends = CarrierEnds { id, peer: Arc::new(new.peer.clone()), local: new.local.clone() };
        Self {
            ends: Arc::new(ends),
            streams: Peers::default(),
            sessions: 0,
            opened: 0,
            waiting: VecDeque::new(),
            closed: VecDeque::new(),
            is_blocked: false,
            is_due: false,
            is_lost: false,
            is_overrun: false,
        }
    }

    pub(super) fn has_to_send(&self) -> bool {
        !self.is_lost && (!self.waiting.is_empty() || !self.closed.is_empty())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions == 0 && self.closed.is_empty()
    }

    /// One of its sessions has ended, and may still wait. A peer that opens and ends streams while the carrier takes nothing
    /// does not have them wait without end.
    pub(super) fn note_session_ended(&mut self, is_there: impl Fn(Key) -> bool) {
        self.sessions = self.sessions.saturating_sub(1);
        if self.waiting.len() > 2 * self.sessions + MOST_ENDED {
            self.waiting.retain(|key| is_there(*key));
        }
    }

    /// Tells the peer of the streams that have been closed. Returns `false` if the carrier takes no more.
    pub(super) fn tell_closed(&mut self, mux: &dyn Mux, carrier: &mut dyn Carry, panics: &mut u64) -> bool {
        while let Some(number) = self.closed.front() {
            let mut packet = BytesMut::new();
            let written = guard("close", || {
                mux.close(*number, &mut packet);
                Ok::<_, CloseReason>(())
            });
            if let Err(panic) = written {
                *panics += 1;
                tracing::error!(%panic, stream = number, "the peer is not told that a stream has closed");
            } else if !packet.is_empty() {
                match carrier.carry(&packet) {
                    Err(NotCarried::Full) => return false,
                    Ok(()) | Err(NotCarried::Closing | NotCarried::Unfit(_)) => {}
                }
            }
            self.closed.pop_front();
        }
        true
    }

    /// Has the streams send, one after the other. Returns `false` if the carrier takes no more.
    pub(super) fn send<H: PacketHandler>(
        &mut self,
        mux: &dyn Mux,
        shard: &mut Shard<H, LengthPrefix, Stream>,
        carrier: &mut dyn Carry,
    ) -> bool {
        while let Some(key) = self.waiting.pop_front() {
            let is_alone = self.waiting.is_empty();
            let outcome = shard.with_session(key, |access| {
                let outcome = send(mux, is_alone, access, carrier);
                let waits = outcome.1 && access.wait_for_carrier();
                access.end_if_done();
                (outcome.0, waits)
            });
            let Some((sent, waits)) = outcome else { continue };
            match (sent, waits) {
                // It has its turn when the carrier takes something again.
                (Sent::Nothing, true) => self.waiting.push_front(key),
                (Sent::Some | Sent::Turn, true) => self.waiting.push_back(key),
                (_, false) => {}
            }
            if waits && sent != Sent::Turn {
                return false;
            }
        }
        true
    }
}

/// What a stream has sent in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// Nothing: the carrier takes none.
    Nothing,
    /// As much as the carrier took.
    Some,
    /// As much as it may before others have their turn, or all that it had.
    Turn,
}

/// Sends what a stream has to send, or its part of it if it is not alone. The second value is `true` if it has more.
fn send<H: PacketHandler>(
    mux: &dyn Mux,
    is_alone: bool,
    access: &mut PortAccess<'_, H, Stream>,
    carrier: &mut dyn Carry,
) -> (Sent, bool) {
    access.handle_writable();
    let (mut sent, mut left) = (Sent::Nothing, TURN);
    while let Some((stream, payload)) = access.poll_datagram() {
        let len = payload.len();
        match carrier.carry(&StreamPacket { mux, stream: stream.number, payload }) {
            Ok(()) => access.handle_datagram_sent(len),
            Err(NotCarried::Full) => return (sent, true),
            Err(NotCarried::Closing) => return (Sent::Turn, false),
            Err(NotCarried::Unfit(reason)) => access.handle_unfit(len, reason),
        }
        // Also an empty packet costs something.
        (sent, left) = (Sent::Some, left.saturating_sub(len + 16));
        if left == 0 && !is_alone {
            return (Sent::Turn, true);
        }
    }
    (Sent::Turn, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{addr::Addr, session::NewStream};

    #[test]
    fn streams_that_have_ended_wait_for_a_carrier_up_to_a_bound() {
        let new = OpenStream { stream: NewStream::new(1), peer: Addr::Unix(None), local: Addr::Unix(None) };
        let mut carrier = Carrier::new(SessionId::from_u128(1), &new);
        let is_there = |key: Key| key.slot == 0;
        carrier.sessions = 2;
        carrier.waiting = (0..MOST_ENDED as u32 + 2).map(|slot| Key { slot, generation: 0 }).collect();
        carrier.note_session_ended(is_there);
        assert_eq!((carrier.sessions, carrier.waiting.len()), (1, MOST_ENDED + 2));
        carrier.waiting.push_back(Key { slot: 0, generation: 0 });
        carrier.sessions += 1;
        carrier.note_session_ended(is_there);
        assert_eq!(carrier.waiting, [Key { slot: 0, generation: 0 }; 2]);
    }
}
