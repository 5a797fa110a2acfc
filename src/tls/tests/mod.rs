//! Both sides of TLS against each other, without sockets.

mod config;
mod malformed;
mod streams;

use std::error::Error;

use super::*;
use crate::{error::LayerError, layer::Layer, testing::LayerDriver};

pub(super) type Tested = Result<(), Box<dyn Error>>;

/// A certificate for names, and its key, both in PEM.
pub(super) struct Made {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A certificate that vouches for itself.
pub(super) fn made(names: &[&str]) -> Result<Made, rcgen::Error> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names)?;
    Ok(Made { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() })
}

impl Made {
    pub(super) fn identity(&self) -> Result<TlsIdentity, crate::TlsConfigError> {
        TlsIdentity::from_pem(&self.certificate, &self.key)
    }

    pub(super) fn roots(&self) -> Result<TlsRoots, crate::TlsConfigError> {
        TlsRoots::from_pem(&self.certificate)
    }
}

/// A server and a client of it, whose bytes are carried by hand.
pub(super) struct Link {
    pub(super) server: LayerDriver<Tls>,
    pub(super) client: LayerDriver<Tls>,
}

impl Link {
    pub(super) fn new(
        acceptor: &TlsAcceptor,
        connector: &TlsConnector,
        name: &str,
    ) -> Result<Self, LayerError> {
        Ok(Self {
            server: LayerDriver::new(acceptor.first_layer())?,
            client: LayerDriver::new(connector.first_layer(name))?,
        })
    }

    /// A link whose handshake is complete.
    pub(super) fn open() -> Result<Self, Box<dyn Error>> {
        let own = made(&["localhost"])?;
        let (acceptor, connector) = (TlsAcceptor::new(own.identity()?)?, TlsConnector::new(own.roots()?)?);
        let mut link = Self::new(&acceptor, &connector, "localhost")?;
        link.shake(usize::MAX)?;
        Ok(link)
    }

    /// Carries bytes, in pieces of this length, until both sides are open.
    pub(super) fn shake(&mut self, piece: usize) -> Result<(), LayerError> {
        for _ in 0..10 {
            assert_eq!(carry(&mut self.client, &mut self.server, piece)?, b"");
            assert_eq!(carry(&mut self.server, &mut self.client, piece)?, b"");
        }
        assert!(self.server.is_open() && self.client.is_open());
        Ok(())
    }
}

/// Carries what one side has written to the other, in pieces of this length. Returns what came of it.
pub(super) fn carry<A: Layer, B: Layer>(
    from: &mut LayerDriver<A>,
    to: &mut LayerDriver<B>,
    piece: usize,
) -> Result<Vec<u8>, LayerError> {
    let (wire, mut plain) = (from.take_wire(), Vec::new());
    for piece in wire.chunks(piece) {
        plain.extend(to.receive(piece)?);
    }
    Ok(plain)
}
