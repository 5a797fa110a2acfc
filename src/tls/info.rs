use std::fmt;

use rustls::{Connection, HandshakeKind, ProtocolVersion};

/// What TLS has agreed on with the peer, see [`Session::tls`](crate::Session::tls).
#[derive(Clone, Copy)]
pub struct TlsInfo<'a> {
    connection: &'a Connection,
    /// The name that this side has asked for, if it is the client's.
    asked: Option<&'a str>,
}

/// A version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2, RFC 5246.
    Tls12,
    /// TLS 1.3, RFC 8446.
    Tls13,
}

impl<'a> TlsInfo<'a> {
    pub(super) fn new(connection: &'a Connection, asked: Option<&'a str>) -> Self {
        Self { connection, asked }
    }

    /// Returns the version.
    #[must_use]
    pub fn version(&self) -> TlsVersion {
        match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
            _ => TlsVersion::Tls13,
        }
    }

    /// Returns the cipher suite by its name in the register of IANA, such as `TLS13_AES_256_GCM_SHA384`.
    #[must_use]
    pub fn cipher_suite(&self) -> &'static str {
        let suite = self.connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        suite.unwrap_or_default()
    }

    /// Returns the application protocol (ALPN), if both sides have one in common.
    #[must_use]
    pub fn alpn(&self) -> Option<&'a [u8]> {
        self.connection.alpn_protocol()
    }

    /// Returns the name of the server that the client has asked for (SNI), in lower case; on the client's side, the one
    /// that was given. `None` if the client has named none, as one that connects to an IP address.
    #[must_use]
    pub fn server_name(&self) -> Option<&'a str> {
        match self.connection {
            Connection::Server(server) => server.server_name(),
            Connection::Client(_) => self.asked,
        }
    }

    /// Returns the peer's certificate and those behind it, each in DER, as it has sent them: it was checked that they lead
    /// to a root. Empty if the peer has shown none. For a resumed session, those of the first one.
    pub fn peer_certificates(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.connection.peer_certificates().unwrap_or_default().iter().map(AsRef::as_ref)
    }

    /// Returns `true` if the peer has resumed an earlier session, without a new check of certificates.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

impl fmt::Debug for TlsInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsInfo")
            .field("version", &self.version())
            .field("cipher_suite", &self.cipher_suite())
            .field("alpn", &self.alpn().map(<[u8]>::escape_ascii))
            .field("server_name", &self.server_name())
            .field("peer_certificates", &self.peer_certificates().count())
            .field("is_resumed", &self.is_resumed())
            .finish()
    }
}
