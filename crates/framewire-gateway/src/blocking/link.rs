//! A link with its thread that reads.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use super::{EndpointError, EndpointOptions};
use crate::protocol::{Command, split};

/// Bytes that are read at once.
const READ: usize = 64 * 1024;
/// Bytes that a message holds beside its own: empty ones fill a queue too.
const MESSAGE: usize = size_of::<Vec<u8>>();

/// One link, as its connections and its reader share it.
pub(super) struct Link {
    stream: TcpStream,
    /// Held while a frame is written, so that frames do not mix.
    writer: Mutex<()>,
    state: Mutex<State>,
    /// Something has come.
    changed: Condvar,
    options: EndpointOptions,
}

#[derive(Default)]
struct State {
    /// Why the link has ended.
    ended: Option<Arc<str>>,
    /// Calls that wait for an ID, and IDs that have come for them.
    asked: usize,
    ids: VecDeque<u32>,
    conns: HashMap<u32, Conn>,
    /// Connections that the other side has dialed: ID and remote.
    incoming: VecDeque<(u32, u32)>,
}

#[derive(Default)]
struct Conn {
    stage: Stage,
    messages: VecDeque<Vec<u8>>,
    /// Bytes that the messages hold.
    bytes: usize,
    /// The dial was given up: kept only to know the gateway's answer when it comes.
    is_abandoned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Dialing,
    Open,
    Refused,
    Closed,
}

impl Link {
    pub(super) fn start(stream: TcpStream, options: EndpointOptions) -> Result<Arc<Self>, EndpointError> {
        let reader = stream.try_clone()?;
        let link = Arc::new(Self {
            stream,
            writer: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            options,
        });
        let (weak, max) = (Arc::downgrade(&link), link.options.max_length);
        let name = "framewire-gateway-link".to_owned();
        thread::Builder::new().name(name).spawn(move || read(reader, max, &weak))?;
        Ok(link)
    }

    pub(super) fn gateway(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok()
    }

    /// Writes whole frames.
    pub(super) fn write(&self, frames: &[u8]) -> Result<(), EndpointError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &self.state().ended {
            return Err(EndpointError::Ended { why: why.clone() });
        }
        (&self.stream).write_all(frames).map_err(|error| self.end(&format!("writing failed: {error}")))
    }

    pub(super) fn command(&self, command: Command) -> Result<(), EndpointError> {
        self.write(&command.frame())
    }

    /// Ends the link for this reason, unless it has ended. Returns what the calls that wait are told.
    fn end(&self, why: &str) -> EndpointError {
        let mut state = self.state();
        let why = state.ended.get_or_insert_with(|| why.into()).clone();
        drop(state);
        // It may have been shut down by the gateway.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.changed.notify_all();
        EndpointError::Ended { why }
    }

    pub(super) fn close(&self) {
        self.end("it was closed here");
    }

    /// Waits until `look` returns something.
    fn wait<T>(
        &self,
        deadline: Instant,
        within: Duration,
        mut look: impl FnMut(&mut State) -> Option<Result<T, EndpointError>>,
    ) -> Result<T, EndpointError> {
        let mut state = self.state();
        loop {
            if let Some(found) = look(&mut state) {
                return found;
            }
            if let Some(why) = &state.ended {
                return Err(EndpointError::Ended { why: why.clone() });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(EndpointError::TimedOut(within));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Asks for a connection ID. One that comes too late is kept for the next call.
    pub(super) fn new_conn(&self, deadline: Instant, within: Duration) -> Result<u32, EndpointError> {
        self.state().asked += 1;
        let asked = self
            .command(Command::New)
            .and_then(|()| self.wait(deadline, within, |state| state.ids.pop_front().map(Ok)));
        self.state().asked -= 1;
        asked
    }

    pub(super) fn await_accept(&self, conn: u32) {
        self.state().conns.insert(conn, Conn::default());
    }

    /// Waits until a connection that was dialed is open.
    pub(super) fn accepted(
        &self,
        conn: u32,
        deadline: Instant,
        within: Duration,
    ) -> Result<(), EndpointError> {
        self.wait(deadline, within, |state| match state.conns.get(&conn)?.stage {
            Stage::Dialing => None,
            // It may have been closed at once: what came before can be read.
            Stage::Open | Stage::Closed => Some(Ok(())),
            Stage::Refused => Some(Err(EndpointError::Closed)),
        })
    }

    /// A dial has failed. If it was for want of time, the connection may still be opened: then it is closed, and not
    /// taken for one that the other side has dialed.
    pub(super) fn forget(&self, conn: u32, error: &EndpointError) {
        let mut state = self.state();
        match state.conns.get_mut(&conn) {
            Some(dialed) if matches!(error, EndpointError::TimedOut(_)) => {
                (dialed.stage, dialed.is_abandoned) = (Stage::Closed, true);
                drop(state);
                let _ = self.command(Command::Close { conn });
            }
            _ => drop(state.conns.remove(&conn)),
        }
    }

    /// Waits for a connection that the other side has dialed.
    pub(super) fn incoming(&self, deadline: Instant, within: Duration) -> Result<(u32, u32), EndpointError> {
        self.wait(deadline, within, |state| state.incoming.pop_front().map(Ok))
    }

    pub(super) fn send(&self, conn: u32, message: &[u8]) -> Result<(), EndpointError> {
        let (len, max) = (message.len(), self.options.max_length.saturating_sub(4) as usize);
        if len > max {
            return Err(EndpointError::TooLong { len, max });
        }
        if self.state().conns.get(&conn).is_none_or(|conn| conn.stage != Stage::Open) {
            return Err(EndpointError::Closed);
        }
        let length = len as u32 + 4;
        self.write(&[&length.to_le_bytes()[..], &conn.to_le_bytes(), message].concat())
    }

    pub(super) fn recv(
        &self,
        conn: u32,
        deadline: Instant,
        within: Duration,
    ) -> Result<Option<Vec<u8>>, EndpointError> {
        self.wait(deadline, within, |state| {
            let Some(conn) = state.conns.get_mut(&conn) else { return Some(Ok(None)) };
            if let Some(message) = conn.messages.pop_front() {
                conn.bytes -= message.len() + MESSAGE;
                return Some(Ok(Some(message)));
            }
            (conn.stage == Stage::Closed).then_some(Ok(None))
        })
    }

    pub(super) fn close_conn(&self, conn: u32) {
        let mut state = self.state();
        let is_open = state
            .conns
            .get_mut(&conn)
            .is_some_and(|conn| std::mem::replace(&mut conn.stage, Stage::Closed) == Stage::Open);
        drop(state);
        self.changed.notify_all();
        if is_open {
            // A link that has ended has closed it.
            let _ = self.command(Command::Close { conn });
        }
    }

    pub(super) fn drop_conn(&self, conn: u32) {
        self.close_conn(conn);
        self.state().conns.remove(&conn);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles one frame of the gateway. Returns what is to be replied.
    fn handle(&self, frame: &[u8]) -> Result<Option<Command>, &'static str> {
        let Some((conn, payload)) = split(frame) else { return Err("the gateway sent half a frame") };
        if conn != 0 {
            return Ok(self.message(conn, payload));
        }
        match Command::decode(payload) {
            Ok(Command::Ping) => return Ok(Some(Command::Ping)),
            Ok(Command::Open { conn }) => self.opened(conn),
            Ok(Command::Accept { conn, remote }) => return Ok(self.accept(conn, remote)),
            Ok(Command::Refuse { conn }) => self.set_stage(conn, Stage::Refused),
            Ok(Command::Close { conn }) => self.set_stage(conn, Stage::Closed),
            Ok(Command::New | Command::Dial { .. }) | Err(_) => return Err("the gateway broke the protocol"),
        }
        Ok(None)
    }

    fn opened(&self, conn: u32) {
        let mut state = self.state();
        // A gateway that sends more than it was asked for fills no memory.
        if state.ids.len() < state.asked.max(16) {
            state.ids.push_back(conn);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn accept(&self, conn: u32, remote: u32) -> Option<Command> {
        let mut guard = self.state();
        let state = &mut *guard;
        match state.conns.get_mut(&conn) {
            Some(dialed) if dialed.stage == Stage::Dialing => dialed.stage = Stage::Open,
            // It was given up, and is about to be closed.
            Some(_) => {}
            None if state.incoming.len() >= self.options.backlog => return Some(Command::Close { conn }),
            None => {
                state.conns.insert(conn, Conn { stage: Stage::Open, ..Conn::default() });
                state.incoming.push_back((conn, remote));
            }
        }
        drop(guard);
        self.changed.notify_all();
        None
    }

    fn set_stage(&self, conn: u32, stage: Stage) {
        let mut state = self.state();
        match state.conns.get_mut(&conn) {
            Some(abandoned) if abandoned.is_abandoned => drop(state.conns.remove(&conn)),
            Some(conn) => conn.stage = stage,
            None => {}
        }
        drop(state);
        self.changed.notify_all();
    }

    fn message(&self, conn: u32, payload: &[u8]) -> Option<Command> {
        let mut state = self.state();
        let queue = self.options.queue;
        let to = state.conns.get_mut(&conn).filter(|conn| conn.stage == Stage::Open)?;
        let bytes = payload.len() + MESSAGE;
        if to.bytes > 0 && to.bytes + bytes > queue {
            to.stage = Stage::Closed;
            drop(state);
            self.changed.notify_all();
            return Some(Command::Close { conn });
        }
        to.bytes += bytes;
        to.messages.push_back(payload.to_vec());
        drop(state);
        self.changed.notify_all();
        None
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Wakes the thread that reads.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Reads the link until it ends, or nobody has it any more.
fn read(mut stream: TcpStream, max_length: u32, link: &Weak<Link>) {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; READ];
    let why = loop {
        let read = match stream.read(&mut chunk) {
            Ok(0) => break "the gateway has closed it".to_owned(),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => break format!("reading failed: {error}"),
        };
        buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        let Some(link) = link.upgrade() else { return };
        match take_frames(&mut buffer, max_length, &link) {
            Ok(()) => {}
            Err(why) => break why,
        }
    };
    if let Some(link) = link.upgrade() {
        link.end(&why);
    }
}

/// Handles the whole frames at the front of the buffer, and removes them. Those before one that breaks the protocol are
/// answered.
fn take_frames(buffer: &mut Vec<u8>, max_length: u32, link: &Link) -> Result<(), String> {
    let (mut used, mut replies) = (0, Vec::new());
    let mut done = Ok(());
    while let Some((length, _)) = buffer.get(used..).and_then(|rest| rest.split_first_chunk()) {
        let length = u32::from_le_bytes(*length);
        if !(4..=max_length).contains(&length) {
            done = Err(format!("the gateway sent a frame of LENGTH {length}; 4 to {max_length} are allowed"));
            break;
        }
        let end = used + 4 + length as usize;
        let Some(frame) = buffer.get(used..end) else { break };
        used = end;
        match link.handle(frame) {
            Ok(reply) => reply.into_iter().for_each(|reply| replies.extend_from_slice(&reply.frame())),
            Err(why) => {
                done = Err(why.to_owned());
                break;
            }
        }
    }
    buffer.drain(..used);
    if buffer.is_empty() {
        // A large message does not keep its memory.
        buffer.shrink_to(READ);
    }
    if !replies.is_empty() {
        link.write(&replies).map_err(|error| error.to_string())?;
    }
    done
}
