//! What the clients of a simulated network can do.

use super::{Conn, Net, faults::errno, network::What};

/// What a client finds when it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Bytes(Vec<u8>),
    Nothing,
    End,
    Reset,
}

impl Net {
    /// Connects to a listener.
    pub(crate) fn connect(&mut self, listener: usize) -> Conn {
        let conn = self.new_link();
        match self.fds.get_mut(listener).and_then(Option::as_mut).map(|fd| &mut fd.what) {
            Some(What::Listener(queue)) => {
                queue.push_back(conn);
                self.edge(listener);
            }
            _ => self.link(conn).refuse(),
        }
        conn
    }

    /// Sends bytes; returns how many were taken.
    pub(crate) fn say(&mut self, conn: Conn, bytes: &[u8]) -> usize {
        let link = self.link(conn);
        if link.refused || link.broken || link.gone || link.up.ended || link.connecting {
            return 0;
        }
        let taken = bytes.len().min(link.up.free());
        link.up.bytes.extend(&bytes[..taken]);
        if link.down.ended && link.server.is_none() {
            link.up.bytes.clear();
            link.refuse();
        } else if taken > 0 {
            self.edge_of(conn);
        }
        taken
    }

    pub(crate) fn hear(&mut self, conn: Conn, most: usize) -> Heard {
        let link = self.link(conn);
        if link.refused {
            return Heard::Reset;
        }
        let take = most.min(link.down.bytes.len());
        if take == 0 {
            return if link.down.ended && link.down.bytes.is_empty() { Heard::End } else { Heard::Nothing };
        }
        let bytes: Vec<u8> = link.down.bytes.drain(..take).collect();
        if link.no_room && link.has_room() {
            link.no_room = false;
            self.edge_of(conn);
        }
        Heard::Bytes(bytes)
    }

    /// Reads everything that is there now.
    pub(crate) fn hear_all(&mut self, conn: Conn) -> Vec<u8> {
        match self.hear(conn, usize::MAX) {
            Heard::Bytes(bytes) => bytes,
            _ => Vec::new(),
        }
    }

    /// Ends the client's side; it still reads. By fault, a reset.
    pub(crate) fn end(&mut self, conn: Conn) {
        if self.rng.chance(self.faults.reset) {
            return self.reset(conn);
        }
        let link = self.link(conn);
        if !link.up.ended && !link.broken {
            link.up.ended = true;
            self.edge_of(conn);
        }
    }

    /// Closes the client's socket: with unread bytes it is a reset, as everywhere.
    pub(crate) fn leave(&mut self, conn: Conn) {
        if self.link(conn).down.bytes.is_empty() {
            self.end(conn);
            self.link(conn).gone = true;
        } else {
            self.reset(conn);
        }
    }

    pub(crate) fn reset(&mut self, conn: Conn) {
        let link = self.link(conn);
        link.gone = true;
        if !link.broken {
            link.break_with(errno::ECONNRESET);
            self.edge_of(conn);
        }
    }

    /// Returns `true` if the client has been reset.
    pub(crate) fn was_reset(&self, conn: Conn) -> bool {
        self.links[conn.0].refused
    }

    /// Bytes that the server has not read yet.
    pub(crate) fn unread(&self, conn: Conn) -> usize {
        self.links[conn.0].up.bytes.len()
    }
}

impl super::network::Link {
    /// Returns `true` if the server gets a writable event: a third of the room must be free, as in Linux.
    pub(super) fn has_room(&self) -> bool {
        self.down.free() > 0 && 3 * self.down.free() >= self.down.room
    }

    /// The connection is reset under the server.
    pub(super) fn break_with(&mut self, error: i32) {
        self.broken = true;
        self.error = Some(error);
        self.down.bytes.clear();
    }
}
