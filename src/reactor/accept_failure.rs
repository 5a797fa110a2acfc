use std::io::{self, ErrorKind};

/// What an error of `accept` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection waits.
    Empty,
    /// That connection is lost; the next may succeed.
    Next,
    /// The system cannot give us a connection now.
    Exhausted,
    /// The listener has failed for good.
    Fatal,
}

/// Returns `true` for an error of `accept` that concerns one connection: the next may succeed.
pub(super) fn is_transient(error: &io::Error) -> bool {
    classify(error) == Failure::Next
}

/// Goes by number where the standard library has no name for an error. An unknown error pauses accepting: this is right
/// for a shortage, and does not spin on anything else.
pub(super) fn classify(error: &io::Error) -> Failure {
    /// `EPROTO`, `EOPNOTSUPP`, `ENOPROTOOPT`, `ENONET`: a network error that was pending on the new socket.
    const PENDING: [i32; 4] = if cfg!(target_os = "linux") { [71, 95, 92, 64] } else { [100, 102, 42, 64] };
    const EBADF: i32 = 9;
    const ENOTSOCK: i32 = if cfg!(target_os = "linux") { 88 } else { 38 };
    match error.kind() {
        ErrorKind::WouldBlock => return Failure::Empty,
        ErrorKind::Interrupted
        | ErrorKind::ConnectionAborted
        | ErrorKind::ConnectionReset
        | ErrorKind::PermissionDenied
        | ErrorKind::NetworkDown
        | ErrorKind::NetworkUnreachable
        | ErrorKind::HostUnreachable
        | ErrorKind::TimedOut => return Failure::Next,
        ErrorKind::InvalidInput => return Failure::Fatal,
        _ => {}
    }
    match error.raw_os_error() {
        Some(EBADF | ENOTSOCK) => Failure::Fatal,
        Some(number) if PENDING.contains(&number) => Failure::Next,
        _ => Failure::Exhausted,
    }
}

/// Copies the number of an error, or its kind.
pub(super) fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn accept_errors_are_sorted_by_what_helps() {
        let sorted = |number| classify(&io::Error::from_raw_os_error(number));
        for (name, number) in
            [("EINTR", 4), ("ECONNABORTED", 103), ("EPROTO", 71), ("EPERM", 1), ("ENETDOWN", 100)]
        {
            assert_eq!(sorted(number), Failure::Next, "{name}");
        }
        for (name, number) in
            [("EMFILE", 24), ("ENFILE", 23), ("ENOBUFS", 105), ("ENOMEM", 12), ("unknown", 9999)]
        {
            assert_eq!(sorted(number), Failure::Exhausted, "{name}");
        }
        for (name, number) in [("EBADF", 9), ("EINVAL", 22), ("ENOTSOCK", 88)] {
            assert_eq!(sorted(number), Failure::Fatal, "{name}");
        }
        assert_eq!(sorted(11), Failure::Empty, "EAGAIN");
    }
}
