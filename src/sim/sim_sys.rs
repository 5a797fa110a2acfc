use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use super::{
    Call, Conn, Freeze, Net, Network,
    epoll::{Epoll, Registration},
    faults::{errno, error},
    network::What,
};
use crate::{
    addr::Addr,
    reactor::{Connecting, Ready, SocketOptions, Sys},
    strategy::DetachedSocket,
    sync::Wake,
    time::{Clock, Nanos, Tick},
};

/// The simulated world as one event loop sees it.
pub(crate) struct SimSys {
    network: Network,
    epoll: usize,
}

/// A descriptor of the simulated process; closed when it is dropped.
pub(crate) struct SimFd {
    network: Network,
    pub(crate) number: usize,
}

impl Drop for SimFd {
    fn drop(&mut self) {
        self.network.lock().close(self.number);
    }
}

struct SimWaker {
    network: Network,
    epoll: usize,
}

impl Wake for SimWaker {
    fn wake(&self) -> io::Result<()> {
        self.network.lock().epolls[self.epoll].woken = true;
        Ok(())
    }
}

impl Drop for SimSys {
    fn drop(&mut self) {
        self.network.lock().epolls[self.epoll].close();
    }
}

impl SimSys {
    /// The number of its poll.
    pub(super) fn epoll(&self) -> usize {
        self.epoll
    }

    /// Also returns what wakes it.
    pub(crate) fn new(network: &Network) -> (Self, Arc<dyn Wake>) {
        let mut net = network.lock();
        net.epolls.push(Epoll::default());
        let epoll = net.epolls.len() - 1;
        drop(net);
        (Self { network: network.clone(), epoll }, Arc::new(SimWaker { network: network.clone(), epoll }))
    }

    pub(crate) fn listen(&self) -> (SimFd, Addr) {
        self.network.listen()
    }

    fn fd(&self, number: usize) -> SimFd {
        Self::descriptor(&self.network, number)
    }

    pub(super) fn descriptor(network: &Network, number: usize) -> SimFd {
        SimFd { network: network.clone(), number }
    }
}

impl Network {
    /// A listener. All have one address.
    pub(crate) fn listen(&self) -> (SimFd, Addr) {
        let number = self.lock().open(What::Listener(Default::default())).expect("a descriptor");
        (SimFd { network: self.clone(), number }, local())
    }
}

pub(super) fn local() -> Addr {
    Addr::Ip(SocketAddr::from(([10, 0, 0, 1], 7000)))
}

/// The clock of the simulated network, which a callback may move.
struct VirtualClock {
    network: Network,
    epoll: usize,
}

impl Clock for VirtualClock {
    fn since_origin(&self) -> Nanos {
        let net = self.network.lock();
        net.epolls[self.epoll].asleep_since.unwrap_or(net.now) * 1_000_000
    }

    /// None, for deadlines to the millisecond, but where a test is about it.
    fn slack(&self) -> Duration {
        Duration::from_millis(self.network.lock().slack)
    }
}

impl Sys for SimSys {
    type Listener = SimFd;
    type Stream = SimFd;
    type Datagrams = SimFd;
    type Spare = SimFd;

    fn clock(&self) -> Box<dyn Clock> {
        Box::new(VirtualClock { network: self.network.clone(), epoll: self.epoll })
    }

    fn poll(&mut self, ready: &mut Vec<Ready>, wait: Option<Duration>) -> io::Result<()> {
        let mut net = self.network.lock();
        let before = ready.len();
        let polled = net.poll(self.epoll, ready, wait);
        let now = net.now;
        net.note(now);
        for event in ready.iter().skip(before) {
            let bits = [event.readable, event.writable, event.hangup, event.error];
            net.note(event.token);
            net.note(bits.into_iter().fold(0, |bits, bit| bits << 1 | u64::from(bit)));
        }
        polled
    }

    fn register(&mut self, stream: &mut SimFd, token: u64) -> io::Result<()> {
        self.network.lock().register(self.epoll, stream.number, token)
    }

    fn register_listener(&mut self, listener: &mut SimFd, token: u64) -> io::Result<()> {
        self.network.lock().register(self.epoll, listener.number, token)
    }

    fn register_datagrams(&mut self, socket: &mut SimFd, token: u64) -> io::Result<()> {
        self.network.lock().register(self.epoll, socket.number, token)
    }

    fn accept(&mut self, listener: &mut SimFd) -> io::Result<(SimFd, Addr)> {
        let accepted = self.network.lock().accept(listener.number);
        accepted.map(|(number, addr)| (self.fd(number), Addr::Ip(addr)))
    }

    fn reregister(&mut self, stream: &mut SimFd, token: u64) -> io::Result<()> {
        self.network.lock().reregister(stream.number, token)
    }

    fn connect(&mut self, addr: &Addr, _options: &SocketOptions) -> io::Result<(SimFd, Connecting)> {
        let begun = self.network.lock().connect_to(addr);
        begun.map(|(number, connecting)| (self.fd(number), connecting))
    }

    fn finish_connect(&mut self, stream: &mut SimFd) -> io::Result<Connecting> {
        self.network.lock().finish_connect(stream.number)
    }

    fn local_addr(&mut self, stream: &SimFd) -> io::Result<Addr> {
        let mut net = self.network.lock();
        net.begin(Call::LocalAddr)?;
        let conn = net.conn_of(stream.number);
        let link = net.link(conn);
        Ok(if link.dialled { Addr::Ip(link.addr) } else { local() })
    }

    fn recv(&mut self, stream: &mut SimFd, into: &mut [u8]) -> io::Result<usize> {
        let mut net = self.network.lock();
        let done = net.recv(stream.number, into);
        net.note(done.as_ref().map_or(u64::MAX, |n| *n as u64));
        done
    }

    fn send(&mut self, stream: &mut SimFd, bytes: &[u8]) -> io::Result<usize> {
        let mut net = self.network.lock();
        let done = net.send(stream.number, &mut bytes.iter());
        net.note(done.as_ref().map_or(u64::MAX, |n| *n as u64));
        done
    }

    fn send_vectored(&mut self, stream: &mut SimFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        assert!(slices.len() <= 1024, "EINVAL: {} slices", slices.len());
        let mut net = self.network.lock();
        let done = net.send(stream.number, &mut slices.iter().flat_map(|slice| slice.iter()));
        net.note(done.as_ref().map_or(u64::MAX, |n| *n as u64));
        done
    }

    fn connect_datagrams(&mut self, to: SocketAddr, _options: &SocketOptions) -> io::Result<(SimFd, Addr)> {
        let connected = self.network.lock().connect_datagrams(to);
        connected.map(|(number, addr)| (self.fd(number), addr))
    }

    fn recv_from(&mut self, socket: &mut SimFd, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let mut net = self.network.lock();
        let done = net.recv_from(socket.number, into);
        net.note(done.as_ref().map_or(u64::MAX, |(n, from)| (*n as u64) << 16 | u64::from(from.port())));
        done
    }

    fn send_to(&mut self, socket: &mut SimFd, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let mut net = self.network.lock();
        let done = net.send_to(socket.number, datagram, to);
        net.note(done.as_ref().map_or(u64::MAX, |()| datagram.len() as u64));
        done
    }

    fn shutdown_write(&mut self, stream: &mut SimFd) -> io::Result<()> {
        self.network.lock().shut_down(stream.number)
    }

    fn make_reset(&mut self, stream: &mut SimFd) {
        let mut net = self.network.lock();
        let conn = net.conn_of(stream.number);
        net.link(conn).reset_on_close = true;
    }

    fn detach(&mut self, _stream: SimFd) -> io::Result<DetachedSocket> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn take_error(&mut self, stream: &mut SimFd) -> Option<io::Error> {
        let mut net = self.network.lock();
        let conn = net.conn_of(stream.number);
        net.link(conn).error.take().map(error)
    }

    fn seed(&mut self) -> u64 {
        self.network.lock().rng.next()
    }

    fn spare(&mut self) -> io::Result<SimFd> {
        let mut net = self.network.lock();
        net.begin(Call::Spare)?;
        let number = net.open(What::Spare).map_err(error)?;
        drop(net);
        Ok(self.fd(number))
    }
}

impl Net {
    /// Counts a call, and fails it by fault.
    pub(super) fn begin(&mut self, call: Call) -> io::Result<()> {
        let fail = self.faults.fail;
        self.calls.note(call, fail)?;
        let (interruptible, blockable) = match call {
            Call::Poll => (true, false),
            Call::Recv | Call::Send | Call::Accept => (true, true),
            _ => (false, false),
        };
        if interruptible && self.rng.chance(self.faults.interrupt) {
            self.progress += 1;
            return Err(error(errno::EINTR));
        }
        if blockable && self.rng.chance(self.faults.would_block) {
            self.progress += 1;
            return Err(error(errno::EAGAIN));
        }
        Ok(())
    }

    fn poll(&mut self, epoll: usize, ready: &mut Vec<Ready>, wait: Option<Duration>) -> io::Result<()> {
        self.polls += 1;
        let called_at = self.epolls[epoll].asleep_since.take().unwrap_or(self.now);
        self.epolls[epoll].sleeps_until = None;
        self.resting = false;
        self.live();
        self.begin(Call::Poll)?;
        if let Some((Freeze::InPoll, time)) = self.freeze {
            self.freeze = None;
            self.pass(time);
            return Err(error(errno::EINTR));
        }
        let until = wait.map_or(Tick::MAX, |wait| called_at + wait.as_millis() as Tick);
        loop {
            self.live();
            self.harvest(epoll, ready);
            if !ready.is_empty() || until <= self.now {
                break;
            }
            let late = self.epolls[epoll].next_late();
            if !self.waits {
                self.epolls[epoll].sleeps_until = Some(until);
                break;
            }
            let next = [Some(until), Some(self.horizon), self.next_deed(), late].into_iter().flatten().min();
            let next = next.unwrap_or(Tick::MAX);
            if next == Tick::MAX {
                self.resting = true;
                break;
            }
            self.now = self.now.max(next);
            if next >= self.horizon {
                break;
            }
        }
        if let Some((Freeze::AfterPoll, time)) = self.freeze {
            self.freeze = None;
            self.pass(time);
        }
        if self.rng.chance(self.faults.jump) {
            let jump = self.rng.between(1, 50);
            self.pass(jump);
        }
        Ok(())
    }

    /// Lets time pass, in which the clients act.
    pub(crate) fn pass(&mut self, time: Tick) {
        let end = self.now + time;
        while let Some(next) = self.next_deed().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.live();
        }
        self.now = end;
    }

    fn register(&mut self, epoll: usize, fd: usize, token: u64) -> io::Result<()> {
        self.begin(Call::Register)?;
        let registered = self.fds.get_mut(fd).and_then(Option::as_mut);
        let descriptor = registered.ok_or_else(|| error(errno::EBADF))?;
        assert!(descriptor.registration.is_none(), "EEXIST: descriptor {fd} is registered");
        descriptor.registration = Some(Registration { epoll, token });
        self.edge(fd);
        Ok(())
    }

    fn accept(&mut self, fd: usize) -> io::Result<(usize, SocketAddr)> {
        if let Err(failed) = self.begin(Call::Accept) {
            if failed.kind() == io::ErrorKind::WouldBlock {
                self.edge(fd);
            }
            return Err(failed);
        }
        if let Some((_, errno)) = self.faults.forbidden.filter(|(listener, _)| *listener == fd) {
            return Err(error(errno));
        }
        let Some(What::Listener(queue)) = self.fds[fd].as_ref().map(|fd| &fd.what) else {
            return Err(error(errno::EBADF));
        };
        let conn = *queue.front().ok_or_else(|| error(errno::EAGAIN))?;
        let number = self.open(What::Stream(conn)).map_err(error)?;
        if let Some(What::Listener(queue)) = self.fds[fd].as_mut().map(|fd| &mut fd.what) {
            queue.pop_front();
        }
        self.progress += 1;
        self.link(conn).server = Some(number);
        Ok((number, self.link(conn).addr))
    }

    pub(super) fn conn_of(&self, fd: usize) -> Conn {
        match self.fds.get(fd).and_then(Option::as_ref).map(|fd| &fd.what) {
            Some(What::Stream(conn)) => *conn,
            _ => panic!("EBADF: descriptor {fd} is no stream"),
        }
    }

    /// Begins a transfer: an injected "would block" is followed by an event.
    fn begin_transfer(&mut self, call: Call, fd: usize) -> io::Result<Conn> {
        let conn = self.conn_of(fd);
        match self.begin(call) {
            Err(failed) if failed.kind() == io::ErrorKind::WouldBlock => {
                let link = self.link(conn);
                link.no_room |= call == Call::Send && !link.has_room();
                self.edge(fd);
                Err(failed)
            }
            Err(failed) => Err(failed),
            Ok(()) => Ok(conn),
        }
    }

    fn recv(&mut self, fd: usize, into: &mut [u8]) -> io::Result<usize> {
        let conn = self.begin_transfer(Call::Recv, fd)?;
        let most =
            if self.rng.chance(self.faults.short) { self.rng.between(1, 16) as usize } else { usize::MAX };
        let link = self.link(conn);
        let n = into.len().min(link.up.bytes.len()).min(most);
        if n > 0 {
            for (to, byte) in into.iter_mut().zip(link.up.bytes.drain(..n)) {
                *to = byte;
            }
            // A short read tells the reader that it has everything: what is left counts as having arrived later.
            if n == most && n < into.len() && (!link.up.bytes.is_empty() || link.up.ended) {
                self.edge(fd);
            }
            self.progress += 1;
            return Ok(n);
        }
        if let Some(failed) = link.error.take() {
            return Err(error(failed));
        }
        if link.up.ended || link.broken { Ok(0) } else { Err(error(errno::EAGAIN)) }
    }

    fn send(&mut self, fd: usize, bytes: &mut dyn Iterator<Item = &u8>) -> io::Result<usize> {
        if self.sends_per_ms > 0 && self.calls.of(Call::Send) % self.sends_per_ms == self.sends_per_ms - 1 {
            self.pass(1);
        }
        let conn = self.begin_transfer(Call::Send, fd)?;
        let most =
            if self.rng.chance(self.faults.short) { self.rng.between(1, 16) as usize } else { usize::MAX };
        let link = self.link(conn);
        if let Some(failed) = link.error.take() {
            return Err(error(failed));
        }
        if link.broken || link.down.ended {
            return Err(error(errno::EPIPE));
        }
        if link.gone {
            // The client's system answers with a reset, which the next call finds.
            link.break_with(errno::ECONNRESET);
            self.edge(fd);
            return Ok(bytes.count());
        }
        let mut bytes = bytes.peekable();
        if bytes.peek().is_none() {
            return Ok(0);
        }
        let free = link.down.free();
        if free == 0 {
            link.no_room = true;
            return Err(error(errno::EAGAIN));
        }
        let before = link.down.bytes.len();
        link.down.bytes.extend(bytes.by_ref().take(free.min(most)));
        let n = link.down.bytes.len() - before;
        link.no_room |= n == free && bytes.peek().is_some();
        self.progress += 1;
        Ok(n)
    }

    fn shut_down(&mut self, fd: usize) -> io::Result<()> {
        let conn = self.conn_of(fd);
        self.begin(Call::Shutdown)?;
        let link = self.link(conn);
        if link.broken {
            return Err(io::ErrorKind::NotConnected.into());
        }
        link.down.ended = true;
        self.progress += 1;
        self.edge(fd);
        Ok(())
    }
}
