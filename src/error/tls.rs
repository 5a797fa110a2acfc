use std::{error::Error, io, sync::Arc};

use thiserror::Error as ThisError;

use crate::framing::BytesPreview;

/// Why TLS with a peer failed. It is in the [`LayerError::Other`](crate::LayerError::Other) that closes the session, and
/// [`TlsError::of`] finds it there. A stream that was cut is [`LayerError::Truncated`](crate::LayerError::Truncated).
#[derive(Debug, Clone, ThisError)]
#[non_exhaustive]
pub enum TlsError {
    /// The first bytes of the peer are no TLS: it speaks in clear text, or another protocol.
    #[error("the peer does not speak TLS here{0}")]
    NotTls(BytesPreview),
    /// In a switch to TLS in mid-stream, clear text was already there behind the packet that asked for it. Whoever sent
    /// it may not be the peer with which the handshake would be made, so it is neither handed out nor skipped
    /// (CVE-2011-0411).
    #[error("clear text came together with the request to switch to TLS{0}")]
    ClearTextBehindSwitch(BytesPreview),
    /// The handshake is longer than 128 KiB.
    #[error("the handshake took more than {0} bytes")]
    HandshakeTooLong(usize),
    /// The text is no name (or IP address) that a certificate can be for.
    #[error("{0:?} is no name of a server: give a host name or an IP address, without a port")]
    ServerName(Box<str>),
    /// The two sides do not agree, the peer's certificate is not valid, the peer has broken the protocol, or it has sent
    /// an alert, which tells its reason.
    #[error("TLS: {0}")]
    Protocol(#[source] rustls::Error),
}

impl TlsError {
    /// Finds the error of TLS among the causes of another error, such as a [`CloseReason`](crate::CloseReason).
    ///
    /// ```
    /// use framewire::{CloseReason, TlsError};
    ///
    /// fn is_from_a_browser_without_tls(reason: &CloseReason) -> bool {
    ///     matches!(TlsError::of(reason), Some(TlsError::NotTls(seen)) if seen.hint().is_some())
    /// }
    /// ```
    #[must_use]
    pub fn of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            // An `Arc` around an error is an error of its own.
            let shared = error.downcast_ref::<Arc<dyn Error + Send + Sync>>();
            let found = shared.map_or_else(|| error.downcast_ref(), |shared| shared.downcast_ref());
            if found.is_some() {
                return found;
            }
            next = error.source();
        }
        None
    }
}

/// Why certificates, keys or roots cannot be used. Every variant names the file, or says that it came from memory.
#[derive(Debug, Clone, ThisError)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// A file cannot be read.
    #[error("{file}: cannot be read: {source}")]
    #[non_exhaustive]
    Read {
        /// The file.
        file: Box<str>,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// There is no certificate in a file that should have one.
    #[error("{file}: there is no certificate in it; {found}")]
    #[non_exhaustive]
    NoCertificate {
        /// The file.
        file: Box<str>,
        /// What there is instead.
        found: Box<str>,
    },
    /// There is no private key in a file that should have one.
    #[error("{file}: there is no private key in it; {found}")]
    #[non_exhaustive]
    NoKey {
        /// The file.
        file: Box<str>,
        /// What there is instead.
        found: Box<str>,
    },
    /// The private key is encrypted.
    #[error("{0}: the private key is encrypted; decrypt it first, as `openssl pkey -in OLD -out NEW` does")]
    EncryptedKey(Box<str>),
    /// A file is no valid PEM.
    #[error("{file}: not valid PEM: {why}")]
    #[non_exhaustive]
    BadPem {
        /// The file.
        file: Box<str>,
        /// What is wrong.
        why: Box<str>,
    },
    /// A certificate cannot be used.
    #[error("{file}: certificate {number} in it cannot be used: {why}")]
    #[non_exhaustive]
    BadCertificate {
        /// The file.
        file: Box<str>,
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong.
        why: Box<str>,
    },
    /// A private key cannot be used: it is of a kind that is not supported, or broken. RSA (2048 to 8192 bits), ECDSA
    /// (P-256, P-384) and Ed25519 are supported.
    #[error("{file}: the private key cannot be used: {why}")]
    #[non_exhaustive]
    BadKey {
        /// The file.
        file: Box<str>,
        /// What is wrong.
        why: Box<str>,
    },
    /// The key does not belong to the certificate.
    #[error("the private key in {key} does not belong to the first certificate in {certificate}")]
    #[non_exhaustive]
    KeyMismatch {
        /// The file with the certificate.
        certificate: Box<str>,
        /// The file with the key.
        key: Box<str>,
    },
    /// A certificate that is to be shown for a name is not valid for it.
    #[error("{file}: the first certificate in it is not valid for {name:?}: {why}")]
    #[non_exhaustive]
    WrongName {
        /// The file.
        file: Box<str>,
        /// The name.
        name: Box<str>,
        /// What is wrong.
        why: Box<str>,
    },
    /// The system has no roots that could be read.
    #[error(
        "the system has no usable roots: {0}; install its package of CA certificates, or give roots in a file"
    )]
    NoSystemRoots(Box<str>),
    /// TLS cannot be set up in this way.
    #[error("TLS cannot be set up: {0}")]
    Unusable(#[source] rustls::Error),
}
