use std::{fmt, io, io::ErrorKind, mem};

use bytes::{Buf, BytesMut};

use crate::{
    error::LayerError,
    layer::{Layer, LayerIo, LayerRequests},
    reactor::{BlockingSocket, Deadline},
    tls::Tls,
};

/// Plain bytes that are encrypted at a time: as many as one record holds.
const PART: usize = 16 * 1024;
/// Bytes of the wire that one read may bring.
const SPACE: usize = 16 * 1024;

/// The socket of a client, with TLS or without.
#[derive(Debug)]
pub(super) struct Secured {
    pub(super) socket: BlockingSocket,
    tls: Option<Box<Session>>,
}

struct Session {
    tls: Tls,
    /// Received and not consumed by the layer: at most one record.
    unread: Vec<u8>,
    /// Decrypted and not handed out.
    plain: Vec<u8>,
    /// Encrypted and not taken by the kernel. It goes before everything else.
    owed: BytesMut,
    is_open: bool,
    has_ended: bool,
}

impl Secured {
    pub(super) fn new(socket: BlockingSocket) -> Self {
        Self { socket, tls: None }
    }

    /// Does the handshake of `tls`. From then on, all bytes go through it. `behind` is what was received before and not
    /// used.
    pub(super) fn secure(&mut self, tls: Tls, behind: &[u8], until: Deadline) -> io::Result<()> {
        let mut session = Box::new(Session {
            tls,
            unread: behind.to_vec(),
            plain: Vec::new(),
            owed: BytesMut::new(),
            is_open: false,
            has_ended: false,
        });
        let begun = session.step();
        let session = self.tls.insert(session);
        session.flush(&mut self.socket, until)?;
        begun?;
        while !session.is_open && !session.has_ended {
            session.receive(&mut self.socket, until)?;
            session.flush(&mut self.socket, until)?;
        }
        Ok(())
    }

    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) fn tls(&self) -> Option<crate::tls::TlsInfo<'_>> {
        self.tls.as_ref()?.tls.tls()
    }

    /// As [`BlockingSocket::recv`]. A stream of TLS that was cut is an error.
    pub(super) fn recv(&mut self, into: &mut [u8], until: Deadline) -> io::Result<usize> {
        let Some(session) = &mut self.tls else { return self.socket.recv(into, until) };
        while session.plain.is_empty() {
            if session.has_ended {
                return Ok(0);
            }
            session.receive(&mut self.socket, until)?;
        }
        let given = into.len().min(session.plain.len());
        into.iter_mut().zip(session.plain.drain(..given)).for_each(|(to, from)| *to = from);
        Ok(given)
    }

    /// As [`BlockingSocket::send`]. With TLS, bytes count as sent when they are encrypted: [`flush`](Self::flush) tells
    /// whether the kernel has taken them.
    pub(super) fn send(&mut self, bytes: &[u8], until: Deadline) -> io::Result<usize> {
        let Some(session) = &mut self.tls else { return self.socket.send(bytes, until) };
        session.flush(&mut self.socket, until)?;
        let part = bytes.get(..PART).unwrap_or(bytes);
        session.tls.send(part, &mut session.owed).map_err(failed)?;
        session.tls.flush(&mut session.owed).map_err(failed)?;
        match session.flush(&mut self.socket, until) {
            Err(error) if error.kind() != ErrorKind::TimedOut => Err(error),
            _ => Ok(part.len()),
        }
    }

    /// Waits until the kernel has taken what was encrypted.
    pub(super) fn flush(&mut self, until: Deadline) -> io::Result<()> {
        self.tls.as_mut().map_or(Ok(()), |session| session.flush(&mut self.socket, until))
    }

    /// Ends this side, behind the goodbye of TLS.
    pub(super) fn shutdown_write(&mut self, until: Deadline) -> io::Result<()> {
        if let Some(session) = &mut self.tls {
            session.tls.end(&mut session.owed).map_err(failed)?;
        }
        self.flush(until)?;
        self.socket.shutdown_write()
    }
}

impl Session {
    /// Receives what comes next, and replies if the layer has something to say.
    fn receive(&mut self, socket: &mut BlockingSocket, until: Deadline) -> io::Result<()> {
        let mut wire = [0; SPACE];
        let n = socket.recv(&mut wire, until)?;
        if n == 0 {
            self.has_ended = true;
            let have = self.unread.len();
            let cut = if self.is_open && have == 0 {
                self.tls.received_end()
            } else {
                Err(LayerError::truncated(have))
            };
            return cut.map_err(failed);
        }
        self.unread.extend_from_slice(wire.get(..n).unwrap_or_default());
        let stepped = self.step();
        if !self.owed.is_empty() {
            match self.flush(socket, until) {
                // It goes out with the next bytes that are sent.
                Err(error) if error.kind() != ErrorKind::TimedOut => return Err(error),
                _ => {}
            }
        }
        stepped
    }

    /// Gives the layer what was received, until it waits for more.
    fn step(&mut self) -> io::Result<()> {
        loop {
            let mut asked = LayerRequests::default();
            let mut io = LayerIo::new(&mut self.plain, &mut self.owed, &mut asked, 0);
            let received = self.tls.received(&self.unread, &mut io);
            let is_full = io.room() == 0;
            let used = received.map_err(failed)?.min(self.unread.len());
            self.unread.drain(..used);
            self.is_open |= asked.open;
            self.has_ended |= asked.end;
            if self.has_ended || !is_full && (used == 0 || self.unread.is_empty()) {
                return Ok(());
            }
        }
    }

    fn flush(&mut self, socket: &mut BlockingSocket, until: Deadline) -> io::Result<()> {
        while !self.owed.is_empty() {
            let n = socket.send(&self.owed, until)?;
            self.owed.advance(n);
        }
        drop(mem::take(&mut self.owed));
        Ok(())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// Carries the error of the layer through the paths of the socket's.
fn failed(error: LayerError) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}
