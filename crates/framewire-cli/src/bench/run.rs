use std::time::{Duration, Instant};

use super::case::{Case, Kind};
use super::child::ServerChild;
use super::contestant::Contestant;
use super::error::BenchError;
use super::interrupt::Interrupt;
use super::load::{Load, LoadError, LoadSpec, PATIENCE, Traffic};
use super::machine::{Busy, Split};
use super::process::Process;
use super::results::{Latency, Mark, Run};
use super::summary;

/// A server that dies takes its connections with it; this long its end may lag behind theirs.
const LAST_BREATH: Duration = Duration::from_millis(200);
/// How often the progress is looked at.
const GLANCE: Duration = Duration::from_millis(50);
/// Idle: connections that warm the server up, so that code and first buffers are not counted.
const WARM_CONNECTIONS: usize = 16;
/// Idle: how long memory may settle before it is read.
const SETTLE: Duration = Duration::from_millis(100);
/// Idle: how long a server may take to see that all have closed, and to give memory back.
const CLOSING: Duration = Duration::from_millis(300);

/// From this share of its cores on, the generator may be what limits.
const GENERATOR_FULL: f64 = 0.95;
/// CPUs that others may use before a run counts as noisy.
const NOISE: f64 = 0.15;
/// Open loop: a generator that sends 1 % of its messages later than this is behind; nanoseconds.
const LATE: u64 = 1_000_000;
/// Open loop: the share of the rate that a server must reach.
const KEPT_UP: f64 = 0.98;

/// How runs are done.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub split: Split,
    /// Cores to watch for other people's load.
    pub watched: Vec<usize>,
    pub duration: Duration,
    pub warm_up: Duration,
    pub port: Option<u16>,
    /// Ends a run before its time.
    pub interrupt: Interrupt,
}

impl Setup {
    fn own_cores(&self) -> &[usize] {
        self.split.load.list().unwrap_or_default()
    }

    /// One contestant, one case, once. `glance` is told messages per second every now and then.
    ///
    /// What it gives after an interrupt was cut short.
    pub(crate) fn run(
        &self,
        case: &Case,
        who: &Contestant,
        mut glance: impl FnMut(f64),
    ) -> Result<Run, BenchError> {
        let launch = who.launch(case.kind, self.port)?;
        let mut server = ServerChild::start(&launch, &self.split.server, self.own_cores())?;
        let result = match case.kind {
            Kind::Idle => self.idle(case, &server),
            _ => self.loaded(case, &server, &mut glance),
        };
        // a crash is told as such, and not as the broken connections that it leaves behind
        match result {
            Ok(run) => server.check_alive().map(|()| run).map_err(BenchError::from),
            Err(error) => {
                server.check_alive_after(LAST_BREATH)?;
                Err(error.into())
            }
        }
    }

    fn spec(&self, case: &Case, server: &ServerChild) -> LoadSpec {
        LoadSpec {
            to: server.addr(),
            active: case.connections,
            silent: case.silent,
            size: case.size,
            traffic: case.traffic(),
        }
    }

    fn loaded(
        &self,
        case: &Case,
        server: &ServerChild,
        glance: &mut impl FnMut(f64),
    ) -> Result<Run, LoadError> {
        let process = Process::new(server.pid());
        let mut load = Load::start(&self.spec(case, server), &self.split.load)?;
        load.ready()?;
        load.warm_up();
        self.watch(&load, self.warm_up, glance);
        // reading the switches takes its time with many threads: outside of the window, with a count of its own
        let switches = (process.context_switches(), load.messages());
        load.measure();
        let before = Moment::now(process, &load, &self.watched);
        self.watch(&load, self.duration, glance);
        let after = Moment::now(process, &load, &self.watched);
        let switches_after = (process.context_switches(), load.messages());
        let memory = process.memory();
        let outcome = load.finish()?;

        let mut run = self.figures(&before, &after);
        let per_message = (switches_after.1 - switches.1).max(1) as f64;
        run.context_switches =
            switches_after.0.zip(switches.0).map(|(a, b)| a.saturating_sub(b) as f64 / per_message);
        run.memory_bytes = memory.map(|bytes| bytes as f64);
        run.latency = Latency::of(&outcome.latency);
        self.mark(&mut run, case, outcome.lag.value_at_quantile(0.99));
        run.curve = summary::curve(&outcome.latency);
        Ok(run)
    }

    /// Waits for `time`, and until at least one message has come: a window without any would say nothing.
    fn watch(&self, load: &Load, time: Duration, glance: &mut impl FnMut(f64)) {
        let (start, first) = (Instant::now(), load.messages());
        loop {
            let (elapsed, messages) = (start.elapsed(), load.messages() - first);
            let is_over = elapsed >= time && (messages > 0 || elapsed >= PATIENCE);
            if is_over || load.has_failed() || self.interrupt.came() {
                return;
            }
            std::thread::sleep(time.saturating_sub(elapsed).clamp(Duration::from_millis(1), GLANCE));
            glance((load.messages() - first) as f64 / start.elapsed().as_secs_f64());
        }
    }

    fn figures(&self, before: &Moment, after: &Moment) -> Run {
        let wall = (after.at - before.at).as_secs_f64().max(1e-9);
        let messages = after.messages - before.messages;
        let spent = |a: Option<u64>, b: Option<u64>| Some((a?.saturating_sub(b?)) as f64);
        let server = spent(after.server_ns, before.server_ns);
        let own = spent(after.own_ns, before.own_ns);
        let all = after.busy.since(&before.busy);
        let cpus = |ns: f64| ns / 1e9 / wall;
        Run {
            messages,
            per_second: Some(messages as f64 / wall),
            cpu_ns: server.filter(|_| messages > 0).map(|ns| ns / messages as f64),
            server_cpus: server.map(cpus),
            generator_busy: own.map(|ns| cpus(ns) / self.split.load.threads() as f64),
            foreign_cpus: all.zip(server).zip(own).map(|((all, a), b)| (all - cpus(a) - cpus(b)).max(0.0)),
            ..Run::default()
        }
    }

    fn mark(&self, run: &mut Run, case: &Case, lag: u64) {
        let server_share = run.server_cpus.unwrap_or_default() / self.split.server.threads() as f64;
        let generator = run.generator_busy.unwrap_or_default();
        let behind = match case.traffic() {
            // the open loop spins between two messages, so that only being late tells
            Traffic::Open { .. } => lag > LATE,
            _ => generator >= GENERATOR_FULL && generator > server_share,
        };
        if behind {
            run.marks.push(Mark::GeneratorBound);
        }
        if run.foreign_cpus.is_some_and(|cpus| cpus > NOISE) {
            run.marks.push(Mark::Noisy);
        }
        if case.rate.zip(run.per_second).is_some_and(|(asked, got)| got < asked * KEPT_UP) {
            run.marks.push(Mark::Overloaded);
        }
    }

    /// Memory before, with all connections answered once, and after all have closed.
    fn idle(&self, case: &Case, server: &ServerChild) -> Result<Run, LoadError> {
        let process = Process::new(server.pid());
        let spec = self.spec(case, server);
        let mut first = Load::start(&LoadSpec { silent: WARM_CONNECTIONS, ..spec }, &self.split.load)?;
        first.ready()?;
        std::thread::sleep(SETTLE);
        let empty = process.memory();

        let start = Instant::now();
        let mut load = Load::start(&spec, &self.split.load)?;
        load.ready()?;
        let opening = start.elapsed().as_secs_f64();
        let connected = load.connected();
        std::thread::sleep(SETTLE);
        let full = process.memory();
        load.warm_up();
        let before = Moment::now(process, &load, &self.watched);
        std::thread::sleep(SETTLE);
        let after = Moment::now(process, &load, &self.watched);
        load.finish()?;
        std::thread::sleep(CLOSING);
        let closed = process.memory();
        drop(first);

        let per_connection =
            |bytes: Option<u64>| Some((bytes? as f64 - empty? as f64).max(0.0) / connected.max(1) as f64);
        let mut run = Run {
            messages: connected,
            per_second: Some(connected as f64 / opening.max(1e-9)),
            cpu_ns: None,
            memory_bytes: full.map(|bytes| bytes as f64),
            bytes_per_connection: per_connection(full),
            bytes_after_close: per_connection(closed),
            ..self.figures(&before, &after)
        };
        run.messages = connected;
        self.mark(&mut run, case, 0);
        Ok(run)
    }
}

/// One end of the window.
struct Moment {
    at: Instant,
    server_ns: Option<u64>,
    own_ns: Option<u64>,
    messages: u64,
    busy: Busy,
}

impl Moment {
    fn now(server: Process, load: &Load, watched: &[usize]) -> Self {
        Self {
            busy: Busy::now(watched),
            at: Instant::now(),
            server_ns: server.cpu_ns(),
            messages: load.messages(),
            own_ns: Process::own().cpu_ns(),
        }
    }
}
