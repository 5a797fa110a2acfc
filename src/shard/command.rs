use std::{
    any::Any,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{Ending, FanOut, SessionAccess, Shard, local_queue::waits_locally, post};
use crate::{
    addr::{Addr, Endpoints, Name},
    buffer::Overflow,
    contained::{Contained, guard},
    dial::NewDial,
    error::{CloseReason, SendError, Why},
    framing::Framing,
    handler::PacketHandler,
    id::{DialId, Key, ServerNumber, SessionId, ShardId},
    log::logged,
    session::{Deliver, Outgoing, SessionCommand, ShardContext, Undelivered},
    sync::{AdmissionPermit, Completion, Mailbox, Prospect, Rejected, Room},
};

/// A closure that runs on a shard's thread.
pub(crate) enum Job {
    /// One that does not depend on the handler's type.
    Plain(Box<dyn FnOnce(&mut ShardContext<'_>) + Send>),
    /// A [`HandlerJob`], whose type is known where it is given and where it runs.
    WithHandler(Box<dyn Any + Send>),
}

/// A closure that takes the handler of a shard.
pub(crate) type HandlerJob<H> =
    Box<dyn FnOnce(&mut H, &mut ShardContext<'_, <H as PacketHandler>::State>) + Send>;

/// What comes through the mailbox of a shard.
pub(crate) enum Command<T> {
    /// For one session, from a handle.
    Session(Key, Contained<SessionCommand>),
    /// A connection that another thread accepted.
    Adopt(Incoming<T>),
    /// Make this connection, or have it made on another thread.
    Dial(Box<NewDial>),
    /// A name that dials of this shard wait for was looked up.
    Found(Name, Result<Vec<Addr>, Arc<io::Error>>),
    /// Give up this dial.
    HangUp(DialId),
    /// Close the sessions of this peer, for this reason.
    ClosePeer(SocketAddr, Contained<Option<Why>>),
    /// Send this packet to many sessions.
    FanOut(Box<FanOut>),
    /// Run this closure.
    Execute(Contained<Job>),
    /// Close everything gracefully, within this time.
    Shutdown(Duration),
    /// Terminate all sessions.
    Abort,
    /// Sum up, in due time, what was left out of the log.
    SumUpLog,
}

impl<T> Command<T> {
    /// Returns `true` if sessions are visited one after the other, so that some have got it and others have not.
    pub(crate) fn is_for_many(&self) -> bool {
        matches!(self, Self::FanOut(_))
    }

    /// Drops the command.
    ///
    /// # Errors
    /// The message, if the destructor of a user's value in it panicked.
    pub(crate) fn discard(self) -> Result<(), String> {
        match self {
            Self::Session(_, command) => command.discard(),
            Self::Execute(job) => job.discard(),
            Self::ClosePeer(_, why) => why.discard(),
            Self::FanOut(fan_out) => fan_out.discard(),
            Self::Dial(dial) => dial.discard(),
            Self::Adopt(_)
            | Self::Found(..)
            | Self::HangUp(_)
            | Self::Shutdown(_)
            | Self::Abort
            | Self::SumUpLog => Ok(()),
        }
    }
}

/// A connection on its way to its shard. If dropped on the way, it is closed, and then leaves the counts of
/// connections.
pub(crate) struct Incoming<T> {
    pub(crate) io: T,
    pub(crate) endpoints: Endpoints,
    pub(crate) permit: AdmissionPermit,
}

/// The mailbox of a shard as session handles see it.
pub(crate) struct CommandSender<T> {
    pub(crate) server: ServerNumber,
    pub(crate) shard: ShardId,
    pub(crate) mailbox: Arc<Mailbox<Command<T>>>,
    /// [`Limits::outbox_hard`](crate::Limits::outbox_hard).
    pub(crate) outbox_limit: usize,
    /// Panics that no shard has counted.
    pub(crate) panics: Arc<AtomicU64>,
}

fn send_error<C>(refused: &Rejected<C>) -> SendError {
    match refused {
        Rejected::Full { queued, queued_bytes, .. } => {
            SendError::MailboxFull { commands: *queued, bytes: *queued_bytes }
        }
        Rejected::Closed { .. } => SendError::Closed,
    }
}

impl<T: Send> Deliver for CommandSender<T> {
    fn sum_up_log(&self) {
        // At most one waits, see `LogGate::admits`. A shard that has ended has summed up.
        let _ = self.mailbox.post_control(Command::SumUpLog);
    }

    fn id_of(&self, key: Key) -> SessionId {
        self.server.id(self.shard, key)
    }

    fn deliver(&self, key: Key, command: SessionCommand, bytes: usize) -> Result<(), Undelivered> {
        deliver(&self.mailbox, key, command, bytes)
    }

    fn deliver_to_all(
        &self,
        payload: &Bytes,
        sessions: &Arc<Vec<Key>>,
        listed: usize,
        except: Option<Key>,
        overflow: Overflow,
    ) -> Result<(), SendError> {
        let fan_out = FanOut::to_members(payload.clone(), sessions.clone(), except, overflow);
        let bytes = fan_out.bytes().saturating_add(listed);
        post(&self.mailbox, Command::FanOut(Box::new(fan_out)), bytes).map_err(|refused| send_error(&refused))
    }

    fn hang_up(&self, dial: DialId) {
        // A shard that has ended has no dials.
        let _ = self.mailbox.post_control(Command::HangUp(dial));
    }

    fn deliver_tracked(
        &self,
        payload: &Bytes,
        sessions: &Arc<Vec<Key>>,
        overflow: Overflow,
        completions: Vec<Completion>,
    ) {
        let fan_out = FanOut::to_members(payload.clone(), sessions.clone(), None, overflow);
        post_tracked(&self.mailbox, fan_out.tracked(completions));
    }

    fn is_idle(&self) -> bool {
        self.mailbox.is_idle() && !waits_locally(&self.mailbox)
    }

    fn room(&self) -> &Room {
        self.mailbox.room()
    }

    fn await_room(&self, bytes: usize) -> Prospect {
        self.mailbox.await_room(bytes)
    }

    fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    fn outbox_limit(&self) -> usize {
        self.outbox_limit
    }
}

/// Posts a packet for many sessions. If the shard does not take it, those who track it are told.
pub(crate) fn post_tracked<T>(mailbox: &Mailbox<Command<T>>, fan_out: FanOut) {
    let bytes = fan_out.bytes();
    let posted = post(mailbox, Command::FanOut(Box::new(fan_out)), bytes);
    posted.unwrap_or_else(|refused| {
        let error = send_error(&refused);
        if let Command::FanOut(fan_out) = refused.into_command() {
            fan_out.refuse(&error);
        }
    });
}

/// Posts a command to a session.
pub(crate) fn deliver<T>(
    mailbox: &Mailbox<Command<T>>,
    key: Key,
    command: SessionCommand,
    bytes: usize,
) -> Result<(), Undelivered> {
    let command = Command::Session(key, Contained::new(command));
    post(mailbox, command, bytes).map_err(|refused| {
        let error = send_error(&refused);
        let command =
            if let Command::Session(_, command) = refused.into_command() { Some(command) } else { None };
        Undelivered { error, command }
    })
}

impl<H: PacketHandler, F: Framing, T> SessionAccess<'_, H, F, T> {
    /// Carries out a command from a handle.
    pub(crate) fn handle_command(&mut self, command: &mut SessionCommand) {
        match command {
            SessionCommand::Send { payload, completion, reserved, overflow } => {
                self.send(payload, completion.take(), *reserved, *overflow);
            }
            SessionCommand::Close(why) => self.close(CloseReason::asked(why.take())),
            SessionCommand::CloseFull { queued, limit } if !self.slot.connection.is_closing() => {
                let error = SendError::Full { queued: *queued, limit: *limit };
                self.slot.connection.close_full(error, self.core);
            }
            SessionCommand::CloseFull { .. } => {}
            SessionCommand::Abort => self.terminate(CloseReason::Local, Ending::Reset),
            SessionCommand::Pause => self.slot.connection.pause(self.core),
            SessionCommand::Resume => self.slot.connection.resume(self.core),
            SessionCommand::Link(signal) => self.handle_link_signal(*signal),
        }
    }

    /// Sends a packet from a handle or from another session, whose sender already got `Ok`. So an outbox may hold twice
    /// its limit: the limit from callbacks, and as much again from elsewhere. If there is no room, and no completion
    /// that could report it, the session is closed unless its `overflow`, or that of the packet, says otherwise.
    pub(super) fn send(
        &mut self,
        payload: &[u8],
        mut completion: Option<Completion>,
        reserved: usize,
        overflow: Option<Overflow>,
    ) {
        let (connection, framing, core) = (&mut self.slot.connection, &*self.slot.framing, &mut *self.core);
        let overflow = overflow.unwrap_or_else(|| connection.overflow());
        let (packet, most) = (Outgoing::Payload(framing, payload), core.limits.outbox_hard.saturating_mul(2));
        let sent = guard("encode", || {
            Ok::<_, CloseReason>(connection.enqueue_as(packet, overflow, most, &mut completion, core))
        });
        if matches!(sent, Ok(Ok(()))) {
            if let Some(completion) = completion.take() {
                connection.track(completion, core);
            }
        }
        if let Some(handle_state) = connection.handle_state() {
            handle_state.take(reserved, connection.queued());
        }
        match (sent, completion) {
            (Ok(Ok(())), _) => {}
            (Ok(Err(SendError::Full { .. })), Some(completion)) if overflow.drops() => completion.dropped(),
            (Ok(Err(error)), Some(completion)) => completion.refused(error),
            (Ok(Err(SendError::Encode(error))), None) => {
                // The sender's error, for which this session and its peer are not responsible.
                core.counters.sends_refused += 1;
                let (session, peer, now) = (self.id(), self.endpoints().peer(), self.core.clock.now());
                logged!(
                    self.core.reporter.gate, now, Unframed WARN,
                    %session, %peer, %error, "a packet sent by handle has no frame, dropping it"
                );
            }
            (Ok(Err(error @ SendError::Full { .. })), None) if overflow == Overflow::Close => {
                connection.close_full(error, core);
            }
            // Counted, or closing already.
            (Ok(Err(_)), None) => {}
            (Err(panic), _) => self.fail(panic),
        }
        self.core.flush_later(&mut self.slot.connection);
    }
}

impl<H, F, T> Shard<H, F, T>
where
    H: PacketHandler,
    F: Framing + Clone,
{
    /// Carries out a command for a session.
    pub(crate) fn handle_command(&mut self, key: Key, command: &mut SessionCommand) {
        let met = self.with_session(key, |access| access.handle_command(command));
        if let (None, SessionCommand::Link(signal)) = (met, command) {
            self.answer_for_ended(key, *signal);
        }
    }

    /// Closes the sessions of this peer.
    pub(crate) fn close_peer(&mut self, peer: SocketAddr, why: Option<&Why>) {
        for key in self.keys() {
            self.with_session(key, |access| {
                if access.endpoints().peer().socket_addr() == Some(peer) {
                    access.close(CloseReason::asked(why.cloned()));
                }
            });
        }
    }
}
