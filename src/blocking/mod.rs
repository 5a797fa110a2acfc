//! Clients that block: for a thread that asks a server and waits for the reply, without a reactor or callbacks.
//!
//! They use the framings, and the loop that cuts frames, of the rest of the library, over sockets of the standard library.
//! Every call ends: each has a timeout, and [`Client`] says what holds after it. A process with very many connections needs
//! a [`Server`](crate::Server) instead.
//!
//! ```text
//! kernel → recv → Deframer → recv() → &[u8], borrowed until the next call
//! send(packet) → Framing::encode_with → kernel; a beat that is due goes out while recv waits
//! ```

mod client;
mod connect;
mod error;
mod listener;
mod outgoing;
mod pulse;
mod replies;
#[cfg_attr(not(feature = "tls"), path = "plain.rs")]
mod secured;
mod stream;

pub use client::Client;
pub use error::ClientError;
pub use listener::Listener;
pub use replies::Replies;
pub use stream::Stream;
