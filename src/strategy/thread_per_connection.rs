use super::{ForkingStrategy, Placement, ShardLoads};
use crate::addr::NewConnection;

/// Each connection has a thread, and a handler, of its own: the handler may block without holding up other sessions.
///
/// A thread costs some 20 KiB and three descriptors, and its start some 30 µs, so this is for hundreds of connections
/// that work, not for tens of thousands that wait. Once its connection has been busy, a thread keeps one buffer of at
/// most 32 KiB for the next send ([`Metrics::pooled`](crate::Metrics::pooled)), and a receive buffer that grows with
/// what one read brings, from 1 KiB to 128 KiB, and has 1 KiB again a while later.
///
/// It does not serve UDP ([`Server::bind_udp`](crate::Server::bind_udp)), whose peers share a socket.
///
/// ```
/// use framewire::{Server, ThreadPerConnection};
///
/// let server = Server::bind("127.0.0.1:0")?.strategy(ThreadPerConnection::max(512));
/// # Ok::<(), framewire::ServeError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ThreadPerConnection {
    max: usize,
}

impl ThreadPerConnection {
    /// At most `connections` at once; more are refused. The server does not start with 0.
    #[must_use]
    pub fn max(connections: usize) -> Self {
        Self { max: connections }
    }
}

impl ForkingStrategy for ThreadPerConnection {
    fn validate(&self) -> Result<(), String> {
        match self.max {
            0 => Err("ThreadPerConnection::max(0) refuses everybody; give at least 1".into()),
            _ => Ok(()),
        }
    }

    fn descriptors_per_session(&self) -> usize {
        3
    }

    fn udp_peers(&self) -> Result<usize, String> {
        let why = "ThreadPerConnection cannot serve UDP: all peers share a socket, which one thread reads; \
                   use SingleReactor or WorkerPool";
        Err(why.into())
    }

    fn carried(&self) -> Result<(), String> {
        let why = "ThreadPerConnection cannot carry streams: each carrier has a thread of its own, where no other service \
                   is; use SingleReactor or WorkerPool";
        Err(why.into())
    }

    fn place(&mut self, _connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
        self.place_dial(loads)
    }

    fn place_dial(&mut self, loads: ShardLoads<'_>) -> Placement {
        if loads.forked() < self.max { Placement::Fork } else { Placement::Refuse }
    }
}
