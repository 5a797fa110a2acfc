//! Tools to test your own framing and your own layer: [`law::check`] checks everything that a session relies on in a
//! framing, [`Collector`] drives a framing and [`LayerDriver`] a layer without a server.

mod collector;
pub mod law;
mod layer_driver;

pub use collector::Collector;
pub use layer_driver::LayerDriver;

#[doc(hidden)]
pub mod layers;
