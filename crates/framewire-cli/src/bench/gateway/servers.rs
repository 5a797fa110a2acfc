//! Servers behind a gateway that is open to all, which send every message back.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use md5::{Digest, Md5};
use mio::{Events, Interest, Poll, Token};

use super::wire::{Command, LENGTH, Wire, u32_at};
use crate::contestants::end_with_stdin;

const BUFFER: usize = 256 * 1024;
/// Bytes that may wait to be sent on a link: above this it is not read from.
const MOST_UNSENT: usize = 4 << 20;
/// MD5 of 8 bytes and the empty key is answered, then the server's ID.
const CHALLENGE: usize = 8;

struct Server {
    stream: mio::net::TcpStream,
    part: Vec<u8>,
    unsent: Vec<u8>,
}

/// Connects servers with the IDs from 1 on, calls `ready`, and serves until standard input ends.
pub(super) fn serve(to: SocketAddr, count: usize, ready: impl Fn() -> io::Result<()>) -> io::Result<()> {
    end_with_stdin();
    let mut poll = Poll::new()?;
    let mut servers = Vec::new();
    for number in 0..count {
        let mut stream = connect(to, number as u32 + 1)?;
        poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        servers.push(Server { stream, part: Vec::new(), unsent: Vec::new() });
    }
    ready()?;
    let (mut events, mut buffer) = (Events::with_capacity(count.max(1)), vec![0; BUFFER]);
    loop {
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        for event in &events {
            if let Some(server) = servers.get_mut(event.token().0) {
                server.serve(&mut buffer)?;
            }
        }
    }
}

fn connect(to: SocketAddr, id: u32) -> io::Result<mio::net::TcpStream> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut challenge = [0; CHALLENGE];
    stream.read_exact(&mut challenge)?;
    stream.write_all(&[&Md5::digest(challenge)[..], &id.to_le_bytes()].concat())?;
    stream.set_nonblocking(true)?;
    Ok(mio::net::TcpStream::from_std(stream))
}

impl Server {
    /// Reads until nothing more is there, and sends it back; goes on with the next event where that takes long.
    fn serve(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.flush()?;
        while self.unsent.len() < MOST_UNSENT {
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.part.extend_from_slice(buffer.get(..read).unwrap_or_default());
                    self.take_frames()?;
                    self.flush()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take_frames(&mut self) -> io::Result<()> {
        let mut used = 0;
        while let Some(len) = Wire::Gateway.whole(self.part.get(used..).unwrap_or_default())? {
            let frame = self.part.get(used..used + len).unwrap_or_default();
            used += len;
            if u32_at(frame, LENGTH)? != 0 || frame == Command::Ping.frame() {
                self.unsent.extend_from_slice(frame);
            }
        }
        self.part.drain(..used);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while let Some(rest) = self.unsent.get(sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent.drain(..sent);
        Ok(())
    }
}
