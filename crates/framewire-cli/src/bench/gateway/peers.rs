//! Many clients on one thread, who send, wait for their replies and send again. Every byte that comes is compared.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::wire::{Command, LENGTH, Wire, u32_at};

/// How long replies may be missing.
const PATIENCE: Duration = Duration::from_secs(30);
const EVENTS: usize = 1024;
const BUFFER: usize = 64 * 1024;

/// Clients of one server or gateway.
pub(super) struct Peers {
    poll: Poll,
    events: Events,
    peers: Vec<Peer>,
    buffer: Vec<u8>,
    wire: Wire,
}

struct Peer {
    stream: mio::net::TcpStream,
    /// What it sends, one after the other: a frame for each of its connections.
    frames: Vec<Vec<u8>>,
    next: usize,
    /// The beginning of a frame that has come.
    part: Vec<u8>,
    /// What the kernel has not taken yet.
    unsent: Vec<u8>,
}

impl Peers {
    pub(super) fn connect(to: SocketAddr, count: usize, wire: Wire) -> io::Result<Self> {
        let poll = Poll::new()?;
        let connect = |number| {
            let stream = TcpStream::connect(to)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
            Ok(Peer { stream, frames: Vec::new(), next: 0, part: Vec::new(), unsent: Vec::new() })
        };
        let peers = (0..count).map(connect).collect::<io::Result<_>>()?;
        Ok(Self { poll, events: Events::with_capacity(EVENTS), peers, buffer: vec![0; BUFFER], wire })
    }

    /// Gives each client the message that it sends to an echo server.
    pub(super) fn prepare(&mut self, size: usize) {
        for (peer, number) in self.peers.iter_mut().zip(0..) {
            peer.frames = vec![self.wire.frame(0, &payload(number, size))];
        }
    }

    /// Opens virtual connections of each client, each to the next server; those have the IDs from 1 on.
    pub(super) fn dial(&mut self, each: usize, servers: usize, size: usize) -> io::Result<()> {
        for (number, peer) in self.peers.iter_mut().enumerate() {
            for of_peer in 0..each {
                let at = number * each + of_peer;
                let remote = (at % servers.max(1)) as u32 + 1;
                let conn = peer.dial(remote)?;
                peer.frames.push(self.wire.frame(conn, &payload(at as u32, size)));
            }
        }
        Ok(())
    }

    /// Keeps so many messages of each client in flight, for this time. Returns how many replies came.
    pub(super) fn run(&mut self, pipeline: usize, time: Duration) -> io::Result<u64> {
        let began = Instant::now();
        let (mut replies, mut owed) = (0, self.peers.len() * pipeline);
        for peer in &mut self.peers {
            peer.send(pipeline)?;
        }
        let mut heard = Instant::now();
        while owed > 0 {
            self.poll.poll(&mut self.events, Some(Duration::from_secs(1)))?;
            let is_over = began.elapsed() >= time;
            let before = replies;
            for event in &self.events {
                let Some(peer) = self.peers.get_mut(event.token().0) else { continue };
                peer.flush()?;
                let came = peer.receive(&mut self.buffer, self.wire)?;
                replies += came as u64;
                if is_over {
                    owed = owed.saturating_sub(came);
                } else {
                    peer.send(came)?;
                }
            }
            if replies > before {
                heard = Instant::now();
            } else if heard.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return Err(io::Error::other(format!("{owed} replies were missing for {seconds} s")));
            }
        }
        Ok(replies)
    }
}

/// Bytes that tell one connection from the others.
fn payload(number: u32, size: usize) -> Vec<u8> {
    number.to_le_bytes().into_iter().cycle().take(size).collect()
}

impl Peer {
    /// Opens a virtual connection. Refused until the server is known.
    fn dial(&mut self, remote: u32) -> io::Result<u32> {
        let began = Instant::now();
        self.write_now(&Command::New.frame())?;
        let conn = u32_at(&self.reply()?, LENGTH + 5)?;
        loop {
            self.write_now(&Command::Dial { conn, remote }.frame())?;
            if self.reply()? == (Command::Accept { conn, remote }).frame() {
                return Ok(conn);
            }
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("server {remote} was refused")));
            }
        }
    }

    fn send(&mut self, messages: usize) -> io::Result<()> {
        for _ in 0..messages {
            let Some(frame) = self.frames.get(self.next) else { break };
            self.unsent.extend_from_slice(frame);
            self.next = (self.next + 1) % self.frames.len().max(1);
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads all that is there. Returns how many replies were completed.
    fn receive(&mut self, buffer: &mut [u8], wire: Wire) -> io::Result<usize> {
        let mut replies = 0;
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.part.extend_from_slice(buffer.get(..read).unwrap_or_default());
                    replies += self.take_frames(wire)?;
                    if read < buffer.len() {
                        return Ok(replies);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(replies),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take_frames(&mut self, wire: Wire) -> io::Result<usize> {
        let (mut used, mut replies) = (0, 0);
        while let Some(len) = wire.whole(self.part.get(used..).unwrap_or_default())? {
            let frame = self.part.get(used..used + len).unwrap_or_default();
            used += len;
            if self.frames.iter().any(|sent| sent == frame) {
                replies += 1;
            } else if wire == Wire::Gateway && frame == Command::Ping.frame() {
                self.unsent.extend_from_slice(frame);
            } else {
                return Err(io::Error::new(ErrorKind::InvalidData, "a reply is not what was sent"));
            }
        }
        self.part.drain(..used);
        self.flush()?;
        Ok(replies)
    }

    /// Writes while nothing else is under way.
    fn write_now(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unsent.extend_from_slice(bytes);
        let began = Instant::now();
        while !self.unsent.is_empty() {
            self.flush()?;
            wait(began)?;
        }
        Ok(())
    }

    /// Waits for one frame while nothing else is under way.
    fn reply(&mut self) -> io::Result<Vec<u8>> {
        let (began, mut chunk) = (Instant::now(), [0; 64]);
        loop {
            if let Some(len) = Wire::Gateway.whole(&self.part)? {
                return Ok(self.part.drain(..len).collect());
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.part.extend_from_slice(chunk.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait(began)?,
                Err(error) => return Err(error),
            }
        }
    }
}

fn wait(began: Instant) -> io::Result<()> {
    if began.elapsed() > PATIENCE {
        return Err(ErrorKind::TimedOut.into());
    }
    std::thread::yield_now();
    Ok(())
}
