mod crc32c;
mod header;
mod parse;

use bytes::BytesMut;

pub use header::ProxyHeader;

use self::{header::FIXED, header::UNIX_PATH, parse::parse};
use super::{Layer, LayerIo};
use crate::{
    addr::{Addr, NetworkError, Networks, NewConnection},
    error::LayerError,
};

/// Bytes of a header, unless another limit is set: enough for the certificate of a client.
const MAX_HEADER: usize = 4096;
/// Every receiver must take both paths of Unix sockets.
const LEAST_MAX: usize = FIXED + 2 * UNIX_PATH;

/// Takes the address of the client from a proxy in front of the server (HAProxy, nginx, a load balancer): the PROXY
/// protocol, versions 1 and 2, given to [`Server::proxy_protocol`](crate::Server::proxy_protocol).
///
/// A trusted proxy begins each connection with a [header](ProxyHeader). Only then the session is opened: `peer_addr`,
/// [`SessionInfo`](crate::SessionInfo), events and the log show the client, and
/// [`Limits::connections_per_peer`](crate::Limits::connections_per_peer) counts by the client's address, not by that of
/// the proxy. [`Session::proxied`](crate::Session::proxied) returns the header with everything else in it.
///
/// Whoever may send a header may pretend to be anyone. So it is taken from the listed networks only, and there it must
/// come: nothing is guessed from the first bytes. The header, and the handshakes of further layers, have
/// [`Limits::handshake_timeout`](crate::Limits::handshake_timeout).
///
/// | option | default | |
/// |---|---|---|
/// | [`untrusted`](Self::untrusted) | [`Untrusted::Refuse`] | what becomes of connections from elsewhere |
/// | [`max_header`](Self::max_header) | 4096 bytes | longer headers are refused; only what has come is held |
///
/// A header that names no client leaves the address of the proxy: `UNKNOWN` in version 1, an unspecified family or
/// `LOCAL` in version 2, as for health checks. Such a connection counts for no peer. A strategy places
/// connections before the header has come, by the address of the proxy.
///
/// Source: [The PROXY protocol, versions 1 & 2](https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt).
///
/// ```
/// use std::{io::{Read, Write}, net::TcpStream, time::Duration};
/// use framewire::{ProxyProtocol, Separator, Server, packet_fn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::bind("127.0.0.1:0")?
///     .framing(Separator::lines())
///     .proxy_protocol(ProxyProtocol::trusting(["127.0.0.1", "10.0.0.0/8"])?)
///     .spawn(packet_fn(|session, _| Ok(session.send(session.peer_addr().to_string())?)))?;
///
/// let mut proxy = TcpStream::connect(server.local_addr().ok_or("not TCP")?)?;
/// proxy.write_all(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\nwho am I?\n")?;
/// let mut reply = [0; 15];
/// proxy.read_exact(&mut reply)?;
/// assert_eq!(&reply, b"192.0.2.7:4711\n");
/// # drop(proxy);
/// # server.stop(Duration::from_secs(5))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "it is given to `Server::proxy_protocol`"]
pub struct ProxyProtocol {
    trusted: Networks,
    untrusted: Untrusted,
    max_header: usize,
}

/// What becomes of a connection that does not come from a trusted proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Untrusted {
    /// It is closed before anything is read from it, with [`LayerError::Untrusted`].
    Refuse,
    /// It is served as a connection without a proxy, and no header is expected: one that comes all the same is
    /// given to the framing (or to the next layer), as everything else.
    Direct,
}

impl ProxyProtocol {
    /// Trusts proxies with these addresses: networks in CIDR notation (`10.0.0.0/8`, `2001:db8::/32`), IP addresses,
    /// and `unix:` for every connection over a Unix socket. An empty list trusts none.
    ///
    /// # Errors
    /// If one of the texts is no network. The error names it, and says what would be right.
    pub fn trusting(sources: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, NetworkError> {
        let trusted = Networks::parse(sources)?;
        Ok(Self { trusted, untrusted: Untrusted::Refuse, max_header: MAX_HEADER })
    }

    /// Sets what becomes of connections from elsewhere. Default: [`Untrusted::Refuse`].
    pub fn untrusted(mut self, untrusted: Untrusted) -> Self {
        self.untrusted = untrusted;
        self
    }

    /// Sets how long a header of version 2 may be, in bytes: from 232, what the addresses of Unix sockets take, to
    /// 65,551, the most that there can be. Default 4096. Lines of version 1 have 107 bytes at most.
    pub fn max_header(mut self, bytes: usize) -> Self {
        self.max_header = bytes.max(LEAST_MAX);
        self
    }

    pub(crate) fn trusted(&self) -> &Networks {
        &self.trusted
    }

    /// Returns the layer of one connection.
    pub(crate) fn receiver(&self, connection: &NewConnection<'_>) -> impl Layer + use<> {
        self.receiver_from(connection.peer())
    }

    pub(crate) fn receiver_from(&self, peer: Addr) -> impl Layer + use<> {
        match self.untrusted {
            _ if self.trusted.contain(&peer) => Receiver::Expects { most: self.max_header },
            Untrusted::Direct => Receiver::Passes,
            Untrusted::Refuse => Receiver::Refuses { peer },
        }
    }
}

/// The layer of a connection that was accepted. It leaves behind the header.
enum Receiver {
    /// A header comes first, of `most` bytes.
    Expects {
        most: usize,
    },
    Passes,
    Refuses {
        peer: Addr,
    },
}

impl Layer for Receiver {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        let most = match self {
            Self::Expects { most } => *most,
            Self::Passes => {
                io.done();
                return Ok(0);
            }
            Self::Refuses { peer } => return Err(LayerError::Untrusted { peer: peer.clone() }),
        };
        let Some((header, used)) = parse(wire, most)? else { return Ok(0) };
        if let Some(client) = header.source() {
            io.set_peer_addr(client.clone());
        }
        io.set_proxied(header);
        io.done();
        Ok(used)
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        wire.extend_from_slice(plain);
        Ok(())
    }
}

/// The layer of a connection that this side has made: sends a header, and leaves.
pub(crate) struct HeaderSender(pub(crate) ProxyHeader);

impl Layer for HeaderSender {
    fn received(&mut self, _: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        self.0.encode(io.wire());
        io.done();
        Ok(0)
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        wire.extend_from_slice(plain);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
