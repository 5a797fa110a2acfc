mod turn;

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    sync::Arc,
    time::Duration,
};

use super::{
    Acceptor, Connector, Flow, Ready, Service, Sys,
    dialling::Dialling,
    service::{STEPS, Step, earlier},
    session_io::{find_error, flush, handle_event, note, pass_on, serve},
    shares::SLOW_TURN,
    token::{FIRST_DIAL, dial_of, listener_of, session_of, session_token},
};
use crate::{
    buffer::ReceiveBuffer,
    dial::DialStep,
    error::CloseReason,
    framing::Framing,
    handler::PacketHandler,
    id::{Key, SessionId, ShardId},
    session::{Effect, Effects, TimerPurpose},
    shard::{Carry, Command, FanOut, Incoming, LocalTurn, Shard, take_local},
    sync::{Mailbox, has_answers_left},
    time::Tick,
    timer_wheel::Fired,
};

/// A shard with its mailbox, its connector, perhaps an acceptor, and the work that a turn had no time for.
pub(crate) struct ServiceLoop<Y: Sys, H: PacketHandler, F> {
    pub(super) shard: Shard<H, F, Y::Stream>,
    /// Its number on the thread, which its tokens carry.
    number: u8,
    pub(super) acceptor: Option<Acceptor<Y>>,
    pub(super) connector: Connector<Y>,
    mailbox: Arc<Mailbox<Command<Y::Stream>>>,
    lifetime: Lifetime,
    read_budget: usize,
    /// When this turn began.
    began: Tick,
    /// Busy services of this thread in this turn.
    busy: Tick,
    ready: Vec<Ready>,
    // What is left of these when their share of the turn is used up waits for the next turn.
    commands: VecDeque<Command<Y::Stream>>,
    unfinished: VecDeque<Key>,
    dirty: VecDeque<Key>,
    /// The last one is the earliest.
    due: Vec<Fired<TimerPurpose>>,
    /// The sessions that were served in this turn without an event.
    served: Vec<Key>,
}

/// How long a shard lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// Until the server stops.
    Server,
    /// Until its one connection ends, and those that it has made itself.
    Connection,
}

/// What a service is made of.
pub(crate) struct ServiceConfig<Y: Sys, H: PacketHandler, F> {
    pub(crate) shard: Shard<H, F, Y::Stream>,
    pub(crate) number: u8,
    pub(crate) acceptor: Option<Acceptor<Y>>,
    pub(crate) connector: Connector<Y>,
    pub(crate) mailbox: Arc<Mailbox<Command<Y::Stream>>>,
    pub(crate) lifetime: Lifetime,
    pub(crate) read_budget: usize,
}

impl<Y, H, F> ServiceLoop<Y, H, F>
where
    Y: Sys,
    H: PacketHandler + 'static,
    F: Framing + Clone,
{
    /// Not inlined, for the sake of the stack, as [`ShardCore::new`](crate::session::ShardCore::new).
    #[inline(never)]
    pub(crate) fn new(config: ServiceConfig<Y, H, F>) -> Box<Self> {
        let mut shard = config.shard;
        let now = shard.clock().read();
        Box::new(Self {
            shard,
            number: config.number,
            acceptor: config.acceptor,
            connector: config.connector,
            mailbox: config.mailbox,
            lifetime: config.lifetime,
            read_budget: config.read_budget,
            began: now,
            busy: 1,
            ready: Vec::new(),
            commands: VecDeque::new(),
            unfinished: VecDeque::new(),
            dirty: VecDeque::new(),
            due: Vec::new(),
            served: Vec::new(),
        })
    }

    /// Returns `true` if work is left that no event will announce.
    #[inline]
    fn has_work(&self) -> bool {
        let left = self.commands.is_empty() && self.unfinished.is_empty() && self.dirty.is_empty();
        !left
            || !self.due.is_empty()
            || self.acceptor.as_ref().is_some_and(|acceptor| acceptor.is_active() && acceptor.has_work())
    }

    /// Opens a session for a connection.
    fn adopt(&mut self, sys: &mut Y, incoming: Incoming<Y::Stream>) {
        if let Some(key) = self.shard.insert(incoming) {
            self.open(sys, key, Y::register);
        }
    }

    pub(super) fn open(
        &mut self,
        sys: &mut Y,
        key: Key,
        register: fn(&mut Y, &mut Y::Stream, u64) -> io::Result<()>,
    ) {
        let token = session_token(self.number, key);
        self.shard.with_session(key, |access| match register(sys, access.io(), token) {
            Ok(()) => access.open(),
            Err(error) => access.refuse(error),
        });
        self.served.push(key);
    }

    /// Not inlined, to have the registers to itself.
    #[inline(never)]
    fn serve_ready(&mut self, sys: &mut Y, buffer: &mut ReceiveBuffer) {
        let ready = std::mem::take(&mut self.ready);
        let mut over = false;
        for event in &ready {
            if event.token >= FIRST_DIAL {
                self.note_other(event.token);
                continue;
            }
            if over {
                self.put_off(sys, event);
                continue;
            }
            self.handle_ready(sys, buffer, event);
            if self.shard.clock().is_alarmed() {
                self.restamp(&ready);
                over = self.shard.clock().is_part_over();
            }
        }
        self.ready = ready;
    }

    #[cold]
    fn note_other(&mut self, token: u64) {
        if let Some(number) = dial_of(token) {
            self.shard.dial_later(DialStep::Ready(number));
        } else if let (Some(acceptor), Some(listener)) = (&mut self.acceptor, listener_of(token)) {
            acceptor.handle_ready(listener);
        }
    }

    /// A session must not be blamed for a silence during which its shard was busy with a callback, even its own: what
    /// was stamped just before the callback counts from now.
    #[cold]
    fn restamp(&mut self, ready: &[Ready]) {
        let to = self.shard.clock().stamp();
        let Some(from) = self.shard.clock().take_outdated() else { return };
        let keys = ready.iter().map(|ready| session_of(ready.token));
        for key in keys.chain(self.served.iter().copied()) {
            self.shard.restamp(key, from, to);
        }
    }

    /// Called after a session was served without an event.
    fn note_served(&mut self, key: Key) {
        self.served.push(key);
        self.restamp_outdated();
    }

    #[inline]
    fn restamp_outdated(&mut self) {
        if self.shard.clock().is_outdated() {
            let ready = std::mem::take(&mut self.ready);
            self.restamp(&ready);
            self.ready = ready;
        }
    }

    fn serve_unfinished(&mut self, sys: &mut Y, buffer: &mut ReceiveBuffer, key: Key) {
        let budget = self.read_budget;
        self.shard.with_session(key, |access| {
            access.begin_serving();
            access.handle_resumed();
            serve(sys, buffer, budget, access);
        });
    }

    fn handle_ready(&mut self, sys: &mut Y, buffer: &mut ReceiveBuffer, ready: &Ready) {
        let budget = self.read_budget;
        let met = self.shard.with_session(session_of(ready.token), |access| {
            handle_event(sys, buffer, budget, ready, access);
        });
        if met.is_none() {
            self.shard.counters().stale_events += 1;
        }
    }

    /// Defers an event for which the turn has no time left: its session waits.
    #[cold]
    fn put_off(&mut self, sys: &mut Y, ready: &Ready) {
        let key = session_of(ready.token);
        let waits = self.shard.with_session(key, |access| {
            note(ready, access);
            if ready.error {
                find_error(sys, access);
            }
            access.wait()
        });
        if waits == Some(true) {
            self.unfinished.push_back(key);
        }
    }

    /// Carries out a command. Returns what is left of it for the next turn, before which no other may be taken.
    fn handle_command(&mut self, sys: &mut Y, command: Command<Y::Stream>) -> Option<Command<Y::Stream>> {
        match command {
            Command::FanOut(fan_out) => return self.fan_out(sys, fan_out).map(Command::FanOut),
            Command::Session(key, mut command) => {
                self.shard.handle_command(key, &mut command);
                self.shard.discard(Command::Session(key, command));
            }
            Command::Adopt(incoming) => self.adopt(sys, incoming),
            Command::Dial(dial) => self.take_dial(sys, dial),
            Command::Found(name, found) => self.note_found(sys, &name, &found),
            Command::HangUp(dial) => self.hang_up(dial),
            Command::ClosePeer(peer, why) => {
                self.shard.close_peer(peer, why.as_ref());
                self.shard.discard(Command::ClosePeer(peer, why));
            }
            Command::Execute(job) => self.shard.run(job),
            Command::Shutdown(grace) => {
                self.stop_accepting();
                self.stop_dialling();
                self.shard.shut_down(grace);
            }
            Command::Abort => {
                self.stop_accepting();
                self.stop_dialling();
                self.shard.cut();
            }
            Command::SumUpLog => self.shard.sum_up_log(),
        }
        None
    }

    /// Passes a packet on to many sessions, with those behind it that are for the same ones. Returns what is left.
    fn fan_out(&mut self, sys: &mut Y, mut fan_out: Box<FanOut>) -> Option<Box<FanOut>> {
        while let Some(Command::FanOut(next)) = self.commands.front() {
            if !fan_out.takes(next) {
                break;
            }
            if let Some(Command::FanOut(next)) = self.commands.pop_front() {
                fan_out.merge(*next);
            }
        }
        self.shard.fan_out(fan_out, |access, fan_out| pass_on(sys, fan_out, access))
    }

    /// Takes what callbacks have posted to this shard since it last did.
    #[inline]
    fn take_local(&mut self) {
        if take_local(&mut self.commands) {
            self.mailbox.note_leftover(true);
        }
    }

    fn stop_accepting(&mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.stop(self.shard.counters());
        }
    }

    /// Handles a passed deadline of a session. Its bytes may lie unread, and the kernel may take more for it by now,
    /// above all after the whole process stood still: the session is read and written first, and only then timed out.
    fn judge(&mut self, sys: &mut Y, buffer: &mut ReceiveBuffer, suspect: Key) {
        let budget = self.read_budget;
        self.shard.with_session(suspect, |access| {
            access.doubt();
            serve(sys, buffer, budget, access);
        });
        // A callback that it has just called may have blocked.
        self.note_served(suspect);
        self.shard.with_session(suspect, |access| {
            if access.judge() {
                flush(sys, access);
            }
        });
        self.note_served(suspect);
    }
}

impl<Y, H, F> Service<Y> for ServiceLoop<Y, H, F>
where
    Y: Sys,
    H: PacketHandler + 'static,
    F: Framing + Clone,
{
    fn shard(&self) -> ShardId {
        self.shard.id()
    }

    fn start(&mut self) -> Result<(), CloseReason> {
        self.shard.start()
    }

    /// If the turn took long, the sessions that were served last are stamped again; a long turn delayed every session.
    #[inline(always)]
    fn judge_last_turn(&mut self) {
        // The clock never goes back.
        let took = self.shard.clock().read().wrapping_sub(self.began);
        self.restamp_outdated();
        self.served.clear();
        if took > SLOW_TURN {
            self.shard.note_slow_turn(took);
        }
        self.shard.note_turn();
    }

    #[inline(always)]
    fn poll_deadline(&mut self) -> (Tick, Option<Tick>) {
        let now = self.shard.clock().now();
        if self.has_work() {
            return (now, Some(0));
        }
        let deadline = self.shard.poll_deadline();
        let acceptor = self.acceptor.as_ref().filter(|acceptor| acceptor.is_active());
        (now, earlier(deadline, acceptor.and_then(Acceptor::deadline)))
    }

    #[inline(always)]
    fn fall_asleep(&self) -> bool {
        self.mailbox.fall_asleep()
    }

    #[inline(always)]
    fn wake_up(&mut self, expected: Option<Tick>) {
        self.mailbox.wake_up();
        self.began = self.shard.clock().wake(expected);
        self.shard.begin_watching();
    }

    fn ready(&mut self) -> &mut Vec<Ready> {
        &mut self.ready
    }

    fn is_busy(&self) -> bool {
        !self.ready.is_empty() || self.has_work()
    }

    fn run(&mut self, step: Step, busy: Tick, sys: &mut Y, buffer: &mut ReceiveBuffer) {
        self.busy = busy;
        if busy > 1 || self.shard.clock().is_watched() {
            self.shard.pass_over();
        }
        let _turn = LocalTurn::begin(&self.mailbox);
        self.take(step, sys, buffer);
        self.take_local();
    }

    /// As provided, with the steps inlined, and with a wait in the read where that is quicker.
    fn turn(&mut self, sys: &mut Y, buffer: &mut ReceiveBuffer) -> io::Result<Flow> {
        let _turn = LocalTurn::begin(&self.mailbox);
        self.judge_last_turn();
        let (now, deadline) = self.poll_deadline();
        let deadline = earlier(deadline, buffer.poll_deadline(now));
        let mut wait = deadline.map(|at| Duration::from_millis(at.saturating_sub(now)));
        if wait != Some(Duration::ZERO) && (has_answers_left() || !self.fall_asleep()) {
            wait = Some(Duration::ZERO);
        }
        self.ready.clear();
        let polled = sys.poll(&mut self.ready, wait);
        self.wake_up(deadline);
        match polled {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.busy = 1;
        // Not in a loop, which the compiler does not unroll.
        let [first, second, third, fourth, last] = STEPS;
        self.take(first, sys, buffer);
        self.take(second, sys, buffer);
        self.take(third, sys, buffer);
        self.take(fourth, sys, buffer);
        self.take(last, sys, buffer);
        self.take_local();
        self.end_turn(sys)
    }

    fn outgoing(&mut self) -> &mut Effects {
        self.shard.outgoing()
    }

    fn apply(&mut self, effect: Effect, packet: &mut [u8]) {
        if self.shard.clock().is_watched() {
            self.shard.pass_over();
        }
        self.shard.apply(effect, packet);
    }

    fn carry(&mut self, carrier: SessionId, write: &mut dyn FnMut(&mut dyn Carry)) -> bool {
        self.shard.carry(carrier, write)
    }

    #[inline(always)]
    fn end_turn(&mut self, sys: &mut Y) -> io::Result<Flow> {
        self.close_ended(sys);
        let counters = self.shard.counters();
        counters.mailbox = self.commands.len() as u64;
        self.shard.end_turn();
        if let Some(acceptor) = self.acceptor.as_mut().filter(|acceptor| acceptor.is_active()) {
            acceptor.end_turn()?;
        }
        let is_lonely = || self.shard.len() == 0 && !self.shard.is_dialling();
        let lonely = self.lifetime == Lifetime::Connection && is_lonely();
        Ok(if lonely || self.shard.is_finished() { Flow::Stop } else { Flow::Continue })
    }

    fn finish(mut self: Box<Self>, sys: &mut Y) -> Effects {
        self.stop_accepting();
        self.stop_dialling();
        self.shard.cut();
        self.commands.extend(self.mailbox.close());
        for command in std::mem::take(&mut self.commands) {
            self.shard.give_up(command);
        }
        self.close_ended(sys);
        self.shard.counters().mailbox = 0;
        self.shard.end_turn();
        let left = std::mem::take(self.shard.outgoing());
        self.shard.end();
        left
    }
}
