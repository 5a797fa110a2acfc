//! Streams over carriers under faults of the network, at random: what must hold whatever happens.

use std::collections::HashMap;

use crate::{
    error::{CloseKind, SendError},
    limits::Limits,
    runtime::Stop,
    session::TimerId,
    sim::{
        Callback, CarryingSetup, CarryingWorld, Conn, Faults, Rng, Sizes,
        carrying::{close, data, open},
    },
};

const STREAMS: u8 = 12;

/// One client with what it knows of its streams.
struct Client {
    conn: Conn,
    /// What waits to be said.
    unsaid: Vec<u8>,
    heard: Vec<u8>,
    streams: HashMap<u8, Stream>,
    gone: bool,
}

/// A stream of the client: what it has sent, and how much of that came back.
#[derive(Default)]
struct Stream {
    sent: u32,
    echoed: u32,
    /// The client has ended it: what is on its way still comes.
    ended: bool,
    /// The server has closed it.
    closed: bool,
}

impl Client {
    fn new(conn: Conn) -> Self {
        Self { conn, unsaid: Vec::new(), heard: Vec::new(), streams: HashMap::new(), gone: false }
    }

    /// Does something.
    fn act(&mut self, rng: &mut Rng) {
        let number = rng.below(STREAMS.into()) as u8;
        match self.streams.get_mut(&number) {
            None => {
                self.streams.insert(number, Stream::default());
                self.unsaid.extend(open(number));
            }
            // A number is used once, so that what comes late is not taken for what belongs to the next.
            Some(stream) if stream.ended || stream.closed => {}
            Some(stream) if rng.chance(30) => {
                stream.ended = true;
                self.unsaid.extend(close(number));
            }
            Some(stream) => {
                for _ in 0..rng.between(1, 8) {
                    let len = rng.between(0, 300) as usize;
                    let payload = [&stream.sent.to_be_bytes()[..], &vec![number; len]].concat();
                    self.unsaid.extend(data(number, &payload));
                    stream.sent += 1;
                }
            }
        }
    }

    /// Checks what was heard, frame by frame.
    fn check(&mut self) {
        let mut used = 0;
        while let Some((len, rest)) = self.heard[used..].split_first_chunk() {
            let len = u32::from_be_bytes(*len) as usize;
            let Some(packet) = rest.get(..len) else { break };
            let stream = self.streams.get_mut(&packet[0]).expect("one of the client's");
            assert!(!stream.closed, "nothing comes behind a close");
            match packet[1] {
                b'd' => {
                    let (number, fill) = packet[2..].split_first_chunk().expect("a number");
                    assert_eq!(u32::from_be_bytes(*number), stream.echoed, "in order, none lost");
                    assert!(fill.iter().all(|byte| *byte == packet[0]), "of this stream");
                    stream.echoed += 1;
                    assert!(stream.echoed <= stream.sent);
                }
                b'c' => stream.closed = true,
                other => panic!("{other}"),
            }
            used += 4 + len;
        }
        self.heard.drain(..used);
    }
}

/// Clients come and go, and do what they do. Returns those that are left.
fn play(world: &mut CarryingWorld, rng: &mut Rng, most: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..4).map(|_| Client::new(world.connect())).collect();
    for _ in 0..400 {
        let client = rng.below(clients.len() as u64) as usize;
        let client = &mut clients[client];
        if client.gone {
            *client = Client::new(world.connect());
        } else if rng.chance(8) {
            client.gone = true;
            match rng.chance(500) {
                true => world.network.lock().reset(client.conn),
                false => world.network.lock().leave(client.conn),
            }
        } else {
            client.act(rng);
            let said = world.network.lock().say(client.conn, &client.unsaid);
            client.unsaid.drain(..said);
            if rng.chance(600) {
                client.heard.extend(world.network.lock().hear_all(client.conn));
                client.check();
            }
        }
        world.run_for(rng.below(4));
        let [carriers, streams] = world.metrics();
        assert!(streams.sessions <= most as u64 && carriers.sessions <= 100);
        world.log.assert_balanced(false);
    }
    clients
}

fn run(seed: u64) -> Vec<(u64, Callback)> {
    let mut rng = Rng::new(seed);
    let setup = CarryingSetup {
        seed,
        carriers: Limits::default()
            .outbox_high(rng.between(500, 20_000) as usize)
            .outbox_low(500)
            .read_budget(rng.between(200, 5_000) as usize),
        streams: Limits::default().outbox_high(2_000).outbox_low(500).outbox_hard(20_000),
        inbox: rng.between(1_000, 50_000) as usize,
        most: rng.between(10, 40) as usize,
        sizes: Sizes { up: 8_000, down: rng.between(1_000, 8_000) as usize, ..Sizes::default() },
        carriers_last: rng.chance(500),
    };
    let mut choices = Rng::new(seed + 1);
    let mut world = CarryingWorld::new(&setup, move |probe| {
        probe.quiet = true;
        probe.packet = Box::new(move |session, packet| {
            match choices.below(200) {
                0 => session.close(),
                1 => session.abort(),
                2 | 3 => {
                    session.pause();
                    session
                        .set_timer(TimerId(1), std::time::Duration::from_millis(choices.between(1, 40)))?;
                }
                _ => {}
            }
            match session.send(packet) {
                Err(SendError::Closed) => Ok(()),
                sent => Ok(sent?),
            }
        });
        probe.timer = Box::new(|session, _| {
            session.resume();
            Ok(())
        });
    });
    world.network.lock().faults = Faults::swarm(&mut rng);
    let clients = play(&mut world, &mut rng, setup.most);
    for client in &clients {
        world.network.lock().leave(client.conn);
    }
    world.run_for(20_000);
    world.assert_no_streams();
    assert_eq!(world.registries[0].admission.total(), 0, "carriers");
    world.registries.iter().for_each(|registry| registry.stop(Stop::Now));
    world.run_for(10);
    assert!(matches!(world.ended, Some(Ok(()))), "{:?}", world.ended);
    let kinds: Vec<CloseKind> = world.log.closes().into_iter().map(|(_, kind)| kind).collect();
    assert!(kinds.len() > 10 && kinds.contains(&CloseKind::CarrierLost), "it was put to the test");
    world.log.lines().into_iter().map(|(tick, _, told)| (tick, told)).collect()
}

#[test]
fn each_stream_ends_once_and_what_comes_back_is_what_was_sent_in_order() {
    for seed in 0..60 {
        run(seed);
    }
}

#[test]
fn a_seed_reproduces_a_run_of_streams() {
    assert_eq!(run(7), run(7));
}
