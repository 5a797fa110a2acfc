use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
};

use rustls::{
    Connection, ServerConfig, ServerConnection,
    crypto::ring,
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{Tls, TlsIdentity, TlsReloader, TlsRoots, VERSIONS, layer::Start, names::Names, protocols};
use crate::{
    error::{TlsConfigError, TlsError},
    events::{Event, Hub},
};

/// The server's side of TLS, for [`Server::tls`](crate::Server::tls) or, in mid-stream,
/// [`Session::push_layer`](crate::Session::push_layer). Clones share everything, also what a [`TlsReloader`] reloads.
///
/// TLS 1.3 and 1.2 are offered, nothing older; there is no renegotiation and no early data (0-RTT), which could be replayed.
/// Clients resume sessions by tickets, whose keys change every six hours; for clients of TLS 1.2 without tickets the last
/// 256 sessions are remembered.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use framewire::{Separator, Server, TlsAcceptor, TlsConnector, TlsIdentity, TlsRoots, blocking::Client, packet_fn};
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
/// # let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
///
/// let identity = TlsIdentity::from_pem(&certificate, &key)?; // or `from_pem_files`
/// let server = Server::bind("127.0.0.1:0")?
///     .framing(Separator::lines())
///     .tls(&TlsAcceptor::new(identity)?)
///     .spawn(packet_fn(|session, packet| Ok(session.send(packet)?)))?;
/// # drop(server);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TlsAcceptor(Arc<Shared>);

/// What the clones of an acceptor, and its reloaders, share.
pub(super) struct Shared {
    /// What was asked for, to be loaded anew.
    plan: Mutex<TlsAcceptorBuilder>,
    config: RwLock<Arc<ServerConfig>>,
    /// The servers that use it, where a reload is told.
    hubs: Mutex<Vec<Weak<Hub>>>,
}

impl TlsAcceptor {
    /// An acceptor that shows one certificate, asks for none and knows no application protocols.
    ///
    /// # Errors
    /// [`TlsConfigError::Unusable`] if the system gives no random numbers.
    pub fn new(identity: TlsIdentity) -> Result<Self, TlsConfigError> {
        Self::builder(identity).build()
    }

    /// Begins an acceptor that shows this certificate, unless the client asks for a name that has another.
    pub fn builder(identity: TlsIdentity) -> TlsAcceptorBuilder {
        TlsAcceptorBuilder { identity, named: Vec::new(), alpn: Vec::new(), clients: Clients::Unknown }
    }

    /// Makes the layer of one connection. In mid-stream, as for STARTTLS, it is pushed behind the last reply in clear text:
    ///
    /// ```
    /// use framewire::{Handled, Session, TlsAcceptor};
    ///
    /// fn on_packet(acceptor: &TlsAcceptor, session: &mut Session<'_>, packet: &[u8]) -> Handled {
    ///     if packet == b"STARTTLS" {
    ///         session.send("220 go ahead")?;
    ///         session.push_layer(acceptor.layer());
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// Clear text that has come behind that packet closes the session with
    /// [`TlsError::ClearTextBehindSwitch`](crate::TlsError::ClearTextBehindSwitch).
    #[must_use]
    pub fn layer(&self) -> Tls {
        self.begin(Start::Anywhere)
    }

    /// The layer of a connection that has just arrived.
    pub(crate) fn first_layer(&self) -> Tls {
        self.begin(Start::First)
    }

    fn begin(&self, start: Start) -> Tls {
        let config = self.0.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        let connection = ServerConnection::new(config).map(Connection::from);
        Tls::new(connection.map_err(TlsError::Protocol), None, start)
    }

    /// Returns what reloads its certificates.
    #[must_use]
    pub fn reloader(&self) -> TlsReloader {
        TlsReloader::new(self.0.clone())
    }

    /// Tells this server of reloads.
    pub(crate) fn report_to(&self, hub: &Arc<Hub>) {
        let mut hubs = lock(&self.0.hubs);
        hubs.retain(|hub| hub.strong_count() > 0);
        hubs.push(Arc::downgrade(hub));
    }
}

impl Shared {
    /// Reads all files again. If one of them cannot be used, nothing changes.
    pub(super) fn reload(&self) -> Result<(), TlsConfigError> {
        let mut plan = lock(&self.plan);
        let loaded = plan.reload().and_then(|fresh| Ok((fresh.config()?, fresh)));
        let outcome = loaded.map(|(config, fresh)| {
            *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
            *plan = fresh;
        });
        drop(plan);
        let hubs: Vec<_> = lock(&self.hubs).iter().filter_map(Weak::upgrade).collect();
        for hub in hubs {
            hub.tell(|| Event::TlsReloaded { error: outcome.as_ref().err().cloned() });
        }
        match &outcome {
            Ok(()) => tracing::info!("certificates were reloaded"),
            Err(error) => tracing::error!(%error, "certificates cannot be reloaded, the old ones stay"),
        }
        outcome
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("plan", &*lock(&self.plan)).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A [`TlsAcceptor`] that is being built.
#[derive(Debug, Clone)]
#[must_use = "it does nothing until it is built"]
pub struct TlsAcceptorBuilder {
    identity: TlsIdentity,
    named: Vec<(Box<str>, TlsIdentity)>,
    alpn: Vec<Vec<u8>>,
    clients: Clients,
}

/// Whether clients show certificates.
#[derive(Debug, Clone)]
enum Clients {
    Unknown,
    May(TlsRoots),
    Must(TlsRoots),
}

impl TlsAcceptorBuilder {
    /// Shows another certificate to clients that ask for one of these names (SNI): host names, or `*.example.com` for all
    /// with one more label. The case of letters does not matter, and an exact name goes before a wildcard.
    pub fn identity_for<N: AsRef<str>>(
        mut self,
        names: impl IntoIterator<Item = N>,
        identity: TlsIdentity,
    ) -> Self {
        let names = names.into_iter().map(|name| (name.as_ref().into(), identity.clone()));
        self.named.extend(names);
        self
    }

    /// Sets the application protocols that this side speaks (ALPN), the preferred one first, each of 1 to 255 bytes. A
    /// client that offers protocols, but none of these, is refused; one that offers none is served, and
    /// [`Session::protocol`](crate::Session::protocol) returns `None` then. Default: none.
    pub fn alpn<P: AsRef<[u8]>>(mut self, names: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols(names);
        self
    }

    /// Asks clients for a certificate. One that is shown must lead to these roots; a client that shows none is served, and
    /// [`TlsInfo::peer_certificates`](crate::TlsInfo::peer_certificates) is empty then.
    pub fn request_client_certificates(mut self, roots: TlsRoots) -> Self {
        self.clients = Clients::May(roots);
        self
    }

    /// Serves only clients with a certificate that leads to these roots (mutual TLS).
    pub fn require_client_certificates(mut self, roots: TlsRoots) -> Self {
        self.clients = Clients::Must(roots);
        self
    }

    /// Builds the acceptor.
    ///
    /// # Errors
    /// [`TlsConfigError::WrongName`] if a certificate is not valid for a name that it is to be shown for,
    /// [`TlsConfigError::Unusable`] if the protocols or the roots cannot be used.
    pub fn build(self) -> Result<TlsAcceptor, TlsConfigError> {
        let config = RwLock::new(self.config()?);
        Ok(TlsAcceptor(Arc::new(Shared { plan: Mutex::new(self), config, hubs: Mutex::default() })))
    }

    /// The same from files that may have changed.
    fn reload(&self) -> Result<Self, TlsConfigError> {
        let named = self.named.iter().map(|(name, identity)| Ok((name.clone(), identity.reload()?)));
        Ok(Self {
            identity: self.identity.reload()?,
            named: named.collect::<Result<_, TlsConfigError>>()?,
            alpn: self.alpn.clone(),
            clients: match &self.clients {
                Clients::Unknown => Clients::Unknown,
                Clients::May(roots) => Clients::May(roots.reload()?),
                Clients::Must(roots) => Clients::Must(roots.reload()?),
            },
        })
    }

    fn config(&self) -> Result<Arc<ServerConfig>, TlsConfigError> {
        let mut names = Names::new(self.identity.key.clone());
        for (name, identity) in &self.named {
            identity.check_name(name)?;
            names.insert(name, identity.key.clone());
        }
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(VERSIONS);
        let mut config = builder
            .map_err(TlsConfigError::Unusable)?
            .with_client_cert_verifier(self.clients.verifier()?)
            .with_cert_resolver(Arc::new(names));
        config.alpn_protocols.clone_from(&self.alpn);
        // New keys with every reload: a client that was believed by the old roots is to show its certificate again.
        config.ticketer = ring::Ticketer::new().map_err(TlsConfigError::Unusable)?;
        // Each takes a client to its next session, where it gets another.
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

impl Clients {
    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsConfigError> {
        let (roots, is_optional) = match self {
            Self::Unknown => return Ok(Arc::new(NoClientAuth)),
            Self::May(roots) => (roots, true),
            Self::Must(roots) => (roots, false),
        };
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.store.clone(), provider);
        let verifier = if is_optional { verifier.allow_unauthenticated() } else { verifier };
        let unusable = |error: rustls::server::VerifierBuilderError| {
            TlsConfigError::Unusable(rustls::Error::General(error.to_string()))
        };
        verifier.build().map_err(unusable)
    }
}
