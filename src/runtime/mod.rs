//! Threads, and what they share: which there are, how each is started, and how a connection gets from one to another.
//! This module uses polls and threads only through a [`Platform`], so that the simulation runs pools, forks and
//! shutdowns on one thread.
#![expect(clippy::disallowed_methods, reason = "this floor reads the clock and starts threads")]

mod assemble;
mod datagrams;
mod fan_out;
mod hand_over;
mod launcher;
mod metrics_thread;
mod numbers;
mod platform;
mod registry;
mod resolver;
#[cfg(all(unix, feature = "signals"))]
mod signals;
mod start;
mod streams;

pub(crate) use datagrams::{DatagramParts, Intake, Sockets};
pub(crate) use fan_out::Posted;
#[cfg(test)]
pub(crate) use launcher::RunningThread;
pub(crate) use launcher::{AcceptorParts, HandlerFactory, ThreadLauncher};
pub(crate) use metrics_thread::{Measured, MetricsThread};
pub(crate) use numbers::ShardNumbers;
pub(crate) use platform::{Platform, ShardThread, System};
#[cfg(test)]
pub(crate) use registry::RegisteredShard;
pub(crate) use registry::{PostOutcome, ShardRegistry, Stop};
pub(crate) use resolver::{LookUp, Resolver};
#[cfg(all(unix, feature = "signals"))]
pub(crate) use signals::SignalThread;
pub(crate) use start::{ServiceParts, StartService, start_workers};
pub(crate) use streams::{Carrying, StreamParts};
