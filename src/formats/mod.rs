//! Values of serde and zerocopy as packets, and packets that are compressed, each format by a feature of its own.

#[cfg(any(feature = "postcard", feature = "xml"))]
mod guard;
#[cfg(feature = "json")]
mod json;
#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "zerocopy")]
mod pod;
#[cfg(feature = "postcard")]
mod postcard;
#[cfg(feature = "xml")]
mod xml;

#[cfg(feature = "json")]
pub use json::Json;
#[cfg(feature = "lz4")]
pub use lz4::Lz4;
#[cfg(feature = "zerocopy")]
pub use pod::{Pod, PodRef};
#[cfg(feature = "postcard")]
pub use postcard::Postcard;
#[cfg(feature = "xml")]
pub use xml::Xml;

#[cfg(any(feature = "json", feature = "postcard", feature = "xml"))]
use crate::framing::EncodeError;

/// A value that its format cannot express, or whose own code failed.
#[cfg(any(feature = "json", feature = "postcard", feature = "xml"))]
fn unwritable<T: ?Sized>(format: &str, why: impl std::fmt::Display) -> EncodeError {
    EncodeError::because(format_args!("{} cannot be written as {format}: {why}", std::any::type_name::<T>()))
}
