//! The only floor that polls, reads the clock and starts threads. It decides nothing: what an event means, the shard says.

mod acceptor;
mod descriptors;
mod event_loop;
mod hand_over;
mod launcher;
mod mio_sys;
mod registry;
mod session_io;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod sim_tests;
mod socket;
#[cfg(unix)]
mod socket_file;
mod sys;

pub(crate) use acceptor::{Acceptor, AcceptorConfig, Dispatch, HandOverError, NoDispatch};
pub(crate) use descriptors::descriptors_left;
pub(crate) use event_loop::{EventLoop, EventLoopConfig, Lifetime};
pub(crate) use hand_over::HandOver;
pub(crate) use launcher::{AcceptorParts, HandlerFactory, ShardLauncher, ShardThread};
pub(crate) use mio_sys::MioSys;
pub(crate) use registry::{PostOutcome, ShardRegistry};
pub(crate) use socket::{BoundSocket, Listener, SocketOptions, Stream};
pub(crate) use sys::{Ready, Sys};
