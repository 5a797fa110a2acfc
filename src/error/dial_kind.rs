use std::io::ErrorKind;

use super::DialError;

/// The kind of a [`DialError`]. Metrics count dials that have failed, and those that are made again, by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DialErrorKind {
    /// See [`DialError::Address`].
    Address,
    /// See [`DialError::Lookup`].
    Lookup,
    /// Nobody listens at the address ([`DialError::Connect`]).
    Refused,
    /// The connection could not be made for another reason ([`DialError::Connect`]).
    Connect,
    /// See [`DialError::TimedOut`].
    TimedOut,
    /// See [`DialError::Unsuited`].
    Unsuited,
    /// See [`DialError::Known`].
    Known,
    /// See [`DialError::Opening`].
    Opening,
    /// See [`DialError::Lost`].
    Lost,
    /// See [`DialError::Full`].
    Full,
    /// See [`DialError::TooMany`].
    TooMany,
    /// See [`DialError::Thread`].
    Thread,
    /// See [`DialError::Stopped`].
    Stopped,
}

impl DialErrorKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Address,
        Self::Lookup,
        Self::Refused,
        Self::Connect,
        Self::TimedOut,
        Self::Unsuited,
        Self::Known,
        Self::Opening,
        Self::Lost,
        Self::Full,
        Self::TooMany,
        Self::Thread,
        Self::Stopped,
    ];

    /// Returns the name in snake case, for logs and exporters: `timed_out`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Lookup => "lookup",
            Self::Refused => "refused",
            Self::Connect => "connect",
            Self::TimedOut => "timed_out",
            Self::Unsuited => "unsuited",
            Self::Known => "known",
            Self::Opening => "opening",
            Self::Lost => "lost",
            Self::Full => "full",
            Self::TooMany => "too_many",
            Self::Thread => "thread",
            Self::Stopped => "stopped",
        }
    }
}

impl DialError {
    /// Returns the kind, without the details.
    #[must_use]
    pub fn kind(&self) -> DialErrorKind {
        match self {
            Self::Address { .. } => DialErrorKind::Address,
            Self::Lookup { .. } => DialErrorKind::Lookup,
            Self::Connect { source, .. } if source.kind() == ErrorKind::ConnectionRefused => {
                DialErrorKind::Refused
            }
            Self::Connect { .. } => DialErrorKind::Connect,
            Self::TimedOut { .. } => DialErrorKind::TimedOut,
            Self::Unsuited { .. } => DialErrorKind::Unsuited,
            Self::Known { .. } => DialErrorKind::Known,
            Self::Opening { .. } => DialErrorKind::Opening,
            Self::Lost { .. } => DialErrorKind::Lost,
            Self::Full { .. } => DialErrorKind::Full,
            Self::TooMany { .. } => DialErrorKind::TooMany,
            Self::Thread(_) => DialErrorKind::Thread,
            Self::Stopped => DialErrorKind::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_listed_in_the_order_of_their_numbers() {
        for (number, kind) in DialErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }
}
