#[cfg(unix)]
use std::os::fd::{AsRawFd, OwnedFd};
use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

#[cfg(not(unix))]
use mio::net;
#[cfg(unix)]
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, event::Source};
#[cfg(unix)]
use rustix::net::RecvFlags;
use socket2::{Domain, Socket, Type};

#[cfg(unix)]
use super::socket::SEND_FLAGS;
use super::socket::{SocketOptions, set_buffers, set_reuse_port};
use crate::addr::Addr;

/// A bound UDP socket. The kernel keeps what comes for it, as far as its buffer goes, but nothing is read yet.
#[derive(Debug)]
pub(crate) struct BoundDatagrams {
    socket: Socket,
    addr: SocketAddr,
}

impl BoundDatagrams {
    pub(crate) fn udp(addr: SocketAddr, reuse_port: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if reuse_port {
            set_reuse_port(&socket)?;
        }
        socket.bind(&addr.into())?;
        let addr = socket.local_addr()?.as_socket().unwrap_or(addr);
        Ok(Self { socket, addr })
    }

    /// More sockets at the same address; the kernel chooses one for each peer, by a hash of its address.
    pub(crate) fn siblings(&self, count: usize) -> io::Result<Vec<Self>> {
        if count > 0 {
            set_reuse_port(&self.socket)?;
        }
        (0..count).map(|_| Self::udp(self.addr, true)).collect()
    }

    pub(crate) fn addr(&self) -> Addr {
        Addr::Ip(self.addr)
    }

    /// Sets the sizes of its buffers.
    pub(crate) fn open(self, options: &SocketOptions) -> io::Result<(DatagramSocket, Addr)> {
        let Self { socket, addr } = self;
        set_buffers(&socket, options)?;
        Ok((DatagramSocket { inner: to_inner(socket), is_connected: false }, Addr::Ip(addr)))
    }
}

#[cfg(unix)]
fn to_inner(socket: Socket) -> Inner {
    socket.into()
}

#[cfg(not(unix))]
fn to_inner(socket: Socket) -> Inner {
    net::UdpSocket::from_std(socket.into())
}

#[cfg(unix)]
type Inner = OwnedFd;
#[cfg(not(unix))]
type Inner = net::UdpSocket;

/// A UDP socket, which many peers share, or which is connected to one.
#[derive(Debug)]
pub(crate) struct DatagramSocket {
    inner: Inner,
    is_connected: bool,
}

/// Linux tells the length of a datagram also where it was cut; elsewhere the space to receive into is larger than any.
#[cfg(any(target_os = "linux", target_os = "android"))]
const RECV_FLAGS: RecvFlags = RecvFlags::TRUNC;
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const RECV_FLAGS: RecvFlags = RecvFlags::empty();

impl DatagramSocket {
    /// A socket at a port that the system chooses, connected to this peer, with its own address.
    pub(crate) fn connect(to: SocketAddr, options: &SocketOptions) -> io::Result<(Self, Addr)> {
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        set_buffers(&socket, options)?;
        socket.connect(&to.into())?;
        let local = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
        Ok((Self { inner: to_inner(socket), is_connected: true }, Addr::Ip(local)))
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        #[cfg(unix)]
        return SourceFd(&self.inner.as_raw_fd()).register(registry, token, interest);
        #[cfg(not(unix))]
        return self.inner.register(registry, token, interest);
    }

    #[cfg(unix)]
    #[inline]
    pub(crate) fn recv_from(&mut self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (_, len, from) = rustix::net::recvfrom(&self.inner, into, RECV_FLAGS)?;
        let from = from.and_then(|from| SocketAddr::try_from(from).ok());
        Ok((len, from.ok_or(ErrorKind::AddrNotAvailable)?))
    }

    #[cfg(unix)]
    #[inline]
    pub(crate) fn send_to(&mut self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        if self.is_connected {
            rustix::net::send(&self.inner, datagram, SEND_FLAGS)?;
        } else {
            rustix::net::sendto(&self.inner, datagram, SEND_FLAGS, &to)?;
        }
        Ok(())
    }

    #[cfg(not(unix))]
    pub(crate) fn recv_from(&mut self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.inner.recv_from(into)
    }

    #[cfg(not(unix))]
    pub(crate) fn send_to(&mut self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let sent =
            if self.is_connected { self.inner.send(datagram) } else { self.inner.send_to(datagram, to) };
        sent.map(|_| ())
    }
}
