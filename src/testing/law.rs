//! The law of framings: what a session relies on, whatever the framing.
//!
//! Your own framing should pass it too; `examples/custom_framing.rs` shows one.
#![allow(clippy::panic, reason = "a law that is broken ends the test that checks it, with an account")]

use bytes::BytesMut;

use super::collector::Collector;
use crate::encode::Encode;
use crate::framing::{EncodeError, FrameError, Framing};

/// Streams up to this many bytes are cut in two at every place and damaged at every byte; of longer ones about as many
/// places are taken.
const EVERY_CUT: usize = 512;
/// Streams up to this many bytes are also cut in three at every pair of places.
const EVERY_PAIR: usize = 48;
/// Above this maximum, the checks that would have to fill it are left out.
const FILLABLE: usize = 4 << 20;
/// The most bytes at the front of a frame that are taken for its header.
const HEADER: usize = 16;
/// Bytes that are fed behind damaged headers, of all frames together. One that is refused at once takes none of them.
const FLOOD: usize = 64 << 20;

/// Checks `framing` against the law, with a stream of `payloads`, which it must be able to encode.
///
/// - **Round trip**: each payload comes back, with the last byte of its frame at the latest; encode depends on nothing
///   else, and `encode_with` makes the same frames.
/// - **Cuts**: the stream of all payloads gives the same packets if it is cut in two anywhere, in three anywhere
///   (streams up to 48 bytes), and byte by byte. Streams over 512 bytes are cut at about 512 places.
/// - **Truncation**: a stream that ends anywhere gives the packets before that; what is left over is an error or, if
///   the framing delivers tails, that tail as it is. It is never dropped silently.
/// - **Damage**: changing any byte gives packets or an error, but no range outside of the buffer and no lack of
///   progress.
/// - **Length** (with [`max_frame`](Framing::max_frame) of at most 4 MiB): no more than that is ever held of a frame,
///   neither of meaningless bytes nor after a header that was damaged to announce more: each run of the first 16 bytes
///   is set to large numbers, in binary, LEB128 and decimal. Such a frame is refused or discarded before more than the
///   maximum and a header of it are held. Encode refuses a payload that is longer.
///
/// For framings without boundaries, such as [`Raw`](crate::Raw) and [`UntilEof`](crate::UntilEof), use
/// [`check_stream`].
///
/// # Panics
/// Where the framing breaks the law, with what was fed and what came.
///
/// ```
/// use framewire::{LengthPrefix, testing::law};
///
/// law::check(LengthPrefix::u16_be().max(100), ["hello", "", "world"]);
/// ```
pub fn check<F, I>(framing: F, payloads: I)
where
    F: Framing + Clone,
    I: IntoIterator,
    I::Item: AsRef<[u8]>,
{
    let payloads: Vec<Vec<u8>> = payloads.into_iter().map(|payload| payload.as_ref().to_vec()).collect();
    let frames: Vec<Vec<u8>> = payloads.iter().map(|payload| encode(&framing, payload)).collect();
    for (payload, frame) in payloads.iter().zip(&frames) {
        comes_with_its_last_byte(&framing, payload, frame);
    }
    let stream = frames.concat();
    for_cuts(&stream, |pieces| {
        let collector = run(&framing, pieces);
        same(&payloads, collector.packets(), pieces);
    });
    for cut in places(stream.len()) {
        ends_well(&framing, &payloads, stream.get(..cut).unwrap_or_default());
    }
    damage(&framing, &stream);
    length(&framing);
    announced(&framing, &payloads, &frames);
    if let Some(max) = framing.max_frame().filter(|max| *max <= FILLABLE) {
        let mut out = BytesMut::new();
        if framing.encode(&vec![b'a'; max + 1], &mut out).is_ok() {
            panic!("a payload of {} bytes is encoded, though no frame is longer than {max}", max + 1);
        }
        let (mut scratch, value) = (BytesMut::new(), Pieces { payload: &vec![b'a'; max + 1], hint: 0 });
        if framing.encode_with(&value, &mut scratch, &mut out).is_ok() {
            panic!("a value of {} bytes is encoded, though no frame is longer than {max}", max + 1);
        }
    }
}

/// Checks a framing that keeps no boundaries against the law: all packets joined equal all payloads joined, however the
/// stream is cut. Damage and length as in [`check`].
///
/// # Panics
/// Where the framing breaks the law, with what was fed and what came.
///
/// ```
/// use framewire::{Raw, testing::law};
///
/// law::check_stream(Raw::new(), ["hello", "world"]);
/// ```
pub fn check_stream<F, I>(framing: F, payloads: I)
where
    F: Framing + Clone,
    I: IntoIterator,
    I::Item: AsRef<[u8]>,
{
    let payloads: Vec<Vec<u8>> = payloads.into_iter().map(|payload| payload.as_ref().to_vec()).collect();
    let stream: Vec<u8> = payloads.iter().flat_map(|payload| encode(&framing, payload)).collect();
    for_cuts(&stream, |pieces| {
        let mut collector = run(&framing, pieces);
        if let Err(error) = collector.end() {
            panic!("the end of a whole stream is refused with {error}; fed: {}", shown(&stream));
        }
        same(&[payloads.concat()], &[collector.packets().concat()], pieces);
    });
    damage(&framing, &stream);
    length(&framing);
}

/// Encodes twice, the second time behind other bytes: nothing but the payload may matter.
fn encode<F: Framing>(framing: &F, payload: &[u8]) -> Vec<u8> {
    let mut alone = BytesMut::new();
    let mut behind = BytesMut::from(&b"before"[..]);
    for out in [&mut alone, &mut behind] {
        if let Err(error) = framing.encode(payload, out) {
            panic!("the payload {} cannot be encoded: {error}", shown(payload));
        }
    }
    if behind.strip_prefix(b"before") != Some(&*alone) {
        panic!("the frame of {} depends on what stands before it: {}", shown(payload), shown(&behind));
    }
    fills_in(framing, payload, &alone);
    alone.to_vec()
}

/// Encodes a value with that payload, whose length shows only when it is written.
fn fills_in<F: Framing>(framing: &F, payload: &[u8], frame: &[u8]) {
    for hint in [0, payload.len() / 2, payload.len()] {
        let (mut scratch, mut out) = (BytesMut::from(&b"used"[..]), BytesMut::from(&b"before"[..]));
        if let Err(error) = framing.encode_with(&Pieces { payload, hint }, &mut scratch, &mut out) {
            panic!("a value with the payload {} cannot be encoded: {error}", shown(payload));
        }
        if out.strip_prefix(b"before") != Some(frame) {
            panic!("encode_with makes {} of {}, and encode {}", shown(&out), shown(payload), shown(frame));
        }
    }
}

/// A value that is written in two pieces.
struct Pieces<'a> {
    payload: &'a [u8],
    hint: usize,
}

impl Encode for Pieces<'_> {
    fn size_hint(&self) -> usize {
        self.hint
    }

    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let (front, back) = self.payload.split_at(self.payload.len() / 2);
        out.extend_from_slice(front);
        out.extend_from_slice(back);
        Ok(())
    }
}

fn comes_with_its_last_byte<F: Framing + Clone>(framing: &F, payload: &[u8], frame: &[u8]) {
    let Some((last, most)) = frame.split_last() else {
        panic!("the frame of {} has no bytes", shown(payload))
    };
    let mut collector = run(framing, &[most]);
    // A framing may know early that the packet is whole (`\r`, where `\r\n` ends it too), but not give another one.
    if let Some(early) = collector.packets().iter().find(|early| *early != payload) {
        panic!("{} came out of {}, a part of the frame of {}", shown(early), shown(most), shown(payload));
    }
    if let Some(max) = framing.max_frame().filter(|max| *max < frame.len()) {
        panic!("the frame {} has {} bytes, more than max_frame says: {max}", shown(frame), frame.len());
    }
    feed(&mut collector, &[*last]);
    same(&[payload.to_vec()], collector.packets(), &[frame]);
}

/// Ends the stream after `wire`, the front of a stream of `payloads`.
fn ends_well<F: Framing + Clone>(framing: &F, payloads: &[Vec<u8>], wire: &[u8]) {
    let mut collector = run(framing, &[wire]);
    let before = collector.packets().len();
    let tail = collector.held().to_vec();
    let end = collector.end();
    no_fault(&end, wire);
    if end.is_ok() && !collector.held().is_empty() {
        panic!("{} was dropped in silence at the end of {}", shown(collector.held()), shown(wire));
    }
    for (at, packet) in collector.packets().iter().enumerate() {
        let is_sent = payloads.get(at) == Some(packet);
        let is_tail = at == before && *packet == tail;
        if !is_sent && !is_tail {
            panic!("{} is made up: it came at the end of {}", shown(packet), shown(wire));
        }
    }
}

fn damage<F: Framing + Clone>(framing: &F, stream: &[u8]) {
    let mut stream = stream.to_vec();
    for at in places(stream.len()) {
        for change in [0x01, 0x80, 0xff] {
            let flip = |stream: &mut Vec<u8>| stream.get_mut(at).into_iter().for_each(|byte| *byte ^= change);
            flip(&mut stream);
            let mut collector = Collector::new(framing.clone());
            let end = collector.feed(&stream);
            no_fault(&end, &stream);
            if end.is_ok() {
                no_fault(&collector.end(), &stream);
            }
            flip(&mut stream);
        }
    }
}

/// Fills the framing with bytes that do not end.
fn length<F: Framing + Clone>(framing: &F) {
    let Some(max) = framing.max_frame().filter(|max| *max <= FILLABLE) else { return };
    for fill in [0x00, b'1', b'a', 0x7f, 0xff] {
        let mut collector = Collector::new(framing.clone());
        for chunk in vec![fill; max + 2].chunks(1 + max / 16) {
            let end = collector.feed(chunk);
            no_fault(&end, chunk);
            if end.is_err() {
                break;
            }
            if collector.held().len() > max {
                panic!(
                    "{} bytes of {fill:#04x} are held, more than max_frame says: {max}",
                    collector.held().len()
                );
            }
        }
    }
}

/// Feeds headers that announce more than the maximum, and bodies that do not end.
fn announced<F: Framing + Clone>(framing: &F, payloads: &[Vec<u8>], frames: &[Vec<u8>]) {
    let Some(max) = framing.max_frame().filter(|max| *max <= FILLABLE) else { return };
    let mut left = FLOOD;
    for (payload, frame) in payloads.iter().zip(frames) {
        let (header, body) = frame.split_at(header_of(frame, payload));
        for header in enlarged(header) {
            if left == 0 {
                return;
            }
            left = left.saturating_sub(flood(framing, max, &header, body));
        }
    }
}

/// How many bytes are in front of the payload. If that cannot be seen, the first bytes may be a length all the same.
fn header_of(frame: &[u8], payload: &[u8]) -> usize {
    let within = frame.windows(payload.len().max(1)).rposition(|window| window == payload);
    within.filter(|at| *at > 0).unwrap_or(frame.len()).min(HEADER)
}

/// The header with each run of its bytes replaced by what may be a large number.
fn enlarged(header: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let runs = (0..header.len()).flat_map(|start| (start + 1..=header.len()).map(move |end| (start, end)));
    runs.flat_map(move |(start, end)| {
        let (front, back) = (header.get(..start).unwrap_or_default(), header.get(end..).unwrap_or_default());
        numbers(end - start).map(move |number| [front, &number, back].concat())
    })
}

/// Large numbers in the place of `len` bytes: as many bytes of binary, hexadecimal and decimal, and longer ones of decimal
/// and LEB128.
fn numbers(len: usize) -> impl Iterator<Item = Vec<u8>> {
    let binary = [0xff, 0x7f, 0x01, b'f', b'9'].into_iter().map(move |byte| vec![byte; len]);
    let decimal = [2, 3, 4, 5, 7, 10, 19].into_iter().map(|digits| vec![b'9'; digits]);
    let groups = [2, 3, 4, 5, 9, 10].into_iter().map(|bytes| [vec![0xff; bytes - 1], vec![0x7f]].concat());
    binary.chain(decimal.chain(groups).filter(move |number| number.len() > len))
}

/// Feeds the header and a body without end, until it is refused, or known to announce no more than the maximum. How many
/// bytes that took.
fn flood<F: Framing + Clone>(framing: &F, max: usize, header: &[u8], body: &[u8]) -> usize {
    let mut collector = Collector::new(framing.clone());
    let (front, more) = ([header, body].concat(), vec![b'a'; 1 + max / 16]);
    let mut fed = 0;
    while fed <= max + front.len() {
        let piece = if fed == 0 { &front } else { &more };
        let end = collector.feed(piece);
        no_fault(&end, header);
        if end.is_err() {
            break;
        }
        fed += piece.len();
        let longest = collector.packets().iter().map(Vec::len).max();
        if let Some(longest) = longest.filter(|len| *len > max) {
            panic!(
                "a packet of {longest} bytes came, more than max_frame says: {max}; behind the header {}",
                shown(header)
            );
        }
        if collector.held().len() > max + header.len() {
            panic!(
                "{} bytes are held behind the header {}, more than max_frame says: {max}",
                collector.held().len(),
                shown(header)
            );
        }
        if longest.is_some() {
            break;
        }
    }
    fed
}

fn run<F: Framing + Clone>(framing: &F, pieces: &[&[u8]]) -> Collector<F> {
    let mut collector = Collector::new(framing.clone());
    pieces.iter().for_each(|piece| feed(&mut collector, piece));
    collector
}

fn feed<F: Framing>(collector: &mut Collector<F>, piece: &[u8]) {
    if let Err(error) = collector.feed(piece) {
        panic!("what encode wrote is refused by decode: {error}; at {}", shown(piece));
    }
    if let Some(rejected) = collector.rejected().first() {
        panic!("what encode wrote is rejected by decode: {rejected}; at {}", shown(piece));
    }
}

fn no_fault(end: &Result<(), FrameError>, wire: &[u8]) {
    if let Err(error @ FrameError::InvalidDecode { .. }) = end {
        panic!("{error}; fed: {}", shown(wire));
    }
}

fn same(expected: &[Vec<u8>], got: &[Vec<u8>], pieces: &[&[u8]]) {
    if expected == got {
        return;
    }
    let at = expected.iter().zip(got).take_while(|(a, b)| a == b).count();
    let name = |packets: &[Vec<u8>]| packets.get(at).map_or("nothing".to_owned(), |packet| shown(packet));
    let pieces: Vec<String> = pieces.iter().take(8).map(|piece| shown(piece)).collect();
    panic!(
        "packet {at} is {} where {} was sent; fed in pieces: {}",
        name(got),
        name(expected),
        pieces.join(" | ")
    );
}

/// The stream whole, in two, in three and byte by byte.
fn for_cuts(stream: &[u8], check: impl Fn(&[&[u8]])) {
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    check(&[stream]);
    check(&bytes);
    for cut in places(stream.len()) {
        let (front, back) = stream.split_at_checked(cut).unwrap_or((stream, &[]));
        check(&[front, back]);
        if stream.len() <= EVERY_PAIR {
            for second in 0..=back.len() {
                let (middle, back) = back.split_at_checked(second).unwrap_or((back, &[]));
                check(&[front, middle, back]);
            }
        }
    }
}

/// Every place of a short stream, else about [`EVERY_CUT`] of them; the step is odd, so that they fall on no round numbers.
fn places(len: usize) -> impl Iterator<Item = usize> {
    (0..=len).step_by((len / EVERY_CUT) | 1)
}

/// The first bytes, readable.
fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 80;
    match bytes.get(..MOST) {
        Some(front) if bytes.len() > MOST => format!("\"{}\"… ({} bytes)", front.escape_ascii(), bytes.len()),
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

#[cfg(test)]
mod tests;
