//! The framings of a server, by the listener that accepts a connection.

use std::iter;

use crate::{
    contained::Contained,
    framing::{AnyFraming, Framing},
    session::FramingCell,
};

/// The prototypes of the framings: a session begins with a clone of its listener's.
#[derive(Clone)]
pub(crate) struct Framings<F> {
    /// That of the listeners for which there is no other.
    own: Contained<F>,
    others: OtherFramings,
}

/// The framings of listeners that have one of their own.
#[derive(Clone, Default)]
pub(crate) struct OtherFramings(Vec<OtherFraming>);

#[derive(Clone)]
struct OtherFraming {
    /// The number of its first listener. The last one is that before the first of the next framing.
    first: usize,
    framing: Contained<AnyFraming>,
}

impl OtherFramings {
    /// Adds the framing of the listeners from this number on.
    pub(crate) fn push(&mut self, first: usize, framing: impl Framing + Clone + Send + 'static) {
        debug_assert!(
            self.0.last().is_none_or(|last| last.first <= first),
            "listeners are numbered in order"
        );
        self.0.push(OtherFraming { first, framing: Contained::new(AnyFraming::new(framing)) });
    }

    fn of(&self, listener: usize) -> Option<&OtherFraming> {
        let behind = self.0.partition_point(|other| other.first <= listener);
        self.0.get(behind.checked_sub(1)?)
    }
}

impl<F: Framing + Clone> Framings<F> {
    pub(crate) fn new(own: Contained<F>, others: OtherFramings) -> Self {
        Self { own, others }
    }

    /// Offers the limit of the server to each of them.
    pub(crate) fn offer_max(&mut self, max: usize) {
        self.own.offer_max(max);
        self.others.0.iter_mut().for_each(|other| other.framing.offer_max(max));
    }

    /// Returns clones for a shard that serves connections of this listener only, or none that were accepted.
    pub(crate) fn clone_for(&self, listener: Option<usize>) -> Self {
        let other = listener.and_then(|listener| self.others.of(listener));
        let others = other.cloned().into_iter().collect();
        Self { own: self.own.clone(), others: OtherFramings(others) }
    }

    /// Returns the framing of a connection that this listener has accepted, or of one that this side has made. Calls the
    /// user's code, which may panic.
    pub(super) fn cell(&self, listener: Option<usize>) -> FramingCell<F> {
        match listener.and_then(|listener| self.others.of(listener)) {
            None => FramingCell::Own(F::clone(&self.own)),
            Some(other) => FramingCell::Swapped(Box::new(other.framing.clone_boxed())),
        }
    }

    /// Drops them.
    ///
    /// # Errors
    /// The message of each whose destructor panicked.
    pub(super) fn discard(self) -> impl Iterator<Item = Result<(), String>> {
        let others = self.others.0.into_iter().map(|other| other.framing.discard());
        iter::once(self.own.discard()).chain(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{FixedLength, LengthPrefix};

    /// The sizes of the whole frames that a session of this listener may get.
    fn most(framings: &Framings<LengthPrefix>, listener: usize) -> Option<usize> {
        framings.cell(Some(listener)).max_frame()
    }

    #[test]
    fn a_listener_has_the_last_framing_that_begins_at_or_before_it() {
        let mut others = OtherFramings::default();
        others.push(2, FixedLength::new(7).unwrap());
        others.push(5, LengthPrefix::u8().max(20));
        others.push(6, LengthPrefix::u16_be());
        let mut framings = Framings::new(Contained::new(LengthPrefix::u32_be()), others);
        framings.offer_max(100);
        let expected = [104, 104, 7, 7, 7, 21, 102, 102].map(Some);
        assert_eq!(std::array::from_fn(|listener| most(&framings, listener)), expected);
        for (listener, most_there) in expected.into_iter().enumerate() {
            assert_eq!(most(&framings.clone(), listener), most_there);
            assert_eq!(most(&framings.clone_for(Some(listener)), listener), most_there);
        }
        assert_eq!(framings.cell(None).max_frame(), Some(104), "a connection of ours has the server's own");
        assert!(framings.discard().eq([Ok(()), Ok(()), Ok(()), Ok(())]));
    }
}
