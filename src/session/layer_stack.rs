use std::mem;

use bytes::BytesMut;

use crate::{
    buffer::{Inbox, Outbox, OutboxPool},
    contained::Contained,
    error::{CloseReason, LayerError},
    layer::{Layer, LayerIo, LayerRequests},
    session::layer_buffers::{SendBuffers, StepBuffers},
    time::Tick,
};

/// Most layers of one session.
pub(crate) const MOST_LAYERS: usize = 8;
/// Bytes that a layer may leave unread before it is open; more where a longer frame is allowed, once it is.
const MOST_UNREAD: usize = 128 * 1024;

/// The layers of one session, between its socket and its framing: bytes in, bytes out. Only unread bytes are limited
/// here.
///
/// ```text
///           ┌ layers[0] ┐        ┌ layers[1] ┐
/// wire ───▶ unread ─ received ─▶ unread ─ received ─▶ plain
/// wire ◀─────────── send ◀────────────── send ◀────── plain
///
/// layers │ open: 0 .. open │ in its handshake, if one has begun │ waiting for those below .. │
/// ```
#[derive(Default)]
pub(super) struct LayerStack {
    /// The one next to the socket first.
    layers: Vec<Entry>,
    /// How many are open; those next to the socket come first.
    open: usize,
    /// The first that is not open is in its handshake.
    has_begun: bool,
    /// Those that can continue without new bytes: a bit for each.
    ready: u8,
    /// The one in which the plain stream has ended. It receives nothing more, and neither do those below.
    ended: Option<usize>,
    /// Why it has ended, if that is an error.
    failure: Option<Box<LayerError>>,
}

struct Entry {
    layer: Contained<Box<dyn Layer>>,
    /// What was passed to the layer and not consumed.
    unread: Option<Box<Inbox>>,
    /// Bytes that the layer holds itself.
    buffered: usize,
}

impl LayerStack {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.layers.len()
    }

    pub(super) fn push(&mut self, layer: Contained<Box<dyn Layer>>) {
        self.layers.push(Entry { layer, unread: None, buffered: 0 });
    }

    /// Gives a layer that has yet to begin the received bytes that were not handed out.
    pub(super) fn give(&mut self, level: usize, received: Box<Inbox>) {
        if let Some(entry) = self.layers.get_mut(level) {
            entry.unread = Some(received);
        }
    }

    /// Returns `true` if all of them are open, so that packets can be sent.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.open == self.layers.len()
    }

    /// Returns `true` if some layer can continue without new bytes.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        self.topmost_ready().is_some()
    }

    /// Returns the topmost layer that can continue without new bytes, or else the one that is to begin.
    #[inline]
    fn topmost_ready(&self) -> Option<usize> {
        if let Some(topmost) = self.ready.checked_ilog2() {
            return Some(topmost as usize);
        }
        (!self.is_open() && !self.has_begun).then_some(self.open)
    }

    fn set_ready(&mut self, level: usize, is_ready: bool) {
        debug_assert!(level < MOST_LAYERS, "each has a bit");
        self.ready = self.ready & !(1 << level) | u8::from(is_ready) << level;
    }

    /// Returns `true` if the peer has ended the plain stream.
    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Returns `true` if no handshake and no end is to be attended to.
    #[inline]
    pub(super) fn is_calm(&self) -> bool {
        self.is_open() && !self.layers.is_empty() && !self.has_ended()
    }

    /// Returns when the oldest incomplete block of an open layer began.
    pub(super) fn unread_since(&self) -> Option<Tick> {
        let open = self.layers.iter().take(self.open);
        open.filter_map(|entry| entry.unread.as_ref().map(|unread| unread.since())).min()
    }

    /// Sets the beginning of every incomplete block that began at `from` or later to `to`.
    pub(super) fn restamp(&mut self, from: Tick, to: Tick) {
        for unread in self.layers.iter_mut().filter_map(|entry| entry.unread.as_mut()) {
            if unread.since() >= from {
                unread.restart_clock(to);
            }
        }
    }

    /// Returns the bytes of memory that the layers hold, as far as they say so.
    pub(super) fn capacity(&self) -> usize {
        self.layers.iter().fold(0, |sum: usize, entry| {
            let unread = entry.unread.as_ref().map_or(0, |unread| unread.capacity());
            sum.saturating_add(unread).saturating_add(entry.buffered)
        })
    }

    /// What the uppermost layer of TLS has agreed on.
    #[cfg(feature = "tls")]
    pub(super) fn tls(&self) -> Option<crate::tls::TlsInfo<'_>> {
        self.layers.iter().rev().find_map(|entry| entry.layer.tls())
    }

    /// The layers, to be dropped.
    pub(super) fn into_layers(self) -> impl Iterator<Item = Contained<Box<dyn Layer>>> {
        self.layers.into_iter().map(|entry| entry.layer)
    }

    /// Takes the layers one step further: with what was `received`, or with what the topmost one that is ready has
    /// unread. A bounded number of plain bytes is appended to `plain`.
    ///
    /// # Errors
    /// If a layer fails. What the layers have passed on and written before counts.
    pub(super) fn receive(
        &mut self,
        received: &[u8],
        plain: &mut Vec<u8>,
        buffers: &mut StepBuffers,
        pass: &mut Pass<'_>,
    ) -> Result<(), LayerError> {
        // What follows the end of the plain stream is discarded.
        let received = if self.has_ended() { &[][..] } else { received };
        if self.layers.is_empty() {
            plain.extend_from_slice(received);
            return Ok(());
        }
        let mut level = self.topmost_ready().unwrap_or_default();
        if level > 0 {
            self.keep(received, pass.now);
        }
        let (mut input, mut output) = buffers.both();
        let mut is_first = true;
        while level + 1 < self.layers.len() {
            let shown = if !is_first {
                &**input
            } else if level == 0 {
                received
            } else {
                &[]
            };
            output.clear();
            match self.step(level, shown, output, pass)? {
                Step::Stay => return Ok(()),
                Step::Up => level += 1,
                Step::Removed => {}
            }
            pass.carried += output.len();
            is_first = false;
            mem::swap(&mut input, &mut output);
        }
        let shown = if !is_first {
            &**input
        } else if level == 0 {
            received
        } else {
            &[]
        };
        self.step(level, shown, plain, pass).map(drop)
    }

    /// Keeps bytes for the layer next to the socket.
    fn keep(&mut self, received: &[u8], now: Tick) {
        let Some(bottom) = self.layers.first_mut().filter(|_| !received.is_empty()) else { return };
        match &mut bottom.unread {
            Some(unread) => unread.append(received),
            None => bottom.unread = Some(Inbox::new(received, now)),
        }
        self.set_ready(0, true);
    }

    /// Calls one layer with its `input`.
    fn step(
        &mut self,
        level: usize,
        input: &[u8],
        out: &mut Vec<u8>,
        pass: &mut Pass<'_>,
    ) -> Result<Step, LayerError> {
        let (below, rest) = self.layers.split_at_mut(level);
        let Some(entry) = rest.first_mut() else { return Ok(Step::Stay) };
        if level == self.open && !self.has_begun {
            self.has_begun = true;
        } else if input.is_empty() && self.ready & 1 << level == 0 {
            return Ok(Step::Stay);
        }
        let mut unread = entry.unread.take();
        if let Some(unread) = &mut unread {
            unread.append(input);
        }
        let shown = unread.as_ref().map_or(input, |unread| unread.as_slice());
        let (before, mut written, asked) = (out.len(), BytesMut::new(), &mut pass.asked);
        asked.begin();
        let mut io = LayerIo::new(out, &mut written, asked, pass.frame);
        let received = entry.layer.received(shown, &mut io);
        let is_full = io.room() == 0;
        if !written.is_empty() {
            let wire = pass.wire.get_or_insert_with(|| pass.pool.take());
            send(below, &written, wire, pass.sends)?;
            flush(below, wire, pass.sends)?;
        }
        entry.buffered = entry.layer.buffered();
        if let (Err(error), false, false) = (&received, below.is_empty(), pass.has_ended) {
            // Those below are sound: nobody is to take this end for a connection that was cut. The first error counts.
            let wire = pass.wire.get_or_insert_with(|| pass.pool.take());
            let _ = end(below, level, Some(&CloseReason::Layer(error.clone())), wire, pass.sends);
        }
        let (used, len) = (received?.min(shown.len()), shown.len());
        let left = shown.get(used..).unwrap_or_default();
        let LayerRequests { open: opens, end: ends, done: is_done, .. } = pass.asked;
        if is_done && !ends {
            out.extend_from_slice(left);
            self.remove(level, pass);
            return Ok(Step::Removed);
        }
        if level == self.open && (opens || ends || out.len() > before) {
            self.open += 1;
            self.has_begun = false;
        }
        if ends {
            self.failure = pass.asked.failure.take();
            self.end_plain(level);
            return Ok(Step::Up);
        }
        let is_open = level < self.open;
        let is_ready = is_full || pass.asked.again || used > 0 && used < len;
        let most = if is_open { pass.frame.max(MOST_UNREAD) } else { MOST_UNREAD };
        if !is_ready && left.len() > most {
            return Err(LayerError::TooLong { held: left.len(), max: most });
        }
        if used < len {
            entry.unread = Some(match unread {
                None => Inbox::new(left, pass.now),
                Some(mut unread) => {
                    unread.consume(used, pass.now);
                    unread
                }
            });
        }
        self.set_ready(level, is_ready);
        Ok(if is_open { Step::Up } else { Step::Stay })
    }

    /// Removes a layer that is done; those above move down.
    fn remove(&mut self, level: usize, pass: &mut Pass<'_>) {
        pass.panics.extend(self.layers.remove(level).layer.discard().err());
        let below = (1 << level) - 1;
        self.ready = self.ready & below | self.ready >> 1 & !below;
        if level < self.open {
            self.open -= 1;
        } else {
            self.has_begun = false;
        }
    }

    /// The plain stream has ended in this layer. What is left of it, and of those below, belongs to no one.
    fn end_plain(&mut self, level: usize) {
        self.ended = Some(level);
        for (at, entry) in self.layers.iter_mut().enumerate().take(level + 1) {
            entry.unread = None;
            self.ready &= !(1 << at);
        }
    }

    /// The stream ends here: that of the wire, or the plain one that a layer has ended (`has_ended`).
    ///
    /// # Errors
    /// If a layer is in the middle of a handshake or a block, or refuses the end.
    pub(super) fn end_input(&mut self) -> Result<(), LayerError> {
        if let Some(failure) = self.failure.take() {
            return Err(*failure);
        }
        let (open, first) = (self.open, self.ended.map_or(0, |at| at + 1));
        for (level, entry) in self.layers.iter_mut().enumerate().skip(first) {
            let unread = entry.unread.as_ref().map_or(0, |unread| unread.as_slice().len());
            if level >= open || unread > 0 {
                return Err(LayerError::truncated(unread));
            }
            entry.layer.received_end()?;
        }
        Ok(())
    }

    /// Carries `plain` through all layers to `wire`. Layers may keep bytes back until [`flush`](Self::flush).
    pub(super) fn send(
        &mut self,
        plain: &[u8],
        wire: &mut Outbox,
        buffers: &mut SendBuffers,
    ) -> Result<(), LayerError> {
        send(&mut self.layers, plain, wire, buffers)
    }

    /// Carries all of a batch through all layers: [`send`](Self::send), then [`flush`](Self::flush).
    pub(super) fn send_batch(
        &mut self,
        plain: &[u8],
        wire: &mut Outbox,
        buffers: &mut SendBuffers,
    ) -> Result<(), LayerError> {
        let [Entry { layer, buffered, .. }] = self.layers.as_mut_slice() else {
            send(&mut self.layers, plain, wire, buffers)?;
            return flush(&mut self.layers, wire, buffers);
        };
        let mut flushed = Ok(());
        wire.append(plain.len(), |out| {
            layer.send(plain, out)?;
            let sent = out.len();
            flushed = layer.flush(out);
            if flushed.is_err() {
                out.truncate(sent);
            }
            Ok::<_, LayerError>(())
        })?;
        *buffered = layer.buffered();
        flushed
    }

    pub(super) fn flush(&mut self, wire: &mut Outbox, buffers: &mut SendBuffers) -> Result<(), LayerError> {
        flush(&mut self.layers, wire, buffers)
    }

    /// Ends our side: the layer next to the framing first, so that what it writes goes through those below. The session
    /// closes if there is a `reason`.
    pub(super) fn end(
        &mut self,
        reason: Option<&CloseReason>,
        wire: &mut Outbox,
        buffers: &mut SendBuffers,
    ) -> Result<(), LayerError> {
        let begun = self.open + usize::from(self.has_begun);
        end(self.layers.get_mut(..begun).unwrap_or_default(), self.open, reason, wire, buffers)
    }
}

/// What one step of all layers works with.
pub(super) struct Pass<'a> {
    /// Taken from the pool when there is something to write.
    pub(super) wire: &'a mut Option<Box<Outbox>>,
    pub(super) pool: &'a mut OutboxPool,
    pub(super) sends: &'a mut SendBuffers,
    /// Our side has ended.
    pub(super) has_ended: bool,
    /// The limit of a frame.
    pub(super) frame: usize,
    pub(super) now: Tick,
    /// What the layers have reported.
    pub(super) asked: LayerRequests,
    /// Bytes that one layer has passed on to another.
    pub(super) carried: usize,
    /// The messages of destructors that have panicked.
    pub(super) panics: Vec<String>,
}

/// Where a step continues.
enum Step {
    /// Nowhere: the layer waits for more.
    Stay,
    /// At the layer above.
    Up,
    /// At the layer that has its place now.
    Removed,
}

/// Carries `plain` through all of `layers` to the wire.
fn send(
    layers: &mut [Entry],
    plain: &[u8],
    wire: &mut Outbox,
    buffers: &mut SendBuffers,
) -> Result<(), LayerError> {
    let Some((bottom, upper)) = layers.split_first_mut() else {
        return wire
            .append(plain.len(), |out| {
                out.extend_from_slice(plain);
                Ok(())
            })
            .map(drop);
    };
    let (mut input, mut output) = buffers.both();
    let mut is_first = true;
    for entry in upper.iter_mut().rev() {
        output.clear();
        entry.layer.send(if is_first { plain } else { input }, output)?;
        if output.is_empty() {
            return Ok(());
        }
        is_first = false;
        mem::swap(&mut input, &mut output);
    }
    let input = if is_first { plain } else { input };
    wire.append(input.len(), |out| bottom.layer.send(input, out)).map(drop)
}

fn flush(mut layers: &mut [Entry], wire: &mut Outbox, buffers: &mut SendBuffers) -> Result<(), LayerError> {
    while let Some((top, below)) = layers.split_last_mut() {
        emit(below, wire, buffers, |out| top.layer.flush(out))?;
        top.buffered = top.layer.buffered();
        layers = below;
    }
    Ok(())
}

/// Ends our side of `layers`, of which the first `open` are open.
fn end(
    mut layers: &mut [Entry],
    open: usize,
    reason: Option<&CloseReason>,
    wire: &mut Outbox,
    buffers: &mut SendBuffers,
) -> Result<(), LayerError> {
    while let Some((top, below)) = layers.split_last_mut() {
        if below.len() < open {
            // The one above may just have written something.
            emit(below, wire, buffers, |out| top.layer.flush(out))?;
        }
        if let Some(reason) = reason {
            top.layer.closing(reason);
        }
        emit(below, wire, buffers, |out| top.layer.end(out))?;
        top.buffered = top.layer.buffered();
        layers = below;
    }
    Ok(())
}

/// Carries what a layer writes by itself through those `below` it, or straight to the wire if there are none.
fn emit(
    below: &mut [Entry],
    wire: &mut Outbox,
    buffers: &mut SendBuffers,
    appender: impl FnOnce(&mut BytesMut) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    if below.is_empty() {
        return wire.append(0, appender).map(drop);
    }
    let mut own = buffers.take_own();
    appender(&mut own)?;
    let sent = if own.is_empty() { Ok(()) } else { send(below, &own, wire, buffers) };
    buffers.put_own(own);
    sent
}
