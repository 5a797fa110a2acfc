//! A gateway: it holds very many clients on one side and a few servers on the other, one connection each, and carries
//! *virtual connections* between them, so that a server sees its clients without holding their sockets.
//!
//! ```text
//! clients  ──link──┐             ┌──link──  servers
//!          ──link──┤   gateway   ├──link──
//!          ──link──┘             └          each link carries many virtual connections
//! ```
//!
//! Either side dials; [`protocol`] is what goes over a link. [`Gateway`] runs one; the package's binary is it with a
//! command line. [`ServerEndpoint`] and [`ClientEndpoint`] are the ends of virtual connections on a reactor, with the
//! handlers of ordinary connections; [`blocking`] has endpoints for programs that wait.
#![forbid(unsafe_code)]

mod admin;
pub mod blocking;
mod counters;
mod endpoint;
mod gateway;
mod hub;
mod ids;
mod keys;
mod limits;
mod links;
mod local;
pub mod protocol;
mod queue;
mod registry;
mod side;
mod threads;

pub use counters::GatewayMetrics;
pub use endpoint::{
    ClientEndpoint, DialNumber, EndpointHandle, LinkOptions, RunningEndpoint, ServerEndpoint, Virtual,
    VirtualDialError,
};
pub use gateway::{Gateway, RunningGateway};
pub use keys::{Dialect, Keys, KeysError};
pub use limits::GatewayLimits;
pub use registry::{GatewaySnapshot, ServerEntry};
pub use side::Side;
