use std::sync::{
    Arc,
    atomic::{
        AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// Accepted connections in their handshakes.
#[derive(Debug)]
pub(super) struct Handshakes {
    now: AtomicUsize,
    max: usize,
}

/// A connection's place among those in their handshakes, until this is dropped.
#[derive(Debug)]
pub(crate) struct HandshakePermit(Arc<Handshakes>);

impl Handshakes {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { now: AtomicUsize::new(0), max })
    }

    pub(super) fn is_full(&self) -> bool {
        self.now.load(Acquire) >= self.max
    }

    /// Counts one more. Acceptors that look at the same moment may exceed the limit by one each.
    pub(super) fn begin(own: &Arc<Self>) -> HandshakePermit {
        own.now.fetch_add(1, Relaxed);
        HandshakePermit(own.clone())
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Release);
    }
}

#[cfg(test)]
mod tests {
    use crate::{addr::Addr, sync::Admission};

    #[test]
    fn a_handshake_counts_until_it_is_over_or_its_connection_is_gone() -> Result<(), std::net::AddrParseError>
    {
        let admission = Admission::new(1, 10, None).with_handshakes(2);
        let peer = Addr::Ip("10.0.0.1:1000".parse()?);
        let mut permits = Vec::new();
        for _ in 0..2 {
            assert!(!admission.is_shaking_hands());
            permits.push(admission.admit_accepted(None, &peer).expect("there is room"));
        }
        assert!(admission.is_shaking_hands());
        let over = permits[0].take_handshake();
        assert!(admission.is_shaking_hands(), "it is held elsewhere");
        drop(over);
        assert!(!admission.is_shaking_hands());
        let third = admission.admit_accepted(None, &peer);
        assert!(admission.is_shaking_hands());
        drop(permits);
        assert!(!admission.is_shaking_hands(), "one of the two connections was still in its handshake");
        drop(third);
        Ok(())
    }
}
