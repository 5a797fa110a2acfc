use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::pattern::Pattern;
use super::peer::{End, Peer};
use super::{LoadError, Outcome, PATIENCE, Phase, Shared};

/// Events asked for at once.
const EVENTS: usize = 1024;
/// Bytes read at once, shared by all connections.
const READ: usize = 64 * 1024;
/// Connections under way at once while opening: below any listener's backlog.
const OPENING: usize = 64;
/// How often a thread without events looks whether the phase has changed.
const LOOK: Duration = Duration::from_millis(5);

/// What every kind of load is made of: connections in one poll.
pub(super) struct Generator<'a> {
    pub(super) poll: Poll,
    events: Events,
    pub(super) peers: Vec<Peer>,
    pub(super) pattern: Pattern,
    buffer: Vec<u8>,
    pub(super) shared: &'a Shared,
    pub(super) outcome: Outcome,
    pub(super) started: Instant,
    to: SocketAddr,
}

/// Told of what happens to connections, with their slot.
pub(super) trait Observer {
    /// Frame number `number` of the connection in `slot` is back, whole and right; `now` in nanoseconds.
    fn on_frame(&mut self, outcome: &mut Outcome, slot: usize, number: u64, now: u64);

    /// How many new messages are due on a connection that has just received `frames`.
    fn refill(&self, frames: usize) -> usize;
}

impl<'a> Generator<'a> {
    pub(super) fn new(to: SocketAddr, pattern: Pattern, shared: &'a Shared) -> Result<Self, LoadError> {
        Ok(Self {
            poll: Poll::new().map_err(LoadError::Generator)?,
            events: Events::with_capacity(EVENTS),
            peers: Vec::new(),
            pattern,
            buffer: vec![0; READ],
            shared,
            outcome: Outcome::new()?,
            started: Instant::now(),
            to,
        })
    }

    /// Nanoseconds since the thread began.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The connection that a slot will hold next.
    pub(super) fn connect(&self, slot: usize, id: u64) -> Result<Peer, LoadError> {
        let mut peer = Peer::connect(self.poll.registry(), self.to, slot, id)?;
        peer.due = 1;
        Ok(peer)
    }

    /// Opens `count` connections and exchanges one message on each, so that the server has really taken all of them.
    pub(super) fn open(&mut self, count: usize, first_id: u64) -> Result<(), LoadError> {
        let (from, mut answered) = (self.peers.len(), 0);
        let deadline = Instant::now() + PATIENCE * 3;
        while answered < count {
            while self.peers.len() - from < count && self.peers.len() - from < answered + OPENING {
                let slot = self.peers.len();
                self.peers.push(self.connect(slot, first_id + slot as u64)?);
            }
            let mut opening = Opening { answered: 0 };
            self.turn(Some(LOOK), &mut opening)?;
            answered += opening.answered;
            self.shared.connected.fetch_add(opening.answered as u64, Ordering::Relaxed);
            self.check_called_off()?;
            if Instant::now() > deadline {
                return Err(LoadError::Slow {
                    ready: answered,
                    wanted: count,
                    seconds: PATIENCE.as_secs() * 3,
                });
            }
        }
        Ok(())
    }

    /// Waits for the conductor to let the load begin. A silent connection that speaks or ends fails the run here.
    pub(super) fn wait_for(&mut self, phase: Phase) -> Result<(), LoadError> {
        while (self.shared.phase() as u8) < phase as u8 {
            self.turn(Some(LOOK), &mut Silence)?;
            self.check_called_off()?;
        }
        Ok(())
    }

    /// One poll, and what it brings: read, compare, write.
    #[inline]
    pub(super) fn turn(
        &mut self,
        timeout: Option<Duration>,
        observer: &mut impl Observer,
    ) -> Result<usize, LoadError> {
        self.wait(timeout)?;
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let mut result = Ok(0);
        for event in &events {
            let step = self.handle(
                event.token().0,
                event.is_writable(),
                event.is_readable(),
                is_end(event),
                observer,
            );
            match (step, &mut result) {
                (Ok(frames), Ok(sum)) => *sum += frames,
                (Err(error), _) => {
                    result = Err(error);
                    break;
                }
                _ => {}
            }
        }
        std::mem::swap(&mut self.events, &mut events);
        result
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), LoadError> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            other => other.map_err(LoadError::Generator),
        }
    }

    #[inline]
    fn handle(
        &mut self,
        slot: usize,
        writable: bool,
        readable: bool,
        ended: bool,
        observer: &mut impl Observer,
    ) -> Result<usize, LoadError> {
        let now = self.now();
        let Some(peer) = self.peers.get_mut(slot) else { return Ok(0) };
        if writable {
            peer.handle_writable()?;
        }
        let mut frames = 0;
        if readable || ended {
            let outcome = &mut self.outcome;
            let end = peer.read(&mut self.pattern, &mut self.buffer, ended, |number| {
                frames += 1;
                observer.on_frame(outcome, slot, number, now);
            })?;
            self.shared.messages.fetch_add(frames as u64, Ordering::Relaxed);
            if end == End::Closed {
                return Err(LoadError::Closed { id: peer.id });
            }
            peer.due += observer.refill(frames);
        }
        peer.flush(&mut self.pattern)?;
        Ok(frames)
    }

    pub(super) fn check_called_off(&self) -> Result<(), LoadError> {
        if self.shared.called_off.load(Ordering::Acquire) { Err(LoadError::CalledOff) } else { Ok(()) }
    }

    /// No more messages are due: waits until every reply is there, so that a lost one is noticed.
    pub(super) fn drain(&mut self, observer: &mut impl Observer) -> Result<(), LoadError> {
        let deadline = Instant::now() + PATIENCE;
        while !self.peers.iter().all(Peer::is_answered) {
            self.turn(Some(LOOK), observer)?;
            self.check_called_off()?;
            if Instant::now() > deadline {
                let missing = self.peers.iter().map(|peer| peer.sent.saturating_sub(peer.got)).sum();
                let sent = self.peers.iter().map(|peer| peer.sent).sum();
                return Err(LoadError::Missing { missing, sent, seconds: PATIENCE.as_secs() });
            }
        }
        Ok(())
    }
}

fn is_end(event: &mio::event::Event) -> bool {
    event.is_read_closed() || event.is_error()
}

/// While connections are made: counts those that were answered.
struct Opening {
    answered: usize,
}

impl Observer for Opening {
    fn on_frame(&mut self, _: &mut Outcome, _: usize, _: u64, _: u64) {
        self.answered += 1;
    }

    fn refill(&self, _: usize) -> usize {
        0
    }
}

/// While nothing is sent: nothing can come.
struct Silence;

impl Observer for Silence {
    fn on_frame(&mut self, _: &mut Outcome, _: usize, _: u64, _: u64) {}

    fn refill(&self, _: usize) -> usize {
        0
    }
}
