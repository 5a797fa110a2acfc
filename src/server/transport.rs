use super::{Carried, Datagram, Server, start};
use crate::{
    contained::Contained, framing::Framing, handler::PacketHandler, runtime::HandlerFactory,
    strategy::ForkingStrategy,
};

/// What carries the packets of a server: a [`Framing`], which cuts them from streams ([`Server::bind`]), datagrams
/// ([`Server::bind_udp`]), each of which is one, or sessions of another service ([`Server::carried`]), whose packets bring
/// them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no framing",
    note = "a server is given one before it is served: `Server::bind(..)?.framing(Separator::lines())`",
    note = "a framing must be `Clone + Send + 'static`: each session gets a clone"
)]
pub trait Transport: sealed::Sealed {}

pub(super) mod sealed {
    use super::{Contained, ForkingStrategy, HandlerFactory, PacketHandler, Server};
    use crate::server::start::PendingService;

    pub trait Sealed: Sized {
        /// Makes a service of a server and its handlers. Returns it with the strategy that the server was given.
        #[doc(hidden)]
        #[expect(private_interfaces, reason = "called by this module alone")]
        fn service<H, S>(
            server: Server<Self>,
            factory: S,
        ) -> (Box<dyn PendingService>, Contained<Box<dyn ForkingStrategy>>)
        where
            H: PacketHandler + 'static,
            S: HandlerFactory<H> + Clone + 'static;
    }
}

impl<F: Framing + Clone + Send + 'static> Transport for F {}

impl<F: Framing + Clone + Send + 'static> sealed::Sealed for F {
    #[expect(private_interfaces, reason = "called by this module alone")]
    fn service<H, S>(
        server: Server<Self>,
        factory: S,
    ) -> (Box<dyn start::PendingService>, Contained<Box<dyn ForkingStrategy>>)
    where
        H: PacketHandler + 'static,
        S: HandlerFactory<H> + Clone + 'static,
    {
        start::service(server, factory)
    }
}

impl Transport for Datagram {}

impl sealed::Sealed for Datagram {
    #[expect(private_interfaces, reason = "called by this module alone")]
    fn service<H, S>(
        server: Server<Self>,
        factory: S,
    ) -> (Box<dyn start::PendingService>, Contained<Box<dyn ForkingStrategy>>)
    where
        H: PacketHandler + 'static,
        S: HandlerFactory<H> + Clone + 'static,
    {
        super::datagram::service(server, factory)
    }
}

impl Transport for Carried {}

impl sealed::Sealed for Carried {
    #[expect(private_interfaces, reason = "called by this module alone")]
    fn service<H, S>(
        server: Server<Self>,
        factory: S,
    ) -> (Box<dyn start::PendingService>, Contained<Box<dyn ForkingStrategy>>)
    where
        H: PacketHandler + 'static,
        S: HandlerFactory<H> + Clone + 'static,
    {
        super::carried::service(server, factory)
    }
}
