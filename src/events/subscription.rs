use std::{
    sync::{
        Arc,
        mpsc::{RecvError, RecvTimeoutError, TryRecvError},
    },
    time::Duration,
};

use super::{
    Event, Hub,
    ring::{Ring, Taken},
};

/// A subscription to what happens to a server. [`ServerHandle::events`](crate::ServerHandle::events) returns one.
///
/// It never has to be drained, and the server never waits for it: when as many events wait as it has room for, the
/// oldest one goes, and [`dropped`](Self::dropped) counts it. It ends when the last thread of the server has ended, after
/// the events that still wait. Dropping it ends the subscription.
///
/// ```
/// use std::{io::Read, net::TcpStream, time::Duration};
/// use framewire::{CloseKind, Event, Raw, Server, packet_fn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::bind("127.0.0.1:0")?
///     .framing(Raw::new())
///     .spawn(packet_fn(|session, _| Ok(session.close())))?;
/// let events = server.events(1000);
///
/// let mut peer = TcpStream::connect(server.local_addr().ok_or("not TCP")?)?;
/// std::io::Write::write_all(&mut peer, b"hello")?;
/// peer.read_to_end(&mut Vec::new())?;
/// drop(peer);
///
/// match events.recv_timeout(Duration::from_secs(10))? {
///     Event::Closed { session, reason, .. } => assert_eq!(reason.kind(), CloseKind::Local, "{session}"),
///     other => panic!("{other}"),
/// }
/// server.stop(Duration::from_secs(5))?;
/// assert_eq!(events.iter().count(), 0); // nothing more happened, and the server has ended
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Events {
    ring: Arc<Ring>,
    hubs: Vec<Arc<Hub>>,
}

impl Events {
    /// Subscribes to all of these.
    pub(crate) fn new(capacity: usize, hubs: Vec<Arc<Hub>>) -> Self {
        let ring = Arc::new(Ring::new(capacity));
        hubs.iter().for_each(|hub| hub.add(&ring));
        Self { ring, hubs }
    }

    /// Takes the oldest event that waits. Does not wait.
    ///
    /// # Errors
    /// `Empty` if none waits, `Disconnected` if the server has ended too.
    pub fn try_recv(&self) -> Result<Event, TryRecvError> {
        match self.ring.take() {
            Taken::Event(event) => Ok(event),
            Taken::Nothing => Err(TryRecvError::Empty),
            Taken::Ended => Err(TryRecvError::Disconnected),
        }
    }

    /// Takes the oldest event, for which it waits. Not for callbacks: all sessions of the shard would wait too.
    ///
    /// # Errors
    /// None waits, and the server has ended.
    pub fn recv(&self) -> Result<Event, RecvError> {
        match self.ring.wait(None) {
            Taken::Event(event) => Ok(event),
            Taken::Nothing | Taken::Ended => Err(RecvError),
        }
    }

    /// Takes the oldest event, for which it waits `within`.
    ///
    /// # Errors
    /// `Timeout` if none came, `Disconnected` if the server has ended too.
    pub fn recv_timeout(&self, within: Duration) -> Result<Event, RecvTimeoutError> {
        match self.ring.wait(Some(within)) {
            Taken::Event(event) => Ok(event),
            Taken::Nothing => Err(RecvTimeoutError::Timeout),
            Taken::Ended => Err(RecvTimeoutError::Disconnected),
        }
    }

    /// Returns an iterator over the events, which waits for each, and ends with the server.
    pub fn iter(&self) -> impl Iterator<Item = Event> {
        std::iter::from_fn(|| self.recv().ok())
    }

    /// Returns an iterator over the events that wait, which waits for none.
    pub fn try_iter(&self) -> impl Iterator<Item = Event> {
        std::iter::from_fn(|| self.try_recv().ok())
    }

    /// Returns how many events have gone because there was no room for a later one.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.ring.dropped()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.hubs.iter().for_each(|hub| hub.remove(&self.ring));
    }
}
