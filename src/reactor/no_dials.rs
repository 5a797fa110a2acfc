use std::io::{self, ErrorKind};

use super::{Connecting, SocketOptions, Sys, connect::Connect};
use crate::{addr::Addr, error::DialError, shard::Stream};

/// For a service of streams, which makes no connections: its dials are refused before.
pub(crate) struct NoDials;

impl NoDials {
    pub(super) fn error() -> DialError {
        DialError::Unsuited { why: "a stream is opened by the peer of its carrier" }
    }
}

impl<Y: Sys> Connect<Y> for NoDials {
    type Io = Stream;

    const IS_BLIND: bool = false;

    fn connect(&self, _: &mut Y, _: &Addr, _: &SocketOptions) -> io::Result<(Stream, Connecting)> {
        Err(ErrorKind::Unsupported.into())
    }

    fn register(&self, _: &mut Y, _: &mut Stream, _: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn finish_connect(&self, _: &mut Y, _: &mut Stream) -> io::Result<Connecting> {
        Err(ErrorKind::Unsupported.into())
    }

    fn local_addr(&self, _: &mut Y, _: &Stream) -> io::Result<Addr> {
        Err(ErrorKind::Unsupported.into())
    }
}
