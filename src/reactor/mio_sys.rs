use std::{
    fs::File,
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, IoSlice},
    net::SocketAddr,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use mio::{Poll, Token, Waker};

use super::{
    Connecting, Ready, Sys,
    datagram_socket::DatagramSocket,
    poll_events::PollEvents,
    socket::{Listener, SocketOptions, Stream},
    system_clock::SystemClock,
    token::WAKER,
};
use crate::{addr::Addr, strategy::DetachedSocket, sync::Wake, time::Clock};

/// The operating system, through mio.
pub(crate) struct MioSys {
    poll: Poll,
    events: PollEvents,
    origin: Instant,
    /// Ends with the poll, however long a handle to a session of this thread is kept.
    _waker: Arc<Waker>,
}

impl MioSys {
    /// And what wakes it.
    pub(crate) fn new(origin: Instant) -> io::Result<(Self, Arc<dyn Wake>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Token(WAKER as usize))?);
        let handle = Arc::new(MioWaker(Arc::downgrade(&waker)));
        Ok((Self { poll, events: PollEvents::new(), origin, _waker: waker }, handle))
    }
}

struct MioWaker(Weak<Waker>);

impl Wake for MioWaker {
    fn wake(&self) -> io::Result<()> {
        // Without its poll there is no thread to wake.
        self.0.upgrade().map_or(Ok(()), |waker| waker.wake())
    }
}

impl Sys for MioSys {
    type Listener = Listener;
    type Stream = Stream;
    type Datagrams = DatagramSocket;
    type Spare = File;

    fn clock(&self) -> Box<dyn Clock> {
        Box::new(SystemClock::new(self.origin))
    }

    /// Not inlined, so that `benches/instructions.rs` finds it.
    #[inline(never)]
    fn poll(&mut self, ready: &mut Vec<Ready>, wait: Option<Duration>) -> io::Result<()> {
        self.events.poll(&mut self.poll, wait, ready)
    }

    fn register(&mut self, stream: &mut Stream, token: u64) -> io::Result<()> {
        stream.register(self.poll.registry(), Token(token as usize))
    }

    fn reregister(&mut self, stream: &mut Stream, token: u64) -> io::Result<()> {
        stream.reregister(self.poll.registry(), Token(token as usize))
    }

    fn connect(&mut self, addr: &Addr, options: &SocketOptions) -> io::Result<(Stream, Connecting)> {
        Stream::connect(addr, options)
    }

    fn finish_connect(&mut self, stream: &mut Stream) -> io::Result<Connecting> {
        stream.finish_connect()
    }

    fn register_listener(&mut self, listener: &mut Listener, token: u64) -> io::Result<()> {
        listener.register(self.poll.registry(), Token(token as usize))
    }

    fn register_datagrams(&mut self, socket: &mut DatagramSocket, token: u64) -> io::Result<()> {
        socket.register(self.poll.registry(), Token(token as usize))
    }

    fn accept(&mut self, listener: &mut Listener) -> io::Result<(Stream, Addr)> {
        listener.accept()
    }

    fn local_addr(&mut self, stream: &Stream) -> io::Result<Addr> {
        stream.local_addr()
    }

    #[inline]
    fn recv(&mut self, stream: &mut Stream, into: &mut [u8]) -> io::Result<usize> {
        stream.recv(into)
    }

    #[inline]
    fn send(&mut self, stream: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
        stream.send(bytes)
    }

    fn send_vectored(&mut self, stream: &mut Stream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        stream.send_vectored(slices)
    }

    fn connect_datagrams(
        &mut self,
        to: SocketAddr,
        options: &SocketOptions,
    ) -> io::Result<(DatagramSocket, Addr)> {
        DatagramSocket::connect(to, options)
    }

    #[inline]
    fn recv_from(&mut self, socket: &mut DatagramSocket, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        socket.recv_from(into)
    }

    #[inline]
    fn send_to(&mut self, socket: &mut DatagramSocket, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        socket.send_to(datagram, to)
    }

    fn shutdown_write(&mut self, stream: &mut Stream) -> io::Result<()> {
        stream.shutdown_write()
    }

    fn make_reset(&mut self, stream: &mut Stream) {
        stream.make_reset();
    }

    fn detach(&mut self, stream: Stream) -> io::Result<DetachedSocket> {
        stream.detach()
    }

    fn take_error(&mut self, stream: &mut Stream) -> Option<io::Error> {
        stream.take_error().ok().flatten()
    }

    fn seed(&mut self) -> u64 {
        // The keys are random, and each is another.
        RandomState::new().build_hasher().finish()
    }

    fn spare(&mut self) -> io::Result<File> {
        File::open(if cfg!(windows) { "NUL" } else { "/dev/null" })
    }
}
