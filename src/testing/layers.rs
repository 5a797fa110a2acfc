//! Layers to test sessions with, and the peers' side of them.

use std::net::SocketAddr;

use bytes::{BufMut, BytesMut};

use crate::{
    addr::Addr,
    error::LayerError,
    layer::{Layer, LayerIo, ProxyHeader, ProxyProtocol},
};

const HELLO: &[u8] = b"SCR1";
const REPLY: &[u8] = b"SCR2";
const CONFIRM: &[u8] = b"SCR3";
/// The length of a block that a [`Scramble`] writes without waiting for a flush.
const BLOCK: usize = 1000;
/// How many bytes the length in front of a block takes.
const LENGTH: usize = 2;

/// One direction of a scrambled stream: blocks with two bytes of length in front, whose bytes depend on their position.
/// An empty block ends it.
#[derive(Debug, Clone)]
struct Direction {
    key: u8,
    position: usize,
}

impl Direction {
    fn scramble(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte ^= (self.position % 251) as u8 ^ self.key;
            self.position += 1;
        }
    }

    fn block(&mut self, plain: &[u8], wire: &mut BytesMut) {
        wire.put_u16(plain.len() as u16);
        let start = wire.len();
        wire.extend_from_slice(plain);
        self.scramble(wire.get_mut(start..).unwrap_or_default());
    }

    /// The block at the front of `wire`, if it is whole: its plain bytes.
    fn open(&mut self, wire: &[u8]) -> Option<Vec<u8>> {
        let (header, rest) = wire.split_first_chunk::<LENGTH>()?;
        let mut plain = rest.get(..usize::from(u16::from_be_bytes(*header)))?.to_vec();
        self.scramble(&mut plain);
        Some(plain)
    }
}

/// Scrambles both directions, behind a handshake of two steps: `SCR1` and `SCR3` from the peer, `SCR2` from us
/// between them.
#[derive(Debug, Clone)]
pub struct Scramble {
    awaits: Option<&'static [u8]>,
    inward: Direction,
    outward: Direction,
    kept: Vec<u8>,
    has_ended: bool,
    is_strict: bool,
}

impl Scramble {
    /// Both sides have the same `key`.
    #[must_use]
    pub fn new(key: u8) -> Self {
        let direction = Direction { key, position: 0 };
        Self {
            awaits: Some(HELLO),
            inward: direction.clone(),
            outward: direction,
            kept: Vec::new(),
            has_ended: false,
            is_strict: false,
        }
    }

    /// Treats a stream that ends without its last block as truncated.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.is_strict = true;
        self
    }

    fn shake(
        &mut self,
        wire: &[u8],
        awaited: &'static [u8],
        io: &mut LayerIo<'_>,
    ) -> Result<usize, LayerError> {
        let seen = wire.get(..awaited.len()).unwrap_or(wire);
        if !awaited.starts_with(seen) {
            io.wire().extend_from_slice(b"NO!");
            return Err(LayerError::malformed("not the handshake that was awaited", wire));
        }
        if seen.len() < awaited.len() {
            return Ok(0);
        }
        if awaited == HELLO {
            io.wire().extend_from_slice(REPLY);
            self.awaits = Some(CONFIRM);
        } else {
            self.awaits = None;
            io.set_protocol(&b"scrambled"[..]);
            io.open();
        }
        Ok(awaited.len())
    }
}

impl Layer for Scramble {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        if let Some(awaited) = self.awaits {
            return self.shake(wire, awaited, io);
        }
        let mut used = 0;
        while let Some(rest) = wire.get(used..).filter(|_| !self.has_ended) {
            let next = self.inward.position;
            let Some(plain) = self.inward.open(rest) else { break };
            if plain.len() > io.room() {
                self.inward.position = next;
                break;
            }
            used += LENGTH + plain.len();
            if plain.is_empty() {
                self.has_ended = true;
                io.end();
            }
            io.plain(&plain);
        }
        Ok(used)
    }

    fn received_end(&mut self) -> Result<(), LayerError> {
        if self.is_strict { Err(LayerError::truncated(0)) } else { Ok(()) }
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        self.kept.extend_from_slice(plain);
        while self.kept.len() >= BLOCK {
            let block: Vec<u8> = self.kept.drain(..BLOCK).collect();
            self.outward.block(&block, wire);
        }
        Ok(())
    }

    fn flush(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        let rest = std::mem::take(&mut self.kept);
        if !rest.is_empty() {
            self.outward.block(&rest, wire);
        }
        Ok(())
    }

    fn end(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        if self.awaits.is_none() {
            self.flush(wire)?;
            self.outward.block(&[], wire);
        }
        Ok(())
    }

    fn buffered(&self) -> usize {
        self.kept.capacity()
    }
}

/// The peer's side of a [`Scramble`].
#[derive(Debug, Clone)]
pub struct Scrambler {
    layer: Scramble,
    greeting: &'static [u8],
    unread: Vec<u8>,
}

impl Scrambler {
    /// Both sides have the same `key`.
    #[must_use]
    pub fn new(key: u8) -> Self {
        Self { layer: Scramble::new(key), greeting: REPLY, unread: Vec::new() }
    }

    /// Returns what a peer sends first. It does not wait for the reply.
    #[must_use]
    pub fn greet(&self) -> Vec<u8> {
        [HELLO, CONFIRM].concat()
    }

    /// Returns plain bytes as they are to be sent, in one block for each 10,000.
    pub fn encode(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut wire = BytesMut::new();
        plain.chunks(10_000).for_each(|chunk| self.layer.outward.block(chunk, &mut wire));
        wire.to_vec()
    }

    /// What a peer says last.
    pub fn end(&mut self) -> Vec<u8> {
        let mut wire = BytesMut::new();
        self.layer.outward.block(&[], &mut wire);
        wire.to_vec()
    }

    /// Returns the plain bytes that came with `wire`. The reply to the handshake is skipped, and not checked otherwise.
    pub fn decode(&mut self, wire: &[u8]) -> Vec<u8> {
        self.unread.extend_from_slice(wire);
        let mut plain = Vec::new();
        while !self.unread.is_empty() && self.greeting.first() == self.unread.first() {
            self.greeting = self.greeting.get(1..).unwrap_or_default();
            self.unread.remove(0);
        }
        while self.greeting.is_empty() {
            let Some(block) = self.layer.inward.open(&self.unread) else { break };
            self.unread.drain(..LENGTH + block.len());
            self.layer.has_ended |= block.is_empty();
            plain.extend(block);
        }
        plain
    }

    /// Returns `true` if the other side has sent its last block.
    #[must_use]
    pub fn was_ended(&self) -> bool {
        self.layer.has_ended
    }
}

/// The peer's side of a server with the layers of [`layer`](Self::layer).
#[derive(Debug, Clone)]
pub struct StackedPeer {
    outer: Scrambler,
    inner: Scrambler,
}

const OUTER: u8 = 7;
const INNER: u8 = 0xc4;

impl Default for StackedPeer {
    fn default() -> Self {
        Self { outer: Scrambler::new(OUTER), inner: Scrambler::new(INNER) }
    }
}

impl StackedPeer {
    /// Whose headers the server takes: everybody's.
    ///
    /// # Panics
    /// Never: these are networks.
    pub fn proxies() -> ProxyProtocol {
        match ProxyProtocol::trusting(["0.0.0.0/0", "::/0", "unix:"]) {
            Ok(all) => all,
            Err(error) => unreachable!("{error}"),
        }
    }

    /// The layers of the server, by their place: one that takes a header from everybody, as a server with
    /// [`proxies`](Self::proxies) has it already, and two of [`Scramble`].
    #[must_use]
    pub fn layer(place: usize) -> Box<dyn Layer> {
        match place {
            0 => Box::new(Self::proxies().receiver_from(Addr::Unix(None))),
            1 => Box::new(Scramble::new(OUTER)),
            _ => Box::new(Scramble::new(INNER)),
        }
    }

    /// Returns the peer's side of the second layer alone, for another stack on it.
    #[must_use]
    pub fn second_of_three() -> Scrambler {
        Scrambler::new(OUTER)
    }

    /// Returns the header of a proxy for a peer at `from`. The parity of its port decides on the version.
    #[must_use]
    pub fn proxy_header(from: SocketAddr) -> Vec<u8> {
        let header = match from.port() % 2 {
            0 => ProxyHeader::v1(from, from),
            _ => ProxyHeader::v2(from, from).with_checksum(),
        };
        let mut wire = BytesMut::new();
        header.encode(&mut wire);
        wire.to_vec()
    }

    /// Returns what a peer sends first, with `from` as its address.
    pub fn greet(&mut self, from: SocketAddr) -> Vec<u8> {
        let inner = self.inner.greet();
        [Self::proxy_header(from), self.outer.greet(), self.outer.encode(&inner)].concat()
    }

    /// Plain bytes as they are to be sent.
    pub fn encode(&mut self, plain: &[u8]) -> Vec<u8> {
        let inner = self.inner.encode(plain);
        self.outer.encode(&inner)
    }

    /// The plain bytes that came with `wire`.
    pub fn decode(&mut self, wire: &[u8]) -> Vec<u8> {
        let inner = self.outer.decode(wire);
        self.inner.decode(&inner)
    }

    /// What a peer says last.
    pub fn end(&mut self) -> Vec<u8> {
        let inner = self.inner.end();
        [self.outer.encode(&inner), self.outer.end()].concat()
    }

    /// Returns `true` if both layers of the other side have sent their last block.
    #[must_use]
    pub fn was_ended(&self) -> bool {
        self.outer.was_ended() && self.inner.was_ended()
    }
}
