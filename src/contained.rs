//! Containing user code that may panic: callbacks, and the destructors of values.

use std::{
    any::type_name,
    ops::{Deref, DerefMut},
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::error::{CloseReason, Logged, discard};

/// A value whose type the user chose. A panic in its destructor is caught and logged.
///
/// Every handler, framing, strategy, state, closure and packet of the user's is owned through one of these. Each value
/// needs its own: if two were dropped together, the second could panic while the first still unwinds, which aborts the
/// process.
#[derive(Debug)]
pub(crate) struct Contained<T>(Option<T>);

impl<T> Contained<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    pub(crate) fn into_inner(mut self) -> T {
        self.0.take().unwrap_or_else(|| gone())
    }

    /// Drops the value. For owners that count panics.
    ///
    /// # Errors
    /// The message, if its destructor panicked.
    pub(crate) fn discard(mut self) -> Result<(), String> {
        discard(self.0.take())
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        if let Err(panic) = discard(self.0.take()) {
            tracing::error!(value = type_name::<T>(), panic = %Logged(&panic), "a value panicked when it was dropped");
        }
    }
}

impl<T> Deref for Contained<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_ref().unwrap_or_else(|| gone())
    }
}

impl<T> DerefMut for Contained<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().unwrap_or_else(|| gone())
    }
}

/// Panics if the clone of the value does.
impl<T: Clone> Clone for Contained<T> {
    fn clone(&self) -> Self {
        Self::new((**self).clone())
    }
}

/// Unreachable, because the value is only taken by methods that consume the container, and by its drop.
#[cold]
fn gone() -> ! {
    unreachable!("a contained value was used after it was taken")
}

/// Runs user code and catches its panic.
///
/// Asserting unwind safety is sound for the session's state, which is dropped with the session, so that a half-done
/// change is never seen. The handler itself is responsible for its own fields.
#[inline]
pub(crate) fn guard<R, E: From<CloseReason>>(
    callback: &'static str,
    body: impl FnOnce() -> Result<R, E>,
) -> Result<R, E> {
    catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|panic| Err(CloseReason::panicked(callback, panic).into()))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};

    use super::*;

    /// Panics when it is dropped, without calling the panic hook, with a payload that does the same.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            resume_unwind(Box::new(Bomb));
        }
    }

    #[test]
    fn a_panicking_destructor_is_contained() {
        drop(Contained::new(Bomb));
        drop((Contained::new(Bomb), Contained::new(Bomb)));
        assert_eq!(Contained::new(Bomb).discard(), Err("(no message)".to_owned()));
        assert_eq!(Contained::new(7).discard(), Ok(()));
    }

    #[test]
    fn a_panicking_destructor_is_contained_while_another_panic_unwinds() {
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _contained = (Contained::new(Bomb), Contained::new(Bomb));
            panic_any("the first");
        }));
        assert_eq!(unwound.err().and_then(|panic| panic.downcast_ref().copied()), Some("the first"));
    }

    #[test]
    fn a_contained_value_takes_no_more_room_where_it_has_some_to_spare() {
        assert_eq!(size_of::<Contained<Box<dyn FnOnce()>>>(), size_of::<Box<dyn FnOnce()>>());
    }
}
