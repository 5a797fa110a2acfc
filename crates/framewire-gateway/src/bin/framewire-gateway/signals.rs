//! What the program is asked from outside.

use std::{io, thread};

use framewire::ServerHandle;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
}

#[cfg(unix)]
pub(crate) struct Signals(signal_hook::iterator::Signals);

#[cfg(unix)]
impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]).map(Self)
    }

    /// Waits for the next signal.
    pub(crate) fn wait(&mut self) -> Signal {
        match self.0.forever().next() {
            Some(signal_hook::consts::SIGHUP) => Signal::Reload,
            _ => Signal::Stop,
        }
    }

    /// Resets all links at the next signal that asks to stop.
    pub(crate) fn end_at_the_next(&mut self, gateway: ServerHandle) {
        let Ok(mut signals) = Self::new() else { return };
        // It waits for as long as the process lives, which is about to end.
        thread::spawn(move || {
            while signals.wait() != Signal::Stop {}
            tracing::warn!("ending at once");
            gateway.abort();
        });
    }
}

/// Where there are no signals, the program runs until it is killed.
#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn wait(&mut self) -> Signal {
        loop {
            thread::park();
        }
    }

    pub(crate) fn end_at_the_next(&mut self, _gateway: ServerHandle) {}
}
