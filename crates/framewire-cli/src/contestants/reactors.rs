use std::io;
use std::net::SocketAddr;

use framewire::{
    ForkingStrategy, LengthPrefix, Server, SingleReactor, ThreadPerConnection, WorkerPool, packet_fn,
};

/// More threads than any case has connections: what limits is the machine.
const THREADS: usize = 1 << 16;

/// One reactor thread.
pub(super) fn single(addr: SocketAddr) -> io::Result<()> {
    echo(addr, SingleReactor::new())
}

/// A reactor thread per core.
pub(super) fn pool(addr: SocketAddr) -> io::Result<()> {
    echo(addr, WorkerPool::per_core())
}

/// A reactor thread per connection.
pub(super) fn threads(addr: SocketAddr) -> io::Result<()> {
    echo(addr, ThreadPerConnection::max(THREADS))
}

/// What a user writes, with every limit at its default.
fn echo(addr: SocketAddr, strategy: impl ForkingStrategy + 'static) -> io::Result<()> {
    let running = Server::bind(addr)
        .map_err(io::Error::other)?
        .framing(LengthPrefix::u32_be().max(super::MAX_FRAME))
        .strategy(strategy)
        .spawn(packet_fn(|session, packet| Ok(session.send(packet)?)))
        .map_err(io::Error::other)?;
    let addr = running.handle().local_addr().ok_or_else(|| io::Error::other("bound to no address"))?;
    super::announce(addr)?;
    running.wait().map_err(io::Error::other)
}
