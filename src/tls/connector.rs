use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::SingleCertAndKey,
};

use super::{Tls, TlsIdentity, TlsRoots, VERSIONS, layer::Start, protocols};
use crate::error::{TlsConfigError, TlsError};

/// The client's side of TLS, for [`Dial::tls`](crate::Dial::tls), for
/// [`blocking::Client::tls`](crate::blocking::Client::tls) or, in mid-stream,
/// [`Session::push_layer`](crate::Session::push_layer). Clones share everything, also the sessions that can be resumed: of
/// the last 256 servers.
///
/// TLS 1.3 and 1.2 are offered, nothing older, and no early data (0-RTT).
#[derive(Clone)]
pub struct TlsConnector {
    config: Arc<ClientConfig>,
}

impl TlsConnector {
    /// A connector that trusts servers with a certificate that leads to these roots, and shows none itself.
    ///
    /// # Errors
    /// [`TlsConfigError::Unusable`] if the system gives no random numbers.
    pub fn new(roots: TlsRoots) -> Result<Self, TlsConfigError> {
        Self::builder(roots).build()
    }

    /// Begins a connector that trusts servers with a certificate that leads to these roots.
    pub fn builder(roots: TlsRoots) -> TlsConnectorBuilder {
        TlsConnectorBuilder { roots: Some(roots), identity: None, alpn: Vec::new() }
    }

    /// Begins a connector that trusts every server, whatever certificate it shows: anyone on the way can read and change
    /// everything. For tests, and to look at a server whose certificate is broken.
    pub fn dangerous_builder_without_verification() -> TlsConnectorBuilder {
        TlsConnectorBuilder { roots: None, identity: None, alpn: Vec::new() }
    }

    /// Makes the layer of one connection to the server of this name (a host name or an IP address), which the server's
    /// certificate must be valid for. If the text is no such name, the layer fails with
    /// [`TlsError::ServerName`](crate::TlsError::ServerName).
    #[must_use]
    pub fn layer(&self, server: &str) -> Tls {
        self.begin(server, Start::Anywhere)
    }

    /// The layer of a connection that was just made.
    pub(crate) fn first_layer(&self, server: &str) -> Tls {
        self.begin(server, Start::First)
    }

    fn begin(&self, server: &str, start: Start) -> Tls {
        let name = ServerName::try_from(server.to_owned());
        let connection = name.map_err(|_| TlsError::ServerName(server.into())).and_then(|name| {
            ClientConnection::new(self.config.clone(), name).map(Connection::from).map_err(TlsError::Protocol)
        });
        Tls::new(connection, Some(server), start)
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector").finish_non_exhaustive()
    }
}

/// A [`TlsConnector`] that is being built.
#[derive(Debug, Clone)]
#[must_use = "it does nothing until it is built"]
pub struct TlsConnectorBuilder {
    /// `None`: every server is trusted.
    roots: Option<TlsRoots>,
    identity: Option<TlsIdentity>,
    alpn: Vec<Vec<u8>>,
}

impl TlsConnectorBuilder {
    /// Shows this certificate to servers that ask for one (mutual TLS).
    pub fn identity(mut self, identity: TlsIdentity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Sets the application protocols that are offered (ALPN), the preferred one first, each of 1 to 255 bytes.
    /// [`Session::protocol`](crate::Session::protocol) returns what the server has chosen. Default: none.
    pub fn alpn<P: AsRef<[u8]>>(mut self, names: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols(names);
        self
    }

    /// Builds the connector.
    ///
    /// # Errors
    /// [`TlsConfigError::Unusable`] if TLS cannot be set up.
    pub fn build(self) -> Result<TlsConnector, TlsConfigError> {
        let provider = Arc::new(ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(VERSIONS);
        let builder = builder.map_err(TlsConfigError::Unusable)?;
        let builder = match self.roots {
            Some(roots) => builder.with_root_certificates(roots.store),
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Gullible(algorithms))),
        };
        let mut config = match self.identity {
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn;
        Ok(TlsConnector { config: Arc::new(config) })
    }
}

/// Trusts every certificate. That the server has its key is still checked.
#[derive(Debug)]
struct Gullible(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
