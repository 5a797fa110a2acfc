//! Addresses of peers, of any family.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    path::PathBuf,
};

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
    /// TCP over IPv4 or IPv6.
    Ip(SocketAddr),
    /// A Unix socket and its path; `None` for an unnamed one, as clients usually have.
    Unix(Option<PathBuf>),
}

impl Addr {
    /// Returns the IP address, without the port; `None` for a Unix socket.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|addr| addr.ip())
    }

    /// Returns the IP address with the port; `None` for a Unix socket.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(addr) => Some(*addr),
            Self::Unix(_) => None,
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
        }
    }
}

/// Both ends of a connection, in 16 bytes: each session has one, and nearly all are IPv4.
#[derive(Debug, Clone)]
pub(crate) enum Endpoints {
    V4 { peer: SocketAddrV4, local: SocketAddrV4 },
    Other(Box<(Addr, Addr)>),
}

impl Endpoints {
    pub(crate) fn new(peer: Addr, local: Addr) -> Self {
        match (peer, local) {
            (Addr::Ip(SocketAddr::V4(peer)), Addr::Ip(SocketAddr::V4(local))) => Self::V4 { peer, local },
            endpoints => Self::Other(Box::new(endpoints)),
        }
    }

    pub(crate) fn are_unix(&self) -> bool {
        matches!(self, Self::Other(endpoints) if matches!(endpoints.0, Addr::Unix(_)))
    }

    pub(crate) fn peer(&self) -> Addr {
        match self {
            Self::V4 { peer, .. } => Addr::Ip((*peer).into()),
            Self::Other(endpoints) => endpoints.0.clone(),
        }
    }

    pub(crate) fn local(&self) -> Addr {
        match self {
            Self::V4 { local, .. } => Addr::Ip((*local).into()),
            Self::Other(endpoints) => endpoints.1.clone(),
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
    fn both_ends_come_back_whatever_the_family() -> Result<(), std::net::AddrParseError> {
        let addresses = [
            Addr::Ip("10.0.0.1:7".parse()?),
            Addr::Ip("[::1]:8".parse()?),
            Addr::Unix(Some("/tmp/s".into())),
            Addr::Unix(None),
        ];
        for peer in &addresses {
            for local in &addresses {
                let endpoints = Endpoints::new(peer.clone(), local.clone());
                assert_eq!((&endpoints.peer(), &endpoints.local()), (peer, local));
            }
        }
        assert!(size_of::<Endpoints>() <= 16);
        Ok(())
    }
}
