use std::io;

use thiserror::Error;

use super::child::ChildError;
use super::load::LoadError;

/// Why the benchmark could not be run, or a run of it failed.
#[derive(Debug, Error)]
pub(crate) enum BenchError {
    /// The options make no sense together, or ask for what is not there.
    #[error("{0}")]
    Usage(String),
    /// More connections than this process may have descriptors.
    #[error(
        "{needed} descriptors are needed ({connections} connections, {each} for each of them where that takes most, \
         and {spare} for everything else), but the limit is {limit}; raise it (`ulimit -n {needed}`), ask for fewer connections, or let --fit scale them down"
    )]
    Descriptors { needed: u64, connections: u64, each: u64, spare: u64, limit: u64 },
    #[error("port {port} is not free: {source}")]
    Port { port: u16, source: io::Error },
    #[error("cannot find this program's own file to start servers with: {0}")]
    NoSelf(io::Error),
    #[error("cannot write {path}: {source}")]
    Write { path: String, source: io::Error },
    #[error("cannot pin to cores {cores}: this process may run on {allowed}")]
    Pin { cores: String, allowed: String },
    #[error("cannot be told of an interrupt: {0}")]
    Interrupt(io::Error),
    #[error("interrupted before anything was measured")]
    NothingMeasured,
    /// A process that takes part in measuring a gateway.
    #[error("{name}: {why}")]
    Peer { name: String, why: String },
    #[error("cannot draw a chart: {0}")]
    Chart(String),
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl BenchError {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// Returns `true` if it concerns one server in one run, so that the others can go on.
    pub(crate) fn is_of_one_run(&self) -> bool {
        matches!(self, Self::Child(_) | Self::Load(_))
    }
}
