use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::BytesMut;

#[cfg(feature = "websocket")]
use crate::framing::Messages;
use crate::{
    encode::Encode,
    error::discard,
    framing::{Decoded, EncodeError, FrameError, Framing, LengthHeader},
};

/// The framing of one session: the server's own, known at compile time, until the handler swaps it.
pub(crate) enum FramingCell<F> {
    Own(F),
    /// Boxed twice to keep the cell small: every session has one, and few swap their framing.
    Swapped(Box<Box<dyn Framing>>),
}

impl<F> FramingCell<F> {
    /// Returns the server's framing, unless the session has another one.
    #[inline]
    pub(crate) fn own(&self) -> Option<&F> {
        if let Self::Own(framing) = self { Some(framing) } else { None }
    }
}

impl<F: Framing> Framing for FramingCell<F> {
    #[inline]
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        match self {
            Self::Own(framing) => framing.decode(buf),
            Self::Swapped(framing) => framing.decode(buf),
        }
    }

    fn decode_eof(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        match self {
            Self::Own(framing) => framing.decode_eof(buf),
            Self::Swapped(framing) => framing.decode_eof(buf),
        }
    }

    #[inline]
    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        match self {
            Self::Own(framing) => framing.encode(payload, out),
            Self::Swapped(framing) => framing.encode(payload, out),
        }
    }

    fn encode_with(
        &self,
        packet: &dyn Encode,
        scratch: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        match self {
            Self::Own(framing) => framing.encode_with(packet, scratch, out),
            Self::Swapped(framing) => framing.encode_with(packet, scratch, out),
        }
    }

    #[inline]
    fn length_header(&self) -> Option<&LengthHeader> {
        match self {
            Self::Own(framing) => framing.length_header(),
            Self::Swapped(framing) => framing.length_header(),
        }
    }

    #[cfg(feature = "websocket")]
    fn messages(&self) -> Option<&Messages> {
        match self {
            Self::Own(framing) => framing.messages(),
            Self::Swapped(framing) => framing.messages(),
        }
    }

    #[cfg(feature = "websocket")]
    fn messages_mut(&mut self) -> Option<&mut Messages> {
        match self {
            Self::Own(framing) => framing.messages_mut(),
            Self::Swapped(framing) => framing.messages_mut(),
        }
    }

    fn offer_max(&mut self, max: usize) {
        match self {
            Self::Own(framing) => framing.offer_max(max),
            Self::Swapped(framing) => framing.offer_max(max),
        }
    }

    fn max_frame(&self) -> Option<usize> {
        match self {
            Self::Own(framing) => framing.max_frame(),
            Self::Swapped(framing) => framing.max_frame(),
        }
    }

    fn is_discarding(&self) -> bool {
        match self {
            Self::Own(framing) => framing.is_discarding(),
            Self::Swapped(framing) => framing.is_discarding(),
        }
    }
}

/// A [`FramingCell`] without the type of the server's framing.
pub(crate) trait FramingSlot: Framing {
    fn swap(&mut self, framing: Box<dyn Framing>);
}

impl<F: Framing> FramingSlot for FramingCell<F> {
    fn swap(&mut self, framing: Box<dyn Framing>) {
        *self = Self::Swapped(Box::new(framing));
    }
}

/// Returns the bytes of a frame beyond its payload, measured with an empty packet; 0 if that cannot be encoded.
///
/// Takes a trait object on purpose: another direct call of `encode` would stop the one in the send path from being
/// inlined.
pub(crate) fn overhead(framing: &dyn FramingSlot) -> usize {
    let mut frame = BytesMut::new();
    match catch_unwind(AssertUnwindSafe(|| framing.encode(&[], &mut frame))) {
        Ok(Ok(())) => frame.len(),
        Ok(Err(_)) => 0,
        Err(panic) => {
            // Reported when such a packet is sent.
            let _ = discard(panic);
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::LengthPrefix;

    #[test]
    fn a_cell_is_no_larger_than_the_framing_in_it() {
        assert_eq!(size_of::<FramingCell<LengthPrefix>>(), size_of::<LengthPrefix>());
    }
}
