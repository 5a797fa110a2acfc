//! What callbacks post to their own shard: it goes past the mailbox, without its lock and without waking anybody.
//!
//! ```text
//! callback of shard 1 ──post──▶ to shard 1, and its mailbox is idle? ── yes ──▶ [ local queue ] ──take──▶ commands of shard 1
//!                                          └─ no ──▶ mailbox of that shard                                (in the same turn)
//! ```
//!
//! Nothing overtakes: a command is queued here only if nothing waits in the mailbox, so it is older than all that comes
//! into the mailbox afterwards, and the shard takes this queue first. A handle or a channel does not know who uses it, so
//! the thread knows whose turn it runs.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use super::{Command, FanOut};
use crate::{
    contained::Contained,
    id::Key,
    session::SessionCommand,
    sync::{Mailbox, MailboxLimits, Rejected},
};

thread_local! {
    /// The shard whose turn runs on this thread, by the address of its mailbox; 0 outside of a turn. Apart from the
    /// queue, because neither has a destructor: to look at one is one load.
    static SHARD: Cell<usize> = const { Cell::new(0) };
    /// Something is in the queue.
    static WAITS: Cell<bool> = const { Cell::new(false) };
    static QUEUE: RefCell<Queue> = const { RefCell::new(Queue { commands: Vec::new(), bytes: 0 }) };
}

/// Invariant: `commands.len() ≤ limits.commands`, `bytes ≤ limits.bytes`, with the limits of the shard's mailbox.
#[derive(Default)]
struct Queue {
    commands: Vec<LocalCommand>,
    /// What they hold, as their mailbox would count it.
    bytes: usize,
}

/// A command that callbacks post.
enum LocalCommand {
    Session(Key, Contained<SessionCommand>),
    FanOut(Box<FanOut>),
}

impl<T> From<LocalCommand> for Command<T> {
    fn from(command: LocalCommand) -> Self {
        match command {
            LocalCommand::Session(key, command) => Self::Session(key, command),
            LocalCommand::FanOut(fan_out) => Self::FanOut(fan_out),
        }
    }
}

impl Queue {
    fn has_room(&self, bytes: usize, limits: MailboxLimits) -> bool {
        self.commands.len() < limits.commands && bytes <= limits.bytes.saturating_sub(self.bytes)
    }
}

/// Marks the turn of a shard on this thread, until it is dropped.
pub(crate) struct LocalTurn {
    /// The shard of the turn within which this one runs, if there is one: a callback may serve another server.
    outer: usize,
    /// What waits for that shard, if anything does.
    queue: Option<Queue>,
}

impl LocalTurn {
    #[inline]
    pub(crate) fn begin<T>(mailbox: &Mailbox<Command<T>>) -> Self {
        let queue = if WAITS.get() { Some(take()) } else { None };
        Self { outer: SHARD.replace(address_of(mailbox)), queue }
    }
}

impl Drop for LocalTurn {
    #[inline]
    fn drop(&mut self) {
        SHARD.set(self.outer);
        if WAITS.get() || self.queue.is_some() {
            self.change_queues();
        }
    }
}

impl LocalTurn {
    #[cold]
    fn change_queues(&mut self) {
        // Something is left only if the turn panicked: it ends with its shard.
        let left = take();
        if let Some(queue) = self.queue.take() {
            put_back(queue);
        }
        drop(left);
    }
}

fn address_of<T>(mailbox: &Mailbox<Command<T>>) -> usize {
    std::ptr::from_ref(mailbox).addr()
}

#[cold]
fn take() -> Queue {
    WAITS.set(false);
    QUEUE.try_with(RefCell::take).unwrap_or_default()
}

#[cold]
fn put_back(queue: Queue) {
    // Fails if the thread is about to end, when it runs no turn.
    let put = QUEUE.try_with(|place| *place.borrow_mut() = queue);
    WAITS.set(put.is_ok());
}

/// Moves what callbacks have posted to this shard in this turn to the front of its commands, which are younger. Returns
/// `true` if that was anything.
#[inline]
pub(crate) fn take_local<T>(commands: &mut VecDeque<Command<T>>) -> bool {
    let waits = WAITS.get();
    if waits {
        let local = take().commands.into_iter();
        local.rev().for_each(|command| commands.push_front(command.into()));
    }
    waits
}

/// Returns `true` if callbacks have posted something to the shard with this mailbox, which it has not taken yet.
#[inline]
pub(super) fn waits_locally<T>(mailbox: &Mailbox<Command<T>>) -> bool {
    WAITS.get() && SHARD.get() == address_of(mailbox)
}

/// Posts a command that holds so many `bytes` to a shard: past its mailbox if a callback of that shard calls this, and
/// nothing waits in the mailbox.
///
/// # Errors
/// As for [`Mailbox::post`].
pub(crate) fn post<T>(
    mailbox: &Mailbox<Command<T>>,
    command: Command<T>,
    bytes: usize,
) -> Result<(), Rejected<Command<T>>> {
    if SHARD.get() != address_of(mailbox) || !mailbox.is_idle() {
        return mailbox.post(command, bytes);
    }
    let command = match command {
        Command::Session(key, command) => LocalCommand::Session(key, command),
        Command::FanOut(fan_out) => LocalCommand::FanOut(fan_out),
        // Nothing that callbacks do often.
        other => return mailbox.post(other, bytes),
    };
    match push(command, bytes, mailbox.limits()) {
        None => Ok(()),
        Some(refused) => mailbox.post(refused.into(), bytes),
    }
}

/// Returns the command if there is no room for it.
fn push(command: LocalCommand, bytes: usize, limits: MailboxLimits) -> Option<LocalCommand> {
    let mut command = Some(command);
    // Fails if the thread is about to end, when it runs no turn.
    let _ = QUEUE.try_with(|queue| {
        let mut queue = queue.borrow_mut();
        if queue.has_room(bytes, limits) {
            queue.bytes += bytes;
            queue.commands.extend(command.take());
            WAITS.set(true);
        }
    });
    command
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use bytes::Bytes;

    use super::*;
    use crate::{shard::Recipients, sync::Wake};

    struct Silence;

    impl Wake for Silence {
        fn wake(&self) -> io::Result<()> {
            Ok(())
        }
    }

    type OwnMailbox = Mailbox<Command<()>>;

    fn mailbox(commands: usize, bytes: usize) -> OwnMailbox {
        Mailbox::new(MailboxLimits { commands, bytes }, Arc::new(Silence))
    }

    fn fan_out(payload: &'static [u8]) -> Command<()> {
        Command::FanOut(Box::new(FanOut::new(Bytes::from_static(payload), Recipients::All)))
    }

    fn close() -> Command<()> {
        let key = Key { slot: 0, generation: 0 };
        Command::Session(key, Contained::new(SessionCommand::Close(None)))
    }

    /// What waits, `s` for a session's command.
    fn kinds(commands: &VecDeque<Command<()>>) -> String {
        let kind = |command: &Command<()>| match command {
            Command::Session(..) => 's',
            Command::FanOut(_) => 'f',
            _ => '?',
        };
        commands.iter().map(kind).collect()
    }

    fn posts(mailbox: &OwnMailbox, command: Command<()>) -> bool {
        post(mailbox, command, 1).is_ok()
    }

    #[test]
    fn only_what_a_shard_posts_to_itself_goes_past_its_mailbox() {
        let (own, other) = (mailbox(9, 9), mailbox(9, 9));
        assert!(posts(&own, fan_out(b"x")), "outside of a turn");
        let mut commands = own.close();
        assert_eq!(kinds(&commands), "f");
        commands.clear();
        let own = mailbox(9, 9);
        let turn = LocalTurn::begin(&own);
        assert!(posts(&own, fan_out(b"x")) && posts(&other, fan_out(b"x")) && posts(&own, close()));
        assert_eq!((own.queued(), other.queued()), (0, 1));
        assert!(waits_locally(&own) && !waits_locally(&other));
        assert!(take_local(&mut commands) && !waits_locally(&own));
        assert_eq!(kinds(&commands), "fs");
        drop(turn);
        assert!(posts(&own, close()) && own.queued() == 1);
    }

    #[test]
    fn a_command_is_behind_all_that_waits_in_the_mailbox_and_before_what_comes_later() {
        let own = mailbox(9, 9);
        let _turn = LocalTurn::begin(&own);
        let mut commands = VecDeque::new();
        assert!(posts(&own, fan_out(b"x")) && own.post(close(), 1).is_ok() && posts(&own, fan_out(b"y")));
        own.take(&mut commands);
        assert!(take_local(&mut commands));
        assert_eq!(kinds(&commands), "fsf");
        own.note_leftover(true);
        assert!(posts(&own, close()) && !waits_locally(&own) && own.queued() == 1);
    }

    #[test]
    fn no_more_is_queued_than_the_mailbox_takes_and_the_rest_goes_there() {
        for own in [mailbox(2, 100), mailbox(100, 2)] {
            let _turn = LocalTurn::begin(&own);
            assert!((0..4).all(|_| posts(&own, close())));
            assert!(!posts(&own, close()), "both are full");
            let mut commands = VecDeque::<Command<()>>::new();
            take_local(&mut commands);
            assert_eq!((commands.len(), own.queued()), (2, 2));
        }
    }

    #[test]
    fn a_turn_within_another_leaves_that_one_what_it_has() {
        let (own, inner) = (mailbox(9, 9), mailbox(9, 9));
        let _turn = LocalTurn::begin(&own);
        assert!(posts(&own, fan_out(b"x")));
        let within = LocalTurn::begin(&inner);
        assert!(!waits_locally(&own) && posts(&inner, close()) && posts(&own, close()));
        // As if it had panicked: what is left ends with it.
        drop(within);
        let mut commands = VecDeque::new();
        assert!(waits_locally(&own) && own.queued() == 1 && take_local(&mut commands));
        assert_eq!(kinds(&commands), "f");
    }
}
