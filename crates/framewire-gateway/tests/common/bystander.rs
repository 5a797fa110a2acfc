//! A client and a server that have nothing to do with what others suffer.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use super::{KEY, Peer, message, running::server, wait_until};

/// The ID of its server.
const ID: u32 = 1_000_000;
/// Echoes that show that it goes on.
const MORE: u64 = 50;

/// Sends messages back and forth until it is stopped; checks each.
pub(crate) struct Bystander {
    rounds: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Bystander {
    pub(crate) fn start([clients, servers, page]: [SocketAddr; 3]) -> Self {
        let mut server = server(servers, page, KEY, ID);
        let mut client = Peer::connect(clients);
        let conn = client.dial(ID, &mut server);
        let (rounds, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (rounds.clone(), is_over.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Relaxed) {
                let round = counted.load(Relaxed);
                let frame = message(conn, &round.to_le_bytes());
                client.write(&frame);
                server.expect(&frame);
                server.write(&frame);
                client.expect(&frame);
                counted.store(round + 1, Relaxed);
            }
        });
        Self { rounds, is_over, thread }
    }

    /// Waits until more of its messages have come back.
    pub(crate) fn goes_on(&self) {
        let before = self.rounds.load(Relaxed);
        wait_until(|| self.rounds.load(Relaxed) >= before + MORE || self.thread.is_finished());
        assert!(!self.thread.is_finished(), "it was cut off");
    }

    pub(crate) fn stop(self) {
        self.goes_on();
        self.is_over.store(true, Relaxed);
        self.thread.join().expect("every message has come back");
    }
}
