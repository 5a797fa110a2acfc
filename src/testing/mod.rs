//! What a user's own framing is tested with: [`law::check`] holds it against what every framing owes a session, and
//! [`Collector`] drives one without a server.

mod collector;
pub mod law;

pub use collector::Collector;

#[doc(hidden)]
pub mod layers;
