use std::{fmt, sync::Arc};

use super::{HeaderSender, Layer, ProxyHeader, ProxyProtocol};
use crate::{
    addr::{Networks, NewConnection},
    contained::Contained,
};

type Make = dyn Fn(&NewConnection<'_>) -> Box<dyn Layer> + Send + Sync;

/// What makes the layers of a connection that arrives.
#[derive(Clone, Default)]
pub(crate) struct LayerFactories {
    /// The one next to the socket first.
    made: Vec<Arc<Contained<Box<Make>>>>,
    /// Those whose headers are taken.
    proxies: Networks,
}

impl LayerFactories {
    pub(crate) fn push<L: Layer + 'static>(
        &mut self,
        make: impl Fn(&NewConnection<'_>) -> L + Send + Sync + 'static,
    ) {
        let make: Box<Make> = Box::new(move |connection| Box::new(make(connection)));
        self.made.push(Arc::new(Contained::new(make)));
    }

    /// Takes headers of proxies, below all other layers.
    pub(crate) fn take_headers(&mut self, protocol: ProxyProtocol) {
        self.proxies = protocol.trusted().clone();
        self.push(move |connection| protocol.receiver(connection));
        self.made.rotate_right(1);
    }

    /// Sends a header as a proxy does, below all other layers.
    pub(crate) fn send_header(&mut self, header: ProxyHeader) {
        self.push(move |_| HeaderSender(header.clone()));
        self.made.rotate_right(1);
    }

    pub(crate) fn proxies(&self) -> &Networks {
        &self.proxies
    }

    pub(crate) fn len(&self) -> usize {
        self.made.len()
    }

    /// Calls the user's code, which may panic.
    pub(crate) fn make(&self, connection: &NewConnection<'_>) -> Vec<Contained<Box<dyn Layer>>> {
        self.made.iter().map(|make| Contained::new((***make)(connection))).collect()
    }
}

impl fmt::Debug for LayerFactories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerFactories({})", self.made.len())
    }
}
