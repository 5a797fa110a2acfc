//! Where the connections are made that other threads ask for.

use std::{
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{Acceptor, Gate, Sys, dispatch::DispatchDials};
use crate::{
    addr::Addr,
    contained::Contained,
    dial::NewDial,
    error::{DialError, panic_message},
    id::{DialId, ShardId},
    metrics::Counters,
    strategy::{ForkingStrategy, Placement, ShardLoads},
    sync::Admission,
};

/// Where a connection is to be made.
pub(crate) enum PlacedDial {
    /// On this thread.
    Here(Box<NewDial>),
    /// On another one.
    Elsewhere,
    /// On none.
    Nowhere(DialId, DialError),
}

impl<Y: Sys> Acceptor<Y> {
    /// Places a connection that is to be made, and counts it, so that the next is placed with regard to it.
    pub(super) fn place_dial(&mut self, dial: Box<NewDial>, counters: &mut Counters) -> PlacedDial {
        let (admission, here) = (&self.admission, self.here);
        Placer { strategy: &mut self.strategy, dispatch: &mut *self.dispatch, admission, here }
            .place(dial, counters)
    }
}

impl Gate {
    /// As that of an [`Acceptor`].
    pub(super) fn place_dial(&mut self, dial: Box<NewDial>, counters: &mut Counters) -> PlacedDial {
        let Some((strategy, dispatch)) = &mut self.strategy else {
            return PlacedDial::Nowhere(dial.id, DialError::Stopped);
        };
        let (admission, here) = (&self.admission, self.here);
        Placer { strategy, dispatch: &mut **dispatch, admission, here }.place(dial, counters)
    }
}

/// What decides where a connection is made, and hands it over.
struct Placer<'a, D: ?Sized> {
    strategy: &'a mut Contained<Box<dyn ForkingStrategy>>,
    dispatch: &'a mut D,
    admission: &'a Admission,
    /// The shard of this thread.
    here: ShardId,
}

impl<D: DispatchDials + ?Sized> Placer<'_, D> {
    fn place(mut self, mut dial: Box<NewDial>, counters: &mut Counters) -> PlacedDial {
        let id = dial.id;
        let shard = match self.ask_for_place(counters) {
            Placement::On(shard) if shard.index() < self.admission.standing() => Some(shard),
            Placement::Fork => None,
            Placement::On(_) | Placement::Detach | Placement::Refuse => {
                return PlacedDial::Nowhere(id, self.full());
            }
        };
        match self.admission.admit(shard, &Addr::Unix(None)) {
            Ok(permit) => dial.permit = Some(permit),
            Err(_) => return PlacedDial::Nowhere(id, self.full()),
        }
        let handed_over = match shard {
            Some(shard) if shard == self.here => return PlacedDial::Here(dial),
            Some(shard) => self.dispatch.send_dial(shard, dial),
            None => self.dispatch.fork_dial(dial),
        };
        match handed_over {
            Ok(()) => PlacedDial::Elsewhere,
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                PlacedDial::Nowhere(id, DialError::Stopped)
            }
            Err(error) => PlacedDial::Nowhere(id, DialError::Thread(Arc::new(error))),
        }
    }

    fn full(&self) -> DialError {
        DialError::Full { connections: self.admission.total() }
    }

    fn ask_for_place(&mut self, counters: &mut Counters) -> Placement {
        let (strategy, loads) = (&mut *self.strategy, ShardLoads::new(self.admission));
        catch_unwind(AssertUnwindSafe(|| strategy.place_dial(loads))).unwrap_or_else(|panic| {
            counters.panics += 1;
            tracing::error!(panic = panic_message(panic), "the forking strategy panicked in place_dial");
            Placement::Refuse
        })
    }
}
