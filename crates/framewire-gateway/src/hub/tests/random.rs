//! Random runs of a whole gateway under faults, against a model of what each peer is owed: its threads take their
//! messages late, peers read late or never, send what they should not, and vanish at any moment.

use std::collections::{HashMap, HashSet};

use super::*;

const SEEDS: u64 = 3_000;
const STEPS: usize = 150;
/// The most rounds of reading until nothing waits anywhere.
const ROUNDS: usize = 10_000;

/// Numbers that only a seed determines (splitmix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.below(of.len())).copied()
    }
}

/// One peer: what it has been told, and what it is owed.
struct Peer {
    at: At,
    side: Side,
    /// What servers dial, or clients.
    id: u32,
    issued: Vec<u32>,
    /// Connections that it was told are open, and the other end's ID.
    open: HashMap<u32, u32>,
    /// Connections that it was told are closed.
    closed: HashSet<u32>,
    /// How often it was told that each connection is open, and closed behind that.
    told: HashMap<u32, (u32, u32)>,
    /// What it has received on each connection.
    received: HashMap<u32, Vec<u32>>,
    /// What it has sent on each connection while that was open for it.
    sent: HashMap<u32, Vec<u32>>,
}

struct Run {
    world: World,
    rng: Rng,
    peers: Vec<Option<Peer>>,
    /// Peers that have left, with what they knew.
    gone: Vec<Peer>,
    /// No two messages are the same.
    next_payload: u32,
    next_server: u32,
    /// Connections that one of their ends has closed.
    closed: HashSet<u32>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let threads = 1 + rng.below(3);
        let limits = GatewayLimits {
            connections_per_client: 1 + rng.below(5),
            connection_queue: 50 + rng.below(300),
            client_queue: 100 + rng.below(1_000),
            // Half of it has room for one more frame of each client, all of whom are held then.
            server_queue: 2_000 + rng.below(2_000),
            thread_queue: 50 + rng.below(500),
            max_length: 100,
            dials_per_second: 1_000_000,
            strays_per_second: 1_000_000,
            ..GatewayLimits::default()
        };
        let world = World::new(threads, limits);
        Self {
            world,
            rng,
            peers: Vec::new(),
            gone: Vec::new(),
            next_payload: 0,
            next_server: 0,
            closed: HashSet::new(),
        }
    }

    fn join(&mut self) {
        let thread = self.rng.below(self.world.hubs.len());
        let side = if self.rng.chance(30) { Side::Server } else { Side::Client };
        let at = match side {
            Side::Client => self.world.client(thread),
            Side::Server => {
                // Now and then one with an ID that is taken.
                let id = if self.rng.chance(20) { self.rng.below(3) as u32 } else { self.next_server };
                self.next_server += 1;
                self.world.server(thread, id)
            }
        };
        let id = self.world.hubs[thread].id(at.1).expect("it has just come");
        self.peers.push(Some(Peer {
            at,
            side,
            id,
            issued: Vec::new(),
            open: HashMap::new(),
            closed: HashSet::new(),
            told: HashMap::new(),
            received: HashMap::new(),
            sent: HashMap::new(),
        }));
    }

    fn step(&mut self) {
        let here: Vec<usize> = (0..self.peers.len()).filter(|peer| self.peers[*peer].is_some()).collect();
        let Some(peer) = self.rng.pick(&here).filter(|_| !self.rng.chance(5) || here.len() > 12) else {
            return self.join();
        };
        match self.rng.below(100) {
            0..10 => self.send(peer, Command::New),
            10..25 => self.dial(peer),
            25..55 => self.say(peer),
            55..62 => self.close(peer),
            62..66 => self.trespass(peer),
            66..68 => self.leave(peer),
            68..84 => self.read(peer),
            _ => {
                let thread = self.rng.below(self.world.hubs.len());
                self.take_messages(thread);
            }
        }
        self.check_memory();
    }

    /// A link that is held is not read from.
    fn is_read(&self, peer: usize) -> bool {
        let Some(Peer { at, .. }) = &self.peers[peer] else { return false };
        let hub = &self.world.hubs[at.0];
        !hub.is_held(at.1) && hub.ending(at.1).is_none()
    }

    fn frame(&mut self, peer: usize, frame: &[u8]) {
        if !self.is_read(peer) {
            return;
        }
        let Some(Peer { at, .. }) = &self.peers[peer] else { return };
        let done = self.world.hubs[at.0].frame(at.1, frame);
        assert_eq!(done, Ok(()), "no peer here breaks the protocol");
    }

    fn send(&mut self, peer: usize, command: Command) {
        self.frame(peer, &command.frame());
    }

    fn dial(&mut self, dialer: usize) {
        let Some(Peer { side, issued, .. }) = &mut self.peers[dialer] else { return };
        let side = *side;
        let Some(conn) = issued.pop() else { return self.send(dialer, Command::New) };
        let others = self.peers.iter().flatten().filter(|peer| peer.side != side).map(|peer| peer.id);
        let others: Vec<u32> = others.collect();
        let remote = if self.rng.chance(90) { self.rng.pick(&others) } else { Some(1_000_000) };
        let Some(remote) = remote else { return };
        self.send(dialer, Command::Dial { conn, remote });
    }

    fn say(&mut self, peer: usize) {
        if !self.is_read(peer) {
            return;
        }
        let Some(Peer { open, sent, .. }) = &mut self.peers[peer] else { return };
        let mut conns: Vec<u32> = open.keys().copied().collect();
        conns.sort_unstable();
        let Some(conn) = self.rng.pick(&conns) else { return };
        let payload = self.next_payload;
        self.next_payload += 1;
        sent.entry(conn).or_default().push(payload);
        let mut frame = BytesMut::new();
        let filler = vec![0; self.rng.below(40)];
        put_frame(conn, &[&payload.to_le_bytes()[..], &filler].concat(), 100, &mut frame)
            .expect("short enough");
        self.frame(peer, &frame);
    }

    fn close(&mut self, peer: usize) {
        let Some(Peer { open, .. }) = &mut self.peers[peer] else { return };
        let mut conns: Vec<u32> = open.keys().copied().collect();
        conns.sort_unstable();
        if let Some(conn) = self.rng.pick(&conns).filter(|_| self.is_read(peer)) {
            self.closed.insert(conn);
            self.send(peer, Command::Close { conn });
        }
    }

    /// Sends for, closes and dials a connection of somebody else, or of nobody.
    fn trespass(&mut self, peer: usize) {
        let conn = self.rng.below(60) as u32 + 1;
        let Some(Peer { open, issued, closed, .. }) = &self.peers[peer] else { return };
        if open.contains_key(&conn) || issued.contains(&conn) || closed.contains(&conn) {
            return;
        }
        // A dial that is under way is its own.
        let Some(Peer { at, .. }) = &self.peers[peer] else { return };
        let (thread, slot) = *at;
        let hub = &self.world.hubs[thread];
        let side = hub.links[slot as usize].side;
        if hub.end_of(slot, side, conn).is_some() || hub.waiting(slot) > 0 {
            return;
        }
        let mut frame = BytesMut::new();
        put_frame(conn, &u32::MAX.to_le_bytes(), 100, &mut frame).expect("short enough");
        self.frame(peer, &frame);
        self.send(peer, Command::Close { conn });
    }

    fn leave(&mut self, peer: usize) {
        let Some(peer) = self.peers[peer].take() else { return };
        self.world.hubs[peer.at.0].remove(peer.at.1);
        self.gone.push(peer);
    }

    /// The peer reads some of what waits for it.
    fn read(&mut self, peer: usize) {
        let room = 1 + self.rng.below(400);
        self.read_up_to(peer, room);
    }

    fn read_up_to(&mut self, peer: usize, room: usize) {
        let Some(peer) = &mut self.peers[peer] else { return };
        let (thread, slot) = peer.at;
        let hub = &mut self.world.hubs[thread];
        let front = hub.front(slot, room).to_vec();
        hub.sent(slot, front.len());
        heard(BytesMut::from(&front[..])).into_iter().for_each(|heard| peer.hear(heard));
    }

    fn take_messages(&mut self, thread: usize) {
        let hub = &mut self.world.hubs[thread];
        hub.take_messages(&mut Batch::default());
    }

    /// What waits anywhere is bounded, whoever does not read.
    fn check_memory(&self) {
        let limits = self.world.shared.limits();
        for hub in &self.world.hubs {
            for (slot, link) in &hub.links {
                let most = match link.side {
                    Side::Client => limits.client_queue,
                    Side::Server => limits.server_queue + limits.road(),
                };
                let waiting = hub.waiting(slot as u32);
                assert!(waiting <= most + 64 * 1024 + 100, "{waiting} bytes wait for one link");
            }
        }
    }

    /// Lets everything arrive, and everybody read it.
    fn run_until_idle(&mut self) {
        for _ in 0..ROUNDS {
            let before: usize = self.world.hubs.iter().map(|hub| hub.own.inbox_len()).sum();
            for thread in 0..self.world.hubs.len() {
                self.take_messages(thread);
            }
            let mut read = 0;
            for peer in 0..self.peers.len() {
                let waits =
                    self.peers[peer].as_ref().map_or(0, |peer| self.world.hubs[peer.at.0].waiting(peer.at.1));
                read += waits;
                self.read_up_to(peer, usize::MAX);
            }
            if before == 0 && read == 0 {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Nothing was lost but behind a cut: what a peer has received is the beginning of what the other end has sent, and
    /// all of it while the connection is open.
    fn check_streams(&self) {
        let all: Vec<&Peer> = self.peers.iter().flatten().chain(&self.gone).collect();
        let mut ends: HashMap<u32, Vec<&Peer>> = HashMap::new();
        for peer in &all {
            for conn in peer.told.keys() {
                ends.entry(*conn).or_default().push(peer);
            }
            for (conn, (opened, closed)) in &peer.told {
                assert_eq!(*opened, 1, "connection {conn} is opened once");
                assert!(*closed <= 1, "connection {conn} is closed once");
                assert_eq!(peer.open.contains_key(conn), *closed == 0);
            }
        }
        for (conn, ends) in &ends {
            assert!(ends.len() <= 2, "a connection has two ends");
            if ends.iter().all(|end| self.is_here(end)) && !self.closed.contains(conn) {
                self.check_overflow(*conn, ends);
            }
            for (receiver, sender) in [(0, 1), (1, 0)] {
                let (Some(receiver), sender) = (ends.get(receiver), ends.get(sender)) else { continue };
                let nothing = Vec::new();
                let received = receiver.received.get(conn).unwrap_or(&nothing);
                let sent = sender.and_then(|sender| sender.sent.get(conn)).unwrap_or(&nothing);
                assert!(sent.starts_with(received), "connection {conn}: {received:?} of {sent:?}");
                let is_open = receiver.open.contains_key(conn);
                if is_open && self.is_here(receiver) {
                    assert_eq!(received, sent, "connection {conn} is open: nothing is lost");
                    let sender = sender.expect("the other end was told as well");
                    assert!(sender.open.contains_key(conn), "connection {conn} is open at one end only");
                    assert_eq!(receiver.open[conn], sender.id, "the other end's ID");
                }
            }
        }
    }

    /// The gateway closes a connection of its own accord only if its client does not read: one that sends to a slow server
    /// is held instead.
    fn check_overflow(&self, conn: u32, ends: &[&Peer]) {
        let (clients, servers): (Vec<&Peer>, Vec<&Peer>) =
            ends.iter().partition(|end| end.side == Side::Client);
        let ([client], [server]) = (&clients[..], &servers[..]) else {
            // The other one was gone before it was told that it is one.
            return;
        };
        if !client.open.contains_key(&conn) {
            let received = client.received.get(&conn).map_or(0, Vec::len);
            let sent = server.sent.get(&conn).map_or(0, Vec::len);
            assert!(
                received < sent,
                "connection {conn} is closed, but nothing overflowed towards its client"
            );
        }
    }

    fn is_here(&self, peer: &Peer) -> bool {
        self.peers.iter().flatten().any(|here| std::ptr::eq(here, peer))
    }

    fn end(mut self) {
        self.run_until_idle();
        self.check_streams();
        let open: usize = self.peers.iter().flatten().map(|peer| peer.open.len()).sum();
        assert_eq!(open, 2 * self.world.shared.registry.snapshot().connections);
        self.world.audit();
        for peer in 0..self.peers.len() {
            self.leave(peer);
        }
        self.run_until_idle();
        self.check_streams();
        let snapshot = self.world.shared.registry.snapshot();
        assert_eq!((snapshot.clients, snapshot.connections, snapshot.servers.len()), (0, 0, 0));
        assert!(self.world.hubs.iter().all(|hub| hub.link_counts() == (0, 0)), "all places are given back");
        assert!(self.world.hubs.iter().all(|hub| hub.conns.is_empty()));
    }
}

impl Peer {
    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Command(Command::Open { conn }) => self.issued.push(conn),
            Heard::Command(Command::Refuse { conn }) => {
                assert!(!self.open.contains_key(&conn), "an open connection is not refused");
            }
            Heard::Command(Command::Accept { conn, remote }) => {
                self.told.entry(conn).or_default().0 += 1;
                assert_eq!(self.open.insert(conn, remote), None);
            }
            Heard::Command(Command::Close { conn }) => {
                // For a connection that is not its own it is told the same.
                if self.open.remove(&conn).is_some() {
                    self.told.entry(conn).or_default().1 += 1;
                    self.closed.insert(conn);
                }
            }
            Heard::Command(other) => panic!("a gateway does not send {other:?}"),
            Heard::Message(conn, payload) => {
                assert!(
                    self.open.contains_key(&conn),
                    "a message on connection {conn}, which is not open here"
                );
                let number = u32::from_le_bytes(*payload.first_chunk().expect("a number"));
                assert_ne!(number, u32::MAX, "what a stranger has sent");
                self.received.entry(conn).or_default().push(number);
            }
        }
    }
}

#[test]
fn random_peers_under_random_faults_get_what_they_are_owed_and_leave_nothing() {
    let mut opened = 0;
    let (mut overflows, mut holds) = (0, 0);
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed);
            (0..STEPS).for_each(|_| run.step());
            let shared = run.world.shared.clone();
            run.end();
            shared.metrics()
        });
        // What went wrong was printed already.
        let metrics = run.unwrap_or_else(|_| panic!("with seed {seed}"));
        opened += metrics.opened;
        overflows += metrics.overflows;
        holds += metrics.holds;
    }
    assert!(opened > SEEDS && overflows > SEEDS / 20 && holds > SEEDS / 20, "{opened} {overflows} {holds}");
}
