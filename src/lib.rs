//! Servers that hold very many framed connections: a [`Framing`] cuts each byte stream into packets, a [`PacketHandler`]
//! answers them, and a [`ForkingStrategy`], one line to change, runs it all on one thread, on a pool of them, or on a thread
//! per connection.
//!
//! ```no_run
//! use framewire::{Handled, SessionInfo, Separator, Server, WorkerPool, packet_fn};
//!
//! fn main() -> Result<(), framewire::ServeError> {
//!     Server::bind("127.0.0.1:7000")?
//!         .framing(Separator::lines())
//!         .strategy(WorkerPool::per_core()) // or SingleReactor::new(), or ThreadPerConnection::max(1024)
//!         .serve(packet_fn(|session, packet| Ok(session.send(packet)?)))
//! }
//! ```
//!
//! A *frame* is what is on the wire, a *packet* is what the handler gets; a *session* is one connection; a *shard* is the
//! sessions of one thread, with a handler of its own, so that nothing is locked.
//!
//! # A server with state, and how it is stopped
//!
//! ```
//! use std::{io::{Read, Write}, net::TcpStream, time::Duration};
//! use framewire::{CloseReason, Handled, LengthPrefix, Limits, PacketHandler, Server, Session, SessionInfo};
//!
//! /// Answers each packet with how many bytes its session has sent so far.
//! #[derive(Clone)]
//! struct Sum;
//!
//! impl PacketHandler for Sum {
//!     type State = u64; // one per session
//!
//!     fn on_open(&mut self, _: &mut Session<'_>) -> Handled<u64> {
//!         Ok(0)
//!     }
//!
//!     fn on_packet(&mut self, session: &mut Session<'_>, sum: &mut u64, packet: &[u8]) -> Handled {
//!         *sum += packet.len() as u64;
//!         Ok(session.send(sum.to_be_bytes())?)
//!     }
//!
//!     fn on_close(&mut self, session: &SessionInfo, sum: u64, reason: &CloseReason) {
//!         println!("{} ended after {sum} bytes: {reason}", session.id);
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::bind("127.0.0.1:0")? // port 0: any that is free
//!     .framing(LengthPrefix::u16_be())
//!     .limits(Limits::default().idle_timeout(Duration::from_secs(60)))
//!     .spawn(Sum)?;
//!
//! let mut peer = TcpStream::connect(server.local_addr().ok_or("not TCP")?)?;
//! peer.write_all(b"\0\x05hello")?;
//! let mut reply = [0; 10];
//! peer.read_exact(&mut reply)?;
//! assert_eq!(reply, [0, 8, 0, 0, 0, 0, 0, 0, 0, 5]);
//!
//! drop(peer);
//! server.stop(Duration::from_secs(5))?; // answers everything first; what is left after 5 s is cut
//! # Ok(())
//! # }
//! ```
//!
//! # The floors
//!
//! A module uses its own floor and those below. Up to floor 2 everything is a pure machine: bytes, commands and the time go
//! in; packets, bytes to write and deadlines come out. Only floor 3 touches the world, and it decides nothing.
//!
//! ```text
//! 4  facade    server: bind, serve, watch, stop · testing: for your own framings and handlers
//! 3  world     reactor: polls, sockets, the clock, one event loop per shard · runtime: threads, and how a connection gets to one
//! 2  shard     shard: many sessions, one handler · strategy: which shard a connection lives on
//! 1  session   session: one connection, opening → open → draining → closed, its timers and limits · layer · handler: the callbacks
//! 0  bytes     framing · buffer: inbox and outbox · timer_wheel · sync: what threads share (mailbox, ticket, admission)
//!              addr · contained: panics · error · id · limits · metrics · slots · time
//! ```
//!
//! The path of a byte, there and back:
//!
//! ```text
//! kernel → event loop (recv) → shard → connection → Framing::decode → PacketHandler::on_packet(&[u8])
//!        → Session::send → Framing::encode → outbox … end of the batch … event loop (send) → kernel
//! ```
//!
//! Frames are decoded where they were received, and packets handed out as slices of that: no copy on the way in, but for
//! an unfinished tail, and one on the way out. An idle session owns no buffer.
//!
//! # What is where
//!
//! | for | see |
//! |---|---|
//! | cutting a stream | [`framing`]: [`LengthPrefix`], [`LengthField`], [`VarintPrefix`], [`Separator`], [`FixedLength`], [`Netstring`], [`UntilEof`], [`Raw`]; [`framing_fn`] and [`Framing`] for your own, [`testing::law`] to test it; [`Oversize`]; [`framing::Deframer`] without a server |
//! | answering packets | [`packet_fn`], [`PacketHandler`], [`per_shard`], and in the callbacks [`Session`] |
//! | sending to others | [`Session::send_to`] (by id, within a shard without a lock), [`SessionHandle`] (any thread, any time), [`SendTicket`] (was it written?) |
//! | what is about a whole shard | [`ShardContext`], in [`PacketHandler::on_start`], [`PacketHandler::on_shard_timer`] and [`ServerHandle::execute_with`] |
//! | where connections live | [`SingleReactor`], [`WorkerPool`], [`ThreadPerConnection`]; [`ForkingStrategy`] for your own |
//! | starting and stopping | [`Server`], [`Reactor`] (several services on one set of threads), [`RunningServer`], [`ServerHandle`] |
//! | bytes between socket and framing | [`Layer`], by [`Server::layer`] or [`Session::push_layer`]; [`LayerIo`], [`LayerError`] |
//! | bounds and timeouts | [`Limits`] |
//! | what went wrong | [`CloseReason`] (why a session ended), [`Failure`] (why a callback gave up), [`SendError`], [`FrameError`] (the peer broke the wire), [`EncodeError`] (a payload has no frame), [`ServeError`], [`FramingConfigError`] |
//! | watching | [`Metrics`], [`SessionStats`], [`SessionInfo`]; events go to `tracing` |
//!
//! # What happens when
//!
//! - **A peer does not read.** [`Session::send`] never blocks: it queues. Above [`Limits::outbox_high`] the session is not read
//!   from, so that requests cannot outrun replies; at [`Limits::outbox_hard`] `send` returns [`SendError::Full`], and
//!   without progress for [`Limits::stall_timeout`] the session ends.
//! - **A peer breaks the wire.** Its session ends with [`CloseReason::Frame`], which shows the first bytes that it sent.
//! - **A layer shakes hands.** The session is not open yet: [`PacketHandler::on_open`] comes when its layers are through, or never,
//!   after [`Limits::handshake_timeout`].
//! - **A session closes.** [`PacketHandler::on_closing`] is called when that begins, [`PacketHandler::on_close`] when it is
//!   over. A peer can draw out what lies between: who keeps a list of users takes them off it in the first.
//! - **A callback panics.** Its session ends with [`CloseReason::Panicked`]; the shard goes on. This takes unwinding panics
//!   (the default, `panic = "unwind"`).
//! - **A destructor panics** (of a handler, a state, a framing, a strategy, a closure, a packet). The panic is caught where
//!   the server drops the value, and logged; no session but the value's own has a part in it, and the server stops in peace. One
//!   that panics while a callback's own panic unwinds ends the process, as everywhere in Rust.
//! - **A callback blocks.** All sessions of its shard wait, and [`Metrics::slow_turns`] counts it. Work that blocks belongs on
//!   another thread, with a [`SessionHandle`] for the answer (and [`Then::Stay`] from [`PacketHandler::on_end`], so that the
//!   answer still reaches a peer that has ended its side), or under [`ThreadPerConnection`]. [`RunningServer::stop`] returns in
//!   time all the same, and names the shard that still runs.
//! - **Descriptors run out.** Accepting pauses and goes on by itself; open sessions are served.
//!
//! # Features
//!
//! None is needed, and none is on by default. `internals` opens what the benchmarks of this package measure of the inside; it is
//! unstable: what it shows may change in any release, and is in no documentation.
//!
//! # What it is not
//!
//! - No async runtime, and no part of one: callbacks are plain functions that return soon. Where a request waits for other
//!   services, `async`/`await` on tokio reads better.
//! - No HTTP, gRPC or WebSocket: use hyper, tonic or tungstenite.
//! - No TLS, UDP, clients, broadcast channels or heartbeats yet.
//! - Nothing that a few dozen connections need: `std::net` and a thread for each do that with less to learn.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::disallowed_methods
    )
)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "framewire needs a 64-bit target: a poll token holds the slot of a session and its generation"
);

// Floor 0: bytes.
pub mod framing;

mod addr;
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "public in `internals`"))]
mod buffer;
mod contained;
mod error;
mod id;
mod limits;
mod metrics;
mod slots;
mod sync;
mod time;
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "public in `internals`"))]
mod timer_wheel;

// Floor 1: one session.
mod handler;
mod layer;
mod session;

// Floor 2: many sessions.
mod shard;
mod strategy;

// Floor 3: the world.
mod reactor;
mod runtime;

// Floor 4: the facade.
mod server;
pub mod testing;

/// A simulated network under the runtime and the reactor.
#[cfg(test)]
mod sim;

/// The crate whose `BytesMut` and `Bytes` [`Framing::encode`] and [`SessionHandle::send_bytes`] take.
pub use bytes;

pub use addr::Addr;
pub use error::{
    CloseKind, CloseReason, Failure, Handled, LayerError, QueryError, SendError, ServeError, TicketError,
};
pub use framing::{
    ByteOrder, BytesPreview, Decoded, EncodeError, FixedLength, FrameError, Framing, FramingConfigError,
    LengthField, LengthPrefix, Netstring, Oversize, Raw, Separator, UntilEof, VarintPrefix, framing_fn,
};
pub use handler::{PacketFn, PacketHandler, Then, packet_fn};
pub use id::{SessionId, ShardId};
pub use layer::{Layer, LayerIo};
pub use limits::Limits;
pub use metrics::Metrics;
pub use server::{
    BindAddr, Handlers, PerShard, Reactor, RunningServer, Server, ServerHandle, Unframed, per_shard,
};
pub use session::{Session, SessionHandle, SessionInfo, SessionStats, ShardContext, TimerError, TimerId};
pub use strategy::{
    AcceptMode, ForkingStrategy, NewConnection, Placement, ShardLoads, SingleReactor, ThreadPerConnection,
    WorkerPool,
};
pub use sync::SendTicket;

/// The README's code is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// What `benches/` measure of the inside. No part of the interface: it may change in any release.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::buffer::Outbox;
    pub use crate::sync::{Mailbox, MailboxClosed, MailboxLimits, Rejected, Wake};
    pub use crate::timer_wheel::{Fired, TimerKey, TimerWheel};
}
