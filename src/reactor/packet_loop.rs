use std::{collections::VecDeque, io, sync::Arc};

use super::{
    Carriers, Connector, Flow, Ready, Service, Sys,
    connector::Connected,
    dialling::Dialling,
    placing::PlacedDial,
    port::{Port, PortAccess, PortContext},
    service::Step,
    shares::{COMMAND_SHARE, COMMANDS_PER_TURN, READ_SHARE, SLOW_TURN, TIMER_SHARE, WRITE_SHARE},
};
use crate::{
    buffer::ReceiveBuffer,
    dial::NewDial,
    error::{CloseReason, DialError},
    framing::LengthPrefix,
    handler::PacketHandler,
    id::{Key, SessionId, ShardId},
    session::{Effect, Effects, TimerPurpose},
    shard::{Carry, Command, FanOut, LocalTurn, Shard, TimerAction, take_local},
    sync::Mailbox,
    time::Tick,
    timer_wheel::Fired,
};

/// A shard whose sessions have no stream of their own: their packets come and go whole, through a [`Port`].
pub(crate) struct PacketLoop<Y: Sys, H: PacketHandler, P: Port<Y, H>> {
    context: PortContext<H, P::Io>,
    port: P,
    connector: Connector<Y, P::Connect>,
    mailbox: Arc<Mailbox<Command<Y::Stream>>>,
    /// Busy services of this thread in this turn.
    busy: Tick,
    ready: Vec<Ready>,
    // What is left of these when their share of the turn is used up waits for the next turn.
    commands: VecDeque<Command<Y::Stream>>,
    unfinished: VecDeque<Key>,
    dirty: VecDeque<Key>,
    /// The last one is the earliest.
    due: Vec<Fired<TimerPurpose>>,
}

impl<Y: Sys, H: PacketHandler + 'static, P: Port<Y, H>> PacketLoop<Y, H, P> {
    pub(super) fn new(
        shard: Shard<H, LengthPrefix, P::Io>,
        port: P,
        connector: Connector<Y, P::Connect>,
        mailbox: Arc<Mailbox<Command<Y::Stream>>>,
    ) -> Box<Self> {
        let mut context = PortContext { shard, began: 0, served: Vec::new() };
        context.began = context.shard.clock().read();
        Box::new(Self {
            context,
            port,
            connector,
            mailbox,
            busy: 1,
            ready: Vec::new(),
            commands: VecDeque::new(),
            unfinished: VecDeque::new(),
            dirty: VecDeque::new(),
            due: Vec::new(),
        })
    }

    /// Returns `true` if work is left that no event will announce.
    fn has_work(&self) -> bool {
        let nothing_left = self.commands.is_empty() && self.unfinished.is_empty() && self.dirty.is_empty();
        !nothing_left || !self.due.is_empty() || self.port.has_work()
    }

    /// Returns the part of a turn that is left of this one beside other services.
    fn share(&self, share: Tick) -> Tick {
        if self.busy > 1 { (share / self.busy).max(1) } else { share }
    }

    fn begin_part(&mut self, share: Tick) {
        let share = self.share(share);
        self.context.shard.clock().begin_part(share);
    }

    /// Serves the sessions that waited for their next share, and receives.
    fn read(&mut self, sys: &mut Y, buffer: &mut ReceiveBuffer) {
        self.port.take_events(&self.ready, &mut self.context.shard);
        self.context.shard.take_unfinished(&mut self.unfinished);
        self.begin_part(READ_SHARE);
        for _ in 0..self.unfinished.len() {
            let Some(key) = self.unfinished.pop_front() else { break };
            self.resume(sys, key);
            if self.context.shard.clock().is_part_over() {
                break;
            }
        }
        let share = self.share(READ_SHARE);
        self.port.read(&mut self.context, share, sys, buffer);
    }

    /// Goes on with a session without an event.
    fn resume(&mut self, sys: &mut Y, key: Key) {
        self.visit(sys, key, |access| {
            access.begin_serving();
            access.handle_resumed();
        });
        self.context.note_served(key);
    }

    /// Visits a session, and sends what it has to send.
    fn visit(&mut self, sys: &mut Y, key: Key, body: impl FnOnce(&mut PortAccess<'_, H, P::Io>)) {
        let port = &mut self.port;
        self.context.shard.with_session(key, |access| {
            body(access);
            port.transmit(sys, access);
        });
    }

    fn write(&mut self, sys: &mut Y, key: Key) {
        self.visit(sys, key, |_| {});
    }

    /// Carries out a command. Returns what is left of it for the next turn, before which no other may be taken.
    fn handle_command(&mut self, sys: &mut Y, command: Command<Y::Stream>) -> Option<Command<Y::Stream>> {
        let shard = &mut self.context.shard;
        match command {
            Command::FanOut(fan_out) => return self.fan_out(sys, fan_out).map(Command::FanOut),
            Command::Session(key, mut command) => {
                shard.handle_command(key, &mut command);
                shard.discard_command(Command::<Y::Stream>::Session(key, command));
            }
            Command::ClosePeer(peer, why) => {
                shard.close_peer(peer, why.as_ref());
                shard.discard_command(Command::<Y::Stream>::ClosePeer(peer, why));
            }
            Command::Execute(job) => shard.run(job),
            Command::Shutdown(grace) => {
                self.stop();
                self.context.shard.shut_down(grace);
            }
            Command::SumUpLog => shard.sum_up_log(),
            Command::Abort => {
                self.stop();
                self.context.shard.cut();
            }
            Command::Dial(dial) => self.take_dial(sys, dial),
            Command::Found(name, found) => self.note_found(sys, &name, &found),
            Command::HangUp(dial) => self.hang_up(dial),
            // Nothing here accepts.
            Command::Adopt(_) => {}
        }
        None
    }

    /// Passes a packet on to many sessions. Returns what is left.
    fn fan_out(&mut self, sys: &mut Y, fan_out: Box<FanOut>) -> Option<Box<FanOut>> {
        let port = &mut self.port;
        self.context.shard.fan_out(fan_out, |access, fan_out| {
            access.take_from(fan_out);
            port.transmit(sys, access);
        })
    }

    /// Sessions were served: the port learns which have ended, and streams may have something to send.
    fn after_serving(&mut self) {
        self.context.close_ended(&mut self.port);
        if self.port.has_to_carry() {
            self.context.shard.outgoing().note_carrying();
        }
    }

    /// Takes what callbacks have posted to this shard since it last did.
    fn take_local(&mut self) {
        if take_local(&mut self.commands) {
            self.mailbox.note_leftover(true);
        }
    }

    fn stop(&mut self) {
        self.port.stop(self.context.began, self.context.shard.counters());
        self.stop_dialling();
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
            if self.context.shard.clock().is_part_over() {
                break;
            }
        }
        self.mailbox.note_leftover(!self.commands.is_empty());
    }

    fn expire(&mut self, sys: &mut Y) {
        self.context.shard.take_due(&mut self.due);
        if self.due.is_empty() {
            return;
        }
        self.begin_part(TIMER_SHARE);
        let hidden = self.port.hides_input(self.context.began);
        while let Some(fired) = self.due.pop() {
            match self.context.shard.handle_timer(fired) {
                Some(TimerAction::Judge(key)) => {
                    self.visit(sys, key, |access| {
                        access.judge_unless(hidden);
                    });
                    self.context.note_served(key);
                }
                Some(TimerAction::Write(key)) => {
                    self.write(sys, key);
                    self.context.note_served(key);
                }
                Some(TimerAction::Dials) => self.dial(sys),
                Some(TimerAction::Dial(number, timer)) => self.expire_dial(sys, number, timer),
                None => {}
            }
            if self.context.shard.clock().is_part_over() {
                break;
            }
        }
    }

    fn flush(&mut self, sys: &mut Y) {
        self.context.shard.take_dirty(&mut self.dirty);
        self.begin_part(WRITE_SHARE);
        while let Some(key) = self.port.next_waiting() {
            self.visit(sys, key, |access| {
                access.handle_writable();
            });
            if self.context.shard.clock().is_part_over() {
                return;
            }
        }
        while let Some(key) = self.dirty.pop_front() {
            self.write(sys, key);
            if self.context.shard.clock().is_part_over() {
                break;
            }
        }
    }
}

impl<Y: Sys, H: PacketHandler + 'static, P: Port<Y, H>> Dialling<Y> for PacketLoop<Y, H, P> {
    type Handler = H;
    type Framing = LengthPrefix;
    type Connect = P::Connect;

    fn shard_mut(&mut self) -> &mut Shard<H, LengthPrefix, P::Io> {
        &mut self.context.shard
    }

    fn connector_mut(&mut self) -> &mut Connector<Y, P::Connect> {
        &mut self.connector
    }

    fn place_dial(&mut self, dial: Box<NewDial>) -> PlacedDial {
        self.port.place_dial(dial, self.context.shard.counters())
    }

    fn adopt_dialled(
        &mut self,
        sys: &mut Y,
        number: u32,
        connected: Connected<P::Io>,
    ) -> Result<(), DialError> {
        let key = self.port.adopt_dialled(&mut self.context, sys, connected)?;
        self.connector.note_session(number, key);
        Ok(())
    }
}

impl<Y: Sys, H: PacketHandler + 'static, P: Port<Y, H>> Service<Y> for PacketLoop<Y, H, P> {
    fn shard(&self) -> ShardId {
        self.context.shard.id()
    }

    fn start(&mut self) -> Result<(), CloseReason> {
        self.context.shard.start()
    }

    fn judge_last_turn(&mut self) {
        let PortContext { shard, began, .. } = &mut self.context;
        // The clock never goes back.
        let took = shard.clock().read().wrapping_sub(*began);
        if shard.clock().is_outdated() {
            self.context.restamp();
        }
        self.context.served.clear();
        let shard = &mut self.context.shard;
        if took > SLOW_TURN {
            shard.note_slow_turn(took);
        }
        shard.note_turn();
    }

    fn poll_deadline(&mut self) -> (Tick, Option<Tick>) {
        let now = self.context.shard.clock().now();
        if self.has_work() {
            return (now, Some(0));
        }
        let deadlines = [self.port.deadline(), self.context.shard.poll_deadline()];
        (now, deadlines.into_iter().flatten().min())
    }

    fn fall_asleep(&self) -> bool {
        self.mailbox.fall_asleep()
    }

    fn wake_up(&mut self, expected: Option<Tick>) {
        self.mailbox.wake_up();
        self.context.began = self.context.shard.clock().wake(expected);
        self.context.shard.begin_watching();
    }

    fn ready(&mut self) -> &mut Vec<Ready> {
        &mut self.ready
    }

    fn is_busy(&self) -> bool {
        !self.ready.is_empty() || self.has_work()
    }

    fn run(&mut self, step: Step, busy: Tick, sys: &mut Y, buffer: &mut ReceiveBuffer) {
        self.busy = busy;
        if busy > 1 || self.context.shard.clock().is_watched() {
            self.context.shard.pass_over();
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
        self.after_serving();
    }

    fn outgoing(&mut self) -> &mut Effects {
        self.context.shard.outgoing()
    }

    fn apply(&mut self, effect: Effect, packet: &mut [u8]) {
        match effect {
            Effect::Stream { carrier, about, .. } => {
                if self.context.shard.clock().is_watched() {
                    self.context.shard.pass_over();
                }
                let _turn = LocalTurn::begin(&self.mailbox);
                self.port.handle_carrier(&mut self.context, carrier, about, packet);
                self.take_local();
                self.after_serving();
            }
            effect => self.context.shard.apply(effect, packet),
        }
    }

    fn carry_out(&mut self, carriers: &mut Carriers<'_, Y>) {
        self.port.carry_out(&mut self.context, carriers);
        self.after_serving();
    }

    fn carry(&mut self, carrier: SessionId, write: &mut dyn FnMut(&mut dyn Carry)) -> bool {
        self.context.shard.carry(carrier, write)
    }

    fn end_turn(&mut self, _sys: &mut Y) -> io::Result<Flow> {
        self.context.close_ended(&mut self.port);
        let shard = &mut self.context.shard;
        self.port.end_turn(shard);
        shard.counters().mailbox = self.commands.len() as u64;
        shard.end_turn();
        let is_over = shard.is_finished() && !self.port.is_carrying();
        Ok(if is_over { Flow::Stop } else { Flow::Continue })
    }

    fn finish(mut self: Box<Self>, _sys: &mut Y) -> Effects {
        self.stop();
        self.context.shard.cut();
        self.commands.extend(self.mailbox.close());
        for command in std::mem::take(&mut self.commands) {
            self.context.shard.give_up(command);
        }
        self.context.close_ended(&mut self.port);
        let Self { context: PortContext { mut shard, .. }, port, .. } = *self;
        drop(port);
        shard.counters().mailbox = 0;
        shard.end_turn();
        let left = std::mem::take(shard.outgoing());
        shard.end();
        left
    }
}
