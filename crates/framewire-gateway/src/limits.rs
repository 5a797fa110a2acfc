use std::time::Duration;

use crate::protocol::{DEFAULT_MAX_LENGTH, LENGTH};

/// What a gateway allows. Everything that clients and servers can make it hold is bounded by one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayLimits {
    /// The largest LENGTH of a frame, in bytes. Default 524,288.
    pub max_length: u32,
    /// Clients that are connected at the same time. Default 1,000,000; the descriptors of the process are usually fewer.
    pub clients: usize,
    /// Server links at the same time, those included that have not proved their key yet; further ones wait.
    /// 0: as many as the descriptors allow. Default 1,024.
    pub servers: usize,
    /// Virtual connections of one client, dialed by either side. Default 16.
    pub connections_per_client: usize,
    /// Virtual connections of one server. Default 1,000,000.
    pub connections_per_server: usize,
    /// Dials of one client in one second; those above are refused. Default 100.
    pub dials_per_second: u32,
    /// Frames in one second for virtual connections that do not exist, after which a link is ended. Default 1,000.
    pub strays_per_second: u32,
    /// Bytes that wait for one virtual connection at an end that does not read. At this bound a connection towards a
    /// client is closed; at half of it, a client is not read from that sends to a server. A single frame may be larger.
    /// For a server one more frame comes on top of it, or what was on its way from another thread. Default 262,144.
    pub connection_queue: usize,
    /// Bytes that wait for one client, for all of its virtual connections together: above this the connections that
    /// bring more are closed. Default 2,097,152.
    pub client_queue: usize,
    /// Bytes that wait for one server, for all of its virtual connections together. At half of it those clients are not
    /// read from that send more; above it their connections are closed. Default 33,554,432.
    pub server_queue: usize,
    /// Bytes on their way to one thread from the others, above which the links that send them are not read from: each of
    /// these may bring one more frame. Default 4,194,304.
    pub thread_queue: usize,
    /// The time in which a server must have answered its challenge. Default 3 s.
    pub handshake: Duration,
    /// After so much silence a peer gets a ping; after as much again without any frame its link ends. Default 30 s.
    pub ping_interval: Duration,
}

impl GatewayLimits {
    /// Bytes that one connection may have on its way to another thread before it has heard there that it is held: what
    /// that thread has taken last, and what has come since.
    pub(crate) fn road(&self) -> usize {
        self.thread_queue.saturating_add(self.frame()).saturating_mul(2)
    }

    /// Bytes of the largest frame, with its field LENGTH.
    pub(crate) fn frame(&self) -> usize {
        LENGTH.saturating_add(self.max_length as usize)
    }
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            max_length: DEFAULT_MAX_LENGTH,
            clients: 1_000_000,
            servers: 1_024,
            connections_per_client: 16,
            connections_per_server: 1_000_000,
            dials_per_second: 100,
            strays_per_second: 1_000,
            connection_queue: 256 * 1024,
            client_queue: 2 * 1024 * 1024,
            server_queue: 32 * 1024 * 1024,
            thread_queue: 4 * 1024 * 1024,
            handshake: Duration::from_secs(3),
            ping_interval: Duration::from_secs(30),
        }
    }
}
