use crate::id::{DialId, SessionId};

/// Where a session comes from, as [`Session::origin`](crate::Session::origin) returns it.
///
/// ```
/// use framewire::{LengthPrefix, Origin, Separator, Server, packet_fn};
///
/// /// The place of the second address among [`Server::local_addrs`].
/// const PEOPLE: Origin = Origin::Accepted { listener: 1 };
///
/// # fn main() -> Result<(), framewire::ServeError> {
/// let server = Server::bind("127.0.0.1:0")?.framing(LengthPrefix::u32_be());
/// let running = server.also("127.0.0.1:0", Separator::lines())?.spawn(packet_fn(|session, packet| {
///     if session.origin() == PEOPLE {
///         session.send("you typed:")?;
///     }
///     Ok(session.send(packet)?)
/// }))?;
/// # drop(running);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// A listener of the server has accepted it.
    Accepted {
        /// Which one: the index in [`Server::local_addrs`](crate::Server::local_addrs), as
        /// [`NewConnection::listener`](crate::NewConnection::listener) returns it. With a
        /// [`Reactor`](crate::Reactor), each service counts its own.
        listener: usize,
    },
    /// This side has connected: the session comes of this [`Dial`](crate::Dial).
    Dialled(DialId),
    /// It is a stream, which another session [carries](crate::Streams).
    #[non_exhaustive]
    Carried {
        /// That session.
        carrier: SessionId,
        /// The number of the stream.
        stream: u64,
        /// What the handler of the carrier has given it: [`NewStream::tag`](crate::NewStream::tag).
        tag: u64,
    },
}
