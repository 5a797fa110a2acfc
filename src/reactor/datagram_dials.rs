//! Sessions with peers that this side has chosen: opened at once, since UDP makes no connections.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use super::{
    Connecting, SocketOptions, Sys,
    connect::Connect,
    own_socket::{OwnSocket, PeerOf},
};
use crate::{
    addr::Addr,
    shard::{Peer, Via},
};

/// Over UDP.
pub(crate) struct Datagrams {
    /// The addresses of the sockets that a reply to each comes back to: none of those that several threads share.
    bound: Vec<Addr>,
}

impl Datagrams {
    pub(crate) fn from(bound: Vec<Addr>) -> Self {
        Self { bound }
    }

    /// Returns the number of the socket from which this peer is reached, if there is one.
    fn socket_for(&self, peer: SocketAddr) -> Option<u16> {
        let reaches = |addr: &Addr| addr.socket_addr().is_some_and(|own| own.is_ipv4() == peer.is_ipv4());
        self.bound.iter().position(reaches).map(|at| at as u16)
    }
}

impl<Y: Sys> Connect<Y> for Datagrams {
    type Io = PeerOf<Y>;

    const IS_BLIND: bool = true;

    fn connect(
        &self,
        sys: &mut Y,
        addr: &Addr,
        options: &SocketOptions,
    ) -> io::Result<(Self::Io, Connecting)> {
        let addr = addr.socket_addr().ok_or(ErrorKind::Unsupported)?;
        let via = match self.socket_for(addr) {
            Some(socket) => Via::Shared(socket),
            None => Via::Own(Box::new(OwnSocket::connect(sys, addr, options)?)),
        };
        Ok((Peer { addr, via }, Connecting::Done))
    }

    /// Never called: no connection is ever under way.
    fn register(&self, sys: &mut Y, io: &mut Self::Io, token: u64) -> io::Result<()> {
        match &mut io.via {
            Via::Shared(_) => Ok(()),
            Via::Own(own) => own.register(sys, token),
        }
    }

    fn finish_connect(&self, _sys: &mut Y, _io: &mut Self::Io) -> io::Result<Connecting> {
        Ok(Connecting::Done)
    }

    fn local_addr(&self, _sys: &mut Y, io: &Self::Io) -> io::Result<Addr> {
        match &io.via {
            Via::Shared(at) => Ok(self.bound.get(usize::from(*at)).ok_or(ErrorKind::NotFound)?.clone()),
            Via::Own(own) => Ok(own.local().clone()),
        }
    }
}
