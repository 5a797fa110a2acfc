use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    sync::Arc,
    time::Duration,
};

use super::{Acceptor, Ready, Sys};
use crate::{
    buffer::{MAX_SLICES, Outbox, Scratch},
    census::Census,
    framing::Framing,
    handler::PacketHandler,
    id::{Key, ShardId},
    mailbox::Mailbox,
    session::Alarm,
    shard::{Arrival, Command, Drained, Ending, Shard, Visit},
    time::Tick,
    timer_wheel::Fired,
};

/// Tokens from here on are not sessions: listeners, and the waker.
pub(crate) const FIRST_LISTENER: u64 = u64::MAX - 1024;
pub(crate) const WAKER: u64 = u64::MAX;

/// Commands obeyed in one turn; the rest follow in the next.
const COMMANDS_PER_TURN: usize = 1024;
/// Turns in a row that timers may be put off because the poll had more events than it could tell.
const PATIENCE: u32 = 64;
/// A turn that takes longer than this held up its shard (milliseconds).
const SLOW_TURN: Tick = 100;

/// The loop of one thread: a poll, a shard, and perhaps an acceptor.
pub(crate) struct EventLoop<Y: Sys, H: PacketHandler, F> {
    sys: Y,
    shard: Shard<H, F, Y::Stream>,
    acceptor: Option<Acceptor<Y>>,
    mailbox: Arc<Mailbox<Command<Y::Stream>>>,
    census: Arc<Census>,
    /// The shard's number in the census; `None` for a forked one.
    seat: Option<usize>,
    lifetime: Lifetime,
    read_budget: usize,
    scratch: Scratch,
    now: Tick,
    ready: Vec<Ready>,
    more_events: bool,
    /// Much more time has passed than the poll was to wait: what came meanwhile is not known yet.
    stood_still: bool,
    timers_put_off: u32,
    // Lists that are worked off; kept for their memory.
    commands: VecDeque<Command<Y::Stream>>,
    unfinished: Vec<Key>,
    dirty: Vec<Key>,
    due: Vec<Fired<Alarm>>,
}

/// How long a loop lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// Until the server stops.
    Server,
    /// Until its one connection ends.
    Connection,
}

/// Whether the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    Stop,
}

/// What a loop is made of.
pub(crate) struct EventLoopConfig<Y: Sys, H: PacketHandler, F> {
    pub(crate) sys: Y,
    pub(crate) shard: Shard<H, F, Y::Stream>,
    pub(crate) acceptor: Option<Acceptor<Y>>,
    pub(crate) mailbox: Arc<Mailbox<Command<Y::Stream>>>,
    pub(crate) census: Arc<Census>,
    pub(crate) id: ShardId,
    pub(crate) lifetime: Lifetime,
    pub(crate) read_budget: usize,
}

impl<Y, H, F> EventLoop<Y, H, F>
where
    Y: Sys,
    H: PacketHandler,
    F: Framing + Clone,
{
    pub(crate) fn new(config: EventLoopConfig<Y, H, F>) -> Self {
        let mut sys = config.sys;
        let now = sys.now();
        let seat = (config.lifetime == Lifetime::Server).then_some(config.id.index());
        Self {
            sys,
            shard: config.shard,
            acceptor: config.acceptor,
            mailbox: config.mailbox,
            census: config.census,
            seat,
            lifetime: config.lifetime,
            read_budget: config.read_budget,
            scratch: Scratch::new(),
            now,
            ready: Vec::new(),
            more_events: false,
            stood_still: false,
            timers_put_off: 0,
            commands: VecDeque::new(),
            unfinished: Vec::new(),
            dirty: Vec::new(),
            due: Vec::new(),
        }
    }

    /// Turns until told to stop, or until the poll fails. Either way every session has been closed.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let outcome = loop {
            match self.turn() {
                Ok(Flow::Continue) => {}
                Ok(Flow::Stop) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.tear_down();
        outcome
    }

    /// One turn.
    pub(crate) fn turn(&mut self) -> io::Result<Flow> {
        self.poll()?;
        self.accept();
        self.read();
        self.obey();
        self.expire();
        self.flush();
        self.end_turn()
    }

    fn poll(&mut self) -> io::Result<()> {
        let mut wait = self.wait();
        if wait != Some(Duration::ZERO) && !self.mailbox.fall_asleep() {
            wait = Some(Duration::ZERO);
        }
        self.ready.clear();
        let expected = self.deadline().map(|at| at.max(self.now));
        let polled = self.sys.poll(&mut self.ready, wait);
        self.mailbox.wake_up();
        self.more_events = match polled {
            Ok(more) => more,
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) => return Err(error),
        };
        self.now = self.sys.now();
        let late = expected.is_some_and(|at| self.now.saturating_sub(at) > SLOW_TURN);
        self.stood_still = late && !self.stood_still;
        self.shard.begin_turn(self.now);
        Ok(())
    }

    /// How long the poll may wait: not at all while work is left over, else until the next deadline.
    fn wait(&mut self) -> Option<Duration> {
        let now = self.sys.now();
        self.judge_length(now.saturating_sub(self.now));
        if !self.commands.is_empty() || self.acceptor.as_ref().is_some_and(Acceptor::has_work) {
            return Some(Duration::ZERO);
        }
        Some(Duration::from_millis(self.deadline()?.saturating_sub(now)))
    }

    /// A long turn held up every session of the shard.
    fn judge_length(&mut self, millis: Tick) {
        if millis > SLOW_TURN {
            self.shard.counters().slow_turns += 1;
            tracing::warn!(millis, "a turn held up all sessions of its shard; does a handler block?");
        }
    }

    fn deadline(&self) -> Option<Tick> {
        let resume = self.acceptor.as_ref().and_then(Acceptor::deadline);
        self.shard.poll_deadline().into_iter().chain(resume).min()
    }

    fn accept(&mut self) {
        self.note_listeners();
        let Some(acceptor) = &mut self.acceptor else { return };
        acceptor.begin_turn(self.now);
        while let Some(arrival) = self
            .acceptor
            .as_mut()
            .and_then(|acceptor| acceptor.poll_accept(&mut self.sys, self.shard.counters()))
        {
            self.adopt(arrival);
        }
    }

    fn note_listeners(&mut self) {
        let Some(acceptor) = &mut self.acceptor else { return };
        for ready in &self.ready {
            if (FIRST_LISTENER..WAKER).contains(&ready.token) {
                acceptor.handle_ready((ready.token - FIRST_LISTENER) as usize);
            }
        }
    }

    /// A connection begins to live here.
    fn adopt(&mut self, arrival: Arrival<Y::Stream>) {
        let refused = if self.shard.is_stopping() {
            Some((arrival.io, arrival.ends))
        } else {
            match self.shard.insert(arrival.io, arrival.ends) {
                Err(refused) => Some(refused),
                Ok(key) if self.register(key) => {
                    self.shard.visit(key, |visit| visit.open());
                    None
                }
                Ok(key) => self.shard.take_back(key),
            }
        };
        if let Some((io, ends)) = refused {
            self.shard.counters().refused += 1;
            drop(io);
            self.census.leave(self.seat, &ends.peer());
        }
    }

    fn register(&mut self, key: Key) -> bool {
        let registered = self.shard.visit(key, |visit| self.sys.register(visit.io(), key.token()));
        match registered {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::warn!(%error, "can not poll an accepted connection, closing it");
                false
            }
            None => false,
        }
    }

    fn read(&mut self) {
        self.shard.take_unfinished(&mut self.unfinished);
        for at in 0..self.ready.len() {
            if let Some(ready) = self.ready.get(at).copied() {
                if ready.token < FIRST_LISTENER {
                    self.handle_ready(ready);
                }
            }
        }
        while let Some(key) = self.unfinished.pop() {
            let (sys, scratch, budget) = (&mut self.sys, &mut self.scratch, self.read_budget);
            self.shard.visit(key, |visit| {
                visit.handle_resumed();
                receive(sys, scratch, budget, visit);
                settle(sys, visit);
            });
        }
    }

    fn handle_ready(&mut self, ready: Ready) {
        let (sys, scratch, budget) = (&mut self.sys, &mut self.scratch, self.read_budget);
        let met = self.shard.visit(Key::from_token(ready.token), |visit| {
            if ready.writable && visit.handle_writable() {
                settle(sys, visit);
            }
            if ready.readable || ready.hangup || ready.error {
                visit.handle_readable(ready.hangup || ready.error);
                receive(sys, scratch, budget, visit);
                settle(sys, visit);
            }
            if ready.error {
                find_error(sys, visit);
            }
        });
        if met.is_none() {
            self.shard.counters().stale_events += 1;
        }
    }

    fn obey(&mut self) {
        self.mailbox.take(&mut self.commands);
        for _ in 0..COMMANDS_PER_TURN {
            let Some(command) = self.commands.pop_front() else { break };
            self.handle_command(command);
        }
    }

    fn handle_command(&mut self, command: Command<Y::Stream>) {
        match command {
            Command::Session(key, mut command) => {
                self.shard.visit(key, |visit| visit.handle_command(&mut command));
                self.shard.discard(command);
            }
            Command::Adopt(arrival) => self.adopt(arrival),
            Command::ClosePeer(peer, why) => {
                self.shard.close_peer(peer, why.as_ref());
                self.shard.discard(why);
            }
            Command::Execute(job) => self.shard.run(job),
            Command::Shutdown(grace) => {
                self.stop_accepting();
                self.shard.shut_down(grace);
            }
            Command::Abort => {
                self.stop_accepting();
                self.shard.cut();
            }
        }
    }

    fn stop_accepting(&mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.stop();
        }
    }

    /// Timers wait while the poll has more to tell, or was interrupted (as it is when the process was stopped): after a
    /// standstill, what has come is read before anybody is found idle. One more poll shows it; where every turn is slow,
    /// timers are late by one turn and no more.
    fn expire(&mut self) {
        let unheard = self.more_events && self.timers_put_off < PATIENCE;
        if unheard || self.stood_still {
            self.timers_put_off += 1;
        } else {
            self.timers_put_off = 0;
            self.shard.expire(&mut self.due);
        }
    }

    fn flush(&mut self) {
        self.shard.take_dirty(&mut self.dirty);
        for key in self.dirty.drain(..) {
            self.shard.visit(key, |visit| settle(&mut self.sys, visit));
        }
    }

    fn end_turn(&mut self) -> io::Result<Flow> {
        self.close_ended();
        let counters = self.shard.counters();
        counters.mailbox = (self.mailbox.queued() + self.commands.len()) as u64;
        counters.wakeups = self.mailbox.rings();
        self.shard.end_turn();
        if let Some(error) = self.acceptor.as_mut().and_then(Acceptor::take_failure) {
            return Err(error);
        }
        let lonely = self.lifetime == Lifetime::Connection && self.shard.len() == 0;
        Ok(if lonely || self.shard.is_finished() { Flow::Stop } else { Flow::Continue })
    }

    /// Closes the sockets of ended sessions. `on_close` has run: nobody can write to a descriptor that is somebody else's.
    fn close_ended(&mut self) {
        while let Some(mut ended) = self.shard.poll_ended() {
            if ended.how == Ending::Reset {
                self.sys.make_reset(&mut ended.io);
            }
            drop(ended.io);
            self.census.leave(self.seat, &ended.ends.peer());
        }
    }

    pub(super) fn tear_down(&mut self) {
        self.stop_accepting();
        self.shard.cut();
        self.commands.extend(self.mailbox.close());
        for command in std::mem::take(&mut self.commands) {
            match command {
                Command::Adopt(arrival) => self.census.leave(self.seat, &arrival.ends.peer()),
                command => self.shard.discard(command),
            }
        }
        self.close_ended();
        self.shard.counters().mailbox = 0;
        self.shard.end_turn();
    }
}

/// Receives and hands out until the kernel has no more, the session wants no more, or it has had its share.
#[inline]
fn receive<Y: Sys, H: PacketHandler, F: Framing>(
    sys: &mut Y,
    scratch: &mut Scratch,
    mut budget: usize,
    visit: &mut Visit<'_, H, F, Y::Stream>,
) {
    while let Some(io) = visit.poll_reading() {
        let space = scratch.space();
        let room = space.len();
        let cost = match sys.recv(io, space) {
            Ok(0) => return visit.handle_end(),
            Ok(n) => {
                visit.handle_received(scratch, n);
                if n < room && visit.handle_drained(Drained::ShortRead) {
                    return;
                }
                n
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                visit.handle_drained(Drained::WouldBlock);
                return;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => room,
            Err(error) => return visit.handle_failed(error),
        };
        budget = budget.saturating_sub(cost);
        if budget == 0 {
            return visit.handle_budget_spent();
        }
    }
}

/// Writes what the session has to write, and takes the next step if it is closing.
#[inline]
fn settle<Y: Sys, H: PacketHandler, F: Framing>(sys: &mut Y, visit: &mut Visit<'_, H, F, Y::Stream>) {
    visit.begin_settling();
    while let Some((io, outbox)) = visit.poll_transmit() {
        let sent = transmit(sys, io, outbox);
        visit.handle_sent(sent);
    }
    if let Some(io) = visit.poll_shutdown() {
        if let Err(error) = sys.shutdown_write(io) {
            visit.handle_failed(error);
        }
    }
}

/// A session that is not read from would not find out that its connection has failed.
#[cold]
fn find_error<Y: Sys, H: PacketHandler, F: Framing>(sys: &mut Y, visit: &mut Visit<'_, H, F, Y::Stream>) {
    if let Some(error) = sys.take_error(visit.io()) {
        visit.handle_failed(error);
    }
}

/// One system call: `send` for a single chunk, `writev` for several.
#[inline]
fn transmit<Y: Sys>(sys: &mut Y, io: &mut Y::Stream, outbox: &Outbox) -> io::Result<usize> {
    match outbox.single() {
        Some(bytes) => sys.send(io, bytes),
        None => transmit_vectored(sys, io, outbox),
    }
}

fn transmit_vectored<Y: Sys>(sys: &mut Y, io: &mut Y::Stream, outbox: &Outbox) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let count = outbox.slices(&mut slices);
    sys.send_vectored(io, slices.get(..count).unwrap_or_default())
}
