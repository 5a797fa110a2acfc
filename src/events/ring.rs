use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Event;
use crate::contained::Contained;

/// The events that wait for one subscriber.
///
/// Invariant: `waiting.len() ≤ capacity`.
#[derive(Debug)]
pub(super) struct Ring {
    capacity: usize,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Reasons hold users' errors, whose destructors may panic.
    waiting: VecDeque<Contained<Event>>,
    dropped: u64,
    /// Hubs that may still send.
    hubs: usize,
    /// Threads that wait, so that nobody is woken for nothing.
    sleepers: usize,
}

/// What a subscriber got.
#[derive(Debug)]
pub(super) enum Taken {
    Event(Event),
    /// Nothing is there, and something may come.
    Nothing,
    /// Nothing will come any more.
    Ended,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), state: Mutex::default(), arrived: Condvar::new() }
    }

    pub(super) fn push(&self, event: Event) {
        let event = Contained::new(event);
        let mut state = self.lock();
        let oldest = if state.waiting.len() < self.capacity { None } else { state.waiting.pop_front() };
        state.dropped += u64::from(oldest.is_some());
        state.waiting.push_back(event);
        let is_awaited = state.sleepers > 0;
        drop(state);
        if is_awaited {
            self.arrived.notify_one();
        }
        // Not while the ring is locked: this may run the destructor of a user's error.
        drop(oldest);
    }

    pub(super) fn take(&self) -> Taken {
        self.lock().take()
    }

    /// Takes the next event, for which it waits `within`, or for ever.
    pub(super) fn wait(&self, within: Option<Duration>) -> Taken {
        let mut state = self.lock();
        state.sleepers += 1;
        let mut state = match within {
            Some(within) => {
                let waited = self.arrived.wait_timeout_while(state, within, |state| state.is_idle());
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.arrived.wait_while(state, |state| state.is_idle());
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        state.sleepers -= 1;
        state.take()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    pub(super) fn add_hub(&self) {
        self.lock().hubs += 1;
    }

    pub(super) fn hub_ended(&self) {
        self.lock().hubs -= 1;
        self.arrived.notify_all();
    }

    /// No event is added half, so a lock that a panic poisoned is as good as before.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_idle(&mut self) -> bool {
        self.waiting.is_empty() && self.hubs > 0
    }

    fn take(&mut self) -> Taken {
        match self.waiting.pop_front() {
            Some(event) => Taken::Event(event.into_inner()),
            None if self.hubs > 0 => Taken::Nothing,
            None => Taken::Ended,
        }
    }
}
