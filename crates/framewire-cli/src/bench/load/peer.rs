use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::LoadError;
use super::pattern::Pattern;

/// Connections from one loopback address; well below the usual 28,000 ephemeral ports.
const PER_SOURCE: usize = 12_000;
/// `127.0.0.2` and up: as many as there can be.
const SOURCES: usize = 200;

/// One connection of the load: how much of which frame has been sent and received.
///
/// Invariant: `got ≤ sent + 1` frames unless it follows another, `sent_part < frame`, `got_part < frame`.
pub(super) struct Peer {
    stream: TcpStream,
    /// Tells this connection's frames from all others; a slot that connects again gets a new one.
    pub(super) id: u64,
    /// Whose frames come: its own, or those of the connection that it follows.
    from: u64,
    /// Frames to send, the partly sent one included.
    pub(super) due: usize,
    /// Whole frames sent.
    pub(super) sent: u64,
    sent_part: usize,
    /// Whole frames received and found right.
    pub(super) got: u64,
    got_part: usize,
    /// The kernel took part of the last write, or the connection is still being made.
    blocked: bool,
}

/// What one turn of reading left behind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing more to read for now.
    Drained,
    /// The server closed.
    Closed,
}

impl Peer {
    /// Begins to connect and registers once, for everything, under `slot`.
    pub(super) fn connect(
        registry: &Registry,
        to: SocketAddr,
        slot: usize,
        id: u64,
    ) -> Result<Self, LoadError> {
        let mut stream = begin_connect(to, id).map_err(LoadError::connect)?;
        registry
            .register(&mut stream, Token(slot), Interest::READABLE | Interest::WRITABLE)
            .map_err(LoadError::connect)?;
        Ok(Self { stream, id, from: id, due: 0, sent: 0, sent_part: 0, got: 0, got_part: 0, blocked: true })
    }

    /// From now on the frames of that connection come, after the one that each has got.
    pub(super) fn follow(&mut self, publisher: u64) {
        self.from = publisher;
    }

    /// Returns `true` if every frame that is or was to be sent has come back.
    pub(super) fn is_answered(&self) -> bool {
        self.due == 0 && self.got == self.sent
    }

    /// The kernel says that writing is possible again, or that connecting has ended one way or the other.
    pub(super) fn handle_writable(&mut self) -> Result<(), LoadError> {
        if self.sent == 0 {
            if let Some(error) = self.stream.take_error().map_err(LoadError::connect)? {
                return Err(LoadError::connect(error));
            }
        }
        self.blocked = false;
        Ok(())
    }

    /// Writes what is due, as far as the kernel takes it.
    #[inline]
    pub(super) fn flush(&mut self, pattern: &mut Pattern) -> Result<(), LoadError> {
        let frame = pattern.frame_len();
        while self.due > 0 && !self.blocked {
            let bytes = pattern.outgoing(self.id, self.sent, self.due, self.sent_part);
            match self.stream.write(bytes) {
                Ok(written) => {
                    self.blocked = written < bytes.len();
                    let reached = self.sent_part + written;
                    self.sent += (reached / frame) as u64;
                    self.due -= reached / frame;
                    self.sent_part = reached % frame;
                }
                Err(error) if is_not_yet(&error) => self.blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(LoadError::broken(self.id, error)),
            }
        }
        Ok(())
    }

    /// Reads until the socket is drained; every byte is compared, `on_frame` is told the number of each whole frame.
    ///
    /// `hung_up` says that the kernel announced the end of the stream, so that reading goes on until it is seen.
    #[inline]
    pub(super) fn read(
        &mut self,
        pattern: &mut Pattern,
        buffer: &mut [u8],
        hung_up: bool,
        mut on_frame: impl FnMut(u64),
    ) -> Result<End, LoadError> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(End::Closed),
                Ok(n) => {
                    self.consume(pattern, buffer.get(..n).unwrap_or_default(), &mut on_frame)?;
                    // A short read means that the socket is drained (epoll and kqueue both tell of what comes next).
                    if n < buffer.len() && !hung_up {
                        return Ok(End::Drained);
                    }
                }
                Err(error) if is_not_yet(&error) => return Ok(End::Drained),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(LoadError::broken(self.id, error)),
            }
        }
    }

    #[inline]
    fn consume(
        &mut self,
        pattern: &mut Pattern,
        mut bytes: &[u8],
        on_frame: &mut impl FnMut(u64),
    ) -> Result<(), LoadError> {
        let frame = pattern.frame_len();
        while !bytes.is_empty() {
            let take = (frame - self.got_part).min(bytes.len());
            let (seen, rest) = bytes.split_at(take);
            pattern.check(self.from, self.got, self.got_part, seen)?;
            bytes = rest;
            self.got_part += take;
            if self.got_part == frame {
                if self.from == self.id && self.got >= self.sent {
                    return Err(LoadError::Unasked { number: self.got });
                }
                self.got_part = 0;
                on_frame(self.got);
                self.got += 1;
            }
        }
        Ok(())
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

fn begin_connect(to: SocketAddr, id: u64) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source(to, id) {
        #[cfg(target_os = "linux")]
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SockAddr::from(source))?;
    }
    match socket.connect(&SockAddr::from(to)) {
        Err(error) if !is_in_progress(&error) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Where connection `id` comes from: past the first [`PER_SOURCE`] the ports of one address run short, and Linux
/// answers on all of `127.0.0.0/8`.
fn source(to: SocketAddr, id: u64) -> Option<SocketAddr> {
    let block = usize::try_from(id).unwrap_or_default() / PER_SOURCE;
    let last = u8::try_from(block % SOURCES + 1).unwrap_or(1);
    let spread = cfg!(target_os = "linux") && to.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) && block > 0;
    spread.then(|| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)))
}

fn is_in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) {
        return true;
    }
    error.kind() == ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_connections_take_the_address_the_system_gives_and_later_ones_spread() {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
        assert_eq!(source(to, 0), None);
        assert_eq!(source(to, 11_999), None);
        if cfg!(target_os = "linux") {
            assert_eq!(source(to, 12_000).unwrap().to_string(), "127.0.0.2:0");
            assert_eq!(source(to, 24_000).unwrap().to_string(), "127.0.0.3:0");
        }
        assert_eq!(source(SocketAddr::from(([10, 0, 0, 1], 80)), 24_000), None);
    }
}
