use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use super::{
    Dispatch, HandOverError, HandlerFactory, ShardLauncher, ShardRegistry, Stream,
    launcher::{FirstConnection, take},
};
use crate::{
    contained::Contained,
    error::panic_message,
    framing::Framing,
    handler::PacketHandler,
    id::ShardId,
    shard::{Command, Incoming},
};

/// Carries connections between the threads of a server.
pub(crate) struct HandOver<H, F> {
    registry: Arc<ShardRegistry>,
    framing: Contained<F>,
    factory: Contained<Box<dyn HandlerFactory<H>>>,
}

impl<H, F> HandOver<H, F> {
    pub(crate) fn new(
        registry: Arc<ShardRegistry>,
        framing: Contained<F>,
        factory: Box<dyn HandlerFactory<H>>,
    ) -> Self {
        Self { registry, framing, factory: Contained::new(factory) }
    }
}

impl<H, F> Dispatch<Stream> for HandOver<H, F>
where
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
{
    fn send(&mut self, shard: ShardId, incoming: Incoming<Stream>) -> io::Result<()> {
        let member = self.registry.member(shard).ok_or(io::ErrorKind::NotConnected)?;
        let posted = member.mailbox.post_control(Command::Adopt(incoming));
        posted.map_err(|_| io::ErrorKind::NotConnected.into())
    }

    fn fork(&mut self, incoming: Incoming<Stream>) -> Result<(), HandOverError<Stream>> {
        let first: FirstConnection = Arc::new(Mutex::new(Some(incoming)));
        // Handler and framing are cloned here, which is the user's code.
        let forked = catch_unwind(AssertUnwindSafe(|| {
            ShardLauncher::forked(&self.registry, self.framing.clone(), &mut **self.factory, first.clone())
        }));
        match forked {
            Ok(Ok(launcher)) => {
                launcher.spawn().map(drop).map_err(|error| HandOverError { error, incoming: take(&first) })
            }
            Ok(Err(error)) => Err(HandOverError { error, incoming: take(&first) }),
            Err(panic) => {
                Err(HandOverError { error: io::Error::other(panic_message(panic)), incoming: None })
            }
        }
    }
}
