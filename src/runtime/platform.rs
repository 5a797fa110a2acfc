use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use super::{LookUp, Resolver, ThreadLauncher};
use crate::{
    error::ServeError,
    reactor::{MioSys, Sys},
    sync::Wake,
};

/// Where shards run: on threads of the system, or in a simulation.
pub(crate) trait Platform: Clone + Send + Sync + 'static {
    type Sys: Sys<Stream: Send + 'static, Listener: Send + 'static, Datagrams: Send + 'static> + 'static;
    type Thread;

    /// Creates what one event loop needs of the system, and what wakes it.
    fn sys(&self, origin: Instant) -> io::Result<(Self::Sys, Arc<dyn Wake>)>;

    /// Looks a name up on another thread, which is `resolver`'s.
    fn look_up(&self, resolver: &Resolver, asked: LookUp) -> io::Result<()>;

    /// Runs shards on a thread of their own.
    fn spawn(&self, name: String, thread: ThreadLauncher<Self>) -> io::Result<Self::Thread>;
}

/// What an event loop of a platform needs.
pub(super) type SysOf<P> = <P as Platform>::Sys;
/// The streams of a platform.
pub(super) type StreamOf<P> = <<P as Platform>::Sys as Sys>::Stream;
/// The listeners of a platform.
pub(super) type ListenerOf<P> = <<P as Platform>::Sys as Sys>::Listener;

/// The operating system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct System;

/// A thread of the system that runs a shard.
pub(crate) type ShardThread = JoinHandle<Result<(), ServeError>>;

impl Platform for System {
    type Sys = MioSys;
    type Thread = ShardThread;

    fn sys(&self, origin: Instant) -> io::Result<(MioSys, Arc<dyn Wake>)> {
        MioSys::new(origin)
    }

    fn look_up(&self, resolver: &Resolver, asked: LookUp) -> io::Result<()> {
        resolver.look_up(asked)
    }

    fn spawn(&self, name: String, thread: ThreadLauncher<Self>) -> io::Result<ShardThread> {
        thread::Builder::new().name(name).spawn(move || thread.run())
    }
}
