use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use super::{Ready, SocketOptions, Sys, port::PortAccess};
use crate::{
    addr::Addr,
    buffer::ReceiveBuffer,
    handler::PacketHandler,
    shard::{Peer, Via},
};

/// So many calls in a row that fail end the session.
const FAILURES: u32 = 64;

/// A socket for datagrams that one session has to itself. It is connected: the kernel passes on what comes from its peer
/// alone, and tells when nobody is there.
pub(crate) struct OwnSocket<Y: Sys> {
    io: Y::Datagrams,
    /// Its address.
    local: Addr,
    /// It may have datagrams to read.
    is_readable: bool,
    /// The kernel takes datagrams again.
    is_writable: bool,
    /// Its session is among those that are served next.
    is_listed: bool,
    /// Calls in a row that have failed.
    failures: u32,
}

/// The peer of a session over UDP.
pub(crate) type PeerOf<Y> = Peer<OwnSocket<Y>>;

/// A session over UDP, while it is visited.
type Access<'a, Y, H> = PortAccess<'a, H, PeerOf<Y>>;

/// Whether a socket was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    /// There may be more.
    More,
}

impl<Y: Sys> OwnSocket<Y> {
    pub(super) fn connect(sys: &mut Y, to: SocketAddr, options: &SocketOptions) -> io::Result<Self> {
        let (io, local) = sys.connect_datagrams(to, options)?;
        Ok(Self { io, local, is_readable: false, is_writable: false, is_listed: false, failures: 0 })
    }

    pub(super) fn register(&mut self, sys: &mut Y, token: u64) -> io::Result<()> {
        sys.register_datagrams(&mut self.io, token)
    }

    pub(super) fn local(&self) -> &Addr {
        &self.local
    }

    /// Notes an event. Returns `true` if its session is to be listed for that.
    pub(super) fn note(&mut self, event: &Ready) -> bool {
        // Reading takes a pending error, too.
        self.is_readable |= event.readable || event.error || event.hangup;
        self.is_writable |= event.writable;
        !std::mem::replace(&mut self.is_listed, true)
    }

    /// Its session is served.
    fn begin_serving(&mut self) -> bool {
        self.is_listed = false;
        std::mem::take(&mut self.is_writable)
    }

    /// The session is to be served once more. Returns `true` if it is to be listed for that.
    pub(super) fn list_again(peer: &mut Peer<Self>) -> bool {
        match &mut peer.via {
            Via::Own(own) => !std::mem::replace(&mut own.is_listed, true),
            Via::Shared(_) => false,
        }
    }
}

/// Reads one datagram of a session that has a socket of its own, and sends what follows from it.
pub(super) fn serve<Y: Sys, H: PacketHandler>(
    sys: &mut Y,
    buffer: &mut ReceiveBuffer,
    longest: usize,
    most_waiting: usize,
    access: &mut Access<'_, Y, H>,
) -> Left {
    let Via::Own(own) = &mut access.io().via else { return Left::Nothing };
    if own.begin_serving() {
        access.handle_writable();
    }
    let left = receive(sys, buffer, longest, access);
    transmit(sys, access, most_waiting);
    left
}

fn receive<Y: Sys, H: PacketHandler>(
    sys: &mut Y,
    buffer: &mut ReceiveBuffer,
    longest: usize,
    access: &mut Access<'_, Y, H>,
) -> Left {
    let Via::Own(own) = &mut access.io().via else { return Left::Nothing };
    if !own.is_readable {
        return Left::Nothing;
    }
    match sys.recv_from(&mut own.io, buffer.space()) {
        Ok((n, _)) => {
            own.failures = 0;
            if n > longest || n > buffer.space().len() {
                access.refuse_datagram(n, longest);
            } else {
                access.handle_datagram(buffer, n);
            }
        }
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock => {
                own.is_readable = false;
                own.failures = 0;
                return Left::Nothing;
            }
            ErrorKind::Interrupted => {}
            ErrorKind::ConnectionRefused => access.handle_failed(error),
            _ => {
                own.failures += 1;
                if own.failures >= FAILURES {
                    access.handle_failed(error);
                }
            }
        },
    }
    Left::More
}

/// Sends what a session that has a socket of its own has to send, and takes the next step if it is closing.
pub(super) fn transmit<Y: Sys, H: PacketHandler>(
    sys: &mut Y,
    access: &mut Access<'_, Y, H>,
    most_waiting: usize,
) {
    access.begin_flush();
    while let Some((Peer { addr, via: Via::Own(own) }, datagram)) = access.poll_datagram() {
        let len = datagram.len();
        match sys.send_to(&mut own.io, datagram, *addr) {
            Ok(()) => access.handle_datagram_sent(len),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => {
                    access.wait_for_socket(most_waiting);
                    break;
                }
                ErrorKind::Interrupted => return access.send_later(),
                ErrorKind::ConnectionRefused => return access.handle_failed(error),
                _ => access.handle_datagram_lost(len, &error),
            },
        }
    }
    access.end_if_done();
}
