use super::Framing;

/// A framing whose type is erased, and of which clones can be made.
pub(crate) struct AnyFraming(Box<dyn CloneFraming>);

trait CloneFraming: Framing + Send {
    fn clone_any(&self) -> Box<dyn CloneFraming>;

    fn clone_boxed(&self) -> Box<dyn Framing>;
}

impl<F: Framing + Clone + Send + 'static> CloneFraming for F {
    fn clone_any(&self) -> Box<dyn CloneFraming> {
        Box::new(self.clone())
    }

    fn clone_boxed(&self) -> Box<dyn Framing> {
        Box::new(self.clone())
    }
}

impl AnyFraming {
    pub(crate) fn new(framing: impl Framing + Clone + Send + 'static) -> Self {
        Self(Box::new(framing))
    }

    /// Passes on the limit of the server, see [`Framing::offer_max`].
    pub(crate) fn offer_max(&mut self, max: usize) {
        self.0.offer_max(max);
    }

    /// Returns a clone of the framing itself, for a session.
    pub(crate) fn clone_boxed(&self) -> Box<dyn Framing> {
        self.0.clone_boxed()
    }
}

impl Clone for AnyFraming {
    fn clone(&self) -> Self {
        Self(self.0.clone_any())
    }
}
