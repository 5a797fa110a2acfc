use std::io;
use std::net::SocketAddr;

use framewire::{
    ForkingStrategy, LengthPrefix, PacketHandler, Server, Session, SingleReactor, ThreadPerConnection,
    WorkerPool, packet_fn, session_fn,
};

use super::Duty;

/// More threads than any case has connections: what limits is the machine.
const THREADS: usize = 1 << 16;

/// One reactor thread.
pub(super) fn single(addr: SocketAddr, duty: Duty) -> io::Result<()> {
    serve(addr, SingleReactor::new(), duty)
}

/// A reactor thread per core.
pub(super) fn pool(addr: SocketAddr, duty: Duty) -> io::Result<()> {
    serve(addr, WorkerPool::per_core(), duty)
}

/// A reactor thread per connection.
pub(super) fn threads(addr: SocketAddr, duty: Duty) -> io::Result<()> {
    serve(addr, ThreadPerConnection::max(THREADS), duty)
}

/// What a user writes, with every limit at its default.
fn serve(addr: SocketAddr, strategy: impl ForkingStrategy + 'static, duty: Duty) -> io::Result<()> {
    let server = Server::bind(addr)
        .map_err(io::Error::other)?
        .framing(LengthPrefix::u32_be().max(super::MAX_FRAME))
        .strategy(strategy);
    match duty {
        Duty::Echo => run(server, packet_fn(|session, packet| Ok(session.send(packet)?))),
        Duty::Broadcast => {
            let everybody = server.handle();
            let pass_on = move |session: &mut Session<'_>, has_joined: &mut bool, packet: &[u8]| {
                if std::mem::replace(has_joined, true) {
                    everybody.broadcast(packet)?;
                } else {
                    session.send(packet)?;
                }
                Ok(())
            };
            run(server, session_fn(|_| Ok(false), pass_on))
        }
    }
}

fn run<H>(server: Server<LengthPrefix>, handler: H) -> io::Result<()>
where
    H: PacketHandler + Clone + Send + 'static,
{
    let running = server.spawn(handler).map_err(io::Error::other)?;
    let addr = running.handle().local_addr().ok_or_else(|| io::Error::other("bound to no address"))?;
    super::announce(addr)?;
    running.wait().map_err(io::Error::other)
}
