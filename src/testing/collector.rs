use crate::framing::{Deframed, Deframer, FrameError, Framing};

/// Drives a framing as a session does, without socket or handler: bytes go in, packets are collected.
///
/// It keeps everything that it finds, and unfinished frames of any length, even above the framing's own maximum: it is
/// for tests.
///
/// ```
/// use framewire::{Separator, testing::Collector};
///
/// let mut collector = Collector::new(Separator::lines());
/// collector.feed(b"one\ntw")?;
/// collector.feed(b"o\n")?;
/// collector.end()?;
/// assert_eq!(collector.packets(), [b"one", b"two"]);
/// # Ok::<(), framewire::FrameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Collector<F> {
    deframer: Deframer<F>,
    packets: Vec<Vec<u8>>,
    rejected: Vec<FrameError>,
}

impl<F: Framing> Collector<F> {
    /// Creates a collector at the beginning of a stream.
    pub fn new(framing: F) -> Self {
        Self { deframer: Deframer::unlimited(framing), packets: Vec::new(), rejected: Vec::new() }
    }

    /// Adds `bytes` to the stream and collects the packets that are whole. Do not feed more after an error.
    ///
    /// # Errors
    /// What the framing returns; [`FrameError::InvalidDecode`] if it returns an impossible range or makes no progress.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        self.deframer.feed(bytes);
        self.collect()
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// As [`feed`](Self::feed); [`FrameError::Truncated`] for most framings when the stream ends inside a frame.
    pub fn end(&mut self) -> Result<(), FrameError> {
        self.deframer.end();
        self.collect()
    }

    /// Returns the packets so far.
    pub fn packets(&self) -> &[Vec<u8>] {
        &self.packets
    }

    /// Returns the errors of [`Decoded::Rejected`](crate::Decoded::Rejected) so far.
    pub fn rejected(&self) -> &[FrameError] {
        &self.rejected
    }

    /// Returns the bytes that wait for the rest of their frame.
    pub fn held(&self) -> &[u8] {
        self.deframer.held()
    }

    fn collect(&mut self) -> Result<(), FrameError> {
        while let Some(deframed) = self.deframer.poll_frame()? {
            match deframed {
                Deframed::Packet(packet) => self.packets.push(packet.to_vec()),
                Deframed::Rejected(error) => self.rejected.push(error),
            }
        }
        Ok(())
    }
}
