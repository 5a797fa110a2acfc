//! The wait for events, and what they say.

#[cfg(not(target_os = "linux"))]
pub(super) use self::by_mio::PollEvents;
#[cfg(target_os = "linux")]
pub(super) use self::by_system_call::PollEvents;

/// On the selector of mio, but by the system call itself: the call of the C library checks for the cancellation of
/// threads, and mio asks of each event six questions that one number answers. That is 60 instructions of each turn, and
/// 16 of each event.
#[cfg(target_os = "linux")]
mod by_system_call {
    use std::{io, mem::MaybeUninit, time::Duration};

    use mio::Poll;
    use rustix::{
        event::epoll::{self, Event, EventFlags},
        time::Timespec,
    };

    use crate::reactor::Ready;

    /// Events of one poll, at most: one at a time costs 4 to 8 % more, so many make that disappear. They take 3 KiB of
    /// the stack.
    const EVENTS: usize = 256;
    /// More milliseconds than an `int` holds would need a system call that is younger. To wait for longer is to wait
    /// again.
    const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

    /// What a poll brings. It is kept on the stack: events of the system may hold pointers, and so cannot be sent to the
    /// thread that polls.
    pub(in crate::reactor) struct PollEvents;

    impl PollEvents {
        pub(in crate::reactor) fn new() -> Self {
            Self
        }

        /// Waits (without end when `wait` is `None`), and appends what has come to `ready`.
        #[inline]
        pub(in crate::reactor) fn poll(
            &mut self,
            poll: &mut Poll,
            wait: Option<Duration>,
            ready: &mut Vec<Ready>,
        ) -> io::Result<()> {
            let wait = wait.map(|wait| wait.min(LONGEST_WAIT));
            let wait =
                wait.map(|wait| Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos() as _ });
            let mut space = [MaybeUninit::uninit(); EVENTS];
            let (events, _) = epoll::wait(poll.registry(), &mut space, wait.as_ref())?;
            ready.extend(events.iter().map(to_ready));
            Ok(())
        }
    }

    #[inline]
    fn to_ready(event: &Event) -> Ready {
        let Event { flags, data } = *event;
        let has = |these: EventFlags| flags.intersects(these);
        Ready {
            token: data.u64(),
            readable: has(EventFlags::IN | EventFlags::PRI),
            writable: has(EventFlags::OUT),
            // With urgent data, a short read does not mean that there is no more: read until that is certain.
            hangup: has(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR | EventFlags::PRI),
            error: has(EventFlags::ERR),
        }
    }
}

/// Wherever mio polls. Under test on Linux too, where both must say the same.
#[cfg(any(test, not(target_os = "linux")))]
mod by_mio {
    use std::{io, time::Duration};

    use mio::{Events, Poll, event::Event};

    use crate::reactor::Ready;

    /// Events of one poll, at most: one at a time costs 4 to 8 % more, a thousand keep every session's turn short.
    const EVENTS: usize = 1024;
    /// The same to begin with, for threads of one session. It doubles whenever a poll has brought as many.
    const FIRST_EVENTS: usize = 8;

    /// Room for what one poll brings.
    pub(in crate::reactor) struct PollEvents(Events);

    impl PollEvents {
        pub(in crate::reactor) fn new() -> Self {
            Self(Events::with_capacity(FIRST_EVENTS))
        }

        /// Waits (without end when `wait` is `None`), and appends what has come to `ready`.
        pub(in crate::reactor) fn poll(
            &mut self,
            poll: &mut Poll,
            wait: Option<Duration>,
            ready: &mut Vec<Ready>,
        ) -> io::Result<()> {
            poll.poll(&mut self.0, wait)?;
            let before = ready.len();
            ready.extend(self.0.iter().map(to_ready));
            let capacity = self.0.capacity();
            if ready.len() - before >= capacity && capacity < EVENTS {
                self.0 = Events::with_capacity(2 * capacity);
            }
            Ok(())
        }
    }

    #[inline]
    fn to_ready(event: &Event) -> Ready {
        Ready {
            token: event.token().0 as u64,
            readable: event.is_readable(),
            writable: event.is_writable(),
            // With urgent data, a short read does not mean that there is no more: read until that is certain.
            hangup: event.is_read_closed()
                || event.is_write_closed()
                || event.is_error()
                || event.is_priority(),
            error: event.is_error(),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    use mio::{Interest, Poll, Token, Waker};
    use socket2::SockRef;

    use super::*;
    use crate::reactor::Ready;

    const TOKEN: u64 = 7 << 40;
    const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

    /// Both ends of a connection.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let peer = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        (listener.accept().expect("one waits").0, peer)
    }

    /// What each way of polling says of this socket, whose state does not change any more.
    fn both(socket: &TcpStream) -> [Vec<Ready>; 2] {
        socket.set_nonblocking(true).expect("it can be told so");
        let registered = || {
            let mut socket = mio::net::TcpStream::from_std(socket.try_clone().expect("a descriptor"));
            let poll = Poll::new().expect("a descriptor");
            let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
            poll.registry().register(&mut socket, Token(TOKEN as usize), interest).expect("it is new");
            (poll, socket)
        };
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let (mut poll, _socket) = registered();
        PollEvents::new().poll(&mut poll, PATIENCE, &mut first).expect("it polls");
        let (mut poll, _socket) = registered();
        by_mio::PollEvents::new().poll(&mut poll, PATIENCE, &mut second).expect("it polls");
        [first, second]
    }

    fn ready(readable: bool, hangup: bool, error: bool) -> Ready {
        Ready { token: TOKEN, readable, writable: true, hangup, error }
    }

    #[test]
    fn both_ways_of_polling_say_the_same_whatever_the_state_of_a_socket() {
        type Change = fn(&mut TcpStream, &mut TcpStream);
        let changes: [(Change, Ready); 6] = [
            (|_, _| (), ready(false, false, false)),
            (|_, peer| peer.write_all(b"x").expect("there is room"), ready(true, false, false)),
            (
                |_, peer| peer.shutdown(std::net::Shutdown::Write).expect("it is open"),
                ready(true, true, false),
            ),
            (
                |_, peer| assert_eq!(SockRef::from(&*peer).send_out_of_band(b"!").ok(), Some(1)),
                ready(true, true, false),
            ),
            (
                |own, peer| {
                    own.shutdown(std::net::Shutdown::Write).expect("it is open");
                    peer.shutdown(std::net::Shutdown::Write).expect("it is open");
                },
                ready(true, true, false),
            ),
            (
                |own, peer| {
                    // What is left unread makes the end a reset.
                    own.write_all(b"x").expect("there is room");
                    SockRef::from(&*peer).set_linger(Some(Duration::ZERO)).expect("it can be told so");
                    *peer = pair().0;
                },
                ready(true, true, true),
            ),
        ];
        for (number, (change, expected)) in changes.into_iter().enumerate() {
            let (mut own, mut peer) = pair();
            change(&mut own, &mut peer);
            let began = Instant::now();
            // On loopback what a peer has done is there at once, or nearly.
            let mut said = both(&own);
            while said != [vec![expected], vec![expected]] && began.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(1));
                said = both(&own);
            }
            assert_eq!(said, [vec![expected], vec![expected]], "state {number}");
            drop(own.read(&mut []));
        }
    }

    #[test]
    fn a_wait_ends_when_it_is_over_or_when_another_thread_says_so() {
        let mut poll = Poll::new().expect("a descriptor");
        let waker = Waker::new(poll.registry(), Token(3)).expect("a descriptor");
        let (mut events, mut ready) = (PollEvents::new(), Vec::new());
        let began = Instant::now();
        events.poll(&mut poll, Some(Duration::from_millis(20)), &mut ready).expect("it polls");
        assert!(ready.is_empty() && began.elapsed() >= Duration::from_millis(20), "{ready:?}");
        std::thread::scope(|scope| {
            scope.spawn(|| waker.wake().expect("it is there"));
            // More than the system call takes.
            events.poll(&mut poll, Some(Duration::MAX), &mut ready).expect("it polls");
        });
        assert_eq!(ready.iter().map(|ready| ready.token).collect::<Vec<_>>(), [3]);
    }
}
