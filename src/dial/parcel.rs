//! A packet on its way to the connection of an upstream, whichever that will be.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    error::SendError,
    session::{Deliver, Errand, Place, SessionHandle, Unsent},
    sync::{Completion, TICKET},
};

/// A packet, and who is to be told what becomes of it.
pub(super) struct Parcel {
    payload: Bytes,
    /// Boxed: most packets are not tracked.
    tracked: Option<Box<Tracked>>,
}

struct Tracked {
    /// While the packet is not with a session.
    completion: Option<Completion>,
    errand: Arc<Errand>,
}

/// What a parcel counts while it is kept, beside its payload: its place in the queue.
pub(super) const PLACE: usize = size_of::<Parcel>();
/// The same for what tells the fate of one that is tracked.
const TRACKED: usize = 256;
const _: () = {
    let shared = size_of::<Errand>() + 2 * size_of::<usize>();
    assert!(PLACE <= 40 && TICKET + size_of::<Tracked>() + shared <= TRACKED);
};

/// A parcel that was not taken, and why.
pub(super) type Returned = (SendError, Parcel);

impl Parcel {
    pub(super) fn new(payload: Bytes) -> Self {
        Self { payload, tracked: None }
    }

    /// Its fate is told by the completion, which was made for this errand.
    pub(super) fn tracked(payload: Bytes, completion: Completion, errand: Arc<Errand>) -> Self {
        let completion = Some(completion);
        Self { payload, tracked: Some(Box::new(Tracked { completion, errand })) }
    }

    /// Returns what it counts in a mailbox, in bytes.
    pub(super) fn held(&self) -> usize {
        self.payload.len().saturating_add(if self.tracked.is_some() { TICKET } else { 0 })
    }

    /// Returns what it counts while it is kept, in bytes.
    pub(super) fn cost(&self) -> usize {
        let beside = PLACE + if self.tracked.is_some() { TRACKED } else { 0 };
        self.payload.len().saturating_add(beside)
    }

    /// Gives it to a session.
    pub(super) fn post(mut self, session: &SessionHandle) -> Result<(), Returned> {
        let completion = self.tracked.as_mut().and_then(|tracked| {
            tracked.errand.note(Place::With(session.handle_state.clone()));
            tracked.completion.take()
        });
        session.post(self.payload.clone(), completion, None).map_err(|Unsent { error, completion }| {
            if let Some(tracked) = &mut self.tracked {
                tracked.completion = completion;
            }
            (error, self)
        })
    }

    /// It goes nowhere: who tracks it is told.
    pub(super) fn refuse(self, error: SendError) {
        if let Some(completion) = self.tracked.and_then(|tracked| tracked.completion) {
            completion.refused(error);
        }
    }

    /// The same for one that was kept when the upstream ended on this shard.
    pub(super) fn lose(self, shard: Option<&Arc<dyn Deliver>>) {
        if let (Some(tracked), Some(shard)) = (&self.tracked, shard) {
            tracked.errand.note(Place::LostOn(shard.clone()));
        }
        self.refuse(SendError::NotConnected);
    }
}
