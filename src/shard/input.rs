//! From received bytes to packets.

use std::io;

use super::{Ending, SessionAccess, Slot, callbacks::guard, session_access::Share};
use crate::{
    buffer::{Inbox, ReceiveBuffer},
    error::CloseReason,
    framing::{Cut, Decoded, FrameError, Framing, Position, decode},
    handler::PacketHandler,
    session::{Connection, Flags, FramingCell, Phase, Session, ShardCore},
    time::Tick,
};

/// How it is known that the kernel has no more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputExhausted {
    /// It said so.
    WouldBlock,
    /// It filled less than the space it was given.
    ShortRead,
}

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// The kernel announced something to read, or (`hangup`) that the end can be read.
    #[inline]
    pub(crate) fn handle_readable(&mut self, hangup: bool) {
        let flags = if hangup { Flags::READABLE | Flags::HANGUP } else { Flags::READABLE };
        self.slot.connection.flags.insert(flags);
    }

    /// The socket to receive from, if there may be something and it is wanted now.
    #[inline]
    pub(crate) fn poll_reading(&mut self) -> Option<&mut T> {
        let connection = &self.slot.connection;
        // What waits in the inbox is handed out first, or a session that often pauses would pile up more and more.
        let ready = !connection.read_block.any() && !connection.flags.has(Flags::BACKLOG);
        let wanted = ready || connection.phase != Phase::Open;
        let possible =
            connection.flags.has(Flags::READABLE) && !connection.flags.has(Flags::ENDED | Flags::SHUTDOWN);
        (wanted && possible && self.is_alive()).then_some(&mut self.slot.io)
    }

    /// The kernel has no more to read, until its next event. Answers whether that is certain: once an end was announced,
    /// no event will tell again, and a short read does not prove that there is no more.
    #[inline]
    pub(crate) fn handle_exhausted(&mut self, how: InputExhausted) -> bool {
        let flags = &mut self.slot.connection.flags;
        if how == InputExhausted::ShortRead && flags.has(Flags::HANGUP) {
            return false;
        }
        flags.remove(Flags::READABLE);
        true
    }

    /// Whether the session has handed out its share of frames.
    #[inline]
    pub(crate) fn has_had_its_share(&mut self) -> bool {
        if self.share.frames == 0 {
            self.share.renew(self.core);
        }
        self.share.frames == 0
    }

    /// The session has had its share of this turn, and there may be more to read.
    pub(crate) fn handle_budget_spent(&mut self) {
        self.core.read_later(&mut self.slot.connection);
    }

    /// Whether the session waits to be served without an event, in this turn or the next.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.slot.connection.flags.has(Flags::UNFINISHED)
    }

    /// Lets the session wait to be served without an event.
    pub(crate) fn wait(&mut self) -> bool {
        self.slot.connection.flags.insert(Flags::UNFINISHED)
    }

    /// The session has waited long enough.
    pub(crate) fn begin_serving(&mut self) {
        self.slot.connection.flags.remove(Flags::UNFINISHED);
    }

    /// `n` bytes came, and are in `scratch`.
    #[inline]
    pub(crate) fn handle_received(&mut self, buffer: &mut ReceiveBuffer, n: usize) {
        let connection = &mut self.slot.connection;
        connection.heard = self.core.clock.stamp();
        connection.traffic.bytes_in += n as u64;
        self.core.counters.bytes_in += n as u64;
        if connection.phase != Phase::Open {
            return;
        }
        debug_assert!(!connection.read_block.any(), "read from a session that wants nothing");
        let Some(mut inbox) = connection.inbox.take() else {
            let region = buffer.received(n);
            let used = self.deliver(region, self.core.clock.stamp());
            if used < n {
                self.keep_tail(None, region.get(used..).unwrap_or_default(), used);
            }
            return;
        };
        if let Some(region) = buffer.joined(inbox.as_slice(), n) {
            let used = self.deliver(region, inbox.since());
            self.keep_tail(Some(inbox), region.get(used..).unwrap_or_default(), used);
        } else {
            inbox.append(buffer.received(n));
            self.deliver_from(inbox);
        }
    }

    /// The peer has ended its side.
    pub(crate) fn handle_end(&mut self) {
        self.slot.connection.flags.insert(Flags::ENDED);
        self.slot.connection.flags.remove(Flags::READABLE);
        if self.slot.connection.phase == Phase::Open {
            self.handle_resumed();
        }
    }

    /// The connection failed.
    #[cold]
    pub(crate) fn handle_failed(&mut self, error: io::Error) {
        self.terminate(CloseReason::Io(error), Ending::Close);
    }

    /// Hands out what waits in the inbox, and the end of the stream if that has come.
    pub(crate) fn handle_resumed(&mut self) {
        if !self.slot.connection.read_block.any() && self.slot.connection.flags.remove(Flags::BACKLOG) {
            if let Some(inbox) = self.slot.connection.inbox.take() {
                // The peer was not silent while this has waited for us.
                self.slot.connection.heard = self.core.clock.stamp();
                self.deliver_from(inbox);
            }
        }
        let Connection { read_block, flags, .. } = &self.slot.connection;
        if flags.has(Flags::SHUTDOWN) {
            if !self.slot.connection.has_packets_to_hand_out() {
                self.shut_down();
            }
        } else if flags.has(Flags::BACKLOG) {
            // The end comes behind it.
        } else if flags.has(Flags::ENDED) && !read_block.any() {
            self.deliver_end();
        }
    }

    fn deliver_from(&mut self, mut inbox: Box<Inbox>) {
        let since = inbox.since();
        let used = self.deliver(inbox.as_mut_slice(), since);
        inbox.consume(used, self.core.clock.stamp());
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
        let now = self.core.clock.stamp();
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
        if self.slot.connection.read_block.any() {
            self.slot.connection.flags.insert(Flags::BACKLOG);
            return;
        }
        if self.share.frames == 0 {
            self.slot.connection.flags.insert(Flags::BACKLOG);
            self.core.read_later(&mut self.slot.connection);
            return;
        }
        let held = self.slot.connection.inbox.as_ref().map_or(&[][..], |inbox| inbox.as_slice());
        let max = match guard("max_frame", || Ok::<_, CloseReason>(self.slot.framing.max_frame())) {
            Ok(max) => max.unwrap_or(self.core.limits.frame),
            Err(panic) => return self.fail(panic),
        };
        if held.len() > max {
            let error = FrameError::too_long(held.len() as u64, max as u64, held);
            self.violate(error);
        } else if self.core.limits.packet_timeout.is_some() {
            self.slot.connection.arm(self.core);
        }
    }

    /// Cuts packets from the front of `region`, whose first byte came at `since`, and hands them out; how many bytes are
    /// done with.
    #[inline]
    fn deliver(&mut self, region: &mut [u8], since: Tick) -> usize {
        match self.cut(region, since, decode) {
            Ok(used) => used,
            Err(stop) => {
                self.stop(stop);
                0
            }
        }
    }

    /// Hands out as many frames as the session may have in this turn; how many bytes are done with.
    #[inline]
    fn cut(
        &mut self,
        region: &mut [u8],
        since: Tick,
        ask: impl Fn(&mut FramingCell<F>, &mut [u8]) -> Result<Option<Decoded>, FrameError>,
    ) -> Result<usize, Stop> {
        let (handler, slot, core, share) =
            (&mut *self.handler, &mut *self.slot, &mut *self.core, &mut self.share);
        guard("on_packet", || hand_out(handler, slot, core, share, region, since, ask))
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
        let used = match self.cut(region, self.core.clock.stamp(), FramingCell::decode_eof) {
            Ok(used) => used,
            Err(stop) => return self.stop(stop),
        };
        if !self.is_open() {
            return;
        }
        if self.slot.connection.read_block.any() || self.share.frames == 0 {
            // Paused on the last packet: the end waits until the handler resumes. Or until the next turn.
            if let Some(mut inbox) = rest {
                inbox.consume(used, self.core.clock.stamp());
                self.slot.connection.inbox = Some(inbox).filter(|inbox| !inbox.as_slice().is_empty());
            }
            if !self.slot.connection.read_block.any() {
                self.core.read_later(&mut self.slot.connection);
            }
        } else if self.slot.connection.queued() == 0 {
            self.terminate(CloseReason::PeerClosed, Ending::Close);
        } else {
            self.close(CloseReason::PeerClosed);
        }
    }
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

/// The inner loop: decode, call, decode, call … until the bytes, the session's share or its willingness end. How many bytes
/// are done with.
#[inline]
fn hand_out<H: PacketHandler, F: Framing, T>(
    handler: &mut H,
    slot: &mut Slot<F, H::State, T>,
    core: &mut ShardCore,
    share: &mut Share,
    region: &mut [u8],
    since: Tick,
    ask: impl Fn(&mut FramingCell<F>, &mut [u8]) -> Result<Option<Decoded>, FrameError>,
) -> Result<usize, Stop> {
    let mut position = Position::default();
    let Some(state) = slot.state.as_deref_mut() else { return Ok(0) };
    let framing = &mut *slot.framing;
    while !slot.connection.read_block.any() {
        if share.frames == 0 {
            share.renew(core);
            if share.frames == 0 {
                break;
            }
        }
        let is_first = position.consumed == 0;
        let rest = position.rest(region);
        let Some(cut) = position.cut(rest, |rest| ask(framing, rest))? else { break };
        share.frames -= 1;
        match cut {
            Cut::Packet(packet) => {
                slot.connection.traffic.packets_in += 1;
                core.counters.packets_in += 1;
                let mut session = Session { connection: &mut slot.connection, framing, core };
                handler.on_packet(&mut session, state, rest.get(packet).unwrap_or_default())?;
            }
            Cut::Skipped => {
                let since = if is_first { since } else { core.clock.stamp() };
                note_discarding(&mut slot.connection, framing, since, core);
            }
            Cut::Rejected(error) => {
                slot.connection.flags.remove(Flags::DISCARDING);
                let since = if is_first { since } else { core.clock.stamp() };
                note_discarding(&mut slot.connection, framing, since, core);
                core.counters.frames_rejected += 1;
                let mut session = Session { connection: &mut slot.connection, framing, core };
                handler.on_rejected(&mut session, state, &error)?;
            }
        }
    }
    Ok(position.consumed)
}

/// Bytes that began to come at `since` are no packet's: more of a frame that is discarded, or its end.
#[cold]
fn note_discarding<F: Framing>(
    connection: &mut Connection,
    framing: &FramingCell<F>,
    since: Tick,
    core: &mut ShardCore,
) {
    if framing.is_discarding() {
        connection.discard(since, core);
    } else {
        connection.flags.remove(Flags::DISCARDING);
    }
}
