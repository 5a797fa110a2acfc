//! What takes the place of `signals.rs` without its feature: nothing watches for signals.

use super::ServerHandle;
use crate::error::ServeError;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OnSignal {}

pub(super) type SignalWatch = ();

impl OnSignal {
    pub(super) fn sooner(self, _other: Self) -> Self {
        self
    }

    pub(super) fn watch(self, _server: &ServerHandle) -> Result<SignalWatch, ServeError> {
        Ok(())
    }
}
