//! The memory that an outbox holds.

use super::{super::chunk::Chunk, Outbox};
use crate::sync::{Completion, TICKET};

impl Outbox {
    /// Returns how many bytes of memory the outbox holds, tickets included. Shared frames count as the places that they
    /// take.
    #[inline]
    pub fn capacity(&self) -> usize {
        let tail = self.tail.back().map_or(0, |last| self.closed + last.memory());
        let tickets = if self.tickets.capacity() == 0 { 0 } else { self.ticket_memory() };
        // What they count for is no less than what they hold.
        let packets = self.packets.as_ref().map_or(0, |packets| self.behind - packets.shared());
        self.head.capacity() + tail + tickets + packets
    }

    /// Returns how many bytes wait in memory that is shared with other sessions.
    #[cold]
    pub(crate) fn shared(&self) -> usize {
        let packets = self.packets.as_ref().map_or(0, |packets| packets.shared());
        packets + self.tail.iter().map(Chunk::shared).sum::<usize>()
    }

    #[cold]
    fn ticket_memory(&self) -> usize {
        let spare = self.tickets.capacity() - self.tickets.len();
        self.tickets.len() * TICKET + spare * size_of::<(u64, Completion)>()
    }

    /// Bytes of memory that an outbox keeps when it is reset.
    #[inline]
    pub(crate) fn kept(&self) -> usize {
        self.head.capacity()
    }
}
