use bytes::BytesMut;

use crate::{encode::Encode, framing::EncodeError};

/// How many streams share one session, their *carrier* (multiplexing): how what a stream sends is written into packets of
/// the carrier. For [`Server::carried`](crate::Server::carried), which has an example.
///
/// What comes the other way is read by the handler of the carrier, which hands it to [`Streams`](crate::Streams).
///
/// Called on the threads of the carriers, between callbacks. A panic in [`packet`](Self::packet) closes the stream; after one in
/// [`close`](Self::close), the peer is not told that the stream has closed. Both are counted.
pub trait Mux: Send + Sync + 'static {
    /// Writes `payload`, which a stream sends, as one packet of the carrier to `out`, which is empty. The carrier's framing
    /// makes a frame of that.
    ///
    /// # Errors
    /// Why there is no such packet: the stream is closed with [`CloseReason::Send`](crate::CloseReason::Send). For one that is
    /// too long, see [`max_payload`](Self::max_payload).
    fn packet(&self, stream: u64, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError>;

    /// Writes the packet that tells the peer that this side has closed a stream, or did not take one that was opened, to
    /// `out`, which is empty. If nothing is written, the peer is told nothing. Not called for a stream whose peer has ended it.
    fn close(&self, stream: u64, out: &mut BytesMut);

    /// Returns how many bytes a payload may have. A `send` of a longer one returns
    /// [`EncodeError::TooLong`](crate::EncodeError::TooLong), as it does beyond [`Limits::frame`](crate::Limits::frame). Asked once, when
    /// the service is started. By default there is no other limit than that.
    fn max_payload(&self) -> usize {
        usize::MAX
    }
}

/// What a stream sends, as a packet of its carrier.
pub(crate) struct StreamPacket<'a> {
    pub(crate) mux: &'a dyn Mux,
    pub(crate) stream: u64,
    pub(crate) payload: &'a [u8],
}

impl Encode for StreamPacket<'_> {
    fn size_hint(&self) -> usize {
        self.payload.len()
    }

    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.mux.packet(self.stream, self.payload, out)
    }
}
