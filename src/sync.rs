//! The primitives of threads: the standard library's, or those of the loom model checker under `--cfg loom`.
//!
//! What a model is to explore uses these; counters that only metrics read stay with the standard library.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU8, Ordering},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU8, Ordering},
};
