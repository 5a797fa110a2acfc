//! The steps of a turn, each bounded in time. A step that has nothing to do costs next to nothing: what it does otherwise
//! is not inlined.

use super::ServiceLoop;
use crate::{
    buffer::ReceiveBuffer,
    framing::Framing,
    handler::PacketHandler,
    reactor::{
        Acceptor, Sys,
        acceptor::Placed,
        dialling::Dialling,
        service::Step,
        session_io::flush,
        shares::{ACCEPT_SHARE, COMMAND_SHARE, COMMANDS_PER_TURN, READ_SHARE, TIMER_SHARE, WRITE_SHARE},
    },
    shard::{Ended, Ending, TimerAction},
    time::Tick,
};

impl<Y, H, F> ServiceLoop<Y, H, F>
where
    Y: Sys,
    H: PacketHandler + 'static,
    F: Framing + Clone,
{
    #[inline(always)]
    pub(super) fn take(&mut self, step: Step, sys: &mut Y, buffer: &mut ReceiveBuffer) {
        match step {
            Step::Read => self.read(sys, buffer),
            Step::Accept => self.accept(sys),
            Step::Obey => self.obey(sys),
            Step::Expire => self.expire(sys, buffer),
            Step::Flush => self.flush(sys),
        }
    }

    /// Begins a part of a turn that may take `share`, or what is left of it beside other services.
    fn begin_part(&mut self, share: Tick) {
        let share = if self.busy > 1 { (share / self.busy).max(1) } else { share };
        self.shard.clock().begin_part(share);
    }

    /// Serves the sessions that have an event and those that wait for their next share, each once. Half of the time is
    /// reserved for those that wait.
    #[inline(always)]
    fn read(&mut self, sys: &mut Y, buffer: &mut ReceiveBuffer) {
        self.shard.take_unfinished(&mut self.unfinished);
        let waits = !self.unfinished.is_empty();
        self.begin_part(if waits { READ_SHARE / 2 } else { READ_SHARE });
        self.serve_ready(sys, buffer);
        if waits {
            self.begin_part(READ_SHARE / 2);
            self.serve_all_unfinished(sys, buffer);
        }
    }

    #[inline(never)]
    fn serve_all_unfinished(&mut self, sys: &mut Y, buffer: &mut ReceiveBuffer) {
        for _ in 0..self.unfinished.len() {
            if self.shard.clock().is_part_over() {
                break;
            }
            let Some(key) = self.unfinished.pop_front() else { break };
            self.serve_unfinished(sys, buffer, key);
            self.note_served(key);
        }
    }

    #[inline]
    fn accept(&mut self, sys: &mut Y) {
        if self.acceptor.as_ref().is_some_and(Acceptor::is_active) {
            self.accept_some(sys);
        }
    }

    #[inline(never)]
    fn accept_some(&mut self, sys: &mut Y) {
        let Some(acceptor) = &mut self.acceptor else { return };
        acceptor.begin_turn(self.began);
        self.begin_part(ACCEPT_SHARE);
        while let Some(acceptor) = &mut self.acceptor {
            let placed = acceptor.poll_accept(sys, self.shard.counters());
            self.shard.end_placing();
            match placed {
                None => break,
                Some(Placed::Here(incoming)) => self.adopt(sys, incoming),
                // A strategy may be slow: connections that it has placed must not wait for the rest.
                Some(Placed::Elsewhere) => {
                    self.shard.clock().read();
                }
            }
            if self.shard.clock().is_part_over() {
                break;
            }
        }
        if let Some(acceptor) = &mut self.acceptor {
            acceptor.hand_over(self.shard.counters());
        }
    }

    #[inline]
    fn obey(&mut self, sys: &mut Y) {
        self.mailbox.take(&mut self.commands);
        self.take_local();
        if !self.commands.is_empty() {
            self.obey_commands(sys);
        }
    }

    #[inline(never)]
    fn obey_commands(&mut self, sys: &mut Y) {
        self.begin_part(COMMAND_SHARE);
        for _ in 0..COMMANDS_PER_TURN {
            if self.commands.is_empty() {
                // What the last one has posted.
                self.take_local();
            }
            let Some(command) = self.commands.pop_front() else { break };
            // What callbacks send to other sessions meanwhile must not overtake what is left, of this command too.
            self.mailbox.note_leftover(command.is_for_many() || !self.commands.is_empty());
            if let Some(rest) = self.handle_command(sys, command) {
                self.commands.push_front(rest);
                break;
            }
            if self.shard.clock().is_part_over() {
                break;
            }
        }
        self.mailbox.note_leftover(!self.commands.is_empty());
    }

    #[inline]
    fn expire(&mut self, sys: &mut Y, buffer: &mut ReceiveBuffer) {
        self.shard.take_due(&mut self.due);
        if !self.due.is_empty() {
            self.handle_due(sys, buffer);
        }
    }

    #[inline(never)]
    fn handle_due(&mut self, sys: &mut Y, buffer: &mut ReceiveBuffer) {
        self.begin_part(TIMER_SHARE);
        while let Some(fired) = self.due.pop() {
            match self.shard.handle_timer(fired) {
                Some(TimerAction::Judge(suspect)) => self.judge(sys, buffer, suspect),
                Some(TimerAction::Write(key)) => {
                    self.shard.with_session(key, |access| flush(sys, access));
                    self.note_served(key);
                }
                Some(TimerAction::Dial(number, timer)) => self.expire_dial(sys, number, timer),
                Some(TimerAction::Dials) => self.dial(sys),
                None => {}
            }
            if self.shard.clock().is_part_over() {
                break;
            }
        }
    }

    #[inline]
    fn flush(&mut self, sys: &mut Y) {
        self.shard.take_dirty(&mut self.dirty);
        if !self.dirty.is_empty() {
            self.flush_dirty(sys);
        }
    }

    #[inline(never)]
    fn flush_dirty(&mut self, sys: &mut Y) {
        self.begin_part(WRITE_SHARE);
        while let Some(key) = self.dirty.pop_front() {
            self.shard.with_session(key, |access| flush(sys, access));
            if self.shard.clock().is_part_over() {
                break;
            }
        }
    }

    /// Closes the sockets of ended sessions. `on_close` has run: no write can reach a descriptor that was reused.
    #[inline]
    pub(super) fn close_ended(&mut self, sys: &mut Y) {
        while let Some(ended) = self.shard.poll_ended() {
            close(sys, ended);
        }
    }
}

#[inline(never)]
fn close<Y: Sys>(sys: &mut Y, mut ended: Ended<Y::Stream>) {
    if ended.how == Ending::Reset {
        sys.make_reset(&mut ended.io);
    }
    // Closed first: a reader that sees that the session has left the counts finds its descriptor free.
    drop(ended.io);
    drop(ended.permit);
}
