//! Carrying received bytes, and what is sent, through the layers of a session.

use std::mem;

use super::{Ending, SessionAccess};
use crate::{
    contained::{Contained, guard},
    error::{CloseReason, LayerError},
    framing::Framing,
    handler::PacketHandler,
    session::FramingSlot,
};

/// Steps that the layers of one session take at a time, in case each brings next to nothing.
const MOST_STEPS: u32 = 64;

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// Begins a new connection: `on_open` is called now, or when its layers are open.
    pub(crate) fn open(&mut self) {
        if self.slot.connection.is_layered() {
            self.slot.connection.begin_opening();
            self.feed_layers(&[]);
        } else {
            self.open_session();
        }
    }

    /// Gives the layers what was `received`, or lets them go on with what they have, and hands out what they make of
    /// it: as much as the session may have in this turn.
    #[inline(never)]
    pub(super) fn feed_layers(&mut self, received: &[u8]) {
        let mut received = received;
        let (mut budget, mut steps) = (self.core.limits.read_budget, MOST_STEPS);
        let mut plain = mem::take(&mut self.core.layer_buffers.plain);
        loop {
            plain.clear();
            let (connection, core) = (&mut self.slot.connection, &mut *self.core);
            let stepped: Result<usize, CloseReason> =
                guard("layer", || Ok(connection.step_layers(mem::take(&mut received), &mut plain, core)?));
            if let Err(reason @ CloseReason::Layer(LayerError::PeerLimit { .. })) = stepped {
                // As one that is refused when it is accepted.
                self.terminate(reason, Ending::Reset);
                break;
            }
            if let Some(framing) = self.slot.connection.poll_framing() {
                self.adopt(framing);
            }
            if self.is_alive() && self.slot.connection.poll_through() {
                self.open_session();
            }
            self.deliver_plain(&mut plain);
            let carried = match stepped {
                Ok(carried) => carried,
                Err(reason) => {
                    self.fail_layers(reason);
                    break;
                }
            };
            if !self.is_alive() || !self.slot.connection.are_layers_ready() {
                break;
            }
            budget = budget.saturating_sub(plain.len()).saturating_sub(carried);
            steps -= 1;
            let is_spent = budget == 0 || steps == 0 || self.share.frames == 0;
            if is_spent || !self.slot.connection.takes_wire() {
                self.slot.connection.put_off(self.core);
                break;
            }
        }
        self.core.layer_buffers.put_plain(plain);
    }

    /// Replaces the framing by one that a layer has set.
    #[cold]
    fn adopt(&mut self, framing: Box<dyn Framing>) {
        let (slot, limit) = (&mut *self.slot, self.core.limits.frame);
        let mut framing = Contained::new(framing);
        let adopted: Result<(), CloseReason> = guard("framing", || {
            framing.offer_max(limit);
            #[cfg(feature = "websocket")]
            if let (Some(own), Some(new)) = (slot.framing.messages_mut(), framing.messages()) {
                // What was made for each session of the server need not be on the heap.
                own.clone_from(new);
                return Ok(());
            }
            slot.framing.swap(framing.into_inner());
            Ok(())
        });
        self.slot.connection.framing_swapped(&*self.slot.framing, self.core);
        if let Err(panic) = adopted {
            self.fail_layers(panic);
        }
    }

    fn deliver_plain(&mut self, plain: &mut [u8]) {
        if plain.is_empty() || !self.is_open() {
            return;
        }
        match self.slot.connection.take_inbox() {
            Some(mut inbox) => {
                inbox.append(plain);
                self.deliver_from(inbox);
            }
            None => {
                let used = self.deliver_any(plain, self.core.clock.stamp());
                self.keep_tail(None, plain.get(used..).unwrap_or_default(), used);
            }
        }
    }

    /// Before writing: carries what is to be sent through the layers.
    #[inline(never)]
    pub(super) fn fill_wire(&mut self) {
        if !self.slot.connection.wants_fill() {
            return;
        }
        let (connection, core) = (&mut self.slot.connection, &mut *self.core);
        let filled: Result<(), CloseReason> = guard("layer", || Ok(connection.fill_wire(core)?));
        if let Err(reason) = filled {
            self.fail_layers(reason);
        }
    }

    /// Notifies the layers of the peer's end. Returns `true` if all of them accept it.
    #[cold]
    pub(super) fn end_layers(&mut self) -> bool {
        let connection = &mut self.slot.connection;
        let ended: Result<(), CloseReason> = guard("layer", || Ok(connection.end_layers_input()?));
        match ended {
            Ok(()) => true,
            Err(reason @ CloseReason::Panicked { .. }) => {
                self.fail_layers(reason);
                false
            }
            Err(reason) => {
                // Our side still works: replies to what came before the cut are delivered. Unless the connection has
                // failed, which says more.
                let reason = self.slot.connection.reason().cloned().unwrap_or(reason);
                self.close(reason);
                false
            }
        }
    }

    #[cold]
    pub(super) fn fail_layers(&mut self, reason: CloseReason) {
        self.slot.connection.fail_layers(self.core);
        self.fail(reason);
    }
}
