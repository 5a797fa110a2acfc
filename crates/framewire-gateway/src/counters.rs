use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What one thread of a gateway counts. Only that thread writes; others read.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
        }

        impl Counters {
            pub(crate) fn add_to(&self, totals: &mut GatewayMetrics) {
                $(totals.$name += self.$name.get();)+
            }
        }

        /// What a gateway has counted since it was started, over all of its threads.
        #[derive(Debug, Default, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct GatewayMetrics {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl GatewayMetrics {
            /// Returns each counter with its name and what it counts.
            pub fn samples(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
                [$((stringify!($name), concat!($($doc),+), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Clients that have connected.
    clients,
    /// Clients turned away, because there are as many as there may be or the gateway is about to end.
    clients_refused,
    /// Servers that have proved their key.
    servers,
    /// Servers turned away for a wrong digest.
    servers_refused,
    /// Virtual connections opened.
    opened,
    /// Virtual connections closed.
    closed,
    /// Virtual connections closed because an end did not read and its queue was full.
    overflows,
    /// Dials refused: the connection ID was not issued to the dialer, or is in use.
    refused_not_issued,
    /// Dials refused: there is no such remote ID.
    refused_no_remote,
    /// Dials refused: the client has as many connections as it may have.
    refused_client_full,
    /// Dials refused: the server has as many connections as it may have.
    refused_server_full,
    /// Dials refused: the client dials too often.
    refused_too_often,
    /// Dials refused: the gateway is about to end.
    refused_draining,
    /// Frames forwarded.
    frames,
    /// Bytes forwarded, headers included.
    bytes,
    /// Frames in flight towards an end that had just closed, which were discarded.
    late,
    /// Frames for connections that the sender is no end of.
    strays,
    /// Links ended because they broke the protocol.
    violations,
    /// Links ended because they sent too many strays.
    links_strayed,
    /// Links ended because their peer read nothing and did not answer.
    links_stuck,
    /// Links ended because their peer was silent.
    links_silent,
    /// Times that a link was not read from because what it sends was not taken.
    holds,
}

/// A number that one thread counts up.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        // There is one writer: no need for an addition that other threads cannot interrupt.
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What goes over one link, in both directions.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) frames: Counter,
    pub(crate) bytes: Counter,
}

impl Traffic {
    pub(crate) fn add(&self, frame: usize) {
        self.frames.add(1);
        self.bytes.add(frame as u64);
    }
}
