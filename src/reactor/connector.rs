use std::{
    collections::{HashMap, VecDeque},
    io::{self, ErrorKind},
    mem,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use slab::Slab;

use super::{
    Connecting, SocketOptions, Sys,
    connect::{Connect, Streams},
    token::dial_token,
};
use crate::{
    addr::{Addr, Endpoints, Name, Resolved, Target},
    dial::{Backoff, Dial, NewDial, UpstreamSide},
    error::DialError,
    id::{DialId, Key, ShardId},
    shard::Incoming,
    sync::{Admission, AdmissionPermit},
    time::{Tick, ticks},
    timer_wheel::TimerKey,
};

/// How long a Unix socket whose server has a full queue is let be before it is tried again. The kernel gives no event.
const KNOCK_AGAIN: Duration = Duration::from_millis(10);

/// The dials of a service on one thread: makes their connections, one address after the other.
///
/// ```text
/// Idle ──a name──▶ LookingUp ──found──▶ Idle ──an address──▶ Connecting ──connected──▶ Session ──opened──▶ (removed)
///   ▲                  └──failed──▶ Idle        └──queue full──▶ Knocking     │
///   ├───────────failed or timed out: the next address, until none is left ────┴──its layers failed
///   └──▶ Waiting, for the next attempt, if it reconnects: also when its session has ended ──timer──▶ Idle
/// ```
///
/// It has no more entries than the shard has dials under way, which are limited by
/// [`Limits::dials`](crate::Limits::dials).
pub(crate) struct Connector<Y: Sys, C: Connect<Y> = Streams> {
    via: C,
    config: ConnectorConfig,
    entries: Slab<Entry<C::Io>>,
    by_id: HashMap<DialId, u32>,
    /// Who waits for a name that is being looked up.
    names: HashMap<Name, Vec<u32>>,
    /// How many wait for their next attempt.
    pub(super) waiting: usize,
}

/// What a connector is made of.
pub(crate) struct ConnectorConfig {
    /// The number of its service on this thread, which its tokens carry.
    pub(crate) service: u8,
    pub(crate) options: SocketOptions,
    pub(crate) admission: Arc<Admission>,
    /// Its standing shard; `None` for a forked one.
    pub(crate) here: Option<ShardId>,
    pub(crate) resolver: Box<dyn Resolve>,
}

/// Looks names up on another thread.
pub(crate) trait Resolve: Send {
    /// The shard gets a [`Command::Found`](crate::shard::Command::Found) in the end.
    ///
    /// # Errors
    /// If too many names wait, or there is no such thread.
    fn look_up(&self, name: &Name) -> io::Result<()>;
}

struct Entry<T> {
    id: DialId,
    /// Shared: cloning it would run code of the user's, which may panic.
    dial: Rc<Dial>,
    upstream: Option<UpstreamSide>,
    /// Its place in the counts while it connects; then its session has it.
    permit: Option<AdmissionPermit>,
    /// What is left to be tried: first these addresses …
    addrs: VecDeque<Addr>,
    /// … then these.
    targets: VecDeque<Target>,
    /// Of what was tried last.
    error: Option<DialError>,
    stage: Stage<T>,
    timer: Option<TimerKey>,
    /// If it reconnects.
    backoff: Option<Backoff>,
    /// When `on_open` was called for its session.
    opened: Option<Tick>,
    /// It was, for one of its sessions.
    was_opened: bool,
}

enum Stage<T> {
    /// Between two addresses.
    Idle,
    LookingUp(Name),
    Connecting {
        io: T,
        addr: Addr,
    },
    /// The queue of the server at this address is full; how much time is left for it.
    Knocking {
        addr: Addr,
        left: Duration,
    },
    /// It has a connection, which is a session.
    Session(Option<Key>),
    /// The next attempt is made after a pause.
    Waiting,
}

/// How a dial goes on.
pub(super) enum Progress<T> {
    /// Something will happen, within this time.
    Waits(Duration),
    /// There is a connection.
    Connected(Connected<T>),
    /// None of the addresses has led to one.
    Failed(DialError),
    /// There may be room again for packets that were kept.
    Delivers,
    /// As before; or there is no such dial any more.
    Unchanged,
}

/// A connection that was made.
pub(crate) struct Connected<T> {
    pub(super) incoming: Incoming<T>,
    pub(super) dial: Rc<Dial>,
    pub(super) polled: Polled,
}

/// Whether the poll knows a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polled {
    NotYet,
    /// By the token of its dial.
    AsDial,
}

/// What is left of a dial that has ended.
pub(super) struct Remains {
    pub(super) id: DialId,
    pub(super) timer: Option<TimerKey>,
    /// The session of its connection.
    pub(super) session: Option<Key>,
    pub(super) was_opened: bool,
    pub(super) upstream: Option<UpstreamSide>,
}

impl<Y: Sys, C: Connect<Y>> Connector<Y, C> {
    pub(crate) fn new(via: C, config: ConnectorConfig) -> Self {
        Self { via, config, entries: Slab::new(), by_id: HashMap::new(), names: HashMap::new(), waiting: 0 }
    }

    /// Takes in a dial. Returns its number.
    pub(super) fn begin(&mut self, sys: &mut Y, dial: NewDial) -> u32 {
        let NewDial { id, dial, upstream, permit } = dial;
        let backoff = dial.reconnect.clone().map(|plan| Backoff::new(plan, sys.seed()));
        let targets = dial.targets.iter().cloned().collect();
        let number = self.entries.insert(Entry {
            id,
            dial: Rc::new(dial),
            upstream,
            permit,
            addrs: VecDeque::new(),
            targets,
            error: None,
            stage: Stage::Idle,
            timer: None,
            backoff,
            opened: None,
            was_opened: false,
        }) as u32;
        self.by_id.insert(id, number);
        number
    }

    /// Returns the number of a dial.
    pub(super) fn number_of(&self, dial: DialId) -> Option<u32> {
        self.by_id.get(&dial).copied()
    }

    /// Tries the next address.
    pub(super) fn advance(&mut self, sys: &mut Y, number: u32) -> Progress<C::Io> {
        let Some(entry) = self.entries.get_mut(number as usize) else { return Progress::Unchanged };
        loop {
            if let Some(addr) = entry.addrs.pop_front() {
                let left = entry.dial.timeout;
                if let Some(progress) = entry.try_addr(sys, &self.via, &self.config, number, addr, left) {
                    return progress;
                }
                continue;
            }
            let Some(target) = entry.targets.pop_front() else { break };
            match target.clone().resolve() {
                Ok(Resolved::Addr(addr)) => entry.addrs.push_back(addr),
                Ok(Resolved::Name(name)) => {
                    if let Some(waiting) = self.names.get_mut(&name) {
                        waiting.push(number);
                    } else if let Err(error) = self.config.resolver.look_up(&name) {
                        entry.error = Some(DialError::lookup(name.to_string(), error));
                        continue;
                    } else {
                        self.names.insert(name.clone(), vec![number]);
                    }
                    entry.stage = Stage::LookingUp(name);
                    return Progress::Waits(entry.dial.timeout);
                }
                Err(why) => entry.error = Some(DialError::Address { text: target.to_string(), why }),
            }
        }
        entry.permit = None;
        let none = || DialError::Address { text: String::new(), why: "no address was given" };
        Progress::Failed(entry.error.take().unwrap_or_else(none))
    }

    /// The socket of a dial has an event, or seems to.
    pub(super) fn handle_ready(&mut self, sys: &mut Y, number: u32) -> Progress<C::Io> {
        let Some(entry) = self.entries.get_mut(number as usize) else { return Progress::Unchanged };
        let Stage::Connecting { io, addr } = &mut entry.stage else { return Progress::Unchanged };
        let error = match self.via.finish_connect(sys, io) {
            Ok(Connecting::UnderWay) => return Progress::Unchanged,
            Ok(Connecting::Done) => {
                let addr = addr.clone();
                let Stage::Connecting { io, .. } = mem::replace(&mut entry.stage, Stage::Session(None))
                else {
                    return Progress::Unchanged;
                };
                match entry.connected(sys, &self.via, io, addr, Polled::AsDial) {
                    Ok(connected) => return Progress::Connected(connected),
                    Err(error) => error,
                }
            }
            Err(error) => DialError::connect(addr.clone(), error),
        };
        entry.fail(error);
        self.advance(sys, number)
    }

    /// The timer of a dial is due.
    pub(super) fn handle_timer(&mut self, sys: &mut Y, number: u32, timer: TimerKey) -> Progress<C::Io> {
        let Some(entry) = self.entries.get_mut(number as usize) else { return Progress::Unchanged };
        if entry.timer.take_if(|own| *own == timer).is_none() {
            return Progress::Unchanged;
        }
        let after = entry.dial.timeout;
        let error = match mem::replace(&mut entry.stage, Stage::Idle) {
            Stage::Connecting { addr, .. } => DialError::TimedOut { addr, after },
            Stage::Knocking { addr, left } if left.is_zero() => DialError::TimedOut { addr, after },
            Stage::Knocking { addr, left } => {
                if let Some(progress) = entry.try_addr(sys, &self.via, &self.config, number, addr, left) {
                    return progress;
                }
                return self.advance(sys, number);
            }
            Stage::LookingUp(name) => {
                forget(&mut self.names, &name, number);
                let late = io::Error::new(ErrorKind::TimedOut, format!("no answer within {after:?}"));
                DialError::lookup(name.to_string(), late)
            }
            Stage::Waiting => {
                self.waiting = self.waiting.saturating_sub(1);
                return self.advance(sys, number);
            }
            Stage::Session(session) => {
                entry.stage = Stage::Session(session);
                return Progress::Delivers;
            }
            // It has no timer.
            Stage::Idle => return Progress::Unchanged,
        };
        entry.fail(error);
        self.advance(sys, number)
    }

    /// A name was looked up. Returns who waits for it and can go on.
    pub(super) fn handle_found(
        &mut self,
        name: &Name,
        found: &Result<Vec<Addr>, Arc<io::Error>>,
    ) -> Vec<u32> {
        let mut waiting = self.names.remove(name).unwrap_or_default();
        waiting.retain(|number| {
            let Some(entry) = self.entries.get_mut(*number as usize) else { return false };
            // Its time may be up.
            if !matches!(&entry.stage, Stage::LookingUp(wanted) if wanted == name) {
                return false;
            }
            match found {
                Ok(addrs) if addrs.is_empty() => {
                    let nothing = io::Error::new(ErrorKind::NotFound, "it has no address");
                    entry.error = Some(DialError::lookup(name.to_string(), nothing));
                }
                Ok(addrs) => entry.addrs.extend(addrs.iter().cloned()),
                Err(source) => {
                    entry.error = Some(DialError::Lookup { name: name.to_string(), source: source.clone() })
                }
            }
            entry.stage = Stage::Idle;
            true
        });
        waiting
    }

    /// The connection has become this session.
    pub(super) fn note_session(&mut self, number: u32, session: Key) {
        if let Some(entry) = self.entries.get_mut(number as usize) {
            entry.stage = Stage::Session(Some(session));
        }
    }

    /// The session was opened. Returns `true` if it is not the first one.
    pub(super) fn note_opened(&mut self, number: u32, now: Tick) -> bool {
        let Some(entry) = self.entries.get_mut(number as usize) else { return false };
        entry.opened = Some(now);
        mem::replace(&mut entry.was_opened, true)
    }

    /// The open session has ended.
    pub(super) fn note_ended(&mut self, number: u32, now: Tick) {
        let Some(entry) = self.entries.get_mut(number as usize) else { return };
        let opened = entry.opened.take();
        if let (Some(backoff), Some(opened)) = (&mut entry.backoff, opened) {
            if now.saturating_sub(opened) >= ticks(backoff.stable_after()) {
                backoff.reset();
            }
        }
    }

    /// Returns `true` if it is made again when its connection has ended.
    pub(super) fn reconnects(&self, number: u32) -> bool {
        self.entries.get(number as usize).is_some_and(|entry| entry.backoff.is_some())
    }

    /// An attempt is over. Returns the dial and the pause before the next one, if there is to be one, and begins it.
    pub(super) fn pause(&mut self, number: u32) -> Option<(DialId, Duration)> {
        let entry = self.entries.get_mut(number as usize)?;
        let pause = entry.backoff.as_mut()?.next_delay()?;
        // A thread of its own is held, though there is no connection.
        let kept = self.config.here.is_none().then(|| self.config.admission.keep_forked());
        (entry.stage, entry.permit, entry.error) = (Stage::Waiting, kept, None);
        self.waiting += 1;
        if !C::IS_BLIND || entry.addrs.is_empty() && entry.targets.is_empty() {
            entry.addrs.clear();
            entry.targets = entry.dial.targets.iter().cloned().collect();
        }
        Some((entry.id, pause))
    }

    /// The connection has become no session, or one that was not opened.
    pub(super) fn note_error(&mut self, number: u32, error: DialError) {
        if let Some(entry) = self.entries.get_mut(number as usize) {
            entry.fail(error);
        }
    }

    pub(super) fn upstream(&self, number: u32) -> Option<&UpstreamSide> {
        self.entries.get(number as usize)?.upstream.as_ref()
    }

    pub(super) fn set_timer(&mut self, number: u32, timer: TimerKey) {
        if let Some(entry) = self.entries.get_mut(number as usize) {
            debug_assert!(entry.timer.is_none(), "the timer before was taken");
            entry.timer = Some(timer);
        }
    }

    pub(super) fn take_timer(&mut self, number: u32) -> Option<TimerKey> {
        self.entries.get_mut(number as usize)?.timer.take()
    }

    /// The dial has ended.
    pub(super) fn remove(&mut self, number: u32) -> Option<Remains> {
        let entry = self.entries.try_remove(number as usize)?;
        self.by_id.remove(&entry.id);
        let Entry { id, timer, upstream, stage, opened, .. } = entry;
        let was_opened = opened.is_some();
        let session = match stage {
            Stage::Session(session) => session,
            Stage::LookingUp(name) => {
                forget(&mut self.names, &name, number);
                None
            }
            Stage::Waiting => {
                self.waiting = self.waiting.saturating_sub(1);
                None
            }
            _ => None,
        };
        Some(Remains { id, timer, session, was_opened, upstream })
    }

    /// All dials end.
    pub(super) fn remove_all(&mut self) -> Vec<Remains> {
        self.names.clear();
        let numbers: Vec<u32> = self.entries.iter().map(|(number, _)| number as u32).collect();
        numbers.into_iter().filter_map(|number| self.remove(number)).collect()
    }
}

/// The dial with this number waits no more for the name, which is still being looked up.
fn forget(names: &mut HashMap<Name, Vec<u32>>, name: &Name, number: u32) {
    let waiting = names.get_mut(name);
    if let Some((waiting, at)) =
        waiting.and_then(|all| all.iter().position(|one| *one == number).map(|at| (all, at)))
    {
        waiting.swap_remove(at);
    }
}

impl<T> Entry<T> {
    /// An address has failed: its socket is closed, and its place is free.
    fn fail(&mut self, error: DialError) {
        (self.stage, self.permit) = (Stage::Idle, None);
        self.error = Some(error);
    }

    /// Tries one address, which has so much time `left`. Returns `None` if it has failed already.
    fn try_addr<Y: Sys, C: Connect<Y, Io = T>>(
        &mut self,
        sys: &mut Y,
        via: &C,
        config: &ConnectorConfig,
        number: u32,
        addr: Addr,
        left: Duration,
    ) -> Option<Progress<T>> {
        if let Err(full) = self.take_place(config) {
            self.error = Some(full);
            return None;
        }
        let error = match via.connect(sys, &addr, &config.options) {
            Ok((io, Connecting::Done)) => match self.connected(sys, via, io, addr, Polled::NotYet) {
                Ok(connected) => return Some(Progress::Connected(connected)),
                Err(error) => error,
            },
            Ok((mut io, Connecting::UnderWay)) => {
                match via.register(sys, &mut io, dial_token(config.service, number)) {
                    Ok(()) => {
                        self.stage = Stage::Connecting { io, addr };
                        return Some(Progress::Waits(left));
                    }
                    Err(error) => DialError::connect(addr, error),
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.permit = None;
                let pause = left.min(KNOCK_AGAIN);
                self.stage = Stage::Knocking { addr, left: left.saturating_sub(pause) };
                return Some(Progress::Waits(pause));
            }
            Err(error) => DialError::connect(addr, error),
        };
        self.permit = None;
        self.error = Some(error);
        None
    }

    /// A connection has a place in the counts before it has a descriptor. Limits per peer are for those who connect
    /// to us.
    fn take_place(&mut self, config: &ConnectorConfig) -> Result<(), DialError> {
        if self.permit.is_none() {
            let admitted = config.admission.admit(config.here, &Addr::Unix(None));
            let full = |_| DialError::Full { connections: config.admission.total() };
            self.permit = Some(admitted.map_err(full)?);
        }
        Ok(())
    }

    fn connected<Y: Sys, C: Connect<Y, Io = T>>(
        &mut self,
        sys: &mut Y,
        via: &C,
        io: T,
        peer: Addr,
        polled: Polled,
    ) -> Result<Connected<T>, DialError> {
        let local = via.local_addr(sys, &io).map_err(|error| DialError::connect(peer.clone(), error))?;
        if local == peer && local.ip().is_some() {
            // Where nobody listens on a port from which the system also chooses ours, it connects us to ourselves.
            let itself = io::Error::new(ErrorKind::ConnectionRefused, "nobody else listens there");
            return Err(DialError::connect(peer, itself));
        }
        let Some(permit) = self.permit.take() else {
            debug_assert!(false, "it was admitted before it was connected");
            return Err(DialError::Stopped);
        };
        self.stage = Stage::Session(None);
        let incoming = Incoming { io, endpoints: Endpoints::dialled(self.id, peer, local), permit };
        Ok(Connected { incoming, dial: self.dial.clone(), polled })
    }
}
