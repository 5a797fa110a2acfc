//! Servers that hold very many framed connections: a [`Framing`] cuts each byte stream into packets, a
//! [`PacketHandler`] handles them, and a [`ForkingStrategy`], one line to change, runs it all on one thread, on a pool
//! of threads, or on one thread per connection.
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
//! A *frame* is what is on the wire, a *packet* is what the handler gets; a *session* is one connection; a *shard* is a
//! set of sessions that one thread serves with a handler of its own, so that nothing is locked.
//!
//! # A server with state, and how it is stopped
//!
//! ```
//! use std::{io::{Read, Write}, net::TcpStream, time::Duration};
//! use framewire::{CloseReason, Handled, LengthPrefix, Limits, PacketHandler, Server, Session, SessionInfo};
//!
//! /// Replies to each packet with the number of bytes that its session has sent so far.
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
//! let server = Server::bind("127.0.0.1:0")? // port 0: any free port
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
//! server.stop(Duration::from_secs(5))?; // closes sessions gracefully; resets those that are left after 5 s
//! # Ok(())
//! # }
//! ```
//!
//! The [guide] has the rest by chapters, from a first server to its operation.
//!
//! # The floors
//!
//! A module uses only its own floor and those below. Up to floor 2 everything is a pure state machine: bytes, commands
//! and the time go in; packets, bytes to write and deadlines come out. Only floor 3 does I/O, and it makes no
//! decisions.
//!
//! ```text
//! 4  facade    server: bind, serve, watch, stop · channel · blocking: clients that wait · testing: for your own framings and handlers · guide: nothing but text
//! 3  world     reactor: polls, sockets, the clock, one event loop per thread · runtime: threads, and how a connection gets to one
//! 2  shard     shard: many sessions, one handler · strategy: which shard a connection lives on
//! 1  session   session: one connection, opening → open → draining → closed, its timers and limits · layer · tls · websocket · handler: the callbacks · dial: connections to be made
//! 0  bytes     framing · wire: varints, strings · buffer: inbox and outbox · timer_wheel · sync: what threads share (mailbox, ticket, admission)
//!              addr · encode, decode, formats: packets and values · deflate · contained: panics · error · events, log: what operators are told · id · limits · metrics · slots · time
//! ```
//!
//! The path of a byte, there and back:
//!
//! ```text
//! kernel → event loop (recv) → shard → connection → Framing::decode → PacketHandler::on_packet(&[u8])
//!        → Session::send → Framing::encode → outbox … end of the batch … event loop (send) → kernel
//! ```
//!
//! Frames are decoded where they were received, and packets are handed out as slices of that buffer: nothing is copied
//! on the way in except an unfinished tail, and bytes are copied once on the way out. What a session queues for itself
//! is written as soon as the packets of its read have been handled; what is sent to other sessions is written in the
//! same turn of the event loop. An idle session owns no buffer.
//!
//! # What is where
//!
//! | for | see |
//! |---|---|
//! | cutting a stream | [`framing`]: [`LengthPrefix`], [`LengthField`], [`VarintPrefix`], [`Separator`], [`FixedLength`], [`Netstring`], [`UntilEof`], [`Raw`]; [`framing_fn`] and [`Framing`] for your own, [`testing::law`] to test it; [`Oversize`]; [`framing::Deframer`] without a server |
//! | reading and writing what is in a packet | [`wire`]: varints, bools, strings and byte arrays with a maximum, on `bytes`' `Buf` and `BufMut` |
//! | packets as values | [`Encode`] and [`encode_fn`] (what can be sent), [`Decode`]; JSON, postcard, XML, plain memory and LZ4 by [features](#features) |
//! | handling packets | [`packet_fn`], [`session_fn`], [`PacketHandler`], [`per_shard`], and in the callbacks [`Session`] |
//! | sending to others | [`Session::send_to`] (by id, within a shard without a lock), [`SessionHandle`] (any thread, any time), [`SendTicket`] and [`SessionHandle::send_then`] (was it written?), [`SessionHandle::send_waiting`] (waits for room) |
//! | passing packets on without a callback | [`Session::link`]: what a proxy is made of |
//! | what concerns a whole shard | [`ShardContext`], in [`PacketHandler::on_start`], [`PacketHandler::on_shard_timer`] and [`ServerHandle::execute_with`] |
//! | where connections live | [`SingleReactor`], [`WorkerPool`], [`ThreadPerConnection`]; [`ForkingStrategy`] for your own, which may also take the socket ([`Placement::Detach`]) |
//! | connecting | [`Dial`], by [`Session::connect`], [`ShardContext::connect`], or [`ServerHandle::connect`] with an [`Upstream`], which outlives its connections by [`Reconnect`]; [`Server::unbound`] for a server that only connects; [`DialError`] |
//! | peers on UDP | [`Server::bind_udp`]: a peer is a session, a datagram a packet; [`Beyond`] (what happens to more peers than there may be); [`Dial::to_udp`] |
//! | streams multiplexed over connections | [`Server::carried`]: sessions within sessions, by a [`Mux`] and [`Streams`]; [`NewStream`], [`StreamError`] |
//! | starting and stopping | [`Server`] ([`Server::also`]: further listeners with another framing, told apart by [`Origin`]), [`Reactor`] (several services on one set of threads), [`RunningServer`], [`ServerHandle`] |
//! | serving behind a proxy, or being one | [`Server::proxy_protocol`], [`Session::proxied`], [`Dial::proxy_header`] |
//! | transforming bytes between socket and framing | [`Layer`], by [`Server::layer`] or [`Session::push_layer`]; [`LayerIo`], [`LayerError`]; [`Sniff`] tells by the first bytes which of several protocols a peer speaks; `Deflate` by the [feature](#features) `deflate` |
//! | encrypting | by the [feature](#features) `tls`: `Server::tls` with a `TlsAcceptor`, `Dial::tls` and [`blocking::Client`] with a `TlsConnector`, `Session::tls`; [the guide](guide::tls) |
//! | browsers | by the [feature](#features) `websocket`: `Server::websocket`, `Sniff::websocket`, `Dial::websocket`; [the guide](guide::browsers) |
//! | asking a server, and waiting for the reply | [`blocking::Client`], [`blocking::Listener`]: without a reactor or callbacks |
//! | bounds and timeouts | [`Limits`]; for one session [`Session::set_idle_timeout`], [`Session::set_max_age`] |
//! | finding dead peers | [`Heartbeat`], set by [`Session::set_heartbeat`] |
//! | what went wrong | [`CloseReason`] (why a session ended), [`Failure`] (why a callback failed), [`SendError`], [`FrameError`] (the peer broke the wire), [`EncodeError`] (a packet cannot be encoded), [`DecodeError`] (a packet is not what it should be), [`ServeError`], [`FramingConfigError`] |
//! | watching | [`Metrics`] (what was counted), [`Rates`] (how fast, between two of them), [`Sample`] (for an exporter), [`SessionStats`], [`SessionInfo`]; [`Event`]s by [`ServerHandle::events`]; a log by `tracing`, in which what a peer repeats is summed up |
//!
//! # What happens when
//!
//! - **A peer does not read.** [`Session::send`] never blocks: it queues. While more than [`Limits::outbox_high`] is
//!   queued, the server does not read from the session, so that requests cannot outrun replies; a `send` that would
//!   exceed [`Limits::outbox_hard`] returns [`SendError::Full`]; and after [`Limits::stall_timeout`] without progress
//!   the session ends.
//! - **A peer is silent.** By default nothing happens. With [`Limits::idle_timeout`], or a timeout of the session's own,
//!   [`PacketHandler::on_idle`] decides; with a [`Heartbeat`] that has a [`lost_after`](Heartbeat::lost_after), a session
//!   ends when its peer has answered none of so many beats. What we send is never taken for a sign of the peer's life.
//! - **A peer violates the framing.** Its session ends with [`CloseReason::Frame`], which shows the first bytes of the
//!   frame.
//! - **A layer does a handshake.** The session is not open yet: [`PacketHandler::on_open`] is called when all of its
//!   layers have finished, or never, if that takes longer than [`Limits::handshake_timeout`].
//! - **A session closes.** [`PacketHandler::on_closing`] is called when closing begins, [`PacketHandler::on_close`]
//!   when it is over. A peer can draw out the time between the two: a handler that keeps a list of users removes them
//!   in `on_closing`.
//! - **A callback panics.** Its session ends with [`CloseReason::Panicked`]; the shard goes on. This needs unwinding
//!   panics (the default, `panic = "unwind"`).
//! - **A destructor panics** (of a handler, a state, a framing, a strategy, a closure, a packet). The server catches
//!   the panic where it drops the value, and logs it; it affects no session but the value's own, and the server still
//!   stops cleanly. A destructor that panics while a callback's own panic unwinds aborts the process, as everywhere in
//!   Rust.
//! - **A callback blocks.** All sessions of its shard wait, and [`Metrics::slow_turns`] counts a turn of more than
//!   100 ms. Blocking work belongs on another thread, with a [`SessionHandle`] for the reply (and [`Then::Stay`] from
//!   [`PacketHandler::on_end`], so that the reply still reaches a peer that has ended its side), or under
//!   [`ThreadPerConnection`]. [`RunningServer::stop`] returns in time all the same, and names the shard that still
//!   runs.
//! - **Descriptors run out.** The server stops accepting until some are free again; open sessions are served meanwhile.
//!
//! # Features
//!
//! None is needed, and none is on by default. All of them add to what is there:
//!
//! | feature | what it adds | by the crate |
//! |---|---|---|
//! | `json` | `Json`: values of serde as JSON | serde_json 1 |
//! | `postcard` | `Postcard`: values of serde in a compact binary format | postcard 1 |
//! | `xml` | `Xml`: values of serde as XML | quick-xml 0.41 |
//! | `zerocopy` | `Pod`, `PodRef`: values as they are in memory, also read without a copy | zerocopy 0.8 |
//! | `deflate` | `Deflate`: a [`Layer`] that compresses both directions; with `websocket` also compressed messages | flate2 1, in pure Rust |
//! | `lz4` | `Lz4`: packets that are compressed, each for itself | lz4_flex 0.14 |
//! | `prometheus` | a [`ServerHandle`] is a `Collector` | prometheus-client 0.26 |
//! | `tls` | `Server::tls`, `Dial::tls`, `blocking::Client::tls`, `Session::tls`: TLS 1.3 and 1.2 | rustls 0.23 with ring, rustls-native-certs 0.8 |
//! | `websocket` | `websocket`: WebSockets for browsers, on a port of their own or on that of other clients | httparse 1, sha1 0.11, base64 0.23, getrandom 0.3 |
//! | `signals` | `Server::stop_on_signal`: SIGINT and SIGTERM end the server (Unix) | signal-hook 0.4 |
//!
//! The documentation of each says what a hostile packet can cost. `internals` exposes the internal types that this
//! package's benchmarks measure; it is unstable: its items are undocumented and may change in any release.
//!
//! # What it is not
//!
//! - Not an async runtime, nor part of one: callbacks are plain functions that return soon. Where a request waits for
//!   other services, `async`/`await` on tokio reads better.
//! - No HTTP or gRPC: use hyper or tonic.
//! - Not needed for a few dozen connections: `std::net` with a thread for each is less to learn.
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
pub mod wire;

mod addr;
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "public in `internals`"))]
mod buffer;
mod contained;
mod decode;
#[cfg(feature = "deflate")]
mod deflate;
mod encode;
mod error;
mod events;
mod formats;
mod id;
mod limits;
mod log;
mod metrics;
mod slots;
mod sync;
mod time;
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "public in `internals`"))]
mod timer_wheel;

// Floor 1: one session.
mod dial;
mod handler;
mod layer;
mod session;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "websocket")]
pub mod websocket;

// Floor 2: many sessions.
mod shard;
mod strategy;

// Floor 3: the world.
mod reactor;
mod runtime;

// Floor 4: the facade.
pub mod blocking;
mod channel;
pub mod guide;
mod server;
pub mod testing;

/// A simulated network under the runtime and the reactor.
#[cfg(test)]
mod sim;

/// The crate whose `BytesMut` [`Framing::encode`] and [`Encode::encode`] take, and whose `Bytes` [`SessionHandle::send`]
/// shares.
pub use bytes;

pub use addr::{Addr, BindAddr, NetworkError, NewConnection, Origin};
pub use buffer::Overflow;
pub use channel::{Channel, Channels, Left};
pub use decode::{Decode, DecodeError};
pub use dial::{Dial, Reconnect, Upstream, UpstreamState, WhileDown};
pub use encode::{Encode, EncodeFn, encode_fn};
pub use error::{
    BroadcastError, CloseKind, CloseReason, DialError, DialErrorKind, Failure, Handled, JoinError,
    LayerError, LinkError, Outcome, QueryError, RefusalCause, SendError, ServeError, StreamError,
    TicketError,
};
pub use events::{Event, Events};
#[cfg(feature = "json")]
pub use formats::Json;
#[cfg(feature = "lz4")]
pub use formats::Lz4;
#[cfg(feature = "postcard")]
pub use formats::Postcard;
#[cfg(feature = "xml")]
pub use formats::Xml;
#[cfg(feature = "zerocopy")]
pub use formats::{Pod, PodRef};
pub use framing::{
    ByteOrder, BytesPreview, Decoded, EncodeError, FixedLength, FrameError, Framing, FramingConfigError,
    LengthField, LengthPrefix, Netstring, Oversize, Raw, Separator, UntilEof, VarintPrefix, framing_fn,
};
pub use handler::{PacketFn, PacketHandler, SessionFn, Then, packet_fn, session_fn};
pub use id::{DialId, SessionId, ShardId};
#[cfg(feature = "deflate")]
pub use layer::{Deflate, DeflateWindow};
pub use layer::{Layer, LayerIo, ProxyHeader, ProxyProtocol, Sniff, SniffLayer, Sniffed, Untrusted};
pub use limits::{Limits, WhileFull};
pub use metrics::{Metrics, Rates, Sample, SampleKind};
pub use server::{
    Carried, Datagram, Handlers, PerShard, Reactor, RunningServer, Server, ServerHandle, Transport, Unframed,
    per_shard,
};
pub use session::{
    Heartbeat, HeartbeatError, Mux, NewStream, Session, SessionHandle, SessionInfo, SessionStats,
    ShardContext, Streams, TimerError, TimerId,
};
pub use shard::Beyond;
pub use strategy::{
    AcceptMode, Detached, DetachedPlace, DetachedSocket, ForkingStrategy, Placement, ShardLoads,
    SingleReactor, ThreadPerConnection, WorkerPool,
};
pub use sync::{PublishTicket, SendTicket};
#[cfg(feature = "tls")]
pub use {
    error::{TlsConfigError, TlsError},
    tls::{
        Tls, TlsAcceptor, TlsAcceptorBuilder, TlsConnector, TlsConnectorBuilder, TlsIdentity, TlsInfo,
        TlsReloader, TlsRoots, TlsVersion,
    },
};

/// Compiles the README's code with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The internal types that `benches/` measures. Not part of the public interface: it may change in any release.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::buffer::Outbox;
    pub use crate::sync::{Mailbox, MailboxClosed, MailboxLimits, Prospect, Rejected, Room, Waited, Wake};
    pub use crate::timer_wheel::{Fired, TimerKey, TimerWheel};
}
