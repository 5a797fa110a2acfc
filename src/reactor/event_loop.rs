use std::{
    io::{self, ErrorKind},
    time::Duration,
};

use super::{
    Flow, Ready, Service, Sys,
    accept_failure::copy_of,
    carriers::{Carriers, service_with},
    service::{STEPS, Step, earlier},
    token::service_of,
};
use crate::{buffer::ReceiveBuffer, session::Effects, sync::has_answers_left, time::Tick};

/// The loop of one thread: a poll, and one shard of each service.
///
/// A turn is a few virtual calls per service, and monomorphic from there on.
pub(crate) struct EventLoop<Y: Sys> {
    sys: Y,
    /// Indexed by their numbers; services that have ended leave a gap.
    services: Vec<Option<Box<dyn Service<Y>>>>,
    ready: Vec<Ready>,
    buffer: ReceiveBuffer,
}

impl<Y: Sys> EventLoop<Y> {
    pub(crate) fn new(sys: Y, services: Vec<Box<dyn Service<Y>>>) -> Self {
        let services = services.into_iter().map(Some).collect();
        Self { sys, services, ready: Vec::new(), buffer: ReceiveBuffer::new() }
    }

    /// Runs one turn. Calls `ended` with the number and the outcome of each service that has ended; when none is left,
    /// the loop is over.
    pub(crate) fn turn(&mut self, ended: impl FnMut(usize, io::Result<()>)) -> Flow {
        let Self { sys, services, buffer, .. } = self;
        if let [Some(only)] = services.as_mut_slice() {
            match only.turn(sys, buffer) {
                Ok(Flow::Continue) => Flow::Continue,
                over => self.end(0, over, ended),
            }
        } else {
            self.turn_of_several(ended)
        }
    }

    #[inline(never)]
    fn turn_of_several(&mut self, mut ended: impl FnMut(usize, io::Result<()>)) -> Flow {
        if let Err(error) = self.poll() {
            self.fail(&error, ended);
            return Flow::Stop;
        }
        let busy = self.services.iter().flatten().filter(|service| service.is_busy()).count();
        STEPS.iter().for_each(|step| self.run_each(*step, busy as Tick));
        for number in 0..self.services.len() {
            let Some(Some(service)) = self.services.get_mut(number) else { continue };
            match service.end_turn(&mut self.sys) {
                Ok(Flow::Continue) => {}
                over => {
                    self.end(number, over, &mut ended);
                }
            }
        }
        self.flow()
    }

    fn poll(&mut self) -> io::Result<()> {
        let (wait, expected) = self.wait();
        self.ready.clear();
        let polled = self.sys.poll(&mut self.ready, wait);
        self.services.iter_mut().flatten().for_each(|service| service.wake_up(expected));
        match polled {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.hand_out_events();
        Ok(())
    }

    /// Returns how long the poll may wait and when it is to end: at once while work is left, else at the next deadline.
    fn wait(&mut self) -> (Option<Duration>, Option<Tick>) {
        let (mut left, mut expected, mut now) = (None, None, 0);
        let mut note = |now: Tick, deadline: Option<Tick>| {
            left = earlier(left, deadline.map(|deadline| deadline.saturating_sub(now)));
            expected = earlier(expected, deadline);
        };
        for service in self.services.iter_mut().flatten() {
            service.judge_last_turn();
            let deadline;
            (now, deadline) = service.poll_deadline();
            note(now, deadline);
        }
        note(now, self.buffer.poll_deadline(now));
        let wait = left.map(Duration::from_millis);
        if wait == Some(Duration::ZERO) || has_answers_left() {
            return (Some(Duration::ZERO), expected);
        }
        // Stops at the first that must not sleep; those that sleep are woken when the poll is over.
        let asleep = self.services.iter().flatten().all(|service| service.fall_asleep());
        (if asleep { wait } else { Some(Duration::ZERO) }, expected)
    }

    /// Gives each service its events.
    fn hand_out_events(&mut self) {
        self.services.iter_mut().flatten().for_each(|service| service.ready().clear());
        for ready in &self.ready {
            let Some(number) = service_of(ready.token) else { continue };
            if let Some(Some(service)) = self.services.get_mut(number) {
                service.ready().push(*ready);
            }
        }
    }

    /// One step of each service, and what its callbacks have asked of sessions of the others: that is done before any
    /// other step, which might take what was sent later from a mailbox.
    fn run_each(&mut self, step: Step, busy: Tick) {
        for number in 0..self.services.len() {
            let Some(Some(service)) = self.services.get_mut(number) else { continue };
            service.run(step, busy, &mut self.sys, &mut self.buffer);
            if !service.outgoing().is_empty() {
                self.pass_on(number);
            }
        }
    }

    /// Passes on what callbacks of this service have asked of sessions of others, and what these then tell each other.
    #[cold]
    fn pass_on(&mut self, number: usize) {
        let mut next = Some(number);
        while let Some(number) = next {
            let Some(Some(from)) = self.services.get_mut(number) else { break };
            let mut effects = std::mem::take(from.outgoing());
            self.hand_over(&mut effects);
            if let Some(Some(from)) = self.services.get_mut(number) {
                from.outgoing().reuse(effects);
            }
            let is_asking = |outgoing: &mut Effects| !outgoing.is_unasked();
            // Carriers take what their streams send when they have told these everything.
            next = self.find_outgoing(is_asking).or_else(|| {
                let number = self.find_outgoing(Effects::take_carrying)?;
                self.carry_out(number);
                self.find_outgoing(|outgoing| !outgoing.is_empty())
            });
        }
    }

    fn find_outgoing(&mut self, is_it: impl Fn(&mut Effects) -> bool) -> Option<usize> {
        let mut services = self.services.iter_mut();
        services.position(|place| place.as_mut().is_some_and(|service| is_it(service.outgoing())))
    }

    /// Has the streams of this service send what they have over their carriers, which belong to other services.
    fn carry_out(&mut self, number: usize) {
        let Some(mut streams) = self.services.get_mut(number).and_then(Option::take) else { return };
        streams.carry_out(&mut Carriers(&mut self.services));
        if let Some(place) = self.services.get_mut(number) {
            *place = Some(streams);
        }
    }

    /// Gives each service what was asked of its sessions.
    fn hand_over(&mut self, effects: &mut Effects) {
        effects.drain(|effect, packet| {
            if let Some(to) = service_with(&mut self.services, effect.shard()) {
                to.apply(effect, packet);
            } else if let Some(answer) = effect.answer_for_ended() {
                if let Some(to) = service_with(&mut self.services, answer.shard()) {
                    to.apply(answer, &mut []);
                }
            }
        });
    }

    /// Ends a service that goes on no longer, or has failed.
    #[cold]
    fn end(
        &mut self,
        number: usize,
        outcome: io::Result<Flow>,
        mut ended: impl FnMut(usize, io::Result<()>),
    ) -> Flow {
        if let Some(service) = self.services.get_mut(number).and_then(Option::take) {
            let mut left = service.finish(&mut self.sys);
            self.hand_over(&mut left);
        }
        ended(number, outcome.map(drop));
        self.flow()
    }

    /// Whether any service is left.
    fn flow(&self) -> Flow {
        if self.services.iter().any(Option::is_some) { Flow::Continue } else { Flow::Stop }
    }

    /// Ends every service after the poll has failed.
    #[cold]
    fn fail(&mut self, error: &io::Error, mut ended: impl FnMut(usize, io::Result<()>)) {
        for (number, place) in self.services.iter_mut().enumerate() {
            if let Some(service) = place.take() {
                // Nobody is left to be told anything.
                drop(service.finish(&mut self.sys));
                ended(number, Err(copy_of(error)));
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn sys(&self) -> &Y {
        &self.sys
    }
}
