use std::io;

use thiserror::Error;

/// Why the load stopped. Each one says whose doing it is; all of them fail the run.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    /// The server answered with other bytes than it was sent.
    #[error(
        "wrong reply: byte {offset} of frame {number} is {seen:#04x} instead of {expected:#04x}; the server must send \
         back each frame as it came, its 4 bytes of big-endian length first"
    )]
    WrongBytes { number: u64, offset: usize, expected: u8, seen: u8 },
    /// A frame came back that had not been sent yet.
    #[error("wrong reply: frame {number} came back before it was sent")]
    Unasked { number: u64 },
    /// The server closed a connection in the middle of the run.
    #[error("the server closed connection {id}")]
    Closed { id: u64 },
    /// A connection broke.
    #[error("connection {id} broke: {source}")]
    Broken { id: u64, source: io::Error },
    /// A connection could not be made.
    #[error("cannot connect: {0}{hint}", hint = connect_hint(.0))]
    Connect(io::Error),
    /// Replies were still missing when the time for them had run out.
    #[error("{missing} of {sent} replies were still missing {seconds} s after the last message was sent")]
    Missing { missing: u64, sent: u64, seconds: u64 },
    /// New connections were not answered in time.
    #[error("only {ready} of {wanted} connections were answered within {seconds} s")]
    Slow { ready: usize, wanted: usize, seconds: u64 },
    /// The machine refused something that the load itself needs.
    #[error("the load generator failed: {0}")]
    Generator(io::Error),
    /// The run was called off because another part of it failed.
    #[error("called off")]
    CalledOff,
}

impl LoadError {
    #[cold]
    pub(super) fn broken(id: u64, source: io::Error) -> Self {
        Self::Broken { id, source }
    }

    #[cold]
    pub(super) fn connect(source: io::Error) -> Self {
        Self::Connect(source)
    }
}

fn connect_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => " (the server has gone, or does not listen on 127.0.0.1)",
        io::ErrorKind::AddrNotAvailable => {
            " (the ephemeral ports are used up: wait a minute, or ask for fewer connections)"
        }
        _ if error.raw_os_error() == Some(24) => {
            " (the descriptor limit is reached: raise `ulimit -n`, or use --fit)"
        }
        _ => "",
    }
}
