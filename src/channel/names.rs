use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{Channel, Inner};

/// How many names there may be before those of channels that have gone are looked for.
const FEW: usize = 16;

/// Channels by name. Clones are cheap, and all have the same channels.
///
/// A channel exists as long as it has members or there is a [`Channel`] to hold it. Its name is forgotten then: names
/// that peers choose fill no memory.
///
/// ```
/// use framewire::Channels;
///
/// let rooms = Channels::new();
/// let lobby = rooms.get("lobby");
/// assert!(rooms.find("lobby") == Some(lobby.clone()) && rooms.get("lobby") == lobby);
/// drop(lobby);
/// assert_eq!((rooms.find("lobby"), rooms.len()), (None, 0));
/// ```
#[derive(Clone, Default)]
pub struct Channels {
    names: Arc<Mutex<Names>>,
}

#[derive(Default)]
struct Names {
    channels: HashMap<Box<str>, Weak<Inner>>,
    /// The number of names at which they are looked through for channels that have gone.
    purge_at: usize,
}

impl Channels {
    /// Creates an empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the channel of this name, a new one if there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> Channel {
        let mut names = self.lock();
        if let Some(inner) = names.channels.get(name).and_then(Weak::upgrade) {
            return Channel { inner };
        }
        if names.channels.len() >= names.purge_at {
            names.channels.retain(|_, channel| channel.strong_count() > 0);
            names.purge_at = (2 * names.channels.len()).max(FEW);
        }
        let channel = Channel::new();
        names.channels.insert(name.into(), Arc::downgrade(&channel.inner));
        channel
    }

    /// Returns the channel of this name, if there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Channel> {
        self.lock().channels.get(name).and_then(Weak::upgrade).map(|inner| Channel { inner })
    }

    /// Returns the number of channels that have members or are held. Looks through all names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().channels.values().filter(|channel| channel.strong_count() > 0).count()
    }

    /// Returns `true` if there are no channels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").field("channels", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_channels_that_have_gone_fill_no_memory() {
        let channels = Channels::new();
        let kept: Vec<_> = (0..10).map(|number| channels.get(&format!("kept {number}"))).collect();
        for number in 0..10_000 {
            let _ = channels.get(&format!("gone {number}"));
            assert!(channels.lock().channels.len() <= 20);
        }
        assert_eq!(channels.len(), 10);
        assert_eq!(channels.find("kept 3").as_ref(), kept.get(3));
        assert_eq!(channels.find("gone 3"), None);
    }
}
