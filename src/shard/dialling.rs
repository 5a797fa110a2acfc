//! Connections that this side makes: between the reactor, which makes them, and the handler.

use std::{sync::Arc, time::Duration};

use super::{Equipment, Incoming, Shard};
use crate::{
    addr::NewConnection,
    contained::{Contained, guard},
    dial::{Dial, DialStep},
    error::{CloseReason, DialError, LayerError, Logged},
    events::Event,
    framing::Framing,
    handler::PacketHandler,
    id::{DialId, Key, SlotNumber},
    log::logged,
    session::{Deliver, FramingCell, MOST_LAYERS, Session, SessionHandle, TimerPurpose},
    time::ticks,
    timer_wheel::TimerKey,
};

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Takes in a connection that this side has made, as [`insert`](Self::insert) does with one that was accepted.
    ///
    /// # Errors
    /// Why it does not; then the connection leaves by [`poll_ended`](Self::poll_ended).
    pub(crate) fn insert_dialled(&mut self, incoming: Incoming<T>, dial: &Dial) -> Result<Key, DialError> {
        let addr = incoming.endpoints.peer();
        let equipped = if self.stopping {
            Err(DialError::Stopped)
        } else if self.slots.is_full() {
            Err(DialError::Full { connections: self.slots.len() })
        } else {
            self.equip_dialled(&incoming, dial).map_err(|reason| DialError::Opening { addr, reason })
        };
        match equipped {
            Ok(equipment) => Ok(self.place_in_slot(incoming, equipment)),
            Err(error) => {
                self.turn_away(incoming);
                Err(error)
            }
        }
    }

    /// Makes the framing and the layers of the connection, which runs user code.
    fn equip_dialled(&mut self, incoming: &Incoming<T>, dial: &Dial) -> Result<Equipment<F>, CloseReason> {
        if dial.layers.len() > MOST_LAYERS {
            return Err(LayerError::Misplaced("a session has 8 layers at most").into());
        }
        let made = guard("dial", || {
            let mut framing = Contained::new(match &dial.framing {
                Some(framing) => FramingCell::Swapped(Box::new(framing.clone_boxed())),
                None => self.framings.cell(None),
            });
            framing.offer_max(self.core.limits.frame);
            Ok::<_, CloseReason>((framing, dial.layers.make(&NewConnection::new(&incoming.endpoints))))
        });
        if made.is_err() {
            self.core.counters.panics += 1;
        }
        made
    }

    /// Looks whether a dial can be made here.
    ///
    /// # Errors
    /// What of it cannot.
    pub(crate) fn check_dial(&self, dial: &Dial) -> Result<(), DialError> {
        dial.check(self.core.medium)
    }

    /// Counts a dial that comes from elsewhere.
    ///
    /// # Errors
    /// If there are too many, or the shard is stopping.
    pub(crate) fn enter_dial(&mut self) -> Result<(), DialError> {
        self.core.enter_dial()
    }

    /// A dial has ended.
    pub(crate) fn leave_dial(&mut self) {
        self.core.leave_dial();
    }

    /// Returns `true` if dials are under way.
    pub(crate) fn is_dialling(&self) -> bool {
        self.core.dials.under_way() > 0
    }

    pub(crate) fn dial_later(&mut self, step: DialStep) {
        self.core.dial_later(step);
    }

    /// Returns the next thing to do about a dial.
    pub(crate) fn poll_dial_step(&mut self) -> Option<DialStep> {
        self.core.dials.pop()
    }

    /// Sees to it that the rest of it is done in the next turn.
    pub(crate) fn arm_dials(&mut self) {
        self.core.arm_dials();
    }

    /// No more dials are begun.
    pub(crate) fn stop_dials(&mut self) {
        self.core.dials.stop();
        if let Some(alarm) = self.core.dials.alarm.take() {
            self.core.wheel.cancel(alarm);
        }
    }

    /// Sets the timer of a dial.
    pub(crate) fn set_dial_timer(&mut self, number: u32, after: Duration) -> TimerKey {
        let due = self.core.clock.deadline(ticks(after));
        self.core.wheel.insert(due, TimerPurpose::Dial(SlotNumber::new(number)))
    }

    pub(crate) fn cancel_dial_timer(&mut self, timer: TimerKey) {
        self.core.wheel.cancel(timer);
    }

    /// Returns the way into this shard.
    pub(crate) fn way_in(&self) -> &Arc<dyn Deliver> {
        &self.core.mailbox
    }

    /// Returns a handle to a session, if it is open.
    pub(crate) fn handle_to(&mut self, key: Key) -> Option<SessionHandle> {
        let slot = self.slots.get_mut(key).filter(|slot| slot.is_known())?;
        Some(Session::new(&mut slot.connection, &mut *slot.framing, &mut self.core).handle())
    }

    /// Closes a session gracefully.
    pub(crate) fn close_dialled(&mut self, key: Key) {
        self.with_session(key, |access| access.close(CloseReason::Local));
    }

    /// An attempt has failed, or its connection has ended, and another follows after this pause.
    pub(crate) fn note_redial(&mut self, dial: DialId, error: &DialError, pause: Duration) {
        let (shard, now, cause) = (self.core.shard, self.core.clock.now(), error.kind());
        self.core.counters.count_redial(cause);
        self.core.reporter.hub.tell(|| Event::Redialling { shard, dial, error: error.clone(), pause });
        logged!(
            self.core.reporter.gate, now, Redial DEBUG,
            %shard, %dial, cause = cause.name(), error = %Logged(error), ?pause, "dialling again after a pause"
        );
    }

    /// A dial has opened a session, which is not its first.
    pub(crate) fn note_reconnected(&mut self, dial: DialId, key: Key) {
        let Some(peer) = self.slots.get_mut(key).map(|slot| slot.connection.endpoints().peer()) else {
            return;
        };
        let (session, now) = (self.core.id_of(key), self.core.clock.now());
        logged!(self.core.reporter.gate, now, Redial DEBUG, %dial, %session, %peer, "a dial has connected again");
        self.core.reporter.hub.tell(|| Event::Reconnected { dial, session, peer });
    }

    /// A dial has failed: calls `on_dial_failed`.
    pub(crate) fn tell_dial_failed(&mut self, dial: DialId, error: &DialError) {
        let (shard, now, cause) = (self.core.shard, self.core.clock.now(), error.kind());
        self.core.counters.count_failed_dial(cause);
        self.core.reporter.hub.tell(|| Event::DialFailed { shard, dial, error: error.clone() });
        logged!(
            self.core.reporter.gate, now, DialFailed DEBUG,
            %shard, %dial, cause = cause.name(), error = %Logged(error), "a dial has failed"
        );
        // A panic is logged and counted; the shard continues.
        let _ = self.run_with("on_dial_failed", |handler, shard| handler.on_dial_failed(shard, dial, error));
    }
}
