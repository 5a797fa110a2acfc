use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    addr::Endpoints,
    buffer::{Inbox, Outbox},
    contained::Contained,
    error::{CloseKind, CloseReason, RefusalCause},
    id::{Key, SessionId},
    session::{
        FramingSlot, HandleState, SessionInfo, SessionStats, ShardCore,
        cold_state::{ColdState, ExtraState},
        overhead,
        status::{Flags, Phase, ReadBlock, Status},
    },
    time::Tick,
    timer_wheel::TimerKey,
};

/// The part of a session that does not depend on the user's types: a state machine.
///
/// ```text
/// Opening ──layers are open──▶ Open ──close──▶ Draining ──all is sent──▶ Lingering ──peer's end──▶ (removed)
///    └───────close──────────────│─────────────────▲ └──peer's end already seen──────────────────────▲
///                               └────abort, reset, stall: removed at once ──────────────────────────┘
/// ```
///
/// This file has its lifecycle; what is received is in `receive.rs`, what is sent in `transmit.rs`, its deadlines in
/// `liveness.rs` and `keep_alive.rs`, the handler's timers in `timers.rs`, what goes through layers in `layered.rs` and
/// `layer_wire.rs`, what is sent by a policy of its own in `overflow.rs`. Kept small, because each of very many idle sessions has one.
pub(crate) struct Connection {
    pub(super) key: Key,
    pub(super) status: Status,
    pub(super) inbox: Option<Box<Inbox>>,
    pub(super) outbox: Option<Box<Outbox>>,
    pub(super) endpoints: Endpoints,
    pub(super) traffic: Traffic,
    /// When `on_open` returned.
    pub(super) opened: Tick,
    /// When something was last received (or `on_idle` last called).
    pub(super) heard: Tick,
    /// The one entry in the wheel for all deadlines.
    pub(super) alarm: Option<TimerKey>,
    /// Bytes that the shard has counted as buffered by this session.
    held: u32,
    pub(super) cold: Option<Box<ColdState>>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) packets_in: u64,
    pub(super) packets_out: u64,
}

impl Traffic {
    /// Counts a packet that was queued. The shard counts it when it leaves the session.
    #[inline]
    pub(super) fn count_packet_out(&mut self) {
        // A counter of 64 bits does not overflow in practice.
        self.packets_out = self.packets_out.wrapping_add(1);
    }
}

/// The next step of a session that is closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShutdownStep {
    /// Our side of the stream is to be ended.
    EndSide,
    /// Both sides have ended.
    Over,
}

impl Connection {
    pub(crate) fn new(key: Key, endpoints: Endpoints, now: Tick) -> Self {
        let mut status = Status::default();
        if endpoints.are_unix() {
            status.insert(Flags::HANGUP);
        }
        Self {
            key,
            status,
            inbox: None,
            outbox: None,
            endpoints,
            traffic: Traffic::default(),
            opened: now,
            heard: now,
            alarm: None,
            held: 0,
            cold: None,
        }
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Returns `true` if packets go in and out.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.status.phase() == Phase::Open
    }

    /// Returns `true` if it has begun to close.
    #[inline]
    pub(crate) fn is_closing(&self) -> bool {
        self.status.is_closing()
    }

    /// The last packet was handed out, and `on_end` is called.
    pub(crate) fn note_end_told(&mut self) {
        self.status.insert(Flags::END_TOLD);
    }

    /// A shutdown has begun, and the session stays open until the grace period is over.
    pub(crate) fn stay(&mut self, core: &mut ShardCore) {
        self.status.remove(Flags::SHUTDOWN);
        if self.status.has(Flags::READABLE | Flags::BACKLOG | Flags::ENDED) {
            core.read_later(self);
        }
    }

    /// Begins the graceful end. The first reason counts.
    pub(crate) fn close(&mut self, reason: CloseReason, core: &mut ShardCore) {
        if self.status.has_block(ReadBlock::CLOSING) {
            return;
        }
        if self.is_opening() {
            core.report_refusal(&self.endpoints, RefusalCause::in_handshake(&reason), Some(&reason));
        }
        self.unlink(reason.kind(), core);
        self.status.set_phase(Phase::Draining);
        self.status.block(ReadBlock::CLOSING);
        if let Some(outbox) = &mut self.outbox {
            outbox.seal();
        }
        self.inbox = None;
        self.status.remove(Flags::BACKLOG | Flags::SHUTDOWN);
        self.status.insert(Flags::CLOSING);
        let extra = self.extra_or_new();
        let reason = match extra.reason.take() {
            // The connection had failed before the peer's end was found, which is early for a layer.
            Some(broken) if reason.is_end() => broken,
            _ => Contained::new(reason),
        };
        // A peer that has ended its side but still reads gets its replies for as long as it makes progress.
        let by_progress = matches!(*reason, CloseReason::PeerClosed) && core.timeouts.stall.is_some();
        let flushed_by = core.clock.deadline(core.timeouts.close);
        // A shutdown allows as long as its grace period lasts.
        let cut_at = core.cut_at.map_or(0, |(at, _)| at);
        extra.close_by = (!by_progress).then_some((flushed_by.max(cut_at), core.clock.lost()));
        let kind = reason.kind();
        extra.reason = Some(reason);
        if let Some(handle_state) = self.handle_state() {
            handle_state.shut(kind);
        }
        self.cancel_timers(core);
        self.stop_heartbeat(core);
        self.arm(core);
        // What the peer still sends must be read to be discarded.
        if self.status.has(Flags::READABLE) {
            core.read_later(self);
        }
        core.flush_later(self);
    }

    /// Returns the next step of a session that is closing and has nothing more to write.
    #[inline]
    pub(crate) fn poll_shutdown(&mut self, core: &mut ShardCore) -> Option<ShutdownStep> {
        let ends = self.status.ends_our_side();
        if !ends || self.queued() > 0 || self.is_layered() && !self.is_wire_done() {
            return None;
        }
        if !self.is_closing() {
            return self.status.insert(Flags::END_SENT).then_some(ShutdownStep::EndSide);
        }
        if self.status.has(Flags::ENDED) {
            return Some(ShutdownStep::Over);
        }
        if self.status.phase() == Phase::Lingering {
            return None;
        }
        self.linger(core);
        Some(ShutdownStep::EndSide)
    }

    /// Ends our side of the stream behind what is queued; the peer's goes on. Nothing more can be sent.
    pub(crate) fn end_our_side(&mut self, core: &mut ShardCore) {
        if !self.is_closing() && self.status.insert(Flags::ENDING) {
            core.flush_later(self);
        }
    }

    /// Our side is about to be ended: gives the peer the linger timeout to end its own.
    fn linger(&mut self, core: &mut ShardCore) {
        self.status.set_phase(Phase::Lingering);
        let by = (core.clock.deadline(core.timeouts.linger), core.clock.lost());
        self.extra_or_new().close_by = Some(by);
        self.arm(core);
    }

    /// `on_closing` is due.
    pub(crate) fn is_closing_untold(&self) -> bool {
        self.status.has(Flags::CLOSING)
    }

    /// `on_closing` was called.
    pub(crate) fn note_closing_told(&mut self) {
        self.status.remove(Flags::CLOSING);
    }

    /// The server shuts down. Returns `true` if `on_shutdown` is due now; otherwise packets that wait are handed out
    /// first.
    pub(crate) fn begin_shutdown(&mut self) -> bool {
        let waits = self.has_packets_to_hand_out();
        if waits {
            self.status.insert(Flags::SHUTDOWN);
        }
        !waits
    }

    /// Terminates the session with a reset, after the callback.
    pub(crate) fn abort(&mut self, core: &mut ShardCore) {
        self.close(CloseReason::Local, core);
        self.status.insert(Flags::ABORT);
        core.flush_later(self);
    }

    /// Its socket is to be reset rather than closed.
    pub(crate) fn reset_at_end(&mut self) {
        self.status.insert(Flags::ABORT);
    }

    pub(crate) fn is_reset_at_end(&self) -> bool {
        self.status.has(Flags::ABORT)
    }

    pub(crate) fn pause(&mut self, core: &mut ShardCore) {
        self.status.block(ReadBlock::PAUSED);
        if self.status.has(Flags::SHUTDOWN) {
            // A shutdown does not wait for the packets of a paused session.
            core.read_later(self);
        }
    }

    /// `on_open` has returned: from now on the peer's timeouts run.
    pub(crate) fn begin(&mut self, core: &mut ShardCore) {
        self.opened = core.clock.deadline(0);
        self.heard = core.clock.stamp();
        self.arm(core);
    }

    pub(crate) fn resume(&mut self, core: &mut ShardCore) {
        if self.status.has_block(ReadBlock::PAUSED) {
            self.lift(ReadBlock::PAUSED, core);
            if self.is_layered() {
                self.restart_handshake(core);
            }
        }
    }

    /// Returns `true` if its layers are in their handshakes.
    pub(crate) fn is_opening(&self) -> bool {
        self.status.phase() == Phase::Opening
    }

    /// Gives back everything that the shard holds for this session. Returns the reason for which it was closing, or
    /// `reason` if it was not.
    pub(crate) fn release(&mut self, reason: CloseReason, core: &mut ShardCore) -> CloseReason {
        let closing = self.extra_mut().and_then(|extra| extra.reason.take()).map(Contained::into_inner);
        let reason = closing.unwrap_or(reason);
        if let Some(handle_state) = self.handle_state() {
            handle_state.shut(reason.kind());
        }
        self.cancel_timers(core);
        self.forget_keep_alive(core);
        if let Some(alarm) = self.alarm.take() {
            core.wheel.cancel(alarm);
        }
        self.inbox = None;
        self.give_back_outbox(core);
        if self.status.has(Flags::LAYERED) {
            self.discard_wire(core);
        }
        core.counters.buffered -= u64::from(std::mem::take(&mut self.held));
        reason
    }

    /// Returns the reason for which it is closing, if it is.
    pub(crate) fn reason(&self) -> Option<&CloseReason> {
        self.extra().and_then(|extra| extra.reason.as_deref())
    }

    pub(crate) fn forget_reason(&mut self) {
        if let Some(extra) = self.extra_mut() {
            extra.reason = None;
        }
    }

    /// Bytes that the shard has counted as buffered by this session.
    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// Packets handed to the handler so far, and packets queued to be sent.
    #[inline]
    pub(crate) fn packets(&self) -> (u64, u64) {
        (self.traffic.packets_in, self.traffic.packets_out)
    }

    /// Counts what the session buffers now, and updates the session's handles. Returns `true` if it buffers or buffered
    /// anything.
    #[inline]
    pub(crate) fn account(&mut self, core: &mut ShardCore) -> bool {
        // Only a session with a cold part can have handles or layers. One test for all four.
        let has_some = self.cold.is_some() | self.inbox.is_some() | self.outbox.is_some() | (self.held > 0);
        if !has_some {
            return false;
        }
        self.account_for_buffers(core)
    }

    fn account_for_buffers(&mut self, core: &mut ShardCore) -> bool {
        self.tell_handles();
        if self.is_linked() {
            self.update_link(core);
        }
        if self.held == 0 && self.inbox.is_none() && self.outbox.is_none() && !self.is_layered() {
            return false;
        }
        let held = u32::try_from(self.capacity()).unwrap_or(u32::MAX);
        let buffered = &mut core.counters.buffered;
        *buffered = *buffered - u64::from(self.held) + u64::from(held);
        self.held = held;
        if let Some(outbox) = &mut self.outbox {
            core.pool.count_queued(outbox);
        }
        true
    }

    /// Bytes held in buffers, by capacity.
    fn capacity(&self) -> usize {
        let layers = if self.is_layered() { self.layers_capacity() } else { 0 };
        let inbox = self.inbox.as_ref().map_or(0, |inbox| inbox.capacity());
        // A layer may claim anything.
        layers.saturating_add(inbox + self.outbox.as_ref().map_or(0, |outbox| outbox.capacity()))
    }

    /// Returns a snapshot of the session; `started` is the time of tick 0.
    pub(crate) fn info(&self, id: SessionId, started: Instant) -> SessionInfo {
        let (peer, local) = (self.endpoints.peer(), self.endpoints.local());
        SessionInfo {
            id,
            peer,
            local,
            origin: self.endpoints.origin(),
            stats: self.stats(started),
            #[cfg(feature = "websocket")]
            peer_close: self.peer_close().cloned(),
        }
    }

    /// Returns the counters of the session; `origin` is the time of tick 0.
    pub(crate) fn stats(&self, origin: Instant) -> SessionStats {
        SessionStats {
            bytes_in: self.traffic.bytes_in,
            bytes_out: self.traffic.bytes_out,
            packets_in: self.traffic.packets_in,
            packets_out: self.traffic.packets_out,
            queued: self.unsent(),
            opened_at: origin + Duration::from_millis(self.opened),
        }
    }

    /// Returns the deadline of a graceful close. Time in which the shard did not serve the peer is added.
    pub(crate) fn close_by(&self, lost: Tick) -> Option<Tick> {
        let (by, lost_before) = self.extra()?.close_by?;
        Some(by + (lost - lost_before))
    }

    pub(super) fn extra(&self) -> Option<&ExtraState> {
        self.cold.as_ref()?.extra()
    }

    pub(super) fn extra_mut(&mut self) -> Option<&mut ExtraState> {
        self.cold.as_mut()?.extra_mut()
    }

    pub(super) fn extra_or_new(&mut self) -> &mut ExtraState {
        self.cold.get_or_insert_default().extra_or_new()
    }

    pub(crate) fn handle_state(&self) -> Option<&Arc<HandleState>> {
        self.cold.as_ref().and_then(|cold| cold.handle_state.as_ref())
    }

    /// Returns the part of the session that handles share, which is created with the first handle.
    pub(crate) fn handle_state_or_new(
        &mut self,
        framing: &dyn FramingSlot,
        core: &ShardCore,
    ) -> Arc<HandleState> {
        let (queued, broken, overflow) = (self.queued(), self.is_broken(), self.overflow());
        let closing = self.status.has_block(ReadBlock::CLOSING);
        let kind = self.reason().map_or(CloseKind::Local, CloseReason::kind);
        let make = || {
            let handle_state = HandleState::new(self.key, core.mailbox.clone(), overhead(framing));
            handle_state.set_backlog(queued);
            handle_state.set_overflow(overflow);
            if closing {
                handle_state.shut(kind);
            } else if broken {
                handle_state.lose(kind);
            }
            Arc::new(handle_state)
        };
        self.cold.get_or_insert_default().handle_state.get_or_insert_with(make).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_stays_small() {
        assert!(size_of::<Connection>() <= 112, "{} bytes", size_of::<Connection>());
    }
}
