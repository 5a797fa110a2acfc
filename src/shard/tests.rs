use std::{error::Error, fmt, panic::resume_unwind, sync::Arc, time::Duration};

use bytes::BytesMut;

use super::*;
use crate::{
    Addr,
    error::SendError,
    framing::{Decoded, FrameError},
    session::{Session, SessionCommand},
};

/// Panics when it is dropped, without a word from the panic hook.
#[derive(Debug, Clone)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        resume_unwind(Box::new("dropped"));
    }
}

/// A framing, and a handler, that go off.
impl Framing for Bomb {
    fn decode(&mut self, _buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        Ok(None)
    }

    fn encode(&self, _payload: &[u8], _out: &mut BytesMut) -> Result<(), FrameError> {
        Ok(())
    }
}

impl PacketHandler for Bomb {
    type State = Self;

    fn on_open(&mut self, _session: &mut Session<'_>) -> Result<Self, CloseReason> {
        Ok(Self)
    }

    fn on_packet(
        &mut self,
        _session: &mut Session<'_>,
        _state: &mut Self,
        _packet: &[u8],
    ) -> Result<(), CloseReason> {
        Ok(())
    }
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bomb")
    }
}

impl Error for Bomb {}

struct Nowhere;

impl Deliver for Nowhere {
    fn deliver(&self, _key: Key, _command: SessionCommand, _bytes: usize) -> Result<(), SendError> {
        Err(SendError::Closed)
    }
}

struct Stopped;

impl Clock for Stopped {
    fn since_origin(&self) -> Duration {
        Duration::ZERO
    }
}

fn shard() -> (Shard<Bomb, Bomb, ()>, Arc<SharedCounters>) {
    let published = Arc::<SharedCounters>::default();
    let config = ShardConfig {
        id: ShardId(0),
        framing: Contained::new(Bomb),
        limits: Limits::default(),
        clock: Box::new(Stopped),
        origin: Instant::now(),
        mailbox: Arc::new(Nowhere),
        published: published.clone(),
        first_generation: 0,
    };
    (Shard::new(Bomb, config), published)
}

fn endpoints() -> Endpoints {
    Endpoints::new(Addr::Unix(None), Addr::Unix(None))
}

fn panics(published: &SharedCounters) -> u64 {
    let mut metrics = crate::Metrics::default();
    published.add_to(&mut metrics);
    metrics.panics
}

#[test]
fn a_framing_of_a_refused_connection_that_panics_when_dropped_harms_nobody() {
    let (mut shard, published) = shard();
    let key = shard.insert((), endpoints()).map_err(drop).expect("it is cloned");
    assert!(shard.take_back(key).is_some(), "its socket is given back all the same");
    assert_eq!(shard.counters().panics, 1);
    shard.end();
    assert_eq!(panics(&published), 3, "the handler, and the framing that others are cloned from");
}

#[test]
fn a_shard_of_which_everything_panics_when_dropped_can_be_dropped_in_the_middle_of_its_work() {
    let (mut shard, _) = shard();
    for _ in 0..3 {
        let key = shard.insert((), endpoints()).map_err(drop).expect("it is cloned");
        shard.with_session(key, |access| {
            access.open();
            access.fail(CloseReason::handler(Bomb));
        });
    }
    assert_eq!(shard.len(), 3);
    drop(shard);
}
