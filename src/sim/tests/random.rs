//! Random clients under random faults, from seeds. A seed that fails says how to run it again.

use std::{
    collections::HashSet,
    panic,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::dials::{addr, to};
use crate::{
    Heartbeat,
    addr::Origin,
    dial::{Dial, Reconnect, Upstream, UpstreamState, WhileDown},
    id::DialId,
    limits::Limits,
    sim::{Answer, Conn, Faults, Heard, Rng, Setup, World, errno, frame},
    testing::layers::StackedPeer,
};

const SEEDS: u64 = 300;
const MOST_CLIENTS: usize = 40;
const MOST_DIALS: usize = 20;
/// Addresses that are dialled, by their ports.
const FAR_ENDS: u64 = 6;
/// The packet of heartbeats.
const BEAT: &[u8] = b"a heartbeat, and no packet of a client";

/// A client of an echo: says frames, in pieces, and knows what it is owed. Perhaps through layers.
struct Client {
    conn: Conn,
    said: usize,
    to_say: Vec<u8>,
    /// The plain frames.
    frames: Vec<u8>,
    /// Where each frame, and what comes before the first, ends: on the wire and in `frames`.
    marks: Vec<(usize, usize)>,
    /// Plain bytes that came back.
    heard: usize,
    /// Plain bytes of a frame that has not come whole.
    unfinished: Vec<u8>,
    peer: Option<StackedPeer>,
    /// It has ended its side.
    ended: bool,
    /// It was reset, by itself or by the server, and is owed nothing more.
    lost: bool,
    /// A fault may reset it where it would end its side.
    fragile: bool,
    /// It has read to the server's end.
    over: bool,
    /// The server has connected to it, and may end that while the client still speaks.
    is_far_end: bool,
}

impl Client {
    fn new(conn: Conn, mut peer: Option<StackedPeer>, packets: &[Vec<u8>], fragile: bool) -> Self {
        let mut to_say =
            peer.as_mut().map(|peer| peer.greet(([192, 0, 2, 7], 4711).into())).unwrap_or_default();
        let (mut frames, mut marks) = (Vec::new(), vec![(to_say.len(), 0)]);
        for packet in packets {
            let frame = frame(packet);
            to_say.extend(peer.as_mut().map_or_else(|| frame.clone(), |peer| peer.encode(&frame)));
            frames.extend(frame);
            marks.push((to_say.len(), frames.len()));
        }
        Self {
            conn,
            said: 0,
            to_say,
            frames,
            marks,
            heard: 0,
            unfinished: Vec::new(),
            peer,
            ended: false,
            lost: false,
            fragile,
            over: false,
            is_far_end: false,
        }
    }

    /// Bytes of whole frames that it has said: what an echo owes.
    fn owed(&self) -> usize {
        let said = self.marks.iter().rev().find(|(wire, _)| *wire <= self.said);
        said.map_or(0, |(_, plain)| *plain)
    }

    /// Layers say goodbye to whom they know, unless the stream was cut in the middle of something.
    fn misses_goodbye(&self) -> bool {
        let at_mark = self.marks.iter().any(|(wire, _)| *wire == self.said);
        at_mark && self.over && self.peer.as_ref().is_some_and(|peer| !peer.was_ended())
    }

    fn say(&mut self, world: &World, most: usize) {
        let piece = self.to_say.len().min(most);
        let taken = world.net().say(self.conn, &self.to_say[..piece]);
        self.to_say.drain(..taken);
        self.said += taken;
    }

    /// Takes the whole frames that came: beats, and an echo of what was said, in order.
    fn take_frames(&mut self) {
        while let Some(frame) = self.unfinished.first_chunk().map(|len| 4 + u32::from_be_bytes(*len) as usize)
        {
            let Some(frame) = self.unfinished.get(..frame) else { break };
            let end = self.heard + frame.len();
            if frame[4..] != *BEAT {
                assert_eq!(self.frames[..self.owed()].get(self.heard..end), Some(frame));
                self.heard = end;
            }
            self.unfinished.drain(..frame.len());
        }
    }

    fn hear(&mut self, world: &World, most: usize) {
        let heard = world.net().hear(self.conn, most);
        match heard {
            Heard::Bytes(bytes) => {
                let bytes = self.peer.as_mut().map_or(bytes.clone(), |peer| peer.decode(&bytes));
                self.unfinished.extend(bytes);
                self.take_frames();
            }
            Heard::Reset => {
                assert!(
                    self.lost || self.fragile,
                    "{:?} was reset and had done nothing wrong: {:?}",
                    self.conn,
                    world.log.closes()
                );
                self.lost = true;
            }
            Heard::End => self.over = true,
            Heard::Nothing => {}
        }
    }
}

struct Run {
    world: World,
    rng: Rng,
    limits: Limits,
    layered: bool,
    clients: Vec<Client>,
    /// Dials of other threads.
    upstreams: Vec<Upstream>,
    dials: Dials,
    /// Attempts to connect that have been looked at.
    looked_at: usize,
}

/// Which dials are to be answered once, and of which there was a session.
#[derive(Clone, Default)]
struct Dials(Arc<Mutex<(Vec<DialId>, HashSet<DialId>)>>);

impl Dials {
    fn lock(&self) -> MutexGuard<'_, (Vec<DialId>, HashSet<DialId>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0xfeed);
        let faults = Faults::swarm(&mut rng);
        let high = rng.between(100, 5_000) as usize;
        let limits = Limits::default()
            .outbox_high(high)
            .outbox_low(high / 2)
            .outbox_hard(200_000)
            .read_budget(rng.between(1, 10_000) as usize)
            .packet_budget(Rng::new(seed ^ 0xb0d6).between(1, 100) as usize)
            .stall_timeout(Duration::from_secs(3_600))
            .close_timeout(Duration::from_secs(3_600))
            .handshake_timeout(Duration::from_secs(3_600))
            .linger_timeout(Duration::from_secs(3_600));
        let mut setup = Setup { seed, limits: limits.clone(), faults, ..Setup::default() };
        match rng.below(10) {
            0..4 => setup.workers = rng.between(1, 3) as usize,
            4..6 => (setup.forks, setup.late_threads) = (MOST_CLIENTS + MOST_DIALS, rng.below(900) as u32),
            _ => {}
        }
        setup.reuse_port = setup.workers > 0 && rng.chance(250);
        setup.first_generation = u32::MAX - rng.below(20) as u32;
        setup.sizes.up = rng.between(1, 3_000) as usize;
        setup.sizes.down = rng.between(1, 3_000) as usize;
        setup.sizes.batch = [1, 2, 3, 1024][rng.below(4) as usize];
        setup.sizes.descriptors = rng.between(6, 30) as usize;
        let layered = rng.chance(500);
        if layered {
            (0..3).for_each(|place| setup.layers.push(move |_| StackedPeer::layer(place)));
        }
        let beat = Rng::new(seed ^ 0xbea7).between(1, 400);
        let beat = (beat <= 200).then(|| Heartbeat::every(Duration::from_millis(beat), BEAT));
        let beat = beat.map(|beat| beat.expect("the period is possible"));
        let dials = Dials::default();
        let world = World::new(setup, |probe| {
            probe.quiet = true;
            let (first, other) = (beat.clone(), beat.clone());
            let (seen, begun) = (dials.clone(), dials.clone());
            probe.open = Box::new(move |session, ()| {
                if let Origin::Dialled(dial) = session.origin() {
                    seen.lock().1.insert(dial);
                }
                session.set_heartbeat(first.clone());
                Ok(())
            });
            probe.packet = Box::new(move |session, packet| {
                match packet.len() % 8 {
                    0 => session.set_heartbeat(None),
                    1 => session.set_heartbeat(other.clone()),
                    2 => session.set_idle_timeout(Duration::from_secs(3_600)),
                    3 => session.set_max_age(Duration::from_secs(3_600)),
                    4 if begun.lock().0.len() < 2 * MOST_DIALS => {
                        let dial = to(&[addr(1), addr(2)]).timeout(Duration::from_millis(90));
                        begun.lock().0.push(session.connect(dial)?);
                    }
                    _ => {}
                }
                Ok(session.send(packet)?)
            });
        });
        let (clients, upstreams) = (Vec::new(), Vec::new());
        let mut run = Self { world, rng, limits, layered, clients, upstreams, dials, looked_at: 0 };
        run.prepare_far_ends();
        run
    }

    fn prepare_far_ends(&mut self) {
        let mut addrs = Vec::new();
        for port in 1..=FAR_ENDS {
            let (answer, after) = (self.rng.below(8), self.rng.below(30));
            let answer = match answer {
                0 => Answer::Silence,
                1 => Answer::Refuse(errno::ECONNREFUSED),
                2 => Answer::Reset,
                _ => Answer::Accept,
            };
            let addr = addr(port as u16);
            self.world.net().answer(&addr, answer, after);
            addrs.push(addr);
        }
        let after = self.rng.below(200);
        self.world.net().name("far.example", Ok(addrs.split_off(3)), after);
    }

    fn dial(&mut self) {
        let first = self.rng.between(1, FAR_ENDS) as u16;
        let addrs: Vec<_> = (first..=FAR_ENDS as u16).map(addr).collect();
        let dial = if self.rng.chance(300) { Dial::to("far.example:7") } else { to(&addrs) };
        let timeout = Duration::from_millis(self.rng.between(1, 150));
        let dial = dial.timeout(timeout);
        if self.rng.chance(500) {
            let upstream = self.world.dial(dial);
            self.dials.lock().0.push(upstream.id());
            return self.upstreams.push(upstream);
        }
        let most = Duration::from_millis(self.rng.between(1, 300));
        let plan = Reconnect::exponential(Duration::from_millis(1), most).stable_after(most);
        let bytes = self.rng.below(1_000) as usize;
        let dial = dial.reconnect(plan).while_down(WhileDown::Keep { bytes });
        self.upstreams.push(self.world.dial(dial));
    }

    /// Another thread sends what no client takes for its own.
    fn send_upstream(&mut self) {
        let at = self.rng.below(self.upstreams.len() as u64) as usize;
        if let Some(upstream) = self.upstreams.get(at) {
            let _ = upstream.send(BEAT);
        }
    }

    /// Who was connected to becomes a client too.
    fn meet_far_ends(&mut self) {
        let attempts = self.world.net().attempts();
        for attempt in attempts.iter().skip(self.looked_at) {
            if self.world.net().is_undecided(attempt.conn) {
                break;
            }
            self.looked_at += 1;
            if self.world.net().was_accepted(attempt) {
                let packets: Vec<Vec<u8>> = (0..self.rng.below(6)).map(|len| vec![9; len as usize]).collect();
                // Where the answer comes as the time for it is over, it is reset.
                let client = Client::new(attempt.conn, None, &packets, true);
                self.clients.push(Client { is_far_end: true, ..client });
            }
        }
    }

    /// Dials of which nothing is known yet.
    fn undecided(&self) -> usize {
        let failed: HashSet<DialId> =
            self.world.log.failed_dials().iter().map(|(_, dial, _)| *dial).collect();
        let (begun, opened) = &*self.dials.lock();
        begun.iter().filter(|dial| !opened.contains(dial) && !failed.contains(dial)).count()
    }

    fn connect(&mut self) {
        let packets = self.rng.between(0, 12);
        let mut packet = || {
            let len = if self.rng.chance(200) { self.rng.below(4_000) } else { self.rng.below(40) };
            self.rng.bytes(len as usize)
        };
        let packets: Vec<Vec<u8>> = (0..packets).map(|_| packet()).collect();
        let conn = self.world.connect();
        let fragile = self.world.net().faults.reset > 0;
        let peer = self.layered.then(StackedPeer::default);
        self.clients.push(Client::new(conn, peer, &packets, fragile));
    }

    fn act(&mut self) {
        if self.upstreams.len() < MOST_DIALS && self.rng.chance(30) {
            return self.dial();
        }
        if self.rng.chance(30) {
            return self.send_upstream();
        }
        if self.clients.len() < MOST_CLIENTS && self.rng.chance(200) {
            return self.connect();
        }
        let at = self.rng.below(self.clients.len() as u64) as usize;
        let most = self.rng.between(1, 2_000) as usize;
        let Some(client) = self.clients.get_mut(at) else { return };
        match self.rng.below(100) {
            0..45 => client.say(&self.world, most),
            45..90 => client.hear(&self.world, most),
            90..96 if !client.ended => {
                self.world.net().end(client.conn);
                client.ended = true;
                client.to_say.clear();
            }
            96 => {
                self.world.net().reset(client.conn);
                (client.lost, client.ended) = (true, true);
            }
            _ => {}
        }
    }

    fn play(&mut self) {
        for _ in 0..400 {
            for _ in 0..self.rng.below(6) {
                self.act();
            }
            // Time does not run ahead of the clients to a deadline of theirs.
            let now = self.world.now();
            self.world.net().horizon = now + self.rng.between(1, 20);
            self.world.step();
            self.world.assert_consistent(&self.limits);
            self.meet_far_ends();
        }
    }

    /// Without further faults, everything owed arrives and nothing is left.
    fn run_to_the_end(&mut self) {
        let resets = self.world.net().faults.reset > 0;
        self.world.net().faults = Faults::none();
        self.world.net().horizon = u64::MAX;
        let lasts = |upstream: &&Upstream| !self.dials.lock().0.contains(&upstream.id());
        self.upstreams.iter().filter(lasts).for_each(Upstream::close);
        for _ in 0..100_000 {
            self.world.run_for(20);
            self.meet_far_ends();
            for client in &mut self.clients {
                client.say(&self.world, usize::MAX);
                client.hear(&self.world, usize::MAX);
                if client.to_say.is_empty() && !client.ended {
                    self.world.net().end(client.conn);
                    client.ended = true;
                }
            }
            if self.clients.iter().all(|client| client.over || client.lost) && self.undecided() == 0 {
                break;
            }
        }
        assert_eq!(self.undecided(), 0, "each dial has led to a session or a failure");
        for client in &self.clients {
            assert!(
                client.over || client.lost,
                "{:?} got no end: said {}, {} left, heard {} of {}, ended {}, closes {:?}",
                client.conn,
                client.said,
                client.to_say.len(),
                client.heard,
                client.owed(),
                client.ended,
                self.world.log.closes()
            );
            let is_even = client.heard == client.owed();
            let all = is_even || client.lost || resets || client.is_far_end;
            assert!(all, "{:?} heard {} of {}", client.conn, client.heard, client.owed());
            assert!(resets || client.lost || !client.misses_goodbye(), "{:?} missed a goodbye", client.conn);
        }
        self.world.run_to_rest();
        self.world.assert_empty();
        let metrics = self.world.metrics();
        assert_eq!(metrics.opened, metrics.closed_total());
        self.assert_upstreams_closed();
        self.stop();
        self.world.run_to_rest();
        self.world.assert_gone();
    }

    fn assert_upstreams_closed(&self) {
        let closed = |upstream: &Upstream| upstream.state() == UpstreamState::Closed;
        assert!(self.upstreams.iter().all(closed), "{:?}", self.upstreams);
    }

    fn stop(&mut self) {
        if self.rng.chance(500) {
            self.world.abort();
        } else {
            self.world.shut_down(Duration::from_millis(self.rng.below(10_000)));
        }
    }

    /// The server stops in the middle of it, under faults: everything ends, and nothing is left.
    fn play_to_the_stop(&mut self) {
        for turn in 0..500 {
            for _ in 0..self.rng.below(6) {
                self.act();
            }
            let now = self.world.now();
            self.world.net().horizon = now + self.rng.between(1, 20);
            if turn == 200 {
                self.stop();
            }
            if turn >= 200 {
                self.clients.iter_mut().for_each(|client| client.fragile = true);
            }
            if !self.world.has_stopped() {
                self.world.step();
                self.meet_far_ends();
            }
        }
        self.world.net().faults = Faults::none();
        let attempts = self.world.net().attempts();
        attempts.iter().for_each(|attempt| self.world.net().leave(attempt.conn));
        for client in &self.clients {
            self.world.net().leave(client.conn);
        }
        self.world.net().horizon = u64::MAX;
        self.world.run_to_rest();
        self.world.assert_gone();
        self.assert_upstreams_closed();
        assert!(self.world.ended.iter().all(Result::is_ok), "{:?}", self.world.ended);
    }
}

fn run(seed: u64) -> u64 {
    let mut run = Run::new(seed);
    run.play();
    run.run_to_the_end();
    run.world.network.lock().trace
}

fn run_to_the_stop(seed: u64) -> u64 {
    let mut run = Run::new(seed);
    run.play_to_the_stop();
    run.world.network.lock().trace
}

/// Runs one seed; if it fails, says how to run it again.
fn attempt(run: fn(u64) -> u64, seed: u64) -> u64 {
    panic::catch_unwind(|| run(seed)).unwrap_or_else(|panic| {
        let text = crate::error::panic_message(panic);
        panic!("seed {seed}: {text}; again: FRAMEWIRE_SIM_SEED={seed} cargo test --lib sim::tests::random")
    })
}

/// The one seed that is asked for, or all.
fn seeds(count: u64) -> Vec<u64> {
    let asked = std::env::var("FRAMEWIRE_SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    asked.map_or_else(|| (0..count).collect(), |seed| vec![seed])
}

#[test]
fn random_clients_under_random_faults_get_what_they_are_owed_and_leave_nothing() {
    for seed in seeds(SEEDS) {
        attempt(run, seed);
    }
}

#[test]
fn a_server_that_stops_at_a_random_time_under_random_faults_leaves_nothing() {
    for seed in seeds(SEEDS) {
        attempt(run_to_the_stop, seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let mut traces: Vec<u64> = (1_000..1_010).map(|seed| attempt(run, seed)).collect();
    assert!(traces.iter().copied().eq((1_000..1_010).map(|seed| attempt(run, seed))));
    traces.dedup();
    assert_eq!(traces.len(), 10, "and another seed another run");
}
