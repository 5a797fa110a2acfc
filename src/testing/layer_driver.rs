use bytes::BytesMut;

use crate::{
    error::{CloseReason, LayerError},
    framing::DEFAULT_MAX_FRAME,
    layer::{Layer, LayerIo, LayerRequests},
};

/// Drives a layer as a session does, without a socket: wire bytes go in, plain bytes come out, and the other way round.
///
/// ```
/// use framewire::{Layer, LayerError, LayerIo, bytes::BytesMut, testing::LayerDriver};
///
/// /// Flips every bit.
/// struct Flip;
///
/// impl Layer for Flip {
///     fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
///         io.open(); // there is no handshake
///         let plain: Vec<u8> = wire.iter().take(io.room()).map(|byte| !byte).collect();
///         Ok(io.plain(&plain))
///     }
///
///     fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
///         wire.extend(plain.iter().map(|byte| !byte));
///         Ok(())
///     }
/// }
///
/// let mut driver = LayerDriver::new(Flip)?;
/// assert!(driver.is_open());
/// assert_eq!(driver.receive(&[!1, !2])?, [1, 2]);
/// driver.send(&[3])?;
/// assert_eq!(driver.take_wire(), [!3]);
/// # Ok::<(), LayerError>(())
/// ```
#[derive(Debug)]
pub struct LayerDriver<L> {
    pub(crate) layer: L,
    /// What the layer has not consumed.
    unread: Vec<u8>,
    plain: Vec<u8>,
    wire: BytesMut,
    is_open: bool,
    has_ended: bool,
    failure: Option<LayerError>,
    is_done: bool,
    frame: usize,
}

/// Plain bytes that one call may bring: more is a layer that never stops.
const MOST_PLAIN: usize = 64 * 1024 * 1024;

impl<L: Layer> LayerDriver<L> {
    /// Lets the layer begin.
    ///
    /// # Errors
    /// What the layer returns.
    pub fn new(layer: L) -> Result<Self, LayerError> {
        let mut driver = Self {
            layer,
            unread: Vec::new(),
            plain: Vec::new(),
            wire: BytesMut::new(),
            is_open: false,
            has_ended: false,
            failure: None,
            is_done: false,
            frame: DEFAULT_MAX_FRAME,
        };
        driver.step()?;
        Ok(driver)
    }

    /// Sets what [`LayerIo::frame_limit`] returns, in bytes. Default 1 MiB.
    #[must_use]
    pub fn frame_limit(mut self, bytes: usize) -> Self {
        self.frame = bytes;
        self
    }

    /// Gives the layer bytes from the wire, and returns the plain bytes that it passes on. Call this with any cut of the
    /// stream: together, the results must be the same. What follows the end of the plain stream is discarded.
    ///
    /// # Errors
    /// What the layer returns; [`LayerError::TooLong`] if it passes on more than 64 MiB at once. Do not call this again
    /// after an error.
    pub fn receive(&mut self, wire: &[u8]) -> Result<Vec<u8>, LayerError> {
        self.unread.extend_from_slice(wire);
        while !wire.is_empty() && !self.has_ended && !self.is_done && self.step()? {
            if self.plain.len() > MOST_PLAIN {
                return Err(LayerError::TooLong { held: self.plain.len(), max: MOST_PLAIN });
            }
        }
        if self.has_ended {
            self.unread.clear();
        } else if self.is_done {
            self.plain.append(&mut self.unread);
        }
        Ok(std::mem::take(&mut self.plain))
    }

    /// Calls the layer once. Returns `true` if it is to be called again.
    fn step(&mut self) -> Result<bool, LayerError> {
        let (before, mut asked) = (self.plain.len(), LayerRequests::default());
        let mut io = LayerIo::new(&mut self.plain, &mut self.wire, &mut asked, self.frame);
        let used = self.layer.received(&self.unread, &mut io);
        let is_full = io.room() == 0;
        let used = used?.min(self.unread.len());
        self.unread.drain(..used);
        self.has_ended |= asked.end;
        self.failure = self.failure.take().or(asked.failure.take().map(|failure| *failure));
        self.is_done |= asked.done && !asked.end;
        self.is_open |= asked.open || asked.end || self.plain.len() > before;
        Ok(is_full || asked.again || used > 0 && !self.unread.is_empty())
    }

    /// Notifies the layer that the peer has ended its side.
    ///
    /// # Errors
    /// What the layer returns, or [has failed](LayerIo::fail) with; [`LayerError::Truncated`] if it is still opening, or
    /// has left bytes unread.
    pub fn receive_end(&mut self) -> Result<(), LayerError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.has_ended || self.is_done {
            return Ok(());
        }
        if !self.is_open || !self.unread.is_empty() {
            return Err(LayerError::truncated(self.unread.len()));
        }
        self.layer.received_end()
    }

    /// Sends plain bytes and flushes: what the layer makes of them is added to the [wire](Self::take_wire). A session
    /// does this only while the layer is open.
    ///
    /// # Errors
    /// What the layer returns.
    pub fn send(&mut self, plain: &[u8]) -> Result<(), LayerError> {
        self.layer.send(plain, &mut self.wire)?;
        self.layer.flush(&mut self.wire)
    }

    /// Ends our side, because the session closes for this reason.
    ///
    /// # Errors
    /// What the layer returns.
    pub fn close(&mut self, reason: &CloseReason) -> Result<(), LayerError> {
        self.layer.closing(reason);
        self.end()
    }

    /// Ends our side, while the session goes on.
    ///
    /// # Errors
    /// What the layer returns.
    pub fn end(&mut self) -> Result<(), LayerError> {
        self.layer.end(&mut self.wire)
    }

    /// Takes what the layer has written to the wire, in a handshake or while something was sent.
    pub fn take_wire(&mut self) -> Vec<u8> {
        self.wire.split().to_vec()
    }

    /// Returns the layer, to ask it for what it knows.
    #[must_use]
    pub fn layer(&self) -> &L {
        &self.layer
    }

    /// Returns `true` if the handshake of the layer is complete.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Returns `true` if the layer has ended the plain stream.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns `true` if the layer has left, because its work is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::layers::{Scramble, Scrambler, StackedPeer};

    #[test]
    fn a_handshake_and_packets_come_through_however_they_are_cut() -> Result<(), LayerError> {
        let mut peer = Scrambler::new(7);
        let mut wire = [peer.greet(), peer.encode(&[5; 30_000])].concat();
        wire.extend(peer.end());
        for piece in [1, 2, 999, wire.len()] {
            let mut driver = LayerDriver::new(Scramble::new(7).strict())?;
            assert!(!driver.is_open() && driver.receive_end().is_err());
            let mut plain = Vec::new();
            for piece in wire.chunks(piece) {
                plain.extend(driver.receive(piece)?);
            }
            assert_eq!(plain, [5; 30_000]);
            assert!(driver.is_open() && driver.has_ended());
            assert_eq!(driver.receive(b"behind the end")?, b"");
            driver.receive_end()?;
            driver.send(b"reply")?;
            driver.end()?;
            let mut peer = Scrambler::new(7);
            assert_eq!(peer.decode(&driver.take_wire()), b"reply");
            assert!(peer.was_ended() && driver.take_wire().is_empty());
        }
        Ok(())
    }

    #[test]
    fn what_follows_a_layer_that_is_done_is_plain() -> Result<(), LayerError> {
        let mut driver = LayerDriver::new(StackedPeer::layer(0))?;
        assert_eq!(driver.receive(b"PROXY UNKNOWN\r\nand")?, b"and");
        assert!(driver.is_done());
        assert_eq!(driver.receive(b" more")?, b" more");
        driver.receive_end()
    }

    #[test]
    fn a_layer_that_inflates_without_end_is_stopped() -> Result<(), LayerError> {
        struct Endless;
        impl Layer for Endless {
            fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
                if !wire.is_empty() {
                    io.plain(&vec![0; io.room()]);
                }
                Ok(0)
            }

            fn send(&mut self, _: &[u8], _: &mut BytesMut) -> Result<(), LayerError> {
                Ok(())
            }
        }
        let outcome = LayerDriver::new(Endless)?.receive(b"!");
        assert!(matches!(outcome, Err(LayerError::TooLong { .. })), "{outcome:?}");
        Ok(())
    }
}
