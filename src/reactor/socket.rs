use std::{
    io::{self, IoSlice, Read, Write},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use mio::{Interest, Registry, Token, event::Source, net};
use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::addr::PeerAddr;

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

/// More than the 128 that is usual: with that, 2,000 clients that connect at once take seconds. The kernel cuts it to
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

/// A socket that listens, so that nobody who is told its address is turned away, and that nobody accepts from yet.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    socket: Socket,
    addr: PeerAddr,
    /// Removed again when the socket is dropped.
    path: Option<OwnedPath>,
}

/// The file of a Unix socket.
#[derive(Debug)]
struct OwnedPath(PathBuf);

impl Drop for OwnedPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
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
        Ok(Self { socket, addr: PeerAddr::Ip(bound), path: None })
    }

    /// A file that an earlier server left behind is replaced; one that somebody listens on is not.
    #[cfg(unix)]
    pub(crate) fn unix(path: PathBuf) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let addr = SockAddr::unix(&path)?;
        if let Err(error) = socket.bind(&addr) {
            if error.kind() != io::ErrorKind::AddrInUse || !is_stale(&path) {
                return Err(error);
            }
            std::fs::remove_file(&path)?;
            socket.bind(&addr)?;
        }
        let path_is_ours = OwnedPath(path.clone());
        socket.listen(BACKLOG)?;
        Ok(Self { socket, addr: PeerAddr::Unix(Some(path)), path: Some(path_is_ours) })
    }

    /// More sockets at the same TCP address; the kernel spreads connections over all that listen.
    pub(crate) fn siblings(&self, count: usize) -> io::Result<Vec<Self>> {
        let Some(addr) = self.addr.socket_addr() else { return Ok(Vec::new()) };
        set_reuse_port(&self.socket)?;
        (0..count).map(|_| Self::tcp(addr, true)).collect()
    }

    pub(crate) fn addr(&self) -> &PeerAddr {
        &self.addr
    }

    /// Sets the options, for the connections from now on.
    pub(crate) fn listen(self, options: &SocketOptions) -> io::Result<(Listener, PeerAddr)> {
        let Self { socket, addr, path } = self;
        if let Some(bytes) = options.recv_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = options.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        let kind = match path {
            #[cfg(unix)]
            Some(path) => {
                socket.listen(backlog(options))?;
                Kind::Unix(net::UnixListener::from_std(socket.into()), path)
            }
            _ => {
                set_tcp_options(&SockRef::from(&socket), options)?;
                if options.reuse_port {
                    set_reuse_port(&socket)?;
                }
                socket.listen(backlog(options))?;
                Kind::Tcp(net::TcpListener::from_std(socket.into()))
            }
        };
        Ok((Listener { kind, options: options.clone() }, addr))
    }
}

fn backlog(options: &SocketOptions) -> i32 {
    i32::try_from(options.backlog).unwrap_or(i32::MAX)
}

/// Whether it is the file of a Unix socket that nobody listens on. Any other file is not ours to remove.
#[cfg(unix)]
fn is_stale(path: &std::path::Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    // Without waiting: a server whose queue is full is alive.
    let knock = || -> io::Result<()> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    is_socket && knock().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn set_reuse_port(socket: &Socket) -> io::Result<()> {
    #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
    return socket.set_reuse_port(true);
    #[cfg(not(all(unix, not(any(target_os = "solaris", target_os = "illumos")))))]
    return Err(io::Error::new(io::ErrorKind::Unsupported, "SO_REUSEPORT is not supported here"));
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
    Unix(net::UnixListener, #[expect(dead_code, reason = "removes the file when it is dropped")] OwnedPath),
}

impl Listener {
    pub(crate) fn accept(&mut self) -> io::Result<(Stream, PeerAddr)> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                if !cfg!(target_os = "linux") {
                    // Fails when the peer is gone already, which the first read will tell.
                    let _ = set_tcp_options(&SockRef::from(&stream), &self.options);
                }
                Ok((Stream::Tcp(stream), PeerAddr::Ip(peer)))
            }
            #[cfg(unix)]
            Kind::Unix(listener, _) => {
                let (stream, peer) = listener.accept()?;
                Ok((Stream::Unix(stream), PeerAddr::Unix(peer.as_pathname().map(Into::into))))
            }
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.kind {
            Kind::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            #[cfg(unix)]
            Kind::Unix(listener, _) => listener.register(registry, token, Interest::READABLE),
        }
    }
}

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(net::TcpStream),
    #[cfg(unix)]
    Unix(net::UnixStream),
}

macro_rules! each {
    ($stream:expr, $inner:ident => $body:expr) => {
        match $stream {
            Stream::Tcp($inner) => $body,
            #[cfg(unix)]
            Stream::Unix($inner) => $body,
        }
    };
}

impl Stream {
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        // Urgent data cuts a read short before what follows it, see `to_ready`.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let interest = interest | Interest::PRIORITY;
        each!(self, stream => stream.register(registry, token, interest))
    }

    #[inline]
    pub(crate) fn recv(&mut self, into: &mut [u8]) -> io::Result<usize> {
        each!(self, stream => stream.read(into))
    }

    #[inline]
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, stream => stream.write(bytes))
    }

    pub(crate) fn send_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        each!(self, stream => stream.write_vectored(slices))
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        each!(self, stream => stream.shutdown(std::net::Shutdown::Write))
    }

    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        each!(self, stream => stream.take_error())
    }

    /// Closing will discard what is queued and reset the connection.
    pub(crate) fn make_reset(&self) {
        if let Self::Tcp(stream) = self {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<PeerAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().map(PeerAddr::Ip),
            #[cfg(unix)]
            Self::Unix(stream) => {
                stream.local_addr().map(|addr| PeerAddr::Unix(addr.as_pathname().map(Into::into)))
            }
        }
    }
}
