//! Servers and clients over real sockets, a module for each topic.
//!
//! All of it is one program, whose tests run beside each other on threads of one process (and in a process each with nextest). What
//! changes a whole process, its signals or its descriptor limit, is tested by programs of its own beside this directory.

#[path = "../common/mod.rs"]
mod common;

mod admission;
mod backpressure;
mod between_sessions;
mod binding;
mod blocked_handlers;
#[cfg(unix)]
mod blocking_client;
mod broadcast;
mod changes_of_framing;
mod channels;
mod close_reasons;
mod closures;
mod datagram_dials;
mod datagrams;
#[cfg(feature = "deflate")]
mod deflated;
#[cfg(unix)]
mod detached;
mod dials;
mod encoders;
mod events;
mod handler_factories;
mod handlers;
mod heartbeats;
mod links;
mod listeners;
mod memory;
mod metrics;
mod overflow;
mod panicking_callbacks;
mod panicking_destructors;
mod placement;
#[cfg(unix)]
mod proxied;
mod reading_in_pieces;
mod refused_frames;
mod refused_sends;
#[cfg(all(feature = "tls", feature = "websocket"))]
mod secure_websockets;
mod server_handle;
mod services;
mod session_ends;
mod session_handle;
mod settings;
mod shutdown;
mod streams;
mod tickets;
mod tickets_and_closes;
mod timeouts;
mod timers;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_real_peers;
mod two_servers;
#[cfg(unix)]
mod unix_sockets;
#[cfg(feature = "websocket")]
mod websocket_counterparts;
#[cfg(feature = "websocket")]
mod websockets;
