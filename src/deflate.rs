//! Raw DEFLATE (RFC 1951) in pieces of any length: no header, no checksum, a window of 32 KiB.
//!
//! Nothing here bounds what comes out: the caller gives a buffer, and counts.

use bytes::BytesMut;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Bytes that a [`Deflater`] holds: two hash tables, the window, and a block with its codes.
pub(crate) const DEFLATER: usize = 312 * 1024;
/// Bytes that an [`Inflater`] holds: the window, and the tables of the codes.
pub(crate) const INFLATER: usize = 43 * 1024;
/// Output is asked for in pieces of these lengths.
const LEAST_ROOM: usize = 256;
const MOST_ROOM: usize = 16 * 1024;

/// Compresses a stream.
pub(crate) struct Deflater(Compress);

/// How to write everything that was kept back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Behind it stands an empty block (`00 00 ff ff`), and the stream goes on, with its window.
    Sync,
    /// The stream ends. The next one begins after [`Deflater::reset`].
    Finish,
}

impl Deflater {
    /// `level` is from 1 (fast) to 9 (small); others are cut to that.
    pub(crate) fn new(level: u32) -> Self {
        Self(Compress::new(Compression::new(level.clamp(1, 9)), false))
    }

    /// Appends the beginning of what `plain` becomes to `out`; the rest is kept back until a [`flush`](Self::flush).
    ///
    /// # Errors
    /// If the stream has ended.
    pub(crate) fn write(&mut self, plain: &[u8], out: &mut BytesMut) -> Result<(), DeflateError> {
        self.run(plain, out, FlushCompress::None)
    }

    /// Appends what was kept back.
    ///
    /// # Errors
    /// If the stream has ended.
    pub(crate) fn flush(&mut self, how: Flush, out: &mut BytesMut) -> Result<(), DeflateError> {
        let how = match how {
            Flush::Sync => FlushCompress::Sync,
            Flush::Finish => FlushCompress::Finish,
        };
        self.run(&[], out, how)
    }

    fn run(&mut self, plain: &[u8], out: &mut BytesMut, how: FlushCompress) -> Result<(), DeflateError> {
        let mut rest = plain;
        loop {
            let start = out.len();
            let room = (out.capacity() - start).clamp(LEAST_ROOM, MOST_ROOM);
            let (read, written) = (self.0.total_in(), self.0.total_out());
            out.resize(start + room, 0);
            let status = self.0.compress(rest, out.get_mut(start..).unwrap_or_default(), how);
            let (used, made) = (self.0.total_in() - read, self.0.total_out() - written);
            out.truncate(start + made as usize);
            rest = rest.get(used as usize..).unwrap_or_default();
            let is_done = rest.is_empty() && (made as usize) < room;
            match status.map_err(|_| DeflateError)? {
                Status::StreamEnd => return if rest.is_empty() { Ok(()) } else { Err(DeflateError) },
                Status::Ok | Status::BufError if is_done => return Ok(()),
                Status::BufError if used == 0 && made == 0 => return Err(DeflateError),
                Status::Ok | Status::BufError => {}
            }
        }
    }

    /// Begins another stream, without a window.
    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }
}

/// Inflates a stream. A stream that refers to more than was in it finds zeros there.
pub(crate) struct Inflater(Decompress);

/// What became of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inflated {
    /// Bytes that were consumed.
    pub(crate) used: usize,
    /// Bytes that were written.
    pub(crate) made: usize,
    /// The stream has ended. Bytes behind those that were consumed are of another.
    pub(crate) is_end: bool,
}

impl Inflater {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(false))
    }

    /// Inflates from `wire` into `out`. If `out` is full afterwards, more may be left, also when all of `wire` was
    /// consumed.
    ///
    /// # Errors
    /// If that is no DEFLATE.
    pub(crate) fn read(&mut self, wire: &[u8], out: &mut [u8]) -> Result<Inflated, DeflateError> {
        let (read, written) = (self.0.total_in(), self.0.total_out());
        let status = self.0.decompress(wire, out, FlushDecompress::None).map_err(|_| DeflateError)?;
        let (used, made) = (self.0.total_in() - read, self.0.total_out() - written);
        let (used, made) = (used as usize, made as usize);
        let is_end = status == Status::StreamEnd;
        if used == 0 && made == 0 && !is_end && !wire.is_empty() && !out.is_empty() {
            return Err(DeflateError);
        }
        Ok(Inflated { used, made, is_end })
    }

    /// Begins another stream. Nothing of the one before can be reached from it.
    pub(crate) fn reset(&mut self) {
        self.0.reset(false);
    }
}

/// What was to be inflated is no DEFLATE, or a stream went on behind its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeflateError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn deflate(level: u32, parts: &[&[u8]], last: Flush) -> Vec<u8> {
        let (mut deflater, mut wire) = (Deflater::new(level), BytesMut::new());
        for (at, part) in parts.iter().enumerate() {
            deflater.write(part, &mut wire).expect("the stream goes on");
            let how = if at + 1 < parts.len() { Flush::Sync } else { last };
            deflater.flush(how, &mut wire).expect("the stream goes on");
        }
        wire.to_vec()
    }

    fn inflate(wire: &[u8], chunk: usize, room: usize) -> Result<(Vec<u8>, bool), DeflateError> {
        let (mut inflater, mut plain, mut is_end) = (Inflater::new(), Vec::new(), false);
        for mut rest in wire.chunks(chunk) {
            loop {
                let mut out = vec![0; room];
                let step = inflater.read(rest, &mut out)?;
                plain.extend_from_slice(&out[..step.made]);
                rest = &rest[step.used..];
                is_end |= step.is_end;
                if is_end || rest.is_empty() && step.made < room {
                    break;
                }
            }
        }
        Ok((plain, is_end))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_stream_comes_back_however_it_is_cut(
            parts in proptest::collection::vec(proptest::collection::vec(0..8_u8, 0..3_000), 1..6),
            level in 1..=9_u32,
            chunk in 1..500_usize,
            room in 1..500_usize,
        ) {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            for last in [Flush::Sync, Flush::Finish] {
                let wire = deflate(level, &parts, last);
                prop_assert_eq!(inflate(&wire, chunk, room), Ok((parts.concat(), last == Flush::Finish)));
            }
        }

        #[test]
        fn garbage_is_an_error_or_bounded(wire in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            if let Ok((plain, _)) = inflate(&wire, 100, 4_096) {
                prop_assert!(plain.len() <= wire.len() * 1_032 + 258);
            }
        }
    }

    #[test]
    fn a_sync_flush_ends_with_the_empty_block_of_the_rfc() {
        let wire = deflate(6, &[b"hello"], Flush::Sync);
        assert!(wire.ends_with(&[0, 0, 0xff, 0xff]), "{wire:x?}");
    }

    #[test]
    fn a_stream_that_was_reset_knows_nothing_of_the_one_before() {
        let secret = [7_u8; 1_000];
        let (mut deflater, mut wire) = (Deflater::new(6), BytesMut::new());
        deflater.write(&secret, &mut wire).expect("the stream goes on");
        deflater.flush(Flush::Sync, &mut wire).expect("the stream goes on");
        let behind = wire.len();
        deflater.write(&secret, &mut wire).expect("the stream goes on");
        deflater.flush(Flush::Finish, &mut wire).expect("the stream goes on");
        let mut inflater = Inflater::new();
        let mut out = [0; 4_096];
        assert_eq!(inflater.read(&wire[..behind], &mut out).map(|step| step.made), Ok(1_000));
        inflater.reset();
        let made = inflater.read(&wire[behind..], &mut out).map_or(0, |step| step.made);
        assert!(out[..made].iter().filter(|byte| **byte == 7).count() <= 1, "what the window held before");
    }

    #[test]
    fn a_stream_that_has_ended_takes_nothing_more() {
        let (mut deflater, mut wire) = (Deflater::new(1), BytesMut::new());
        deflater.flush(Flush::Finish, &mut wire).expect("the stream goes on");
        assert_eq!(wire[..], [3, 0]);
        assert_eq!(deflater.write(b"more", &mut wire), Err(DeflateError));
        deflater.reset();
        assert_eq!(deflater.write(b"more", &mut wire), Ok(()));
    }
}
