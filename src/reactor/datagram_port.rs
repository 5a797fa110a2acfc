use std::{io, net::SocketAddr};

use super::{
    DatagramConfig, Gate, PacketLoop, Ready, Sys,
    packet_loop::{Desk, Port, Visit},
    shared_socket::{SharedSocket, transmit},
    token::{listener_of, listener_token},
};
use crate::{
    addr::{Addr, Endpoints},
    buffer::ReceiveBuffer,
    error::RefusalCause,
    framing::LengthPrefix,
    handler::PacketHandler,
    id::Key,
    metrics::Counters,
    shard::{Ended, Incoming, Peer, Shard},
    sync::AdmissionPermit,
    time::Tick,
};

/// Datagrams that are read from one socket in one turn; the rest waits for the next, behind timers and commands.
const DATAGRAMS_PER_TURN: usize = 256;
/// After so long in which the sockets were never read to their end, a peer that has not been heard is taken for silent:
/// what was sent so long ago was read or dropped (milliseconds).
const FLOODED: Tick = 1000;

/// The sockets that the peers of a shard share: it reads each for all of them.
///
/// ```text
/// socket → recv_from → Peers (address → session) → session → on_packet → outbox → send_to → socket
/// ```
pub(crate) struct DatagramPort<Y: Sys> {
    sockets: Vec<SharedSocket<Y>>,
    gate: Gate,
    longest: usize,
    most_waiting: usize,
    /// Since when some socket was not read to its end.
    unread_since: Option<Tick>,
}

impl<Y: Sys> DatagramPort<Y> {
    /// Makes a service of these sockets, and registers them.
    pub(crate) fn serve<H: PacketHandler + 'static>(
        sys: &mut Y,
        config: DatagramConfig<Y, H>,
    ) -> io::Result<Box<PacketLoop<Y, H, Self>>> {
        let mut sockets = Vec::new();
        for (number, (mut io, local)) in config.sockets.into_iter().enumerate() {
            sys.register_datagrams(&mut io, listener_token(config.number, number))?;
            sockets.push(SharedSocket::new(io, local));
        }
        let DatagramConfig { gate, longest, most_waiting, shard, mailbox, .. } = config;
        Ok(PacketLoop::new(shard, Self { sockets, gate, longest, most_waiting, unread_since: None }, mailbox))
    }

    fn read_socket<H: PacketHandler>(
        &mut self,
        desk: &mut Desk<H, Peer>,
        sys: &mut Y,
        buffer: &mut ReceiveBuffer,
        at: usize,
    ) {
        buffer.open_wide();
        for _ in 0..DATAGRAMS_PER_TURN {
            let Some(socket) = self.sockets.get_mut(at) else { return };
            socket.rests_until.take_if(|until| *until <= desk.began);
            if !socket.is_to_be_read() {
                return;
            }
            match sys.recv_from(&mut socket.io, buffer.space()) {
                Ok((n, from)) => {
                    socket.failures = 0;
                    self.handle_datagram(desk, sys, buffer, at, n, from);
                }
                Err(error) => socket.handle_failure(&error, desk.began),
            }
            if desk.shard.clock().is_part_over() {
                return;
            }
        }
    }

    /// Hands a datagram of `n` bytes to the session of its peer, a new one if need be, and sends what follows from it.
    #[inline]
    fn handle_datagram<H: PacketHandler>(
        &mut self,
        desk: &mut Desk<H, Peer>,
        sys: &mut Y,
        buffer: &mut ReceiveBuffer,
        at: usize,
        n: usize,
        from: SocketAddr,
    ) {
        if n > self.longest || n > buffer.space().len() {
            return desk.shard.refuse_datagram(from, n, self.longest);
        }
        let known = self.sockets.get_mut(at).and_then(|socket| socket.peers.find(from));
        let known = known.filter(|key| desk.shard.has(*key));
        let Some(key) = known.or_else(|| self.begin_session(desk, at, from)) else { return };
        let Some(socket) = self.sockets.get_mut(at) else { return };
        let most = self.most_waiting;
        desk.shard.with_session(key, |access| {
            access.handle_datagram(buffer, n);
            transmit(sys, socket, access, most);
        });
        desk.note_served(key);
    }

    /// Opens a session for a peer from which the first datagram has come.
    #[cold]
    fn begin_session<H: PacketHandler>(
        &mut self,
        desk: &mut Desk<H, Peer>,
        at: usize,
        from: SocketAddr,
    ) -> Option<Key> {
        let permit = match self.admit(desk, from) {
            Ok(permit) => permit,
            Err(cause) => {
                desk.shard.refuse_peer(from, cause);
                return None;
            }
        };
        let socket = self.sockets.get_mut(at)?;
        let endpoints = Endpoints::new(Addr::Ip(from), socket.local.clone(), at);
        let io = Peer { addr: from, socket: at as u16 };
        desk.shard.counters().accepted += 1;
        let key = desk.shard.insert(Incoming { io, endpoints, permit })?;
        socket.peers.insert(from, key);
        desk.shard.with_session(key, |access| access.open());
        Some(key)
    }

    fn admit<H: PacketHandler>(
        &mut self,
        desk: &mut Desk<H, Peer>,
        from: SocketAddr,
    ) -> Result<AdmissionPermit, RefusalCause> {
        if desk.shard.is_stopping() {
            return Err(RefusalCause::Shutdown);
        }
        match self.gate.admit(from) {
            Err(RefusalCause::Full) => {
                let idlest = self.gate.choose(&desk.shard).ok_or(RefusalCause::Full)?;
                desk.shard.forget_peer(idlest);
                desk.close_ended(self);
                self.gate.admit(from)
            }
            admitted => admitted,
        }
    }
}

impl<Y: Sys, H: PacketHandler> Port<Y, H> for DatagramPort<Y> {
    type Io = Peer;

    fn take_events(&mut self, events: &[Ready], counters: &mut Counters) {
        for event in events {
            let Some(socket) = listener_of(event.token).and_then(|at| self.sockets.get_mut(at)) else {
                counters.stale_events += 1;
                continue;
            };
            // Reading takes a pending error, too.
            socket.is_readable |= event.readable || event.error || event.hangup;
            socket.is_blocked &= !event.writable;
        }
    }

    /// Reads each socket, a part of what it has at most.
    fn read(&mut self, desk: &mut Desk<H, Peer>, share: Tick, sys: &mut Y, buffer: &mut ReceiveBuffer) {
        let share = share / self.sockets.len().max(1) as Tick;
        for at in 0..self.sockets.len() {
            desk.shard.clock().begin_part(share.max(1));
            self.read_socket(desk, sys, buffer, at);
        }
        let unread = self.sockets.iter().any(SharedSocket::is_to_be_read);
        self.unread_since = unread.then(|| self.unread_since.unwrap_or(desk.began));
    }

    #[inline]
    fn transmit(&mut self, sys: &mut Y, access: &mut Visit<'_, H, Peer>) {
        let Some(socket) = self.sockets.get_mut(usize::from(access.io().socket)) else { return };
        transmit(sys, socket, access, self.most_waiting);
    }

    fn next_waiting(&mut self) -> Option<Key> {
        self.sockets.iter_mut().find_map(SharedSocket::next_waiting)
    }

    fn has_work(&self) -> bool {
        self.sockets.iter().any(|socket| socket.is_to_be_read() || socket.is_to_be_written())
    }

    fn deadline(&self) -> Option<Tick> {
        self.sockets.iter().filter_map(|socket| socket.rests_until).min()
    }

    fn hides_input(&self, now: Tick) -> bool {
        self.unread_since.is_some_and(|since| now < since + FLOODED)
    }

    fn forget(&mut self, ended: Ended<Peer>, shard: &Shard<H, LengthPrefix, Peer>) {
        let Peer { addr, socket } = ended.io;
        if let Some(socket) = self.sockets.get_mut(usize::from(socket)) {
            socket.peers.remove(addr, |key| shard.has(key));
        }
    }

    fn end_turn(&mut self, shard: &Shard<H, LengthPrefix, Peer>) {
        for socket in &mut self.sockets {
            socket.prune(shard.len(), |key| shard.has(key));
        }
    }

    fn stop(&mut self, now: Tick, counters: &mut Counters) {
        self.gate.stop(now, counters);
    }
}
