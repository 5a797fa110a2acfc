//! From received bytes to packets.

use std::{io, ops::Range};

use super::{Ending, SessionAccess};
use crate::{
    buffer::{Inbox, ReceiveBuffer},
    contained::guard,
    error::{CloseReason, Failure},
    framing::{self, Decoded, FrameError, Framing, NoPacket, Stage, U32Header},
    handler::PacketHandler,
    session::{Connection, FramingCell, InputExhausted, InputStep, Session, ShardCore},
    time::Tick,
};

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// The kernel announced something to read, or (`hangup`) that the end can be read.
    #[inline]
    pub(crate) fn handle_readable(&mut self, hangup: bool) {
        self.slot.connection.handle_readable(hangup);
    }

    /// Returns `true` if the session waits for nothing but the input that was announced, see
    /// [`Connection::is_ordinary`].
    #[inline]
    pub(crate) fn is_ordinary(&self) -> bool {
        self.slot.connection.is_ordinary()
    }

    /// `n` bytes came for an ordinary session, and are in `buffer`; the kernel has no more.
    #[inline(always)]
    pub(crate) fn handle_ordinary(&mut self, buffer: &mut ReceiveBuffer, n: usize) {
        self.slot.connection.count_received(n, self.core);
        let region = buffer.received(n);
        let used = self.deliver(region, self.core.clock.stamp());
        if used < n {
            self.keep_tail(None, region.get(used..).unwrap_or_default(), used);
        }
    }

    /// Returns the socket to receive from, if there may be something and it is wanted now.
    #[inline]
    pub(crate) fn poll_reading(&mut self) -> Option<&mut T> {
        (self.slot.connection.wants_input() && self.is_alive()).then_some(&mut self.slot.io)
    }

    /// The kernel has no more to read until its next event. Returns `true` if that is certain.
    #[inline]
    pub(crate) fn handle_exhausted(&mut self, how: InputExhausted) -> bool {
        self.slot.connection.handle_exhausted(how)
    }

    /// Returns `true` if the session has handed out its share of frames.
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

    /// Returns `true` if the session waits to be served without an event, in this turn or the next.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.slot.connection.is_waiting()
    }

    /// Lets the session wait to be served without an event. Returns `true` if it did not already.
    pub(crate) fn wait(&mut self) -> bool {
        self.slot.connection.wait()
    }

    /// Called when a session that waited is served.
    pub(crate) fn begin_serving(&mut self) {
        self.slot.connection.begin_serving();
    }

    /// `n` bytes came, and are in `buffer`.
    #[inline]
    pub(crate) fn handle_received(&mut self, buffer: &mut ReceiveBuffer, n: usize) {
        if !self.slot.connection.handle_received(n, self.core) {
            return;
        }
        if self.slot.connection.is_layered() {
            return self.feed_layers(buffer.received(n));
        }
        let Some(mut inbox) = self.slot.connection.take_inbox() else {
            let region = buffer.received(n);
            let used = self.deliver_any(region, self.core.clock.stamp());
            if used < n {
                self.keep_tail(None, region.get(used..).unwrap_or_default(), used);
            }
            return;
        };
        if let Some(region) = buffer.joined(inbox.as_slice(), n) {
            let used = self.deliver_any(region, inbox.since());
            self.keep_tail(Some(inbox), region.get(used..).unwrap_or_default(), used);
        } else {
            inbox.append(buffer.received(n));
            self.deliver_from(inbox);
        }
    }

    /// The peer has ended its side.
    pub(crate) fn handle_end(&mut self) {
        self.slot.connection.handle_end();
        if !self.slot.connection.is_closing() {
            self.handle_resumed();
        }
    }

    /// The connection failed.
    #[cold]
    pub(crate) fn handle_failed(&mut self, error: io::Error) {
        self.terminate(CloseReason::io(error), Ending::Close);
    }

    /// Hands out what waits in the inbox, and the end of the stream if that has come.
    pub(crate) fn handle_resumed(&mut self) {
        if self.slot.connection.is_layered() {
            self.slot.connection.feed_upgrade();
        }
        if let Some(inbox) = self.slot.connection.poll_backlog(self.core) {
            self.deliver_from(inbox);
        }
        if self.slot.connection.is_layered() && self.slot.connection.poll_layers() {
            self.feed_layers(&[]);
        }
        match self.slot.connection.poll_input_step() {
            Some(InputStep::ShutDown) => self.shut_down(),
            Some(InputStep::End) => self.deliver_end(),
            None => {}
        }
    }

    pub(super) fn deliver_from(&mut self, mut inbox: Box<Inbox>) {
        let since = inbox.since();
        let used = self.deliver_any(inbox.as_mut_slice(), since);
        inbox.consume(used, self.core.clock.stamp());
        if self.is_open() && !inbox.as_slice().is_empty() {
            self.slot.connection.keep_inbox(inbox);
            self.after_tail();
        }
    }

    /// Keeps what the framing did not consume, in the inbox that held its beginning if there is one.
    pub(super) fn keep_tail(&mut self, inbox: Option<Box<Inbox>>, tail: &[u8], used: usize) {
        if tail.is_empty() || !self.is_open() {
            return;
        }
        self.slot.connection.keep_tail(inbox, tail, used, self.core);
        self.after_tail();
    }

    /// Called when a tail was kept, which is either packets that wait or an unfinished frame; checks the length of the
    /// latter.
    fn after_tail(&mut self) {
        if self.share.frames == 0 || !self.slot.connection.takes_packets() {
            return self.slot.connection.put_off(self.core);
        }
        let max = match guard("max_frame", || Ok::<_, CloseReason>(self.slot.framing.max_frame())) {
            Ok(max) => max.unwrap_or(self.core.limits.frame),
            Err(panic) => return self.fail(panic),
        };
        if let Err(error) = self.slot.connection.handle_unfinished(max, self.core) {
            self.violate(error);
        }
    }

    /// As [`deliver`](Self::deliver), for a session that may be linked.
    #[inline]
    pub(super) fn deliver_any(&mut self, region: &mut [u8], since: Tick) -> usize {
        if !self.slot.connection.is_linked() {
            return self.deliver(region, since);
        }
        self.pass_on(region, since, Stage::Open).unwrap_or_else(|stop| {
            self.stop(stop);
            0
        })
    }

    /// Cuts packets from the front of `region`, whose first byte came at `since`, and hands them out. Returns how many
    /// bytes were consumed.
    #[inline]
    fn deliver(&mut self, region: &mut [u8], since: Tick) -> usize {
        match self.cut(region, since, Stage::Open) {
            Ok(used) => used,
            Err(stop) => {
                self.stop(stop);
                0
            }
        }
    }

    /// Hands out as many frames as the session may have in this turn. Returns how many bytes were consumed.
    ///
    /// Not inlined, so that the handler is called in one place only, where the compiler can inline it.
    #[inline(never)]
    fn cut(&mut self, region: &mut [u8], since: Tick, stage: Stage) -> Result<usize, Stop> {
        guard("on_packet", || hand_out(self, region, since, stage))
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
        if self.slot.connection.is_layered() && !self.end_layers() {
            return;
        }
        let mut rest = self.slot.connection.take_inbox();
        let region = rest.as_mut().map(|inbox| inbox.as_mut_slice()).unwrap_or_default();
        let stamp = self.core.clock.stamp();
        let cut = if self.slot.connection.is_linked() {
            self.pass_on(region, stamp, Stage::Ended)
        } else {
            self.cut(region, stamp, Stage::Ended)
        };
        let used = match cut {
            Ok(used) => used,
            Err(stop) => return self.stop(stop),
        };
        if !self.is_open() {
            return;
        }
        if self.share.frames == 0 || !self.slot.connection.takes_packets() {
            // Paused on the last packet: the end waits until the handler resumes. Or until the next turn.
            if let Some(mut inbox) = rest {
                inbox.consume(used, self.core.clock.stamp());
                self.slot.connection.keep_inbox(inbox);
            }
            if self.slot.connection.takes_packets() {
                self.core.read_later(&mut self.slot.connection);
            }
        } else if self.slot.connection.is_linked() {
            self.slot.connection.pass_end(self.core);
        } else {
            self.tell_end();
        }
    }
}

/// Why no more packets are handed out. Boxed, to keep the result of every batch of packets small.
pub(super) struct Stop(Box<Cause>);

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

impl From<Failure> for Stop {
    #[cold]
    fn from(failure: Failure) -> Self {
        CloseReason::failed(failure).into()
    }
}

impl From<CloseReason> for Stop {
    #[cold]
    fn from(reason: CloseReason) -> Self {
        Self(Box::new(Cause::Callback(reason)))
    }
}

/// The inner loop: decodes and calls the handler until the bytes or the session's share are used up, or packets are
/// blocked. Returns how many bytes were consumed.
///
/// A frame whose length its header alone gives is found here, to keep the loop in registers; others by
/// [`Finder::find`].
#[inline]
fn hand_out<H: PacketHandler, F: Framing, T>(
    access: &mut SessionAccess<'_, H, F, T>,
    region: &mut [u8],
    since: Tick,
    stage: Stage,
) -> Result<usize, Stop> {
    let (handler, slot, core, share) =
        (&mut *access.handler, &mut *access.slot, &mut *access.core, &mut access.share);
    let Some(state) = slot.state.as_deref_mut() else { return Ok(0) };
    let cell = &mut *slot.framing;
    let len = region.len();
    let mut refused_at = None;
    let mut rest = region;
    let mut header = U32Header::of(cell.length_header());
    // A local variable stays in a register, `share` does not. A panic loses the count, but it also ends the session.
    let mut frames = share.frames;
    while slot.connection.takes_packets() {
        if frames == 0 {
            share.frames = 0;
            share.renew(core);
            frames = share.frames;
            if frames == 0 {
                break;
            }
        }
        let (packet, consumed) = match header.whole(rest) {
            Some(end) => (rest.get(U32Header::WIDTH..end), end),
            None if rest.is_empty() && stage == Stage::Open => break,
            None => {
                let finder = Finder { stage, since, len, refused_at: &mut refused_at };
                let found = finder.find(handler, &mut slot.connection, state, cell, core, rest)?;
                header = U32Header::of(cell.length_header());
                match found {
                    Found::Nothing => break,
                    Found::Packet(packet, consumed) => (rest.get(packet), consumed),
                    Found::NoPacket(consumed) => (None, consumed),
                }
            }
        };
        if let Some(packet) = packet {
            slot.connection.count_packet_in();
            let mut session = Session::with_header(&mut slot.connection, cell, core, header);
            handler.on_packet(&mut session, state, packet)?;
            header = session.header();
        }
        frames -= 1;
        match std::mem::take(&mut rest).get_mut(consumed..) {
            Some(behind) => rest = behind,
            None => break,
        }
    }
    share.frames = frames;
    Ok(len - rest.len())
}

/// Asks the framing what it finds.
pub(super) struct Finder<'a> {
    pub(super) stage: Stage,
    /// When the first byte was received.
    pub(super) since: Tick,
    /// How many bytes there were.
    pub(super) len: usize,
    /// How many were left when the framing refused them and consumed none.
    pub(super) refused_at: &'a mut Option<usize>,
}

/// What a framing has found at the front.
pub(super) enum Found {
    Nothing,
    /// Where a packet stands, and how many bytes its frame takes.
    Packet(Range<usize>, usize),
    /// This many bytes that are not a packet and were consumed.
    NoPacket(usize),
}

impl Finder<'_> {
    /// Returns what is at the front of `rest`. Calls the handler for what the framing refuses.
    #[inline(never)]
    pub(super) fn find<H: PacketHandler, F: Framing>(
        self,
        handler: &mut H,
        connection: &mut Connection,
        state: &mut H::State,
        cell: &mut FramingCell<F>,
        core: &mut ShardCore,
        rest: &mut [u8],
    ) -> Result<Found, Stop> {
        let (found, consumed) = match self.stage.ask(cell, rest)? {
            None => return Ok(Found::Nothing),
            Some(Decoded::Packet { payload, consumed }) => {
                framing::packet(rest, payload.clone(), consumed)?;
                return Ok(Found::Packet(payload, consumed));
            }
            Some(Decoded::Skipped { consumed }) => (NoPacket::Skipped, consumed),
            Some(Decoded::Rejected { consumed, error }) => (NoPacket::Rejected(error), consumed),
        };
        framing::no_packet(&found, consumed, rest.len(), *self.refused_at == Some(rest.len()))?;
        *self.refused_at = (consumed == 0).then_some(rest.len());
        let since = if rest.len() == self.len { self.since } else { core.clock.stamp() };
        if let NoPacket::Rejected(error) = found {
            connection.end_discarding();
            note_discarding(connection, cell, since, core);
            core.counters.frames_rejected += 1;
            core.counters.frames_too_long += u64::from(error.is_too_long());
            let mut session = Session::new(connection, cell, core);
            handler.on_rejected(&mut session, state, &error)?;
        } else {
            note_discarding(connection, cell, since, core);
        }
        Ok(Found::NoPacket(consumed))
    }
}

/// Handles bytes, received since `since`, that belong to no packet: more of a frame that is discarded, or its end.
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
        connection.end_discarding();
    }
}
