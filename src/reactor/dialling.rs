//! Between the connector and the shard: a connection that was made becomes a session as one that was accepted does.

use std::{io, sync::Arc, time::Duration};

use super::{
    ServiceLoop, Sys,
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
    timer_wheel::TimerKey,
};

/// Packets that an upstream has kept and for which there was no room are tried again after this time.
const DELIVER_AGAIN: Duration = Duration::from_millis(10);

impl<Y, H, F> ServiceLoop<Y, H, F>
where
    Y: Sys,
    H: PacketHandler + 'static,
    F: Framing + Clone,
{
    /// Does what is recorded in the shard's book, as far as there is time.
    pub(super) fn dial(&mut self, sys: &mut Y) {
        while let Some(step) = self.shard.poll_dial_step() {
            match step {
                DialStep::Begin(dial) => self.begin_dial(sys, *dial),
                DialStep::Ready(number) => {
                    let progress = self.connector.handle_ready(sys, number);
                    self.go_on(sys, number, progress);
                }
                DialStep::Opened(dial, session) => self.note_opened(dial, session),
                DialStep::Ended(ended) => self.note_ended(sys, *ended),
                DialStep::HangUp(dial) => self.hang_up(dial),
            }
            self.shard.clock().read();
            if self.shard.clock().is_part_over() {
                break;
            }
        }
        self.shard.arm_dials();
    }

    /// A dial that another thread asked for, or has placed here.
    pub(super) fn take_dial(&mut self, sys: &mut Y, dial: Box<NewDial>) {
        if dial.permit.is_none() {
            let Some(acceptor) = &mut self.acceptor else {
                let id = dial.id;
                drop(dial);
                return self.shard.tell_dial_failed(id, &DialError::Stopped);
            };
            match acceptor.place_dial(dial, self.shard.counters()) {
                PlacedDial::Here(dial) => self.count_in(sys, dial),
                PlacedDial::Elsewhere => {}
                PlacedDial::Nowhere(id, error) => self.shard.tell_dial_failed(id, &error),
            }
        } else {
            self.count_in(sys, dial);
        }
    }

    fn count_in(&mut self, sys: &mut Y, dial: Box<NewDial>) {
        match self.shard.enter_dial() {
            Ok(()) => self.begin_dial(sys, *dial),
            Err(error) => {
                let id = dial.id;
                drop(dial);
                self.shard.tell_dial_failed(id, &error);
            }
        }
    }

    fn begin_dial(&mut self, sys: &mut Y, dial: NewDial) {
        let is_wanted = dial.upstream.as_ref().is_none_or(|upstream| upstream.begin(self.shard.way_in()));
        if !is_wanted {
            return self.shard.leave_dial();
        }
        let number = self.connector.begin(sys, dial);
        let progress = self.connector.advance(sys, number);
        self.go_on(sys, number, progress);
    }

    /// A timer of a dial is due.
    pub(super) fn expire_dial(&mut self, sys: &mut Y, number: u32, timer: TimerKey) {
        let progress = self.connector.handle_timer(sys, number, timer);
        self.go_on(sys, number, progress);
    }

    pub(super) fn note_found(&mut self, sys: &mut Y, name: &Name, found: &Result<Vec<Addr>, Arc<io::Error>>) {
        for number in self.connector.handle_found(name, found) {
            let progress = self.connector.advance(sys, number);
            self.go_on(sys, number, progress);
        }
    }

    fn go_on(&mut self, sys: &mut Y, number: u32, progress: Progress<Y::Stream>) {
        let mut progress = progress;
        loop {
            progress = match progress {
                Progress::Unchanged => return,
                Progress::Waits(within) => {
                    self.forget_timer(number);
                    let timer = self.shard.set_dial_timer(number, within);
                    return self.connector.set_timer(number, timer);
                }
                Progress::Failed(error) => return self.end_attempt(number, &error),
                Progress::Delivers => {
                    let kept = self.connector.upstream(number).map(UpstreamSide::deliver);
                    return self.await_room(number, kept);
                }
                Progress::Connected(connected) => {
                    self.forget_timer(number);
                    let Err(error) = self.adopt_dialled(sys, number, connected) else { return };
                    self.connector.note_error(number, error);
                    self.connector.advance(sys, number)
                }
            }
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

    fn note_opened(&mut self, dial: DialId, session: Key) {
        let Some(number) = self.connector.number_of(dial) else { return };
        let now = self.shard.clock().now();
        self.connector.note_opened(number, now);
        let Some(upstream) = self.connector.upstream(number) else {
            if !self.connector.reconnects(number) {
                self.end_dial(number, None);
            }
            return;
        };
        // It may have ended meanwhile, of which the next step tells.
        let Some(handle) = self.shard.handle_to(session) else { return };
        let kept = upstream.go_up(handle);
        self.await_room(number, Some(kept));
    }

    /// If packets that were kept are left, tries again later.
    fn await_room(&mut self, number: u32, kept: Option<Kept>) {
        if kept == Some(Kept::Some) {
            let timer = self.shard.set_dial_timer(number, DELIVER_AGAIN);
            self.connector.set_timer(number, timer);
        }
    }

    /// An attempt has failed, or its connection has ended: another one follows after a pause, or the dial is over.
    fn end_attempt(&mut self, number: u32, error: &DialError) {
        if self.connector.upstream(number).is_some_and(UpstreamSide::is_closed) {
            self.end_dial(number, None);
            return;
        }
        let Some(pause) = self.connector.pause(number) else {
            self.end_dial(number, Some(error));
            return;
        };
        self.shard.note_attempt(error, pause);
        if let Some(upstream) = self.connector.upstream(number) {
            upstream.go_down();
        }
        self.forget_timer(number);
        let timer = self.shard.set_dial_timer(number, pause);
        self.connector.set_timer(number, timer);
    }

    fn note_ended(&mut self, sys: &mut Y, ended: EndedDial) {
        let EndedDial { id, peer: addr, reason, was_opened } = ended;
        let Some(number) = self.connector.number_of(id) else { return };
        if was_opened {
            let now = self.shard.clock().now();
            self.connector.note_ended(number, now);
            if self.connector.reconnects(number) {
                return self.end_attempt(number, &DialError::Lost { addr, reason });
            }
            self.end_dial(number, None);
            return;
        }
        self.connector.note_error(number, DialError::Opening { addr, reason });
        let progress = self.connector.advance(sys, number);
        self.go_on(sys, number, progress);
    }

    /// The dial is over. With an `error` it has failed. Returns its session, if there is one.
    fn end_dial(&mut self, number: u32, error: Option<&DialError>) -> Option<Key> {
        let Remains { id, timer, session, upstream, .. } = self.connector.remove(number)?;
        if let Some(timer) = timer {
            self.shard.cancel_dial_timer(timer);
        }
        self.shard.leave_dial();
        drop(upstream);
        if let Some(error) = error {
            self.shard.tell_dial_failed(id, error);
        }
        session
    }

    /// Another thread, or a callback, wants no more of it.
    pub(super) fn hang_up(&mut self, dial: DialId) {
        let Some(number) = self.connector.number_of(dial) else { return };
        if let Some(session) = self.end_dial(number, None) {
            self.shard.close_dialled(session);
        }
    }

    /// The server stops: all dials that have no open session yet have failed.
    pub(super) fn stop_dialling(&mut self) {
        self.shard.stop_dials();
        let mut failed = Vec::new();
        while let Some(step) = self.shard.poll_dial_step() {
            match step {
                DialStep::Begin(dial) => {
                    self.shard.leave_dial();
                    failed.push(dial.id);
                }
                DialStep::Opened(dial, _) => {
                    if let Some(number) = self.connector.number_of(dial) {
                        self.connector.note_opened(number, 0);
                    }
                }
                DialStep::HangUp(dial) => {
                    failed.retain(|failed| *failed != dial);
                    self.hang_up(dial);
                }
                DialStep::Ended(_) | DialStep::Ready(_) => {}
            }
        }
        for Remains { id, timer, was_opened, upstream, .. } in self.connector.remove_all() {
            if let Some(timer) = timer {
                self.shard.cancel_dial_timer(timer);
            }
            self.shard.leave_dial();
            drop(upstream);
            failed.extend((!was_opened).then_some(id));
        }
        failed.into_iter().for_each(|dial| self.shard.tell_dial_failed(dial, &DialError::Stopped));
    }

    fn forget_timer(&mut self, number: u32) {
        if let Some(timer) = self.connector.take_timer(number) {
            self.shard.cancel_dial_timer(timer);
        }
    }
}
