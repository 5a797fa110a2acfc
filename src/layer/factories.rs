use std::{fmt, sync::Arc};

use super::Layer;
use crate::{addr::NewConnection, contained::Contained};

type Make = dyn Fn(&NewConnection<'_>) -> Box<dyn Layer> + Send + Sync;

/// What makes the layers of a connection that arrives, the one next to the socket first.
#[derive(Clone, Default)]
pub(crate) struct LayerFactories(Vec<Arc<Contained<Box<Make>>>>);

impl LayerFactories {
    pub(crate) fn push<L: Layer + 'static>(
        &mut self,
        make: impl Fn(&NewConnection<'_>) -> L + Send + Sync + 'static,
    ) {
        let make: Box<Make> = Box::new(move |connection| Box::new(make(connection)));
        self.0.push(Arc::new(Contained::new(make)));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Calls the user's code, which may panic.
    pub(crate) fn make(&self, connection: &NewConnection<'_>) -> Vec<Contained<Box<dyn Layer>>> {
        self.0.iter().map(|make| Contained::new((***make)(connection))).collect()
    }
}

impl fmt::Debug for LayerFactories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerFactories({})", self.0.len())
    }
}
