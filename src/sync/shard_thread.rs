//! What a thread knows of itself: that it runs a shard, and must not wait for one.

use std::{cell::RefCell, mem};

use super::ticket::Answer;

thread_local! {
    /// While this thread runs a turn: what is to be answered at its end.
    static DEFERRED: RefCell<Option<Vec<Answer>>> = const { RefCell::new(None) };
}

/// What a thread has left to answer between two turns of its shards.
///
/// The closures that [`send_then`](crate::SessionHandle::send_then) was given are called at the end of a turn, when no
/// session is being worked on. What becomes due through them is answered in the next turn: a closure that sends again
/// and again does not stop the loop.
#[derive(Default)]
pub(crate) struct DeferredAnswers(Vec<Answer>);

/// Marks this thread as one that runs a turn, until it is dropped.
struct Turn {
    /// A callback may serve another server, and so run a turn within a turn.
    outer: Option<Vec<Answer>>,
}

impl DeferredAnswers {
    /// Runs a turn, and then gives the answers that were due before its end.
    pub(crate) fn during<R>(&mut self, turn: impl FnOnce() -> R) -> R {
        let _marked = Turn { outer: DEFERRED.replace(Some(mem::take(&mut self.0))) };
        let returned = turn();
        take().into_iter().for_each(Answer::give);
        self.0 = take();
        returned
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Something is left only if the turn panicked.
        let left = DEFERRED.replace(self.outer.take());
        left.into_iter().flatten().for_each(Answer::give);
    }
}

impl Drop for DeferredAnswers {
    fn drop(&mut self) {
        mem::take(&mut self.0).into_iter().for_each(Answer::give);
    }
}

fn take() -> Vec<Answer> {
    DEFERRED.with_borrow_mut(|deferred| deferred.as_mut().map(mem::take)).unwrap_or_default()
}

/// Returns `true` on a thread that runs a shard, within callbacks and everything else that the shard calls.
pub(crate) fn is_on_a_shard() -> bool {
    DEFERRED.try_with(|deferred| deferred.borrow().is_some()).unwrap_or(false)
}

/// Returns `true` if something was left for this turn.
pub(crate) fn has_answers_left() -> bool {
    DEFERRED.with_borrow(|deferred| deferred.as_ref().is_some_and(|deferred| !deferred.is_empty()))
}

/// Keeps an answer for the end of the turn. Returns it if this thread runs none.
pub(super) fn defer(answer: Answer) -> Option<Answer> {
    let mut answer = Some(answer);
    // Fails if the thread is about to end, when it runs no shard.
    let _ = DEFERRED.try_with(|deferred| {
        if let Some(deferred) = deferred.borrow_mut().as_mut() {
            deferred.extend(answer.take());
        }
    });
    answer
}
