//! Two sessions of one thread whose packets go to each other: what each knows of its partner.
//!
//! ```text
//! peer of a ──▶ a: frames → packets ──▶ b: packets → frames ──▶ outbox of b ──▶ peer of b
//!               ▲                                                   │
//!               └──── Hold (above the high mark), Release (low) ◀───┘     and the same from b to a
//! ```
//!
//! `a` asks for the link and takes no packets until `b` has agreed, so that nothing overtakes what was sent before:
//!
//! ```text
//! a: link(b) ── Join ──▶ b, which waits too ── Joined ──▶ a, which begins ── Begin ──▶ b, which begins
//! ```
//!
//! `Join` and `Joined` go behind what was sent to the same session before, if need be through a mailbox; everything
//! else is an effect. So a `Hold` may come before the `Joined` that was sent earlier, and counts from then on.

use crate::{
    error::{CloseKind, CloseReason, LinkError, SendError},
    framing::U32Header,
    id::{Key, SessionId},
    limits::WhileFull,
    session::{
        Connection, Effects, FramingSlot, Session, SessionCommand, ShardCore,
        status::{Flags, ReadBlock},
    },
    slots::SideTable,
};

/// The links of a shard's sessions, beside the sessions: most have none.
#[derive(Default)]
pub(crate) struct Links(SideTable<Option<Link>>);

/// What a session knows of its partner.
#[derive(Debug, Clone, Copy)]
struct Link {
    partner: SessionId,
    /// The partner has agreed.
    is_joined: bool,
    /// Waits for the other to begin.
    awaits: bool,
    /// The partner takes no packets: its outbox is full.
    is_held: bool,
    /// Has told the partner to take none.
    holds: bool,
}

/// What one session tells the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkSignal {
    /// `from` has linked itself to this one.
    Join { from: SessionId },
    /// It agrees.
    Joined,
    /// It has begun.
    Begin,
    /// Its outbox is full.
    Hold,
    /// It takes packets.
    Release,
    /// Its peer has ended its side.
    End,
    /// It closes, for such a reason; `None` if it was not there, or is linked to another.
    Gone(Option<CloseKind>),
}

impl Link {
    fn new(partner: SessionId) -> Self {
        Self { partner, is_joined: false, awaits: true, is_held: false, holds: false }
    }

    fn takes_packets(self) -> bool {
        !self.awaits && !self.is_held
    }
}

impl Links {
    /// Returns the session that the one in this slot is linked to.
    pub(crate) fn partner(&self, slot: u32) -> Option<SessionId> {
        self.get(slot).map(|link| link.partner)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, slot: u32) -> Option<Link> {
        self.0.get(slot).copied().flatten()
    }

    fn set(&mut self, slot: u32, link: Link) {
        self.0.insert(slot, Some(link));
    }
}

impl ShardCore {
    /// Tells a session of this thread something about a link, in no order with what waits in its mailbox.
    fn signal(&mut self, to: SessionId, signal: LinkSignal) {
        self.effects_at(to).signal(to, signal);
    }

    /// Returns the list by which a session of this thread is reached, whatever waits in its mailbox.
    #[inline]
    pub(crate) fn effects_at(&mut self, session: SessionId) -> &mut Effects {
        if session.shard == self.shard { &mut self.effects } else { &mut self.outgoing }
    }

    /// The same, behind everything that was sent to it before.
    fn signal_in_order(&mut self, to: SessionId, signal: LinkSignal) -> Result<(), SendError> {
        match self.effects_for(to) {
            Some(effects) => {
                effects.signal(to, signal);
                Ok(())
            }
            None => self.shards.route(to, SessionCommand::Link(signal), 0),
        }
    }

    fn is_on_this_thread(&self, session: SessionId) -> bool {
        session.server == self.server
            && (session.shard == self.shard
                || self.neighbours.iter().any(|(shard, _)| *shard == session.shard))
    }

    /// A session that `signal` was for has ended: if it asks for a link, there will be none.
    pub(crate) fn answer_for_ended(&mut self, ended: Key, signal: LinkSignal) {
        if let LinkSignal::Join { from } = signal {
            debug_assert_ne!(from, self.id_of(ended), "a session is not linked to itself");
            self.signal(from, LinkSignal::Gone(None));
        }
    }
}

impl Session<'_> {
    /// Links this session and another one: from now on the packets of each go to the other, without a callback, in the
    /// framing of the other. What makes a proxy of a handler that has found out whom a session is to talk to.
    ///
    /// - **Where.** Both sessions live on one thread, of one service or of several of a [`Reactor`](crate::Reactor). Under a
    ///   [`WorkerPool`](crate::WorkerPool) that is true of sessions that one of them has dialled.
    /// - **Order.** What was sent to either session before goes first. Packets of this session that were received already
    ///   are passed on after this callback.
    /// - **Back-pressure.** While more than [`Limits::outbox_high`](crate::Limits::outbox_high) is queued for one of them, the
    ///   other is not read from, until that has fallen to [`Limits::outbox_low`](crate::Limits::outbox_low); each direction
    ///   for itself. [`on_drained`](crate::PacketHandler::on_drained) is not called. If the other session was
    ///   [paused](Self::pause), or this one, the pause ends.
    /// - **Ends.** When the peer of one ends its side, our side to the peer of the other is ended behind its last packet, and
    ///   the other direction goes on; [`on_end`](crate::PacketHandler::on_end) is not called. When both have ended, both
    ///   sessions end with [`CloseReason::PeerClosed`]. When one closes for any other reason (a reset, a timeout, a callback
    ///   that closes it), or receives a packet that the framing of the other cannot encode, the other is closed as well,
    ///   gracefully, with [`CloseReason::LinkLost`].
    /// - All other callbacks are called, and timeouts, heartbeats and layers work, as before. There is no way to undo a link.
    ///
    /// If the other session has closed by then, is linked to a third, or is not open yet, or its peer has ended its side
    /// and that was told, this one is closed with [`CloseReason::LinkLost`] after the callback. A session that is paused
    /// until it is linked is told of no end.
    ///
    /// ```
    /// use framewire::{Handled, PacketHandler, Session, SessionId};
    ///
    /// /// Links each two sessions that come one after the other. On one thread: `SingleReactor`.
    /// #[derive(Clone, Default)]
    /// struct Pairs {
    ///     waiting: Option<SessionId>,
    /// }
    ///
    /// impl PacketHandler for Pairs {
    ///     type State = ();
    ///
    ///     fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
    ///         match self.waiting.take() {
    ///             Some(other) => session.link(other)?,
    ///             None => {
    ///                 session.pause(); // until there is another one to talk to
    ///                 self.waiting = Some(session.id());
    ///             }
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn on_packet(&mut self, _: &mut Session<'_>, (): &mut (), _: &[u8]) -> Handled {
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`LinkError`]: the sessions are on different threads, this one is linked already or closing, or they are the same.
    pub fn link(&mut self, other: SessionId) -> Result<(), LinkError> {
        self.connection.link(other, self.core)
    }

    /// Ends our side of the stream behind what is queued, so that the peer knows that no more packets come. Its packets are
    /// still handed out, until it ends its own side or the session is closed. Later sends return
    /// [`SendError::Closed`]. Does nothing if the session is closing.
    ///
    /// ```
    /// use framewire::packet_fn;
    ///
    /// let handler = packet_fn(|session, packet| {
    ///     if packet == b"that is all I ask for" {
    ///         session.send("and that is all you get")?;
    ///         session.end();
    ///     }
    ///     Ok(())
    /// });
    /// ```
    pub fn end(&mut self) {
        self.connection.end_our_side(self.core);
    }
}

impl Connection {
    /// Returns `true` if its packets go to another session.
    #[inline]
    pub(crate) fn is_linked(&self) -> bool {
        self.status.has(Flags::LINKED)
    }

    /// Asks for a link: from now on no packet is handed out, and none passed on until the other session has agreed.
    pub(crate) fn link(&mut self, other: SessionId, core: &mut ShardCore) -> Result<(), LinkError> {
        let own = core.id_of(self.key);
        if self.is_closing() || self.status.has(Flags::END_TOLD) {
            return Err(LinkError::Closed);
        }
        if other == own {
            return Err(LinkError::Itself);
        }
        if let Some(partner) = core.links.partner(self.key.slot).filter(|_| self.is_linked()) {
            return Err(LinkError::Linked { partner });
        }
        if !core.is_on_this_thread(other) {
            return Err(LinkError::Elsewhere { other });
        }
        match core.signal_in_order(other, LinkSignal::Join { from: own }) {
            Ok(()) => {}
            Err(SendError::MailboxFull { .. }) => return Err(LinkError::MailboxFull),
            // Its whole service has ended.
            Err(_) => core.signal(own, LinkSignal::Gone(None)),
        }
        self.begin_link(Link::new(other), core);
        Ok(())
    }

    fn begin_link(&mut self, link: Link, core: &mut ShardCore) {
        self.status.insert(Flags::LINKED);
        self.status.remove(Flags::FULL_AND_READ);
        if !link.takes_packets() {
            self.status.block(ReadBlock::FULL);
        }
        core.links.set(self.key.slot, link);
        // A pause was for the time until there is a partner.
        self.resume(core);
    }

    /// The partner, or a session that wants to be one, tells something.
    pub(crate) fn handle_link_signal(&mut self, signal: LinkSignal, core: &mut ShardCore) {
        let link = core.links.get(self.key.slot).filter(|_| self.is_linked());
        match (signal, link) {
            (LinkSignal::Join { from }, link) => self.handle_join(from, link, core),
            (LinkSignal::Joined, Some(link)) => {
                core.signal(link.partner, LinkSignal::Begin);
                self.go_on(Link { is_joined: true, awaits: false, ..link }, core);
            }
            (LinkSignal::Begin, Some(link)) => self.go_on(Link { awaits: false, ..link }, core),
            (LinkSignal::Hold, Some(link)) => {
                core.links.set(self.key.slot, Link { is_held: true, ..link });
                self.status.block(ReadBlock::FULL);
            }
            (LinkSignal::Release, Some(link)) => self.go_on(Link { is_held: false, ..link }, core),
            (LinkSignal::End, Some(_)) if self.status.has(Flags::END_TOLD) => {
                self.close(CloseReason::PeerClosed, core);
            }
            (LinkSignal::End, Some(_)) => self.end_our_side(core),
            (LinkSignal::Gone(why), Some(link)) => {
                self.forget_link(core);
                // The whole shard stops.
                let stops = why == Some(CloseKind::Shutdown) && core.cut_at.is_some();
                let lost = CloseReason::LinkLost { partner: link.partner, why };
                self.close(if stops { CloseReason::Shutdown } else { lost }, core);
            }
            // The link was lost meanwhile.
            (_, None) => {}
        }
    }

    /// Another session wants to be linked to this one.
    fn handle_join(&mut self, from: SessionId, link: Option<Link>, core: &mut ShardCore) {
        let is_free = link.is_none_or(|link| link.partner == from);
        if !self.is_open() || self.status.has(Flags::END_TOLD) || !is_free {
            return core.signal(from, LinkSignal::Gone(None));
        }
        // Both may have asked for it: then one half of it is there.
        let link = link.unwrap_or(Link::new(from));
        self.begin_link(Link { is_joined: true, ..link }, core);
        if core.signal_in_order(from, LinkSignal::Joined).is_err() {
            // A full mailbox must not keep both from ever beginning.
            core.signal(from, LinkSignal::Joined);
        }
    }

    /// The partner may take packets from now on.
    fn go_on(&mut self, link: Link, core: &mut ShardCore) {
        core.links.set(self.key.slot, link);
        if link.takes_packets() && self.status.has_block(ReadBlock::FULL) {
            self.lift(ReadBlock::FULL, core);
        }
    }

    /// After each visit: tells the partner when the outbox has come above the high mark, or fallen to the low one. What
    /// is in the own outbox does not keep a linked session from being read: it came from the partner.
    pub(super) fn update_link(&mut self, core: &mut ShardCore) {
        let Some(link) = core.links.get(self.key.slot) else { return };
        let wire = if self.is_layered() { self.wire_queued() } else { 0 };
        let weight = self.queued().max(wire);
        let mark = if link.holds { core.limits.outbox_low } else { core.limits.outbox_high };
        let holds = weight > mark;
        if link.is_joined && holds != link.holds {
            core.links.set(self.key.slot, Link { holds, ..link });
            core.signal(link.partner, if holds { LinkSignal::Hold } else { LinkSignal::Release });
        }
        let is_full = self.status.has_block(ReadBlock::FULL);
        // What layers make of what they read does keep it from being read.
        let is_blocked = !link.takes_packets() || is_full && wire > core.limits.outbox_low;
        match (is_blocked, is_full) {
            (true, false) => self.status.block(ReadBlock::FULL),
            (false, true) => self.lift(ReadBlock::FULL, core),
            _ => {}
        }
    }

    /// Returns `true` if it waits until its partner takes packets.
    pub(super) fn is_held(&self) -> bool {
        self.is_linked() && self.status.has_block(ReadBlock::FULL)
    }

    /// The outbox is above the high mark: the session is not read from, unless what it receives goes elsewhere.
    pub(super) fn block_for_outbox(&mut self, core: &ShardCore) {
        if self.is_linked() {
            return;
        }
        match core.limits.while_full {
            // Were neither end of a carrier read while it is full, both could wait for each other.
            _ if self.status.has(Flags::CARRIES) => {
                self.status.insert(Flags::FULL_AND_READ);
            }
            WhileFull::PauseReading => self.status.block(ReadBlock::FULL),
            WhileFull::KeepReading => {
                self.status.insert(Flags::FULL_AND_READ);
            }
        }
    }

    /// The peer has ended its side, and its last packet was passed on.
    pub(crate) fn pass_end(&mut self, core: &mut ShardCore) {
        self.note_end_told();
        let Some(partner) = core.links.partner(self.key.slot) else { return };
        core.signal(partner, LinkSignal::End);
        // Both peers have ended.
        if self.status.has(Flags::ENDING) || self.is_broken() {
            self.close(CloseReason::PeerClosed, core);
        }
    }

    /// The session closes: so do its partner and the streams that it carries.
    pub(crate) fn unlink(&mut self, why: CloseKind, core: &mut ShardCore) {
        self.lose_streams(why, core);
        if !self.is_linked() {
            return;
        }
        if let Some(partner) = core.links.partner(self.key.slot) {
            core.signal(partner, LinkSignal::Gone(Some(why)));
        }
        self.forget_link(core);
    }

    fn forget_link(&mut self, core: &mut ShardCore) {
        self.status.remove(Flags::LINKED);
        core.links.0.remove(self.key.slot);
    }

    /// Frames packets that the partner has passed on, see [`Effects::pass`].
    pub(crate) fn take_passed(
        &mut self,
        framing: &dyn FramingSlot,
        packets: &[u8],
        core: &mut ShardCore,
    ) -> Result<(), SendError> {
        let header = U32Header::of(framing.length_header());
        // As much as an outbox may hold in any case; none is dropped.
        let most = core.limits.outbox_hard.saturating_mul(2);
        let mut rest = packets;
        while let Some((len, behind)) = rest.split_first_chunk() {
            let Some((packet, behind)) = behind.split_at_checked(usize::from_le_bytes(*len)) else { break };
            rest = behind;
            if !self.enqueue_in_place(header, packet, core) {
                self.append(framing, packet, most, core)?;
            }
        }
        Ok(())
    }
}
