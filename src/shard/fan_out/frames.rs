use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::{
    buffer::Overflow,
    contained::Contained,
    error::SendError,
    framing::{EncodeError, Framing},
    id::Key,
    session::ShardCore,
};

/// One packet of a fan-out.
pub(super) struct Packet {
    /// Its owner is the user's.
    pub(super) payload: Contained<Bytes>,
    pub(super) except: Option<Key>,
    /// `None`: as each session has it.
    pub(super) overflow: Option<Overflow>,
    /// The log has an error of this packet already.
    pub(super) is_logged: bool,
}

/// The frames of the packets of a fan-out, in the service's own framing: encoded once, however many sessions there are.
pub(super) struct Frames {
    /// One behind the other.
    pub(super) all: Bytes,
    /// Where in `all` the frame of each packet is.
    pub(super) each: Vec<Result<Range<usize>, EncodeError>>,
    /// Each packet has a frame.
    pub(super) are_complete: bool,
}

impl Frames {
    /// Encodes the packets. A packet that has no frame takes no bytes.
    pub(super) fn encode(packets: &[Packet], framing: &impl Framing, core: &ShardCore) -> Self {
        let mut all = BytesMut::new();
        let mut each = Vec::with_capacity(packets.len());
        for packet in packets {
            let start = all.len();
            let encoded = framing.encode(&packet.payload, &mut all);
            if encoded.is_err() {
                all.truncate(start);
            }
            each.push(encoded.map(|()| start..all.len()));
        }
        let are_complete = each.iter().all(Result::is_ok);
        Self { all: core.shared.share(all), each, are_complete }
    }

    /// Returns the frame of the packet with this number.
    pub(super) fn of(&self, number: usize) -> Result<Bytes, SendError> {
        match self.each.get(number) {
            // A framing that has taken bytes away is an error of its own.
            Some(Ok(place)) => {
                Ok(self.all.slice(place.start.min(self.all.len())..place.end.min(self.all.len())))
            }
            Some(Err(error)) => Err(SendError::Encode(error.clone())),
            None => Ok(Bytes::new()),
        }
    }
}
