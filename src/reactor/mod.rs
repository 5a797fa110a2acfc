//! Polls, sockets and the clock. This module decides nothing: the shard says what an event means. Beside the loop,
//! `blocking_socket.rs` has sockets for clients without one.
#![expect(clippy::disallowed_methods, reason = "this floor reads the clock")]

mod accept_failure;
mod acceptor;
mod blocking_socket;
mod carrier;
mod carriers;
mod connect;
mod connector;
mod datagram_config;
mod datagram_dials;
mod datagram_port;
mod datagram_socket;
mod descriptors;
mod dialling;
mod dispatch;
mod event_loop;
mod gate;
mod mio_sys;
mod no_dials;
mod own_socket;
mod packet_loop;
mod peers;
mod placing;
mod poll_events;
mod port;
mod service;
mod service_loop;
mod session_io;
mod shared_socket;
mod shares;
mod socket;
#[cfg(unix)]
mod socket_file;
mod stream_port;
mod sys;
mod system_clock;
mod token;

#[cfg(test)]
pub(crate) use acceptor::Placed;
pub(crate) use acceptor::{Acceptor, AcceptorConfig};
pub(crate) use blocking_socket::{BlockingListener, BlockingSocket, Deadline, deadline, now};
pub(crate) use carriers::Carriers;
pub(crate) use connect::Streams;
pub(crate) use connector::{Connector, ConnectorConfig, Resolve};
pub(crate) use datagram_config::DatagramConfig;
pub(crate) use datagram_dials::Datagrams;
pub(crate) use datagram_port::DatagramPort;
pub(crate) use datagram_socket::BoundDatagrams;
pub(crate) use descriptors::descriptors_left;
pub(crate) use dispatch::{Dispatch, DispatchDials, HandOverError, NoDispatch};
pub(crate) use event_loop::EventLoop;
pub(crate) use gate::{Gate, Placing};
pub(crate) use mio_sys::MioSys;
pub(crate) use packet_loop::PacketLoop;
pub(crate) use service::{Flow, Service};
pub(crate) use service_loop::{Lifetime, ServiceConfig, ServiceLoop};
pub(crate) use socket::{BoundSocket, Listener, SocketOptions, Stream};
pub(crate) use stream_port::{StreamConfig, StreamPort};
pub(crate) use sys::{Connecting, Ready, Sys};
pub(crate) use token::{MAX_LISTENERS, MAX_SERVICES};
#[cfg(test)]
pub(crate) use token::{WAKER, is_session};
