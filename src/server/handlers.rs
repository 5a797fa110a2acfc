use super::start::{CloneFactory, SharedFactory};
use crate::{handler::PacketHandler, id::ShardId};

/// What makes the handler of each shard: a handler that is `Clone` and `Send`, or [`per_shard`].
///
/// **Each shard has a handler of its own.** With [`SingleReactor`](crate::SingleReactor) there is one, with
/// [`WorkerPool::new(n)`](crate::WorkerPool) there are `n` and one for the acceptor, with
/// [`ThreadPerConnection`](crate::ThreadPerConnection) one for each connection and one for the acceptor. Only the
/// sessions of a shard see what its handler keeps in a field: a list of all users there silently becomes one list per
/// worker. What all shards are to see belongs behind an `Arc`, which clones share.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be handed to every shard",
    label = "neither a `PacketHandler` that is `Clone + Send + 'static`, nor `per_shard(..)`",
    note = "each shard has a handler of its own: derive `Clone` for it, or make one on each shard with `per_shard(|shard| ..)`",
    note = "a closure over packets is a handler when it is wrapped: `packet_fn(|session, packet| Ok(session.send(packet)?))`"
)]
pub trait Handlers<H>: sealed::Sealed<H> {}

pub(super) mod sealed {
    use crate::runtime::HandlerFactory;

    pub trait Sealed<H> {
        type HandlerFactory: HandlerFactory<H> + Clone + 'static;
        fn into_factory(self) -> Self::HandlerFactory;
    }
}

#[diagnostic::do_not_recommend]
impl<H: PacketHandler + Clone + Send + 'static> Handlers<H> for H {}

impl<H: PacketHandler + Clone + Send + 'static> sealed::Sealed<H> for H {
    type HandlerFactory = CloneFactory<H>;

    fn into_factory(self) -> CloneFactory<H> {
        CloneFactory(self)
    }
}

/// Makes each shard's handler by calling `make` on the shard's own thread, so the handler may hold what cannot leave it
/// (`Rc`, a database connection …) and need not be `Clone`. If `make` panics, the server stops with
/// [`ServeError::Factory`](crate::ServeError::Factory); for a thread of a single connection, only that connection ends.
///
/// ```no_run
/// use std::{cell::Cell, rc::Rc};
/// use framewire::{Handled, PacketHandler, Separator, Server, Session, WorkerPool, per_shard};
///
/// /// Numbers the packets of its shard.
/// struct Number(Rc<Cell<u64>>);
///
/// impl PacketHandler for Number {
///     type State = ();
///
///     fn on_open(&mut self, _: &mut Session<'_>) -> Handled {
///         Ok(())
///     }
///
///     fn on_packet(&mut self, session: &mut Session<'_>, _: &mut (), _: &[u8]) -> Handled {
///         self.0.set(self.0.get() + 1);
///         Ok(session.send(self.0.get().to_string())?)
///     }
/// }
///
/// # fn main() -> Result<(), framewire::ServeError> {
/// Server::bind("127.0.0.1:7000")?
///     .framing(Separator::lines())
///     .strategy(WorkerPool::new(2))
///     .serve(per_shard(|_shard| Number(Rc::default())))
/// # }
/// ```
///
/// Without `per_shard` the compiler refuses such a handler, and says what to do:
///
/// ```compile_fail,E0277
/// # use framewire::{Handled, PacketHandler, Separator, Server, Session};
/// struct NotClone;
/// # impl PacketHandler for NotClone {
/// #     type State = ();
/// #     fn on_open(&mut self, _: &mut Session<'_>) -> Handled { Ok(()) }
/// #     fn on_packet(&mut self, _: &mut Session<'_>, _: &mut (), _: &[u8]) -> Handled { Ok(()) }
/// # }
/// # fn main() -> Result<(), framewire::ServeError> {
/// Server::bind("127.0.0.1:7000")?.framing(Separator::lines()).serve(NotClone)
/// # }
/// ```
pub fn per_shard<H, C>(make: C) -> PerShard<C>
where
    H: PacketHandler + 'static,
    C: Fn(ShardId) -> H + Send + Sync + 'static,
{
    PerShard { make }
}

/// What [`per_shard`] returns.
#[derive(Debug, Clone, Copy)]
pub struct PerShard<C> {
    make: C,
}

impl<H, C> Handlers<H> for PerShard<C>
where
    H: PacketHandler + 'static,
    C: Fn(ShardId) -> H + Send + Sync + 'static,
{
}

impl<H, C> sealed::Sealed<H> for PerShard<C>
where
    H: PacketHandler + 'static,
    C: Fn(ShardId) -> H + Send + Sync + 'static,
{
    type HandlerFactory = SharedFactory<C>;

    fn into_factory(self) -> SharedFactory<C> {
        SharedFactory::new(self.make)
    }
}
