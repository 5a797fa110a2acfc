mod arbitrary;
mod memory;
mod random;
mod threads;

use super::*;
use crate::protocol::{Command, WholeFrames, put_frame};
use bytes::BytesMut;
use framewire::Framing;

/// A gateway of several threads, all driven by the test.
struct World {
    hubs: Vec<Hub>,
    shared: Arc<Shared>,
}

/// A link, by its thread and its place.
type At = (usize, LinkSlot);

impl World {
    fn new(threads: usize, limits: GatewayLimits) -> Self {
        let shared = Arc::new(Shared::new(limits));
        Self { hubs: (0..threads).map(|_| Hub::new(shared.clone())).collect(), shared }
    }

    fn client(&mut self, thread: usize) -> At {
        (thread, self.hubs[thread].add_client(session()).expect("there is room"))
    }

    fn server(&mut self, thread: usize, id: u32) -> At {
        (thread, self.hubs[thread].add_server(session(), id))
    }

    fn leave(&mut self, link: At) {
        self.hubs[link.0].remove(link.1);
        self.run_until_idle();
    }

    fn send(&mut self, from: At, command: Command) -> Result<(), LinkEnd> {
        let done = self.hubs[from.0].frame(from.1, &command.frame());
        self.run_until_idle();
        done
    }

    fn say(&mut self, from: At, conn: u32, payload: &[u8]) -> Result<(), LinkEnd> {
        let mut frame = BytesMut::new();
        put_frame(conn, payload, u32::MAX, &mut frame).expect("short enough");
        let done = self.hubs[from.0].frame(from.1, &frame);
        self.run_until_idle();
        done
    }

    /// Lets the threads take their messages, until there are none.
    fn run_until_idle(&mut self) {
        let mut batch = Batch::default();
        for _ in 0..100 {
            let calls: Vec<u16> = self.hubs.iter_mut().flat_map(Hub::take_calls).collect();
            if calls.is_empty() {
                return;
            }
            calls.iter().for_each(|thread| self.hubs[usize::from(*thread)].take_messages(&mut batch));
        }
        panic!("the threads tell each other things without end");
    }

    /// What a link has been sent.
    fn received(&mut self, link: At) -> Vec<Heard> {
        let hub = &mut self.hubs[link.0];
        let mut bytes = BytesMut::new();
        while hub.waiting(link.1) > 0 {
            let front = hub.front(link.1, 1000).to_vec();
            hub.sent(link.1, front.len());
            bytes.extend_from_slice(&front);
        }
        self.run_until_idle();
        heard(bytes)
    }

    /// Opens a connection that a client dials, and returns its ID.
    fn open(&mut self, client: At, server: At) -> u32 {
        self.received(client);
        self.received(server);
        self.send(client, Command::New).unwrap();
        let [Heard::Command(Command::Open { conn })] = *self.received(client) else { panic!("no ID") };
        let remote = self.hubs[server.0].id(server.1).unwrap();
        self.send(client, Command::Dial { conn, remote }).unwrap();
        let client_id = self.hubs[client.0].id(client.1).unwrap();
        assert_eq!(self.received(client), [Heard::Command(Command::Accept { conn, remote })]);
        assert_eq!(self.received(server), [Heard::Command(Command::Accept { conn, remote: client_id })]);
        conn
    }

    fn audit(&self) {
        let snapshot = self.shared.registry.snapshot();
        let ends: usize =
            self.hubs.iter().map(|hub| hub.ends.iter().filter(|(_, end)| end.is_live()).count()).sum();
        assert_eq!(ends, 2 * snapshot.connections, "each connection has two ends");
        let metrics = self.shared.metrics();
        assert_eq!(metrics.opened - metrics.closed, snapshot.connections as u64);
    }
}

fn session() -> SessionId {
    SessionId::from_u128(0)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Command(Command),
    Message(u32, Vec<u8>),
}

fn message(conn: u32, payload: &[u8]) -> Heard {
    Heard::Message(conn, payload.to_vec())
}

fn heard(mut bytes: BytesMut) -> Vec<Heard> {
    let (mut framing, mut heard) = (WholeFrames::new(u32::MAX), Vec::new());
    while !bytes.is_empty() {
        let Ok(Some(framewire::Decoded::Packet { payload, consumed })) = framing.decode(&mut bytes) else {
            panic!("half a frame: {bytes:?}");
        };
        let (conn, rest) = crate::protocol::split(&bytes[payload]).expect("a whole frame");
        heard.push(match conn {
            0 => Heard::Command(Command::decode(rest).expect("a command")),
            conn => message(conn, rest),
        });
        let _ = bytes.split_to(consumed);
    }
    heard
}

/// On one thread, and with the ends on two.
fn worlds(limits: GatewayLimits) -> [(World, usize); 2] {
    [(World::new(1, limits.clone()), 0), (World::new(2, limits), 1)]
}

fn small() -> GatewayLimits {
    GatewayLimits {
        connection_queue: 100,
        client_queue: 1000,
        server_queue: 1000,
        strays_per_second: 5,
        dials_per_second: 5,
        connections_per_client: 3,
        ..GatewayLimits::default()
    }
}

#[test]
fn frames_reach_the_other_end_unchanged_and_in_order_both_ways() {
    for (mut world, other) in worlds(GatewayLimits::default()) {
        let (client, server) = (world.client(0), world.server(other, 7));
        let conn = world.open(client, server);
        for payload in [&b"one"[..], b"", b"three"] {
            world.say(client, conn, payload).unwrap();
            world.say(server, conn, payload).unwrap();
        }
        let all = [message(conn, b"one"), message(conn, b""), message(conn, b"three")];
        assert_eq!(world.received(server), all);
        assert_eq!(world.received(client), all);
        let servers = world.shared.registry.snapshot().servers;
        assert_eq!(
            (servers[0].frames, servers[0].bytes),
            (6, 6 * 8 + 2 * 8),
            "both ways, with their headers"
        );
        world.audit();
    }
}

#[test]
fn a_server_dials_a_client_and_the_client_is_told_first() {
    for (mut world, other) in worlds(GatewayLimits::default()) {
        let (client, server) = (world.client(0), world.server(other, 7));
        world.send(server, Command::New).unwrap();
        assert_eq!(world.received(server), [Heard::Command(Command::Open { conn: 1 })]);
        world.send(server, Command::Dial { conn: 1, remote: 1 }).unwrap();
        assert_eq!(world.received(client), [Heard::Command(Command::Accept { conn: 1, remote: 7 })]);
        assert_eq!(world.received(server), [Heard::Command(Command::Accept { conn: 1, remote: 1 })]);
        world.say(server, 1, b"hello").unwrap();
        assert_eq!(world.received(client), [message(1, b"hello")]);
        world.audit();
    }
}

#[test]
fn dials_to_nobody_or_with_ids_that_were_not_issued_are_refused_and_nothing_else_changes() {
    for (mut world, other) in worlds(small()) {
        let (client, server) = (world.client(0), world.server(other, 7));
        let conn = world.open(client, server);
        for dialed in [conn, 0, 99] {
            world.send(client, Command::Dial { conn: dialed, remote: 7 }).unwrap();
            assert_eq!(world.received(client), [Heard::Command(Command::Refuse { conn: dialed })]);
        }
        world.send(client, Command::New).unwrap();
        let issued = [Heard::Command(Command::Open { conn: conn + 1 })];
        assert_eq!(world.received(client), issued);
        world.send(client, Command::Dial { conn: conn + 1, remote: 8 }).unwrap();
        assert_eq!(world.received(client), [Heard::Command(Command::Refuse { conn: conn + 1 })]);
        assert_eq!(world.received(server), []);
        world.send(client, Command::Dial { conn: conn + 1, remote: 7 }).unwrap();
        assert_eq!(
            world.received(client),
            [Heard::Command(Command::Accept { conn: conn + 1, remote: 7 })],
            "again"
        );
        let metrics = world.shared.metrics();
        assert_eq!((metrics.refused_not_issued, metrics.refused_no_remote), (3, 1));
        world.audit();
    }
}

#[test]
fn the_connections_of_a_client_are_bounded_from_either_side_and_free_their_places() {
    for (mut world, other) in worlds(small()) {
        let (client, server) = (world.client(0), world.server(other, 7));
        let conns: Vec<u32> = (0..3).map(|_| world.open(client, server)).collect();
        world.send(client, Command::New).unwrap();
        world.send(server, Command::New).unwrap();
        world.send(client, Command::Dial { conn: 4, remote: 7 }).unwrap();
        world.send(server, Command::Dial { conn: 5, remote: 1 }).unwrap();
        let refused =
            |conn| [Heard::Command(Command::Open { conn }), Heard::Command(Command::Refuse { conn })];
        assert_eq!(world.received(client), refused(4));
        assert_eq!(world.received(server), refused(5));
        world.send(client, Command::Close { conn: conns[1] }).unwrap();
        world.received(client);
        world.received(server);
        world.send(server, Command::Dial { conn: 5, remote: 1 }).unwrap();
        assert_eq!(world.received(client), [Heard::Command(Command::Accept { conn: 5, remote: 7 })]);
        world.audit();
    }
}

#[test]
fn a_close_is_told_to_both_ends_and_a_close_of_an_unknown_id_to_nobody() {
    for (mut world, other) in worlds(small()) {
        let (client, server) = (world.client(0), world.server(other, 7));
        for closer in [client, server] {
            let conn = world.open(client, server);
            world.send(closer, Command::Close { conn }).unwrap();
            let closed = [Heard::Command(Command::Close { conn })];
            assert_eq!(world.received(client), closed);
            assert_eq!(world.received(server), closed);
            world.send(closer, Command::Close { conn }).unwrap();
            world.send(closer, Command::Close { conn: 1000 }).unwrap();
            assert_eq!((world.received(client), world.received(server)), (vec![], vec![]));
        }
        world.audit();
    }
}

#[test]
fn only_an_end_of_a_connection_can_send_on_it_or_close_it() {
    for (mut world, other) in worlds(small()) {
        let (client, server) = (world.client(0), world.server(other, 7));
        let (stranger, strange_server) = (world.client(other), world.server(0, 8));
        let conn = world.open(client, server);
        for stranger in [stranger, strange_server] {
            world.say(stranger, conn, b"forged").unwrap();
            world.send(stranger, Command::Close { conn }).unwrap();
            assert_eq!(
                world.received(stranger),
                [Heard::Command(Command::Close { conn })],
                "it does not exist"
            );
        }
        assert_eq!((world.received(client), world.received(server)), (vec![], vec![]));
        world.say(client, conn, b"still there").unwrap();
        assert_eq!(world.received(server), [message(conn, b"still there")]);
        world.audit();
    }
}

#[test]
fn guesses_end_the_link_that_makes_them_above_a_rate() {
    for (mut world, _) in worlds(small()) {
        let guesser = world.client(0);
        let mut ended = None;
        // Twice the rate, in case the second changes meanwhile.
        for conn in 100..112 {
            if let Err(end) = world.say(guesser, conn, b"guess") {
                ended = Some(end);
                break;
            }
        }
        assert_eq!(ended, Some(LinkEnd::Strays));
    }
}

#[test]
fn what_is_in_flight_towards_an_end_that_has_closed_is_discarded_and_blames_nobody() {
    for (mut world, other) in worlds(small()) {
        let (client, server) = (world.client(0), world.server(other, 7));
        let conn = world.open(client, server);
        world.send(client, Command::Close { conn }).unwrap();
        world.received(client);
        world.received(server);
        for _ in 0..1000 {
            world.say(server, conn, b"late").unwrap();
        }
        assert_eq!((world.received(client), world.received(server)), (vec![], vec![]));
        assert_eq!(world.shared.metrics().late, 1000);
    }
}

#[test]
fn a_link_that_goes_closes_its_connections_for_their_other_ends_at_once() {
    for (mut world, other) in worlds(small()) {
        let (server, first, second) = (world.server(other, 7), world.client(0), world.client(other));
        let conns = [world.open(first, server), world.open(second, server), world.open(first, server)];
        world.leave(first);
        let closed = |conn: usize| Heard::Command(Command::Close { conn: conns[conn] });
        let mut told = world.received(server);
        told.sort_by_key(|heard| format!("{heard:?}"));
        assert_eq!(told, [closed(0), closed(2)]);
        world.leave(server);
        assert_eq!(world.received(second), [closed(1)]);
        world.leave(second);
        world.audit();
        let left: Vec<_> = world.hubs.iter().map(Hub::link_counts).collect();
        assert!(left.iter().all(|left| *left == (0, 0)), "{left:?}");
    }
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_dial_leaves_nothing_behind() {
    let mut world = World::new(2, small());
    let (client, server) = (world.client(0), world.server(1, 7));
    world.send(client, Command::New).unwrap();
    // The dial is on its way to the other thread when the client leaves.
    world.hubs[0].frame(client.1, &Command::Dial { conn: 1, remote: 7 }.frame()).unwrap();
    world.hubs[0].remove(client.1);
    world.run_until_idle();
    assert_eq!(world.received(server), [Heard::Command(Command::Close { conn: 1 })]);
    let snapshot = world.shared.registry.snapshot();
    assert_eq!((snapshot.clients, snapshot.connections, snapshot.servers[0].connections), (0, 0, 0));
    // And the other way round: the server leaves while it is dialed.
    let client = world.client(0);
    world.send(client, Command::New).unwrap();
    world.hubs[0].frame(client.1, &Command::Dial { conn: 2, remote: 7 }.frame()).unwrap();
    world.hubs[1].remove(server.1);
    world.run_until_idle();
    let told = world.received(client);
    assert_eq!(
        told,
        [Heard::Command(Command::Open { conn: 2 }), Heard::Command(Command::Refuse { conn: 2 })]
    );
    world.audit();
    assert_eq!((world.hubs[0].link_counts(), world.hubs[1].link_counts()), ((1, 0), (0, 0)));
}

#[test]
fn a_client_that_does_not_read_loses_the_connection_that_overflows_and_its_server_nothing() {
    for (mut world, other) in worlds(small()) {
        let (client, server) = (world.client(0), world.server(other, 7));
        let (slow, quiet) = (world.open(client, server), world.open(client, server));
        let bystander = world.client(other);
        let third = world.open(bystander, server);
        let mut closed = false;
        for _ in 0..20 {
            world.say(server, slow, &[1; 22]).unwrap();
            closed |= world.received(server).contains(&Heard::Command(Command::Close { conn: slow }));
        }
        assert!(closed, "the server is told");
        world.say(server, quiet, b"a").unwrap();
        world.say(server, third, b"b").unwrap();
        assert_eq!(world.received(bystander), [message(third, b"b")]);
        let told = world.received(client);
        let taken =
            told.iter().filter(|heard| matches!(heard, Heard::Message(conn, _) if *conn == slow)).count();
        assert_eq!(taken, 3, "of 30 bytes each, with a bound of 100");
        assert_eq!(told[3..], [Heard::Command(Command::Close { conn: slow }), message(quiet, b"a")]);
        let metrics = world.shared.metrics();
        assert_eq!((metrics.overflows, metrics.closed), (1, 1));
        world.audit();
        world.leave(client);
        world.leave(bystander);
        world.leave(server);
        assert!(world.hubs.iter().all(|hub| hub.link_counts() == (0, 0)));
    }
}

#[test]
fn a_server_that_does_not_read_stops_those_that_send_to_it_and_nobody_else() {
    for (mut world, other) in worlds(small()) {
        let (slow, quick) = (world.server(other, 7), world.server(0, 8));
        let (sender, bystander, attached) = (world.client(0), world.client(other), world.client(0));
        let conn = world.open(sender, slow);
        let (to_quick, silent) = (world.open(bystander, quick), world.open(attached, slow));
        let mut sent = 0;
        while !world.hubs[0].is_held(sender.1) {
            assert!(sent < 100, "it is never held");
            world.say(sender, conn, &[2; 12]).unwrap();
            sent += 1;
        }
        assert_eq!(sent, 3, "of 20 bytes each: above half of 100");
        assert!(!world.hubs[other].is_held(bystander.1) && !world.hubs[0].is_held(attached.1));
        world.say(bystander, to_quick, b"x").unwrap();
        assert_eq!(world.received(quick), [message(to_quick, b"x")]);
        assert_eq!(world.received(slow).len(), sent);
        assert!(!world.hubs[0].is_held(sender.1), "it is read from again");
        world.say(attached, silent, b"y").unwrap();
        assert_eq!(world.received(slow), [message(silent, b"y")]);
        assert_eq!(world.shared.metrics().overflows, 0);
        world.audit();
    }
}

#[test]
fn a_held_link_is_free_again_when_the_connection_ends() {
    for (mut world, other) in worlds(small()) {
        let (server, client) = (world.server(other, 7), world.client(0));
        for closer in [client, server] {
            let conn = world.open(client, server);
            for _ in 0..4 {
                world.say(client, conn, &[2; 12]).unwrap();
            }
            assert!(world.hubs[0].is_held(client.1));
            world.send(closer, Command::Close { conn }).unwrap();
            assert!(!world.hubs[0].is_held(client.1));
            world.received(server);
            assert!(!world.hubs[0].is_held(client.1));
        }
        world.audit();
    }
}

#[test]
fn commands_of_a_peer_that_does_not_read_end_its_link_and_not_the_gateway() {
    for (mut world, _) in worlds(GatewayLimits { client_queue: 0, ..GatewayLimits::default() }) {
        let client = world.client(0);
        for _ in 0..10_000 {
            world.send(client, Command::New).unwrap();
        }
        assert_eq!(world.hubs[0].ending(client.1), Some(LinkEnd::Stuck));
        assert!(world.hubs[0].waiting(client.1) <= 64 * 1024);
        assert_eq!(world.shared.metrics().links_stuck, 1);
    }
}

#[test]
fn what_only_the_gateway_sends_and_broken_commands_end_the_link() {
    for command in
        [Command::Open { conn: 1 }, Command::Refuse { conn: 1 }, Command::Accept { conn: 1, remote: 2 }]
    {
        let mut world = World::new(1, GatewayLimits::default());
        let client = world.client(0);
        assert!(matches!(world.send(client, command), Err(LinkEnd::Violation(_))), "{command:?}");
    }
    for frame in
        [&[4, 0, 0, 0, 0, 0, 0, 0][..], &[5, 0, 0, 0, 0, 0, 0, 0, 7], &[6, 0, 0, 0, 0, 0, 0, 0, 5, 1]]
    {
        let mut world = World::new(1, GatewayLimits::default());
        let client = world.client(0);
        let ended = world.hubs[0].frame(client.1, frame);
        assert!(matches!(ended, Err(LinkEnd::Violation(_))), "{frame:?}");
        assert_eq!(world.shared.metrics().violations, 1);
    }
}

#[test]
fn dials_above_a_rate_are_refused() {
    let mut world = World::new(1, GatewayLimits { dials_per_second: 3, ..GatewayLimits::default() });
    let (client, server) = (world.client(0), world.server(0, 7));
    let mut refused = 0;
    for _ in 0..8 {
        world.send(client, Command::New).unwrap();
        let [Heard::Command(Command::Open { conn })] = *world.received(client) else { panic!("no ID") };
        world.send(client, Command::Dial { conn, remote: 7 }).unwrap();
        refused += world
            .received(client)
            .iter()
            .filter(|heard| matches!(heard, Heard::Command(Command::Refuse { .. })))
            .count();
    }
    assert!((1..=5).contains(&refused), "{refused} of 8, in one second or two");
    assert_eq!(world.received(server).len(), 8 - refused);
    assert_eq!(world.shared.metrics().refused_too_often, refused as u64);
}
