use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{Berth, Crew, Dispatch, Seed, Stream};
use crate::{
    error::panic_message,
    framing::Framing,
    handler::PacketHandler,
    id::ShardId,
    shard::{Arrival, Command},
};

/// Carries connections between the threads of a server.
pub(crate) struct Carrier<H, F> {
    crew: Arc<Crew>,
    framing: F,
    seed: Box<dyn Seed<H>>,
}

impl<H, F> Carrier<H, F> {
    pub(crate) fn new(crew: Arc<Crew>, framing: F, seed: Box<dyn Seed<H>>) -> Self {
        Self { crew, framing, seed }
    }
}

impl<H, F> Dispatch<Stream> for Carrier<H, F>
where
    H: PacketHandler + 'static,
    F: Framing + Clone + Send + 'static,
{
    fn send(&mut self, shard: usize, arrival: Arrival<Stream>) -> io::Result<()> {
        let member = self.crew.member(ShardId(shard as u32)).ok_or(io::ErrorKind::NotConnected)?;
        let posted = member.mailbox.post_control(Command::Adopt(arrival));
        posted.map_err(|_| io::ErrorKind::NotConnected.into())
    }

    fn fork(&mut self, arrival: Arrival<Stream>) -> io::Result<()> {
        // Handler and framing are cloned here, which is the user's code.
        let forked = catch_unwind(AssertUnwindSafe(|| {
            Berth::forked(&self.crew, self.framing.clone(), &mut *self.seed, arrival)?.spawn().map(drop)
        }));
        forked.unwrap_or_else(|panic| Err(io::Error::other(panic_message(panic))))
    }
}
