use super::{ForkingStrategy, Placement, ShardLoads};
use crate::{addr::NewConnection, id::ShardId};

/// Every connection lives on the one thread that also accepts: no hand-over, no sharing. The default.
///
/// One core then serves everything, which goes far: see the measured numbers in the README.
///
/// ```
/// use framewire::{Server, SingleReactor};
///
/// let server = Server::bind("127.0.0.1:0")?.strategy(SingleReactor::new().max_sessions(10_000));
/// # Ok::<(), framewire::ServeError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SingleReactor {
    max_sessions: usize,
}

impl SingleReactor {
    /// A single reactor with any number of sessions.
    #[must_use]
    pub fn new() -> Self {
        Self { max_sessions: usize::MAX }
    }

    /// Sets how many sessions it may have; further connections are refused. Default: no limit but those of the server.
    /// The server does not start with 0.
    #[must_use]
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = sessions;
        self
    }
}

impl Default for SingleReactor {
    fn default() -> Self {
        Self::new()
    }
}

impl ForkingStrategy for SingleReactor {
    fn validate(&self) -> Result<(), String> {
        match self.max_sessions {
            0 => Err("SingleReactor::max_sessions(0) refuses everybody; give at least 1".into()),
            _ => Ok(()),
        }
    }

    fn udp_peers(&self) -> Result<usize, String> {
        Ok(self.max_sessions)
    }

    fn place(&mut self, _connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
        self.place_dial(loads)
    }

    fn place_dial(&mut self, loads: ShardLoads<'_>) -> Placement {
        let here = ShardId::ACCEPTOR;
        if loads.sessions(here) < self.max_sessions { Placement::On(here) } else { Placement::Refuse }
    }
}
