//! Addresses of peers, of any family, and what is known of a connection before it is a session.

mod network;
mod new_connection;
mod origin;
mod target;

pub use self::{network::NetworkError, new_connection::NewConnection, origin::Origin, target::BindAddr};

pub(crate) use self::network::Networks;
pub(crate) use self::target::{Name, Resolved, Target};

use std::{
    fmt,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
};

use crate::id::{DialId, SessionId};

/// The address of one end of a connection.
///
/// ```
/// use framewire::Addr;
///
/// let peer = Addr::Ip("[2001:db8::1]:7000".parse()?);
/// assert_eq!(peer.to_string(), "[2001:db8::1]:7000");
/// assert_eq!(Addr::Unix(Some("/run/chat.sock".into())).to_string(), "unix:/run/chat.sock");
/// assert_eq!(Addr::Unix(None).ip(), None);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Addr {
    /// TCP or UDP over IPv4 or IPv6.
    Ip(SocketAddr),
    /// A Unix socket and its path; `None` for an unnamed one, as clients usually have.
    Unix(Option<PathBuf>),
    /// The other end of a stream that is [carried](crate::Streams). Shown as `10.0.0.1:7001#42`.
    #[non_exhaustive]
    Stream {
        /// The address of the carrier's peer.
        carrier: Arc<Addr>,
        /// Who it is there, by a number: see [`NewStream::peer`](crate::NewStream::peer).
        peer: u64,
    },
}

impl Addr {
    /// Returns the IP address, without the port; `None` for a Unix socket, and for a stream, whose carrier is not its peer.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|addr| addr.ip())
    }

    /// Returns the IP address with the port; `None` for a Unix socket and for a stream.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(addr) => Some(*addr),
            Self::Unix(_) | Self::Stream { .. } => None,
        }
    }
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Self {
        Self::Ip(addr)
    }
}

/// A peer chooses its own path, so characters that cannot be printed are escaped: it cannot forge lines of a log.
impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => write!(f, "{addr}"),
            Self::Unix(Some(path)) => {
                f.write_str("unix:")?;
                for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
                    write!(f, "{}{}", chunk.valid().escape_debug(), chunk.invalid().escape_ascii())?;
                }
                Ok(())
            }
            Self::Unix(None) => write!(f, "unix:(unnamed)"),
            Self::Stream { carrier, peer } => write!(f, "{carrier}#{peer}"),
        }
    }
}

/// Both ends of a connection, and where it comes from, in 16 bytes: each session has one, and nearly all are accepted
/// over IPv4, whose addresses leave two bytes.
#[derive(Debug, Clone)]
pub(crate) enum Endpoints {
    V4 { listener: u16, peer: SocketAddrV4, local: SocketAddrV4 },
    Other { listener: u16, addrs: Box<(Addr, Addr)> },
    Dialled(Box<Dialled>),
    Carried(Box<Carried>),
}

/// The ends of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Carried {
    carrier: Arc<CarrierEnds>,
    number: u64,
    /// Who is at the other end, unless its address is known better.
    peer: Result<u64, Addr>,
    tag: u64,
}

/// What the streams of a carrier have in common.
#[derive(Debug)]
pub(crate) struct CarrierEnds {
    pub(crate) id: SessionId,
    pub(crate) peer: Arc<Addr>,
    pub(crate) local: Addr,
}

/// A connection that this side has made.
#[derive(Debug, Clone)]
pub(crate) struct Dialled {
    pub(crate) dial: DialId,
    pub(crate) progress: DialProgress,
    /// Their listener means nothing.
    ends: Endpoints,
}

/// How far a dialled connection has come, as the dial was notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DialProgress {
    /// `on_open` was not called yet.
    Opening,
    /// It was.
    Opened,
    /// The connection ends, and the dial goes on without it.
    Ended,
}

impl Endpoints {
    /// `listener` is less than 2^16; a server has at most 1024.
    pub(crate) fn new(peer: Addr, local: Addr, listener: usize) -> Self {
        debug_assert!(listener <= u16::MAX.into(), "listener {listener} does not fit");
        let listener = listener as u16;
        match (peer, local) {
            (Addr::Ip(SocketAddr::V4(peer)), Addr::Ip(SocketAddr::V4(local))) => {
                Self::V4 { listener, peer, local }
            }
            addrs => Self::Other { listener, addrs: Box::new(addrs) },
        }
    }

    /// Of a connection that this side has made.
    pub(crate) fn dialled(dial: DialId, peer: Addr, local: Addr) -> Self {
        let ends = Self::new(peer, local, 0);
        Self::Dialled(Box::new(Dialled { dial, progress: DialProgress::Opening, ends }))
    }

    /// Of a stream.
    pub(crate) fn carried(carrier: Arc<CarrierEnds>, number: u64, peer: u64, tag: u64) -> Self {
        Self::Carried(Box::new(Carried { carrier, number, peer: Ok(peer), tag }))
    }

    /// The same connection with another address of the peer.
    pub(crate) fn with_peer(&self, peer: Addr) -> Self {
        match self {
            Self::Dialled(dialled) => {
                let ends = dialled.ends.with_peer(peer);
                Self::Dialled(Box::new(Dialled { ends, ..**dialled }))
            }
            Self::Carried(carried) => {
                Self::Carried(Box::new(Carried { peer: Err(peer), ..(**carried).clone() }))
            }
            Self::V4 { listener, .. } | Self::Other { listener, .. } => {
                Self::new(peer, self.local(), (*listener).into())
            }
        }
    }

    pub(crate) fn are_unix(&self) -> bool {
        match self {
            Self::V4 { .. } | Self::Carried(_) => false,
            Self::Other { addrs, .. } => matches!(addrs.0, Addr::Unix(_)),
            Self::Dialled(dialled) => dialled.ends.are_unix(),
        }
    }

    /// Returns the number of the listener that accepted the connection; `None` for one that this side has made, and for a
    /// stream.
    pub(crate) fn listener(&self) -> Option<usize> {
        match self {
            Self::V4 { listener, .. } | Self::Other { listener, .. } => Some((*listener).into()),
            Self::Dialled(_) | Self::Carried(_) => None,
        }
    }

    /// Returns where the connection comes from.
    pub(crate) fn origin(&self) -> Origin {
        match self {
            Self::V4 { listener, .. } | Self::Other { listener, .. } => {
                Origin::Accepted { listener: (*listener).into() }
            }
            Self::Dialled(dialled) => Origin::Dialled(dialled.dial),
            Self::Carried(carried) => {
                Origin::Carried { carrier: carried.carrier.id, stream: carried.number, tag: carried.tag }
            }
        }
    }

    /// Returns what is known of the connection beyond its ends if this side has made it.
    pub(crate) fn as_dialled_mut(&mut self) -> Option<&mut Dialled> {
        if let Self::Dialled(dialled) = self { Some(dialled) } else { None }
    }

    pub(crate) fn peer(&self) -> Addr {
        match self {
            Self::V4 { peer, .. } => Addr::Ip((*peer).into()),
            Self::Other { addrs, .. } => addrs.0.clone(),
            Self::Dialled(dialled) => dialled.ends.peer(),
            Self::Carried(carried) => match &carried.peer {
                Ok(peer) => Addr::Stream { carrier: carried.carrier.peer.clone(), peer: *peer },
                Err(addr) => addr.clone(),
            },
        }
    }

    pub(crate) fn local(&self) -> Addr {
        match self {
            Self::V4 { local, .. } => Addr::Ip((*local).into()),
            Self::Other { addrs, .. } => addrs.1.clone(),
            Self::Dialled(dialled) => dialled.ends.local(),
            Self::Carried(carried) => carried.carrier.local.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_path_is_shown_as_it_is_but_for_what_would_forge_a_log() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        for (path, shown) in [
            (&b"/run/chat.sock"[..], "unix:/run/chat.sock"),
            ("/tmp/caf\u{e9} 1".as_bytes(), "unix:/tmp/caf\u{e9} 1"),
            (b"/tmp/a\nb\r\x1b[31m\0", r"unix:/tmp/a\nb\r\u{1b}[31m\0"),
            (b"/tmp/a\\n", r"unix:/tmp/a\\n"),
            (b"/tmp/\xff\xfe!", r"unix:/tmp/\xff\xfe!"),
            ("/tmp/\u{202e}gnp".as_bytes(), r"unix:/tmp/\u{202e}gnp"),
        ] {
            assert_eq!(Addr::Unix(Some(OsStr::from_bytes(path).into())).to_string(), shown);
        }
    }

    #[test]
    fn both_ends_and_the_listener_come_back_whatever_the_family() -> Result<(), std::net::AddrParseError> {
        let addresses = [
            Addr::Ip("10.0.0.1:7".parse()?),
            Addr::Ip("[::1]:8".parse()?),
            Addr::Unix(Some("/tmp/s".into())),
            Addr::Unix(None),
        ];
        for (peer, listener) in addresses.iter().zip([0, 1, 1023, u16::MAX.into()]) {
            for local in &addresses {
                let endpoints = Endpoints::new(peer.clone(), local.clone(), listener);
                assert_eq!((&endpoints.peer(), &endpoints.local()), (peer, local));
                for other in &addresses {
                    let endpoints = endpoints.with_peer(other.clone());
                    assert_eq!((&endpoints.peer(), &endpoints.local()), (other, local));
                    assert_eq!(endpoints.listener(), Some(listener));
                }
            }
        }
        assert!(size_of::<Endpoints>() <= 16);
        Ok(())
    }

    #[test]
    fn a_connection_that_was_dialled_keeps_its_dial_when_its_peer_is_known_better()
    -> Result<(), std::net::AddrParseError> {
        let (peer, local, true_peer) = ("10.0.0.1:7", "10.0.0.2:8", "[::1]:9");
        let dial = DialId::next();
        let endpoints = Endpoints::dialled(dial, Addr::Ip(peer.parse()?), Addr::Ip(local.parse()?));
        assert_eq!((endpoints.listener(), endpoints.origin()), (None, Origin::Dialled(dial)));
        let endpoints = endpoints.with_peer(Addr::Ip(true_peer.parse()?));
        assert_eq!((endpoints.listener(), endpoints.origin()), (None, Origin::Dialled(dial)));
        assert_eq!(endpoints.peer().to_string(), true_peer);
        assert_eq!(endpoints.local().to_string(), local);
        Ok(())
    }
}
