use super::{Dial, UpstreamSide};
use crate::{error::discard, id::DialId, sync::AdmissionPermit};

/// A dial on its way to where it is carried out. If dropped on the way, its upstream is closed.
pub(crate) struct NewDial {
    pub(crate) id: DialId,
    pub(crate) dial: Dial,
    /// What other threads have of it.
    pub(crate) upstream: Option<UpstreamSide>,
    /// Its place in the counts, once the strategy has placed it.
    pub(crate) permit: Option<AdmissionPermit>,
}

impl NewDial {
    pub(crate) fn new(dial: Dial) -> Box<Self> {
        Box::new(Self { id: DialId::next(), dial, upstream: None, permit: None })
    }

    pub(crate) fn with_upstream(id: DialId, dial: Dial, upstream: UpstreamSide) -> Box<Self> {
        Box::new(Self { id, dial, upstream: Some(upstream), permit: None })
    }

    /// Drops it, and the framing and the layers of the user's in it.
    ///
    /// # Errors
    /// The message, if a destructor panicked.
    pub(crate) fn discard(self: Box<Self>) -> Result<(), String> {
        discard(self)
    }
}
