use std::{
    fmt,
    io::{self, BufRead, Write},
};

use bytes::BytesMut;
use rustls::Connection;

use super::{
    TlsInfo,
    records::{UNEXPECTED, may_be_tls, whole},
};
use crate::{
    error::{LayerError, TlsError},
    framing::BytesPreview,
    layer::{Layer, LayerIo},
};

/// Plain bytes in one record: as many as fit.
const RECORD: usize = 16 * 1024;
/// Bytes that a peer may send before its handshake is complete: a chain of certificates takes some thousand.
const MOST_HANDSHAKE: usize = 128 * 1024;
/// The most that rustls keeps of a message that is not whole; it refuses longer ones.
const MOST_HELD: usize = 64 * 1024;
/// Bytes that rustls has room for from the start. It makes more for longer records.
const ROOM: usize = 4 * 1024;

/// TLS on one connection: made by [`TlsAcceptor::layer`](crate::TlsAcceptor::layer) or
/// [`TlsConnector::layer`](crate::TlsConnector::layer). It is open when the handshake is complete.
///
/// Our `close_notify` goes out before our end, and the peer's is its end: [`on_end`](crate::PacketHandler::on_end) is
/// called. A connection that ends without one was cut, by the peer or by someone on the way: the session is closed with
/// [`LayerError::Truncated`](crate::LayerError::Truncated).
pub struct Tls {
    connection: Result<Connection, TlsError>,
    /// The name that was asked for.
    server: Option<Box<str>>,
    /// Plain bytes that wait to be sent in one record with those that follow.
    kept: Vec<u8>,
    /// Received bytes that rustls may hold: of a handshake message that is not whole. It does not say whether
    /// there is one, so these are all since the last plain bytes, up to what it can hold.
    held: usize,
    start: Start,
    stage: Stage,
}

/// Where in the stream a layer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// With its first byte, or behind the layers below.
    First,
    /// Wherever it is pushed.
    Anywhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The layer has not been called yet.
    New,
    /// It was, without bytes.
    Silent,
    /// So many bytes of the peer's handshake have come.
    Shaking(usize),
    Open,
    /// The peer has said that it ends its side.
    Ended,
}

impl Tls {
    /// If there is no connection, the layer fails when it begins.
    pub(super) fn new(connection: Result<Connection, TlsError>, server: Option<&str>, start: Start) -> Self {
        let connection = connection.map(|mut connection| {
            // What is written is taken at once.
            connection.set_buffer_limit(None);
            connection
        });
        let server = server.map(Into::into);
        Self { connection, server, kept: Vec::new(), held: 0, start, stage: Stage::New }
    }

    fn connection(&mut self) -> Result<&mut Connection, LayerError> {
        self.connection.as_mut().map_err(|error| LayerError::other(error.clone()))
    }

    /// Looks at the first bytes: whether they can be TLS at all.
    fn begin(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<(), LayerError> {
        if !may_be_tls(wire) {
            let seen = BytesPreview::new(wire);
            io.wire().extend_from_slice(&UNEXPECTED);
            return Err(LayerError::other(match (self.start, self.stage) {
                (Start::Anywhere, Stage::New) => TlsError::ClearTextBehindSwitch(seen),
                _ => TlsError::NotTls(seen),
            }));
        }
        // A second byte may still show that it is none.
        let is_certain = wire.len() > 1;
        self.stage = if is_certain { Stage::Shaking(0) } else { Stage::Silent };
        Ok(())
    }

    /// Gives rustls whole records, and takes the plain bytes. Returns `true` if the peer has ended its side.
    fn read(&mut self, mut records: &[u8], io: &mut LayerIo<'_>) -> Result<bool, LayerError> {
        let (len, before, mut has_ended) = (records.len(), io.room(), false);
        let connection = self.connection()?;
        while !records.is_empty() && !has_ended {
            connection.read_tls(&mut records)?;
            has_ended = connection.process_new_packets().map_err(protocol)?.peer_has_closed();
            let mut reader = connection.reader();
            while let Some(plain) = reader.fill_buf().ok().filter(|plain| !plain.is_empty()) {
                // There is room: no more comes out than went in.
                let taken = io.plain(plain);
                reader.consume(taken);
            }
        }
        if len > ROOM {
            // Makes it free what the long records have taken.
            let _ = connection.read_tls(&mut Nothing);
        }
        let brought = before > io.room();
        self.held = if brought { 0 } else { MOST_HELD.min(self.held.saturating_add(len)) };
        Ok(has_ended)
    }

    /// Notices what the bytes that were read have changed.
    fn update_stage(&mut self, read: usize, io: &mut LayerIo<'_>) -> Result<(), LayerError> {
        let connection = self.connection.as_mut().map_err(|error| LayerError::other(error.clone()))?;
        if let Stage::Shaking(before) = self.stage {
            let handshake = before + read;
            if connection.is_handshaking() {
                if handshake > MOST_HANDSHAKE {
                    return Err(LayerError::other(TlsError::HandshakeTooLong(MOST_HANDSHAKE)));
                }
                self.stage = Stage::Shaking(handshake);
            } else {
                if let Some(protocol) = connection.alpn_protocol() {
                    io.set_protocol(protocol);
                }
                (self.stage, self.held) = (Stage::Open, 0);
                io.open();
            }
        }
        Ok(())
    }

    fn receive(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        self.connection()?;
        if matches!(self.stage, Stage::New | Stage::Silent) {
            self.begin(wire, io)?;
        }
        let mut used = 0;
        loop {
            let records = wire.get(used..).unwrap_or_default();
            // One record more might have no room.
            let batch = records.get(..whole(records, io.room())).filter(|batch| !batch.is_empty());
            let Some(batch) = batch else { return Ok(used) };
            let has_ended = self.read(batch, io)?;
            used += batch.len();
            self.update_stage(batch.len(), io)?;
            if has_ended {
                self.stage = Stage::Ended;
                io.end();
                return Ok(used);
            }
        }
    }

    /// Encrypts plain bytes, in as few records as they fit in.
    fn encrypt(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        let connection = self.connection()?;
        connection.writer().write_all(plain)?;
        write(connection, wire)
    }
}

impl Layer for Tls {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        let received = self.receive(wire, io);
        if let Ok(connection) = &mut self.connection {
            // Also the alert that tells the peer what was wrong.
            write(connection, io.wire())?;
        }
        received
    }

    fn received_end(&mut self) -> Result<(), LayerError> {
        Err(LayerError::truncated(0))
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        let mut plain = plain;
        if !self.kept.is_empty() {
            let (fits, rest) = plain.split_at_checked(RECORD - self.kept.len()).unwrap_or((plain, &[]));
            self.kept.extend_from_slice(fits);
            if self.kept.len() < RECORD {
                return Ok(());
            }
            self.flush(wire)?;
            plain = rest;
        }
        let (full, rest) = plain.split_at(plain.len() - plain.len() % RECORD);
        if !full.is_empty() {
            self.encrypt(full, wire)?;
        }
        self.kept.extend_from_slice(rest);
        Ok(())
    }

    fn flush(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        let kept = std::mem::take(&mut self.kept);
        if kept.is_empty() { Ok(()) } else { self.encrypt(&kept, wire) }
    }

    fn end(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        let connection = self.connection()?;
        connection.send_close_notify();
        write(connection, wire)
    }

    fn buffered(&self) -> usize {
        self.kept.capacity() + self.held
    }

    fn tls(&self) -> Option<TlsInfo<'_>> {
        let connection = self.connection.as_ref().ok().filter(|connection| !connection.is_handshaking())?;
        Some(TlsInfo::new(connection, self.server.as_deref()))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("stage", &self.stage)
            .field("info", &self.tls())
            .field("buffered", &self.buffered())
            .finish_non_exhaustive()
    }
}

fn protocol(error: rustls::Error) -> LayerError {
    LayerError::other(TlsError::Protocol(error))
}

/// Takes what rustls has for the wire.
fn write(connection: &mut Connection, wire: &mut BytesMut) -> Result<(), LayerError> {
    while connection.wants_write() {
        connection.write_tls(&mut Wire(wire))?;
    }
    Ok(())
}

/// Takes all that it is given.
struct Wire<'a>(&'a mut BytesMut);

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let len = parts.iter().map(|part| part.len()).sum();
        self.0.reserve(len);
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has nothing to read for now.
struct Nothing;

impl io::Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}
