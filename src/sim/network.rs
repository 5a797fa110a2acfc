use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, TryLockError},
};

use super::{
    Answer, Attempt, Calls, Faults, Rng,
    datagrams::{DatagramQueue, DeliveredDatagrams},
    epoll::{Epoll, Registration},
    faults::errno,
};
use crate::{addr::Addr, reactor::is_session, time::Tick};

/// The simulated world: a clock, sockets, and the clients at their other ends. Shared by all loops of one test.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<Net>>);

impl Network {
    pub(crate) fn new(seed: u64, sizes: Sizes) -> Self {
        Self(Arc::new(Mutex::new(Net::new(seed, sizes))))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Net> {
        match self.0.try_lock() {
            Ok(net) => net,
            Err(TryLockError::Poisoned(net)) => net.into_inner(),
            Err(TryLockError::WouldBlock) => {
                panic!("a world belongs to one thread, which has locked it twice")
            }
        }
    }
}

/// How much the network holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Bytes on their way from a client.
    pub(crate) up: usize,
    /// Bytes on their way to a client.
    pub(crate) down: usize,
    /// The longest datagram that can be sent.
    pub(crate) datagram: usize,
    /// Events of one poll.
    pub(crate) batch: usize,
    /// Descriptors of the process.
    pub(crate) descriptors: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { up: 64 * 1024, down: 64 * 1024, datagram: 65_507, batch: 1024, descriptors: 20_000 }
    }
}

/// One connection, by its number; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Conn(pub(crate) usize);

/// What a client does at some time.
pub(super) type Deed = Box<dyn FnOnce(&mut Net) + Send>;

pub(crate) struct Net {
    pub(crate) now: Tick,
    /// What the loops allow for between two readings of the clock.
    pub(crate) slack: Tick,
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) sizes: Sizes,
    pub(crate) calls: Calls,
    /// After so many calls that send, a millisecond has passed; 0: they take no time.
    pub(crate) sends_per_ms: u64,
    /// Polls of all loops.
    pub(crate) polls: u64,
    /// What every loop saw, in one number.
    pub(crate) trace: u64,
    /// `true` if a poll waits, which moves the clock; `false` where several loops share a thread.
    pub(crate) waits: bool,
    /// A poll that waits does not wait past it.
    pub(crate) horizon: Tick,
    /// The last poll would have waited for ever.
    pub(crate) resting: bool,
    /// The process is stopped for this long, as the next poll waits (which is interrupted), or right after it.
    pub(crate) freeze: Option<(Freeze, Tick)>,
    /// Bytes read, bytes written, connections accepted, and the like: whatever is not spinning.
    pub(crate) progress: u64,
    pub(super) fds: Vec<Option<Descriptor>>,
    pub(super) links: Vec<Link>,
    pub(super) epolls: Vec<Epoll>,
    pub(super) delivered: DeliveredDatagrams,
    pub(super) agenda: BTreeMap<(Tick, u64), Deed>,
    pub(super) deeds: u64,
    /// What becomes of connections that the process makes, and after how long.
    pub(super) far_ends: HashMap<Addr, (Answer, Tick)>,
    /// What is found of a host, and after how long.
    pub(super) names: HashMap<String, (Result<Vec<Addr>, ErrorKind>, Tick)>,
    pub(super) attempts: Vec<Attempt>,
    /// Tokens of closed streams, for stale events.
    pub(super) tombs: Vec<u64>,
}

/// When the process is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freeze {
    InPoll,
    AfterPoll,
}

/// What a descriptor is of.
pub(super) struct Descriptor {
    pub(super) what: What,
    pub(super) registration: Option<Registration>,
}

pub(super) enum What {
    Listener(VecDeque<Conn>),
    Stream(Conn),
    Datagrams(Box<DatagramQueue>),
    Spare,
}

/// Both directions of a connection.
pub(super) struct Link {
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    pub(super) addr: SocketAddr,
    /// The server's descriptor, from accept or connect to close.
    pub(super) server: Option<usize>,
    /// The server makes it: `addr` is its own.
    pub(super) dialled: bool,
    /// It has no answer yet.
    pub(super) connecting: bool,
    /// The client has closed its socket.
    pub(super) gone: bool,
    /// The connection was reset, by the client or by our writing to one that is gone.
    pub(super) broken: bool,
    /// The client was reset.
    pub(super) refused: bool,
    /// The error that the server's next call finds.
    pub(super) error: Option<i32>,
    /// The server found no room, and is to get an event when there is some.
    pub(super) no_room: bool,
    pub(super) reset_on_close: bool,
}

/// One direction. Invariant: `bytes.len() ≤ room`.
pub(super) struct Pipe {
    pub(super) bytes: VecDeque<u8>,
    pub(super) room: usize,
    pub(super) ended: bool,
}

impl Pipe {
    fn new(room: usize) -> Self {
        Self { bytes: VecDeque::new(), room, ended: false }
    }

    pub(super) fn free(&self) -> usize {
        self.room - self.bytes.len()
    }
}

impl Net {
    fn new(seed: u64, sizes: Sizes) -> Self {
        Self {
            now: 0,
            slack: 0,
            rng: Rng::new(seed),
            faults: Faults::none(),
            sizes,
            calls: Calls::default(),
            sends_per_ms: 0,
            polls: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            waits: true,
            horizon: Tick::MAX,
            resting: false,
            freeze: None,
            progress: 0,
            fds: Vec::new(),
            links: Vec::new(),
            epolls: Vec::new(),
            delivered: DeliveredDatagrams::new(),
            agenda: BTreeMap::new(),
            deeds: 0,
            far_ends: HashMap::new(),
            names: HashMap::new(),
            attempts: Vec::new(),
            tombs: Vec::new(),
        }
    }

    /// Schedules an action of a client.
    pub(crate) fn at(&mut self, tick: Tick, deed: impl FnOnce(&mut Net) + Send + 'static) {
        self.deeds += 1;
        self.agenda.insert((tick.max(self.now), self.deeds), Box::new(deed));
    }

    pub(super) fn next_deed(&self) -> Option<Tick> {
        self.agenda.keys().next().map(|(tick, _)| *tick)
    }

    /// Does everything that is due.
    pub(super) fn live(&mut self) {
        while self.next_deed().is_some_and(|tick| tick <= self.now) {
            if let Some((_, deed)) = self.agenda.pop_first() {
                deed(self);
            }
        }
    }

    /// The lowest free descriptor.
    pub(super) fn open(&mut self, what: What) -> Result<usize, i32> {
        let at = self.fds.iter().position(Option::is_none).unwrap_or(self.fds.len());
        if at >= self.sizes.descriptors {
            return Err(errno::EMFILE);
        }
        if at == self.fds.len() {
            self.fds.push(None);
        }
        self.fds[at] = Some(Descriptor { what, registration: None });
        Ok(at)
    }

    /// Streams that the server holds, registered or not.
    pub(crate) fn streams(&self) -> usize {
        let streams = |fd: &&Descriptor| matches!(fd.what, What::Stream(_));
        self.fds.iter().flatten().filter(streams).count()
    }

    /// How many there ever were.
    pub(crate) fn connections(&self) -> usize {
        self.links.len()
    }

    /// Descriptors of any kind.
    pub(crate) fn descriptors(&self) -> usize {
        self.fds.iter().flatten().count()
    }

    /// Polls that are still open.
    pub(crate) fn open_polls(&self) -> usize {
        self.epolls.iter().filter(|epoll| !epoll.closed).count()
    }

    /// Streams that are registered as those of sessions.
    pub(crate) fn registered(&self) -> usize {
        let streams = |fd: &&Descriptor| {
            let registered = fd.registration.as_ref();
            matches!(fd.what, What::Stream(_)) && registered.is_some_and(|known| is_session(known.token))
        };
        self.fds.iter().flatten().filter(streams).count()
    }

    /// Streams that are registered as those of dials.
    pub(crate) fn dialling(&self) -> usize {
        let known =
            self.fds.iter().flatten().filter_map(|fd| Some((&fd.what, fd.registration.as_ref()?.token)));
        known.filter(|(what, token)| matches!(what, What::Stream(_)) && !is_session(*token)).count()
    }

    pub(super) fn link(&mut self, conn: Conn) -> &mut Link {
        &mut self.links[conn.0]
    }

    /// A new connection, not yet known to a listener.
    pub(super) fn new_link(&mut self) -> Conn {
        let number = self.links.len() as u32;
        let addr =
            SocketAddr::from(([10, (number >> 14) as u8, (number >> 7) as u8 & 127, 1], number as u16));
        self.links.push(Link {
            up: Pipe::new(self.sizes.up),
            down: Pipe::new(self.sizes.down),
            addr,
            server: None,
            dialled: false,
            connecting: false,
            gone: false,
            broken: false,
            refused: false,
            error: None,
            no_room: false,
            reset_on_close: false,
        });
        Conn(self.links.len() - 1)
    }

    /// Mixes something that a loop saw into the trace.
    pub(super) fn note(&mut self, seen: u64) {
        self.trace = (self.trace ^ seen).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// The server closes its end.
    pub(super) fn close(&mut self, fd: usize) {
        let Some(closed) = self.fds.get_mut(fd).and_then(Option::take) else { return };
        if let Some(registration) = closed.registration {
            self.tombs.push(registration.token);
            self.epolls[registration.epoll].forget(fd);
        }
        match closed.what {
            What::Spare | What::Datagrams(_) => {}
            What::Listener(queue) => queue.into_iter().for_each(|conn| self.link(conn).refuse()),
            What::Stream(conn) => {
                self.progress += 1;
                let link = self.link(conn);
                link.server = None;
                if link.reset_on_close || !link.up.bytes.is_empty() {
                    link.refuse();
                } else {
                    link.down.ended = true;
                }
            }
        }
    }
}

impl Link {
    /// Resets the client: what it has not read yet is lost.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
        self.down.bytes.clear();
    }
}
