use super::{Service, Sys};
use crate::{
    id::{SessionId, ShardId},
    shard::Carry,
};

/// The other services of a thread, as one that carries streams sees them: their sessions are the carriers.
pub(crate) struct Carriers<'a, Y: Sys>(pub(super) &'a mut [Option<Box<dyn Service<Y>>>]);

impl<Y: Sys> Carriers<'_, Y> {
    /// Visits a carrier, which takes what `write` gives it. Returns `false` if it has ended.
    pub(super) fn visit(&mut self, carrier: SessionId, write: &mut dyn FnMut(&mut dyn Carry)) -> bool {
        service_with(self.0, carrier.shard()).is_some_and(|service| service.carry(carrier, write))
    }
}

/// Returns the service that this shard belongs to, if it has not ended.
pub(super) fn service_with<Y: Sys>(
    services: &mut [Option<Box<dyn Service<Y>>>],
    shard: ShardId,
) -> Option<&mut Box<dyn Service<Y>>> {
    services.iter_mut().flatten().find(|service| service.shard() == shard)
}
