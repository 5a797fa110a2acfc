//! A hub and the reactor's thread that it lives on.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::{Arc, PoisonError, RwLock},
};

use framewire::{PacketHandler, ServerHandle, Session, ShardContext, ShardId};

use crate::{
    Side,
    hub::{Hub, LinkSlot},
    links::{ClientLinks, ServerLinks},
    threads::{Batch, Shared},
};

/// Bytes in the outbox of a link above which more waits in the hub.
pub(crate) const FEED: usize = 64 * 1024;

/// What the threads of one gateway need to reach each other.
pub(crate) struct Threads {
    pub(crate) shared: Arc<Shared>,
    /// By side.
    handles: [ServerHandle; 2],
    /// The shards of each thread, by the hub's number of it and by side.
    shards: RwLock<Vec<[Option<ShardId>; 2]>>,
}

impl Threads {
    pub(crate) fn new(shared: Arc<Shared>, handles: [ServerHandle; 2]) -> Self {
        Self { shared, handles, shards: RwLock::default() }
    }

    fn shard(&self, thread: u16, side: Side) -> Option<ShardId> {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        shards.get(usize::from(thread))?[side.index()]
    }

    fn add_shard(&self, thread: u16, side: Side, shard: ShardId) {
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        if shards.len() <= usize::from(thread) {
            shards.resize(usize::from(thread) + 1, [None, None]);
        }
        if let Some(sides) = shards.get_mut(usize::from(thread)) {
            sides[side.index()] = Some(shard);
        }
    }

    /// Runs a job on the thread's shard of the clients. A thread that has ended has nothing to do any more.
    pub(crate) fn call(
        &self,
        thread: u16,
        job: impl FnOnce(&mut ClientLinks, &mut ShardContext<'_, <ClientLinks as PacketHandler>::State>)
        + Send
        + 'static,
    ) {
        let Some(shard) = self.shard(thread, Side::Client) else { return };
        if let Err(error) = self.handles[Side::Client.index()].execute_with(shard, job) {
            tracing::debug!(%error, thread, "a thread of the gateway cannot be called");
        }
    }

    pub(crate) fn count(&self) -> u16 {
        self.shards.read().unwrap_or_else(PoisonError::into_inner).len() as u16
    }
}

thread_local! {
    /// The hubs of this thread, one for each gateway that runs on it.
    static LOCALS: RefCell<Vec<Weak<Local>>> = const { RefCell::new(Vec::new()) };
}

/// What the two services of a gateway share on one thread.
pub(crate) struct Local {
    pub(crate) threads: Arc<Threads>,
    pub(crate) hub: RefCell<Hub>,
    /// By side: what the hub has for the links of that side will be seen to in this turn.
    is_called: [Cell<bool>; 2],
    batch: RefCell<Batch>,
    slots: RefCell<Vec<LinkSlot>>,
}

impl Local {
    /// Returns what the calling thread has of this gateway.
    pub(crate) fn of(threads: &Arc<Threads>) -> Rc<Self> {
        LOCALS.with_borrow_mut(|locals| {
            locals.retain(|local| local.strong_count() > 0);
            let known =
                locals.iter().filter_map(Weak::upgrade).find(|local| Arc::ptr_eq(&local.threads, threads));
            known.unwrap_or_else(|| {
                let local = Rc::new(Self {
                    threads: threads.clone(),
                    hub: RefCell::new(Hub::new(threads.shared.clone())),
                    is_called: Default::default(),
                    batch: RefCell::default(),
                    slots: RefCell::default(),
                });
                locals.push(Rc::downgrade(&local));
                local
            })
        })
    }

    pub(crate) fn started(&self, side: Side, shard: ShardId) {
        self.threads.add_shard(self.hub.borrow().thread(), side, shard);
    }

    /// Called after the hub was used: sees to it that it is asked for what it has, in the same turn, and that other
    /// threads take their messages.
    pub(crate) fn call(&self) {
        let mut hub = self.hub.borrow_mut();
        for thread in hub.take_calls() {
            self.threads.call(thread, |links, shard| links.take_messages(shard));
        }
        for side in [Side::Client, Side::Server] {
            if hub.has_dirty(side) && !self.is_called[side.index()].replace(true) {
                let Some(shard) = self.threads.shard(hub.thread(), side) else { continue };
                let handle = &self.threads.handles[side.index()];
                let called = match side {
                    Side::Client => {
                        handle.execute_with(shard, |links: &mut ClientLinks, shard| links.serve(shard))
                    }
                    Side::Server => {
                        handle.execute_with(shard, |links: &mut ServerLinks, shard| links.serve(shard))
                    }
                };
                // A mailbox that is full now is tried again with the next event.
                self.is_called[side.index()].set(called.is_ok());
            }
        }
    }

    /// Takes what other threads have told this one.
    pub(crate) fn take_messages(&self) {
        self.hub.borrow_mut().take_messages(&mut self.batch.borrow_mut());
    }

    /// Serves the links of this side for which the hub has something.
    pub(crate) fn serve<S>(&self, side: Side, shard: &mut ShardContext<'_, S>) {
        self.is_called[side.index()].set(false);
        let mut slots = self.slots.take();
        self.hub.borrow_mut().take_dirty(side, &mut slots);
        for slot in slots.drain(..) {
            let session = self.hub.borrow().session(slot);
            if let Some(session) = session {
                shard.with(session, |session, _| self.serve_link(slot, session));
            }
        }
        self.slots.replace(slots);
        self.call();
    }

    fn serve_link(&self, slot: LinkSlot, session: &mut Session<'_>) {
        let ending = self.hub.borrow().ending(slot);
        if let Some(end) = ending {
            return session.close_with(end.as_str());
        }
        if self.hub.borrow().is_held(slot) {
            session.pause();
        } else {
            session.resume();
        }
        self.feed(slot, session);
    }

    /// Sends what waits for a link, as far as its outbox is not full. When that has drained, this is called again.
    pub(crate) fn feed(&self, slot: LinkSlot, session: &mut Session<'_>) {
        let mut hub = self.hub.borrow_mut();
        while let Some(room) = FEED.checked_sub(session.stats().queued) {
            let frames = hub.front(slot, room);
            if frames.is_empty() {
                break;
            }
            let len = frames.len();
            if session.send(frames).is_err() {
                // It is closing: `on_closing` will take the link out of the hub.
                break;
            }
            hub.sent(slot, len);
        }
    }
}
