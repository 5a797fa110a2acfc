//! Sockets whose calls wait, each up to a deadline: for clients that have no reactor.

#[cfg(not(unix))]
use std::io::{Read, Write};
#[cfg(unix)]
use std::os::fd::AsFd;
use std::{
    io::{self, ErrorKind},
    net::Shutdown,
    time::{Duration, Instant},
};

#[cfg(unix)]
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, SendFlags},
};
#[cfg(unix)]
use socket2::SockAddr;
use socket2::{Domain, Socket, Type};

#[cfg(unix)]
use super::socket::SEND_FLAGS;
use super::{
    accept_failure::is_transient,
    socket::{BoundSocket, addr_of},
};
use crate::addr::Addr;

/// When a call has to be over; `None`: when it is done.
pub(crate) type Deadline = Option<Instant>;

/// Returns the deadline of what begins now and may take so long. One beyond the range of the clock is none.
pub(crate) fn deadline(within: Option<Duration>) -> Deadline {
    within.and_then(|within| Instant::now().checked_add(within))
}

/// Reads the clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A connected socket, of either family.
#[derive(Debug)]
pub(crate) struct BlockingSocket {
    socket: Socket,
    recv_timeout: Timeout,
    send_timeout: Timeout,
}

impl BlockingSocket {
    /// Connects to one address. The error is of the kind `TimedOut` if that takes longer than `within`.
    pub(crate) fn connect(addr: &Addr, within: Duration) -> io::Result<Self> {
        match addr {
            Addr::Ip(addr) => {
                let socket = Socket::new(Domain::for_address(*addr), Type::STREAM, None)?;
                socket.connect_timeout(&(*addr).into(), within)?;
                socket.set_tcp_nodelay(true)?;
                Self::new(socket)
            }
            #[cfg(unix)]
            Addr::Unix(Some(path)) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                // The system waits for a place in the listener's queue as it waits to send.
                socket.set_write_timeout(Some(within.max(SHORTEST)))?;
                socket.connect(&SockAddr::unix(path)?).map_err(timed_out)?;
                Self::new(socket)
            }
            Addr::Unix(_) | Addr::Stream { .. } => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// Takes over a socket, whatever its timeouts are.
    pub(crate) fn new(socket: impl Into<Socket>) -> io::Result<Self> {
        let socket = socket.into();
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(None)?;
        socket.set_write_timeout(None)?;
        Ok(Self { socket, recv_timeout: Timeout(None), send_timeout: Timeout(None) })
    }

    /// Receives what has come, or the next that comes; 0 bytes at the end of the stream. Behind its deadline it does not
    /// wait. The error is of the kind `TimedOut` if nothing came.
    pub(crate) fn recv(&mut self, into: &mut [u8], until: Deadline) -> io::Result<usize> {
        loop {
            let left = until.map(|until| until.saturating_duration_since(now()));
            let received = if left.is_some_and(|left| left.is_zero()) {
                self.try_recv(into).map_err(timed_out)
            } else {
                if let Some(timeout) = self.recv_timeout.adapt(left) {
                    self.socket.set_read_timeout(timeout)?;
                }
                self.recv_waiting(into)
            };
            match received {
                Err(error) if is_early(&error) => {}
                received => return received,
            }
        }
    }

    /// Sends as many bytes as there is room for, or comes to be. As for [`recv`](Self::recv).
    pub(crate) fn send(&mut self, bytes: &[u8], until: Deadline) -> io::Result<usize> {
        loop {
            let left = until.map(|until| until.saturating_duration_since(now()));
            let sent = if left.is_some_and(|left| left.is_zero()) {
                self.try_send(bytes).map_err(timed_out)
            } else {
                if let Some(timeout) = self.send_timeout.adapt(left) {
                    self.socket.set_write_timeout(timeout)?;
                }
                self.send_waiting(bytes)
            };
            match sent {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if is_early(&error) => {}
                sent => return sent,
            }
        }
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Closing will discard what is queued and reset the connection. A Unix socket knows no reset: nothing changes.
    pub(crate) fn make_reset(&self) {
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    pub(crate) fn peer_addr(&self) -> io::Result<Addr> {
        addr_of(&self.socket.peer_addr()?)
    }

    pub(crate) fn local_addr(&self) -> io::Result<Addr> {
        addr_of(&self.socket.local_addr()?)
    }
}

#[cfg(unix)]
impl BlockingSocket {
    fn recv_waiting(&self, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(&self.socket, into, RecvFlags::empty())?.0)
    }

    fn send_waiting(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.socket, bytes, SEND_FLAGS)?)
    }

    fn try_recv(&self, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(&self.socket, into, RecvFlags::DONTWAIT)?.0)
    }

    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.socket, bytes, SEND_FLAGS.union(SendFlags::DONTWAIT))?)
    }
}

#[cfg(not(unix))]
impl BlockingSocket {
    fn recv_waiting(&self, into: &mut [u8]) -> io::Result<usize> {
        (&self.socket).read(into)
    }

    fn send_waiting(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.socket).write(bytes)
    }

    fn try_recv(&self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.set_nonblocking(true)?;
        let received = (&self.socket).read(into);
        self.socket.set_nonblocking(false)?;
        received
    }

    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_nonblocking(true)?;
        let sent = (&self.socket).write(bytes);
        self.socket.set_nonblocking(false)?;
        sent
    }
}

/// Returns `true` if the call is to be made again, unless its deadline has passed: the system's timeout was up, which is
/// shorter than what is left, or a signal came.
fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
        || cfg!(windows) && error.kind() == ErrorKind::TimedOut
}

/// The error of a call that would have waited, and may not.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

/// The shortest timeout that all systems know; 0 is none.
const SHORTEST: Duration = Duration::from_millis(1);

/// A timeout as it is set on a socket, which applies to each of its calls.
#[derive(Debug)]
struct Timeout(Option<Duration>);

impl Timeout {
    /// Returns the timeout to be set for a call for which so much time is `left`, unless the present one is as good: a
    /// call that returns early is made again.
    ///
    /// An eighth less than what is left, so that the next call, which mostly has as much time, finds it good.
    fn adapt(&mut self, left: Option<Duration>) -> Option<Option<Duration>> {
        let is_good = match (self.0, left) {
            (None, None) => true,
            (Some(set), Some(left)) => set <= left && set >= left / 2,
            _ => false,
        };
        if is_good {
            return None;
        }
        self.0 = left.map(|left| (left - left / 8).max(SHORTEST));
        Some(self.0)
    }
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct BlockingListener(BoundSocket);

/// How many connections in a row may be lost before accepting has failed: under a security policy that forbids it, every
/// one is.
const LOST: usize = 64;

impl BlockingListener {
    pub(crate) fn new(bound: BoundSocket) -> Self {
        Self(bound)
    }

    pub(crate) fn addr(&self) -> &Addr {
        self.0.addr()
    }

    /// Accepts the next connection. The error is of the kind `TimedOut` if none comes.
    pub(crate) fn accept(&self, until: Deadline) -> io::Result<BlockingSocket> {
        let mut lost = 0;
        loop {
            match self.0.socket.accept() {
                Ok((socket, _)) => {
                    if let Addr::Ip(_) = self.addr() {
                        // Fails if the peer is gone already, which the first call will find.
                        let _ = socket.set_tcp_nodelay(true);
                    }
                    return BlockingSocket::new(socket);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = until.map(|until| until.saturating_duration_since(now()));
                    if left.is_some_and(|left| left.is_zero()) {
                        return Err(ErrorKind::TimedOut.into());
                    }
                    self.wait(left)?;
                }
                Err(error) if is_transient(&error) && lost < LOST => lost += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until a connection may have come, but no longer than what is `left`.
    #[cfg(unix)]
    fn wait(&self, left: Option<Duration>) -> io::Result<()> {
        // A time that the system does not know is split.
        const LONGEST: Duration = Duration::from_secs(86_400);
        let left = Timespec::try_from(left.unwrap_or(LONGEST).min(LONGEST)).map_err(io::Error::other)?;
        match poll(&mut [PollFd::from_borrowed_fd(self.0.socket.as_fd(), PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(unix))]
    fn wait(&self, left: Option<Duration>) -> io::Result<()> {
        // Often enough for a client not to notice, seldom enough to cost nothing.
        const INTERVAL: Duration = Duration::from_millis(5);
        std::thread::sleep(left.unwrap_or(INTERVAL).min(INTERVAL));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_timeout_is_set_anew_only_when_it_is_too_long_or_much_too_short() {
        let mut timeout = Timeout(None);
        assert_eq!(timeout.adapt(None), None);
        assert_eq!(timeout.adapt(Some(8 * SECOND)), Some(Some(7 * SECOND)));
        assert_eq!(timeout.adapt(Some(8 * SECOND - SECOND / 1000)), None);
        assert_eq!(timeout.adapt(Some(SECOND)), Some(Some(SECOND * 7 / 8)));
        assert_eq!(timeout.adapt(Some(2 * SECOND)), Some(Some(SECOND * 7 / 4)));
        assert_eq!(timeout.adapt(Some(Duration::from_nanos(1))), Some(Some(SHORTEST)));
        assert_eq!(timeout.adapt(None), Some(None));
    }
}
