//! Every limit of a server, with its unit and default.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// As many as a poll token can number.
pub(crate) const MOST_DIALS: usize = 1 << 15;

/// What a server does with the packets of a session while more than [`Limits::outbox_high`] waits for that session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum WhileFull {
    /// The session is not read from until its outbox has fallen to [`Limits::outbox_low`]. The default: a peer that
    /// does not take the replies cannot ask for more, so no handler has to think of it.
    #[default]
    PauseReading,
    /// The session is read from all the same. For services in which what a session sends does not go back to it: a push
    /// server whose subscribers send acknowledgements, a bus, one side of a gateway. Otherwise a peer that is slow to
    /// take what others send to it could not even say that it is alive, or unsubscribe.
    ///
    /// **What bounds memory then** is what is done at the other limits, so do not ignore the errors of sends:
    ///
    /// - The outbox of a session holds up to [`Limits::outbox_hard`], twice that with what handles send, where it would
    ///   otherwise hold little more than `outbox_high` of what the session has itself asked for. Beyond that `send`
    ///   returns [`SendError::Full`](crate::SendError::Full), which closes the session if the callback passes it on with
    ///   `?`; everything else closes it by itself, unless its [`Overflow`](crate::Overflow) says what is dropped.
    /// - A peer that takes no byte at all is closed after [`Limits::stall_timeout`].
    /// - All sessions of a shard together hold no more than [`Limits::shard_memory`].
    ///
    /// [`on_drained`](crate::PacketHandler::on_drained) is called as with `PauseReading`. A session with layers is not
    /// read from while they have more than `outbox_hard` to write, because they may write while they read. Sessions that
    /// are [linked](crate::Session::link) hold up each other in any case.
    KeepReading,
}

/// The limits of a session, a shard and a server.
///
/// | limit | default | what happens at the limit |
/// |---|--:|---|
/// | [`frame`](Self::frame) | 1 MiB | the session ends with [`FrameError::TooLong`](crate::FrameError::TooLong) |
/// | [`outbox_high`](Self::outbox_high) | 256 KiB | the server stops reading from the session … |
/// | [`outbox_low`](Self::outbox_low) | 64 KiB | … until its outbox has fallen to this |
/// | [`outbox_hard`](Self::outbox_hard) | 4 MiB | `send` returns [`SendError::Full`](crate::SendError::Full) |
/// | [`while_full`](Self::while_full) | `PauseReading` | whether a session above `outbox_high` is read from |
/// | [`outbox_packets`](Self::outbox_packets) | 1,024 | the oldest packet that may be dropped goes |
/// | [`shard_memory`](Self::shard_memory) | 256 MiB | the session that buffers the most is closed |
/// | [`read_budget`](Self::read_budget) | 256 KiB | the session waits for its next turn |
/// | [`packet_budget`](Self::packet_budget) | 64 | the same |
/// | [`mailbox_commands`](Self::mailbox_commands) | 65,536 | sends from other threads return `MailboxFull` |
/// | [`mailbox_bytes`](Self::mailbox_bytes) | 64 MiB | the same |
/// | [`fanout_budget`](Self::fanout_budget) | 4,096 sessions, 1 MiB | a broadcast continues in the next turn |
/// | [`connections`](Self::connections) | 0: what descriptors allow | accepting pauses; clients wait in the backlog. UDP: 65,536 peers, see [`Beyond`](crate::Beyond) |
/// | [`connections_per_peer`](Self::connections_per_peer) | none | the connection is refused |
/// | [`handshakes`](Self::handshakes) | 4,096 | accepting pauses; clients wait in the backlog |
/// | [`dials`](Self::dials) | 16,384 | `connect` returns [`DialError::TooMany`](crate::DialError::TooMany) |
/// | [`session_timers`](Self::session_timers) | 16 | `set_timer` returns [`TimerError`](crate::TimerError) |
/// | [`idle_timeout`](Self::idle_timeout) | off; UDP: 60 s | `on_idle` is called, which closes by default |
/// | [`max_age`](Self::max_age) | off | the session ends with `MaxAge` |
/// | [`max_age_spread`](Self::max_age_spread) | a tenth of `max_age` | how much earlier sessions may end |
/// | [`stall_timeout`](Self::stall_timeout) | 30 s | the session ends with `Stalled` |
/// | [`first_packet_timeout`](Self::first_packet_timeout) | off | the session ends with `FirstPacket` |
/// | [`packet_timeout`](Self::packet_timeout) | off | the session ends with `SlowPacket` |
/// | [`handshake_timeout`](Self::handshake_timeout) | 10 s | the session ends with `Handshake` |
/// | [`close_timeout`](Self::close_timeout) | 5 s | a graceful close stops flushing |
/// | [`linger_timeout`](Self::linger_timeout) | 2 s | a graceful close stops waiting for the peer's end |
///
/// ```
/// use std::time::Duration;
/// use framewire::Limits;
///
/// let limits = Limits::default().frame(64 * 1024).idle_timeout(Duration::from_secs(90));
/// assert!(format!("{limits:?}").contains("frame: 65536"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub(crate) frame: usize,
    pub(crate) outbox_high: usize,
    pub(crate) outbox_low: usize,
    pub(crate) outbox_hard: usize,
    pub(crate) while_full: WhileFull,
    pub(crate) outbox_packets: usize,
    pub(crate) shard_memory: usize,
    pub(crate) read_budget: usize,
    pub(crate) packet_budget: u32,
    pub(crate) mailbox_commands: usize,
    pub(crate) mailbox_bytes: usize,
    /// Sessions, and bytes.
    pub(crate) fanout_budget: (usize, usize),
    pub(crate) connections: usize,
    pub(crate) connections_per_peer: Option<usize>,
    pub(crate) handshakes: usize,
    pub(crate) dials: usize,
    pub(crate) session_timers: usize,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_age: Option<Duration>,
    /// `None`: a tenth of `max_age`.
    pub(crate) max_age_spread: Option<Duration>,
    pub(crate) stall_timeout: Option<Duration>,
    pub(crate) first_packet_timeout: Option<Duration>,
    pub(crate) packet_timeout: Option<Duration>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) linger_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame: MIB,
            outbox_high: 256 * KIB,
            outbox_low: 64 * KIB,
            outbox_hard: 4 * MIB,
            while_full: WhileFull::PauseReading,
            outbox_packets: 1_024,
            shard_memory: 256 * MIB,
            read_budget: 256 * KIB,
            packet_budget: 64,
            mailbox_commands: 65_536,
            mailbox_bytes: 64 * MIB,
            fanout_budget: (4_096, MIB),
            connections: 0,
            connections_per_peer: None,
            handshakes: 4_096,
            dials: 16_384,
            session_timers: 16,
            idle_timeout: None,
            max_age: None,
            max_age_spread: None,
            stall_timeout: Some(Duration::from_secs(30)),
            first_packet_timeout: None,
            packet_timeout: None,
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            linger_timeout: Duration::from_secs(2),
        }
    }
}

impl Limits {
    /// The maximum length of a frame, in bytes. The framings of this crate use it as their maximum unless `max` was
    /// called on them (each says which bytes it counts); for any other framing it bounds how much of an unfinished
    /// frame is kept. Default 1 MiB.
    #[must_use]
    pub fn frame(mut self, bytes: usize) -> Self {
        self.frame = bytes;
        self
    }

    /// The high-water mark of a session's outbox, in bytes: while more is queued, the server does not read from the
    /// session, so a peer that does not take its replies cannot ask for more (unless
    /// [`while_full`](Self::while_full) says otherwise). Default 256 KiB.
    #[must_use]
    pub fn outbox_high(mut self, bytes: usize) -> Self {
        self.outbox_high = bytes;
        self
    }

    /// The low-water mark of a session's outbox, in bytes: once the outbox, having been above the high-water mark, has
    /// fallen to this, the server reads from the session again and calls `on_drained`. Default 64 KiB.
    #[must_use]
    pub fn outbox_low(mut self, bytes: usize) -> Self {
        self.outbox_low = bytes;
        self
    }

    /// Whether the server reads from a session whose outbox is above the high-water mark. Default:
    /// [`WhileFull::PauseReading`].
    ///
    /// ```
    /// use framewire::{Limits, WhileFull};
    ///
    /// // Subscribers are heard while a burst waits for them, which is no more than 1 MiB for each.
    /// let limits = Limits::default().while_full(WhileFull::KeepReading).outbox_hard(1 << 20);
    /// # assert!(format!("{limits:?}").contains("KeepReading"));
    /// ```
    #[must_use]
    pub fn while_full(mut self, choice: WhileFull) -> Self {
        self.while_full = choice;
        self
    }

    /// The most bytes that a session's outbox may hold: a `send` that would exceed it returns
    /// [`SendError::Full`](crate::SendError::Full). Whole frames count, headers and separators included, and 128 bytes
    /// for each packet that is [tracked](crate::SessionHandle::send_tracked). Default 4 MiB.
    ///
    /// A packet that a handle has accepted is not refused later: as handles may have as much again under way, an outbox
    /// can hold up to twice this limit. It never holds more: if a framing expands packets beyond that (to frames of
    /// many times their length), the session is closed.
    #[must_use]
    pub fn outbox_hard(mut self, bytes: usize) -> Self {
        self.outbox_hard = bytes;
        self
    }

    /// Packets sent with [`Overflow::DropOldest`](crate::Overflow::DropOldest) or
    /// [`Overflow::Latest`](crate::Overflow::Latest) that may wait in the outbox of one session. At the limit the oldest
    /// goes. Default 1,024: to look for a key among so many takes some microseconds.
    #[must_use]
    pub fn outbox_packets(mut self, packets: usize) -> Self {
        self.outbox_packets = packets;
        self
    }

    /// Bytes that all sessions of one shard may buffer together: their inboxes and outboxes, by capacity, the frames of
    /// broadcasts that they share, each counted once, and the buffers that the shard keeps for their next sends. Above it the shard first frees those spare buffers; if that
    /// is not enough, it closes the session that holds the most, with
    /// [`CloseReason::Memory`](crate::CloseReason::Memory). Default 256 MiB.
    #[must_use]
    pub fn shard_memory(mut self, bytes: usize) -> Self {
        self.shard_memory = bytes;
        self
    }

    /// Bytes read from one session in one turn of the event loop, so that no session keeps the others waiting. Default
    /// 256 KiB.
    #[must_use]
    pub fn read_budget(mut self, bytes: usize) -> Self {
        self.read_budget = bytes;
        self
    }

    /// Packets of one session that are handed out in one turn, whatever their length, for the same reason: even an empty
    /// one costs a callback. The rest waits for the next turn. Default 64, at most 2^32 - 1.
    ///
    /// More are worthwhile where one session brings packets for very many others, which are written to at the end of
    /// the turn: with few packets in each turn, each of the others is written to more often, and less at a time.
    /// Packets that take long end a session's share all the same: all sessions of a thread have 10 ms of a turn.
    #[must_use]
    pub fn packet_budget(mut self, packets: usize) -> Self {
        self.packet_budget = u32::try_from(packets).unwrap_or(u32::MAX);
        self
    }

    /// Commands (sends and other requests from other threads) that may wait in the mailbox of a shard. As many more may
    /// wait of what its own callbacks send by handles, channels and broadcasts, which goes past the mailbox. Default
    /// 65,536.
    #[must_use]
    pub fn mailbox_commands(mut self, commands: usize) -> Self {
        self.mailbox_commands = commands;
        self
    }

    /// Bytes that may wait in the mailbox of a shard: payloads, 128 bytes for each ticket, and 8 bytes for each session
    /// of a list that a packet brings along (that of [`ServerHandle::send_to`](crate::ServerHandle::send_to), or of a
    /// [`Channel`](crate::Channel) whose members have changed while others were on their way). As many more may wait of
    /// what goes past the mailbox. Default 64 MiB.
    #[must_use]
    pub fn mailbox_bytes(mut self, bytes: usize) -> Self {
        self.mailbox_bytes = bytes;
        self
    }

    /// What the broadcasts ([`ServerHandle::broadcast`](crate::ServerHandle::broadcast) and its like) may do on one shard
    /// in one turn of its event loop: look at so many sessions, and send so many bytes of payload (one packet may exceed
    /// them). The rest continues in the next turn, so that the sessions of the shard are served meanwhile. Default 4,096
    /// sessions and 1 MiB. All broadcasts together also pause when they have taken 1 ms of a turn, by a clock that is read
    /// every 32 sessions: what is bounded is the time that the shard spends on them in one turn. Packets for the same
    /// sessions that wait together, up to 64 of them and 64 KiB, go out together: a session is looked at once for all of
    /// them.
    #[must_use]
    pub fn fanout_budget(mut self, sessions: usize, bytes: usize) -> Self {
        self.fanout_budget = (sessions, bytes);
        self
    }

    /// Connections of the whole server. 0, the default, means as many as the descriptor limit allows. At the limit
    /// accepting pauses, and clients wait in the kernel's backlog. On UDP these are peers, which take no descriptors: 0
    /// means 65,536, and [`Server::beyond`](crate::Server::beyond) says what happens to more.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Connections from one peer address (IP without port); more are refused. Behind a [proxy](crate::ProxyProtocol),
    /// those of one client of the proxy. Default: no limit.
    #[must_use]
    pub fn connections_per_peer(mut self, connections: usize) -> Self {
        self.connections_per_peer = Some(connections);
        self
    }

    /// Accepted connections of the whole server whose [layers](crate::Layer) may be in their handshakes at once. A full
    /// handshake of TLS takes some thirty times the CPU of a small message. At the limit accepting pauses: clients wait in
    /// the kernel's backlog, in order, and their [`handshake_timeout`](Self::handshake_timeout) begins when they are
    /// accepted. A handshake that fails or takes too long makes room as one that succeeds does. Default 4,096. A low limit
    /// lets peers that connect and say nothing keep others waiting: shorten the timeout with it, or set
    /// [`connections_per_peer`](Self::connections_per_peer).
    #[must_use]
    pub fn handshakes(mut self, handshakes: usize) -> Self {
        self.handshakes = handshakes;
        self
    }

    /// Dials that may be under way on one shard: those that are connecting, with the names that they wait for, and those
    /// that live on as an [`Upstream`](crate::Upstream). Default 16,384; at most 32,768.
    #[must_use]
    pub fn dials(mut self, dials: usize) -> Self {
        self.dials = dials;
        self
    }

    /// Timers that one session may have set at once. Default 16.
    #[must_use]
    pub fn session_timers(mut self, timers: usize) -> Self {
        self.session_timers = timers;
        self
    }

    /// How long a session may receive nothing before `on_idle` is called. What is sent to it, a
    /// [`Heartbeat`](crate::Heartbeat) for example, makes no difference.
    /// [`Session::set_idle_timeout`](crate::Session::set_idle_timeout) sets another for one session. At least 1 ms, as all timeouts but
    /// [`close_timeout`](Self::close_timeout) and [`linger_timeout`](Self::linger_timeout). Default: off (`None`); for
    /// UDP peers, which cannot say that they are gone, `None` means 60 s.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = timeout.into();
        self
    }

    /// How long a session may be open, counted from when `on_open` returned; then it is closed gracefully with
    /// [`CloseReason::MaxAge`](crate::CloseReason::MaxAge). For servers whose clients are to connect anew now and then,
    /// because credentials expire or connections are to be spread over more machines. Each session ends somewhat
    /// earlier, see [`max_age_spread`](Self::max_age_spread); [`Session::set_max_age`](crate::Session::set_max_age) sets
    /// another age for one session, exactly. At least 1 ms. Default: off (`None`).
    #[must_use]
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.max_age = age.into();
        self
    }

    /// By how much less than [`max_age`](Self::max_age) a session may be open. Each session has an age of its own between
    /// both, evenly distributed and derived from its id: clients that have connected together, after a restart for
    /// example, are not sent away together, to come back together. Less than `max_age`; without `max_age` it has no
    /// effect. Default: a tenth of `max_age`. Zero means that all sessions reach the same age.
    ///
    /// ```
    /// use std::time::Duration;
    /// use framewire::Limits;
    ///
    /// // Sessions end after 50 to 60 minutes.
    /// let limits = Limits::default()
    ///     .max_age(Duration::from_secs(60 * 60))
    ///     .max_age_spread(Duration::from_secs(10 * 60));
    /// # assert!(format!("{limits:?}").contains("600"));
    /// ```
    #[must_use]
    pub fn max_age_spread(mut self, spread: Duration) -> Self {
        self.max_age_spread = Some(spread);
        self
    }

    /// How long the kernel may take no byte from a non-empty outbox before the session ends. Default 30 s; `None` means
    /// no limit.
    #[must_use]
    pub fn stall_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.stall_timeout = timeout.into();
        self
    }

    /// How long the peer of a new session may take to send its first packet. Default: off (`None`).
    #[must_use]
    pub fn first_packet_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.first_packet_timeout = timeout.into();
        self
    }

    /// How long one packet may take from its first byte to its last; this guards against peers that send byte by byte.
    /// It applies to a frame that is being discarded ([`Oversize::Discard`](crate::Oversize::Discard)) as well: a large
    /// announced length buys no time. Default: off (`None`).
    #[must_use]
    pub fn packet_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.packet_timeout = timeout.into();
        self
    }

    /// How long the handshakes of a session's [layers](crate::Layer) may take, counted from when the session began or
    /// the last layer was pushed. Default 10 s.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How long a graceful close may flush. Default 5 s; in a shutdown, the grace period if that is longer. For a peer
    /// that has ended its own side and still reads, [`stall_timeout`](Self::stall_timeout) applies instead. Time in
    /// which a callback held up the whole shard does not count.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// How long a graceful close, after flushing, waits for the peer's end of stream, reading and discarding. Default
    /// 2 s.
    #[must_use]
    pub fn linger_timeout(mut self, timeout: Duration) -> Self {
        self.linger_timeout = timeout;
        self
    }

    /// Returns the first setting that cannot work, and what is wrong with it.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, String)> {
        let positive = [
            ("limits.frame", self.frame),
            ("limits.outbox_hard", self.outbox_hard),
            ("limits.outbox_packets", self.outbox_packets),
            ("limits.shard_memory", self.shard_memory),
            ("limits.read_budget", self.read_budget),
            ("limits.packet_budget", self.packet_budget as usize),
            ("limits.mailbox_commands", self.mailbox_commands),
            ("limits.mailbox_bytes", self.mailbox_bytes),
            ("limits.handshakes", self.handshakes),
            ("limits.fanout_budget", self.fanout_budget.0.min(self.fanout_budget.1)),
        ];
        for (option, value) in positive {
            if value == 0 {
                return Err((option, "0 would refuse everything; give at least 1".into()));
            }
        }
        if self.outbox_low > self.outbox_high {
            let why = format!("{} is above limits.outbox_high ({})", self.outbox_low, self.outbox_high);
            return Err(("limits.outbox_low", why));
        }
        if self.outbox_high > self.outbox_hard {
            let why = format!("{} is above limits.outbox_hard ({})", self.outbox_high, self.outbox_hard);
            return Err(("limits.outbox_high", why));
        }
        let timeouts = [
            ("limits.idle_timeout", self.idle_timeout),
            ("limits.max_age", self.max_age),
            ("limits.stall_timeout", self.stall_timeout),
            ("limits.first_packet_timeout", self.first_packet_timeout),
            ("limits.packet_timeout", self.packet_timeout),
            ("limits.handshake_timeout", Some(self.handshake_timeout)),
        ];
        for (option, timeout) in timeouts {
            if timeout.is_some_and(|timeout| timeout < Duration::from_millis(1)) {
                return Err((option, "under 1 ms, the granularity of timers".into()));
            }
        }
        if let (Some(age), Some(spread)) = (self.max_age, self.max_age_spread) {
            if spread >= age {
                let why = format!("{spread:?} is not less than limits.max_age ({age:?})");
                return Err(("limits.max_age_spread", why));
            }
        }
        if self.dials > MOST_DIALS {
            return Err(("limits.dials", format!("{} dials; at most {MOST_DIALS} are possible", self.dials)));
        }
        if self.connections_per_peer == Some(0) {
            return Err(("limits.connections_per_peer", "0 would refuse every peer".into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Limits::default().validate(), Ok(()));
    }

    #[test]
    fn a_bad_limit_is_named() {
        let low = Limits::default().outbox_low(512 * KIB);
        assert_eq!(
            low.validate(),
            Err(("limits.outbox_low", "524288 is above limits.outbox_high (262144)".to_owned()))
        );
        let idle = Limits::default().idle_timeout(Duration::ZERO);
        assert_eq!(idle.validate().map_err(|(option, _)| option), Err("limits.idle_timeout"));
        let spread = Limits::default().max_age(Duration::from_secs(1)).max_age_spread(Duration::from_secs(1));
        assert_eq!(
            spread.validate(),
            Err(("limits.max_age_spread", "1s is not less than limits.max_age (1s)".to_owned()))
        );
        let frame = Limits::default().frame(0);
        assert_eq!(frame.validate().map_err(|(option, _)| option), Err("limits.frame"));
        let packets = Limits::default().packet_budget(0);
        assert_eq!(packets.validate().map_err(|(option, _)| option), Err("limits.packet_budget"));
    }
}
