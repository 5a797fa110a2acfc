//! Edge-triggered readiness, as in Linux: what becomes ready is put on a list; a poll takes it off and reports
//! everything that is ready then.

use std::collections::VecDeque;

use super::{
    Conn, Net,
    network::{Link, What},
};
use crate::{
    reactor::{Ready, WAKER},
    time::Tick,
};

/// The list of one poll.
#[derive(Default)]
pub(super) struct Epoll {
    /// Its loop has ended.
    pub(super) closed: bool,
    /// Descriptors with events, and from when these may be reported.
    ready: VecDeque<(usize, Tick)>,
    /// The waker was used, once or often.
    pub(super) woken: bool,
    /// Until when the last poll that did not wait would have waited.
    pub(super) sleeps_until: Option<Tick>,
    /// Since when its loop waits in that poll, as the loop would say if it did.
    pub(super) asleep_since: Option<Tick>,
}

pub(super) struct Registration {
    pub(super) epoll: usize,
    pub(super) token: u64,
}

impl Epoll {
    pub(super) fn close(&mut self) {
        *self = Self { closed: true, ..Self::default() };
    }

    pub(super) fn forget(&mut self, fd: usize) {
        self.ready.retain(|(other, _)| *other != fd);
    }

    pub(super) fn next_late(&self) -> Option<Tick> {
        self.ready.iter().map(|(_, from)| *from).min()
    }
}

impl Net {
    /// Something changed at a descriptor.
    pub(super) fn edge(&mut self, fd: usize) {
        let late = if self.rng.chance(self.faults.late) { self.rng.between(1, 5) } else { 0 };
        let from = self.now + late;
        let registration = self.fds.get(fd).and_then(Option::as_ref).and_then(|fd| fd.registration.as_ref());
        let Some(registration) = registration else { return };
        let list = &mut self.epolls[registration.epoll].ready;
        if !list.iter().any(|(other, _)| *other == fd) {
            list.push_back((fd, from));
        }
    }

    pub(super) fn edge_of(&mut self, conn: Conn) {
        if let Some(fd) = self.link(conn).server {
            self.edge(fd);
        }
    }

    /// Returns `true` if a loop that does not wait in its poll has something to do now.
    pub(super) fn has_reason_to_turn(&self, epoll: usize) -> bool {
        let epoll = &self.epolls[epoll];
        let due = |tick: Option<Tick>| tick.is_none_or(|tick| tick <= self.now);
        epoll.woken || due(epoll.sleeps_until) || epoll.next_late().is_some_and(|late| late <= self.now)
    }

    /// The turn of a loop that does not wait in its poll is over: if it would have waited, the time that passes until its
    /// next turn passes within its poll, and not within that turn.
    pub(super) fn fall_asleep(&mut self, epoll: usize) {
        let epoll = &mut self.epolls[epoll];
        epoll.asleep_since = epoll.sleeps_until.and(Some(self.now));
    }

    /// Moves the clock to the next time at which any loop has something to do. Returns `false` if there is none.
    pub(super) fn skip_to_next(&mut self) -> bool {
        let sleeps = self.epolls.iter().flat_map(|epoll| [epoll.sleeps_until, epoll.next_late()]).flatten();
        let next = sleeps.chain(self.next_deed()).min().unwrap_or(Tick::MAX).min(self.horizon);
        if next == Tick::MAX {
            self.resting = true;
            return false;
        }
        self.now = self.now.max(next);
        self.live();
        true
    }

    /// Returns the event that a descriptor would report now, if any.
    pub(crate) fn readiness(&self, fd: usize) -> Option<Ready> {
        let fd = self.fds.get(fd)?.as_ref()?;
        let token = fd.registration.as_ref()?.token;
        match &fd.what {
            What::Listener(queue) => {
                (!queue.is_empty()).then_some(Ready { readable: true, ..nothing(token) })
            }
            What::Stream(conn) => self.links[conn.0].readiness(token),
            What::Datagrams(inlet) => inlet.readiness(token),
            What::Spare => None,
        }
    }

    /// Takes the events of one poll off the list. Returns `true` if there may be more.
    pub(super) fn harvest(&mut self, epoll: usize, into: &mut Vec<Ready>) {
        let room = self.sizes.batch;
        if std::mem::take(&mut self.epolls[epoll].woken) {
            into.push(Ready { readable: true, ..nothing(WAKER) });
        }
        if self.rng.chance(self.faults.shuffle) {
            let len = self.epolls[epoll].ready.len() as u64;
            for at in 1..len {
                let other = self.rng.between(0, at);
                self.epolls[epoll].ready.swap(at as usize, other as usize);
            }
        }
        for _ in 0..self.epolls[epoll].ready.len() {
            if into.len() >= room {
                break;
            }
            let Some((fd, from)) = self.epolls[epoll].ready.pop_front() else { break };
            if from > self.now {
                self.epolls[epoll].ready.push_back((fd, from));
            } else if let Some(mut event) = self.readiness(fd) {
                event.readable &= !(event.hangup && self.rng.chance(self.faults.bare_hangup));
                self.progress += 1;
                into.push(event);
            }
        }
        self.invent(epoll, into);
    }

    /// Adds events that nothing caused.
    fn invent(&mut self, epoll: usize, into: &mut Vec<Ready>) {
        if into.len() < self.sizes.batch && self.rng.chance(self.faults.spurious) {
            let here = |registration: &&Registration| registration.epoll == epoll;
            let known = self.fds.iter().flatten().filter_map(|fd| fd.registration.as_ref()).filter(here);
            let tokens: Vec<u64> = known.map(|registration| registration.token).collect();
            let which = self.rng.below(tokens.len() as u64) as usize;
            let (bits, Some(token)) = (self.rng.next(), tokens.get(which)) else { return };
            let [readable, writable, hangup, error] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
            self.progress += 1;
            into.push(Ready { token: *token, readable, writable, hangup, error });
        }
        if into.len() < self.sizes.batch && self.rng.chance(self.faults.stale) {
            let which = self.rng.below(self.tombs.len() as u64) as usize;
            if let Some(token) = self.tombs.get(which) {
                self.progress += 1;
                into.push(Ready { token: *token, readable: true, writable: true, hangup: true, error: true });
            }
        }
    }
}

impl Link {
    fn readiness(&self, token: u64) -> Option<Ready> {
        if self.connecting {
            return None;
        }
        let input = self.broken || self.up.ended || !self.up.bytes.is_empty();
        let writable = self.broken || self.down.ended || self.has_room();
        let (half, error) = (self.broken || self.up.ended, self.error.is_some());
        let full = self.broken || (self.up.ended && self.down.ended);
        let hangup = full || half || (writable && error);
        (input || writable || hangup || error).then_some(Ready {
            token,
            readable: input,
            writable,
            hangup,
            error,
        })
    }
}

fn nothing(token: u64) -> Ready {
    Ready { token, readable: false, writable: false, hangup: false, error: false }
}
