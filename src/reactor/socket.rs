#[cfg(not(unix))]
use std::io::{Read, Write};
#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::{
    io::{self, IoSlice},
    net::{Shutdown, SocketAddr},
    time::Duration,
};

#[cfg(unix)]
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, event::Source, net};
#[cfg(unix)]
use rustix::{
    io::Errno,
    net::{RecvFlags, SendAncillaryBuffer, SendFlags},
};
use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::Connecting;
#[cfg(unix)]
use super::socket_file::SocketFile;
use crate::{addr::Addr, strategy::DetachedSocket};

/// Settings of sockets, applied to the listener, from which Linux passes them on to the connections.
#[derive(Debug, Clone)]
pub(crate) struct SocketOptions {
    pub(crate) backlog: u32,
    pub(crate) nodelay: bool,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) recv_buffer: Option<usize>,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) reuse_port: bool,
}

/// More than the usual 128, with which 2,000 clients that connect at once take seconds. The kernel cuts it to
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            backlog: BACKLOG as u32,
            nodelay: true,
            keepalive: None,
            recv_buffer: None,
            send_buffer: None,
            reuse_port: false,
        }
    }
}

/// A bound socket. It listens already, so that clients that know its address can connect, but is not accepted from yet.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    /// Removed again before the socket is closed.
    #[cfg(unix)]
    file: Option<SocketFile>,
    pub(super) socket: Socket,
    addr: Addr,
}

impl BoundSocket {
    pub(crate) fn tcp(addr: SocketAddr, reuse_port: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if reuse_port {
            set_reuse_port(&socket)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(addr);
        Ok(Self {
            #[cfg(unix)]
            file: None,
            socket,
            addr: Addr::Ip(bound),
        })
    }

    /// A file that an earlier server left behind is replaced; one that another server listens on is not.
    #[cfg(unix)]
    pub(crate) fn unix(path: std::path::PathBuf) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let is_abstract = path.as_os_str().as_encoded_bytes().starts_with(b"\0");
        let file = if is_abstract {
            socket.bind(&SockAddr::unix(&path)?)?;
            socket.listen(BACKLOG)?;
            None
        } else {
            Some(SocketFile::bind(&socket, &path, BACKLOG)?)
        };
        Ok(Self { file, socket, addr: Addr::Unix(Some(path)) })
    }

    /// More sockets at the same TCP address; the kernel spreads connections over all that listen.
    pub(crate) fn siblings(&self, count: usize) -> io::Result<Vec<Self>> {
        let Some(addr) = self.addr.socket_addr() else { return Ok(Vec::new()) };
        set_reuse_port(&self.socket)?;
        (0..count).map(|_| Self::tcp(addr, true)).collect()
    }

    pub(crate) fn addr(&self) -> &Addr {
        &self.addr
    }

    /// Sets the options, for the connections from now on.
    pub(crate) fn listen(self, options: &SocketOptions) -> io::Result<(Listener, Addr)> {
        #[cfg(unix)]
        if let Addr::Unix(_) = self.addr {
            return self.listen_unix(options);
        }
        let Self { socket, addr, .. } = self;
        set_buffers(&socket, options)?;
        set_tcp_options(&SockRef::from(&socket), options)?;
        if options.reuse_port {
            set_reuse_port(&socket)?;
        }
        socket.listen(backlog(options))?;
        let kind = Kind::Tcp(net::TcpListener::from_std(socket.into()));
        Ok((Listener { kind, options: options.clone() }, addr))
    }

    #[cfg(unix)]
    fn listen_unix(self, options: &SocketOptions) -> io::Result<(Listener, Addr)> {
        let Self { socket, addr, file } = self;
        set_buffers(&socket, options)?;
        socket.listen(backlog(options))?;
        let kind = Kind::Unix { _file: file, listener: net::UnixListener::from_std(socket.into()) };
        Ok((Listener { kind, options: options.clone() }, addr))
    }
}

/// Saturates at what the system's type holds; the kernel has a limit of its own.
pub(super) fn set_buffers(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    const MOST: usize = i32::MAX as usize;
    if let Some(bytes) = options.recv_buffer {
        socket.set_recv_buffer_size(bytes.min(MOST))?;
    }
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes.min(MOST))?;
    }
    Ok(())
}

fn backlog(options: &SocketOptions) -> i32 {
    i32::try_from(options.backlog).unwrap_or(i32::MAX)
}

#[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
pub(super) fn set_reuse_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(all(unix, not(any(target_os = "solaris", target_os = "illumos")))))]
pub(super) fn set_reuse_port(_socket: &Socket) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "SO_REUSEPORT is not supported here"))
}

fn set_tcp_options(socket: &SockRef<'_>, options: &SocketOptions) -> io::Result<()> {
    if options.nodelay {
        socket.set_tcp_nodelay(true)?;
    }
    if let Some(idle) = options.keepalive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    Ok(())
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    kind: Kind,
    options: SocketOptions,
}

#[derive(Debug)]
enum Kind {
    Tcp(net::TcpListener),
    #[cfg(unix)]
    Unix {
        /// Removed before the socket is closed; an abstract address has none.
        _file: Option<SocketFile>,
        listener: net::UnixListener,
    },
}

impl Listener {
    pub(crate) fn accept(&mut self) -> io::Result<(Stream, Addr)> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                if !cfg!(target_os = "linux") {
                    // Fails if the peer is gone already, which the first read will find.
                    let _ = set_tcp_options(&SockRef::from(&stream), &self.options);
                }
                Ok((Stream(stream.into()), Addr::Ip(peer)))
            }
            #[cfg(unix)]
            Kind::Unix { listener, .. } => {
                let (stream, peer) = listener.accept()?;
                Ok((Stream(stream.into()), Addr::Unix(peer.as_pathname().map(Into::into))))
            }
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.kind {
            Kind::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            #[cfg(unix)]
            Kind::Unix { listener, .. } => listener.register(registry, token, Interest::READABLE),
        }
    }
}

/// Writing to a peer that is gone must be an error of that session, and not a SIGPIPE to the process. Apple's
/// systems have no flag for it but an option of the socket, which socket2 sets and a listener hands on.
#[cfg(all(unix, not(target_vendor = "apple")))]
pub(super) const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL;
#[cfg(all(unix, target_vendor = "apple"))]
pub(super) const SEND_FLAGS: SendFlags = SendFlags::empty();

/// What a stream is polled for. Urgent data cuts a read short before what follows it, see `to_ready`.
#[cfg(any(target_os = "linux", target_os = "android"))]
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

#[cfg(unix)]
fn is_under_way(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::INPROGRESS | Errno::INTR))
}

#[cfg(not(unix))]
fn is_under_way(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// A connected socket, of either family. Its descriptor is all that a session has to hold of it: 4 bytes.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Stream(OwnedFd);

/// A connected socket.
#[cfg(not(unix))]
#[derive(Debug)]
pub(crate) struct Stream(net::TcpStream);

#[cfg(unix)]
impl AsFd for Stream {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Stream {
    /// Begins to connect to an address.
    pub(crate) fn connect(addr: &Addr, options: &SocketOptions) -> io::Result<(Self, Connecting)> {
        let (socket, to) = match addr {
            Addr::Ip(addr) => (Socket::new(Domain::for_address(*addr), Type::STREAM, None)?, (*addr).into()),
            #[cfg(unix)]
            Addr::Unix(Some(path)) => (Socket::new(Domain::UNIX, Type::STREAM, None)?, SockAddr::unix(path)?),
            Addr::Unix(_) | Addr::Stream { .. } => return Err(io::ErrorKind::Unsupported.into()),
        };
        socket.set_nonblocking(true)?;
        // Before it connects: the peer is told then how much it may send.
        set_buffers(&socket, options)?;
        if addr.ip().is_some() {
            set_tcp_options(&SockRef::from(&socket), options)?;
        }
        let connecting = match socket.connect(&to) {
            Ok(()) => Connecting::Done,
            Err(error) if is_under_way(&error) => Connecting::UnderWay,
            Err(error) => return Err(error),
        };
        #[cfg(unix)]
        return Ok((Self(socket.into()), connecting));
        #[cfg(not(unix))]
        return Ok((Self(net::TcpStream::from_std(socket.into())), connecting));
    }

    /// Returns what has become of a connection that was under way.
    pub(crate) fn finish_connect(&self) -> io::Result<Connecting> {
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        match SockRef::from(&self.0).peer_addr() {
            Ok(_) => Ok(Connecting::Done),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(Connecting::UnderWay),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        #[cfg(unix)]
        return SourceFd(&self.0.as_raw_fd()).register(registry, token, INTEREST);
        #[cfg(not(unix))]
        return self.0.register(registry, token, INTEREST);
    }

    pub(crate) fn reregister(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        #[cfg(unix)]
        return SourceFd(&self.0.as_raw_fd()).reregister(registry, token, INTEREST);
        #[cfg(not(unix))]
        return self.0.reregister(registry, token, INTEREST);
    }

    #[cfg(unix)]
    #[inline]
    pub(crate) fn recv(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (n, _) = rustix::net::recv(self, into, RecvFlags::empty())?;
        Ok(n)
    }

    #[cfg(unix)]
    #[inline]
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self, bytes, SEND_FLAGS)?)
    }

    #[cfg(unix)]
    pub(crate) fn send_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::net::sendmsg(self, slices, &mut SendAncillaryBuffer::default(), SEND_FLAGS)?)
    }

    // Elsewhere mio has to know that a call would have blocked: it announces the next event only then.

    #[cfg(not(unix))]
    pub(crate) fn recv(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }

    #[cfg(not(unix))]
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    #[cfg(not(unix))]
    pub(crate) fn send_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(slices)
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(&self.0).shutdown(Shutdown::Write)
    }

    /// Its calls wait from now on.
    #[cfg(unix)]
    pub(crate) fn detach(self) -> io::Result<DetachedSocket> {
        let socket = Socket::from(self.0);
        socket.set_nonblocking(false)?;
        if socket.local_addr()?.is_unix() {
            Ok(DetachedSocket::Unix(socket.into()))
        } else {
            Ok(DetachedSocket::Tcp(socket.into()))
        }
    }

    #[cfg(not(unix))]
    pub(crate) fn detach(self) -> io::Result<DetachedSocket> {
        let stream = std::net::TcpStream::from(self.0);
        stream.set_nonblocking(false)?;
        Ok(DetachedSocket::Tcp(stream))
    }

    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        SockRef::from(&self.0).take_error()
    }

    /// Closing will discard what is queued and reset the connection. A Unix socket knows no reset: nothing changes.
    pub(crate) fn make_reset(&self) {
        let _ = SockRef::from(&self.0).set_linger(Some(Duration::ZERO));
    }

    pub(crate) fn local_addr(&self) -> io::Result<Addr> {
        addr_of(&SockRef::from(&self.0).local_addr()?)
    }
}

pub(super) fn addr_of(addr: &SockAddr) -> io::Result<Addr> {
    if let Some(addr) = addr.as_socket() {
        return Ok(Addr::Ip(addr));
    }
    #[cfg(unix)]
    return Ok(Addr::Unix(addr.as_pathname().map(Into::into)));
    #[cfg(not(unix))]
    return Err(io::ErrorKind::Unsupported.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_socket_takes_four_bytes_of_its_session() {
        assert_eq!(size_of::<Stream>(), 4);
    }

    #[test]
    fn a_buffer_larger_than_32_bits_tell_is_as_large_as_the_system_allows() -> io::Result<()> {
        let socket = BoundSocket::tcp(SocketAddr::from(([127, 0, 0, 1], 0)), false)?;
        let before = [socket.socket.recv_buffer_size()?, socket.socket.send_buffer_size()?];
        let wrapped = usize::try_from((1_u64 << 32) + 1).unwrap_or(usize::MAX);
        let options =
            SocketOptions { recv_buffer: Some(wrapped), send_buffer: Some(wrapped), ..Default::default() };
        let (Listener { kind: Kind::Tcp(listener), .. }, _) = socket.listen(&options)? else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let listener = SockRef::from(&listener);
        let after = [listener.recv_buffer_size()?, listener.send_buffer_size()?];
        assert!(after[0] > 60_000 && after[1] > 10_000, "from {before:?} to {after:?}");
        Ok(())
    }
}
