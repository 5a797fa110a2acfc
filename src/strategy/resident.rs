use super::{ForkingStrategy, Placement, ShardLoads};
use crate::{addr::NewConnection, id::ShardId};

/// The strategy of a worker with a listener of its own: what it accepts stays with it.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) worker: ShardId,
    pub(crate) max_sessions: usize,
}

impl ForkingStrategy for Resident {
    fn place(&mut self, _connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
        if loads.sessions(self.worker) < self.max_sessions {
            Placement::On(self.worker)
        } else {
            Placement::Refuse
        }
    }
}
