/// What becomes of a packet for which a session has no room, because its peer does not read as fast as we send.
///
/// Set for one packet with [`Session::send_as`](crate::Session::send_as) and
/// [`SessionHandle::send_as`](crate::SessionHandle::send_as), for what is published to a channel with
/// [`Channel::overflow`](crate::Channel::overflow), and for all else that a session is sent with
/// [`Session::set_overflow`](crate::Session::set_overflow).
///
/// | | no room means | what happens then | counted in [`Metrics`](crate::Metrics) |
/// |---|---|---|---|
/// | `Close` | over [`Limits::outbox_hard`](crate::Limits::outbox_hard) | the session is closed, the packet is lost | `overflow_closed` |
/// | `Refuse` | over `outbox_hard` | the packet is lost | `overflow_refused` |
/// | `DropOldest` | over [`Limits::outbox_high`](crate::Limits::outbox_high) or [`Limits::outbox_packets`](crate::Limits::outbox_packets) | older packets go | `overflow_dropped` |
/// | `Latest` | the same, or one with the same key waits | that one goes, or older packets | `overflow_replaced`, `overflow_dropped` |
///
/// A packet that may be dropped waits as a whole behind what was given to the kernel, or is about to be (16 KiB, or one
/// packet); it is never cut. All packets of a session, whatever becomes of them, keep their order. Those that may be
/// dropped make way for those that may not: they never stop the reading from the session, nor cost another packet its
/// place. The latest of them always has room, unless those that are kept take up all of it. Each counts as 192 bytes
/// beside its frame.
///
/// So the outbox of a session holds no more than `outbox_high` and one packet of what may be dropped; what may not is
/// bounded by `outbox_hard` (twice that with what handles have sent). A peer that takes no byte at all is closed in any
/// case after [`Limits::stall_timeout`](crate::Limits::stall_timeout).
///
/// For comparison: NATS and Netty's users close or refuse by hand, ZeroMQ drops the newest packet at its high-water mark,
/// tokio's broadcast channel skips the oldest for the receiver that lags; all of them have one choice for a connection,
/// or for a socket.
///
/// ```
/// use framewire::{Handled, Overflow, PacketHandler, Session};
///
/// /// Sends each client the price of what it names. An old price is worth nothing once there is a new one.
/// #[derive(Clone)]
/// struct Prices;
///
/// impl PacketHandler for Prices {
///     type State = ();
///
///     fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
///         session.send_as("welcome", Overflow::Close)?;
///         Ok(())
///     }
///
///     fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), name: &[u8]) -> Handled {
///         let price = name.len() * 100;
///         session.send_as(price.to_string(), Overflow::Latest(name.len() as u64))?;
///         Ok(())
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The session is closed with [`CloseReason::Send`](crate::CloseReason::Send). The default: a peer that misses a
    /// packet it was meant to get must find out.
    #[default]
    Close,
    /// The packet is not sent, and the session stays as it is.
    Refuse,
    /// The oldest packets that may be dropped go, until there is room. If that is not enough, the packet itself is not
    /// sent.
    DropOldest,
    /// The packet takes the place of the one with the same key, if that still waits; otherwise as
    /// [`DropOldest`](Self::DropOldest). The key is any number that the sender chooses. To look for it takes time in
    /// proportion to the packets that wait, which [`Limits::outbox_packets`](crate::Limits::outbox_packets) bounds.
    Latest(u64),
}

impl Overflow {
    /// Returns `true` if the packet, or an older one, may be dropped while it waits.
    pub(crate) fn drops(self) -> bool {
        matches!(self, Self::DropOldest | Self::Latest(_))
    }
}
