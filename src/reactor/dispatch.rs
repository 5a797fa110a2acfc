use std::{
    io::{self, ErrorKind},
    vec::Drain,
};

use crate::{dial::NewDial, id::ShardId, shard::Incoming};

/// Hands connections that are to be made over to other threads.
pub(crate) trait DispatchDials: Send {
    /// Hands it to a standing shard.
    fn send_dial(&mut self, shard: ShardId, dial: Box<NewDial>) -> io::Result<()>;

    /// Hands it to a new shard.
    fn fork_dial(&mut self, dial: Box<NewDial>) -> io::Result<()>;
}

/// Hands connections over to other threads.
pub(crate) trait Dispatch<T>: DispatchDials {
    /// Hands connections to a standing shard, all together; if that fails, all are dropped.
    fn send(&mut self, shard: ShardId, batch: Drain<'_, Incoming<T>>) -> io::Result<()>;

    /// Hands a connection to a new shard.
    fn fork(&mut self, incoming: Incoming<T>) -> Result<(), HandOverError<T>>;
}

/// No thread could be started for a connection. It may be tried again.
pub(crate) struct HandOverError<T> {
    pub(crate) error: io::Error,
    /// `None` when the server is stopping.
    pub(crate) incoming: Option<Incoming<T>>,
}

/// For an acceptor that keeps every connection on its own shard.
pub(crate) struct NoDispatch;

impl<T> Dispatch<T> for NoDispatch {
    fn send(&mut self, _shard: ShardId, _batch: Drain<'_, Incoming<T>>) -> io::Result<()> {
        Err(ErrorKind::NotConnected.into())
    }

    fn fork(&mut self, _incoming: Incoming<T>) -> Result<(), HandOverError<T>> {
        Err(HandOverError { error: ErrorKind::NotConnected.into(), incoming: None })
    }
}

impl DispatchDials for NoDispatch {
    fn send_dial(&mut self, _shard: ShardId, _dial: Box<NewDial>) -> io::Result<()> {
        Err(ErrorKind::NotConnected.into())
    }

    fn fork_dial(&mut self, _dial: Box<NewDial>) -> io::Result<()> {
        Err(ErrorKind::NotConnected.into())
    }
}
