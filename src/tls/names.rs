use std::{collections::HashMap, fmt, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Which certificate a server shows for which name.
pub(super) struct Names {
    /// In lower case; those with a wildcard as `*.rest`.
    known: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// For all other names, and for clients that name none.
    default: Arc<CertifiedKey>,
}

impl Names {
    pub(super) fn new(default: Arc<CertifiedKey>) -> Self {
        Self { known: HashMap::new(), default }
    }

    pub(super) fn insert(&mut self, name: &str, key: Arc<CertifiedKey>) {
        self.known.insert(name.to_ascii_lowercase().into(), key);
    }

    /// An exact name goes before a wildcard, which stands for one label.
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        if self.known.is_empty() {
            return None;
        }
        let name = name.to_ascii_lowercase();
        self.known.get(name.as_str()).or_else(|| {
            let (_, rest) = name.split_once('.')?;
            self.known.get(format!("*.{rest}").as_str())
        })
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.find(name));
        Some(named.unwrap_or(&self.default).clone())
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.known.keys()).finish()
    }
}
