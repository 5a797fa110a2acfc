//! TLS, by rustls: a [`Layer`](crate::Layer) for accepted and for dialled connections.
//!
//! ```text
//! socket ──records──▶ Tls::received ─▶ rustls ──plain──▶ LayerIo ─▶ framing
//! socket ◀─records─── Tls::flush ◀──── rustls ◀─plain─── at most 16 KiB for each record
//! ```
//!
//! rustls is driven by hand: it is given whole records, and what it has is taken away at once, so that it holds nothing
//! between two calls but its keys and the beginning of a handshake message. What is unfinished waits below the layer, where
//! it is bounded and counted like everything that a session has received.

mod acceptor;
mod connector;
mod identity;
mod info;
mod layer;
mod names;
mod pem;
mod records;
mod reloader;

pub use self::{
    acceptor::{TlsAcceptor, TlsAcceptorBuilder},
    connector::{TlsConnector, TlsConnectorBuilder},
    identity::{TlsIdentity, TlsRoots},
    info::{TlsInfo, TlsVersion},
    layer::Tls,
    reloader::TlsReloader,
};

use rustls::{SupportedProtocolVersion, version};

#[cfg(test)]
mod tests;

/// What is spoken. Older versions are broken, and rustls does not know them.
static VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

/// The names of application protocols as rustls takes them.
fn protocols<P: AsRef<[u8]>>(protocols: impl IntoIterator<Item = P>) -> Vec<Vec<u8>> {
    protocols.into_iter().map(|protocol| protocol.as_ref().to_vec()).collect()
}
