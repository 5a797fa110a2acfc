use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use super::{
    Berth, Crew, Dispatch, Seed, Stream, Unforked,
    berth::{First, take},
};
use crate::{
    contained::Contained,
    error::panic_message,
    framing::Framing,
    handler::PacketHandler,
    id::ShardId,
    shard::{Arrival, Command},
};

/// Carries connections between the threads of a server.
pub(crate) struct Carrier<H, F> {
    crew: Arc<Crew>,
    framing: Contained<F>,
    seed: Contained<Box<dyn Seed<H>>>,
}

impl<H, F> Carrier<H, F> {
    pub(crate) fn new(crew: Arc<Crew>, framing: Contained<F>, seed: Box<dyn Seed<H>>) -> Self {
        Self { crew, framing, seed: Contained::new(seed) }
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

    fn fork(&mut self, arrival: Arrival<Stream>) -> Result<(), Unforked<Stream>> {
        let first: First = Arc::new(Mutex::new(Some(arrival)));
        // Handler and framing are cloned here, which is the user's code.
        let forked = catch_unwind(AssertUnwindSafe(|| {
            Berth::forked(&self.crew, self.framing.clone(), &mut **self.seed, first.clone())
        }));
        match forked {
            Ok(Ok(berth)) => {
                berth.spawn().map(drop).map_err(|error| Unforked { error, arrival: take(&first) })
            }
            Ok(Err(error)) => Err(Unforked { error, arrival: take(&first) }),
            Err(panic) => Err(Unforked { error: io::Error::other(panic_message(panic)), arrival: None }),
        }
    }
}
