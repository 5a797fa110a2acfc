use framewire::{
    Addr, EncodeError, Mux, Origin, Session,
    bytes::{BufMut, BytesMut},
};

use super::handle::DialNumber;
use crate::protocol::{Command, put_frame};

/// Bits of a tag that number a dial; the gateway is above them.
const DIAL_BITS: u32 = 48;

/// Writes messages of virtual connections as frames of their link.
pub(super) struct Frames {
    max_length: u32,
}

impl Frames {
    pub(super) fn new(max_length: u32) -> Self {
        Self { max_length }
    }
}

impl Mux for Frames {
    fn packet(&self, conn: u64, message: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        // Connections are opened with the 32 bits that the gateway gives them.
        put_frame(conn as u32, message, self.max_length, out)
    }

    fn close(&self, conn: u64, out: &mut BytesMut) {
        out.put_slice(&Command::Close { conn: conn as u32 }.frame());
    }

    fn max_payload(&self) -> usize {
        // LENGTH counts the ID of the connection.
        self.max_length.saturating_sub(4) as usize
    }
}

/// What is known of a virtual connection beyond its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Virtual {
    /// The gateway by which it goes: its place in the list that the endpoint was given, counted from 0.
    pub gateway: usize,
    /// The ID of the connection.
    pub connection: u32,
    /// The other end: at a server, the number that the gateway has given to the client; at a client, the ID of the server.
    pub remote: u32,
    /// The dial of this side that it comes of; `None` if the other side has dialed.
    pub dial: Option<DialNumber>,
}

impl Virtual {
    /// Returns what is known of a session; `None` if it is no virtual connection.
    ///
    /// ```
    /// use framewire::packet_fn;
    /// use framewire_gateway::Virtual;
    ///
    /// // The same handler for virtual connections and for others.
    /// let handler = packet_fn(|session, _| match Virtual::of(session) {
    ///     Some(client) => Ok(session.send(format!("you are client {}", client.remote))?),
    ///     None => Ok(session.send(format!("you are {}", session.peer_addr()))?),
    /// });
    /// # let _ = handler;
    /// ```
    #[must_use]
    pub fn of(session: &Session<'_>) -> Option<Self> {
        let Origin::Carried { stream, tag, .. } = session.origin() else { return None };
        let Addr::Stream { peer, .. } = session.peer_addr() else { return None };
        let dial = tag & ((1 << DIAL_BITS) - 1);
        Some(Self {
            gateway: usize::try_from(tag >> DIAL_BITS).ok()?,
            connection: u32::try_from(stream).ok()?,
            remote: u32::try_from(peer).ok()?,
            dial: (dial > 0).then_some(DialNumber(dial)),
        })
    }
}

/// What a virtual connection is opened with, for [`Virtual::of`].
pub(super) fn tag(gateway: usize, dial: Option<DialNumber>) -> u64 {
    (gateway as u64) << DIAL_BITS | dial.map_or(0, |DialNumber(number)| number & ((1 << DIAL_BITS) - 1))
}
