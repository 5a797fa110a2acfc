//! What a [`ShardContext`] gives access to: the sessions of a shard without its handler, which may be the caller.

use super::{Shard, Slot};
use crate::{
    contained::guard,
    error::CloseReason,
    framing::Framing,
    handler::PacketHandler,
    id::SessionId,
    session::{Body, Inspect, Session, SessionInfo, ShardContext, ShardCore},
    slots::Slots,
};

/// The sessions of a shard, without its handler.
struct Sessions<'a, F, S, T> {
    slots: &'a mut Slots<Slot<F, S, T>>,
    core: &'a mut ShardCore,
}

impl<F: Framing, S, T> Inspect<S> for Sessions<'_, F, S, T> {
    fn core(&self) -> &ShardCore {
        self.core
    }

    fn core_mut(&mut self) -> &mut ShardCore {
        self.core
    }

    fn ids(&self) -> Vec<SessionId> {
        let open = self.slots.iter().filter(|(_, slot)| slot.is_known());
        open.map(|(key, _)| self.core.id_of(key)).collect()
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        let open = self.slots.iter().filter(|(_, slot)| slot.is_known());
        open.map(|(key, slot)| slot.connection.info(self.core.id_of(key), self.core.origin)).collect()
    }

    fn with(&mut self, id: SessionId, body: Body<'_, S>) {
        if !self.core.is_home_of(id) {
            return;
        }
        let Some(slot) = self.slots.get_mut(id.key).filter(|slot| slot.is_known()) else { return };
        let Some(state) = slot.state.as_deref_mut() else { return };
        let before = slot.connection.packets();
        body(&mut Session::new(&mut slot.connection, &mut *slot.framing, self.core), state);
        self.core.count_packets(before, slot.connection.packets());
        slot.connection.account(self.core);
        self.core.flush_later(&mut slot.connection);
    }
}

/// The same for callers that do not depend on the handler's type.
struct Stateless<I>(I);

impl<F: Framing, S, T> Inspect<()> for Stateless<Sessions<'_, F, S, T>> {
    fn core(&self) -> &ShardCore {
        self.0.core()
    }

    fn core_mut(&mut self) -> &mut ShardCore {
        self.0.core_mut()
    }

    fn ids(&self) -> Vec<SessionId> {
        self.0.ids()
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        self.0.sessions()
    }

    fn with(&mut self, id: SessionId, body: Body<'_, ()>) {
        self.0.with(id, &mut |session, _| body(session, &mut ()));
    }
}

impl<F, S, T> Slot<F, S, T> {
    /// Returns `true` if the handler has opened the session, and it is not closing.
    pub(super) fn is_known(&self) -> bool {
        self.state.is_some() && self.connection.is_open()
    }
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Runs user code that concerns the whole shard, then does what it has asked for. Returns its panic as an error.
    pub(super) fn run_with(
        &mut self,
        callback: &'static str,
        body: impl FnOnce(&mut H, &mut ShardContext<'_, H::State>),
    ) -> Result<(), CloseReason> {
        let watch = self.core.begin_callback();
        let mut sessions = Sessions { slots: &mut self.slots, core: &mut self.core };
        let handler = &mut *self.handler;
        let ran = guard(callback, || {
            body(handler, &mut ShardContext::new(&mut sessions));
            Ok(())
        });
        self.core.end_callback(watch, None, callback);
        self.note_run(ran)
    }

    /// The same, for code that does not depend on the handler's type.
    pub(super) fn run_without_states(
        &mut self,
        callback: &'static str,
        body: impl FnOnce(&mut ShardContext<'_>),
    ) -> Result<(), CloseReason> {
        let watch = self.core.begin_callback();
        let mut sessions = Stateless(Sessions { slots: &mut self.slots, core: &mut self.core });
        let ran = guard(callback, || {
            body(&mut ShardContext::new(&mut sessions));
            Ok(())
        });
        self.core.end_callback(watch, None, callback);
        self.note_run(ran)
    }

    fn note_run(&mut self, ran: Result<(), CloseReason>) -> Result<(), CloseReason> {
        self.apply_effects();
        if let Err(panic) = &ran {
            self.core.report_shard_panic(panic, "what runs for the shard as a whole panicked");
        }
        ran
    }
}
