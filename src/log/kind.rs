/// Declares the kinds, each with its level and the text that stands for its lines when they are summed up.
macro_rules! kinds {
    ($($(#[$doc:meta])+ $kind:ident: $level:ident $text:literal,)+) => {
        /// Kinds of lines, each of which is bounded for itself.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum LogKind {
            $($(#[$doc])+ $kind,)+
        }

        impl LogKind {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// Logs that `more` lines of this kind were left out in the last `seconds`.
            pub(super) fn sum_up(self, more: &str, seconds: u64) {
                match self {
                    $(Self::$kind => {
                        tracing::event!(tracing::Level::$level, "{}: … and {more} more in the last {seconds} s", $text);
                    })+
                }
            }
        }
    };
}

kinds! {
    /// A session has ended.
    SessionEnded: DEBUG "session ended",
    /// A connection was turned away before it became a session.
    Refused: DEBUG "connection refused",
    /// A dial has failed.
    DialFailed: DEBUG "a dial has failed",
    /// A dial is made again, or was.
    Redial: DEBUG "dials made again",
    /// User code panicked.
    Panicked: ERROR "panics",
    /// A connection cannot be polled, or handed to the strategy.
    Unpollable: WARN "cannot serve an accepted connection",
    /// A packet from elsewhere has no frame.
    Unframed: WARN "packets without a frame",
    /// A datagram was too long, or could not be sent.
    Datagram: DEBUG "datagrams dropped",
    /// A turn took long.
    SlowTurn: WARN "slow turns",
    /// The memory of a shard is used up.
    Memory: WARN "too much is buffered",
}
