//! The synchronization primitives that `crates/loom-models` replaces with those of a model checker.
//!
//! What a model is to explore uses these; counters that only metrics read stay with the standard library.

pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};
