//! A simulated world under the runtime and the reactor, for tests: virtual time, sockets in memory, threads that take
//! turns, and random faults that a seed reproduces.
//!
//! ```text
//! client's script ──say, end, reset──▶ Link { up, down } ◀──recv, send, accept── SimSys ◀── EventLoop
//!        agenda (by tick) ─────────────▶ edge ──▶ Epoll ──poll──▶ Ready
//! ```
//!
//! A poll that finds nothing moves the clock to the next thing that happens: an action of a client, or its own
//! deadline.

mod carrying;
mod client;
mod datagrams;
mod dialling;
mod epoll;
mod faults;
mod network;
mod platform;
mod probe;
mod rng;
mod sim_sys;
mod tests;
mod world;

pub(crate) use carrying::{CarryingSetup, CarryingWorld};
pub(crate) use client::Heard;
pub(crate) use dialling::{Answer, Attempt};
pub(crate) use faults::{Call, Calls, Fail, Faults, errno};
pub(crate) use network::{Conn, Freeze, Net, Network, Sizes};
pub(crate) use platform::SimPlatform;
pub(crate) use probe::{Callback, Log, Probe};
pub(crate) use rng::Rng;
pub(crate) use sim_sys::{SimFd, SimSys};
pub(crate) use world::{Setup, World, frame};
