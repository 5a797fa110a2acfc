//! Streams that are multiplexed over a session, their carrier: from its callbacks to their sessions, which belong to
//! another service of the same thread.
//!
//! ```text
//! carrier: on_packet ── Streams::deliver ──▶ effects ──▶ shard of the streams: on_packet
//! carrier: outbox ◀── Mux::packet ◀── outbox of a stream ◀── send
//! ```

use std::{
    fmt,
    ops::RangeInclusive,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    addr::Addr,
    buffer::Inbox,
    error::{CloseKind, CloseReason, StreamError},
    id::{Key, ServerNumber, SessionId, ShardId},
    session::{Connection, Effect, InputExhausted, Session, ShardCore, status::Flags},
};

/// The way from a carrier to its streams, which are sessions of a [carried](crate::Server::carried) service. The handler of
/// the carriers has a clone of it, and tells it in its callbacks what came for which stream; every method is for the
/// streams of the session that it is given.
///
/// Nothing of it takes a lock or wakes a thread: what is told is done when the callback has returned, in the same order
/// and in the same turn of the event loop. A stream is known by its carrier and a number, which the protocol chooses; numbers
/// of streams that have ended may be used again.
///
/// A stream that its handler has closed is unknown: what still comes for it is dropped.
#[derive(Clone)]
pub struct Streams {
    service: Arc<CarriedService>,
}

/// Where the streams of a service live.
#[derive(Debug, Default)]
pub(crate) struct CarriedService {
    /// Set when the service is started: the numbers of its shards.
    shards: OnceLock<(ServerNumber, RangeInclusive<u32>)>,
    stopped: AtomicBool,
}

/// A stream that is opened, for [`Streams::open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewStream {
    pub(crate) number: u64,
    pub(crate) peer: u64,
    pub(crate) tag: u64,
}

impl NewStream {
    /// A stream with this number, which no other open stream of its carrier has.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self { number, peer: number, tag: 0 }
    }

    /// Who is at the other end, for [`Addr::Stream`]. By default the number of the stream.
    #[must_use]
    pub fn peer(self, peer: u64) -> Self {
        Self { peer, ..self }
    }

    /// What else the handler of the stream is to know, for [`Origin::Carried`](crate::Origin::Carried). By default 0.
    #[must_use]
    pub fn tag(self, tag: u64) -> Self {
        Self { tag, ..self }
    }
}

/// What a carrier tells the shard of its streams.
#[derive(Debug)]
pub(crate) enum StreamEffect {
    /// The peer has opened one. Boxed, because it is rare.
    Open(Box<OpenStream>),
    /// So many packets have come for one: the next `len` bytes, each packet behind its length.
    Packets { stream: u64, packets: u32, len: usize },
    /// The peer has ended one.
    End { stream: u64 },
    /// The carrier's outbox has room again.
    Writable,
    /// The carrier has closed.
    Lost(CloseKind),
}

/// A stream, and the ends of its carrier.
#[derive(Debug)]
pub(crate) struct OpenStream {
    pub(crate) stream: NewStream,
    pub(crate) peer: Addr,
    pub(crate) local: Addr,
}

impl CarriedService {
    /// The service is started, with these shards.
    pub(crate) fn begin(&self, server: ServerNumber, shards: RangeInclusive<u32>) {
        let _ = self.shards.set((server, shards));
    }

    /// No more streams are opened.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Returns its shard on the thread of `core`.
    fn shard_beside(&self, core: &ShardCore) -> Option<ShardId> {
        let (server, shards) = self.shards.get()?;
        let neighbours = core.neighbours.iter().map(|(shard, _)| *shard);
        neighbours.into_iter().find(|shard| *server == core.server && shards.contains(&shard.0))
    }
}

impl Streams {
    pub(crate) fn new(service: Arc<CarriedService>) -> Self {
        Self { service }
    }

    /// The peer of the carrier has opened a stream: it becomes a session of the carried service, whose
    /// [`on_open`](crate::PacketHandler::on_open) is called. If that service may have no more sessions, or does not want
    /// this one, the peer is told by [`Mux::close`](crate::Mux::close).
    ///
    /// If the carrier has an open stream of the same number, that one ends first, as by [`end`](Self::end).
    ///
    /// # Errors
    /// [`StreamError`]. No stream is opened then, and the peer is told nothing.
    pub fn open(&self, carrier: &mut Session<'_>, stream: NewStream) -> Result<(), StreamError> {
        if self.service.stopped.load(Ordering::Relaxed) {
            return Err(StreamError::Stopped);
        }
        let (connection, _, core) = carrier.parts();
        if connection.is_closing() {
            return Err(StreamError::Closed);
        }
        let to = self.service.shard_beside(core).ok_or(StreamError::Elsewhere)?;
        let (peer, local) = (connection.endpoints().peer(), connection.endpoints().local());
        let about = StreamEffect::Open(Box::new(OpenStream { stream, peer, local }));
        let (carrier, (most, _)) = (core.id_of(connection.key()), core.effect_limits());
        core.outgoing.tell_stream(Effect::Stream { to, carrier, about }, most)?;
        connection.carry();
        Ok(())
    }

    /// A packet has come for a stream, which may be empty: its [`on_packet`](crate::PacketHandler::on_packet) is called.
    ///
    /// It is copied once. If the stream takes no packets now, because it is paused or its outbox is full, they wait up to
    /// a [limit](crate::Server::inbox), beyond which the stream is closed with
    /// [`CloseReason::InboxFull`](crate::CloseReason::InboxFull): the carrier and its other streams go on.
    ///
    /// # Errors
    /// [`StreamError::Elsewhere`], and [`StreamError::Full`]: then the packet is lost.
    #[inline]
    pub fn deliver(&self, carrier: &mut Session<'_>, stream: u64, packet: &[u8]) -> Result<(), StreamError> {
        let (connection, _, core) = carrier.parts();
        let to = self.service.shard_beside(core).ok_or(StreamError::Elsewhere)?;
        let (carrier, limits) = (core.id_of(connection.key()), core.effect_limits());
        core.outgoing.deliver(to, carrier, stream, packet, limits)
    }

    /// The peer has ended a stream. What was delivered before is handed out, [`on_end`](crate::PacketHandler::on_end) is
    /// called, and the session ends with [`CloseReason::PeerClosed`](crate::CloseReason::PeerClosed) also after
    /// [`Then::Stay`](crate::Then::Stay): what it has queued is lost, and nothing more can be sent. A session that is paused is told
    /// when it is resumed.
    ///
    /// # Errors
    /// [`StreamError::Elsewhere`], and [`StreamError::Full`]: then the stream does not know.
    pub fn end(&self, carrier: &mut Session<'_>, stream: u64) -> Result<(), StreamError> {
        let (connection, _, core) = carrier.parts();
        let to = self.service.shard_beside(core).ok_or(StreamError::Elsewhere)?;
        let (carrier, (most, _)) = (core.id_of(connection.key()), core.effect_limits());
        let about = StreamEffect::End { stream };
        core.outgoing.tell_stream(Effect::Stream { to, carrier, about }, most)
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").finish_non_exhaustive()
    }
}

impl ShardCore {
    /// Tells the streams of a carrier what has become of it.
    #[cold]
    pub(super) fn tell_streams(&mut self, carrier: Key, what: impl Fn() -> StreamEffect) {
        let carrier: SessionId = self.id_of(carrier);
        // At most a few services: those that carry none of its streams do not mind.
        for (to, _) in self.neighbours.iter() {
            self.outgoing.record(Effect::Stream { to: *to, carrier, about: what() });
        }
    }
}

impl Connection {
    /// It carries streams from now on.
    fn carry(&mut self) {
        self.status.insert(Flags::CARRIES);
        self.extra_or_new().streams += 1;
    }

    /// Returns `true` if a stream would only fill the outbox further.
    pub(crate) fn is_full_for_streams(&self) -> bool {
        self.status.is_full()
    }

    /// A packet of a stream found no room: its streams are told when there is some again.
    #[cold]
    pub(crate) fn hold_streams(&mut self) {
        self.status.insert(Flags::FULL_AND_READ);
    }

    /// The outbox has drained.
    pub(super) fn release_streams(&mut self, core: &mut ShardCore) {
        if self.status.has(Flags::CARRIES) {
            core.tell_streams(self.key, || StreamEffect::Writable);
        }
    }

    /// It closes: so do its streams.
    pub(super) fn lose_streams(&mut self, why: CloseKind, core: &mut ShardCore) {
        if self.status.remove(Flags::CARRIES) {
            core.tell_streams(self.key, || StreamEffect::Lost(why));
        }
    }

    /// The server shuts down. Returns `true` if it carries streams: it closes behind them.
    pub(crate) fn closes_behind_streams(&mut self, core: &mut ShardCore) -> bool {
        let carries = self.status.has(Flags::CARRIES);
        if carries {
            self.extra_or_new().closes_behind_streams = true;
            self.stay(core);
        }
        carries
    }

    /// So many of its streams have ended, the last ones of a service. Returns `true` if none is left, and it has waited
    /// for that to close.
    pub(crate) fn note_unladen(&mut self, ended: u64) -> bool {
        let Some(extra) = self.extra_mut() else { return false };
        extra.streams = extra.streams.saturating_sub(ended);
        if extra.streams > 0 {
            // Another service has some, or is about to be told of them.
            return false;
        }
        self.status.remove(Flags::CARRIES);
        self.extra_mut().is_some_and(|extra| std::mem::take(&mut extra.closes_behind_streams))
    }

    /// The peer of a stream has ended it, in both directions. What was received before is still handed out.
    pub(crate) fn handle_cut_off(&mut self, core: &mut ShardCore) {
        self.handle_end();
        self.status.insert(Flags::BROKEN);
        self.status.insert(Flags::END_SENT);
        if let Some(handle_state) = self.handle_state() {
            handle_state.lose(CloseKind::PeerClosed);
        }
        self.discard_output(core);
    }

    /// The carrier of a stream has closed. What was received before is still handed out, within the time of a graceful
    /// close.
    ///
    /// # Errors
    /// Returns `reason` if the session is to be terminated at once.
    pub(crate) fn handle_carrier_lost(
        &mut self,
        reason: CloseReason,
        core: &mut ShardCore,
    ) -> Result<(), CloseReason> {
        if !self.has_backlog() {
            return Err(reason);
        }
        self.handle_broken(reason, core)?;
        self.handle_exhausted(InputExhausted::WouldBlock);
        Ok(())
    }

    /// Returns how many bytes wait in the inbox.
    pub(crate) fn waiting(&self) -> usize {
        self.inbox.as_ref().map_or(0, |inbox| inbox.as_slice().len())
    }

    /// Keeps packets that cannot be handed out now.
    pub(crate) fn keep_packets(&mut self, packets: &[u8], core: &mut ShardCore) {
        match &mut self.inbox {
            Some(inbox) => inbox.append(packets),
            None => self.inbox = Some(Inbox::new(packets, core.clock.stamp())),
        }
        self.put_off(core);
    }

    /// The carrier takes what a stream sends. Returns `true` if the stream did not wait for it already.
    pub(crate) fn wait_for_carrier(&mut self, core: &mut ShardCore) -> bool {
        self.has_datagrams() && self.wait_for_socket(core)
    }
}
