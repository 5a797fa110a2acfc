use std::sync::Arc;

use bytes::Bytes;

use super::{Platform, ShardRegistry};
use crate::{
    error::BroadcastError,
    id::{Key, ShardId},
    runtime::registry::PostOutcome,
    shard::{Command, FanOut, Recipients, post_tracked},
    sync::Completion,
};

/// Which shards a packet for many sessions was given to.
#[derive(Debug, Default)]
pub(crate) struct Posted {
    took: usize,
    full: Vec<ShardId>,
}

impl Posted {
    /// Returns how many shards took it.
    ///
    /// # Errors
    /// [`BroadcastError::MailboxFull`] if not all did.
    pub(crate) fn outcome(self) -> Result<usize, BroadcastError> {
        let Self { took, mut full } = self;
        if full.is_empty() {
            return Ok(took);
        }
        full.sort_unstable();
        Err(BroadcastError::MailboxFull { full, took })
    }

    fn note(&mut self, shard: ShardId, outcome: PostOutcome) {
        match outcome {
            PostOutcome::Posted => self.took += 1,
            PostOutcome::Full => self.full.push(shard),
            // A shard that has ended has no sessions.
            PostOutcome::Closed => {}
        }
    }
}

impl<P: Platform> ShardRegistry<P> {
    /// Gives a packet to all shards.
    pub(crate) fn fan_out(&self, payload: &Bytes, to: &Recipients, posted: &mut Posted) {
        for shard in self.shards() {
            self.fan_out_on(shard, payload, to.clone(), posted);
        }
    }

    /// Gives a packet to sessions of one shard, each with what tells its fate, in the same order.
    pub(crate) fn fan_out_tracked(
        &self,
        shard: ShardId,
        payload: &Bytes,
        sessions: Vec<Key>,
        completions: Vec<Completion>,
    ) {
        // Those of a shard that has ended are dropped, which tells it.
        let Some(member) = self.member(shard) else { return };
        let fan_out = FanOut::new(payload.clone(), Recipients::These(Arc::new(sessions)));
        post_tracked(&member.mailbox, fan_out.tracked(completions));
    }

    /// Gives a packet to one shard.
    pub(crate) fn fan_out_on(&self, shard: ShardId, payload: &Bytes, to: Recipients, posted: &mut Posted) {
        let fan_out = FanOut::new(payload.clone(), to);
        let bytes = fan_out.bytes();
        posted.note(shard, self.ask_holding(shard, Command::FanOut(Box::new(fan_out)), bytes));
    }
}
