//! One packet for many sessions of a shard: so many in each turn, so that those it is not for do not wait.

use std::sync::Arc;

use bytes::Bytes;

use super::{SessionAccess, Shard, Slot};
use crate::{
    contained::{Contained, guard},
    error::{CloseReason, Logged, SendError},
    framing::Framing,
    handler::PacketHandler,
    id::Key,
    limits::Limits,
    session::{Session, SessionInfo},
    slots::{Keyed, Slots},
};

/// Tells for which sessions a packet is.
pub(crate) type Predicate = Box<dyn Fn(&SessionInfo) -> bool + Send + Sync>;

/// A packet for sessions of one shard.
///
/// As long as some of them have not got it, no later command is taken from the mailbox: nothing overtakes it.
pub(crate) struct FanOut {
    /// Its owner is the user's.
    payload: Contained<Bytes>,
    to: Recipients,
    except: Option<Key>,
    /// Bytes that it holds alone.
    held: usize,
    /// The place in the list, or the number of the slot, to continue at.
    next: usize,
    /// The log has an error of this packet already.
    is_logged: bool,
}

/// Which sessions of a shard get a packet.
#[derive(Clone)]
pub(crate) enum Recipients {
    All,
    Where(Arc<Contained<Predicate>>),
    These(Arc<Vec<Key>>),
}

impl Recipients {
    /// Returns the place with this number, with the session there if there is one; `None` behind the last place.
    fn place<V: Keyed>(&self, number: usize, slots: &Slots<V>) -> Option<Option<Key>> {
        match self {
            Self::All | Self::Where(_) => (number < slots.places()).then(|| slots.key_at(number)),
            Self::These(keys) => keys.get(number).copied().map(Some),
        }
    }
}

impl FanOut {
    pub(crate) fn new(payload: Bytes, to: Recipients) -> Self {
        let listed = if let Recipients::These(keys) = &to { size_of_val(keys.as_slice()) } else { 0 };
        let held = payload.len().saturating_add(listed);
        let payload = Contained::new(payload);
        Self { payload, to, except: None, held, next: 0, is_logged: false }
    }

    /// For the members of a channel, which keeps their list.
    pub(crate) fn to_members(payload: Bytes, members: Arc<Vec<Key>>, except: Option<Key>) -> Self {
        let (held, payload) = (payload.len(), Contained::new(payload));
        Self { payload, to: Recipients::These(members), except, held, next: 0, is_logged: false }
    }

    /// Drops it.
    ///
    /// # Errors
    /// The message, if the destructor of the payload's owner panicked.
    pub(crate) fn discard(self) -> Result<(), String> {
        self.payload.discard()
    }

    /// Returns the bytes that it holds, for the mailbox's limit.
    pub(crate) fn bytes(&self) -> usize {
        self.held
    }
}

/// What is left of a turn's share for fan-outs.
pub(super) struct Budget {
    /// The turn, by the number of those before it.
    turn: u64,
    /// Sessions, or empty places, that may still be looked at.
    places: usize,
    /// Bytes of payload that may still be sent. One packet may exceed it.
    bytes: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { turn: u64::MAX, places: 0, bytes: 0 }
    }

    /// Fills it up if it is that of an earlier turn: turns without fan-outs do not touch it.
    fn begin(&mut self, turn: u64, limits: &Limits) {
        if self.turn != turn {
            (self.places, self.bytes) = limits.fanout_budget;
            self.turn = turn;
        }
    }

    fn is_spent(&self) -> bool {
        self.places == 0 || self.bytes == 0
    }
}

/// What became of a packet at one session.
enum Delivery {
    Sent,
    /// It is not for this session, or the session has ended or does not take it.
    Skipped,
    /// No session can be asked any more.
    Failed(CloseReason),
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Sends a packet to as many of its sessions as the turn allows. Returns what is left for the next turn.
    pub(crate) fn fan_out(&mut self, mut fan_out: Box<FanOut>) -> Option<Box<FanOut>> {
        self.fan_outs.begin(self.core.counters.turns, &self.core.limits);
        while let Some(place) = fan_out.to.place(fan_out.next, &self.slots) {
            if self.fan_outs.is_spent() || self.core.clock.is_part_over() {
                return Some(fan_out);
            }
            fan_out.next += 1;
            self.fan_outs.places -= 1;
            let Some(key) = place.filter(|key| Some(*key) != fan_out.except) else { continue };
            match self.with_session(key, |access| access.take_from(&mut fan_out)) {
                Some(Delivery::Sent) => {
                    self.fan_outs.bytes = self.fan_outs.bytes.saturating_sub(fan_out.payload.len());
                }
                Some(Delivery::Skipped) | None => {}
                Some(Delivery::Failed(panic)) => {
                    self.core.counters.panics += 1;
                    let (shard, panic) = (self.core.shard, Logged(&panic));
                    tracing::error!(%shard, %panic, "the sessions of this shard that are left do not get the packet");
                    break;
                }
            }
        }
        self.core.count_discarded(fan_out.discard());
        None
    }
}

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// Sends the packet to this session, if it is for it. If the outbox is full, the session is closed.
    fn take_from(&mut self, fan_out: &mut FanOut) -> Delivery {
        if !self.is_alive() || !self.slot.is_known() {
            return Delivery::Skipped;
        }
        if let Recipients::Where(which) = &fan_out.to {
            let info = self.slot.connection.info(self.id(), self.core.origin);
            match guard("broadcast_where", || Ok::<_, CloseReason>((***which)(&info))) {
                Ok(true) => {}
                Ok(false) => return Delivery::Skipped,
                Err(panic) => return Delivery::Failed(panic),
            }
        }
        let Slot { connection, framing, .. } = &mut *self.slot;
        let mut session = Session::new(connection, &mut **framing, self.core);
        match guard("encode", || Ok::<_, CloseReason>(session.send(&*fan_out.payload))) {
            Ok(Ok(())) => {
                self.core.flush_later(&mut self.slot.connection);
                return Delivery::Sent;
            }
            Ok(Err(SendError::Encode(error))) => {
                // The sender's error, for which this session and its peer are not responsible.
                self.core.counters.sends_refused += 1;
                if !std::mem::replace(&mut fan_out.is_logged, true) {
                    tracing::warn!(session = %self.id(), %error, "a broadcast packet has no frame, leaving this session out, and others of its framing");
                }
            }
            Ok(Err(error)) => self.close(error.into()),
            Err(panic) => self.fail(panic),
        }
        Delivery::Skipped
    }
}
