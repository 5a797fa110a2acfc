use std::io;
use std::time::Duration;

use framewire::{EncodeError, FrameError, framing::BytesPreview};
use thiserror::Error;

use crate::target::Target;

/// Why a probe did not end well.
#[derive(Debug, Error)]
pub(crate) enum ProbeError {
    #[error("cannot connect to {addr}: {source}{}", hint(source))]
    Connect { addr: Target, source: io::Error },
    #[error("packet {number} cannot be sent, so nothing was sent: {source}")]
    NoPacket { number: usize, source: EncodeError },
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
    #[error("lines of input left out: {0}")]
    LeftOut(u64),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("the peer broke the framing: {error}{}", advice(error))]
    Frame {
        #[from]
        error: FrameError,
    },
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("the peer stopped {have} bytes into a frame and sent nothing more within {waited:?}{seen}")]
    Unfinished { have: usize, waited: Duration, seen: BytesPreview },
    #[error("{came} of {asked} packets came")]
    TooFew { came: u64, asked: u64 },
}

impl ProbeError {
    /// 1 for the peer's doing, 2 for this side's.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Frame { .. } | Self::Broken(_) | Self::Unfinished { .. } | Self::TooFew { .. } => 1,
            Self::Connect { .. }
            | Self::NoPacket { .. }
            | Self::Input(_)
            | Self::LeftOut(_)
            | Self::Output(_) => 2,
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "; is a server listening there?",
        io::ErrorKind::NotFound => "; is a server running that has made it?",
        _ => "",
    }
}

/// What to try when a frame seems too long: it may be one, or another framing.
fn advice(error: &FrameError) -> &'static str {
    match error {
        FrameError::TooLong { seen, .. } if seen.hint().is_none() => {
            " (is this the right --framing? --max allows longer packets)"
        }
        _ => "",
    }
}
