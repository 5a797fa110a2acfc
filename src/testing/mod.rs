//! What a user's own framing is tested with: [`law::check`] holds it against what every framing owes a session, and
//! [`Cutter`] drives one without a server.

mod cutter;
pub mod law;

pub use cutter::Cutter;
