use crate::{
    contained::Contained,
    error::{CloseReason, SendError, StreamError},
    id::{SessionId, ShardId},
    session::{LinkSignal, StreamEffect},
};

/// What callbacks have asked of other sessions on their thread. It is done when the callback has returned, so that no
/// session is used while another's callback runs.
///
/// ```text
/// list  │ send 3 bytes to a │ close b │ send 2 bytes to a │
/// bytes │ x x x │ y y │
/// ```
///
/// Bounded as the mailbox is, by [`Limits::mailbox_commands`](crate::Limits::mailbox_commands) and
/// [`Limits::mailbox_bytes`](crate::Limits::mailbox_bytes): it is the same traffic without the lock. The packets follow
/// each other in one buffer, so that recording one usually allocates nothing.
#[derive(Default)]
pub(crate) struct Effects {
    list: Vec<Effect>,
    bytes: Vec<u8>,
    /// Streams have something to send over their carriers.
    carries: bool,
}

/// What is asked of one session.
pub(crate) enum Effect {
    /// Send the next `len` of the bytes.
    Send { to: SessionId, len: usize },
    /// Close gracefully, for this reason.
    Close { session: SessionId, reason: Contained<CloseReason> },
    /// Send the packets in the next `len` of the bytes, which come from the session that this one is linked to.
    Pass { to: SessionId, len: usize },
    /// What another session says about their link.
    Signal { to: SessionId, signal: LinkSignal },
    /// What a carrier tells the shard of its streams.
    Stream { to: ShardId, carrier: SessionId, about: StreamEffect },
}

impl Effect {
    /// Returns the shard concerned.
    pub(crate) fn shard(&self) -> ShardId {
        match self {
            Self::Send { to: session, .. }
            | Self::Close { session, .. }
            | Self::Pass { to: session, .. }
            | Self::Signal { to: session, .. } => session.shard(),
            Self::Stream { to, .. } => *to,
        }
    }

    /// How many of the bytes are its own.
    fn len(&self) -> usize {
        match self {
            Self::Send { len, .. } | Self::Pass { len, .. } => *len,
            Self::Stream { about: StreamEffect::Packets { len, .. }, .. } => *len,
            Self::Close { .. } | Self::Signal { .. } | Self::Stream { .. } => 0,
        }
    }

    /// Returns what follows if the session's whole service has ended: a session that asks for a link gets none.
    pub(crate) fn answer_for_ended(&self) -> Option<Self> {
        match self {
            Self::Signal { signal: LinkSignal::Join { from }, .. } => {
                Some(Self::Signal { to: *from, signal: LinkSignal::Gone(None) })
            }
            _ => None,
        }
    }
}

/// Bytes of the buffers that are kept for the next time.
const KEPT: usize = 64 * 1024;

impl Effects {
    /// Returns `true` if nothing is asked, and no stream has anything to send.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty() && !self.carries
    }

    /// Returns `true` if nothing is asked.
    pub(crate) fn is_unasked(&self) -> bool {
        self.list.is_empty()
    }

    /// Streams have something to send over their carriers.
    pub(crate) fn note_carrying(&mut self) {
        self.carries = true;
    }

    /// Returns `true` if they had.
    pub(crate) fn take_carrying(&mut self) -> bool {
        std::mem::take(&mut self.carries)
    }

    /// Records a packet for another session.
    pub(crate) fn send(
        &mut self,
        to: SessionId,
        packet: &[u8],
        most: usize,
        most_bytes: usize,
    ) -> Result<(), SendError> {
        let bytes = self.bytes.len();
        let room = most_bytes.saturating_sub(bytes);
        if self.list.len() >= most || packet.len() > room {
            return Err(SendError::MailboxFull { commands: self.list.len(), bytes });
        }
        self.bytes.extend_from_slice(packet);
        self.list.push(Effect::Send { to, len: packet.len() });
        Ok(())
    }

    /// Records a packet for the session that its receiver is linked to. Packets that follow each other share an effect,
    /// each behind its length. Returns `false` if it would take what waits above `most` bytes; a single packet may.
    pub(crate) fn pass(&mut self, partner: SessionId, packet: &[u8], most: usize) -> bool {
        let room = most.saturating_sub(self.bytes.len());
        if packet.len() > room && !self.bytes.is_empty() {
            return false;
        }
        let size = packet.len().to_le_bytes();
        self.bytes.extend_from_slice(&size);
        self.bytes.extend_from_slice(packet);
        let added = size.len() + packet.len();
        match self.list.last_mut() {
            Some(Effect::Pass { to, len }) if *to == partner => *len += added,
            _ => self.list.push(Effect::Pass { to: partner, len: added }),
        }
        true
    }

    /// Records what a session says to the one that it is linked to. Never refused: a session says no more than a few
    /// things in one visit.
    pub(crate) fn signal(&mut self, to: SessionId, signal: LinkSignal) {
        self.list.push(Effect::Signal { to, signal });
    }

    /// Records what is never refused, because it is rare.
    pub(crate) fn record(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    /// Records what a carrier tells its streams.
    pub(crate) fn tell_stream(&mut self, effect: Effect, most: usize) -> Result<(), StreamError> {
        if self.list.len() >= most {
            return Err(StreamError::Full { packets: self.list.len(), bytes: self.bytes.len() });
        }
        self.list.push(effect);
        Ok(())
    }

    /// Records a packet that has come for a stream of this carrier. Packets that follow each other share an effect, each
    /// behind its length, as they stand in an inbox.
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        to: ShardId,
        carrier: SessionId,
        stream: u64,
        packet: &[u8],
        (most, most_bytes): (usize, usize),
    ) -> Result<(), StreamError> {
        let (waiting, added) = (self.bytes.len(), packet.len().saturating_add(4));
        let has_room = self.list.len() < most && added <= most_bytes.saturating_sub(waiting);
        let size = u32::try_from(packet.len()).ok().filter(|_| has_room);
        let full = StreamError::Full { packets: self.list.len(), bytes: waiting };
        let size = size.ok_or(full)?;
        self.bytes.extend_from_slice(&size.to_be_bytes());
        self.bytes.extend_from_slice(packet);
        if let Some(Effect::Stream {
            to: shard,
            carrier: of,
            about: StreamEffect::Packets { stream: number, packets, len },
        }) = self.list.last_mut()
        {
            if (*shard, *of, *number) == (to, carrier, stream) {
                (*packets, *len) = (*packets + 1, *len + added);
                return Ok(());
            }
        }
        let about = StreamEffect::Packets { stream, packets: 1, len: added };
        self.list.push(Effect::Stream { to, carrier, about });
        Ok(())
    }

    /// Records that another session is to be closed.
    pub(crate) fn close(
        &mut self,
        session: SessionId,
        reason: CloseReason,
        most: usize,
    ) -> Result<(), SendError> {
        if self.list.len() >= most {
            return Err(SendError::MailboxFull { commands: self.list.len(), bytes: self.bytes.len() });
        }
        self.list.push(Effect::Close { session, reason: Contained::new(reason) });
        Ok(())
    }

    /// Hands each effect to `apply` in the order in which they were recorded, with its bytes.
    pub(crate) fn drain(&mut self, mut apply: impl FnMut(Effect, &mut [u8])) {
        let mut rest = self.bytes.as_mut_slice();
        for effect in self.list.drain(..) {
            let Some((packet, behind)) = rest.split_at_mut_checked(effect.len()) else { break };
            rest = behind;
            apply(effect, packet);
        }
        self.bytes.clear();
    }

    /// Takes back the buffers of `drained`, for the next effects.
    pub(crate) fn reuse(&mut self, mut drained: Self) {
        debug_assert!(
            drained.list.is_empty() && self.list.is_empty(),
            "nothing is recorded while effects are applied"
        );
        drained.carries |= self.carries;
        drained.bytes.shrink_to(KEPT);
        drained.list.shrink_to(KEPT / size_of::<Effect>());
        *self = drained;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Key, ServerNumber, ShardId};

    const MOST: usize = 65_536;
    const BYTES: usize = 64 << 20;

    fn key(slot: u32) -> SessionId {
        ServerNumber::next().id(ShardId(0), Key { slot, generation: 0 })
    }

    #[test]
    fn effects_come_back_in_order_with_their_bytes() {
        let mut effects = Effects::default();
        assert_eq!(effects.send(key(1), b"one", MOST, BYTES), Ok(()));
        assert_eq!(effects.close(key(2), CloseReason::Local, MOST), Ok(()));
        assert_eq!(effects.send(key(1), b"", MOST, BYTES), Ok(()));
        assert_eq!(effects.send(key(3), b"two", MOST, BYTES), Ok(()));
        let mut seen = Vec::new();
        effects.drain(|effect, packet| match effect {
            Effect::Send { to, .. } => seen.push((to.key.slot, packet.to_vec())),
            Effect::Close { session, .. } => seen.push((session.key.slot, b"close".into())),
            Effect::Pass { to, .. } => seen.push((to.key.slot, packet.to_vec())),
            Effect::Signal { to, .. } => seen.push((to.key.slot, b"signal".into())),
            Effect::Stream { .. } => unreachable!("none was told anything"),
        });
        let expected = [(1, &b"one"[..]), (2, b"close"), (1, b""), (3, b"two")];
        assert_eq!(seen, expected.map(|(slot, packet)| (slot, packet.to_vec())));
        assert!(effects.is_empty() && effects.bytes.is_empty());
    }

    #[test]
    fn no_more_is_recorded_than_a_mailbox_takes() {
        let mut effects = Effects::default();
        assert_eq!(effects.send(key(1), &[0; 10], 2, 10), Ok(()));
        assert_eq!(
            effects.send(key(1), &[0; 1], 2, 10),
            Err(SendError::MailboxFull { commands: 1, bytes: 10 })
        );
        assert_eq!(effects.close(key(1), CloseReason::Local, 2), Ok(()));
        let full = Err(SendError::MailboxFull { commands: 2, bytes: 10 });
        assert_eq!(effects.close(key(1), CloseReason::Local, 2), full);
        assert_eq!(effects.send(key(1), b"", 2, 10), full);
    }

    #[test]
    fn packets_that_are_passed_on_share_an_effect_until_another_comes_between() {
        let (mut effects, one, other) = (Effects::default(), key(1), key(2));
        assert!(effects.pass(one, b"one", BYTES) && effects.pass(one, b"", BYTES));
        effects.signal(one, LinkSignal::End);
        assert!(effects.pass(one, b"two", BYTES) && effects.pass(other, b"three", BYTES));
        let mut seen = Vec::new();
        effects.drain(|effect, packets| match effect {
            Effect::Pass { to, .. } | Effect::Signal { to, .. } => seen.push((to.key.slot, packets.len())),
            _ => unreachable!("nothing else was recorded"),
        });
        assert_eq!(seen, [(1, 8 + 3 + 8), (1, 0), (1, 8 + 3), (2, 8 + 5)]);
    }

    #[test]
    fn no_more_is_passed_on_than_a_mailbox_takes_but_for_a_single_packet() {
        let mut effects = Effects::default();
        assert!(effects.pass(key(1), &[0; 100], 10));
        assert!(!effects.pass(key(1), &[0; 1], 10));
    }

    #[test]
    fn packets_for_a_stream_stand_behind_their_lengths_and_share_an_effect() {
        let (mut effects, carrier) = (Effects::default(), key(1));
        let limits = (3, 26);
        for (stream, packet) in [(1, &b"one"[..]), (1, b""), (2, b"two")] {
            assert_eq!(effects.deliver(ShardId(1), carrier, stream, packet, limits), Ok(()));
        }
        let full = Err(StreamError::Full { packets: 2, bytes: 18 });
        assert_eq!(effects.deliver(ShardId(1), carrier, 2, b"12345", limits), full);
        let about = StreamEffect::End { stream: 1 };
        assert_eq!(effects.tell_stream(Effect::Stream { to: ShardId(1), carrier, about }, 3), Ok(()));
        let about = StreamEffect::End { stream: 2 };
        let full = Err(StreamError::Full { packets: 3, bytes: 18 });
        assert_eq!(effects.tell_stream(Effect::Stream { to: ShardId(1), carrier, about }, 3), full);
        let mut seen = Vec::new();
        effects.drain(|effect, packets| {
            assert_eq!(effect.shard(), ShardId(1));
            if let Effect::Stream { about: StreamEffect::Packets { stream, packets: count, .. }, .. } = effect
            {
                seen.push((stream, count, packets.to_vec()));
            }
        });
        let expected = [(1, 2, b"\0\0\0\x03one\0\0\0\0".to_vec()), (2, 1, b"\0\0\0\x03two".to_vec())];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_burst_does_not_keep_its_memory() {
        let mut effects = Effects::default();
        for _ in 0..10_000 {
            assert_eq!(effects.send(key(1), &[0; 100], MOST, BYTES), Ok(()));
        }
        effects.drain(|_, _| ());
        let mut kept = Effects::default();
        kept.reuse(effects);
        assert!(kept.bytes.capacity() <= KEPT && kept.list.capacity() * size_of::<Effect>() <= KEPT);
    }
}
