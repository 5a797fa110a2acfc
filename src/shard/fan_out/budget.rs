use crate::{session::ShardCore, time::Tick};

/// How long the fan-outs of one turn may take before they continue in the next one (milliseconds).
const SHARE: Tick = 1;

/// What is left of a turn's share for fan-outs.
pub(in crate::shard) struct Budget {
    /// The turn, by the number of those before it.
    turn: u64,
    /// Sessions, or empty places, that may still be looked at.
    pub(super) places: usize,
    /// Bytes of payload that may still be sent. One packet may exceed it.
    pub(super) bytes: usize,
}

impl Budget {
    pub(in crate::shard) fn new() -> Self {
        Self { turn: u64::MAX, places: 0, bytes: 0 }
    }

    /// Fills it up if it is that of an earlier turn: turns without fan-outs do not touch it. What is carried out behind
    /// the first fan-out of a turn shares its time.
    pub(super) fn begin(&mut self, core: &mut ShardCore) {
        let turn = core.counters.turns;
        if self.turn != turn {
            (self.places, self.bytes) = core.limits.fanout_budget;
            self.turn = turn;
            core.clock.shorten_part(SHARE);
        }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.places == 0 || self.bytes == 0
    }
}
