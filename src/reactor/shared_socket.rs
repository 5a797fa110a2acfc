use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    net::SocketAddr,
};

use super::{Sys, own_socket::PeerOf, peers::Peers, port::PortAccess};
use crate::{addr::Addr, handler::PacketHandler, id::Key, time::Tick};

/// So many calls in a row that fail make a socket pause.
const FAILURES: u32 = 64;
/// For so long (milliseconds).
const PAUSE: Tick = 100;

/// A socket, and its peers.
pub(super) struct SharedSocket<Y: Sys> {
    pub(super) io: Y::Datagrams,
    pub(super) local: Addr,
    pub(super) peers: Peers<SocketAddr>,
    /// It may have datagrams to read.
    pub(super) is_readable: bool,
    /// The kernel takes no datagram; an event will announce when it does.
    pub(super) is_blocked: bool,
    /// Sessions that wait for that, each once, in the order in which they are served.
    pub(super) waiting: VecDeque<Key>,
    /// Calls in a row that have failed.
    pub(super) failures: u32,
    pub(super) rests_until: Option<Tick>,
}

impl<Y: Sys> SharedSocket<Y> {
    pub(super) fn new(io: Y::Datagrams, local: Addr) -> Self {
        Self {
            io,
            local,
            peers: Peers::default(),
            is_readable: true,
            is_blocked: false,
            waiting: VecDeque::new(),
            failures: 0,
            rests_until: None,
        }
    }

    /// Returns the next session that has waited and may send now.
    pub(super) fn next_waiting(&mut self) -> Option<Key> {
        if self.is_blocked { None } else { self.waiting.pop_front() }
    }

    /// Returns `true` if there is one.
    pub(super) fn is_to_be_written(&self) -> bool {
        !self.is_blocked && !self.waiting.is_empty()
    }

    pub(super) fn is_to_be_read(&self) -> bool {
        self.is_readable && self.rests_until.is_none()
    }

    /// An error is never the end: a datagram that was refused on its way is reported to the next call, and the next
    /// datagram can be from any peer.
    pub(super) fn handle_failure(&mut self, error: &io::Error, now: Tick) {
        match error.kind() {
            ErrorKind::WouldBlock => {
                self.is_readable = false;
                self.failures = 0;
            }
            ErrorKind::Interrupted => {}
            _ => {
                self.failures += 1;
                if self.failures >= FAILURES {
                    (self.failures, self.rests_until) = (0, Some(now + PAUSE));
                    tracing::warn!(%error, socket = %self.local, pause_ms = PAUSE, "receiving fails again and again; trying again after a pause");
                }
            }
        }
    }

    /// A session has something to send, and the kernel takes nothing: it waits, if not too much does.
    #[cold]
    fn keep_waiting<H: PacketHandler>(&mut self, access: &mut PortAccess<'_, H, PeerOf<Y>>, most: usize) {
        if access.wait_for_socket(most) {
            self.waiting.push_back(access.key());
        }
        access.end_if_done();
    }

    /// Forgets sessions that have ended while they waited, when these may be many.
    pub(super) fn prune(&mut self, sessions: usize, is_alive: impl Fn(Key) -> bool) {
        if self.waiting.len() > 2 * sessions + 1024 {
            self.waiting.retain(|key| is_alive(*key));
        }
    }
}

/// Sends what a session has to send, and takes the next step if it is closing.
#[inline]
pub(super) fn transmit<Y: Sys, H: PacketHandler>(
    sys: &mut Y,
    socket: &mut SharedSocket<Y>,
    access: &mut PortAccess<'_, H, PeerOf<Y>>,
    most_waiting: usize,
) {
    access.begin_flush();
    if socket.is_blocked {
        return socket.keep_waiting(access, most_waiting);
    }
    while let Some((peer, datagram)) = access.poll_datagram() {
        let len = datagram.len();
        match sys.send_to(&mut socket.io, datagram, peer.addr) {
            Ok(()) => access.handle_datagram_sent(len),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                socket.is_blocked = true;
                return socket.keep_waiting(access, most_waiting);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return access.send_later(),
            Err(error) => access.handle_datagram_lost(len, &error),
        }
    }
    access.end_if_done();
}
