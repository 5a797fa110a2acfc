//! What the threads of a gateway share, and what they tell each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::{
    counters::{Counters, GatewayMetrics},
    limits::GatewayLimits,
    queue::EndSlot,
    registry::{LinkAddr, Registry},
};

/// Names an end of a virtual connection: its thread, and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndAddr {
    pub(crate) thread: u16,
    pub(crate) end: EndSlot,
}

/// What one end of a connection tells the other. `conn` is the connection's ID: a place may have been given to another
/// connection meanwhile.
///
/// ```text
/// dialer ──Connect──▶ other end      a client sends Accept to its peer at once
/// dialer ◀─Connected── other end     or Refused
/// dialer ──Confirm──▶ other end      from a client only: now the server sends Accept, after the client
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    Connect {
        conn: u32,
        target: LinkAddr,
        dialer: EndAddr,
        dialer_id: u32,
    },
    Connected {
        end: EndSlot,
        conn: u32,
        peer: EndAddr,
    },
    Refused {
        end: EndSlot,
        conn: u32,
    },
    Confirm {
        end: EndSlot,
        conn: u32,
        client: u32,
    },
    /// Forward a frame, which follows in the batch.
    Frame {
        end: EndSlot,
        conn: u32,
        len: u32,
    },
    Close {
        end: EndSlot,
        conn: u32,
    },
    /// Do not read from the link of this end.
    Hold {
        end: EndSlot,
        conn: u32,
    },
    /// Undoes a `Hold`.
    Release {
        end: EndSlot,
        conn: u32,
    },
    /// Send back an `Echoed`: everything before this was taken.
    Echo {
        from: EndAddr,
        conn: u32,
    },
    Echoed {
        end: EndSlot,
        conn: u32,
    },
}

/// Messages for one thread, and the frames among them.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<Message>,
    pub(crate) bytes: Vec<u8>,
}

impl Batch {
    pub(crate) fn push(&mut self, message: Message, frame: &[u8]) {
        self.messages.push(message);
        self.bytes.extend_from_slice(frame);
    }

    /// Hands out the messages in order, each with its frame.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(Message, &[u8])) {
        let mut rest = self.bytes.as_slice();
        for message in self.messages.drain(..) {
            let len = if let Message::Frame { len, .. } = message { len as usize } else { 0 };
            let Some((frame, behind)) = rest.split_at_checked(len) else { break };
            rest = behind;
            take(message, frame);
        }
        self.bytes.clear();
        const KEPT: usize = 256 * 1024;
        self.bytes.shrink_to(KEPT);
        self.messages.shrink_to(KEPT / size_of::<Message>());
    }
}

/// One thread of the gateway, as the others see it.
#[derive(Debug, Default)]
pub(crate) struct Thread {
    inbox: Mutex<Batch>,
    pub(crate) counters: Counters,
}

impl Thread {
    /// Adds a message. Returns the bytes that wait now, and `true` if nothing waited before: then the thread is to be
    /// called.
    pub(crate) fn post(&self, message: Message, frame: &[u8]) -> (usize, bool) {
        let mut inbox = self.inbox();
        let was_empty = inbox.messages.is_empty();
        inbox.push(message, frame);
        (inbox.bytes.len(), was_empty)
    }

    /// Exchanges the messages that wait for an empty batch.
    pub(crate) fn take(&self, batch: &mut Batch) {
        std::mem::swap(&mut *self.inbox(), batch);
    }

    /// Returns how many messages wait.
    #[cfg(test)]
    pub(crate) fn inbox_len(&self) -> usize {
        self.inbox().messages.len()
    }

    fn inbox(&self) -> MutexGuard<'_, Batch> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all threads of one gateway share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) registry: Registry,
    limits: RwLock<Arc<GatewayLimits>>,
    threads: RwLock<Vec<Arc<Thread>>>,
}

impl Shared {
    pub(crate) fn new(limits: GatewayLimits) -> Self {
        Self { limits: RwLock::new(Arc::new(limits)), ..Self::default() }
    }

    /// Adds the calling thread. Returns its number.
    pub(crate) fn add_thread(&self) -> (u16, Arc<Thread>) {
        let mut threads = self.threads.write().unwrap_or_else(PoisonError::into_inner);
        let thread = Arc::<Thread>::default();
        threads.push(thread.clone());
        ((threads.len() - 1) as u16, thread)
    }

    pub(crate) fn threads(&self) -> Vec<Arc<Thread>> {
        self.threads.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn limits(&self) -> Arc<GatewayLimits> {
        self.limits.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_limits(&self, limits: GatewayLimits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
    }

    pub(crate) fn metrics(&self) -> GatewayMetrics {
        let mut totals = GatewayMetrics::default();
        self.threads().iter().for_each(|thread| thread.counters.add_to(&mut totals));
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_hands_out_its_messages_in_order_with_their_frames() {
        let thread = Thread::default();
        let frame = |len| Message::Frame { end: 1, conn: 2, len };
        let close = Message::Close { end: 1, conn: 2 };
        assert_eq!(thread.post(frame(5), b"first"), (5, true));
        assert_eq!(thread.post(close, b""), (5, false));
        assert_eq!(thread.post(frame(6), b"second"), (11, false));
        let (mut batch, mut seen) = (Batch::default(), Vec::new());
        thread.take(&mut batch);
        batch.drain(|message, frame| seen.push((message, frame.to_vec())));
        assert_eq!(seen, [(frame(5), b"first".to_vec()), (close, vec![]), (frame(6), b"second".to_vec())]);
        assert_eq!(thread.post(close, b""), (0, true), "it is to be called again");
    }
}
