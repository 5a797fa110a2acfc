//! A thread with a service of carriers and one of their streams, which a client opens over a connection.
//!
//! ```text
//! frame: length u32 | stream u8 | o: open, d: data, c: close | payload
//! ```

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, BytesMut};

use super::{Conn, Heard, Log, Network, Probe, SimPlatform, Sizes, frame, platform::Probes};
use crate::{
    contained::Contained,
    error::{Failure, Handled, ServeError, StreamError},
    events::Publisher,
    framing::{EncodeError, LengthPrefix},
    layer::LayerFactories,
    limits::Limits,
    metrics::Metrics,
    reactor::SocketOptions,
    runtime::{
        Carrying, RunningThread, ServiceParts, ShardNumbers, ShardRegistry, StartService, StreamParts,
        start_workers,
    },
    session::{CarriedService, Mux, NewStream, Session, Streams},
    shard::{Framings, OtherFramings},
    strategy::{ForkingStrategy, SingleReactor},
    sync::Admission,
    time::Tick,
};

struct Letters;

impl Mux for Letters {
    fn packet(&self, stream: u64, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        assert_ne!(payload, b"panic", "as asked");
        if payload == b"unfit" {
            return Err(EncodeError::too_long(1, 0));
        }
        out.put_slice(&[stream as u8, b'd']);
        out.put_slice(payload);
        Ok(())
    }

    fn close(&self, stream: u64, out: &mut BytesMut) {
        assert_ne!(stream, 250, "as asked");
        out.put_slice(&[stream as u8, b'c']);
    }
}

/// What a client says, or hears, of one stream.
pub(crate) fn data(stream: u8, payload: &[u8]) -> Vec<u8> {
    frame(&[&[stream, b'd'], payload].concat())
}

pub(crate) fn open(stream: u8) -> Vec<u8> {
    frame(&[stream, b'o'])
}

pub(crate) fn close(stream: u8) -> Vec<u8> {
    frame(&[stream, b'c'])
}

/// How the streams are served.
#[derive(Clone)]
pub(crate) struct CarryingSetup {
    pub(crate) seed: u64,
    pub(crate) carriers: Limits,
    pub(crate) streams: Limits,
    pub(crate) inbox: usize,
    pub(crate) most: usize,
    pub(crate) sizes: Sizes,
    /// The carriers' service is the second of the thread.
    pub(crate) carriers_last: bool,
}

impl Default for CarryingSetup {
    fn default() -> Self {
        Self {
            seed: 1,
            carriers: Limits::default(),
            streams: Limits::default(),
            inbox: 1024 * 1024,
            most: 1_000,
            sizes: Sizes::default(),
            carriers_last: false,
        }
    }
}

pub(crate) struct CarryingWorld {
    pub(crate) network: Network,
    /// Of the carriers.
    pub(crate) carriers: Log,
    /// Of the streams.
    pub(crate) log: Log,
    /// The services' own: of the carriers, and of the streams.
    pub(crate) registries: [Arc<ShardRegistry<SimPlatform>>; 2],
    listener: usize,
    thread: RunningThread<SimPlatform>,
    pub(crate) ended: Option<Result<(), ServeError>>,
}

impl CarryingWorld {
    /// Streams are echoes, unless `change` makes something else of them.
    pub(crate) fn new(setup: &CarryingSetup, change: impl FnOnce(&mut Probe)) -> Self {
        Self::with_carriers(setup, |_| (), change)
    }

    pub(crate) fn with_carriers(
        setup: &CarryingSetup,
        carriers: impl FnOnce(&mut Probe),
        change: impl FnOnce(&mut Probe),
    ) -> Self {
        let network = Network::new(setup.seed, setup.sizes);
        network.lock().waits = true;
        let platform = SimPlatform::new(&network);
        let mut numbers = ShardNumbers::of_services(2, 1);
        if setup.carriers_last {
            numbers.reverse();
        }
        let [of_carriers, of_streams] = numbers.try_into().expect("two services");
        let registry = |numbers, limits: &Limits, most| {
            let (layers, options) = (LayerFactories::default(), SocketOptions::default());
            let admission = Admission::new(1, most, None);
            let (platform, publisher) = (platform.clone(), Publisher::default());
            ShardRegistry::new(platform, admission, limits.clone(), layers, options, numbers, publisher)
        };
        let registries =
            [registry(of_carriers, &setup.carriers, 100), registry(of_streams, &setup.streams, setup.most)];
        let strategy = || {
            let strategy: Box<dyn ForkingStrategy> = Box::new(SingleReactor::new());
            Contained::new(strategy)
        };
        let logs = [Log::new(network.clone()), Log::new(network.clone())];
        let factory = |probe| Contained::new(Probes::new([probe], None));

        let service = Arc::new(CarriedService::default());
        let carrying = Carrying { mux: Arc::new(Letters), service: service.clone(), inbox: setup.inbox };
        let mut stream = Probe::new(logs[1].clone());
        change(&mut stream);
        let carried =
            StreamParts::<_, Probe, _>::new(registries[1].clone(), factory(stream), strategy(), carrying, 1);
        let mut carrier = Probe::new(logs[0].clone());
        (carrier.quiet, carrier.packet) = (true, Box::new(carrier_of(Streams::new(service))));
        carriers(&mut carrier);
        let mut framings = Framings::new(Contained::new(LengthPrefix::u32_be()), OtherFramings::default());
        framings.offer_max(setup.carriers.frame);
        let listener = network.listen();
        let number = listener.0.number;
        let carriers = ServiceParts::<_, Probe, _, _>::new(
            platform.clone(),
            registries[0].clone(),
            framings,
            factory(carrier),
            strategy(),
            Vec::new(),
            (vec![listener], Vec::new()),
        );
        let mut services: Vec<Box<dyn StartService<SimPlatform>>> =
            vec![Box::new(carriers), Box::new(carried)];
        if setup.carriers_last {
            services.reverse();
        }
        ShardRegistry::join(&registries);
        let thread = start_workers(&platform, 0, &mut services, |()| ()).expect("it starts");
        let thread = thread.begin().expect("it begins");
        let [carriers, log] = logs;
        Self { network, carriers, log, registries, listener: number, thread, ended: None }
    }

    pub(crate) fn connect(&self) -> Conn {
        self.network.lock().connect(self.listener)
    }

    /// Says whole frames.
    pub(crate) fn say(&self, conn: Conn, frames: &[Vec<u8>]) {
        let bytes = frames.concat();
        assert_eq!(self.network.lock().say(conn, &bytes), bytes.len(), "there is room on the way");
    }

    pub(crate) fn hear(&self, conn: Conn) -> Vec<u8> {
        self.network.lock().hear_all(conn)
    }

    pub(crate) fn hears(&self, conn: Conn) -> Heard {
        self.network.lock().hear(conn, usize::MAX)
    }

    pub(crate) fn now(&self) -> Tick {
        self.network.lock().now
    }

    pub(crate) fn turn(&mut self) {
        self.ended = self.thread.turn();
    }

    pub(crate) fn run_for(&mut self, time: Tick) {
        let until = self.now() + time;
        self.network.lock().horizon = until;
        for _ in 0..1_000_000 {
            if self.ended.is_some() || self.now() >= until {
                self.network.lock().horizon = Tick::MAX;
                return;
            }
            self.turn();
        }
        panic!("turn after turn, and no time passes");
    }

    /// Of the carriers, and of the streams.
    pub(crate) fn metrics(&self) -> [Metrics; 2] {
        self.registries.each_ref().map(|registry| registry.metrics(Duration::ZERO))
    }

    /// Nothing is left of any stream.
    pub(crate) fn assert_no_streams(&self) {
        let [_, metrics] = self.metrics();
        let left = (metrics.sessions, metrics.buffered, self.registries[1].admission.total());
        assert_eq!(left, (0, 0, 0), "streams, bytes buffered, places");
        self.log.assert_balanced(true);
    }
}

/// Reads the frames of a client.
fn carrier_of(streams: Streams) -> impl FnMut(&mut Session<'_>, &[u8]) -> Handled + Send {
    move |carrier, packet| match packet {
        [stream, b'o'] => match streams.open(carrier, NewStream::new((*stream).into()).peer(7).tag(9)) {
            Ok(()) => Ok(()),
            Err(StreamError::Stopped) => Ok(carrier.send([*stream, b'x'])?),
            Err(error) => Err(error.into()),
        },
        [stream, b'd', payload @ ..] => Ok(streams.deliver(carrier, (*stream).into(), payload)?),
        [stream, b'c'] => Ok(streams.end(carrier, (*stream).into())?),
        _ => Err(Failure::because("no such packet")),
    }
}
