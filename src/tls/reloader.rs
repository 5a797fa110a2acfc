use std::sync::Arc;

use super::acceptor::Shared;
use crate::error::TlsConfigError;

/// Reloads the certificates of a [`TlsAcceptor`](crate::TlsAcceptor) while its servers run. It can be called from any
/// thread, for example on SIGHUP or when a new certificate was issued; clones do the same.
///
/// ```no_run
/// use framewire::{TlsAcceptor, TlsConfigError, TlsIdentity};
///
/// let identity = TlsIdentity::from_pem_files("/etc/chat/fullchain.pem", "/etc/chat/key.pem")?;
/// let acceptor = TlsAcceptor::new(identity)?;
/// let reloader = acceptor.reloader();
/// // … when the files have changed:
/// if let Err(error) = reloader.reload() {
///     eprintln!("{error}"); // clients still get the old certificate
/// }
/// # Ok::<(), TlsConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct TlsReloader(Arc<Shared>);

impl TlsReloader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Reads all files of the acceptor again: certificates, keys, and the roots for client certificates. Handshakes that
    /// begin from now on use what they hold. Open sessions live on, and clients cannot resume older ones, so that everyone
    /// is checked by the new roots. What came from memory stays as it is.
    ///
    /// Reads files, so it is not for a callback. [`Event::TlsReloaded`](crate::Event::TlsReloaded) tells of it.
    ///
    /// # Errors
    /// As for [`TlsIdentity::from_pem_files`](crate::TlsIdentity::from_pem_files) and
    /// [`TlsAcceptorBuilder::build`](crate::TlsAcceptorBuilder::build), and nothing changes: with only one of two files
    /// replaced yet, the next call will do.
    pub fn reload(&self) -> Result<(), TlsConfigError> {
        self.0.reload()
    }
}
