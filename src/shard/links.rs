//! Passing packets of linked sessions on, without a callback for each.

use super::{
    Command, SessionAccess, Shard,
    input::{Finder, Found, Stop},
};
use crate::{
    contained::guard,
    error::CloseReason,
    framing::{Framing, Stage, U32Header},
    handler::PacketHandler,
    id::{Key, SessionId},
    session::{LinkSignal, SessionCommand},
    time::Tick,
};

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Tells a session of this shard what another says about their link.
    pub(super) fn signal(&mut self, to: SessionId, signal: LinkSignal) {
        let told = self.with_session(to.key, |access| access.handle_link_signal(signal));
        if told.is_none() {
            self.answer_for_ended(to.key, signal);
        }
    }

    /// The session that `signal` was for has ended.
    #[cold]
    pub(super) fn answer_for_ended(&mut self, ended: Key, signal: LinkSignal) {
        self.core.answer_for_ended(ended, signal);
        self.apply_effects();
    }

    /// Drops a command that will never be carried out. A session that asks in it for a link is told that it gets none.
    pub(crate) fn give_up<S>(&mut self, command: Command<S>) {
        if let Command::Session(key, command) = &command {
            if let SessionCommand::Link(signal) = **command {
                self.answer_for_ended(*key, signal);
            }
        }
        self.core.count_discarded(command.discard());
    }
}

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    pub(super) fn handle_link_signal(&mut self, signal: LinkSignal) {
        if self.is_alive() {
            self.slot.connection.handle_link_signal(signal, self.core);
            self.core.flush_later(&mut self.slot.connection);
        }
    }

    /// Takes packets that the partner of this session has received.
    pub(super) fn take_passed(&mut self, packets: &[u8]) {
        if !self.is_open() {
            return;
        }
        let (connection, framing, core) = (&mut self.slot.connection, &*self.slot.framing, &mut *self.core);
        let taken = guard("encode", || Ok::<_, CloseReason>(connection.take_passed(framing, packets, core)));
        match taken {
            Ok(Ok(())) => {}
            // Also if the packet has no frame here: a proxy that leaves one out has lost it.
            Ok(Err(error)) => self.close(error.into()),
            Err(panic) => self.fail(panic),
        }
        self.core.flush_later(&mut self.slot.connection);
    }

    /// Cuts packets from the front of `region` and passes them on, as many as the session may have in this turn. Returns
    /// how many bytes were consumed. The same loop as `hand_out`, with the partner in place of the handler.
    #[inline(never)]
    pub(super) fn pass_on(&mut self, region: &mut [u8], since: Tick, stage: Stage) -> Result<usize, Stop> {
        guard("on_packet", || pass_on(self, region, since, stage))
    }
}

fn pass_on<H: PacketHandler, F: Framing, T>(
    access: &mut SessionAccess<'_, H, F, T>,
    region: &mut [u8],
    since: Tick,
    stage: Stage,
) -> Result<usize, Stop> {
    let (handler, slot, core, share) =
        (&mut *access.handler, &mut *access.slot, &mut *access.core, &mut access.share);
    let Some(partner) = core.links.partner(slot.connection.key().slot) else { return Ok(0) };
    let Some(state) = slot.state.as_deref_mut() else { return Ok(0) };
    let (cell, len) = (&mut *slot.framing, region.len());
    // No more than the partner's outbox takes beside what may be in it while this session is not held.
    let most = core.effect_limits().1.min(core.limits.outbox_hard);
    let (mut refused_at, mut rest) = (None, region);
    while slot.connection.takes_packets() {
        if share.frames == 0 {
            share.renew(core);
            if share.frames == 0 {
                break;
            }
        }
        let header = U32Header::of(cell.length_header());
        let (packet, consumed) = match header.whole(rest) {
            Some(end) => (rest.get(U32Header::WIDTH..end), end),
            None if rest.is_empty() && stage == Stage::Open => break,
            None => {
                let finder = Finder { stage, since, len, refused_at: &mut refused_at };
                match finder.find(handler, &mut slot.connection, state, cell, core, rest)? {
                    Found::Nothing => break,
                    Found::Packet(packet, consumed) => (rest.get(packet), consumed),
                    Found::NoPacket(consumed) => (None, consumed),
                }
            }
        };
        if let Some(packet) = packet {
            if !core.effects_at(partner).pass(partner, packet, most) {
                // As much waits for the partner in this turn as may: the rest is put off.
                share.frames = 0;
                break;
            }
            slot.connection.count_packet_in();
        }
        share.frames -= 1;
        match std::mem::take(&mut rest).get_mut(consumed..) {
            Some(behind) => rest = behind,
            None => break,
        }
    }
    Ok(len - rest.len())
}
