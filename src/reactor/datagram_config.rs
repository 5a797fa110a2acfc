use std::sync::Arc;

use super::{Connector, Gate, Sys, datagram_dials::Datagrams, own_socket::PeerOf};
use crate::{
    addr::Addr,
    framing::LengthPrefix,
    handler::PacketHandler,
    shard::{Command, Shard},
    sync::Mailbox,
};

/// What a service of datagrams is made of.
pub(crate) struct DatagramConfig<Y: Sys, H: PacketHandler> {
    pub(crate) shard: Shard<H, LengthPrefix, PeerOf<Y>>,
    pub(crate) number: u8,
    pub(crate) sockets: Vec<(Y::Datagrams, Addr)>,
    pub(crate) gate: Gate,
    pub(crate) connector: Connector<Y, Datagrams>,
    /// The longest datagram, in bytes.
    pub(crate) longest: usize,
    /// Bytes that may wait for the sockets.
    pub(crate) most_waiting: usize,
    pub(crate) mailbox: Arc<Mailbox<Command<Y::Stream>>>,
}
