//! Polls, sockets and the clock. It decides nothing: what an event means, the shard says.
#![expect(clippy::disallowed_methods, reason = "this floor reads the clock")]

mod acceptor;
mod descriptors;
mod event_loop;
mod mio_sys;
mod session_io;
mod socket;
#[cfg(unix)]
mod socket_file;
mod sys;

pub(crate) use acceptor::{Acceptor, AcceptorConfig, Dispatch, HandOverError, NoDispatch};
pub(crate) use descriptors::descriptors_left;
#[cfg(test)]
pub(crate) use event_loop::WAKER;
pub(crate) use event_loop::{EventLoop, EventLoopConfig, Flow, Lifetime};
pub(crate) use mio_sys::MioSys;
pub(crate) use socket::{BoundSocket, Listener, SocketOptions, Stream};
pub(crate) use sys::{Ready, Sys};
