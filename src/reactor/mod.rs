//! The only floor that polls, reads the clock and starts threads. It decides nothing: what an event means, the shard says.

mod acceptor;
mod berth;
mod carrier;
mod crew;
mod descriptors;
mod event_loop;
mod mio_sys;
mod session_io;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod sim_tests;
mod socket;
#[cfg(unix)]
mod socket_file;
mod sys;

pub(crate) use acceptor::{Acceptor, AcceptorConfig, Dispatch, NoDispatch, Unforked};
pub(crate) use berth::{Berth, Ears, Seed, ShardThread};
pub(crate) use carrier::Carrier;
pub(crate) use crew::{Crew, Told};
pub(crate) use descriptors::descriptors_left;
pub(crate) use event_loop::{EventLoop, EventLoopConfig, Lifetime};
pub(crate) use mio_sys::MioSys;
pub(crate) use socket::{BoundSocket, Listener, SocketOptions, Stream};
pub(crate) use sys::{Ready, Sys};
