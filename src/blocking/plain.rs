use std::io;

use crate::reactor::{BlockingSocket, Deadline};

/// The socket of a client, without TLS.
#[derive(Debug)]
pub(super) struct Secured {
    pub(super) socket: BlockingSocket,
}

impl Secured {
    pub(super) fn new(socket: BlockingSocket) -> Self {
        Self { socket }
    }

    pub(super) fn recv(&mut self, into: &mut [u8], until: Deadline) -> io::Result<usize> {
        self.socket.recv(into, until)
    }

    pub(super) fn send(&mut self, bytes: &[u8], until: Deadline) -> io::Result<usize> {
        self.socket.send(bytes, until)
    }

    pub(super) fn flush(&mut self, _: Deadline) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn shutdown_write(&mut self, _: Deadline) -> io::Result<()> {
        self.socket.shutdown_write()
    }
}
