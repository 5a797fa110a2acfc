//! Between the connector and the shard: a connection that was made becomes a session as one that was accepted does.

use std::{io, sync::Arc, time::Duration};

use super::{
    Connector, ServiceLoop, Sys,
    connect::{Connect, Streams},
    connector::{Connected, Polled, Progress, Remains},
    placing::PlacedDial,
};
use crate::{
    addr::{Addr, Name},
    dial::{DialStep, EndedDial, Kept, NewDial, UpstreamSide},
    error::DialError,
    framing::Framing,
    handler::PacketHandler,
    id::{DialId, Key},
    shard::Shard,
    timer_wheel::TimerKey,
};

/// Packets that an upstream has kept and for which there was no room are tried again after this time.
const DELIVER_AGAIN: Duration = Duration::from_millis(10);

/// What a session of a loop has of its socket.
type IoOf<Y, L> = <<L as Dialling<Y>>::Connect as Connect<Y>>::Io;

/// A loop that makes connections.
pub(super) trait Dialling<Y: Sys> {
    type Handler: PacketHandler + 'static;
    type Framing: Framing + Clone;
    type Connect: Connect<Y>;

    fn shard_mut(&mut self) -> &mut Shard<Self::Handler, Self::Framing, IoOf<Y, Self>>;

    fn connector_mut(&mut self) -> &mut Connector<Y, Self::Connect>;

    /// Finds a thread for a dial that another one asked for.
    fn place_dial(&mut self, dial: Box<NewDial>) -> PlacedDial;

    /// Opens a session for a connection that was made for the dial with this number.
    ///
    /// # Errors
    /// Why there is none.
    fn adopt_dialled(
        &mut self,
        sys: &mut Y,
        number: u32,
        connected: Connected<IoOf<Y, Self>>,
    ) -> Result<(), DialError>;

    /// Does what is recorded in the shard's book, as far as there is time.
    fn dial(&mut self, sys: &mut Y) {
        while let Some(step) = self.shard_mut().poll_dial_step() {
            match step {
                DialStep::Begin(dial) => self.begin_dial(sys, *dial),
                DialStep::Ready(number) => {
                    let progress = self.connector_mut().handle_ready(sys, number);
                    self.go_on(sys, number, progress);
                }
                DialStep::Opened(dial, session) => self.note_opened(dial, session),
                DialStep::Ended(ended) => self.note_ended(sys, *ended),
                DialStep::HangUp(dial) => self.hang_up(dial),
            }
            self.shard_mut().clock().read();
            if self.shard_mut().clock().is_part_over() {
                break;
            }
        }
        self.shard_mut().arm_dials();
    }

    /// A dial that another thread asked for, or has placed here.
    fn take_dial(&mut self, sys: &mut Y, dial: Box<NewDial>) {
        if dial.permit.is_some() {
            return self.count_in(sys, dial);
        }
        let placed = match self.shard_mut().check_dial(&dial.dial) {
            Ok(()) => self.place_dial(dial),
            Err(error) => return self.refuse_dial(dial, &error),
        };
        match placed {
            PlacedDial::Here(dial) => self.count_in(sys, dial),
            PlacedDial::Elsewhere => {}
            PlacedDial::Nowhere(id, error) => self.shard_mut().tell_dial_failed(id, &error),
        }
    }

    fn count_in(&mut self, sys: &mut Y, dial: Box<NewDial>) {
        match self.shard_mut().enter_dial() {
            Ok(()) => {
                self.shard_mut().counters().dials += 1;
                self.begin_dial(sys, *dial);
            }
            Err(error) => self.refuse_dial(dial, &error),
        }
    }

    /// A dial fails before it begins.
    fn refuse_dial(&mut self, dial: Box<NewDial>, error: &DialError) {
        let id = dial.id;
        // Its upstream is closed when the handler hears of it.
        drop(dial);
        self.shard_mut().tell_dial_failed(id, error);
    }

    fn begin_dial(&mut self, sys: &mut Y, dial: NewDial) {
        let is_wanted =
            dial.upstream.as_ref().is_none_or(|upstream| upstream.begin(self.shard_mut().way_in()));
        if !is_wanted {
            return self.shard_mut().leave_dial();
        }
        let number = self.connector_mut().begin(sys, dial);
        let progress = self.connector_mut().advance(sys, number);
        self.go_on(sys, number, progress);
    }

    /// A timer of a dial is due.
    fn expire_dial(&mut self, sys: &mut Y, number: u32, timer: TimerKey) {
        let progress = self.connector_mut().handle_timer(sys, number, timer);
        self.note_waiting();
        self.go_on(sys, number, progress);
    }

    fn note_found(&mut self, sys: &mut Y, name: &Name, found: &Result<Vec<Addr>, Arc<io::Error>>) {
        for number in self.connector_mut().handle_found(name, found) {
            let progress = self.connector_mut().advance(sys, number);
            self.go_on(sys, number, progress);
        }
    }

    fn go_on(&mut self, sys: &mut Y, number: u32, progress: Progress<IoOf<Y, Self>>) {
        let mut progress = progress;
        loop {
            progress = match progress {
                Progress::Unchanged => return,
                Progress::Waits(within) => {
                    self.forget_timer(number);
                    let timer = self.shard_mut().set_dial_timer(number, within);
                    return self.connector_mut().set_timer(number, timer);
                }
                Progress::Failed(error) => return self.end_attempt(number, &error),
                Progress::Delivers => {
                    let kept = self.connector_mut().upstream(number).map(UpstreamSide::deliver);
                    return self.await_room(number, kept);
                }
                Progress::Connected(connected) => {
                    self.forget_timer(number);
                    let Err(error) = self.adopt_dialled(sys, number, connected) else { return };
                    self.connector_mut().note_error(number, error);
                    self.connector_mut().advance(sys, number)
                }
            }
        }
    }

    fn note_opened(&mut self, dial: DialId, session: Key) {
        let Some(number) = self.connector_mut().number_of(dial) else { return };
        let now = self.shard_mut().clock().now();
        if self.connector_mut().note_opened(number, now) {
            self.shard_mut().note_reconnected(dial, session);
        }
        if self.connector_mut().upstream(number).is_none() {
            if !self.connector_mut().reconnects(number) {
                self.end_dial(number, None);
            }
            return;
        }
        // It may have ended meanwhile, of which the next step tells.
        let Some(handle) = self.shard_mut().handle_to(session) else { return };
        let kept = self.connector_mut().upstream(number).map(|upstream| upstream.go_up(handle));
        self.await_room(number, kept);
    }

    /// If packets that were kept are left, tries again later.
    fn await_room(&mut self, number: u32, kept: Option<Kept>) {
        if kept == Some(Kept::Some) {
            let timer = self.shard_mut().set_dial_timer(number, DELIVER_AGAIN);
            self.connector_mut().set_timer(number, timer);
        }
    }

    /// An attempt has failed, or its connection has ended: another one follows after a pause, or the dial is over.
    fn end_attempt(&mut self, number: u32, error: &DialError) {
        if self.connector_mut().upstream(number).is_some_and(UpstreamSide::is_closed) {
            self.end_dial(number, None);
            return;
        }
        let Some((dial, pause)) = self.connector_mut().pause(number) else {
            self.end_dial(number, Some(error));
            return;
        };
        self.note_waiting();
        self.shard_mut().note_redial(dial, error, pause);
        if let Some(upstream) = self.connector_mut().upstream(number) {
            upstream.go_down();
        }
        self.forget_timer(number);
        let timer = self.shard_mut().set_dial_timer(number, pause);
        self.connector_mut().set_timer(number, timer);
    }

    fn note_ended(&mut self, sys: &mut Y, ended: EndedDial) {
        let EndedDial { id, peer: addr, reason, was_opened } = ended;
        let Some(number) = self.connector_mut().number_of(id) else { return };
        if was_opened {
            let now = self.shard_mut().clock().now();
            self.connector_mut().note_ended(number, now);
            if self.connector_mut().reconnects(number) {
                return self.end_attempt(number, &DialError::Lost { addr, reason });
            }
            self.end_dial(number, None);
            return;
        }
        self.connector_mut().note_error(number, DialError::Opening { addr, reason });
        let progress = self.connector_mut().advance(sys, number);
        self.go_on(sys, number, progress);
    }

    /// The dial is over. With an `error` it has failed. Returns its session, if there is one.
    fn end_dial(&mut self, number: u32, error: Option<&DialError>) -> Option<Key> {
        let Remains { id, timer, session, upstream, .. } = self.connector_mut().remove(number)?;
        if let Some(timer) = timer {
            self.shard_mut().cancel_dial_timer(timer);
        }
        self.shard_mut().leave_dial();
        self.note_waiting();
        drop(upstream);
        if let Some(error) = error {
            self.shard_mut().tell_dial_failed(id, error);
        }
        session
    }

    /// Another thread, or a callback, wants no more of it.
    fn hang_up(&mut self, dial: DialId) {
        let Some(number) = self.connector_mut().number_of(dial) else { return };
        if let Some(session) = self.end_dial(number, None) {
            self.shard_mut().close_dialled(session);
        }
    }

    /// The server stops: all dials that have no open session yet have failed.
    fn stop_dialling(&mut self) {
        self.shard_mut().stop_dials();
        let mut failed = Vec::new();
        while let Some(step) = self.shard_mut().poll_dial_step() {
            match step {
                DialStep::Begin(dial) => {
                    self.shard_mut().leave_dial();
                    failed.push(dial.id);
                }
                DialStep::Opened(dial, _) => {
                    if let Some(number) = self.connector_mut().number_of(dial) {
                        self.connector_mut().note_opened(number, 0);
                    }
                }
                DialStep::HangUp(dial) => {
                    failed.retain(|failed| *failed != dial);
                    self.hang_up(dial);
                }
                DialStep::Ended(_) | DialStep::Ready(_) => {}
            }
        }
        for Remains { id, timer, was_opened, upstream, .. } in self.connector_mut().remove_all() {
            if let Some(timer) = timer {
                self.shard_mut().cancel_dial_timer(timer);
            }
            self.shard_mut().leave_dial();
            drop(upstream);
            failed.extend((!was_opened).then_some(id));
        }
        self.note_waiting();
        failed.into_iter().for_each(|dial| self.shard_mut().tell_dial_failed(dial, &DialError::Stopped));
    }

    /// Counts those that wait for their next attempt, where that may have changed.
    fn note_waiting(&mut self) {
        let waiting = self.connector_mut().waiting as u64;
        if self.shard_mut().counters().dials_waiting != waiting {
            self.shard_mut().counters().dials_waiting = waiting;
        }
    }

    fn forget_timer(&mut self, number: u32) {
        if let Some(timer) = self.connector_mut().take_timer(number) {
            self.shard_mut().cancel_dial_timer(timer);
        }
    }
}

impl<Y, H, F> Dialling<Y> for ServiceLoop<Y, H, F>
where
    Y: Sys,
    H: PacketHandler + 'static,
    F: Framing + Clone,
{
    type Handler = H;
    type Framing = F;
    type Connect = Streams;

    fn shard_mut(&mut self) -> &mut Shard<H, F, Y::Stream> {
        &mut self.shard
    }

    fn connector_mut(&mut self) -> &mut Connector<Y> {
        &mut self.connector
    }

    fn place_dial(&mut self, dial: Box<NewDial>) -> PlacedDial {
        match &mut self.acceptor {
            Some(acceptor) => acceptor.place_dial(dial, self.shard.counters()),
            None => PlacedDial::Nowhere(dial.id, DialError::Stopped),
        }
    }

    fn adopt_dialled(
        &mut self,
        sys: &mut Y,
        number: u32,
        connected: Connected<Y::Stream>,
    ) -> Result<(), DialError> {
        let Connected { incoming, dial, polled } = connected;
        let key = self.shard.insert_dialled(incoming, &dial)?;
        self.connector.note_session(number, key);
        let register = match polled {
            Polled::NotYet => Y::register,
            Polled::AsDial => Y::reregister,
        };
        self.open(sys, key, register);
        Ok(())
    }
}
