use super::{ForkingStrategy, Placement, ShardLoads};
use crate::addr::Addr;

/// What a worker with a listener of its own accepts stays with it.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) worker: usize,
    pub(crate) max_sessions: usize,
}

impl ForkingStrategy for Resident {
    fn place(&mut self, _peer: &Addr, loads: ShardLoads<'_>) -> Placement {
        if loads.sessions(self.worker) < self.max_sessions {
            Placement::On(self.worker)
        } else {
            Placement::Refuse
        }
    }
}
