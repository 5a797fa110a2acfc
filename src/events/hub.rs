use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use super::{Event, ring::Ring};

/// Where the shards of a server report to, and its subscribers are known.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    is_watched: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rings: Vec<Arc<Ring>>,
    has_ended: bool,
}

impl Hub {
    /// Returns `true` if there are subscribers. All that is paid where there are none.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched.load(Relaxed)
    }

    /// Tells the subscribers, if there are any.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if self.is_watched() {
            self.send(&event());
        }
    }

    #[cold]
    fn send(&self, event: &Event) {
        let rings = self.lock().rings.clone();
        for ring in rings {
            ring.push(event.clone());
        }
    }

    pub(super) fn add(&self, ring: &Arc<Ring>) {
        let mut state = self.lock();
        if state.has_ended {
            return;
        }
        ring.add_hub();
        state.rings.push(ring.clone());
        self.is_watched.store(true, Relaxed);
    }

    pub(super) fn remove(&self, ring: &Arc<Ring>) {
        let mut state = self.lock();
        state.rings.retain(|known| !Arc::ptr_eq(known, ring));
        self.is_watched.store(!state.rings.is_empty(), Relaxed);
    }

    /// No event will come any more.
    pub(crate) fn end(&self) {
        let rings = {
            let mut state = self.lock();
            state.has_ended = true;
            std::mem::take(&mut state.rings)
        };
        self.is_watched.store(false, Relaxed);
        rings.iter().for_each(|ring| ring.hub_ended());
    }

    /// No list is changed half, so a lock that a panic poisoned is as good as before.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to report to a hub, which ends when this is dropped: a server has it until its last thread ends, or until it
/// turns out that it never starts.
#[derive(Debug, Default)]
pub(crate) struct Publisher(Arc<Hub>);

impl Publisher {
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.0
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.0.end();
    }
}
