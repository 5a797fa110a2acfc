use std::{
    io::{self, ErrorKind},
    net::ToSocketAddrs,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use super::{Platform, ShardRegistry, platform::StreamOf};
use crate::{
    addr::{Addr, Name},
    reactor::Resolve,
    shard::Command,
    sync::Mailbox,
};

/// Names that may wait to be looked up. Dials of one shard that want the same name wait for it together.
const MOST_NAMES: usize = 1024;
/// Addresses that are taken of one name.
const MOST_ADDRS: usize = 64;

/// What becomes of a name: its addresses, or why there are none.
pub(crate) type Found = Result<Vec<Addr>, Arc<io::Error>>;

/// A name to be looked up.
pub(crate) struct LookUp {
    pub(crate) name: Name,
    pub(crate) answer: Box<dyn FnOnce(Name, Found) + Send>,
}

/// The thread of a service that looks names up: the system does so by blocking. It is started with the first name, and
/// ends with the last shard or, if it is looking a name up just then, as soon as the system is done with that.
#[derive(Default)]
pub(crate) struct Resolver {
    state: Mutex<State>,
}

#[derive(Default)]
enum State {
    /// No name was asked for yet.
    #[default]
    Idle,
    Running(SyncSender<LookUp>),
    Closed,
}

impl Resolver {
    /// # Errors
    /// If there is no thread (any more), or too many names wait.
    pub(super) fn look_up(&self, asked: LookUp) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Idle = &*state {
            let (sender, names) = sync_channel(MOST_NAMES);
            thread::Builder::new().name("framewire-names".to_owned()).spawn(move || answer_all(&names))?;
            *state = State::Running(sender);
        }
        let State::Running(sender) = &*state else { return Err(ErrorKind::NotConnected.into()) };
        sender.try_send(asked).map_err(|refused| match refused {
            TrySendError::Full(_) => io::Error::other(format!("{MOST_NAMES} other names wait for it")),
            TrySendError::Disconnected(_) => ErrorKind::NotConnected.into(),
        })
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Closed;
    }
}

fn answer_all(names: &Receiver<LookUp>) {
    while let Ok(LookUp { name, answer }) = names.recv() {
        let addrs = (name.host.as_str(), name.port).to_socket_addrs();
        let addrs = addrs.map(|addrs| addrs.take(MOST_ADDRS).map(Addr::Ip).collect());
        answer(name, addrs.map_err(Arc::new));
    }
}

/// The resolver of a service, for the connector of one of its shards.
pub(super) struct ShardNames<P: Platform> {
    pub(super) registry: Arc<ShardRegistry<P>>,
    pub(super) mailbox: Arc<Mailbox<Command<StreamOf<P>>>>,
}

impl<P: Platform> Resolve for ShardNames<P> {
    fn look_up(&self, name: &Name) -> io::Result<()> {
        let mailbox = self.mailbox.clone();
        let answer = Box::new(move |name, found| {
            // A shard that has ended waits for nothing.
            let _ = mailbox.post_control(Command::Found(name, found));
        });
        self.registry.platform.look_up(&self.registry.resolver, LookUp { name: name.clone(), answer })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, time::Duration};

    use super::*;

    fn ask(resolver: &Resolver, host: &str) -> Option<Found> {
        let (sender, answers) = channel();
        let answer = Box::new(move |_, found| drop(sender.send(found)));
        resolver.look_up(LookUp { name: Name { host: host.to_owned(), port: 7 }, answer }).ok()?;
        answers.recv_timeout(Duration::from_secs(60)).ok()
    }

    #[test]
    fn a_name_has_its_addresses_and_none_is_looked_up_after_the_end() {
        let resolver = Resolver::default();
        let found = ask(&resolver, "localhost").and_then(Result::ok).unwrap_or_default();
        assert!(found.iter().any(|addr| addr.ip().is_some_and(|ip| ip.is_loopback())), "{found:?}");
        resolver.close();
        assert!(ask(&resolver, "localhost").is_none());
    }
}
