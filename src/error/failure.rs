use std::{borrow::Cow, error::Error, fmt, sync::Arc};

/// Why a callback closes its session: any error, converted by `?`.
///
/// Like anyhow's error type, this does not implement [`Error`], since that would make the conversion ambiguous;
/// [`as_error`](Self::as_error) returns the error inside. If that is a [`SendError`](crate::SendError), the session is
/// closed with [`CloseReason::Send`](crate::CloseReason::Send), otherwise with
/// [`CloseReason::Handler`](crate::CloseReason::Handler). Clones share the error.
///
/// ```
/// use framewire::{Failure, Handled, Session};
///
/// fn greet(session: &mut Session<'_>, packet: &[u8]) -> Handled {
///     let name = std::str::from_utf8(packet)?; // a Utf8Error
///     if name.is_empty() {
///         return Err(Failure::because("a user without a name"));
///     }
///     session.send(format!("hello {name}"))?; // a SendError
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Failure(Arc<dyn Error + Send + Sync>);

/// What a callback returns: a value, or the reason why its session is closed.
pub type Handled<T = ()> = Result<T, Failure>;

impl Failure {
    /// Creates a failure from a text. The text is shown in the log and by the `Display` of
    /// [`CloseReason`](crate::CloseReason); write it in lower case and without a full stop.
    #[must_use]
    pub fn because(why: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Because(why.into())))
    }

    /// Returns the error inside.
    #[must_use]
    pub fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }

    pub(crate) fn into_inner(self) -> Arc<dyn Error + Send + Sync> {
        self.0
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Failure").field(&self.0).finish()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The text of [`Failure::because`].
#[derive(Debug)]
struct Because(Cow<'static, str>);

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Because {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{CloseKind, CloseReason, SendError};

    #[test]
    fn a_failed_send_closes_for_that_and_everything_else_for_the_handler() {
        let reason = |failure: Failure| CloseReason::failed(failure);
        let send = reason(SendError::Closed.into());
        assert!(matches!(send, CloseReason::Send(SendError::Closed)), "{send:?}");
        let because = reason(Failure::because("bad password"));
        assert_eq!(
            (because.kind(), because.to_string().as_str()),
            (CloseKind::Handler, "handler: bad password")
        );
        let forged = reason(CloseReason::PeerClosed.into());
        assert_eq!(
            (forged.kind(), forged.to_string().as_str()),
            (CloseKind::Handler, "handler: the peer closed")
        );
    }

    #[test]
    fn a_failure_takes_no_more_room_than_the_pointer_to_its_error() {
        assert_eq!(size_of::<Handled>(), size_of::<Arc<dyn Error + Send + Sync>>());
    }
}
