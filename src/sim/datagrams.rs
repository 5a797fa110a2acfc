//! Datagram sockets: what the clients send and get, and what the network does to it on the way.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
};

use super::{
    Answer, Call, Net, Network, Probe, Setup, SimFd, SimSys, World,
    faults::{errno, error},
    network::What,
    platform::Probes,
};
use crate::{
    addr::Addr,
    contained::Contained,
    error::ServeError,
    reactor::Ready,
    runtime::{DatagramParts, Intake},
    shard::Beyond,
};

/// A datagram socket of the server.
#[derive(Default)]
pub(super) struct DatagramQueue {
    /// What has come, and from whom.
    pub(super) queue: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Errors that the next calls find, one each.
    pub(super) errors: VecDeque<i32>,
    /// The send buffer is full.
    pub(super) is_jammed: bool,
    /// Its peer, if it is connected to one.
    peer: Option<SocketAddr>,
}

impl DatagramQueue {
    pub(super) fn readiness(&self, token: u64) -> Option<Ready> {
        let error = !self.errors.is_empty();
        let (readable, writable) = (error || !self.queue.is_empty(), !self.is_jammed);
        (readable || writable).then_some(Ready { token, readable, writable, hangup: false, error })
    }
}

/// What clients have got, by their addresses.
pub(super) type DeliveredDatagrams = BTreeMap<SocketAddr, VecDeque<Vec<u8>>>;

impl Network {
    /// A datagram socket. All have one address, and a client always reaches the same of them.
    pub(crate) fn datagrams(&self) -> (SimFd, Addr) {
        let number = self.lock().open(What::Datagrams(Box::default())).expect("a descriptor");
        (SimSys::descriptor(self, number), super::sim_sys::local())
    }
}

impl Net {
    /// A client sends a datagram to one of these sockets, by the hash of its address.
    pub(crate) fn throw(&mut self, sockets: &[usize], from: SocketAddr, datagram: &[u8]) {
        let socket = sockets[usize::from(from.port()) % sockets.len()];
        if self.rng.chance(self.faults.lose) {
            return;
        }
        let (early, twice) = (self.rng.chance(self.faults.overtake), self.rng.chance(self.faults.repeat));
        let refused = self.rng.chance(self.faults.refuse);
        if self.peer_of(socket).is_some_and(|peer| peer != from) {
            return;
        }
        let Some(What::Datagrams(waiting)) =
            self.fds.get_mut(socket).and_then(Option::as_mut).map(|fd| &mut fd.what)
        else {
            return;
        };
        for _ in 0..=u32::from(twice) {
            let thrown = (from, datagram.to_vec());
            if early { waiting.queue.push_front(thrown) } else { waiting.queue.push_back(thrown) }
        }
        if refused {
            waiting.errors.push_back(errno::ECONNREFUSED);
        }
        self.edge(socket);
    }

    /// Takes what a client has got.
    pub(crate) fn caught(&mut self, client: SocketAddr) -> Vec<Vec<u8>> {
        self.delivered.get_mut(&client).map(|datagrams| datagrams.drain(..).collect()).unwrap_or_default()
    }

    /// Fills the send buffer of a socket, or empties it.
    pub(crate) fn jam(&mut self, socket: usize, is_jammed: bool) {
        self.datagram_queue(socket).is_jammed = is_jammed;
        if !is_jammed {
            self.edge(socket);
        }
    }

    /// Lets the next call to receive find an error.
    pub(crate) fn fail_receiving(&mut self, socket: usize, errno: i32) {
        self.datagram_queue(socket).errors.push_back(errno);
        self.edge(socket);
    }

    /// Datagrams that the server has not read yet.
    pub(crate) fn unread_datagrams(&self) -> usize {
        let waiting = self.fds.iter().flatten().map(|fd| match &fd.what {
            What::Datagrams(socket) => socket.queue.len(),
            _ => 0,
        });
        waiting.sum()
    }

    fn datagram_queue(&mut self, fd: usize) -> &mut DatagramQueue {
        match self.fds.get_mut(fd).and_then(Option::as_mut).map(|fd| &mut fd.what) {
            Some(What::Datagrams(socket)) => socket,
            _ => panic!("EBADF: descriptor {fd} takes no datagrams"),
        }
    }

    /// Returns the peer to which a socket is connected.
    fn peer_of(&self, fd: usize) -> Option<SocketAddr> {
        match self.fds.get(fd).and_then(Option::as_ref).map(|fd| &fd.what) {
            Some(What::Datagrams(socket)) => socket.peer,
            _ => None,
        }
    }

    /// Returns the sockets that are connected to this peer.
    pub(crate) fn sockets_to(&self, peer: SocketAddr) -> Vec<usize> {
        (0..self.fds.len()).filter(|fd| self.peer_of(*fd) == Some(peer)).collect()
    }

    /// Where connections are refused in any other way than because nobody listens, there is no route.
    pub(super) fn connect_datagrams(&mut self, to: SocketAddr) -> io::Result<(usize, Addr)> {
        self.begin(Call::Connect)?;
        match self.far_ends.get(&Addr::Ip(to)) {
            Some((Answer::Refuse(why), _)) if *why != errno::ECONNREFUSED => return Err(error(*why)),
            _ => {}
        }
        let fd = self
            .open(What::Datagrams(Box::new(DatagramQueue { peer: Some(to), ..DatagramQueue::default() })));
        let fd = fd.map_err(error)?;
        self.progress += 1;
        Ok((fd, Addr::Ip(([10, 0, 0, 1], 40_000 + fd as u16).into())))
    }

    /// A datagram was sent to a peer that refuses it: the socket is told, if it is still there.
    fn report_refusal(&mut self, fd: usize, peer: SocketAddr) {
        if self.peer_of(fd) == Some(peer) {
            self.fail_receiving(fd, errno::ECONNREFUSED);
        }
    }

    pub(super) fn recv_from(&mut self, fd: usize, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.begin_call(Call::Recv, fd)?;
        self.progress += 1;
        let socket = self.datagram_queue(fd);
        if let Some(failed) = socket.errors.pop_front() {
            return Err(error(failed));
        }
        let Some((from, datagram)) = socket.queue.pop_front() else { return Err(error(errno::EAGAIN)) };
        // What does not fit is lost.
        into.iter_mut().zip(&datagram).for_each(|(to, byte)| *to = *byte);
        Ok((datagram.len(), from))
    }

    pub(super) fn send_to(&mut self, fd: usize, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.begin_call(Call::Send, fd)?;
        let peer = self.peer_of(fd);
        let socket = self.datagram_queue(fd);
        if peer.is_some() {
            if let Some(failed) = socket.errors.pop_front() {
                return Err(error(failed));
            }
        }
        if socket.is_jammed {
            return Err(error(errno::EAGAIN));
        }
        if datagram.len() > self.sizes.datagram {
            return Err(error(errno::EMSGSIZE));
        }
        self.progress += 1;
        let answer = self.far_ends.get(&Addr::Ip(to)).copied();
        if let (Some(peer), Some((Answer::Refuse(_), after))) = (peer, answer) {
            let due = self.now + after;
            self.at(due, move |net| net.report_refusal(fd, peer));
            return Ok(());
        }
        if !self.rng.chance(self.faults.lose) {
            self.delivered.entry(to).or_default().push_back(datagram.to_vec());
        }
        Ok(())
    }

    /// An injected "would block" is followed by an event.
    fn begin_call(&mut self, call: Call, fd: usize) -> io::Result<()> {
        let begun = self.begin(call);
        if begun.as_ref().is_err_and(|failed| failed.kind() == io::ErrorKind::WouldBlock) {
            self.edge(fd);
        }
        begun
    }
}

impl World {
    pub(super) fn start_datagrams(
        &mut self,
        setup: &Setup,
        beyond: Beyond,
        factory: Contained<Probes>,
    ) -> Result<(), ServeError> {
        let one_each = |_| (0..setup.listeners).map(|_| self.network.datagrams()).collect();
        let sockets: Vec<Vec<_>> = (0..setup.workers.max(1)).map(one_each).collect();
        self.listeners.extend(sockets.iter().flatten().map(|(fd, _)| fd.number));
        let strategy = Contained::new(setup.strategy(&self.network));
        let intake = Intake { longest: setup.limits.frame, peers_per_shard: usize::MAX, beyond };
        let registry = self.registry.clone();
        let service = DatagramParts::<_, Probe, _>::new(registry, factory, strategy, sockets, intake);
        self.start_service(setup, Box::new(service))
    }

    /// Datagrams of a client, to the server.
    pub(crate) fn throw(&self, from: SocketAddr, datagrams: &[&[u8]]) {
        let mut net = self.net();
        for datagram in datagrams {
            net.throw(&self.listeners, from, datagram);
        }
    }

    pub(crate) fn caught(&self, client: SocketAddr) -> Vec<Vec<u8>> {
        self.net().caught(client)
    }
}
