//! A session with layers: what it receives and sends goes through them.
//!
//! The outbox holds plain frames, as without layers, and counts them until their transformed bytes are written: limits,
//! tickets and back-pressure depend on it. One window of the outbox at a time is carried through the layers to `wire`.
//!
//! ```text
//! outbox   | in flight | waits ........ |
//! wire       [ handshake | what has become of the bytes in flight ] ──▶ kernel
//! ```

use crate::{
    buffer::Outbox,
    contained::Contained,
    error::{CloseReason, LayerError},
    framing::Framing,
    layer::{Layer, LayerRequests, ProxyHeader},
    limits::WhileFull,
    session::{
        Connection, ShardCore,
        layer_stack::{LayerStack, MOST_LAYERS, Pass},
        status::{Flags, Phase, ReadBlock},
    },
    sync::HandshakePermit,
    time::Tick,
};

/// The layers of a session, and what they have for the kernel.
#[derive(Default)]
pub(super) struct Layered {
    pub(super) stack: LayerStack,
    pub(super) wire: Option<Box<Outbox>>,
    /// Bytes at the front of the outbox that were carried to `wire`.
    pub(super) in_flight: usize,
    /// When the layers must be open, and the ticks that were lost before that was set.
    open_by: Option<(Tick, Tick)>,
    /// The place of an accepted connection among those in their handshakes.
    handshake: Option<HandshakePermit>,
    pub(super) our_side: OurSide,
    /// The layers were notified that the peer has ended its side.
    knows_end: bool,
    /// The first layer that a callback has pushed: received bytes that were not handed out go to it.
    upgrade: usize,
    /// The framing that a layer has set.
    framing: Option<Box<dyn Framing>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum OurSide {
    #[default]
    Open,
    /// The layers have written their last blocks.
    Ended,
    /// The connection has failed: nothing can be written, but what was received is still handed out.
    Lost,
    /// A layer has failed: none of them is called any more.
    Failed,
}

impl Layered {
    pub(super) fn wire_weight(&self) -> usize {
        self.wire.as_ref().map_or(0, |wire| wire.weight())
    }

    /// Gives back a wire with nothing in it.
    pub(super) fn give_back_empty_wire(&mut self, core: &mut ShardCore) {
        if let Some(wire) = self.wire.take_if(|wire| wire.is_empty()) {
            core.pool.put_empty(wire);
        }
    }

    pub(super) fn give_back_wire(&mut self, core: &mut ShardCore) {
        if let Some(wire) = self.wire.take() {
            core.pool.put(wire);
        }
    }
}

impl Connection {
    pub(super) fn layered(&self) -> Option<&Layered> {
        self.cold.as_ref()?.layered.as_deref()
    }

    pub(super) fn layered_mut(&mut self) -> Option<&mut Layered> {
        self.cold.as_mut()?.layered.as_deref_mut()
    }

    /// Returns `true` if bytes go through layers.
    #[inline]
    pub(crate) fn is_layered(&self) -> bool {
        self.status.has(Flags::LAYERED)
    }

    /// Begins a connection that arrives with layers: nothing is handed out, and nothing sent, before they are open.
    pub(crate) fn begin_opening(&mut self) {
        self.status.set_phase(Phase::Opening);
    }

    /// Counts as being in its handshake until that is over. Without layers there is none.
    pub(crate) fn hold_handshake(&mut self, handshake: HandshakePermit) {
        if let Some(layered) = self.layered_mut() {
            layered.handshake = Some(handshake);
        }
    }

    /// Returns `true` if a layer is still in its handshake, so that what is sent waits.
    pub(super) fn is_in_handshake(&self) -> bool {
        self.is_layered() && self.layered().is_some_and(|layered| !layered.stack.is_open())
    }

    /// Returns `true` if the layers have just become open: `on_open` is due.
    pub(crate) fn poll_through(&mut self) -> bool {
        let is_through = self.status.phase() == Phase::Opening
            && self.layered().is_none_or(|layered| layered.stack.is_open());
        if is_through {
            self.status.set_phase(Phase::Open);
        }
        is_through
    }

    /// Returns the framing that a layer has set for the session.
    pub(crate) fn poll_framing(&mut self) -> Option<Box<dyn Framing>> {
        self.layered_mut()?.framing.take()
    }

    /// Inserts a layer between the existing layers and the framing.
    ///
    /// # Errors
    /// If there are too many layers, packets wait for the handshake of another, or a layer fails.
    pub(crate) fn add_layer(
        &mut self,
        layer: Contained<Box<dyn Layer>>,
        core: &mut ShardCore,
    ) -> Result<(), LayerError> {
        self.status.insert(Flags::LAYERED);
        let open_by = (core.clock.deadline(core.timeouts.handshake), core.clock.lost());
        let layered = self.cold.get_or_insert_default().layered.get_or_insert_default();
        if layered.stack.len() >= MOST_LAYERS {
            return Err(LayerError::Misplaced("a session has 8 layers at most"));
        }
        if let Some(outbox) = &mut self.outbox {
            outbox.commit_all();
        }
        if let Some(outbox) = &self.outbox {
            // What was sent before goes below the new layer.
            if !layered.stack.is_open() && outbox.len() > layered.in_flight {
                return Err(LayerError::Misplaced("packets wait for the handshake of the layer below"));
            }
            if !outbox.is_empty() {
                layered.carry(outbox, usize::MAX, core)?;
            }
            if let (Some(since), Some(wire)) = (outbox.blocked_since(), &mut layered.wire) {
                // The kernel has refused the same bytes before.
                wire.block(since);
            }
            layered.give_back_empty_wire(core);
        }
        layered.stack.push(layer);
        layered.open_by = Some(open_by);
        self.arm(core);
        Ok(())
    }

    /// As [`add_layer`](Self::add_layer), in mid-stream: received bytes that were not handed out go to the layer.
    ///
    /// # Errors
    /// As for `add_layer`; if the framing has seen the beginning of a packet, which would be lost.
    pub(crate) fn push_layer(
        &mut self,
        layer: Contained<Box<dyn Layer>>,
        core: &mut ShardCore,
    ) -> Result<(), LayerError> {
        if self.is_closing() {
            return Ok(());
        }
        let is_in_a_packet = self.inbox.is_some() && !self.status.has(Flags::BACKLOG);
        if is_in_a_packet || self.status.has(Flags::DISCARDING) {
            return Err(LayerError::Misplaced("only a part of a packet was received"));
        }
        self.add_layer(layer, core)?;
        if !self.status.has_block(ReadBlock::UPGRADE) {
            self.status.block(ReadBlock::UPGRADE);
            if let Some(layered) = self.layered_mut() {
                layered.upgrade = layered.stack.len() - 1;
            }
        }
        core.read_later(self);
        core.flush_later(self);
        Ok(())
    }

    /// Gives a layer that a callback has pushed the received bytes that were not handed out.
    pub(crate) fn feed_upgrade(&mut self) {
        if !self.status.has_block(ReadBlock::UPGRADE) {
            return;
        }
        self.status.unblock(ReadBlock::UPGRADE);
        self.status.remove(Flags::BACKLOG | Flags::DISCARDING);
        let inbox = self.inbox.take();
        if let (Some(layered), Some(inbox)) = (self.layered_mut(), inbox) {
            layered.stack.give(layered.upgrade, inbox);
        }
    }

    /// Returns `true` if the layers are given what is received: while packets are handed out, and while a handshake
    /// holds up what is to be sent.
    pub(crate) fn takes_wire(&self) -> bool {
        !self.status.is_blocked() || self.takes_for_handshake()
    }

    /// Returns `true` if the layers are given what is received although no packets are handed out, because what is to
    /// be sent waits for a handshake.
    #[cold]
    pub(super) fn takes_for_handshake(&self) -> bool {
        // A peer that does not read what the handshake has for it is not read from either.
        let has_room = !self.status.has_block(ReadBlock::FULL) || self.wire_queued() == 0;
        self.reads_for_handshake() || has_room && self.closes_behind_handshake()
    }

    /// Returns `true` if the layers continue with what they have, now that what waited for the framing was handed out.
    pub(crate) fn poll_layers(&mut self) -> bool {
        let takes = self.takes_wire();
        let waits_for_framing = self.status.has(Flags::BACKLOG) && !self.status.is_blocked();
        let goes_on = takes && !waits_for_framing;
        if goes_on {
            self.status.remove(Flags::BACKLOG);
        } else if self.are_layers_ready() {
            self.status.insert(Flags::BACKLOG);
        }
        goes_on
    }

    /// Returns `true` if the session reads although its outbox is full, because what waits there waits for a handshake.
    #[cold]
    fn reads_for_handshake(&self) -> bool {
        let Some(layered) = self.layered().filter(|_| self.status.has_only_block(ReadBlock::FULL)) else {
            return false;
        };
        !layered.stack.is_open() && layered.wire_weight() == 0
    }

    /// Returns `true` if a session that is closing waits for a handshake, so that it can send what is left.
    #[cold]
    pub(super) fn closes_behind_handshake(&self) -> bool {
        let waits = |layered: &Layered| layered.our_side == OurSide::Open && !layered.stack.is_open();
        self.status.phase() == Phase::Draining && self.queued() > 0 && self.layered().is_some_and(waits)
    }

    /// Takes the layers one step further, with what was `received` or with what they have unread. Returns how many
    /// bytes went from one layer to another.
    ///
    /// # Errors
    /// A layer has failed. What was given to `plain` before counts.
    pub(crate) fn step_layers(
        &mut self,
        received: &[u8],
        plain: &mut Vec<u8>,
        core: &mut ShardCore,
    ) -> Result<usize, LayerError> {
        let ShardCore { pool, layer_buffers, clock, limits, .. } = core;
        let Some(layered) = self.cold.as_mut().and_then(|cold| cold.layered.as_deref_mut()) else {
            return Ok(0);
        };
        if layered.our_side == OurSide::Failed {
            return Ok(0);
        }
        let was_open = layered.stack.is_open();
        let mut pass = Pass {
            wire: &mut layered.wire,
            pool,
            sends: &mut layer_buffers.sends,
            has_ended: layered.our_side != OurSide::Open,
            frame: limits.frame,
            now: clock.stamp(),
            asked: LayerRequests::default(),
            carried: 0,
            panics: Vec::new(),
        };
        let outcome = layered.stack.receive(received, plain, &mut layer_buffers.steps, &mut pass);
        let Pass { asked, carried, panics, .. } = pass;
        if carried > 0 {
            layer_buffers.shrink();
        }
        let is_unchanged = was_open && layered.wire.is_none() && layered.stack.is_calm();
        let peer = asked.peer.as_ref();
        let counted = peer.map_or(Ok(()), |peer| core.permits.recount(self.key.slot, peer));
        if !is_unchanged || asked.has_news() || core.timeouts.has_packet() {
            self.note_step(was_open, asked, core);
        }
        for message in panics {
            let panic = CloseReason::Panicked { callback: "drop", message };
            let (id, then) = (core.id_of(self.key), "a layer that was done panicked when it was dropped");
            core.report_panic(id, &self.endpoints.peer(), &panic, then);
        }
        counted.map_err(|limit| LayerError::PeerLimit { limit })?;
        outcome.map(|()| carried)
    }

    /// After a step that did more than pass bytes on.
    #[inline(never)]
    fn note_step(&mut self, was_open: bool, asked: LayerRequests, core: &mut ShardCore) {
        if let Some(peer) = asked.peer {
            self.endpoints = self.endpoints.with_peer(peer);
        }
        if let Some(proxied) = asked.proxied {
            self.extra_or_new().proxied = Some(proxied);
        }
        if let Some(protocol) = asked.protocol {
            self.extra_or_new().protocol = Some(protocol);
        }
        #[cfg(feature = "websocket")]
        if let Some(news) = asked.websocket {
            self.note_websocket(news);
        }
        let Some(layered) = self.layered_mut() else { return };
        if asked.framing.is_some() {
            layered.framing = asked.framing;
        }
        if layered.our_side == OurSide::Lost {
            layered.give_back_wire(core);
        }
        layered.give_back_empty_wire(core);
        // What the layers write while they read is bounded in either case.
        let most = match core.limits.while_full {
            WhileFull::PauseReading => core.limits.outbox_high,
            WhileFull::KeepReading => core.limits.outbox_hard,
        };
        let is_full = layered.wire_weight() > most;
        let is_flush_due = layered.wire.is_some() || was_open != layered.stack.is_open();
        let is_end_due = layered.stack.has_ended() && !layered.knows_end;
        if layered.stack.is_open() {
            (layered.open_by, layered.handshake) = (None, None);
        }
        if is_full {
            self.status.block(ReadBlock::FULL);
        }
        if is_flush_due {
            core.flush_later(self);
        }
        if is_end_due {
            core.read_later(self);
        }
        if core.timeouts.has_packet() && self.block_since().is_some() {
            self.arm(core);
        }
    }

    /// A handshake that was paused has its whole time again.
    pub(super) fn restart_handshake(&mut self, core: &mut ShardCore) {
        let open_by = (core.clock.deadline(core.timeouts.handshake), core.clock.lost());
        if let Some(layered) = self.layered_mut().filter(|layered| layered.open_by.is_some()) {
            layered.open_by = Some(open_by);
            self.arm(core);
        }
    }

    /// Returns `true` if some layer can continue without new bytes.
    #[inline]
    pub(crate) fn are_layers_ready(&self) -> bool {
        self.layered().is_some_and(|layered| layered.our_side != OurSide::Failed && layered.stack.is_ready())
    }

    /// Returns `true` if the plain stream has ended, even if the wire's has not.
    #[cold]
    pub(super) fn has_plain_end(&self) -> bool {
        self.layered().is_some_and(|layered| layered.stack.has_ended())
    }

    /// Notifies the layers that the peer has ended its side, after everything else.
    ///
    /// # Errors
    /// If the end comes too early for a layer.
    pub(crate) fn end_layers_input(&mut self) -> Result<(), LayerError> {
        match self.layered_mut() {
            Some(layered) if !layered.knows_end && layered.our_side != OurSide::Failed => {
                layered.knows_end = true;
                layered.stack.end_input()
            }
            _ => Ok(()),
        }
    }

    /// A layer has failed: what it has written goes out, and what waits for it never can.
    pub(crate) fn fail_layers(&mut self, core: &mut ShardCore) {
        if let Some(layered) = self.layered_mut() {
            layered.our_side = OurSide::Failed;
            (layered.open_by, layered.handshake) = (None, None);
            // It may have panicked before it has written anything.
            layered.give_back_empty_wire(core);
        }
        core.flush_later(self);
    }

    /// Returns when the layers must be open. Time in which the shard did not serve the peer is added.
    #[cold]
    pub(super) fn open_by(&self, lost: Tick) -> Option<Tick> {
        let (by, lost_before) = self.layered()?.open_by?;
        Some(by + (lost - lost_before))
    }

    #[cold]
    pub(super) fn block_since(&self) -> Option<Tick> {
        self.layered()?.stack.unread_since()
    }

    #[cold]
    pub(super) fn restamp_layers(&mut self, from: Tick, to: Tick) {
        if let Some(layered) = self.layered_mut() {
            layered.stack.restamp(from, to);
        }
    }

    #[cold]
    pub(super) fn layers_capacity(&self) -> usize {
        let wire = |layered: &Layered| layered.wire.as_ref().map_or(0, |wire| wire.capacity());
        self.layered().map_or(0, |layered| layered.stack.capacity().saturating_add(wire(layered)))
    }

    /// The layers of a session that is over, to be dropped.
    pub(crate) fn take_layers(&mut self) -> impl Iterator<Item = Contained<Box<dyn Layer>>> + use<> {
        let layered = self.cold.as_mut().and_then(|cold| cold.layered.take());
        layered.into_iter().flat_map(|layered| layered.stack.into_layers())
    }

    /// Returns what a proxy has said about the connection.
    pub(crate) fn proxied(&self) -> Option<&ProxyHeader> {
        self.extra()?.proxied.as_deref()
    }

    #[cfg(feature = "tls")]
    pub(crate) fn tls(&self) -> Option<crate::tls::TlsInfo<'_>> {
        self.layered()?.stack.tls()
    }

    /// Returns the protocol that the layers have negotiated with the peer.
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.extra()?.protocol.as_deref()
    }
}
