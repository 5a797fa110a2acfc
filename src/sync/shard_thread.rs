//! What a thread knows of itself: that it runs a shard, and must not wait for one.

use std::{
    cell::{Cell, RefCell},
    mem,
};

use super::ticket::Answer;

thread_local! {
    /// What this thread does. Apart from the answers, because it has no destructor: to look at it is one load, and each
    /// turn looks several times.
    static STATE: Cell<State> = const { Cell::new(State::Elsewhere) };
    /// While this thread runs a turn: what is to be answered at its end.
    static DEFERRED: RefCell<Vec<Answer>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It runs no shard.
    Elsewhere,
    /// It runs a turn, and nothing is to be answered yet.
    OnShard,
    /// It runs a turn, and something is to be answered at its end.
    Owing,
}

/// What a thread has left to answer between two turns of its shards.
///
/// The closures that [`send_then`](crate::SessionHandle::send_then) was given are called at the end of a turn, when no
/// session is being worked on. What becomes due through them is answered in the next turn: a closure that sends again
/// and again does not stop the loop.
#[derive(Default)]
pub(crate) struct DeferredAnswers(Vec<Answer>);

/// Marks this thread as one that runs turns, until it is dropped.
struct ShardThread {
    /// Of the turn within which this one runs, if there is one: a callback may serve another server.
    outer: (State, Vec<Answer>),
}

impl DeferredAnswers {
    /// Runs a turn, or several with [`give_answers`] between them, and then gives the answers that were due before the
    /// end.
    #[inline]
    pub(crate) fn during<R>(&mut self, turns: impl FnOnce() -> R) -> R {
        let _marked = ShardThread::begin(mem::take(&mut self.0));
        let returned = turns();
        if has_answers_left() {
            self.give();
        }
        returned
    }

    #[cold]
    fn give(&mut self) {
        give_due();
        self.0 = take();
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl ShardThread {
    #[inline]
    fn begin(left: Vec<Answer>) -> Self {
        let outer = (STATE.get(), if has_answers_left() { take() } else { Vec::new() });
        STATE.set(State::OnShard);
        if !left.is_empty() {
            owe(left);
        }
        Self { outer }
    }
}

impl Drop for ShardThread {
    #[inline]
    fn drop(&mut self) {
        // Something is left only if the turn panicked.
        let left = has_answers_left().then(take);
        let (state, answers) = mem::replace(&mut self.outer, (State::Elsewhere, Vec::new()));
        STATE.set(state);
        if !answers.is_empty() {
            owe(answers);
        }
        if let Some(left) = left {
            left.into_iter().for_each(Answer::give);
        }
    }
}

impl Drop for DeferredAnswers {
    fn drop(&mut self) {
        mem::take(&mut self.0).into_iter().for_each(Answer::give);
    }
}

/// A turn of this thread is over, and the next one follows: gives the answers that were due.
#[inline]
pub(crate) fn give_answers() {
    if has_answers_left() {
        give_due();
    }
}

/// What becomes due meanwhile is left to the next turn.
#[cold]
fn give_due() {
    take().into_iter().for_each(Answer::give);
}

/// Takes what is to be answered at the end of this turn.
#[cold]
fn take() -> Vec<Answer> {
    STATE.set(State::OnShard);
    DEFERRED.try_with(RefCell::take).unwrap_or_default()
}

/// The turn that runs on this thread is to give these answers at its end.
#[cold]
fn owe(answers: Vec<Answer>) {
    STATE.set(State::Owing);
    // Fails if the thread is about to end, when it runs no turn.
    let _ = DEFERRED.try_with(|deferred| deferred.borrow_mut().extend(answers));
}

/// Returns `true` on a thread that runs a shard, within callbacks and everything else that the shard calls.
#[inline]
pub(crate) fn is_on_a_shard() -> bool {
    STATE.get() != State::Elsewhere
}

/// Returns `true` if something is to be answered at the end of this turn.
#[inline]
pub(crate) fn has_answers_left() -> bool {
    STATE.get() == State::Owing
}

/// Keeps an answer for the end of the turn. Returns it if this thread runs none.
pub(super) fn defer(answer: Answer) -> Option<Answer> {
    if !is_on_a_shard() {
        return Some(answer);
    }
    let mut answer = Some(answer);
    // Fails if the thread is about to end, when it runs no shard.
    let _ = DEFERRED.try_with(|deferred| deferred.borrow_mut().extend(answer.take()));
    if answer.is_none() {
        STATE.set(State::Owing);
    }
    answer
}
