//! Reading certificates and keys. What is wrong is said with the name of the file.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};

use crate::error::TlsConfigError;

/// The most that is read of a file: several times what the roots of a system take.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// Where PEM comes from. Files are read again when certificates are reloaded.
#[derive(Debug, Clone)]
pub(super) enum Source {
    File(PathBuf),
    Memory(Arc<[u8]>),
}

impl Source {
    pub(super) fn file(path: impl AsRef<Path>) -> Self {
        Self::File(path.as_ref().to_owned())
    }

    pub(super) fn memory(pem: impl AsRef<[u8]>) -> Self {
        Self::Memory(pem.as_ref().into())
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// How it is called in errors.
    pub(super) fn name(&self) -> Box<str> {
        match self {
            Self::File(path) => path.display().to_string().into(),
            Self::Memory(_) => "PEM in memory".into(),
        }
    }

    fn read(&self) -> Result<Arc<[u8]>, TlsConfigError> {
        let path = match self {
            Self::File(path) => path,
            Self::Memory(pem) => return Ok(pem.clone()),
        };
        let read = || {
            let bytes = fs::metadata(path)?.len();
            if bytes > MOST_BYTES {
                return Err(std::io::Error::other(format!("{bytes} bytes; at most {MOST_BYTES} are read")));
            }
            fs::read(path)
        };
        read()
            .map(Into::into)
            .map_err(|source| TlsConfigError::Read { file: self.name(), source: Arc::new(source) })
    }

    /// Reads all certificates.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
        let pem = self.read()?;
        let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| self.bad_pem(&error))?;
        if certificates.is_empty() {
            return Err(TlsConfigError::NoCertificate { file: self.name(), found: found_in(&pem).into() });
        }
        Ok(certificates)
    }

    /// Reads the first private key.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
        let pem = self.read()?;
        match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(key) if !is_legacy_encrypted(&pem) => Ok(key),
            Ok(_) => Err(TlsConfigError::EncryptedKey(self.name())),
            Err(_)
                if labels(&pem).any(|label| label == "ENCRYPTED PRIVATE KEY")
                    || is_legacy_encrypted(&pem) =>
            {
                Err(TlsConfigError::EncryptedKey(self.name()))
            }
            Err(pem::Error::NoItemsFound) => {
                Err(TlsConfigError::NoKey { file: self.name(), found: found_in(&pem).into() })
            }
            Err(error) => Err(self.bad_pem(&error)),
        }
    }

    fn bad_pem(&self, error: &pem::Error) -> TlsConfigError {
        let why = match error {
            pem::Error::MissingSectionEnd { .. } => "a section has no end; the file is cut".to_owned(),
            pem::Error::IllegalSectionStart { .. } => "a line that begins a section is malformed".to_owned(),
            pem::Error::Base64Decode(why) => format!("base64: {why}"),
            other => format!("{other:?}"),
        };
        TlsConfigError::BadPem { file: self.name(), why: why.into() }
    }
}

/// What the sections are called.
fn labels(pem: &[u8]) -> impl Iterator<Item = &str> {
    let lines = pem.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"))
}

/// Encrypted in the way of OpenSSL before version 1.0, which only a header tells.
fn is_legacy_encrypted(pem: &[u8]) -> bool {
    let mut lines = pem.split(|byte| *byte == b'\n');
    lines.any(|line| line.starts_with(b"Proc-Type: 4,ENCRYPTED"))
}

/// Says what there is, where something else was looked for.
fn found_in(pem: &[u8]) -> String {
    /// Sections that are named.
    const NAMED: usize = 3;
    let names: Vec<&str> = labels(pem).take(NAMED).collect();
    if !names.is_empty() {
        return format!("it begins with: {}", names.join(", ").escape_debug());
    }
    match pem {
        [] => "it is empty".to_owned(),
        // A sequence, with its length in two bytes.
        [0x30, 0x82, ..] => "it is DER, not PEM; `openssl x509 -inform der` or `openssl pkey -inform der` \
                             converts it"
            .to_owned(),
        _ => "it is not PEM".to_owned(),
    }
}
