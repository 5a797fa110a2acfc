use std::{fmt, path::Path, sync::Arc};

use rustls::{
    InconsistentKeys, RootCertStore, crypto::ring, pki_types::ServerName, server::ParsedCertificate,
    sign::CertifiedKey,
};

use super::pem::Source;
use crate::error::TlsConfigError;

/// A certificate with those that lead from it to a root, and its private key: by this, one side proves to the other who
/// it is.
///
/// ```no_run
/// use framewire::{TlsConfigError, TlsIdentity};
///
/// let identity = TlsIdentity::from_pem_files("/etc/chat/fullchain.pem", "/etc/chat/key.pem")?;
/// # Ok::<(), TlsConfigError>(())
/// ```
#[derive(Clone)]
pub struct TlsIdentity {
    pub(super) key: Arc<CertifiedKey>,
    certificate_from: Source,
    key_from: Source,
}

impl TlsIdentity {
    /// Reads a chain of certificates, the own one first, and the key of that from two PEM files (or twice the same). Other
    /// sections in them are skipped. At most 16 MiB of each are read.
    ///
    /// # Errors
    /// [`TlsConfigError`] names the file and what is wrong with it: missing, no certificate or no key in it, not PEM, an
    /// encrypted key, one of an unknown kind, or one that does not belong to the certificate. Whether a certificate has
    /// expired is for the peer to say.
    pub fn from_pem_files(
        certificates: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsConfigError> {
        Self::load(Source::file(certificates), Source::file(key))
    }

    /// The same from PEM in memory.
    ///
    /// # Errors
    /// As for [`from_pem_files`](Self::from_pem_files).
    pub fn from_pem(certificates: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, TlsConfigError> {
        Self::load(Source::memory(certificates), Source::memory(key))
    }

    fn load(certificate_from: Source, key_from: Source) -> Result<Self, TlsConfigError> {
        let chain = certificate_from.certificates()?;
        let key = ring::sign::any_supported_type(&key_from.key()?);
        let key = key.map_err(|error| TlsConfigError::BadKey {
            file: key_from.name(),
            why: error.to_string().into(),
        })?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let (certificate, key) = (certificate_from.name(), key_from.name());
                return Err(TlsConfigError::KeyMismatch { certificate, key });
            }
            Err(error) => return Err(bad_certificate(&certificate_from, 1, &error)),
        }
        Ok(Self { key: Arc::new(key), certificate_from, key_from })
    }

    /// Reads its files again.
    pub(super) fn reload(&self) -> Result<Self, TlsConfigError> {
        if !self.certificate_from.is_file() && !self.key_from.is_file() {
            return Ok(self.clone());
        }
        Self::load(self.certificate_from.clone(), self.key_from.clone())
    }

    /// Checks that the certificate is valid for a name, which may be a wildcard.
    pub(super) fn check_name(&self, name: &str) -> Result<(), TlsConfigError> {
        let wrong = |why: String| TlsConfigError::WrongName {
            file: self.certificate_from.name(),
            name: name.into(),
            why: why.into(),
        };
        // Any name that the wildcard stands for shows whether the certificate has it.
        let example = name.strip_prefix("*.").map_or_else(|| name.to_owned(), |rest| format!("any.{rest}"));
        let example = ServerName::try_from(example).map_err(|_| wrong("it is no host name".to_owned()))?;
        let own = self.key.end_entity_cert().and_then(ParsedCertificate::try_from);
        own.and_then(|own| rustls::client::verify_server_name(&own, &example))
            .map_err(|error| wrong(error.to_string()))
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("certificate_from", &self.certificate_from.name())
            .field("key_from", &self.key_from.name())
            .finish_non_exhaustive()
    }
}

/// The certificates of authorities that one side trusts: a peer's certificate must lead to one of them.
#[derive(Clone)]
pub struct TlsRoots {
    pub(super) store: Arc<RootCertStore>,
    /// `None` for those of the system.
    from: Option<Source>,
}

impl TlsRoots {
    /// Reads every certificate in a PEM file. At most 16 MiB are read.
    ///
    /// # Errors
    /// [`TlsConfigError`] names the file and what is wrong with it.
    pub fn from_pem_file(file: impl AsRef<Path>) -> Result<Self, TlsConfigError> {
        Self::load(Source::file(file))
    }

    /// The same from PEM in memory.
    ///
    /// # Errors
    /// As for [`from_pem_file`](Self::from_pem_file).
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, TlsConfigError> {
        Self::load(Source::memory(pem))
    }

    /// The roots that the system trusts, as rustls-native-certs finds them: on Unix in the files that `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` name, or else where the distribution has them. Those that cannot be used are skipped, since large
    /// collections have some.
    ///
    /// # Errors
    /// [`TlsConfigError::NoSystemRoots`] if not one can be used.
    pub fn system() -> Result<Self, TlsConfigError> {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        let (used, skipped) = store.add_parsable_certificates(found.certs);
        if used == 0 {
            let first = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
            return Err(TlsConfigError::NoSystemRoots(format!("{skipped} were found{first}").into()));
        }
        Ok(Self { store: Arc::new(store), from: None })
    }

    fn load(from: Source) -> Result<Self, TlsConfigError> {
        let mut store = RootCertStore::empty();
        for (at, root) in from.certificates()?.into_iter().enumerate() {
            store.add(root).map_err(|error| bad_certificate(&from, at + 1, &error))?;
        }
        Ok(Self { store: Arc::new(store), from: Some(from) })
    }

    /// Reads its file again.
    pub(super) fn reload(&self) -> Result<Self, TlsConfigError> {
        match &self.from {
            Some(from @ Source::File(_)) => Self::load(from.clone()),
            Some(Source::Memory(_)) => Ok(self.clone()),
            None => Self::system(),
        }
    }

    /// Returns how many roots there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Returns `false`: there is at least one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.store.is_empty()
    }
}

impl fmt::Debug for TlsRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.as_ref().map_or_else(|| "the system".into(), Source::name);
        f.debug_struct("TlsRoots").field("len", &self.len()).field("from", &from).finish()
    }
}

fn bad_certificate(from: &Source, number: usize, error: &rustls::Error) -> TlsConfigError {
    TlsConfigError::BadCertificate { file: from.name(), number, why: error.to_string().into() }
}
