//! The option that ends a server on SIGINT and SIGTERM.

use std::time::Duration;

use super::{Reactor, Server, ServerHandle};
use crate::{error::ServeError, runtime::SignalThread};

/// How long the sessions have when a signal ends the server; `None` if signals are none of its business.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OnSignal(Option<Duration>);

/// Waits for signals until it is dropped.
pub(super) type SignalWatch = Option<SignalThread>;

impl OnSignal {
    /// Returns the shorter of both, if there are two.
    pub(super) fn sooner(self, other: Self) -> Self {
        Self(self.0.into_iter().chain(other.0).min())
    }

    pub(super) fn watch(self, server: &ServerHandle) -> Result<SignalWatch, ServeError> {
        let start = |grace| {
            let server = server.clone();
            SignalThread::start(grace, move |stop| server.stop(stop))
        };
        self.0.map(start).transpose().map_err(ServeError::system("watch for signals"))
    }
}

impl<F> Server<F> {
    /// Ends the server on SIGINT (ctrl-c) and SIGTERM, from when it starts to serve. Needs the feature `signals`, and
    /// Unix.
    ///
    /// | signal | what happens |
    /// |---|---|
    /// | the first | a graceful shutdown: [`ServerHandle::shutdown`] with this `grace` |
    /// | the second | every connection is reset: [`ServerHandle::abort`] |
    /// | the third | the process ends as it would without this option, for the case that a callback blocks |
    ///
    /// It makes no difference which of the two signals comes. [`serve`](Self::serve) and
    /// [`RunningServer::wait`](crate::RunningServer::wait) then return `Ok`, and the program goes on behind them. The
    /// signals concern the whole process: of several servers with this option each is ended. A thread waits for them, as
    /// long as the server runs; when it has ended, further signals of these kinds do nothing.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use framewire::{Separator, Server, packet_fn};
    ///
    /// fn main() -> Result<(), framewire::ServeError> {
    ///     Server::bind("127.0.0.1:7000")?
    ///         .framing(Separator::lines())
    ///         .stop_on_signal(Duration::from_secs(5))
    ///         .serve(packet_fn(|session, packet| Ok(session.send(packet)?)))?;
    ///     println!("every session has had its replies, or 5 s to take them");
    ///     Ok(())
    /// }
    /// ```
    pub fn stop_on_signal(mut self, grace: Duration) -> Self {
        self.on_signal = OnSignal(Some(grace));
        self
    }
}

impl Reactor {
    /// Ends all services on SIGINT and SIGTERM, as [`Server::stop_on_signal`] does. If several services have that
    /// option, or a service and the reactor, the shortest of their times counts, for all.
    #[must_use]
    pub fn stop_on_signal(mut self, grace: Duration) -> Self {
        self.on_signal = OnSignal(Some(grace)).sooner(self.on_signal);
        self
    }
}
