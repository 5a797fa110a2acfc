use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    error::{CloseReason, Logged, SendError, TicketError},
    session::Deliver,
    sync::{Addressee, Completion, SendTicket},
};

/// Where a tracked packet has come to that has no session yet: one that waits for a connection, or one that is for a
/// session of which only the id is known.
#[derive(Default)]
pub(crate) struct Errand(Mutex<Place>);

#[derive(Default)]
pub(crate) enum Place {
    #[default]
    Nowhere,
    With(Arc<dyn Addressee>),
    /// Nothing comes of it any more on this shard.
    LostOn(Arc<dyn Deliver>),
}

impl Errand {
    /// Also returns what decides the ticket.
    pub(crate) fn ticket() -> (SendTicket, Completion, Arc<Self>) {
        let errand = Arc::<Self>::default();
        let (ticket, completion) = SendTicket::pair(errand.clone());
        (ticket, completion, errand)
    }

    pub(crate) fn note(&self, place: Place) {
        let before = mem::replace(&mut *self.lock(), place);
        drop(before);
    }

    fn session(&self) -> Option<Arc<dyn Addressee>> {
        if let Place::With(session) = &*self.lock() { Some(session.clone()) } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Addressee for Errand {
    /// Without a session, there is none any more.
    fn loss(&self) -> TicketError {
        self.session().map_or(TicketError::Refused(SendError::Closed), |session| session.loss())
    }

    fn report_panic(&self, panic: &CloseReason) {
        if let Some(session) = self.session() {
            return session.report_panic(panic);
        }
        if let Place::LostOn(shard) = &*self.lock() {
            shard.count_panic();
        }
        tracing::error!(panic = %Logged(panic), "what was to be called with the fate of a packet panicked; it has reached no session");
    }

    fn meet(&self, session: &mut dyn FnMut() -> Arc<dyn Addressee>) {
        self.note(Place::With(session()));
    }
}
