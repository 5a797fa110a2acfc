use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::BytesMut;

use super::{Layer, LayerIo};
use crate::{
    deflate::{DEFLATER, DeflateError, Deflater, Flush, INFLATER, Inflater},
    error::LayerError,
};

const LEVEL: u32 = 1;
const MAX_RATIO: u32 = 100;
const ALLOWANCE: usize = 4 * 1024 * 1024;
/// An empty last block: what ends a stream in which nothing waits.
const LAST_BLOCK: &[u8] = &[0x03, 0x00];
/// What a flush leaves behind a batch.
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];
/// Batches of [`DeflateWindow::PerBatch`] that are inflated in one call: to begin one takes half a microsecond, and its
/// peer 2 bytes.
const BATCHES_PER_CALL: u32 = 16;
/// Compressors, and decompressors, that are kept for the next batches of any session.
const SPARE: usize = 8;

/// Compression of both directions by DEFLATE, as a [`Layer`] ([feature](crate#features) `deflate`).
///
/// **Both ends must be configured for it**: nothing is negotiated. Either side compresses what it sends, and flushes
/// once after each batch of packets, so that the peer has all of them; what is sent in one callback, or waits together,
/// is compressed together.
///
/// | option | default | |
/// |---|---|---|
/// | [`level`](Self::level) | 1 | 1 is fast, 9 is small |
/// | [`window`](Self::window) | [`DeflateWindow::Kept`] | what batches may refer to, and the memory that a session holds between them |
/// | [`max_ratio`](Self::max_ratio) | 100 | how much longer plain bytes may be than those on the wire … |
/// | [`allowance`](Self::allowance) | 4 MiB | … with so many to spare |
///
/// # On the wire
///
/// Raw DEFLATE ([RFC 1951](https://www.rfc-editor.org/rfc/rfc1951)) with a window of 32 KiB, without the header and
/// the checksum of zlib or gzip, which over TCP or TLS would detect nothing more. Any zlib speaks it, with 15 window bits,
/// negated:
///
/// | | [`Kept`](DeflateWindow::Kept) | [`PerBatch`](DeflateWindow::PerBatch) |
/// |---|---|---|
/// | the stream is | one DEFLATE stream | one DEFLATE stream for each batch, one behind the other |
/// | a batch ends with | an empty stored block (`00 00 ff ff`): `Z_SYNC_FLUSH`, or `Z_FULL_FLUSH` | its last block: `Z_FINISH` |
/// | our side ends with | the last block: `Z_FINISH` | a whole batch |
///
/// In Python: `z = zlib.compressobj(1, wbits=-15)`, then `z.compress(frame) + z.flush(zlib.Z_SYNC_FLUSH)` for each
/// batch, and `zlib.decompressobj(wbits=-15)` for what comes.
///
/// A stream that ends in the middle of a batch is [truncated](LayerError::Truncated). After the last block of a stream
/// of [`Kept`](DeflateWindow::Kept), the peer has ended its side.
///
/// # Memory
///
/// A compressor takes 312 KiB, at any level, and a decompressor 43 KiB; both count for
/// [`Limits::shard_memory`](crate::Limits::shard_memory) (256 MiB by default) while a session holds them. A session
/// gets them when it first sends, and first receives. With [`Kept`](DeflateWindow::Kept) it keeps them: 10,000
/// sessions take 3.6 GB. With [`PerBatch`](DeflateWindow::PerBatch) it gives them back after each batch, and an idle
/// session holds none.
///
/// # What a peer can do
///
/// A thousand bytes can stand for a million. Plain bytes are handed out as they come, 64 KiB at a time, so that no
/// memory follows from that: a frame is bounded by [`Limits::frame`](crate::Limits::frame), as without compression,
/// and a turn by [`Limits::read_budget`](crate::Limits::read_budget). The work is bounded by
/// [`max_ratio`](Self::max_ratio) and [`allowance`](Self::allowance); a peer that exceeds them loses its session,
/// with [`LayerError::Expansion`].
///
/// Compression and secrets: if a packet holds both a secret and bytes that an attacker chooses, its length tells
/// something of the secret, even within TLS (CRIME, BREACH).
///
/// ```
/// use std::time::Duration;
/// use framewire::{Deflate, DeflateWindow, Dial, Separator, Server, packet_fn, session_fn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let deflate = Deflate::new().window(DeflateWindow::PerBatch);
/// let server = Server::bind("127.0.0.1:0")?
///     .framing(Separator::lines())
///     .deflate(deflate.clone())
///     .spawn(packet_fn(|session, packet| Ok(session.send(packet)?)))?;
///
/// let (heard, replies) = std::sync::mpsc::channel();
/// let client = session_fn(
///     |session| Ok(session.send("hello")?),
///     move |_, (), reply| Ok(heard.send(reply.to_vec())?),
/// );
/// let client = Server::unbound().framing(Separator::lines()).spawn(client)?;
/// let _upstream = client.connect(Dial::to(server.local_addr().ok_or("not TCP")?).deflate(deflate))?;
/// assert_eq!(replies.recv()?, b"hello");
/// # client.stop(Duration::from_secs(5))?;
/// # server.stop(Duration::from_secs(5))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "it is given to a server, a dial, or a session"]
pub struct Deflate {
    level: u32,
    window: DeflateWindow,
    max_ratio: u32,
    allowance: usize,
    /// Shared by the sessions of one server.
    spare: Arc<Mutex<Spare>>,
}

/// What a batch may refer to: the batches before it, or only itself. Both ends must have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeflateWindow {
    /// To the last 32 KiB of the stream. Small packets become as small as they can, and every session that has sent and
    /// received holds 355 KiB for as long as it lives.
    Kept,
    /// To nothing before the batch. An idle session holds nothing; small packets hardly become smaller, except where
    /// many are sent together; and each batch costs some microseconds more, to begin anew.
    PerBatch,
}

/// Compressors and decompressors of no session.
#[derive(Default)]
struct Spare {
    deflaters: Vec<Deflater>,
    inflaters: Vec<Inflater>,
}

impl Deflate {
    /// Compression with the defaults in the table above.
    pub fn new() -> Self {
        Self {
            level: LEVEL,
            window: DeflateWindow::Kept,
            max_ratio: MAX_RATIO,
            allowance: ALLOWANCE,
            spare: Arc::default(),
        }
    }

    /// Sets how hard this side compresses what it sends: 1, the default, is fast, 9 is small; other numbers are cut to
    /// these. The peer need not have the same.
    pub fn level(mut self, level: u32) -> Self {
        (self.level, self.spare) = (level, Arc::default());
        self
    }

    /// Sets what a batch may refer to, in both directions. Default [`DeflateWindow::Kept`].
    pub fn window(mut self, window: DeflateWindow) -> Self {
        self.window = window;
        self
    }

    /// Sets how many plain bytes a peer may send for each byte on the wire, beyond the
    /// [`allowance`](Self::allowance); at least 1. Default 100. Texts reach 3 to 10, logs 20, repetitions more; the
    /// most that DEFLATE can do is 1,032.
    pub fn max_ratio(mut self, ratio: u32) -> Self {
        self.max_ratio = ratio.max(1);
        self
    }

    /// Sets how many plain bytes a peer may send beyond [`max_ratio`](Self::max_ratio) before its session is closed.
    /// What it has used comes back as it sends more on the wire. Default 4 MiB.
    pub fn allowance(mut self, bytes: usize) -> Self {
        self.allowance = bytes;
        self
    }

    /// Returns the layer of one session, for [`Session::push_layer`](crate::Session::push_layer): both sides begin to
    /// compress behind a packet on which they have agreed. Sessions whose layers come from clones of one `Deflate`
    /// share their spare memory.
    ///
    /// ```
    /// use framewire::{Deflate, Handled, packet_fn};
    ///
    /// let deflate = Deflate::new();
    /// let handler = packet_fn(move |session, packet| {
    ///     if packet == b"COMPRESS" {
    ///         session.send("OK")?; // in plain bytes
    ///         session.push_layer(deflate.layer());
    ///     }
    ///     Ok(())
    /// });
    /// # drop(handler);
    /// ```
    pub fn layer(&self) -> impl Layer + use<> {
        DeflateLayer {
            config: self.clone(),
            deflater: None,
            inflater: None,
            is_flush_due: false,
            credit: self.allowance,
            last: FLUSHED,
            has_ended: false,
        }
    }

    /// Returns how many plain bytes a peer may make beyond the ratio, at the beginning.
    #[cfg(feature = "websocket")]
    pub(crate) fn most_credit(&self) -> usize {
        self.allowance
    }

    /// Returns what is left of a `credit` when a peer has made `plain` bytes of `wire`; `None` if that is too many.
    pub(crate) fn credit(&self, credit: usize, wire: usize, plain: usize) -> Option<usize> {
        let earned = wire.saturating_mul(self.max_ratio as usize);
        // What is not used is lost: a long quiet stream buys no burst.
        Some(credit.saturating_add(earned).checked_sub(plain)?.min(self.allowance))
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn deflater(&self) -> Deflater {
        let spare = self.spare().deflaters.pop();
        spare.unwrap_or_else(|| Deflater::new(self.level))
    }

    pub(crate) fn inflater(&self) -> Inflater {
        let spare = self.spare().inflaters.pop();
        spare.unwrap_or_else(Inflater::new)
    }

    pub(crate) fn put_deflater(&self, mut deflater: Deflater) {
        deflater.reset();
        let mut spare = self.spare();
        if spare.deflaters.len() < SPARE {
            spare.deflaters.push(deflater);
        }
    }

    pub(crate) fn put_inflater(&self, mut inflater: Inflater) {
        inflater.reset();
        let mut spare = self.spare();
        if spare.inflaters.len() < SPARE {
            spare.inflaters.push(inflater);
        }
    }
}

impl Default for Deflate {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Deflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflate")
            .field("level", &self.level)
            .field("window", &self.window)
            .field("max_ratio", &self.max_ratio)
            .field("allowance", &self.allowance)
            .finish_non_exhaustive()
    }
}

/// The layer of one session.
struct DeflateLayer {
    config: Deflate,
    deflater: Option<Deflater>,
    inflater: Option<Inflater>,
    /// Something was given to the compressor since the last flush.
    is_flush_due: bool,
    /// Plain bytes that the peer may still send beyond the ratio.
    credit: usize,
    /// The last bytes that were received.
    last: [u8; 4],
    /// The peer's last block has come.
    has_ended: bool,
}

impl DeflateLayer {
    /// The peer has made `plain` bytes of `wire`.
    fn spend(&mut self, wire: usize, plain: usize) -> Result<(), LayerError> {
        let Deflate { max_ratio, allowance, .. } = self.config;
        let credit = self.config.credit(self.credit, wire, plain);
        self.credit = credit.ok_or(LayerError::Expansion { max_ratio, allowance })?;
        Ok(())
    }

    fn note_last(&mut self, consumed: &[u8]) {
        for byte in consumed.get(consumed.len().saturating_sub(FLUSHED.len())..).unwrap_or_default() {
            self.last.rotate_left(1);
            self.last[3] = *byte;
        }
    }

    /// Returns the compressor, which has something to flush from now on.
    fn begin_batch(&mut self) -> &mut Deflater {
        self.is_flush_due = true;
        self.deflater.get_or_insert_with(|| self.config.deflater())
    }

    fn finish(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        match self.deflater.take() {
            Some(mut deflater) => {
                deflater.flush(Flush::Finish, wire)?;
                self.config.put_deflater(deflater);
            }
            None => wire.extend_from_slice(LAST_BLOCK),
        }
        self.is_flush_due = false;
        Ok(())
    }
}

impl Layer for DeflateLayer {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        io.open();
        let (mut used, mut batches) = (0, 0);
        while io.room() > 0 && batches < BATCHES_PER_CALL && !self.has_ended {
            let rest = wire.get(used..).unwrap_or_default();
            if rest.is_empty() && self.inflater.is_none() {
                break;
            }
            let inflater = self.inflater.get_or_insert_with(|| self.config.inflater());
            let most = io.room().min(rest.len().saturating_mul(4).max(1024));
            let (step, room) = io.plain_with(most, |out| {
                let step = inflater.read(rest, out);
                (step.map_or(0, |step| step.made), (step, out.len()))
            });
            let step = step.map_err(|_| LayerError::malformed("not DEFLATE", rest))?;
            used += step.used;
            self.note_last(rest.get(..step.used).unwrap_or_default());
            self.spend(step.used, step.made)?;
            if step.is_end {
                batches += 1;
                if let Some(inflater) = self.inflater.take() {
                    self.config.put_inflater(inflater);
                }
                if self.config.window == DeflateWindow::Kept {
                    self.has_ended = true;
                    io.end();
                }
            } else if step.used == rest.len() && step.made < room {
                break;
            }
        }
        Ok(used)
    }

    fn received_end(&mut self) -> Result<(), LayerError> {
        let is_between_batches = match self.config.window {
            // A peer that flushes ends with this, wherever it is cut off afterwards.
            DeflateWindow::Kept => self.last == FLUSHED,
            DeflateWindow::PerBatch => self.inflater.is_none(),
        };
        if is_between_batches { Ok(()) } else { Err(LayerError::truncated(0)) }
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        if !plain.is_empty() {
            self.begin_batch().write(plain, wire)?;
        }
        Ok(())
    }

    fn flush(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        if !self.is_flush_due {
            return Ok(());
        }
        match (self.config.window, &mut self.deflater) {
            (DeflateWindow::Kept, Some(deflater)) => {
                deflater.flush(Flush::Sync, wire)?;
                self.is_flush_due = false;
                Ok(())
            }
            _ => self.finish(wire),
        }
    }

    fn end(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        match self.config.window {
            DeflateWindow::Kept => self.finish(wire),
            DeflateWindow::PerBatch => self.flush(wire),
        }
    }

    fn buffered(&self) -> usize {
        let deflater = self.deflater.as_ref().map_or(0, |_| DEFLATER);
        deflater + self.inflater.as_ref().map_or(0, |_| INFLATER)
    }
}

impl From<DeflateError> for LayerError {
    fn from(_: DeflateError) -> Self {
        Self::other("a DEFLATE stream was to go on behind its end")
    }
}

#[cfg(test)]
mod tests;
