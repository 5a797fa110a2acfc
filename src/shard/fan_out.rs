//! Packets for many sessions of a shard: so many sessions in each turn, so that those they are not for do not wait.
//!
//! ```text
//! mailbox  │ x to all │ y to all │ …     merged: each session is visited once for both
//! encoded  [ frame x | frame y ]         once, by the service's framing; shared from here on
//! visit    outbox empty? ── yes ──▶ one write of the shared bytes ──▶ all taken: nothing is kept
//!                 └─ no ──▶ queued in the outbox by reference ◀── no: the kernel took a part, or none
//! ```

mod budget;
mod frames;

use std::{io, ops::Range, sync::Arc, vec};

use bytes::Bytes;

pub(super) use self::budget::Budget;

use self::frames::{Frames, Packet};
use super::{SessionAccess, Shard, Slot};
use crate::{
    buffer::Overflow,
    contained::{Contained, guard},
    error::{CloseReason, SendError},
    framing::{EncodeError, Framing},
    handler::PacketHandler,
    id::Key,
    log::logged,
    session::{Outgoing, SessionInfo},
    slots::{Keyed, Slots},
    sync::{Completion, TICKET},
};

/// Tells for which sessions a packet is.
pub(crate) type Predicate = Box<dyn Fn(&SessionInfo) -> bool + Send + Sync>;

/// Packets that are merged, and their bytes, at most: what one write to a session takes at once. One packet may be
/// longer.
const MERGED: (usize, usize) = (64, 64 * 1024);

/// Packets for the same sessions of one shard.
///
/// As long as some of them have not got these, no later command is taken from the mailbox: nothing overtakes them.
pub(crate) struct FanOut {
    packets: Vec<Packet>,
    to: Recipients,
    /// Bytes that it holds alone.
    held: usize,
    /// Bytes of payload for each session.
    len: usize,
    /// The place in the list, or the number of the slot, to continue at.
    next: usize,
    /// Encoded for the first session that has the service's own framing.
    frames: Option<Frames>,
    tracked: Option<Box<Tracked>>,
}

/// Who is to be told what becomes of a packet at each session of a list.
struct Tracked {
    /// For the session that is visited, until it is decided.
    current: Option<Completion>,
    /// For those behind it, in the order of the list.
    rest: vec::IntoIter<Completion>,
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

    /// Returns `true` if they are certainly the same sessions. A predicate may change its mind.
    fn are(&self, others: &Self) -> bool {
        match (self, others) {
            (Self::All, Self::All) => true,
            (Self::These(keys), Self::These(others)) => Arc::ptr_eq(keys, others),
            _ => false,
        }
    }
}

impl FanOut {
    pub(crate) fn new(payload: Bytes, to: Recipients) -> Self {
        let listed = if let Recipients::These(keys) = &to { size_of_val(keys.as_slice()) } else { 0 };
        let held = payload.len().saturating_add(listed);
        Self { held, ..Self::of(payload, to, None, None) }
    }

    /// For the members of a channel, which keeps their list.
    pub(crate) fn to_members(
        payload: Bytes,
        members: Arc<Vec<Key>>,
        except: Option<Key>,
        overflow: Overflow,
    ) -> Self {
        Self::of(payload, Recipients::These(members), except, Some(overflow))
    }

    fn of(payload: Bytes, to: Recipients, except: Option<Key>, overflow: Option<Overflow>) -> Self {
        let len = payload.len();
        let packets = vec![Packet { payload: Contained::new(payload), except, overflow, is_logged: false }];
        Self { packets, to, held: len, len, next: 0, frames: None, tracked: None }
    }

    /// With what tells the fate of the packet at each session of its list, in the same order.
    pub(crate) fn tracked(self, completions: Vec<Completion>) -> Self {
        let held = self.held.saturating_add(completions.len().saturating_mul(TICKET));
        let tracked = Tracked { current: None, rest: completions.into_iter() };
        Self { held, tracked: Some(Box::new(tracked)), ..self }
    }

    /// The mailbox does not take it.
    pub(crate) fn refuse(mut self, error: &SendError) {
        let tracked = self.tracked.take().into_iter().flat_map(|tracked| tracked.rest);
        tracked.for_each(|completion| completion.refused(error.clone()));
    }

    /// Goes on to the next place. Where the last one had a session that did not take the packet, that is told.
    fn step(&mut self) {
        self.next += 1;
        if let Some(tracked) = &mut self.tracked {
            tracked.current = tracked.rest.next();
        }
    }

    /// Returns `true` if the fan-out behind this one is for the same sessions, this one has not begun, and both are no
    /// more than are merged: each session is then visited once for both, and written to once.
    pub(crate) fn takes(&self, behind: &Self) -> bool {
        let (packets, bytes) =
            (self.packets.len() + behind.packets.len(), self.len.saturating_add(behind.len));
        let are_told_of = self.tracked.is_some() || behind.tracked.is_some();
        self.next == 0 && !are_told_of && packets <= MERGED.0 && bytes <= MERGED.1 && self.to.are(&behind.to)
    }

    /// Takes in the fan-out behind this one.
    pub(crate) fn merge(&mut self, mut behind: Self) {
        self.packets.append(&mut behind.packets);
        self.len = self.len.saturating_add(behind.len);
    }

    /// Drops it.
    ///
    /// # Errors
    /// The message of the first payload whose owner panicked in its destructor.
    pub(crate) fn discard(self) -> Result<(), String> {
        self.discard_each().fold(Ok(()), Result::and)
    }

    fn discard_each(self) -> impl Iterator<Item = Result<(), String>> {
        self.packets.into_iter().map(|packet| packet.payload.discard())
    }

    /// Returns the bytes that it holds, for the mailbox's limit.
    pub(crate) fn bytes(&self) -> usize {
        self.held
    }

    /// Returns `true` if none of it is for this session.
    fn leaves_out(&self, session: Key) -> bool {
        self.packets.iter().all(|packet| packet.except == Some(session))
    }

    /// Returns the frames of all packets, if all are for this session and nobody is to be told what becomes of them.
    fn whole_for(&self, session: Key) -> Option<&Frames> {
        let are_plain = |frames: &&Frames| frames.are_complete && self.tracked.is_none();
        let frames = self.frames.as_ref().filter(are_plain)?;
        self.packets.iter().all(|packet| packet.except != Some(session)).then_some(frames)
    }
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Calls `pass_on` with as many of the sessions as the turn allows. Returns what is left for the next turn.
    pub(crate) fn fan_out(
        &mut self,
        mut fan_out: Box<FanOut>,
        mut pass_on: impl FnMut(&mut SessionAccess<'_, H, F, T>, &mut FanOut),
    ) -> Option<Box<FanOut>> {
        self.fan_outs.begin(&mut self.core);
        while let Some(place) = fan_out.to.place(fan_out.next, &self.slots) {
            if self.fan_outs.is_spent() || self.core.clock.is_part_over() {
                return Some(fan_out);
            }
            fan_out.step();
            self.fan_outs.places -= 1;
            let Some(key) = place else { continue };
            let passed = self.with_session(key, |access| {
                let is_meant = access.is_meant(&mut fan_out)?;
                if is_meant {
                    pass_on(access, &mut fan_out);
                }
                Ok(is_meant)
            });
            match passed {
                Some(Ok(true)) => self.fan_outs.bytes = self.fan_outs.bytes.saturating_sub(fan_out.len),
                Some(Ok(false)) | None => {}
                Some(Err(panic)) => {
                    self.note_failed(&panic);
                    break;
                }
            }
        }
        fan_out.discard_each().for_each(|discarded| self.core.count_discarded(discarded));
        None
    }

    #[cold]
    fn note_failed(&mut self, panic: &CloseReason) {
        self.core.report_shard_panic(panic, "the sessions of this shard that are left do not get the packet");
    }
}

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// Returns `true` if this session is to get some of the packets, and encodes them unless that was done.
    ///
    /// # Errors
    /// The predicate has panicked: no session can be asked any more.
    #[inline]
    fn is_meant(&mut self, fan_out: &mut FanOut) -> Result<bool, CloseReason> {
        if !self.is_alive() || !self.slot.is_known() || fan_out.leaves_out(self.slot.connection.key()) {
            return Ok(false);
        }
        if let Recipients::Where(which) = &fan_out.to {
            let info = self.slot.connection.info(self.id(), self.core.origin);
            if !guard("broadcast_where", || Ok::<_, CloseReason>((***which)(&info)))? {
                return Ok(false);
            }
        }
        if fan_out.frames.is_none() {
            if let Err(panic) = self.encode_for_all(fan_out) {
                self.fail(panic);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Encodes the packets for all sessions with the framing of this one, if that is the service's own.
    #[cold]
    fn encode_for_all(&self, fan_out: &mut FanOut) -> Result<(), CloseReason> {
        if let Some(framing) = self.slot.framing.own().filter(|_| !self.slot.connection.is_layered()) {
            let encoded = guard("encode", || {
                Ok::<_, CloseReason>(Frames::encode(&fan_out.packets, framing, self.core))
            });
            fan_out.frames = Some(encoded?);
        }
        Ok(())
    }

    /// Returns `true` if the frames that the others share are right for this session.
    fn shares(&self) -> bool {
        self.slot.framing.own().is_some() && !self.slot.connection.is_layered()
    }

    /// Returns the socket and the frames to write to it, if writing them is all that is to be done for this session.
    #[inline]
    pub(crate) fn poll_direct<'f>(&mut self, fan_out: &'f FanOut) -> Option<(&mut T, &'f [u8])> {
        let frames = fan_out.whole_for(self.slot.connection.key())?;
        let is_direct = self.slot.connection.takes_directly(frames.all.len(), self.core) && self.shares();
        is_direct.then_some((&mut self.slot.io, &*frames.all))
    }

    /// Handles the kernel's result for the frames of [`poll_direct`](Self::poll_direct). What it has not taken waits in
    /// the outbox. Returns `true` if it has taken all.
    #[inline]
    pub(crate) fn handle_direct_sent(&mut self, sent: io::Result<usize>, fan_out: &FanOut) -> bool {
        let Some(frames) = &fan_out.frames else { return true };
        let packets = fan_out.packets.len() as u64;
        if matches!(sent, Ok(n) if n == frames.all.len()) {
            self.slot.connection.handle_direct_sent(frames.all.len(), packets, self.core);
            return true;
        }
        let own = self.slot.connection.overflow();
        if fan_out.packets.iter().any(|packet| packet.overflow.unwrap_or(own).drops()) {
            self.keep_what_may_be_dropped(sent, fan_out, frames);
        } else {
            let queued = self.slot.connection.enqueue_shared(&frames.all, packets, self.core);
            debug_assert_eq!(queued, Ok(()), "they are within the limit");
            self.handle_sent(sent);
        }
        false
    }

    /// As `handle_direct_sent`, where packets may be dropped: those of which the kernel has taken nothing wait as a whole.
    #[cold]
    fn keep_what_may_be_dropped(&mut self, sent: io::Result<usize>, fan_out: &FanOut, frames: &Frames) {
        let written = sent.as_ref().map_or(0, |n| *n);
        let is_begun = |place: &&Range<usize>| place.start < written;
        let begun: Vec<&Range<usize>> = frames.each.iter().flatten().take_while(is_begun).collect();
        if let Some(last) = begun.last() {
            let bytes = frames.all.slice(..last.end.min(frames.all.len()));
            let queued = self.slot.connection.enqueue_shared(&bytes, begun.len() as u64, self.core);
            debug_assert_eq!(queued, Ok(()), "they are within the limit");
        }
        let (own, most) = (self.slot.connection.overflow(), self.core.limits.outbox_hard);
        for (number, packet) in fan_out.packets.iter().enumerate().skip(begun.len()) {
            let Ok(frame) = frames.of(number) else { continue };
            let overflow = packet.overflow.unwrap_or(own);
            let _ = self.slot.connection.wait_as(&frame, overflow, most, self.core); // counted if it is dropped
        }
        self.handle_sent(sent);
    }

    /// Queues the packets for this session. If its outbox is full, the session is closed.
    pub(crate) fn take_from(&mut self, fan_out: &mut FanOut) {
        let (key, shares) = (self.slot.connection.key(), self.shares());
        let own = self.slot.connection.overflow();
        let is_plain = fan_out.packets.iter().all(|packet| packet.overflow.unwrap_or(own) == Overflow::Close);
        if let Some(frames) = fan_out.whole_for(key).filter(|_| shares && is_plain) {
            let most = self.core.limits.outbox_hard;
            if self.slot.connection.has_room_for(frames.all.len(), most, self.core) {
                let packets = fan_out.packets.len() as u64;
                if self.slot.connection.enqueue_shared(&frames.all, packets, self.core).is_ok() {
                    return;
                }
            }
        }
        let FanOut { packets, frames, tracked, .. } = fan_out;
        let completion = tracked.as_mut().and_then(|tracked| tracked.current.take());
        if let (Some(completion), Some(packet)) = (completion, packets.first_mut()) {
            let overflow = packet.overflow.unwrap_or(own);
            return self.take_tracked(packet, overflow, frames.as_ref().filter(|_| shares), completion);
        }
        let frames = frames.as_ref().filter(|_| shares);
        for (number, packet) in packets.iter_mut().enumerate() {
            if packet.except == Some(key) {
                continue;
            }
            let overflow = packet.overflow.unwrap_or(own);
            match guard("encode", || {
                Ok::<_, CloseReason>(self.queue(packet, number, overflow, frames, &mut None))
            }) {
                Ok(Err(SendError::Encode(error))) => self.note_no_frame(packet, &error),
                Ok(Err(error @ SendError::Full { .. })) if overflow == Overflow::Close => {
                    return self.slot.connection.close_full(error, self.core);
                }
                // Sent; or counted; or it is closing already.
                Ok(_) => {}
                Err(panic) => return self.fail(panic),
            }
        }
    }

    /// Queues the packet for this session, and tells what became of it. As with every packet that is tracked, the
    /// session stays open if it is refused.
    #[cold]
    fn take_tracked(
        &mut self,
        packet: &mut Packet,
        overflow: Overflow,
        frames: Option<&Frames>,
        completion: Completion,
    ) {
        let (Slot { connection, framing, .. }, core) = (&mut *self.slot, &*self.core);
        completion.meet(&mut || connection.handle_state_or_new(&**framing, core));
        let mut completion = Some(completion);
        let sent = guard("encode", || {
            Ok::<_, CloseReason>(self.queue(packet, 0, overflow, frames, &mut completion))
        });
        match (sent, completion) {
            (Ok(Ok(())), Some(completion)) => self.slot.connection.track(completion, self.core),
            (Ok(Err(SendError::Full { .. })), Some(completion)) if overflow.drops() => completion.dropped(),
            (Ok(Err(error)), completion) => {
                if let SendError::Encode(error) = &error {
                    self.note_no_frame(packet, error);
                }
                if let Some(completion) = completion {
                    completion.refused(error);
                }
            }
            // It waits in the outbox as a whole.
            (Ok(Ok(())), None) => {}
            (Err(panic), _) => self.fail(panic),
        }
    }

    fn queue(
        &mut self,
        packet: &Packet,
        number: usize,
        overflow: Overflow,
        frames: Option<&Frames>,
        completion: &mut Option<Completion>,
    ) -> Result<(), SendError> {
        let Slot { connection, framing, .. } = &mut *self.slot;
        let shared;
        let packet = match frames {
            Some(frames) => {
                shared = frames.of(number)?;
                Outgoing::Frame(&shared)
            }
            None => Outgoing::Payload(&**framing, &packet.payload),
        };
        connection.enqueue_as(packet, overflow, self.core.limits.outbox_hard, completion, self.core)
    }

    /// It is the sender's error, for which this session and its peer are not responsible.
    #[cold]
    fn note_no_frame(&mut self, packet: &mut Packet, error: &EncodeError) {
        self.core.counters.sends_refused += 1;
        if !std::mem::replace(&mut packet.is_logged, true) {
            let (session, peer, now) = (self.id(), self.endpoints().peer(), self.core.clock.now());
            logged!(
                self.core.reporter.gate, now, Unframed WARN,
                %session, %peer, %error,
                "a broadcast packet has no frame, leaving this session out, and others of its framing"
            );
        }
    }
}
