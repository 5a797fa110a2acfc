//! Tools to test your own framing: [`law::check`] checks everything that a session relies on, and [`Collector`] drives
//! a framing without a server.

mod collector;
pub mod law;

pub use collector::Collector;

#[doc(hidden)]
pub mod layers;
