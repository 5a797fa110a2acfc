//! Random pairs of linked sessions under random faults, from seeds.

use std::{
    collections::HashMap,
    panic,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    id::SessionId,
    limits::Limits,
    sim::{Conn, Faults, Heard, Rng, Setup, World, frame},
    testing::layers::StackedPeer,
};

const SEEDS: u64 = 200;

/// A client: says frames for its partner, behind one that asks for it.
struct Client {
    conn: Conn,
    peer: Option<StackedPeer>,
    to_say: Vec<u8>,
    /// What its partner is to hear.
    frames: Vec<u8>,
    heard: Vec<u8>,
    has_ended: bool,
    is_over: bool,
    is_lost: bool,
}

impl Client {
    fn new(world: &World, rng: &mut Rng, pair: usize, layered: bool) -> Self {
        let mut peer = layered.then(StackedPeer::default);
        let mut to_say =
            peer.as_mut().map(|peer| peer.greet(([192, 0, 2, 7], 4711).into())).unwrap_or_default();
        let mut frames = Vec::new();
        for _ in 0..rng.below(20) {
            let len = if rng.chance(200) { rng.below(4_000) } else { rng.below(40) };
            frames.extend(frame(&rng.bytes(len as usize)));
        }
        let all = [frame(format!("pair {pair}").as_bytes()), frames.clone()].concat();
        to_say.extend(peer.as_mut().map_or_else(|| all.clone(), |peer| peer.encode(&all)));
        to_say.extend(peer.as_mut().map(StackedPeer::end).unwrap_or_default());
        let conn = world.connect();
        Self {
            conn,
            peer,
            to_say,
            frames,
            heard: Vec::new(),
            has_ended: false,
            is_over: false,
            is_lost: false,
        }
    }

    fn act(&mut self, world: &World, rng: &mut Rng) {
        let most = self.to_say.len().min(rng.between(1, 3_000) as usize);
        let taken = world.net().say(self.conn, &self.to_say[..most]);
        self.to_say.drain(..taken);
        if self.to_say.is_empty() && !self.has_ended && rng.chance(300) {
            self.has_ended = true;
            world.net().end(self.conn);
        }
        if rng.chance(500) {
            match world.net().hear(self.conn, rng.between(1, 5_000) as usize) {
                Heard::Bytes(bytes) => {
                    let plain = self.peer.as_mut().map_or(bytes.clone(), |peer| peer.decode(&bytes));
                    self.heard.extend(plain);
                }
                Heard::End => self.is_over = true,
                Heard::Reset => self.is_lost = true,
                Heard::Nothing => {}
            }
        }
    }
}

/// Small buffers, and no timeout.
fn limits(rng: &mut Rng) -> Limits {
    let (high, hour) = (rng.between(100, 5_000) as usize, Duration::from_secs(3_600));
    Limits::default()
        .outbox_high(high)
        .outbox_low(high / 2)
        .read_budget(rng.between(1, 10_000) as usize)
        .stall_timeout(hour)
        .close_timeout(hour)
        .handshake_timeout(hour)
        .linger_timeout(hour)
}

/// Runs pairs of clients whose sessions are linked as soon as both are there.
fn run(seed: u64) {
    let mut rng = Rng::new(seed ^ 0x1111);
    let faults = Faults::swarm(&mut rng);
    let limits = limits(&mut rng);
    let mut setup = Setup { seed, limits, faults, ..Setup::default() };
    setup.sizes.up = rng.between(1, 3_000) as usize;
    setup.sizes.down = rng.between(1, 3_000) as usize;
    setup.sizes.batch = [1, 2, 3, 1024][rng.below(4) as usize];
    let layered = rng.chance(300);
    if layered {
        (0..3).for_each(|place| setup.layers.push(move |_| StackedPeer::layer(place)));
    }
    // Sessions that are paused until their partner comes.
    let waiting = Arc::<Mutex<HashMap<String, SessionId>>>::default();
    let known = waiting.clone();
    let mut world = World::new(setup, move |probe| {
        probe.quiet = true;
        let waiting = known.clone();
        probe.packet = Box::new(move |session, packet| {
            let text = String::from_utf8_lossy(packet).into_owned();
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            match waiting.remove(&text) {
                Some(other) => session.link(other)?,
                None => {
                    session.pause();
                    waiting.insert(text, session.id());
                }
            }
            Ok(())
        });
    });
    let fragile = world.net().faults.reset > 0;
    let pairs = rng.between(1, 6) as usize;
    let mut clients: Vec<Client> =
        (0..2 * pairs).map(|number| Client::new(&world, &mut rng, number / 2, layered)).collect();
    for _ in 0..100_000 {
        let number = rng.below(clients.len() as u64) as usize;
        clients[number].act(&world, &mut rng);
        if rng.chance(400) {
            world.run_for(rng.below(3));
        }
        if clients.iter().all(|client| client.is_over || client.is_lost) {
            break;
        }
    }
    for pair in clients.chunks(2) {
        let [one, other] = pair else { panic!("clients come in pairs") };
        for (from, to) in [(one, other), (other, one)] {
            assert!(from.frames.starts_with(&to.heard), "{:?} heard what was not said", to.conn);
            let whole = to.heard == from.frames && to.is_over;
            assert!(fragile || whole, "{:?} heard {} of {}", to.conn, to.heard.len(), from.frames.len());
        }
    }
    for client in clients {
        world.net().leave(client.conn);
    }
    world.run_to_rest();
    // A fault may have taken the partner of a session before it was linked: that one waits for ever.
    let (left, unpaired) = (world.metrics().sessions, waiting.lock().map_or(0, |waiting| waiting.len()));
    assert!(left <= unpaired as u64 && (fragile || left == 0), "{left} sessions are left, {unpaired} wait");
    world.abort();
    world.run_to_rest();
    world.assert_gone();
}

#[test]
fn whatever_happens_each_hears_what_the_other_has_said() {
    for seed in 0..SEEDS {
        let ran = panic::catch_unwind(|| run(seed));
        assert!(ran.is_ok(), "seed {seed} fails");
    }
}
