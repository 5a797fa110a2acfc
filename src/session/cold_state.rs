use std::sync::Arc;

#[cfg(feature = "websocket")]
use crate::websocket::{CloseFrame, Request};
use crate::{
    buffer::Overflow,
    contained::Contained,
    error::CloseReason,
    layer::ProxyHeader,
    session::{HandleState, TimerId, layered::Layered},
    time::Tick,
    timer_wheel::TimerKey,
};

/// What a session with a handle, a timer or layers needs: boxed, because an idle session has none of them.
#[derive(Default)]
pub(super) struct ColdState {
    pub(super) handle_state: Option<Arc<HandleState>>,
    /// The handler's timer, if there is only one. The others are in the extra state.
    first_timer: Option<Timer>,
    pub(super) layered: Option<Box<Layered>>,
    extra: Option<Box<ExtraState>>,
}

/// What few sessions need, and none for long.
#[derive(Default)]
pub(super) struct ExtraState {
    more_timers: Vec<Timer>,
    /// Why it is closing.
    pub(super) reason: Option<Contained<CloseReason>>,
    /// The end of a graceful close, and the ticks that were lost before it was set.
    pub(super) close_by: Option<(Tick, Tick)>,
    /// The end of a pause before the first packet, or of a callback that delayed it.
    pub(super) listening_since: Tick,
    /// When the frame began that is being discarded.
    pub(super) discarding_since: Tick,
    /// What becomes of packets for which there is no room.
    pub(super) overflow: Overflow,
    /// What a proxy has said about the connection.
    pub(super) proxied: Option<Box<ProxyHeader>>,
    /// Streams that it was told of, of which not all need be open any more.
    pub(super) streams: u64,
    /// The server shuts down, and it closes when none of the streams is left that it carries.
    pub(super) closes_behind_streams: bool,
    /// The protocol that the layers have negotiated with the peer.
    pub(super) protocol: Option<Box<[u8]>>,
    /// The request of a WebSocket, until `on_open` has returned.
    #[cfg(feature = "websocket")]
    pub(super) upgrade: Option<Box<Request>>,
    /// The close frame of the peer.
    #[cfg(feature = "websocket")]
    pub(super) peer_close: Option<Box<CloseFrame>>,
}

/// A timer that the handler has set, and its key in the wheel.
pub(super) type Timer = (TimerId, TimerKey);

impl ColdState {
    pub(super) fn extra(&self) -> Option<&ExtraState> {
        self.extra.as_deref()
    }

    pub(super) fn extra_mut(&mut self) -> Option<&mut ExtraState> {
        self.extra.as_deref_mut()
    }

    pub(super) fn extra_or_new(&mut self) -> &mut ExtraState {
        self.extra.get_or_insert_default()
    }

    /// Returns the layers, and why the session closes, if it does.
    pub(super) fn closing_layers(&mut self) -> Option<(&mut Layered, Option<&CloseReason>)> {
        let reason = self.extra.as_ref().and_then(|extra| extra.reason.as_deref());
        Some((self.layered.as_deref_mut()?, reason))
    }

    fn more_timers(&mut self) -> Option<&mut Vec<Timer>> {
        self.extra.as_mut().map(|extra| &mut extra.more_timers)
    }

    pub(super) fn timer_count(&self) -> usize {
        usize::from(self.first_timer.is_some()) + self.extra().map_or(0, |extra| extra.more_timers.len())
    }

    /// Returns the key of a timer.
    pub(super) fn timer_mut(&mut self, timer: TimerId) -> Option<&mut TimerKey> {
        let Self { first_timer, extra, .. } = self;
        let more = extra.iter_mut().flat_map(|extra| &mut extra.more_timers);
        first_timer.iter_mut().chain(more).find(|(id, _)| *id == timer).map(|(_, key)| key)
    }

    pub(super) fn add_timer(&mut self, timer: Timer) {
        if self.first_timer.is_none() {
            self.first_timer = Some(timer);
        } else {
            self.extra_or_new().more_timers.push(timer);
        }
    }

    /// Removes the timer for which the closure returns `true`.
    pub(super) fn remove_timer(&mut self, is_it: impl Fn(&Timer) -> bool) -> Option<Timer> {
        if let Some(first) = self.first_timer.take_if(|first| is_it(first)) {
            return Some(first);
        }
        let more = self.more_timers()?;
        let at = more.iter().position(is_it)?;
        Some(more.swap_remove(at))
    }

    /// Removes all timers.
    pub(super) fn take_timers(&mut self) -> impl Iterator<Item = Timer> + use<> {
        let first = self.first_timer.take();
        first.into_iter().chain(self.more_timers().map(std::mem::take).into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer_wheel::TimerWheel;

    #[test]
    fn a_handle_and_a_timer_take_40_bytes_beside_the_session() {
        assert!(size_of::<ColdState>() <= 40, "{} bytes", size_of::<ColdState>());
    }

    #[test]
    fn one_timer_needs_no_extra_state_and_further_ones_are_found_as_well() {
        let mut wheel = TimerWheel::new();
        let mut cold = ColdState::default();
        let timers: Vec<Timer> = (0..3).map(|n| (TimerId(n), wheel.insert(u64::from(n), ()))).collect();
        for (n, timer) in timers.iter().enumerate() {
            assert_eq!(cold.extra().is_some(), n > 1);
            cold.add_timer(*timer);
        }
        assert_eq!(cold.timer_count(), 3);
        for (id, key) in &timers {
            assert_eq!(cold.timer_mut(*id), Some(&mut key.clone()));
        }
        assert_eq!(cold.remove_timer(|(id, _)| *id == TimerId(0)), Some(timers[0]));
        assert_eq!(cold.remove_timer(|(id, _)| *id == TimerId(0)), None);
        assert_eq!(cold.remove_timer(|(_, key)| *key == timers[2].1), Some(timers[2]));
        cold.add_timer(timers[0]);
        assert_eq!(cold.take_timers().collect::<Vec<_>>(), timers[..2]);
        assert_eq!((cold.timer_count(), cold.take_timers().count()), (0, 0));
    }
}
