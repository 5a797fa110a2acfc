use std::{
    fmt,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    path::Path,
};

use bytes::{BufMut, BytesMut};

use super::crc32c::crc32c;
use crate::{addr::Addr, framing::EncodeError};

/// What a header of version 2 begins with.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, and length.
pub(super) const FIXED: usize = 16;
/// The length field has two bytes.
const MOST_BEHIND_FIXED: usize = u16::MAX as usize;
/// The path of a Unix socket.
pub(super) const UNIX_PATH: usize = 108;
/// A checksum with its kind and length.
const CHECKSUM: usize = 7;

/// What a proxy says about a connection, in front of it (the PROXY protocol, version 1 or 2): whose it is, and with
/// version 2 also other facts, each with a *kind* (TLVs).
///
/// A server that [takes](crate::ProxyProtocol) such headers has the one of a session by
/// [`Session::proxied`](crate::Session::proxied); [`Dial::proxy_header`](crate::Dial::proxy_header) sends one.
///
/// Source: [The PROXY protocol, versions 1 & 2](https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt).
///
/// ```
/// use std::net::SocketAddr;
/// use framewire::{Addr, ProxyHeader};
///
/// let client: SocketAddr = "192.0.2.7:4711".parse()?;
/// let server: SocketAddr = "10.0.0.1:443".parse()?;
/// let header = ProxyHeader::v2(client, server).with_tlv(ProxyHeader::AUTHORITY, b"example.com")?;
/// assert_eq!(header.source(), Some(&Addr::Ip(client)));
/// assert_eq!(header.authority(), Some("example.com"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    pub(super) version: Version,
    /// The source and the destination; `None` if the header names none.
    pub(super) ends: Option<(Addr, Addr)>,
    pub(super) is_local: bool,
    /// As they are on the wire, one behind the other, without checksums.
    pub(super) tlvs: Vec<u8>,
    pub(super) has_checksum: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

impl ProxyHeader {
    /// The kind of the [protocol](Self::alpn) that client and proxy have negotiated.
    pub const ALPN: u8 = 0x01;
    /// The kind of the [host name](Self::authority) that the client asked for.
    pub const AUTHORITY: u8 = 0x02;
    pub(super) const CRC32C: u8 = 0x03;
    /// The kind of a value without a meaning, for padding.
    pub const NOOP: u8 = 0x04;
    /// The kind of the [id](Self::unique_id) of the connection.
    pub const UNIQUE_ID: u8 = 0x05;
    /// The kind of what is known of [TLS](Self::ssl) between client and proxy.
    pub const SSL: u8 = 0x20;
    /// The kind of the name of a network namespace.
    pub const NETNS: u8 = 0x30;

    /// A header of version 1, a line of text. If one address is IPv4 and the other IPv6, the former is sent as IPv6
    /// (`::ffff:10.0.0.1`); if one is a Unix socket's, the line says `UNKNOWN`, and the receiver uses the addresses of
    /// the connection.
    #[must_use]
    pub fn v1(source: impl Into<Addr>, destination: impl Into<Addr>) -> Self {
        Self::new(Version::One, Some((source.into(), destination.into())))
    }

    /// A header of version 2. As [`v1`](Self::v1); Unix sockets have a family of their own here, with paths of up to
    /// 108 bytes.
    #[must_use]
    pub fn v2(source: impl Into<Addr>, destination: impl Into<Addr>) -> Self {
        Self::new(Version::Two, Some((source.into(), destination.into())))
    }

    /// A header of version 2 for a connection that the proxy makes for itself, to see if the server lives: the server
    /// is to use the addresses of the connection.
    #[must_use]
    pub fn local() -> Self {
        Self { is_local: true, ..Self::new(Version::Two, None) }
    }

    pub(super) fn new(version: Version, ends: Option<(Addr, Addr)>) -> Self {
        Self { version, ends, is_local: false, tlvs: Vec::new(), has_checksum: false }
    }

    /// Appends a fact.
    ///
    /// # Errors
    /// In version 1, which has none; if the header would be longer than 64 KiB; for an id of more than 128 bytes.
    pub fn with_tlv(mut self, kind: u8, value: impl AsRef<[u8]>) -> Result<Self, EncodeError> {
        let value = value.as_ref();
        if self.version == Version::One {
            return Err(EncodeError::unencodable("a PROXY header of version 1 has no TLVs; use version 2"));
        }
        if kind == Self::CRC32C {
            return Err(EncodeError::unencodable(
                "the checksum of a PROXY header is added by `with_checksum`",
            ));
        }
        if kind == Self::UNIQUE_ID && value.len() > MOST_UNIQUE_ID {
            return Err(EncodeError::too_long(value.len() as u64, MOST_UNIQUE_ID as u64));
        }
        let most = MOST_BEHIND_FIXED - 2 * UNIX_PATH - CHECKSUM;
        let len = self.tlvs.len().saturating_add(TLV_HEADER).saturating_add(value.len());
        if len > most {
            return Err(EncodeError::too_long(len as u64, most as u64));
        }
        self.tlvs.put_u8(kind);
        self.tlvs.put_u16(value.len() as u16);
        self.tlvs.extend_from_slice(value);
        Ok(self)
    }

    /// Adds a checksum (CRC32c) when it is sent, in version 2. TCP has one already, so this finds faults of the proxy
    /// itself.
    #[must_use]
    pub fn with_checksum(mut self) -> Self {
        self.has_checksum = self.version == Version::Two;
        self
    }

    /// Returns the version of the protocol: 1 or 2.
    #[must_use]
    pub fn version(&self) -> u8 {
        match self.version {
            Version::One => 1,
            Version::Two => 2,
        }
    }

    /// Returns the address of the client; `None` if the header names none.
    #[must_use]
    pub fn source(&self) -> Option<&Addr> {
        self.ends.as_ref().map(|(source, _)| source)
    }

    /// Returns the address to which the client has connected, of the proxy; `None` if the header names none.
    #[must_use]
    pub fn destination(&self) -> Option<&Addr> {
        self.ends.as_ref().map(|(_, destination)| destination)
    }

    /// Returns `true` if the proxy has made the connection for itself, for a health check.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Returns all facts in their order: the kind and the value of each.
    pub fn tlvs(&self) -> impl Iterator<Item = (u8, &[u8])> {
        Tlvs(&self.tlvs).map_while(Result::ok)
    }

    /// Returns the first value of this kind.
    #[must_use]
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        self.tlvs().find(|(other, _)| *other == kind).map(|(_, value)| value)
    }

    /// Returns the protocol that client and proxy have negotiated, as in TLS (`h2`).
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tlv(Self::ALPN)
    }

    /// Returns the host name that the client asked for (the SNI of TLS); `None` also if it is no UTF-8.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.tlv(Self::AUTHORITY).and_then(|name| std::str::from_utf8(name).ok())
    }

    /// Returns the id that the proxy has given the connection, of 128 bytes at most.
    #[must_use]
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.tlv(Self::UNIQUE_ID)
    }

    /// Returns what is known of TLS between client and proxy, as it was received: a byte of flags, four bytes that
    /// are 0 if the client's certificate was verified, and further TLVs (version, cipher, common name).
    #[must_use]
    pub fn ssl(&self) -> Option<&[u8]> {
        self.tlv(Self::SSL)
    }

    /// Appends the header as it is sent.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self.version {
            Version::One => out.extend_from_slice(self.line().as_bytes()),
            Version::Two => self.encode_binary(out),
        }
    }

    fn line(&self) -> String {
        match &self.ends {
            Some((Addr::Ip(source), Addr::Ip(destination))) => {
                let (source, destination) = same_family(*source, *destination);
                let (from, to) = (source.ip(), destination.ip());
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                format!("PROXY {family} {} {} {} {}\r\n", V1(from), V1(to), source.port(), destination.port())
            }
            _ => "PROXY UNKNOWN\r\n".to_owned(),
        }
    }

    fn encode_binary(&self, out: &mut BytesMut) {
        let start = out.len();
        out.extend_from_slice(&SIGNATURE);
        out.put_u8(if self.is_local { 0x20 } else { 0x21 });
        let family = out.len();
        out.extend_from_slice(&[0; 3]);
        let kind = match &self.ends {
            Some((Addr::Ip(source), Addr::Ip(destination))) => put_ips(*source, *destination, out),
            Some((Addr::Unix(source), Addr::Unix(destination))) => {
                let fit = [source, destination].map(|path| path_bytes(path.as_deref()));
                put_paths(fit, out)
            }
            _ => 0x00,
        };
        out.extend_from_slice(&self.tlvs);
        if self.has_checksum {
            out.extend_from_slice(&[Self::CRC32C, 0, 4, 0, 0, 0, 0]);
        }
        // At most 64 KiB, see `with_tlv`.
        let len = (out.len() - start - FIXED) as u16;
        if let Some([at, high, low]) = out.get_mut(family..family + 3) {
            (*at, [*high, *low]) = (kind, len.to_be_bytes());
        }
        if self.has_checksum {
            let sum = crc32c(out.get(start..).unwrap_or_default().iter().copied());
            out.truncate(out.len() - 4);
            out.put_u32(sum);
        }
    }
}

/// The kind and the length of a TLV.
const TLV_HEADER: usize = 3;
/// Bytes of an id, by the protocol.
pub(super) const MOST_UNIQUE_ID: usize = 128;

/// TLVs that stand one behind the other. What ends too early is an error, and the last item.
pub(super) struct Tlvs<'a>(pub(super) &'a [u8]);

/// A TLV reaches beyond the header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut;

impl<'a> Iterator for Tlvs<'a> {
    type Item = Result<(u8, &'a [u8]), Cut>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.0);
        if rest.is_empty() {
            return None;
        }
        let Some(([kind, high, low], behind)) = rest.split_first_chunk() else { return Some(Err(Cut)) };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, next)) = behind.split_at_checked(len) else { return Some(Err(Cut)) };
        self.0 = next;
        Some(Ok((*kind, value)))
    }
}

/// An address of a line: without the scope of IPv6, and without the dots of an IPv4 address in it, which old
/// receivers do not know.
struct V1(IpAddr);

impl fmt::Display for V1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                let [.., high, low] = v6.segments();
                write!(f, "::ffff:{high:x}:{low:x}")
            }
            other => write!(f, "{other}"),
        }
    }
}

/// An IPv4 address as IPv6 if the other one is.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let [source, destination] = [source, destination].map(|addr| match addr {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        v6 @ SocketAddr::V6(_) => v6,
    });
    (source, destination)
}

/// Appends both addresses, then both ports. Returns the family and the protocol.
fn put_ips(source: SocketAddr, destination: SocketAddr, out: &mut BytesMut) -> u8 {
    let (source, destination) = same_family(source, destination);
    for ip in [source.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
        }
    }
    out.put_u16(source.port());
    out.put_u16(destination.port());
    if source.is_ipv4() { 0x11 } else { 0x21 }
}

fn path_bytes(path: Option<&Path>) -> &[u8] {
    path.map_or(&[], |path| path.as_os_str().as_encoded_bytes())
}

/// Appends both paths, if they fit. Returns the family and the protocol.
fn put_paths(paths: [&[u8]; 2], out: &mut BytesMut) -> u8 {
    if paths.iter().any(|path| path.len() > UNIX_PATH) {
        return 0x00;
    }
    for path in paths {
        out.extend_from_slice(path);
        out.put_bytes(0, UNIX_PATH - path.len());
    }
    0x31
}
