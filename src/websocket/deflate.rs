//! Compression of messages: RFC 7692, `permessage-deflate`, each message by itself.

use bytes::BytesMut;

use super::close::Violation;
use crate::{
    deflate::{DEFLATER, Deflater, Flush, INFLATER, Inflater},
    error::LayerError,
    layer::{Deflate, LayerIo},
};

/// What a flush leaves behind a message, which is not sent: section 7.2.1.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Shorter messages hardly become smaller.
const LEAST: usize = 64;
/// Bytes whose mask is removed at a time.
const PIECE: usize = 4096;

/// What this side offers, and what a server answers: neither side keeps a window between messages.
pub(super) const TERMS: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// Returns `true` if a server can accept this offer. Windows are no smaller than 32 KiB here, so a client that asks for a
/// smaller one of the server is served without compression. What else it says of windows is about its own.
pub(super) fn is_acceptable(offer: &str) -> bool {
    let mut parts = offer.split(';').map(str::trim);
    let mut seen = Vec::new();
    parts.next().is_some_and(|name| name.eq_ignore_ascii_case("permessage-deflate"))
        && parts.all(|parameter| {
            let (name, value) = split(parameter);
            let is_new = !seen.contains(&name);
            seen.push(name);
            is_new
                && match name {
                    "server_no_context_takeover" | "client_no_context_takeover" => value.is_none(),
                    "client_max_window_bits" => value.is_none_or(is_window),
                    "server_max_window_bits" => value == Some("15"),
                    _ => false,
                }
        })
}

/// Checks what a server has answered to [`TERMS`].
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_answer(answer: &str) -> Result<(), &'static str> {
    let mut parts = answer.split(';').map(str::trim);
    if !parts.next().is_some_and(|name| name.eq_ignore_ascii_case("permessage-deflate")) {
        return Err("it chooses an extension that was not offered");
    }
    let mut keeps_window = true;
    for parameter in parts {
        match split(parameter) {
            ("server_no_context_takeover", None) => keeps_window = false,
            ("client_no_context_takeover", None) => {}
            ("server_max_window_bits", Some(bits)) if is_window(bits) => {}
            _ => return Err("it chooses a parameter of permessage-deflate that was not offered"),
        }
    }
    if keeps_window { Err("it keeps a window for permessage-deflate that was declined") } else { Ok(()) }
}

fn split(parameter: &str) -> (&str, Option<&str>) {
    match parameter.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
        None => (parameter, None),
    }
}

fn is_window(bits: &str) -> bool {
    matches!(bits, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
}

/// Inflates the messages of the peer.
pub(super) struct Inflating {
    deflate: Deflate,
    /// While a message is under way.
    inflater: Option<Inflater>,
    /// More may come out without further bytes.
    has_more: bool,
    /// Bytes of the tail that were given to the inflater.
    tail: usize,
    /// Plain bytes that the peer may still make beyond the ratio.
    credit: usize,
}

/// What one step has made: it stands at the end of what was passed on.
pub(super) struct Step {
    /// Bytes of the wire that were taken, masked.
    pub(super) used: usize,
    pub(super) made: usize,
}

impl Inflating {
    pub(super) fn new(deflate: Deflate) -> Self {
        let credit = deflate.most_credit();
        Self { deflate, inflater: None, has_more: false, tail: 0, credit }
    }

    /// Returns `true` if it can go on without further bytes.
    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Inflates from the front of `wire`, whose mask is removed by `unmask`, and passes on what comes out.
    pub(super) fn step(
        &mut self,
        wire: &[u8],
        unmask: impl FnOnce(&mut [u8]),
        io: &mut LayerIo<'_>,
    ) -> Result<Step, Violation> {
        let mut piece = [0; PIECE];
        let len = wire.len().min(PIECE);
        let piece = piece.get_mut(..len).unwrap_or_default();
        piece.copy_from_slice(wire.get(..len).unwrap_or_default());
        unmask(piece);
        self.inflate(piece, io)
    }

    /// The last byte of the message has come. Returns `None` when everything has come out.
    pub(super) fn finish(&mut self, io: &mut LayerIo<'_>) -> Result<Option<Step>, Violation> {
        let rest = TAIL.get(self.tail..).unwrap_or_default();
        if rest.is_empty() && !self.has_more {
            self.tail = 0;
            if let Some(inflater) = self.inflater.take() {
                self.deflate.put_inflater(inflater);
            }
            return Ok(None);
        }
        let step = self.inflate(rest, io)?;
        self.tail += step.used;
        Ok(Some(step))
    }

    fn inflate(&mut self, piece: &[u8], io: &mut LayerIo<'_>) -> Result<Step, Violation> {
        let inflater = self.inflater.get_or_insert_with(|| self.deflate.inflater());
        let most = io.room().min(piece.len().saturating_mul(4).max(1024));
        let (read, room) = io.plain_with(most, |out| {
            let read = inflater.read(piece, out);
            (read.map_or(0, |read| read.made), (read, out.len()))
        });
        let read = read.map_err(|_| Violation { code: 1007, what: "a compressed message is no DEFLATE" })?;
        self.has_more = read.made == room && !read.is_end;
        self.spend(read.used, read.made)?;
        if read.is_end {
            // A last block within a message is allowed: section 7.2.3.5. What follows it begins anew.
            if let Some(inflater) = &mut self.inflater {
                inflater.reset();
            }
            if read.used == 0 && read.made == 0 {
                return Err(Violation::protocol("a compressed message that makes no progress"));
            }
        }
        Ok(Step { used: read.used, made: read.made })
    }

    fn spend(&mut self, wire: usize, plain: usize) -> Result<(), Violation> {
        let credit = self.deflate.credit(self.credit, wire, plain);
        self.credit =
            credit.ok_or(Violation { code: 1008, what: "messages that inflate to too many bytes" })?;
        Ok(())
    }

    /// Bytes of memory.
    pub(super) fn capacity(&self) -> usize {
        self.inflater.as_ref().map_or(0, |_| INFLATER)
    }
}

/// Compresses our messages.
pub(super) struct Deflating {
    deflate: Deflate,
    /// The compressor, and what it has made, while a message is under way.
    message: Option<(Deflater, BytesMut)>,
}

impl Deflating {
    pub(super) fn new(deflate: Deflate) -> Self {
        Self { deflate, message: None }
    }

    /// A message of so many bytes begins. Returns `true` if it is to be compressed.
    pub(super) fn begin(&mut self, len: usize) -> bool {
        let takes = len >= LEAST;
        if takes {
            self.message = Some((self.deflate.deflater(), BytesMut::new()));
        }
        takes
    }

    /// Returns `true` while a message is being compressed.
    pub(super) fn is_busy(&self) -> bool {
        self.message.is_some()
    }

    pub(super) fn write(&mut self, plain: &[u8]) -> Result<(), LayerError> {
        match &mut self.message {
            Some((deflater, out)) => Ok(deflater.write(plain, out)?),
            None => Ok(()),
        }
    }

    /// The message has ended: what is to be sent for it.
    pub(super) fn end(&mut self) -> Result<BytesMut, LayerError> {
        let Some((mut deflater, mut out)) = self.message.take() else { return Ok(BytesMut::new()) };
        deflater.flush(Flush::Sync, &mut out)?;
        if out.ends_with(&TAIL) {
            out.truncate(out.len() - TAIL.len());
        }
        self.deflate.put_deflater(deflater);
        Ok(out)
    }

    /// Bytes of memory.
    pub(super) fn capacity(&self) -> usize {
        self.message.as_ref().map_or(0, |(_, out)| DEFLATER + out.capacity())
    }
}

impl std::fmt::Debug for Inflating {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflating").field("has_more", &self.has_more).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Deflating {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deflating").field("is_busy", &self.is_busy()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_accepted_that_can_be_kept() {
        for (offer, is_fine) in [
            ("permessage-deflate", true),
            ("Permessage-Deflate; client_max_window_bits", true),
            ("permessage-deflate; client_max_window_bits=10; server_no_context_takeover", true),
            ("permessage-deflate; server_max_window_bits=15", true),
            ("permessage-deflate; server_max_window_bits=\"15\"", true),
            ("permessage-deflate; server_max_window_bits=10", false),
            ("permessage-deflate; server_max_window_bits", false),
            ("permessage-deflate; client_max_window_bits=16", false),
            ("permessage-deflate; client_max_window_bits=08", false),
            ("permessage-deflate; client_no_context_takeover=1", false),
            ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", false),
            ("permessage-deflate; what", false),
            ("x-webkit-deflate-frame", false),
        ] {
            assert_eq!(is_acceptable(offer), is_fine, "{offer}");
        }
    }

    #[test]
    fn an_answer_is_taken_that_keeps_to_what_was_offered() {
        for (answer, is_fine) in [
            (TERMS, true),
            ("permessage-deflate; server_no_context_takeover", true),
            ("permessage-deflate; server_no_context_takeover; server_max_window_bits=9", true),
            ("permessage-deflate", false),
            ("permessage-deflate; client_max_window_bits=9; server_no_context_takeover", false),
            ("permessage-bzip2", false),
        ] {
            assert_eq!(check_answer(answer).is_ok(), is_fine, "{answer}");
        }
    }
}
