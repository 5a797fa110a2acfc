use bytes::BytesMut;

use crate::{
    addr::Addr,
    buffer::{Inbox, Outbox},
    contained::Contained,
    error::LayerError,
    layer::{Layer, LayerIo, LayerRequests},
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
/// ```
#[derive(Default)]
pub(super) struct LayerStack {
    /// The one next to the socket first.
    layers: Vec<Entry>,
}

struct Entry {
    layer: Contained<Box<dyn Layer>>,
    stage: Stage,
    /// What was passed to the layer and not consumed.
    unread: Option<Box<Inbox>>,
    /// The layer can continue without new bytes.
    is_ready: bool,
    /// The plain stream ends in this layer.
    has_ended: bool,
    /// Bytes that the layer holds itself.
    buffered: usize,
}

/// How far a layer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The one below is not open.
    Waiting,
    /// In its handshake.
    Opening,
    Open,
}

impl LayerStack {
    pub(super) fn len(&self) -> usize {
        self.layers.len()
    }

    pub(super) fn push(&mut self, layer: Contained<Box<dyn Layer>>) {
        self.layers.push(Entry {
            layer,
            stage: Stage::Waiting,
            unread: None,
            is_ready: false,
            has_ended: false,
            buffered: 0,
        });
    }

    /// Gives a layer that has yet to begin the received bytes that were not handed out.
    pub(super) fn give(&mut self, level: usize, received: Box<Inbox>) {
        if let Some(entry) = self.layers.get_mut(level) {
            entry.unread = Some(received);
        }
    }

    /// Returns `true` if all of them are open, so that packets can be sent.
    pub(super) fn is_open(&self) -> bool {
        self.layers.iter().all(|entry| entry.stage == Stage::Open)
    }

    /// Returns `true` if some layer can continue without new bytes.
    pub(super) fn is_ready(&self) -> bool {
        self.topmost_ready().is_some()
    }

    /// Returns the topmost layer that can continue without new bytes, or else the one that is to begin.
    fn topmost_ready(&self) -> Option<usize> {
        let ready = self.layers.iter().rposition(|entry| entry.is_ready);
        let begins = self.layers.iter().position(|entry| entry.stage != Stage::Open);
        ready.or(begins.filter(|at| self.layers.get(*at).is_some_and(|entry| entry.stage == Stage::Waiting)))
    }

    /// Returns `true` if the peer has ended the plain stream.
    pub(super) fn has_ended(&self) -> bool {
        self.layers.iter().any(|entry| entry.has_ended)
    }

    /// Returns when the oldest incomplete block of an open layer began.
    pub(super) fn unread_since(&self) -> Option<Tick> {
        let open = self.layers.iter().filter(|entry| entry.stage == Stage::Open);
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

    /// Returns the bytes of memory that the layers hold.
    pub(super) fn capacity(&self) -> usize {
        let unread = |entry: &Entry| entry.unread.as_ref().map_or(0, |unread| unread.capacity());
        self.layers.iter().map(|entry| unread(entry) + entry.buffered).sum()
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
        pass: &mut Pass<'_>,
    ) -> Result<(), LayerError> {
        // What follows the end of the plain stream is discarded.
        let received = if self.has_ended() { &[][..] } else { received };
        let mut level = self.topmost_ready().unwrap_or_default();
        let mut carried = None;
        if level > 0 {
            self.keep(received, pass.now);
            carried = Some(Vec::new());
        }
        while level < self.layers.len() {
            let input = carried.as_deref().unwrap_or(received);
            let mut output = Vec::new();
            let is_top = level + 1 == self.layers.len();
            let step = self.step(level, input, if is_top { plain } else { &mut output }, pass)?;
            match step {
                _ if is_top => return Ok(()),
                Step::Stay => return Ok(()),
                Step::Up => level += 1,
                Step::Removed => {}
            }
            carried = Some(output);
        }
        plain.extend_from_slice(received);
        Ok(())
    }

    /// Keeps bytes for the layer next to the socket.
    fn keep(&mut self, received: &[u8], now: Tick) {
        let Some(bottom) = self.layers.first_mut().filter(|_| !received.is_empty()) else { return };
        match &mut bottom.unread {
            Some(unread) => unread.append(received),
            None => bottom.unread = Some(Inbox::new(received, now)),
        }
        bottom.is_ready = true;
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
        if entry.stage == Stage::Waiting {
            entry.stage = Stage::Opening;
        } else if input.is_empty() && !entry.is_ready {
            return Ok(Step::Stay);
        }
        let mut unread = entry.unread.take();
        if let Some(unread) = &mut unread {
            unread.append(input);
        }
        let shown = unread.as_ref().map_or(input, |unread| unread.as_slice());
        let (before, mut written, mut asked) = (out.len(), BytesMut::new(), LayerRequests::default());
        let mut io = LayerIo::new(out, &mut written, &mut asked);
        let received = entry.layer.received(shown, &mut io);
        let is_full = io.room() == 0;
        if !written.is_empty() {
            send(below, &written, pass.wire)?;
            flush(below, pass.wire)?;
        }
        let (used, len) = (received?.min(shown.len()), shown.len());
        let left = shown.get(used..).unwrap_or_default();
        pass.peer = asked.peer.or(pass.peer.take());
        pass.protocol = asked.protocol.or(pass.protocol.take());
        if asked.done {
            out.extend_from_slice(left);
            self.layers.remove(level);
            return Ok(Step::Removed);
        }
        if asked.open || asked.end || out.len() > before {
            entry.stage = Stage::Open;
        }
        entry.buffered = entry.layer.buffered();
        entry.has_ended = asked.end;
        entry.is_ready = !asked.end && (is_full || used > 0 && used < len);
        let most = if entry.stage == Stage::Open { pass.frame.max(MOST_UNREAD) } else { MOST_UNREAD };
        if !entry.is_ready && !asked.end && left.len() > most {
            return Err(LayerError::TooLong { held: left.len(), max: most });
        }
        entry.unread = match unread {
            _ if left.is_empty() || asked.end => None,
            None => Some(Inbox::new(left, pass.now)),
            Some(mut unread) => {
                unread.consume(used, pass.now);
                Some(unread)
            }
        };
        Ok(if entry.stage == Stage::Open { Step::Up } else { Step::Stay })
    }

    /// The stream ends here: that of the wire, or the plain one that a layer has ended (`has_ended`).
    ///
    /// # Errors
    /// If a layer is in the middle of a handshake or a block, or refuses the end.
    pub(super) fn end_input(&mut self) -> Result<(), LayerError> {
        let ended = self.layers.iter().rposition(|entry| entry.has_ended);
        for entry in self.layers.iter_mut().skip(ended.map_or(0, |at| at + 1)) {
            let unread = entry.unread.as_ref().map_or(0, |unread| unread.as_slice().len());
            if entry.stage != Stage::Open || unread > 0 {
                return Err(LayerError::truncated(unread));
            }
            entry.layer.received_end()?;
        }
        Ok(())
    }

    /// Carries `plain` through all layers to `wire`. Layers may keep bytes back until [`flush`](Self::flush).
    pub(super) fn send(&mut self, plain: &[u8], wire: &mut Outbox) -> Result<(), LayerError> {
        send(&mut self.layers, plain, wire)
    }

    pub(super) fn flush(&mut self, wire: &mut Outbox) -> Result<(), LayerError> {
        flush(&mut self.layers, wire)
    }

    /// Ends our side: the layer next to the framing first, so that what it writes goes through those below.
    pub(super) fn end(&mut self, wire: &mut Outbox) -> Result<(), LayerError> {
        let mut layers = self.layers.as_mut_slice();
        while let Some((top, below)) = layers.split_last_mut() {
            if top.stage != Stage::Waiting {
                write(below, 0, wire, |out| top.layer.end(out))?;
            }
            layers = below;
        }
        Ok(())
    }
}

/// What one step of all layers works with.
pub(super) struct Pass<'a> {
    pub(super) wire: &'a mut Outbox,
    /// The limit of a frame.
    pub(super) frame: usize,
    pub(super) now: Tick,
    /// The peer's address, if a layer has set it.
    pub(super) peer: Option<Addr>,
    pub(super) protocol: Option<Box<[u8]>>,
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

/// Carries `plain` through all of `layers`. Recursive; there are at most [`MOST_LAYERS`].
fn send(layers: &mut [Entry], plain: &[u8], wire: &mut Outbox) -> Result<(), LayerError> {
    let len = plain.len();
    match layers.split_last_mut() {
        Some((top, below)) => write(below, len, wire, |out| top.layer.send(plain, out)),
        None => write(&mut [], len, wire, |out| {
            out.extend_from_slice(plain);
            Ok(())
        }),
    }
}

fn flush(mut layers: &mut [Entry], wire: &mut Outbox) -> Result<(), LayerError> {
    while let Some((top, below)) = layers.split_last_mut() {
        write(below, 0, wire, |out| top.layer.flush(out))?;
        layers = below;
    }
    Ok(())
}

/// Carries what `appender` writes, about `len` bytes, through the layers `below`, or straight to the wire if there are
/// none.
fn write(
    below: &mut [Entry],
    len: usize,
    wire: &mut Outbox,
    appender: impl FnOnce(&mut BytesMut) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    if below.is_empty() {
        return wire.append(len, appender).map(drop);
    }
    let mut out = BytesMut::with_capacity(len);
    appender(&mut out)?;
    if out.is_empty() { Ok(()) } else { send(below, &out, wire) }
}
