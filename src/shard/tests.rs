use std::{error::Error, fmt, panic::resume_unwind, sync::Arc, time::Instant};

use bytes::BytesMut;

use super::*;
use crate::time::{Clock, Nanos};
use crate::{
    addr::{Addr, Endpoints},
    error::{Handled, SendError},
    events::Reporter,
    framing::{Decoded, EncodeError, FrameError, LengthPrefix},
    id::{DialId, ServerNumber, SessionId},
    limits::Limits,
    session::{CoreConfig, Deliver, Medium, Route, Session, SessionCommand, Undelivered},
    sync::{Admission, Completion, Prospect, Room},
};

/// Panics when it is dropped, without calling the panic hook.
#[derive(Debug, Clone)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        resume_unwind(Box::new("dropped"));
    }
}

/// A framing, and a handler, that panic when dropped.
impl Framing for Bomb {
    fn decode(&mut self, _buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        Ok(None)
    }

    fn encode(&self, _payload: &[u8], _out: &mut BytesMut) -> Result<(), EncodeError> {
        Ok(())
    }
}

impl PacketHandler for Bomb {
    type State = Self;

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled<Self> {
        Ok(Self)
    }

    fn on_packet(&mut self, _session: &mut Session<'_>, _state: &mut Self, _packet: &[u8]) -> Handled {
        Ok(())
    }
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bomb")
    }
}

impl Error for Bomb {}

#[derive(Default)]
struct Nowhere(Room);

impl Deliver for Nowhere {
    fn id_of(&self, key: Key) -> SessionId {
        ServerNumber::next().id(ShardId(0), key)
    }

    fn deliver(&self, _key: Key, _command: SessionCommand, _bytes: usize) -> Result<(), Undelivered> {
        Err(Undelivered { error: SendError::Closed, command: None })
    }

    fn deliver_to_all(
        &self,
        _: &bytes::Bytes,
        _: &Arc<Vec<Key>>,
        _: usize,
        _: Option<Key>,
        _: crate::Overflow,
    ) -> Result<(), SendError> {
        Err(SendError::Closed)
    }

    fn hang_up(&self, _: DialId) {}

    fn deliver_tracked(&self, _: &bytes::Bytes, _: &Arc<Vec<Key>>, _: crate::Overflow, _: Vec<Completion>) {}

    fn is_idle(&self) -> bool {
        true
    }

    fn room(&self) -> &Room {
        &self.0
    }

    fn await_room(&self, _: usize) -> Prospect {
        Prospect::Never
    }

    fn count_panic(&self) {}

    fn outbox_limit(&self) -> usize {
        0
    }
}

impl Route for Nowhere {
    fn route(&self, _to: SessionId, _command: SessionCommand, _bytes: usize) -> Result<(), SendError> {
        Err(SendError::Closed)
    }
}

struct Stopped;

impl Clock for Stopped {
    fn since_origin(&self) -> Nanos {
        0
    }
}

fn shard<T>() -> (Shard<Bomb, Bomb, T>, Arc<SharedCounters>) {
    let published = Arc::<SharedCounters>::default();
    let core = ShardCore::new(CoreConfig {
        server: ServerNumber::next(),
        shard: ShardId(0),
        medium: Medium::Streams,
        limits: &Limits::default(),
        clock: Box::new(Stopped),
        origin: Instant::now(),
        reporter: Reporter::new(ShardId(0), Arc::default()),
        mailbox: Arc::<Nowhere>::default(),
        shards: Arc::<Nowhere>::default(),
        neighbours: Arc::new([]),
    });
    let config = ShardConfig {
        framings: Framings::new(Contained::new(Bomb), OtherFramings::default()),
        layers: LayerFactories::default(),
        core,
        published: published.clone(),
        first_generation: 0,
        is_standing: true,
    };
    (Shard::new(Bomb, config), published)
}

fn incoming<T>(admission: &Admission, io: T) -> Incoming<T> {
    let permit = admission.admit(Some(ShardId(0)), &Addr::Unix(None)).expect("there is room");
    Incoming { io, endpoints: Endpoints::new(Addr::Unix(None), Addr::Unix(None), 0), permit }
}

fn admission() -> Arc<Admission> {
    Arc::new(Admission::new(1, 100, None))
}

fn panics(published: &SharedCounters) -> u64 {
    let mut metrics = crate::Metrics::default();
    published.add_to(&mut metrics);
    metrics.panics
}

#[test]
fn a_framing_of_a_refused_connection_that_panics_when_dropped_harms_nobody() {
    let (mut shard, published) = shard();
    let key = shard.insert(incoming(&admission(), ())).expect("it is cloned");
    shard.with_session(key, |access| access.refuse(std::io::ErrorKind::OutOfMemory.into()));
    assert!(shard.poll_ended().is_some(), "its socket is given back all the same");
    let counters = shard.counters();
    assert_eq!((counters.panics, counters.refused_total(), counters.opened), (1, 1, 0));
    shard.end();
    assert_eq!(panics(&published), 3, "the handler, and the framing that others are cloned from");
}

/// A socket that looks at the counts when it is closed.
struct Watcher(Arc<Admission>);

impl Drop for Watcher {
    fn drop(&mut self) {
        assert_eq!(
            self.0.total(),
            1,
            "a session leaves the counts when its socket is closed, and not before"
        );
    }
}

#[test]
fn a_connection_leaves_the_counts_after_its_socket_is_closed_wherever_it_got_to() {
    let admission = admission();
    let watched = || incoming(&admission, Watcher(admission.clone()));
    drop(watched());
    assert_eq!(admission.total(), 0, "it was dropped on its way");

    let (mut shard, _) = shard();
    let key = shard.insert(watched()).expect("it is cloned");
    shard.terminate(key, CloseReason::Local, Ending::Close);
    drop(shard.poll_ended());
    assert_eq!(admission.total(), 0, "it has ended");

    shard.insert(watched()).expect("it is cloned");
    drop(shard);
    assert_eq!(admission.total(), 0, "its shard was dropped with it");
}

#[test]
fn a_shard_that_stops_takes_nobody_in() {
    let (mut shard, _) = shard();
    shard.cut();
    let admission = admission();
    assert_eq!(shard.insert(incoming(&admission, ())), None);
    assert_eq!((shard.counters().refused_total(), admission.total()), (1, 1));
    drop(shard.poll_ended());
    assert_eq!(admission.total(), 0);
}

#[test]
fn a_slot_is_a_session_its_framing_and_a_word_for_its_socket_and_state() {
    /// The descriptor of a socket.
    type Stream = u32;
    type Slot = super::Slot<LengthPrefix, (), Stream>;
    let without = size_of::<Connection>() + size_of::<Contained<FramingCell<LengthPrefix>>>();
    assert!(size_of::<Option<Slot>>() <= without + 8, "{} bytes", size_of::<Option<Slot>>());
    assert!(without + 8 <= 136, "{without} bytes");
    assert_eq!(size_of::<TimerPurpose>(), 4);
}

#[test]
fn a_shard_of_which_everything_panics_when_dropped_can_be_dropped_in_the_middle_of_its_work() {
    let (mut shard, _) = shard();
    let admission = admission();
    for _ in 0..3 {
        let key = shard.insert(incoming(&admission, ())).expect("it is cloned");
        shard.with_session(key, |access| {
            access.open();
            access.fail(CloseReason::failed(Bomb.into()));
        });
    }
    assert_eq!(shard.len(), 3);
    drop(shard);
}
