use std::{
    io,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::{Handle, Signals},
    low_level::{emulate_default_handler, signal_name},
};

use super::Stop;

/// A thread that waits for SIGINT and SIGTERM. It ends when this is dropped; the two signals then do nothing.
#[derive(Debug)]
pub(crate) struct SignalThread {
    signals: Handle,
    thread: Option<JoinHandle<()>>,
}

impl SignalThread {
    /// From now on the first signal asks `stop` for a graceful stop and the second for one at once, whichever of the two
    /// signals they are. The third ends the process: a callback that blocks holds up every other way.
    pub(crate) fn start(grace: Duration, stop: impl Fn(Stop) + Send + 'static) -> io::Result<Self> {
        let mut received = Signals::new([SIGINT, SIGTERM])?;
        let signals = received.handle();
        let thread = Builder::new().name("framewire-signals".into()).spawn(move || {
            for (earlier, signal) in received.forever().enumerate() {
                let name = signal_name(signal).unwrap_or("signal");
                match earlier {
                    0 => {
                        tracing::info!(signal = name, ?grace, "stopping gracefully");
                        stop(Stop::Within(grace));
                    }
                    1 => {
                        tracing::warn!(signal = name, "the second signal: stopping at once");
                        stop(Stop::Now);
                    }
                    _ => {
                        tracing::error!(signal = name, "the third signal: ending the process");
                        if let Err(error) = emulate_default_handler(signal) {
                            tracing::error!(%error, "the process cannot be ended");
                        }
                    }
                }
            }
        })?;
        Ok(Self { signals, thread: Some(thread) })
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.signals.close();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that waits for signals panicked");
        }
    }
}
