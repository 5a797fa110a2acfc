use std::{collections::VecDeque, io, net::SocketAddr};

use super::{
    DatagramConfig, Gate, PacketLoop, Ready, Sys,
    connector::Connected,
    datagram_dials::Datagrams,
    own_socket::{self, Left, OwnSocket, PeerOf},
    placing::PlacedDial,
    port::{Port, PortAccess, PortContext},
    shared_socket::{SharedSocket, transmit},
    token::{listener_of, listener_token, session_of, session_token},
};
use crate::{
    addr::{Addr, Endpoints},
    buffer::ReceiveBuffer,
    dial::NewDial,
    error::{DialError, RefusalCause},
    framing::LengthPrefix,
    handler::PacketHandler,
    id::Key,
    metrics::Counters,
    shard::{Ended, Incoming, Peer, Shard, Via},
    sync::AdmissionPermit,
    time::Tick,
};

/// Datagrams that are read from one socket in one turn; the rest waits for the next, behind timers and commands.
const DATAGRAMS_PER_TURN: usize = 256;
/// Datagrams that are read in one visit of a session that has a socket of its own.
const DATAGRAMS_PER_VISIT: usize = 64;
/// After so long in which the sockets were never read to their end, a peer that has not been heard is taken for silent:
/// what was sent so long ago was read or dropped (milliseconds).
const FLOODED: Tick = 1000;

/// The sockets that the peers of a shard share: it reads each for all of them. A peer that was dialled may have one to
/// itself.
///
/// ```text
/// socket → recv_from → Peers (address → session) → session → on_packet → outbox → send_to → socket
/// ```
pub(crate) struct DatagramPort<Y: Sys> {
    /// The number of its service on the thread, which its tokens carry.
    number: u8,
    sockets: Vec<SharedSocket<Y>>,
    gate: Gate,
    longest: usize,
    most_waiting: usize,
    /// The sessions whose own sockets have events, each once.
    signalled: VecDeque<Key>,
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
        let DatagramConfig { number, gate, connector, longest, most_waiting, shard, mailbox, .. } = config;
        let (signalled, unread_since) = (VecDeque::new(), None);
        let port = Self { number, sockets, gate, longest, most_waiting, signalled, unread_since };
        Ok(PacketLoop::new(shard, port, connector, mailbox))
    }

    fn read_socket<H: PacketHandler>(
        &mut self,
        context: &mut PortContext<H, PeerOf<Y>>,
        sys: &mut Y,
        buffer: &mut ReceiveBuffer,
        at: usize,
    ) {
        buffer.open_wide();
        for _ in 0..DATAGRAMS_PER_TURN {
            let Some(socket) = self.sockets.get_mut(at) else { return };
            socket.rests_until.take_if(|until| *until <= context.began);
            if !socket.is_to_be_read() {
                return;
            }
            match sys.recv_from(&mut socket.io, buffer.space()) {
                Ok((n, from)) => {
                    socket.failures = 0;
                    self.handle_datagram(context, sys, buffer, at, n, from);
                }
                Err(error) => socket.handle_failure(&error, context.began),
            }
            if context.shard.clock().is_part_over() {
                return;
            }
        }
    }

    /// The own socket of a session has an event.
    fn signal<H: PacketHandler>(&mut self, event: &Ready, shard: &mut Shard<H, LengthPrefix, PeerOf<Y>>) {
        let key = session_of(event.token);
        let Some(Peer { via: Via::Own(own), .. }) = shard.io(key) else {
            shard.counters().stale_events += 1;
            return;
        };
        if own.note(event) {
            self.signalled.push_back(key);
        }
    }

    /// Reads the own sockets of sessions, each up to a limit.
    fn read_signalled<H: PacketHandler>(
        &mut self,
        context: &mut PortContext<H, PeerOf<Y>>,
        sys: &mut Y,
        buffer: &mut ReceiveBuffer,
    ) {
        buffer.open_wide();
        for _ in 0..self.signalled.len() {
            let Some(key) = self.signalled.pop_front() else { break };
            if self.serve_own(context, sys, buffer, key) == Left::More
                && context.shard.io(key).is_some_and(OwnSocket::list_again)
            {
                self.signalled.push_back(key);
            }
            if context.shard.clock().is_part_over() {
                break;
            }
        }
    }

    /// Serves a session that has a socket of its own.
    fn serve_own<H: PacketHandler>(
        &mut self,
        context: &mut PortContext<H, PeerOf<Y>>,
        sys: &mut Y,
        buffer: &mut ReceiveBuffer,
        key: Key,
    ) -> Left {
        let (longest, most) = (self.longest, self.most_waiting);
        let mut left = Left::More;
        for _ in 0..DATAGRAMS_PER_VISIT {
            let served = context
                .shard
                .with_session(key, |access| own_socket::serve(sys, buffer, longest, most, access));
            left = served.unwrap_or(Left::Nothing);
            if left == Left::Nothing || context.shard.clock().is_part_over() {
                break;
            }
        }
        context.note_served(key);
        left
    }

    /// Hands a datagram of `n` bytes to the session of its peer, a new one if need be, and sends what follows from it.
    #[inline]
    fn handle_datagram<H: PacketHandler>(
        &mut self,
        context: &mut PortContext<H, PeerOf<Y>>,
        sys: &mut Y,
        buffer: &mut ReceiveBuffer,
        at: usize,
        n: usize,
        from: SocketAddr,
    ) {
        if n > self.longest || n > buffer.space().len() {
            return context.shard.refuse_datagram(from, n, self.longest);
        }
        let known = self.sockets.get_mut(at).and_then(|socket| socket.peers.find(from));
        let known = known.filter(|key| context.shard.has(*key));
        let Some(key) = known.or_else(|| self.begin_session(context, at, from)) else { return };
        let Some(socket) = self.sockets.get_mut(at) else { return };
        let most = self.most_waiting;
        context.shard.with_session(key, |access| {
            access.handle_datagram(buffer, n);
            transmit(sys, socket, access, most);
        });
        context.note_served(key);
    }

    /// Opens a session for a peer from which the first datagram has come.
    #[cold]
    fn begin_session<H: PacketHandler>(
        &mut self,
        context: &mut PortContext<H, PeerOf<Y>>,
        at: usize,
        from: SocketAddr,
    ) -> Option<Key> {
        let permit = match self.admit(context, from) {
            Ok(permit) => permit,
            Err(cause) => {
                context.shard.refuse_peer(from, cause);
                return None;
            }
        };
        let socket = self.sockets.get_mut(at)?;
        let endpoints = Endpoints::new(Addr::Ip(from), socket.local.clone(), at);
        let io = Peer { addr: from, via: Via::Shared(at as u16) };
        context.shard.counters().accepted += 1;
        let key = context.shard.insert(Incoming { io, endpoints, permit })?;
        socket.peers.insert(from, key);
        context.shard.with_session(key, |access| access.open());
        Some(key)
    }

    fn admit<H: PacketHandler>(
        &mut self,
        context: &mut PortContext<H, PeerOf<Y>>,
        from: SocketAddr,
    ) -> Result<AdmissionPermit, RefusalCause> {
        if context.shard.is_stopping() {
            return Err(RefusalCause::Shutdown);
        }
        match self.gate.admit(from) {
            Err(RefusalCause::Full) => {
                let idlest = self.gate.choose(&context.shard).ok_or(RefusalCause::Full)?;
                context.shard.forget_peer(idlest);
                context.close_ended(self);
                self.gate.admit(from)
            }
            admitted => admitted,
        }
    }
}

impl<Y: Sys, H: PacketHandler> Port<Y, H> for DatagramPort<Y> {
    type Io = PeerOf<Y>;
    type Connect = Datagrams;

    fn take_events(&mut self, events: &[Ready], shard: &mut Shard<H, LengthPrefix, PeerOf<Y>>) {
        for event in events {
            let Some(socket) = listener_of(event.token).and_then(|at| self.sockets.get_mut(at)) else {
                self.signal(event, shard);
                continue;
            };
            // Reading takes a pending error, too.
            socket.is_readable |= event.readable || event.error || event.hangup;
            socket.is_blocked &= !event.writable;
        }
    }

    /// Reads each socket, a part of what it has at most: those of single sessions first, then the others.
    fn read(
        &mut self,
        context: &mut PortContext<H, PeerOf<Y>>,
        share: Tick,
        sys: &mut Y,
        buffer: &mut ReceiveBuffer,
    ) {
        if !self.signalled.is_empty() {
            context.shard.clock().begin_part(share);
            self.read_signalled(context, sys, buffer);
        }
        let share = share / self.sockets.len().max(1) as Tick;
        for at in 0..self.sockets.len() {
            context.shard.clock().begin_part(share.max(1));
            self.read_socket(context, sys, buffer, at);
        }
        let unread = !self.signalled.is_empty() || self.sockets.iter().any(SharedSocket::is_to_be_read);
        self.unread_since = unread.then(|| self.unread_since.unwrap_or(context.began));
    }

    #[inline]
    fn transmit(&mut self, sys: &mut Y, access: &mut PortAccess<'_, H, PeerOf<Y>>) {
        let Via::Shared(at) = access.io().via else {
            return own_socket::transmit(sys, access, self.most_waiting);
        };
        if let Some(socket) = self.sockets.get_mut(usize::from(at)) {
            transmit(sys, socket, access, self.most_waiting);
        }
    }

    fn next_waiting(&mut self) -> Option<Key> {
        self.sockets.iter_mut().find_map(SharedSocket::next_waiting)
    }

    fn has_work(&self) -> bool {
        let is_busy = |socket: &SharedSocket<Y>| socket.is_to_be_read() || socket.is_to_be_written();
        !self.signalled.is_empty() || self.sockets.iter().any(is_busy)
    }

    fn deadline(&self) -> Option<Tick> {
        self.sockets.iter().filter_map(|socket| socket.rests_until).min()
    }

    fn hides_input(&self, now: Tick) -> bool {
        self.unread_since.is_some_and(|since| now < since + FLOODED)
    }

    fn place_dial(&mut self, dial: Box<NewDial>, counters: &mut Counters) -> PlacedDial {
        self.gate.place_dial(dial, counters)
    }

    fn adopt_dialled(
        &mut self,
        context: &mut PortContext<H, PeerOf<Y>>,
        sys: &mut Y,
        connected: Connected<PeerOf<Y>>,
    ) -> Result<Key, DialError> {
        let Connected { incoming, dial, .. } = connected;
        let addr = incoming.io.addr;
        let shared = match incoming.io.via {
            Via::Shared(at) => Some(usize::from(at)),
            Via::Own(_) => None,
        };
        let known = shared.and_then(|at| self.sockets.get_mut(at)?.peers.find(addr));
        if known.is_some_and(|key| context.shard.has(key)) {
            return Err(DialError::Known { addr: Addr::Ip(addr) });
        }
        let key = context.shard.insert_dialled(incoming, &dial)?;
        if let Some(socket) = shared.and_then(|at| self.sockets.get_mut(at)) {
            socket.peers.insert(addr, key);
        }
        let token = session_token(self.number, key);
        context.shard.with_session(key, |access| {
            let registered = match &mut access.io().via {
                Via::Shared(_) => Ok(()),
                Via::Own(own) => own.register(sys, token),
            };
            match registered {
                Ok(()) => access.open(),
                Err(error) => access.refuse(error),
            }
        });
        context.note_served(key);
        Ok(key)
    }

    fn forget(&mut self, ended: Ended<PeerOf<Y>>, shard: &Shard<H, LengthPrefix, PeerOf<Y>>) {
        let Ended { io: Peer { addr, via }, permit, .. } = ended;
        let shared = if let Via::Shared(at) = via { self.sockets.get_mut(usize::from(at)) } else { None };
        if let Some(socket) = shared {
            socket.peers.remove(addr, |key| shard.has(key));
        }
        // Closed first, if it is its own: who sees that the session has left the counts finds its descriptor free.
        drop(via);
        drop(permit);
    }

    fn end_turn(&mut self, shard: &Shard<H, LengthPrefix, PeerOf<Y>>) {
        for socket in &mut self.sockets {
            socket.prune(shard.len(), |key| shard.has(key));
        }
    }

    fn stop(&mut self, now: Tick, counters: &mut Counters) {
        self.gate.stop(now, counters);
    }
}
