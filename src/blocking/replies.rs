use std::fmt;

use super::{ClientError, outgoing::Outgoing};
use crate::{encode::Encode, framing::Framing};

/// The way to send while a packet is being handled, in [`Client::process`](super::Client::process) and
/// [`Client::process_once`](super::Client::process_once).
pub struct Replies<'a, F> {
    out: &'a mut Outgoing,
    framing: &'a F,
}

impl<'a, F: Framing> Replies<'a, F> {
    pub(super) fn new(out: &'a mut Outgoing, framing: &'a F) -> Self {
        Self { out, framing }
    }

    /// Sends one packet, as [`Client::send`](super::Client::send) does.
    ///
    /// # Errors
    /// As for [`Client::send`](super::Client::send).
    pub fn send(&mut self, packet: impl Encode) -> Result<(), ClientError> {
        self.out.send(self.framing, &packet)
    }
}

impl<F> fmt::Debug for Replies<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").finish_non_exhaustive()
    }
}
