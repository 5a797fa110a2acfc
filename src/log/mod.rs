//! What goes to the log through a gate: lines that a peer can bring about as often as it likes.
//!
//! ```text
//! the first 10 of a kind in a second ──▶ a line each
//! all others ──▶ counted ──10 s later──▶ one line: "session ended: … and 12,345 more in the last 10 s"
//! ```

mod gate;
mod kind;

pub(crate) use self::{gate::LogGate, kind::LogKind};

/// Logs an event of `tracing` through a gate: `logged!(gate, now, SessionEnded DEBUG, fields…, "message")`. Where nobody
/// listens, it costs what `tracing` does, and nothing is counted.
macro_rules! logged {
    ($gate:expr, $now:expr, $kind:ident $level:ident, $($event:tt)+) => {
        if tracing::enabled!(tracing::Level::$level) && $gate.admits($crate::log::LogKind::$kind, $now) {
            tracing::event!(tracing::Level::$level, $($event)+);
        }
    };
}

pub(crate) use logged;
