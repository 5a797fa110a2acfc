//! A packet on its way to the connection of an upstream, whichever that will be.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    error::{CloseKind, CloseReason, Logged, SendError},
    session::{Deliver, HandleState, SessionHandle, Unsent},
    sync::{Addressee, Completion, SendTicket, TICKET},
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

/// Where a tracked packet has come to.
#[derive(Default)]
pub(super) struct Errand(Mutex<Place>);

#[derive(Default)]
enum Place {
    #[default]
    Nowhere,
    With(Arc<HandleState>),
    /// Its upstream has ended on this shard.
    LostOn(Arc<dyn Deliver>),
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

impl Errand {
    /// Also returns what decides the ticket.
    pub(super) fn ticket() -> (SendTicket, Completion, Arc<Self>) {
        let errand = Arc::<Self>::default();
        let (ticket, completion) = SendTicket::pair(errand.clone());
        (ticket, completion, errand)
    }

    fn note(&self, place: Place) {
        let before = mem::replace(&mut *self.lock(), place);
        drop(before);
    }

    fn session(&self) -> Option<Arc<HandleState>> {
        if let Place::With(session) = &*self.lock() { Some(session.clone()) } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Addressee for Errand {
    /// Without a session, our side has given up the upstream.
    fn lost_by(&self) -> CloseKind {
        self.session().map_or(CloseKind::Local, |session| session.lost_by())
    }

    fn report_panic(&self, panic: &CloseReason) {
        if let Some(session) = self.session() {
            return session.report_panic(panic);
        }
        if let Place::LostOn(shard) = &*self.lock() {
            shard.count_panic();
        }
        tracing::error!(panic = %Logged(panic), "what was to be called with the fate of a packet for an upstream panicked");
    }
}
