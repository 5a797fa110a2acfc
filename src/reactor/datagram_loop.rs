use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc};

use super::{
    DatagramConfig, Flow, Gate, Ready, Service, Sys,
    service::Step,
    shared_socket::{SharedSocket, transmit},
    shares::{COMMAND_SHARE, COMMANDS_PER_TURN, READ_SHARE, SLOW_TURN, TIMER_SHARE, WRITE_SHARE},
    token::{listener_of, listener_token},
};
use crate::{
    addr::{Addr, Endpoints},
    buffer::ReceiveBuffer,
    error::{CloseReason, RefusalCause},
    framing::LengthPrefix,
    handler::PacketHandler,
    id::{Key, ShardId},
    session::{Effect, Effects, TimerPurpose},
    shard::{Alarm, Command, FanOut, Incoming, LocalTurn, Peer, SessionAccess, Shard, take_local},
    sync::{AdmissionPermit, Mailbox},
    time::Tick,
    timer_wheel::Fired,
};

/// Datagrams that are read from one socket in one turn; the rest waits for the next, behind timers and commands.
const DATAGRAMS_PER_TURN: usize = 256;
/// After so long in which the sockets were never read to their end, a peer that has not been heard is taken for silent:
/// what was sent so long ago was read or dropped (milliseconds).
const FLOODED: Tick = 1000;

/// A shard whose peers share sockets: it reads each socket for all of them.
///
/// ```text
/// socket → recv_from → Peers (address → session) → session → on_packet → outbox → send_to → socket
/// ```
pub(crate) struct DatagramLoop<Y: Sys, H: PacketHandler> {
    shard: Shard<H, LengthPrefix, Peer>,
    sockets: Vec<SharedSocket<Y>>,
    gate: Gate,
    mailbox: Arc<Mailbox<Command<Y::Stream>>>,
    longest: usize,
    most_waiting: usize,
    /// When this turn began.
    began: Tick,
    /// Busy services of this thread in this turn.
    busy: Tick,
    /// Since when some socket was not read to its end.
    unread_since: Option<Tick>,
    ready: Vec<Ready>,
    // What is left of these when their share of the turn is used up waits for the next turn.
    commands: VecDeque<Command<Y::Stream>>,
    unfinished: VecDeque<Key>,
    dirty: VecDeque<Key>,
    /// The last one is the earliest.
    due: Vec<Fired<TimerPurpose>>,
    /// The sessions that were served in this turn.
    served: Vec<Key>,
}

impl<Y: Sys, H: PacketHandler + 'static> DatagramLoop<Y, H> {
    /// Registers the sockets.
    pub(crate) fn new(sys: &mut Y, config: DatagramConfig<Y, H>) -> io::Result<Box<Self>> {
        let mut sockets = Vec::new();
        for (number, (mut io, local)) in config.sockets.into_iter().enumerate() {
            sys.register_datagrams(&mut io, listener_token(config.number, number))?;
            sockets.push(SharedSocket::new(io, local));
        }
        let mut shard = config.shard;
        let began = shard.clock().read();
        Ok(Box::new(Self {
            shard,
            sockets,
            gate: config.gate,
            mailbox: config.mailbox,
            most_waiting: config.most_waiting,
            longest: config.longest,
            began,
            busy: 1,
            unread_since: None,
            ready: Vec::new(),
            commands: VecDeque::new(),
            unfinished: VecDeque::new(),
            dirty: VecDeque::new(),
            due: Vec::new(),
            served: Vec::new(),
        }))
    }

    /// Returns `true` if work is left that no event will announce.
    fn has_work(&self) -> bool {
        let nothing_left = self.commands.is_empty() && self.unfinished.is_empty() && self.dirty.is_empty();
        let is_busy = |socket: &SharedSocket<Y>| socket.is_to_be_read() || socket.is_to_be_written();
        !nothing_left || !self.due.is_empty() || self.sockets.iter().any(is_busy)
    }

    /// Notes what the events of this turn say of the sockets.
    fn take_events(&mut self) {
        for event in std::mem::take(&mut self.ready) {
            let Some(socket) = listener_of(event.token).and_then(|at| self.sockets.get_mut(at)) else {
                self.shard.counters().stale_events += 1;
                continue;
            };
            // Reading takes a pending error, too.
            socket.is_readable |= event.readable || event.error || event.hangup;
            socket.is_blocked &= !event.writable;
        }
    }

    /// Reads each socket, a part of what it has at most, and serves the sessions that waited for their next share.
    fn read(&mut self, sys: &mut Y, buffer: &mut ReceiveBuffer) {
        self.take_events();
        self.shard.take_unfinished(&mut self.unfinished);
        self.begin_part(READ_SHARE);
        for _ in 0..self.unfinished.len() {
            let Some(key) = self.unfinished.pop_front() else { break };
            self.resume(sys, key);
            if self.shard.clock().is_part_over() {
                break;
            }
        }
        let share = READ_SHARE / self.sockets.len().max(1) as Tick;
        for at in 0..self.sockets.len() {
            self.begin_part(share.max(1));
            self.read_socket(sys, buffer, at);
        }
        let unread = self.sockets.iter().any(SharedSocket::is_to_be_read);
        self.unread_since = unread.then(|| self.unread_since.unwrap_or(self.began));
    }

    fn read_socket(&mut self, sys: &mut Y, buffer: &mut ReceiveBuffer, at: usize) {
        buffer.open_wide();
        for _ in 0..DATAGRAMS_PER_TURN {
            let Some(socket) = self.sockets.get_mut(at) else { return };
            socket.rests_until.take_if(|until| *until <= self.began);
            if !socket.is_to_be_read() {
                return;
            }
            match sys.recv_from(&mut socket.io, buffer.space()) {
                Ok((n, from)) => {
                    socket.failures = 0;
                    self.handle_datagram(sys, buffer, at, n, from);
                }
                Err(error) => socket.handle_failure(&error, self.began),
            }
            if self.shard.clock().is_part_over() {
                return;
            }
        }
    }

    /// Hands a datagram of `n` bytes to the session of its peer, a new one if need be, and sends what follows from it.
    #[inline]
    fn handle_datagram(
        &mut self,
        sys: &mut Y,
        buffer: &mut ReceiveBuffer,
        at: usize,
        n: usize,
        from: SocketAddr,
    ) {
        if n > self.longest || n > buffer.space().len() {
            return self.refuse_long(n, from);
        }
        let known = self.sockets.get_mut(at).and_then(|socket| socket.peers.find(from));
        let Some(key) = known.filter(|key| self.shard.has(*key)).or_else(|| self.begin_session(at, from))
        else {
            return;
        };
        let Some(socket) = self.sockets.get_mut(at) else { return };
        let most = self.most_waiting;
        self.shard.with_session(key, |access| {
            access.handle_datagram(buffer, n);
            transmit(sys, socket, access, most);
        });
        self.note_served(key);
    }

    #[cold]
    fn refuse_long(&mut self, len: usize, from: SocketAddr) {
        self.shard.refuse_datagram(from, len, self.longest);
    }

    /// Opens a session for a peer from which the first datagram has come.
    #[cold]
    fn begin_session(&mut self, at: usize, from: SocketAddr) -> Option<Key> {
        let permit = match self.admit(from) {
            Ok(permit) => permit,
            Err(cause) => {
                self.shard.refuse_peer(from, cause);
                return None;
            }
        };
        let socket = self.sockets.get_mut(at)?;
        let endpoints = Endpoints::new(Addr::Ip(from), socket.local.clone(), at);
        let io = Peer { addr: from, socket: at as u16 };
        self.shard.counters().accepted += 1;
        let key = self.shard.insert(Incoming { io, endpoints, permit })?;
        socket.peers.insert(from, key);
        self.shard.with_session(key, |access| access.open());
        Some(key)
    }

    fn admit(&mut self, from: SocketAddr) -> Result<AdmissionPermit, RefusalCause> {
        if self.shard.is_stopping() {
            return Err(RefusalCause::Shutdown);
        }
        match self.gate.admit(from) {
            Err(RefusalCause::Full) => {
                let idlest = self.gate.choose(&self.shard).ok_or(RefusalCause::Full)?;
                self.shard.forget_peer(idlest);
                self.close_ended();
                self.gate.admit(from)
            }
            admitted => admitted,
        }
    }

    /// Goes on with a session without an event.
    fn resume(&mut self, sys: &mut Y, key: Key) {
        self.visit(sys, key, |access| {
            access.begin_serving();
            access.handle_resumed();
        });
        self.note_served(key);
    }

    /// Visits a session, and sends what it has to send.
    fn visit(
        &mut self,
        sys: &mut Y,
        key: Key,
        body: impl FnOnce(&mut SessionAccess<'_, H, LengthPrefix, Peer>),
    ) {
        let (sockets, most) = (&mut self.sockets, self.most_waiting);
        self.shard.with_session(key, |access| {
            body(access);
            let Some(socket) = sockets.get_mut(usize::from(access.io().socket)) else { return };
            transmit(sys, socket, access, most);
        });
    }

    fn write(&mut self, sys: &mut Y, key: Key) {
        self.visit(sys, key, |_| {});
    }

    /// Called after a session was served. It must not be blamed for a silence during which its shard was busy with a
    /// callback: what was stamped just before the callback counts from now.
    fn note_served(&mut self, key: Key) {
        self.served.push(key);
        if self.shard.clock().is_outdated() {
            self.restamp();
        }
    }

    #[cold]
    fn restamp(&mut self) {
        let to = self.shard.clock().stamp();
        let Some(from) = self.shard.clock().take_outdated() else { return };
        for key in &self.served {
            self.shard.restamp(*key, from, to);
        }
    }

    fn begin_part(&mut self, share: Tick) {
        let share = if self.busy > 1 { (share / self.busy).max(1) } else { share };
        self.shard.clock().begin_part(share);
    }

    /// Carries out a command. Returns what is left of it for the next turn, before which no other may be taken.
    fn handle_command(&mut self, sys: &mut Y, command: Command<Y::Stream>) -> Option<Command<Y::Stream>> {
        match command {
            Command::FanOut(fan_out) => return self.fan_out(sys, fan_out).map(Command::FanOut),
            Command::Session(key, mut command) => {
                self.shard.handle_command(key, &mut command);
                self.shard.discard_command(Command::<Y::Stream>::Session(key, command));
            }
            Command::ClosePeer(peer, why) => {
                self.shard.close_peer(peer, why.as_ref());
                self.shard.discard_command(Command::<Y::Stream>::ClosePeer(peer, why));
            }
            Command::Execute(job) => self.shard.run(job),
            Command::Shutdown(grace) => {
                self.stop();
                self.shard.shut_down(grace);
            }
            Command::SumUpLog => self.shard.sum_up_log(),
            Command::Abort => {
                self.stop();
                self.shard.cut();
            }
            Command::Dial(dial) => self.shard.refuse_dial(dial),
            // Nothing here accepts, or looks up names.
            Command::Adopt(_) | Command::Found(..) | Command::HangUp(_) => {}
        }
        None
    }

    /// Passes a packet on to many sessions. Returns what is left.
    fn fan_out(&mut self, sys: &mut Y, fan_out: Box<FanOut>) -> Option<Box<FanOut>> {
        let (sockets, most) = (&mut self.sockets, self.most_waiting);
        self.shard.fan_out(fan_out, |access, fan_out| {
            access.take_from(fan_out);
            let Some(socket) = sockets.get_mut(usize::from(access.io().socket)) else { return };
            transmit(sys, socket, access, most);
        })
    }

    /// Takes what callbacks have posted to this shard since it last did.
    fn take_local(&mut self) {
        if take_local(&mut self.commands) {
            self.mailbox.note_leftover(true);
        }
    }

    fn stop(&mut self) {
        self.gate.stop(self.began, self.shard.counters());
        self.shard.stop_dials();
        self.shard.refuse_dials();
    }

    fn obey(&mut self, sys: &mut Y) {
        self.mailbox.take(&mut self.commands);
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

    fn expire(&mut self, sys: &mut Y) {
        self.shard.take_due(&mut self.due);
        if self.due.is_empty() {
            return;
        }
        self.begin_part(TIMER_SHARE);
        let unread = self.unread_since.is_some_and(|since| self.began < since + FLOODED);
        while let Some(fired) = self.due.pop() {
            match self.shard.handle_timer(fired) {
                Some(Alarm::Judge(key)) => {
                    self.visit(sys, key, |access| {
                        access.judge_unless(unread);
                    });
                    self.note_served(key);
                }
                Some(Alarm::Write(key)) => {
                    self.write(sys, key);
                    self.note_served(key);
                }
                Some(Alarm::Dials) => self.shard.refuse_dials(),
                Some(Alarm::Dial(..)) | None => {}
            }
            if self.shard.clock().is_part_over() {
                break;
            }
        }
    }

    fn flush(&mut self, sys: &mut Y) {
        self.shard.take_dirty(&mut self.dirty);
        self.begin_part(WRITE_SHARE);
        while let Some(key) = self.sockets.iter_mut().find_map(SharedSocket::next_waiting) {
            self.visit(sys, key, |access| {
                access.handle_writable();
            });
            if self.shard.clock().is_part_over() {
                return;
            }
        }
        while let Some(key) = self.dirty.pop_front() {
            self.write(sys, key);
            if self.shard.clock().is_part_over() {
                break;
            }
        }
    }

    /// Forgets the peers of ended sessions. `on_close` has run.
    fn close_ended(&mut self) {
        while let Some(ended) = self.shard.poll_ended() {
            let Peer { addr, socket } = ended.io;
            if let Some(socket) = self.sockets.get_mut(usize::from(socket)) {
                socket.peers.remove(addr, |key| self.shard.has(key));
            }
        }
    }
}

impl<Y: Sys, H: PacketHandler + 'static> Service<Y> for DatagramLoop<Y, H> {
    fn shard(&self) -> ShardId {
        self.shard.id()
    }

    fn start(&mut self) -> Result<(), CloseReason> {
        self.shard.start()
    }

    fn judge_last_turn(&mut self) {
        // The clock never goes back.
        let took = self.shard.clock().read().wrapping_sub(self.began);
        if self.shard.clock().is_outdated() {
            self.restamp();
        }
        self.served.clear();
        if took > SLOW_TURN {
            self.shard.note_slow_turn(took);
        }
        self.shard.note_turn();
    }

    fn poll_deadline(&mut self) -> (Tick, Option<Tick>) {
        let now = self.shard.clock().now();
        if self.has_work() {
            return (now, Some(0));
        }
        let rests = self.sockets.iter().filter_map(|socket| socket.rests_until);
        (now, rests.chain(self.shard.poll_deadline()).min())
    }

    fn fall_asleep(&self) -> bool {
        self.mailbox.fall_asleep()
    }

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
        match step {
            Step::Read => self.read(sys, buffer),
            Step::Accept => {}
            Step::Obey => self.obey(sys),
            Step::Expire => self.expire(sys),
            Step::Flush => self.flush(sys),
        }
        self.take_local();
    }

    fn outgoing(&mut self) -> &mut Effects {
        self.shard.outgoing()
    }

    fn apply(&mut self, effect: Effect, packet: &[u8]) {
        self.shard.apply(effect, packet);
    }

    fn end_turn(&mut self, _sys: &mut Y) -> io::Result<Flow> {
        self.close_ended();
        for socket in &mut self.sockets {
            socket.prune(self.shard.len(), |key| self.shard.has(key));
        }
        let counters = self.shard.counters();
        counters.mailbox = self.commands.len() as u64;
        self.shard.end_turn();
        Ok(if self.shard.is_finished() { Flow::Stop } else { Flow::Continue })
    }

    fn finish(mut self: Box<Self>, _sys: &mut Y) {
        self.stop();
        self.shard.cut();
        self.commands.extend(self.mailbox.close());
        for command in std::mem::take(&mut self.commands) {
            self.shard.discard_command(command);
        }
        self.close_ended();
        self.sockets.clear();
        self.shard.counters().mailbox = 0;
        self.shard.end_turn();
        self.shard.end();
    }
}
