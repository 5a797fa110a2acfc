//! From received bytes to packets.

use std::io;

use super::{Ending, Slot, Visit, callbacks::guard, visit::Share};
use crate::{
    buffer::{Inbox, Scratch},
    error::CloseReason,
    framing::{Decoded, FrameError, Framing},
    handler::PacketHandler,
    session::{Connection, FramingCell, Mark, Phase, Session, Turn},
    time::Tick,
};

/// How it is known that the kernel has no more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// It said so.
    WouldBlock,
    /// It filled less than the space it was given.
    ShortRead,
}

impl<H: PacketHandler, F: Framing, T> Visit<'_, H, F, T> {
    /// The kernel announced something to read, or (`hangup`) that the end can be read.
    #[inline]
    pub(crate) fn handle_readable(&mut self, hangup: bool) {
        let marks = if hangup { Mark::READABLE | Mark::HANGUP } else { Mark::READABLE };
        self.slot.connection.marks.insert(marks);
    }

    /// The socket to receive from, if there may be something and it is wanted now.
    #[inline]
    pub(crate) fn poll_reading(&mut self) -> Option<&mut T> {
        let connection = &self.slot.connection;
        // What waits in the inbox is handed out first, or a session that often pauses would pile up more and more.
        let ready = !connection.halt.any() && !connection.marks.has(Mark::BACKLOG);
        let wanted = ready || connection.phase != Phase::Open;
        let possible =
            connection.marks.has(Mark::READABLE) && !connection.marks.has(Mark::ENDED | Mark::SHUTDOWN);
        (wanted && possible && self.is_alive()).then_some(&mut self.slot.io)
    }

    /// The kernel has no more to read, until its next event. Answers whether that is certain: once an end was announced,
    /// no event will tell again, and a short read does not prove that there is no more.
    #[inline]
    pub(crate) fn handle_drained(&mut self, how: Drained) -> bool {
        let marks = &mut self.slot.connection.marks;
        if how == Drained::ShortRead && marks.has(Mark::HANGUP) {
            return false;
        }
        marks.remove(Mark::READABLE);
        true
    }

    /// Whether the session has handed out its share of frames.
    #[inline]
    pub(crate) fn has_had_its_share(&mut self) -> bool {
        if self.share.frames == 0 {
            self.share.renew(self.turn);
        }
        self.share.frames == 0
    }

    /// The session has had its share of this turn, and there may be more to read.
    pub(crate) fn handle_budget_spent(&mut self) {
        self.turn.read_later(&mut self.slot.connection);
    }

    /// Whether the session waits to be served without an event, in this turn or the next.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.slot.connection.marks.has(Mark::UNFINISHED)
    }

    /// Lets the session wait to be served without an event.
    pub(crate) fn wait(&mut self) -> bool {
        self.slot.connection.marks.insert(Mark::UNFINISHED)
    }

    /// The session has waited long enough.
    pub(crate) fn begin_serving(&mut self) {
        self.slot.connection.marks.remove(Mark::UNFINISHED);
    }

    /// `n` bytes came, and are in `scratch`.
    #[inline]
    pub(crate) fn handle_received(&mut self, scratch: &mut Scratch, n: usize) {
        let connection = &mut self.slot.connection;
        connection.heard = self.turn.clock.stamp();
        connection.traffic.bytes_in += n as u64;
        self.turn.counters.bytes_in += n as u64;
        if connection.phase != Phase::Open {
            return;
        }
        debug_assert!(!connection.halt.any(), "read from a session that wants nothing");
        let Some(mut inbox) = connection.inbox.take() else {
            let region = scratch.received(n);
            let used = self.deliver(region, self.turn.clock.stamp());
            if used < n {
                self.keep_tail(None, region.get(used..).unwrap_or_default(), used);
            }
            return;
        };
        if let Some(region) = scratch.joined(inbox.as_slice(), n) {
            let used = self.deliver(region, inbox.since());
            self.keep_tail(Some(inbox), region.get(used..).unwrap_or_default(), used);
        } else {
            inbox.append(scratch.received(n));
            self.deliver_from(inbox);
        }
    }

    /// The peer has ended its side.
    pub(crate) fn handle_end(&mut self) {
        self.slot.connection.marks.insert(Mark::ENDED);
        self.slot.connection.marks.remove(Mark::READABLE);
        if self.slot.connection.phase == Phase::Open {
            self.handle_resumed();
        }
    }

    /// The connection failed.
    #[cold]
    pub(crate) fn handle_failed(&mut self, error: io::Error) {
        self.finish(CloseReason::Reset(error), Ending::Close);
    }

    /// Hands out what waits in the inbox, and the end of the stream if that has come.
    pub(crate) fn handle_resumed(&mut self) {
        if !self.slot.connection.halt.any() && self.slot.connection.marks.remove(Mark::BACKLOG) {
            if let Some(inbox) = self.slot.connection.inbox.take() {
                // The peer was not silent while this has waited for us.
                self.slot.connection.heard = self.turn.clock.stamp();
                self.deliver_from(inbox);
            }
        }
        let Connection { halt, marks, .. } = &self.slot.connection;
        if marks.has(Mark::SHUTDOWN) {
            if !self.slot.connection.has_packets_to_hand_out() {
                self.shut_down();
            }
        } else if marks.has(Mark::BACKLOG) {
            // The end comes behind it.
        } else if marks.has(Mark::ENDED) && !halt.any() {
            self.deliver_end();
        }
    }

    fn deliver_from(&mut self, mut inbox: Box<Inbox>) {
        let since = inbox.since();
        let used = self.deliver(inbox.as_mut_slice(), since);
        inbox.consume(used, self.turn.clock.stamp());
        if self.is_open() && !inbox.as_slice().is_empty() {
            self.slot.connection.inbox = Some(inbox);
            self.after_tail();
        }
    }

    /// Keeps what the framing did not consume, in the inbox that held its beginning if there is one.
    fn keep_tail(&mut self, inbox: Option<Box<Inbox>>, tail: &[u8], used: usize) {
        if tail.is_empty() || !self.is_open() {
            return;
        }
        let now = self.turn.clock.stamp();
        self.slot.connection.inbox = Some(match inbox {
            None => Inbox::new(tail, now),
            Some(mut inbox) => {
                let since = if used == 0 { inbox.since() } else { now };
                inbox.restart(tail, since);
                inbox
            }
        });
        self.after_tail();
    }

    /// A tail was kept: is it an unfinished frame, and not too long for one, or packets that wait?
    fn after_tail(&mut self) {
        if self.slot.connection.halt.any() {
            self.slot.connection.marks.insert(Mark::BACKLOG);
            return;
        }
        if self.share.frames == 0 {
            self.slot.connection.marks.insert(Mark::BACKLOG);
            self.turn.read_later(&mut self.slot.connection);
            return;
        }
        let held = self.slot.connection.inbox.as_ref().map_or(&[][..], |inbox| inbox.as_slice());
        let max = match guard("max_frame", || Ok::<_, CloseReason>(self.slot.framing.max_frame())) {
            Ok(max) => max.unwrap_or(self.turn.limits.frame),
            Err(panic) => return self.fail(panic),
        };
        if held.len() > max {
            let error = FrameError::too_long(held.len() as u64, max as u64, held);
            self.violate(error);
        } else if self.turn.limits.packet_timeout.is_some() {
            self.slot.connection.arm(self.turn);
        }
    }

    /// Cuts packets from the front of `region`, whose first byte came at `since`, and hands them out; how many bytes are
    /// done with.
    #[inline]
    fn deliver(&mut self, region: &mut [u8], since: Tick) -> usize {
        let mut used = 0;
        if let Err(stop) = self.cut(region, since, &mut used, decode) {
            self.stop(stop);
        }
        used
    }

    /// Hands out as many frames as the session may have in this turn.
    #[inline]
    fn cut(
        &mut self,
        region: &mut [u8],
        since: Tick,
        used: &mut usize,
        decode: impl Fn(&mut FramingCell<F>, &mut [u8]) -> Result<Option<Decoded>, FrameError>,
    ) -> Result<(), Stop> {
        let (handler, slot, turn, share) =
            (&mut *self.handler, &mut *self.slot, &mut *self.turn, &mut self.share);
        guard("on_packet", || hand_out(handler, slot, turn, share, region, since, used, decode))
    }

    #[cold]
    fn stop(&mut self, stop: Stop) {
        match *stop.0 {
            Cause::Wire(error) => self.violate(error),
            Cause::Callback(reason) => self.fail(reason),
        }
    }

    /// After the last byte: the last packets, then the end of the session.
    fn deliver_end(&mut self) {
        let mut rest = self.slot.connection.inbox.take();
        let region = rest.as_mut().map(|inbox| inbox.as_mut_slice()).unwrap_or_default();
        let (mut used, since) = (0, self.turn.clock.stamp());
        if let Err(stop) = self.cut(region, since, &mut used, decode_eof) {
            return self.stop(stop);
        }
        if !self.is_open() {
            return;
        }
        if self.slot.connection.halt.any() || self.share.frames == 0 {
            // Paused on the last packet: the end waits until the handler resumes. Or until the next turn.
            if let Some(mut inbox) = rest {
                inbox.consume(used, self.turn.clock.stamp());
                self.slot.connection.inbox = Some(inbox).filter(|inbox| !inbox.as_slice().is_empty());
            }
            if !self.slot.connection.halt.any() {
                self.turn.read_later(&mut self.slot.connection);
            }
        } else if self.slot.connection.queued() == 0 {
            self.finish(CloseReason::PeerClosed, Ending::Close);
        } else {
            self.close(CloseReason::PeerClosed);
        }
    }
}

#[inline]
fn decode<F: Framing>(cell: &mut FramingCell<F>, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
    if buf.is_empty() { Ok(None) } else { cell.decode(buf) }
}

fn decode_eof<F: Framing>(cell: &mut FramingCell<F>, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
    cell.decode_eof(buf)
}

/// Why no more packets are handed out. Boxed: what is returned for every batch of packets is one word.
struct Stop(Box<Cause>);

enum Cause {
    /// The framing failed.
    Wire(FrameError),
    /// A callback failed.
    Callback(CloseReason),
}

impl From<FrameError> for Stop {
    #[cold]
    fn from(error: FrameError) -> Self {
        Self(Box::new(Cause::Wire(error)))
    }
}

impl From<CloseReason> for Stop {
    #[cold]
    fn from(reason: CloseReason) -> Self {
        Self(Box::new(Cause::Callback(reason)))
    }
}

/// The inner loop: decode, call, decode, call … until the bytes, the session's share or its willingness end.
#[inline]
#[allow(
    clippy::too_many_arguments,
    reason = "the hot loop: a struct of them costs a store and a load for each packet"
)]
fn hand_out<H: PacketHandler, F: Framing, T>(
    handler: &mut H,
    slot: &mut Slot<F, H::State, T>,
    turn: &mut Turn,
    share: &mut Share,
    region: &mut [u8],
    since: Tick,
    used: &mut usize,
    decode: impl Fn(&mut FramingCell<F>, &mut [u8]) -> Result<Option<Decoded>, FrameError>,
) -> Result<(), Stop> {
    let mut rejected_at = None;
    let Some(state) = slot.state.as_deref_mut() else { return Ok(()) };
    let framing = &mut *slot.framing;
    while !slot.connection.halt.any() {
        if share.frames == 0 {
            share.renew(turn);
            if share.frames == 0 {
                break;
            }
        }
        let rest = region.get_mut(*used..).unwrap_or_default();
        let Some(decoded) = decode(framing, rest)? else { break };
        let len = rest.len();
        share.frames -= 1;
        match decoded {
            Decoded::Packet { payload, consumed } => {
                *used += checked(consumed, len)?;
                let packet = rest
                    .get(payload)
                    .ok_or(FrameError::Misframed { what: "a packet outside of the buffer" })?;
                slot.connection.traffic.packets_in += 1;
                turn.counters.packets_in += 1;
                let mut session = Session { connection: &mut slot.connection, framing, turn };
                handler.on_packet(&mut session, state, packet)?;
            }
            Decoded::Skipped { consumed } => {
                let since = if *used == 0 { since } else { turn.clock.stamp() };
                note_discarding(&mut slot.connection, framing, since, turn);
                *used += checked(consumed, len)?;
            }
            Decoded::Rejected { consumed, error } => {
                let consumed = consumed.min(len);
                if consumed == 0 && rejected_at.replace(*used) == Some(*used) {
                    Err(FrameError::Misframed { what: "the same refusal twice" })?;
                }
                slot.connection.marks.remove(Mark::DISCARDING);
                let since = if *used == 0 { since } else { turn.clock.stamp() };
                note_discarding(&mut slot.connection, framing, since, turn);
                *used += consumed;
                turn.counters.frames_rejected += 1;
                let mut session = Session { connection: &mut slot.connection, framing, turn };
                handler.on_rejected(&mut session, state, &error)?;
            }
        }
    }
    Ok(())
}

/// Bytes that began to come at `since` are no packet's: more of a frame that is discarded, or its end.
#[cold]
fn note_discarding<F: Framing>(
    connection: &mut Connection,
    framing: &FramingCell<F>,
    since: Tick,
    turn: &mut Turn,
) {
    if framing.is_discarding() {
        connection.discard(since, turn);
    } else {
        connection.marks.remove(Mark::DISCARDING);
    }
}

#[inline]
fn checked(consumed: usize, len: usize) -> Result<usize, FrameError> {
    match consumed {
        0 => Err(FrameError::Misframed { what: "a frame of no bytes" }),
        n if n > len => Err(FrameError::Misframed { what: "a frame longer than the buffer" }),
        n => Ok(n),
    }
}
