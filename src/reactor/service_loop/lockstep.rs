use std::{io::ErrorKind, time::Duration};

use super::ServiceLoop;
use crate::{
    buffer::ReceiveBuffer,
    framing::Framing,
    handler::PacketHandler,
    reactor::{Sys, session_io::handle_read_of_ordinary},
    sync::has_answers_left,
    time::{Tick, ticks},
};

/// How long a thread sleeps in a read, where only its peer can wake it. The kernel rounds it up to its own ticks, of up
/// to 10 ms.
const PATIENCE: Duration = Duration::from_millis(10);

/// Turns in a row that brought one event each and no command, before the thread sleeps in the read.
const IN_STEP: u16 = 16;
/// The same for a peer that was silent for too long whenever it was tried.
const MOST_IN_STEP: u16 = 1024;
/// After so many turns in the read, one polls: what else the poll has to tell is not put off without end.
const LOOK_UP: u16 = 64;

/// How a thread of one connection waits for a peer that sends and waits for the reply, again and again.
///
/// ```text
/// poll, receive, send ──the peer keeps in step──▶ receive (sleeps in it), send
///        ▲──a command of another thread · a deadline is near · the peer falls silent──┘
/// ```
///
/// In its poll such a thread would sleep once for each packet, only to hear that the next has come: a third system call.
/// So it sleeps in the read, as a blocking server does, but no longer than [`PATIENCE`]: a command of another thread is
/// late by at most that, if no other came for the last turns.
#[derive(Debug)]
pub(super) struct Lockstep {
    /// Turns in which the peer has kept in step.
    turns: u16,
    /// From how many on the thread sleeps in the read.
    needed: u16,
    socket: Socket,
}

/// Whether a read of the socket can wait.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Socket {
    /// Not tried yet.
    #[default]
    Unknown,
    Waits,
    Never,
}

impl Default for Lockstep {
    fn default() -> Self {
        Self { turns: 0, needed: IN_STEP, socket: Socket::default() }
    }
}

impl Lockstep {
    /// Returns `true` if the peer has kept in step for long enough.
    #[inline]
    pub(super) fn holds(&self) -> bool {
        self.turns >= self.needed
    }

    /// A poll has brought so many events.
    pub(super) fn note_poll(&mut self, events: usize) {
        let in_step = events == 1 && self.socket != Socket::Never;
        self.turns = if in_step { self.turns.saturating_add(1) } else { 0 };
    }

    /// The next packet came while the thread slept in the read.
    fn note_read(&mut self) {
        self.turns += 1;
        if self.turns > self.needed + LOOK_UP {
            self.needed = IN_STEP;
            self.turns = IN_STEP - 1;
        }
    }

    /// Nothing came while the thread slept in the read: such a peer is tried less often.
    fn note_silence(&mut self) {
        self.turns = 0;
        self.needed = (self.needed * 2).min(MOST_IN_STEP);
    }

    /// Something else than the next packet has come.
    pub(super) fn end(&mut self) {
        self.turns = 0;
    }
}

impl<Y, H, F> ServiceLoop<Y, H, F>
where
    Y: Sys,
    H: PacketHandler + 'static,
    F: Framing + Clone,
{
    /// Waits for the peer in the read, and serves it. Returns `false` if it may not, and the turn has to poll.
    #[inline(never)]
    pub(super) fn read_in_step(
        &mut self,
        sys: &mut Y,
        buffer: &mut ReceiveBuffer,
        deadline: Option<Tick>,
    ) -> bool {
        let patient_until = self.shard.clock().now() + ticks(PATIENCE);
        let is_near = deadline.is_some_and(|at| at <= patient_until);
        if is_near || !self.mailbox.is_idle() || has_answers_left() {
            return false;
        }
        let Some((key, io)) = self.shard.sole_ordinary() else { return false };
        if self.lockstep.socket == Socket::Unknown {
            let waits = sys.let_wait(io, PATIENCE).is_ok();
            self.lockstep.socket = if waits { Socket::Waits } else { Socket::Never };
        }
        if self.lockstep.socket == Socket::Never {
            self.lockstep.end();
            return false;
        }
        let read = sys.recv_waiting(io, buffer.space());
        self.began = self.shard.clock().wake(deadline);
        match read {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                self.lockstep.note_silence();
            }
            read => {
                self.lockstep.note_read();
                self.begin_read();
                let budget = self.read_budget;
                self.shard.with_session(key, |access| {
                    handle_read_of_ordinary(sys, buffer, budget, access, read);
                });
                self.note_served(key);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(lockstep: &mut Lockstep) -> usize {
        let mut turns = 0;
        while lockstep.holds() {
            lockstep.note_read();
            turns += 1;
            assert!(turns < 1_000, "it never polls");
        }
        turns
    }

    #[test]
    fn a_peer_in_step_is_polled_for_now_and_then() {
        let mut lockstep = Lockstep::default();
        (0..IN_STEP).for_each(|_| lockstep.note_poll(1));
        assert_eq!(held(&mut lockstep), usize::from(LOOK_UP) + 1);
        lockstep.note_poll(1);
        assert!(lockstep.holds(), "one poll is enough");
        held(&mut lockstep);
        lockstep.note_poll(2);
        assert!(!lockstep.holds(), "something else came");
    }

    #[test]
    fn whatever_else_comes_breaks_the_step() {
        let mut lockstep = Lockstep::default();
        (1..IN_STEP).for_each(|_| lockstep.note_poll(1));
        lockstep.note_poll(0);
        lockstep.note_poll(1);
        assert!(!lockstep.holds());
        (0..IN_STEP).for_each(|_| lockstep.note_poll(1));
        assert!(lockstep.holds());
        lockstep.end();
        assert!(!lockstep.holds());
    }

    #[test]
    fn a_peer_that_is_silent_for_long_is_tried_less_and_less_often() {
        let mut lockstep = Lockstep::default();
        let tries = (0..10_000)
            .filter(|_| {
                lockstep.note_poll(1);
                let tried = lockstep.holds();
                if tried {
                    lockstep.note_silence();
                }
                tried
            })
            .count();
        assert!((8..20).contains(&tries), "{tries} of 10,000 turns");
        (0..MOST_IN_STEP).for_each(|_| lockstep.note_poll(1));
        held(&mut lockstep);
        lockstep.end();
        (0..IN_STEP).for_each(|_| lockstep.note_poll(1));
        assert!(lockstep.holds(), "it keeps in step after all");
    }
}
