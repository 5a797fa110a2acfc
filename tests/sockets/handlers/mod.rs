//! The handlers that tests of several topics use.

mod gate;
mod scripted;

pub(crate) use gate::{Blocker, Gate, gate};
pub(crate) use scripted::Scripted;
