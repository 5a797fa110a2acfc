//! What framewire's threads share, from the library's own source files, on loom's locks and atomics instead of the standard
//! library's: `tests/` goes through every interleaving.
//!
//! A package apart, so that a user of the library has no loom in the lock file.

// The library formats it.
#[rustfmt::skip]
#[path = "../../../src/sync/mailbox.rs"]
pub mod mailbox;

/// What waits for one session.
#[rustfmt::skip]
#[path = "../../../src/sync/quota.rs"]
pub mod quota;

#[rustfmt::skip]
#[path = "../../../src/sync/room.rs"]
pub mod room;

/// In the place of the library's `sync::primitives`.
mod primitives {
    pub(crate) use loom::sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    };
}
