//! From received bytes to packets.

use super::{
    Ending, Scratch, Shard, Slot,
    callbacks::{end, guard},
};
use crate::{
    buffer::Inbox,
    error::CloseReason,
    framing::{Decoded, FrameError, Framing},
    handler::PacketHandler,
    id::Key,
    session::{FramingCell, Mark, Phase, Session, Turn},
};

/// What to do about reading a session.
pub(crate) enum Reading<'a, T> {
    /// Receive from this socket.
    From(&'a mut T),
    /// Not now.
    Wait,
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// The kernel announced something to read, or the end.
    pub(crate) fn handle_readable(&mut self, key: Key, hangup: bool) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.connection.marks.insert(Mark::READABLE);
            if hangup {
                slot.connection.marks.insert(Mark::HANGUP);
            }
        }
    }

    /// Whether to read from the session now.
    pub(crate) fn poll_reading(&mut self, key: Key) -> Reading<'_, T> {
        let Some(slot) = self.slots.get_mut(key) else { return Reading::Wait };
        let connection = &slot.connection;
        let wanted = connection.phase != Phase::Open || !connection.halt.any();
        if wanted && connection.marks.has(Mark::READABLE) && !connection.marks.has(Mark::ENDED) {
            Reading::From(&mut slot.io)
        } else {
            Reading::Wait
        }
    }

    /// The kernel has no more to read. Whether that is certain: after an announced end it is only so when it said so.
    pub(crate) fn handle_drained(&mut self, key: Key, short_read: bool) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return true };
        if short_read && slot.connection.marks.has(Mark::HANGUP) {
            return false;
        }
        slot.connection.marks.remove(Mark::READABLE);
        true
    }

    /// The session has more to read and has had its share of this turn.
    pub(crate) fn handle_budget_spent(&mut self, key: Key) {
        if let Some(slot) = self.slots.get_mut(key) {
            self.turn.read_later(&mut slot.connection);
        }
    }

    /// `n` bytes came, and are in `scratch`.
    pub(crate) fn handle_received(&mut self, key: Key, scratch: &mut Scratch, n: usize) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let connection = &mut slot.connection;
        connection.heard = self.turn.now;
        connection.traffic.bytes_in += n as u64;
        self.turn.counters.bytes_in += n as u64;
        if connection.phase != Phase::Open {
            return;
        }
        debug_assert!(!connection.halt.any(), "read from a session that wants nothing");
        connection.marks.remove(Mark::BACKLOG);
        match connection.inbox.take() {
            None => {
                let region = scratch.received(n);
                let used = self.deliver(key, region);
                self.keep_tail(key, None, region.get(used..).unwrap_or_default(), used);
            }
            Some(mut inbox) => match scratch.joined(inbox.as_slice(), n) {
                Some(region) => {
                    let used = self.deliver(key, region);
                    self.keep_tail(key, Some(inbox), region.get(used..).unwrap_or_default(), used);
                }
                None => {
                    inbox.append(scratch.received(n));
                    self.deliver_from(key, inbox);
                }
            },
        }
    }

    /// The peer has ended its side.
    pub(crate) fn handle_end(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.connection.marks.insert(Mark::ENDED);
        slot.connection.marks.remove(Mark::READABLE);
        match slot.connection.phase {
            Phase::Open => self.handle_resumed(key),
            Phase::Draining | Phase::Lingering => self.turn.settle_later(&mut slot.connection),
        }
    }

    /// The connection failed.
    pub(crate) fn handle_failed(&mut self, key: Key, error: std::io::Error) {
        self.finish(key, CloseReason::Reset(error), Ending::Close);
    }

    /// Hands out what waits in the inbox, and the end of the stream if that has come.
    pub(crate) fn handle_resumed(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let connection = &mut slot.connection;
        if connection.halt.any() {
            return;
        }
        if connection.marks.remove(Mark::BACKLOG) {
            if let Some(inbox) = connection.inbox.take() {
                self.deliver_from(key, inbox);
            }
        }
        self.deliver_end(key);
    }

    fn deliver_from(&mut self, key: Key, mut inbox: Box<Inbox>) {
        let used = self.deliver(key, inbox.as_mut_slice());
        inbox.consume(used, self.turn.now);
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.connection.phase == Phase::Open && !inbox.as_slice().is_empty() {
            slot.connection.inbox = Some(inbox);
            after_tail(slot, &mut self.turn);
        }
    }

    /// Keeps what the framing did not consume, in the inbox that held its beginning if there is one.
    fn keep_tail(&mut self, key: Key, inbox: Option<Box<Inbox>>, tail: &[u8], used: usize) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if tail.is_empty() || slot.connection.phase != Phase::Open {
            return;
        }
        let now = self.turn.now;
        slot.connection.inbox = Some(match inbox {
            None => Inbox::new(tail, now),
            Some(mut inbox) => {
                let since = if used == 0 { inbox.since() } else { now };
                inbox.restart(tail, since);
                inbox
            }
        });
        after_tail(slot, &mut self.turn);
    }

    /// Cuts packets from the front of `region` and hands them out; how many bytes are done with.
    fn deliver(&mut self, key: Key, region: &mut [u8]) -> usize {
        let Some(slot) = self.slots.get_mut(key) else { return 0 };
        let mut used = 0;
        let (handler, turn) = (&mut self.handler, &mut self.turn);
        let done = guard("on_packet", || hand_out(handler, slot, turn, region, &mut used, F::decode_in));
        if let Err(reason) = done {
            end(slot, reason, turn);
        }
        used
    }

    /// After the last byte: the last packets, then the end of the session.
    fn deliver_end(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if !slot.connection.marks.has(Mark::ENDED) || slot.connection.halt.any() {
            return;
        }
        let mut rest = slot.connection.inbox.take();
        let region = rest.as_mut().map(|inbox| inbox.as_mut_slice()).unwrap_or_default();
        let mut used = 0;
        let (handler, turn) = (&mut self.handler, &mut self.turn);
        let done = guard("on_packet", || hand_out(handler, slot, turn, region, &mut used, F::decode_eof_in));
        match done {
            Err(reason) => end(slot, reason, turn),
            Ok(()) if slot.connection.halt.any() && slot.connection.phase == Phase::Open => {
                // Paused on the last packet: the end waits until the handler resumes.
                if let Some(mut inbox) = rest {
                    inbox.consume(used, turn.now);
                    slot.connection.inbox = Some(inbox);
                }
            }
            Ok(()) if slot.connection.phase == Phase::Open && slot.connection.queued() == 0 => {
                self.finish(key, CloseReason::PeerClosed, Ending::Close);
            }
            Ok(()) => slot.connection.close(CloseReason::PeerClosed, turn),
        }
    }
}

/// The two ways of asking a framing, as functions of one shape.
trait DecodeIn: Sized {
    fn decode_in(cell: &mut FramingCell<Self>, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError>;
    fn decode_eof_in(cell: &mut FramingCell<Self>, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError>;
}

impl<F: Framing> DecodeIn for F {
    #[inline]
    fn decode_in(cell: &mut FramingCell<F>, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        if buf.is_empty() { Ok(None) } else { cell.decode(buf) }
    }

    fn decode_eof_in(cell: &mut FramingCell<F>, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        cell.decode_eof(buf)
    }
}

/// The inner loop: decode, call, decode, call … until the bytes or the session's willingness end.
#[inline]
fn hand_out<H: PacketHandler, F: Framing, T>(
    handler: &mut H,
    slot: &mut Slot<F, H::State, T>,
    turn: &mut Turn,
    region: &mut [u8],
    used: &mut usize,
    decode: impl Fn(&mut FramingCell<F>, &mut [u8]) -> Result<Option<Decoded>, FrameError>,
) -> Result<(), CloseReason> {
    let Some(state) = &mut slot.state else { return Ok(()) };
    while !slot.connection.halt.any() {
        let rest = region.get_mut(*used..).unwrap_or_default();
        let Some(decoded) = decode(&mut slot.framing, rest)? else { break };
        let len = rest.len();
        match decoded {
            Decoded::Packet { payload, consumed } => {
                *used += checked(consumed, len)?;
                let packet = rest
                    .get(payload)
                    .ok_or(FrameError::Misframed { what: "a packet outside of the buffer" })?;
                slot.connection.traffic.packets_in += 1;
                turn.counters.packets_in += 1;
                let mut session =
                    Session { connection: &mut slot.connection, framing: &mut slot.framing, turn };
                handler.on_packet(&mut session, state, packet)?;
            }
            Decoded::Skipped { consumed } => *used += checked(consumed, len)?,
            Decoded::Rejected { consumed, error } => {
                *used += consumed.min(len);
                turn.counters.frames_rejected += 1;
                let mut session =
                    Session { connection: &mut slot.connection, framing: &mut slot.framing, turn };
                handler.on_rejected(&mut session, state, &error)?;
            }
        }
    }
    Ok(())
}

#[inline]
fn checked(consumed: usize, len: usize) -> Result<usize, FrameError> {
    match consumed {
        0 => Err(FrameError::Misframed { what: "a frame of no bytes" }),
        n if n > len => Err(FrameError::Misframed { what: "a frame longer than the buffer" }),
        n => Ok(n),
    }
}

/// A tail was kept: is it an unfinished frame, and not too long for one, or packets that wait?
fn after_tail<F: Framing, S, T>(slot: &mut Slot<F, S, T>, turn: &mut Turn) {
    if slot.connection.halt.any() {
        slot.connection.marks.insert(Mark::BACKLOG);
        return;
    }
    let held = slot.connection.inbox.as_ref().map_or(&[][..], |inbox| inbox.as_slice());
    let max = slot.framing.max_frame().unwrap_or(turn.limits.frame);
    if held.len() > max {
        let error = FrameError::too_long(held.len() as u64, max as u64, held);
        slot.connection.close(error.into(), turn);
    } else if turn.limits.packet_timeout.is_some() {
        slot.connection.arm(turn);
    }
}
