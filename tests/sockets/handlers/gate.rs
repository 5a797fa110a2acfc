use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use framewire::{PacketHandler, Session, packet_fn};

use crate::common::PATIENCE;

/// Holds up the thread that runs into it, until the gate is opened.
#[derive(Clone)]
pub(crate) struct Blocker {
    blocked: Sender<()>,
    released: Arc<AtomicBool>,
}

/// The test's end of it. Whatever becomes of the test, nothing blocks for ever.
pub(crate) struct Gate {
    blocked: Receiver<()>,
    released: Arc<AtomicBool>,
}

pub(crate) fn gate() -> (Gate, Blocker) {
    let (tell, blocked) = channel();
    let released = Arc::<AtomicBool>::default();
    (Gate { blocked, released: released.clone() }, Blocker { blocked: tell, released })
}

impl Gate {
    /// Waits until a thread is held up.
    pub(crate) fn await_blocked(&self) {
        self.blocked.recv_timeout(PATIENCE).expect("something blocks");
    }

    pub(crate) fn open(&self) {
        self.released.store(true, Ordering::Release);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }

    /// Says the same on another thread.
    pub(crate) fn watch(&self) -> impl Fn() -> bool + Send + 'static {
        let released = self.released.clone();
        move || released.load(Ordering::Acquire)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

impl Blocker {
    pub(crate) fn block(&self) {
        let _ = self.blocked.send(());
        while !self.released.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// An echo that blocks its shard on the packet "block".
    pub(crate) fn handler(self) -> impl PacketHandler + Clone + Send + 'static {
        packet_fn(move |session: &mut Session<'_>, packet: &[u8]| {
            if packet == b"block" {
                self.block();
            }
            Ok(session.send(packet)?)
        })
    }
}
