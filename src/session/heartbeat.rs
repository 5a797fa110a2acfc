use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use thiserror::Error;

use crate::{
    encode::Encode,
    framing::EncodeError,
    time::{Tick, ticks},
};

/// The longest period: a due beat is remembered in 32 bits.
const LONGEST: Duration = Duration::from_secs(24 * 86_400);

/// A packet that a session sends again and again, so that its peer knows that we are alive; if the peer answers,
/// [`lost_after`](Self::lost_after) finds out whether it still is. Set it with
/// [`Session::set_heartbeat`](crate::Session::set_heartbeat).
///
/// **When.** The first beat is due one period after the heartbeat was set, and then one every period (in steps of 1 ms;
/// never early), whatever else is sent or received meanwhile. Other libraries send a ping only after a silence (Netty's
/// `IdleStateHandler`; MQTT 3.1.1, section 3.1.2.10) or regularly, as most do for WebSocket. Regularly is better here:
/// a beat asks for an answer and data may not, so that a session which only pushes would never hear from its peer; and
/// nothing has to be noted for each packet that is sent. A beat that comes late, because a callback held up the shard,
/// moves the following ones; none is made up for.
///
/// **What.** Each beat is a packet like any other: the session's present framing encodes it, its layers transform it,
/// and the counters count it. If the framing cannot encode it, the session is closed with
/// [`CloseReason::Send`](crate::CloseReason::Send). It is no sign of the peer's life: what a session sends never
/// restarts [`Limits::idle_timeout`](crate::Limits::idle_timeout).
///
/// **When not.** A beat is skipped while earlier packets wait to be written (the peer does not read as fast as we send,
/// which [`Limits::stall_timeout`](crate::Limits::stall_timeout) bounds) and while a layer is in its handshake. So
/// there is never more than one in the outbox. Beats go on while the session is paused, after the peer has ended its
/// side ([`Then::Stay`](crate::Then::Stay)) and during a shutdown in which the session stays. They stop when the
/// session begins to close.
///
/// Clones share the packet. A session with a heartbeat takes less than 16 bytes more than one without, apart from the
/// deadline timer that any timeout needs.
///
/// ```
/// use std::time::Duration;
/// use framewire::{Handled, Heartbeat, PacketHandler, Session};
///
/// /// Pings its peers every 20 s, and gives up those that answer none of three pings.
/// #[derive(Clone)]
/// struct Watchful(Heartbeat);
///
/// impl PacketHandler for Watchful {
///     type State = ();
///
///     fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
///         session.set_heartbeat(self.0.clone());
///         Ok(())
///     }
///
///     fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
///         match packet {
///             b"pong" => Ok(()),
///             packet => Ok(session.send(packet)?),
///         }
///     }
/// }
///
/// # fn main() -> Result<(), framewire::HeartbeatError> {
/// let handler = Watchful(Heartbeat::every(Duration::from_secs(20), "ping")?.lost_after(3));
/// # drop(handler);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Heartbeat(Arc<Beat>);

#[derive(Clone, PartialEq, Eq)]
struct Beat {
    period: Tick,
    lost_after: Option<u16>,
    packet: Bytes,
}

impl Heartbeat {
    /// Returns a heartbeat that sends `packet` every `period`, which is rounded up to milliseconds. The packet is encoded
    /// now, once.
    ///
    /// # Errors
    /// [`HeartbeatError::Period`] if `period` is zero, or longer than 24 days; [`HeartbeatError::Encode`] if the packet
    /// cannot be encoded.
    pub fn every(period: Duration, packet: impl Encode) -> Result<Self, HeartbeatError> {
        if period.is_zero() || period > LONGEST {
            return Err(HeartbeatError::Period(period));
        }
        // Copied, because `Bytes` may have a destructor of the user's, which would run wherever the last session ends.
        let packet = Bytes::copy_from_slice(&packet.to_bytes()?);
        Ok(Self(Arc::new(Beat { period: ticks(period), lost_after: None, packet })))
    }

    /// Closes the session with [`CloseReason::HeartbeatLost`](crate::CloseReason::HeartbeatLost) when this many beats
    /// in a row went without an answer, and the next is due. Any byte from the peer is an answer. So a peer is given up
    /// `beats` to `beats` + 1 periods after the last byte that came from it. By default none is.
    ///
    /// Each beat counts as one, at whatever time it was sent, and what the kernel has received is read before the peer
    /// is given up: a callback that blocks, or a process that was stopped, does no harm to a peer that has answered. A
    /// beat that was skipped does not count. While the session does not read (it is paused), and after the peer has
    /// ended its side, silence says nothing; when the session reads on, the count starts anew. 0 is as 1: no peer is
    /// given up before a beat was sent.
    #[must_use]
    pub fn lost_after(self, beats: u16) -> Self {
        Self(Arc::new(Beat { lost_after: Some(beats), ..Arc::unwrap_or_clone(self.0) }))
    }

    pub(crate) fn period(&self) -> Tick {
        self.0.period
    }

    /// Returns `true` if the peer is lost after so many beats without an answer.
    pub(crate) fn is_lost_after(&self, unanswered: u16) -> bool {
        self.0.lost_after.is_some_and(|beats| unanswered >= beats.max(1))
    }

    pub(crate) fn packet(&self) -> &[u8] {
        &self.0.packet
    }
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat")
            .field("period", &Duration::from_millis(self.0.period))
            .field("lost_after", &self.0.lost_after)
            .field("packet", &self.0.packet)
            .finish()
    }
}

/// Why a [`Heartbeat`] could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeartbeatError {
    /// No heartbeat has this period.
    #[error("a heartbeat every {0:?} is impossible: its period is above zero, and at most 24 days")]
    Period(Duration),
    /// The packet has no payload.
    #[error("the packet of the heartbeat cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::encode_fn;

    #[test]
    fn a_period_of_zero_or_of_months_is_refused() {
        for period in [Duration::ZERO, LONGEST + Duration::from_nanos(1), Duration::MAX] {
            assert_eq!(Heartbeat::every(period, "x"), Err(HeartbeatError::Period(period)));
        }
        for period in [Duration::from_nanos(1), LONGEST] {
            assert!(Heartbeat::every(period, "x").is_ok(), "{period:?}");
        }
    }

    #[test]
    fn a_packet_without_a_payload_is_refused() {
        let nothing = encode_fn(|_| Err(EncodeError::because("there is nothing to tell")));
        let refused = Heartbeat::every(Duration::from_secs(1), nothing).map_err(|error| error.to_string());
        let why = "the packet of the heartbeat cannot be encoded: there is nothing to tell";
        assert_eq!(refused, Err(why.to_owned()));
    }

    #[test]
    fn clones_share_the_packet() {
        let beat = Heartbeat::every(Duration::from_secs(1), [7; 1_000]).expect("the period is possible");
        let strict = beat.clone().lost_after(3);
        assert_eq!(beat.packet().as_ptr(), strict.clone().packet().as_ptr());
        assert_eq!((beat.is_lost_after(u16::MAX), strict.is_lost_after(2)), (false, false));
        assert!(strict.is_lost_after(3));
    }
}
