use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    vec::Drain,
};

use super::{
    HandlerFactory, Platform, ShardRegistry, ThreadLauncher,
    launcher::{FirstCommand, ShardLauncher, take},
    platform::StreamOf,
};
use crate::{
    contained::Contained,
    dial::NewDial,
    error::panic_message,
    framing::Framing,
    handler::PacketHandler,
    id::ShardId,
    reactor::{Dispatch, DispatchDials, HandOverError},
    shard::{Command, Framings, Incoming},
    sync::MailboxClosed,
};

/// Hands connections over between the threads of a server.
pub(super) struct HandOver<P: Platform, H, F> {
    platform: P,
    registry: Arc<ShardRegistry<P>>,
    framings: Framings<F>,
    factory: Contained<Box<dyn HandlerFactory<H>>>,
}

impl<P: Platform, H, F> HandOver<P, H, F> {
    pub(super) fn new(
        platform: P,
        registry: Arc<ShardRegistry<P>>,
        framings: Framings<F>,
        factory: Box<dyn HandlerFactory<H>>,
    ) -> Self {
        Self { platform, registry, framings, factory: Contained::new(factory) }
    }
}

impl<P, H, F> Dispatch<StreamOf<P>> for HandOver<P, H, F>
where
    P: Platform,
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
{
    fn send(&mut self, shard: ShardId, batch: Drain<'_, Incoming<StreamOf<P>>>) -> io::Result<()> {
        let shard = self.registry.numbers.on_thread(shard);
        let member = self.registry.member(shard).ok_or(io::ErrorKind::NotConnected)?;
        let posted = member.mailbox.post_control_all(batch.map(Command::Adopt));
        posted.map_err(|MailboxClosed| io::ErrorKind::NotConnected.into())
    }

    fn fork(&mut self, incoming: Incoming<StreamOf<P>>) -> Result<(), HandOverError<StreamOf<P>>> {
        let listener = incoming.endpoints.listener();
        self.fork_for(listener, Command::Adopt(incoming)).map_err(|(error, first)| {
            let incoming = if let Some(Command::Adopt(incoming)) = first { Some(incoming) } else { None };
            HandOverError { error, incoming }
        })
    }
}

impl<P, H, F> DispatchDials for HandOver<P, H, F>
where
    P: Platform,
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
{
    fn send_dial(&mut self, shard: ShardId, dial: Box<NewDial>) -> io::Result<()> {
        hand_dial(&self.registry, shard, dial)
    }

    fn fork_dial(&mut self, dial: Box<NewDial>) -> io::Result<()> {
        self.fork_for(None, Command::Dial(dial)).map_err(|(error, _)| error)
    }
}

/// Hands a dial to a standing shard, by the number of its thread.
pub(super) fn hand_dial<P: Platform>(
    registry: &ShardRegistry<P>,
    thread: ShardId,
    dial: Box<NewDial>,
) -> io::Result<()> {
    let shard = registry.numbers.on_thread(thread);
    let member = registry.member(shard).ok_or(io::ErrorKind::NotConnected)?;
    let posted = member.mailbox.post_control(Command::Dial(dial));
    posted.map_err(|_| io::ErrorKind::NotConnected.into())
}

/// Why no thread was started, and what it was to do first, unless that is lost.
type NotForked<T> = (io::Error, Option<Command<T>>);

impl<P, H, F> HandOver<P, H, F>
where
    P: Platform,
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
{
    /// Starts a shard for a connection of this listener, or for one that it is to make.
    fn fork_for(
        &mut self,
        listener: Option<usize>,
        first: Command<StreamOf<P>>,
    ) -> Result<(), NotForked<StreamOf<P>>> {
        let first: FirstCommand<_> = Arc::new(Mutex::new(Some(first)));
        // Handler and framings are cloned here, by the user's code.
        let forked = catch_unwind(AssertUnwindSafe(|| {
            let framings = self.framings.clone_for(listener);
            let (sys, waker) = self.platform.sys(self.registry.numbers.origin())?;
            let shard =
                ShardLauncher::forked(&self.registry, waker, framings, &mut **self.factory, first.clone())?;
            Ok::<_, io::Error>(ThreadLauncher::new(self.platform.clone(), sys, vec![Box::new(shard)]))
        }));
        match forked {
            Ok(Ok(launcher)) => launcher.spawn().map(drop).map_err(|error| (error, take(&first))),
            Ok(Err(error)) => Err((error, take(&first))),
            Err(panic) => Err((io::Error::other(panic_message(panic)), None)),
        }
    }
}
