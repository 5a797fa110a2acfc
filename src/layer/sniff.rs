use std::{fmt, sync::Arc};

use bytes::BytesMut;

use super::{Layer, LayerIo};
use crate::error::{CloseReason, LayerError};

type Test = dyn Fn(&[u8]) -> Sniffed + Send + Sync;
type Make = dyn Fn() -> Box<dyn Layer> + Send + Sync;

/// Bytes after which it must be clear what a stream is.
const MOST_SNIFFED: usize = 8 * 1024;

/// Tells by the first bytes of a connection what its peer speaks, so that one port serves several protocols: each of them
/// has a layer, and what is none of them goes to the framing as it is.
///
/// The first protocol whose test says yes is chosen; its layer gets the stream from its beginning. A test that needs more
/// bytes holds up those behind it. All of this is part of the handshake of the layer: a peer that sends nothing is closed
/// with [`CloseReason::Handshake`] after [`Limits::handshake_timeout`](crate::Limits::handshake_timeout). So this is for
/// protocols in which the client speaks first. A stream that is still unclear after 8 KiB is none of them.
///
/// Several of these may follow each other: TLS or not, and then, in either case, WebSocket or not.
///
/// ```
/// use framewire::{Layer, LayerError, LayerIo, Sniff, Sniffed, bytes::BytesMut, testing::LayerDriver};
///
/// /// Flips every bit, from the second byte on.
/// struct Flip;
///
/// impl Layer for Flip {
///     fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
///         let plain: Vec<u8> = wire.iter().filter(|byte| **byte != 0).map(|byte| !byte).collect();
///         io.plain(&plain);
///         Ok(wire.len())
///     }
///
///     fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
///         wire.extend(plain.iter().map(|byte| !byte));
///         Ok(())
///     }
/// }
///
/// let sniff = Sniff::new().when(|first| Sniffed::prefix(first, &[0]), || Flip);
/// assert_eq!(LayerDriver::new(sniff.layer())?.receive(&[0, !1, !2])?, [1, 2]);
/// assert_eq!(LayerDriver::new(sniff.layer())?.receive(&[1, 2])?, [1, 2]);
/// # Ok::<(), LayerError>(())
/// ```
#[derive(Clone, Default)]
pub struct Sniff(Arc<Vec<(Arc<Test>, Arc<Make>)>>);

/// What a test of a [`Sniff`] says of the first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sniffed {
    /// This is the protocol.
    Yes,
    /// This is another.
    No,
    /// It may become either with the next bytes.
    Unclear,
}

impl Sniffed {
    /// Returns [`Yes`](Self::Yes) if `bytes` begins with `prefix`, and [`Unclear`](Self::Unclear) if it still may.
    #[must_use]
    pub fn prefix(bytes: &[u8], prefix: &[u8]) -> Self {
        let seen = bytes.get(..prefix.len()).unwrap_or(bytes);
        match (prefix.starts_with(seen), seen.len() == prefix.len()) {
            (false, _) => Self::No,
            (true, false) => Self::Unclear,
            (true, true) => Self::Yes,
        }
    }
}

impl Sniff {
    /// Without protocols: everything goes to the framing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a protocol: `test` is shown the first bytes, at least one of them, and `make` makes its layer.
    #[must_use]
    pub fn when<L: Layer + 'static>(
        mut self,
        test: impl Fn(&[u8]) -> Sniffed + Send + Sync + 'static,
        make: impl Fn() -> L + Send + Sync + 'static,
    ) -> Self {
        let make: Arc<Make> = Arc::new(move || Box::new(make()));
        Arc::make_mut(&mut self.0).push((Arc::new(test), make));
        self
    }

    /// Returns the layer of one connection.
    #[must_use]
    pub fn layer(&self) -> SniffLayer {
        SniffLayer(State::Unclear(self.clone()))
    }

    /// Decides; `None` while that is not clear.
    fn decide(&self, first: &[u8]) -> Option<Option<Box<dyn Layer>>> {
        let is_late = first.len() >= MOST_SNIFFED;
        for (test, make) in self.0.iter() {
            match test(first) {
                Sniffed::Yes => return Some(Some(make())),
                Sniffed::Unclear if !is_late => return None,
                Sniffed::No | Sniffed::Unclear => {}
            }
        }
        Some(None)
    }
}

impl fmt::Debug for Sniff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sniff({} protocols)", self.0.len())
    }
}

/// The layer of one connection that is told apart by a [`Sniff`].
pub struct SniffLayer(State);

enum State {
    Unclear(Sniff),
    Chosen(Box<dyn Layer>),
    /// None of them.
    Plain,
}

impl Layer for SniffLayer {
    #[inline]
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        if let State::Chosen(layer) = &mut self.0 {
            return layer.received(wire, io);
        }
        if let State::Unclear(sniff) = &self.0 {
            if wire.is_empty() {
                return Ok(0);
            }
            match sniff.decide(wire) {
                None => return Ok(0),
                Some(None) => self.0 = State::Plain,
                Some(Some(mut layer)) => {
                    let received = layer.received(wire, io);
                    self.0 = State::Chosen(layer);
                    return received;
                }
            }
        }
        io.done();
        Ok(0)
    }

    fn received_end(&mut self) -> Result<(), LayerError> {
        if let State::Chosen(layer) = &mut self.0 { layer.received_end() } else { Ok(()) }
    }

    #[inline]
    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        if let State::Chosen(layer) = &mut self.0 {
            return layer.send(plain, wire);
        }
        wire.extend_from_slice(plain);
        Ok(())
    }

    #[inline]
    fn flush(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        if let State::Chosen(layer) = &mut self.0 { layer.flush(wire) } else { Ok(()) }
    }

    fn closing(&mut self, reason: &CloseReason) {
        if let State::Chosen(layer) = &mut self.0 {
            layer.closing(reason);
        }
    }

    fn end(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        if let State::Chosen(layer) = &mut self.0 { layer.end(wire) } else { Ok(()) }
    }

    #[inline]
    fn buffered(&self) -> usize {
        if let State::Chosen(layer) = &self.0 { layer.buffered() } else { 0 }
    }

    #[cfg(feature = "tls")]
    fn tls(&self) -> Option<crate::tls::TlsInfo<'_>> {
        if let State::Chosen(layer) = &self.0 { layer.tls() } else { None }
    }
}

impl fmt::Debug for SniffLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Unclear(_) => "SniffLayer(unclear)",
            State::Chosen(_) => "SniffLayer(chosen)",
            State::Plain => "SniffLayer(plain)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        LayerDriver,
        layers::{Scramble, Scrambler},
    };

    fn sniff() -> Sniff {
        Sniff::new()
            .when(|first| Sniffed::prefix(first, b"SCR1"), || Scramble::new(7))
            .when(|first| Sniffed::prefix(first, b"SC"), || Scramble::new(0))
    }

    #[test]
    fn the_layer_of_the_protocol_gets_the_stream_from_its_beginning_however_it_is_cut()
    -> Result<(), LayerError> {
        let mut peer = Scrambler::new(7);
        let wire = [peer.greet(), peer.encode(b"hello"), peer.end()].concat();
        for piece in 1..=wire.len() {
            let mut driver = LayerDriver::new(sniff().layer())?;
            let mut plain = Vec::new();
            for piece in wire.chunks(piece) {
                plain.extend(driver.receive(piece)?);
            }
            assert_eq!((plain, driver.has_ended()), (b"hello".to_vec(), true));
            driver.send(b"hi")?;
            assert_eq!(peer.clone().decode(&driver.take_wire()), b"hi");
        }
        Ok(())
    }

    #[test]
    fn what_is_no_protocol_of_them_passes_unchanged() -> Result<(), LayerError> {
        for wire in [&b"hello"[..], b"SX and more", b"\0"] {
            for piece in 1..=wire.len() {
                let mut driver = LayerDriver::new(sniff().layer())?;
                assert!(!driver.is_open(), "nothing has come");
                let mut plain = Vec::new();
                for piece in wire.chunks(piece) {
                    plain.extend(driver.receive(piece)?);
                }
                assert_eq!((&plain[..], driver.is_done()), (wire, true));
            }
        }
        Ok(())
    }

    #[test]
    fn what_stays_unclear_is_none_of_them_in_the_end() -> Result<(), LayerError> {
        let unclear = Sniff::new().when(|_| Sniffed::Unclear, || Scramble::new(7));
        let mut driver = LayerDriver::new(unclear.layer())?;
        assert_eq!(driver.receive(&[7; MOST_SNIFFED - 1])?, b"");
        assert_eq!(driver.receive(&[7])?, [7; MOST_SNIFFED]);
        Ok(())
    }
}
