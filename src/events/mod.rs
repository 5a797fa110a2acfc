//! What an operator may want to know at once, for as many as want to: each subscriber has a bounded ring of its own.
//!
//! ```text
//! shard, acceptor ──Reporter──▶ Hub ──clone──▶ ring of capacity n ──▶ Events::recv
//!                                  ──clone──▶ ring …   full: the oldest goes, and is counted
//! ```

mod event;
mod hub;
mod reporter;
mod ring;
mod subscription;

pub use self::{event::Event, subscription::Events};

pub(crate) use self::{
    hub::{Hub, Publisher},
    reporter::Reporter,
};

#[cfg(test)]
mod tests;
