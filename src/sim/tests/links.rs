//! Linked sessions: packets of each go to the other, without a callback, and so do their ends.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    error::{CloseKind, LinkError},
    framing::Separator,
    id::SessionId,
    limits::Limits,
    session::SessionHandle,
    shard::OtherFramings,
    sim::{Callback, Conn, Heard, Probe, Setup, World, frame},
};

/// The sessions in the order in which they were opened, and what `link` has returned.
#[derive(Clone, Default)]
struct Room {
    sessions: Arc<Mutex<Vec<SessionHandle>>>,
    answers: Arc<Mutex<Vec<Result<(), LinkError>>>>,
}

impl Room {
    fn sessions(&self) -> MutexGuard<'_, Vec<SessionHandle>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers(&self) -> MutexGuard<'_, Vec<Result<(), LinkError>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self, number: usize) -> SessionId {
        self.sessions()[number].id()
    }

    /// A packet `link N` links its session to that number, `twice N` does so twice. Before that `early N` sends a packet to
    /// the other session, `handle N` sends one by its handle, and `own N` sends one to itself by handle. After it, `busy N` sends one by the handle of
    /// the other. All other packets come back.
    fn open(&self, probe: &mut Probe) {
        let (room, known) = (self.clone(), self.clone());
        probe.open = Box::new(move |session, ()| {
            known.sessions().push(session.handle());
            Ok(())
        });
        probe.packet = Box::new(move |session, packet| {
            let text = String::from_utf8_lossy(packet).into_owned();
            let Some((word, number)) = text.split_once(' ') else { return Ok(session.send(packet)?) };
            let to = room.sessions()[number.parse::<usize>()?].clone();
            match word {
                "early" => session.send_to(to.id(), "sent early")?,
                "handle" => to.send("sent by handle")?,
                "own" => session.handle().send("to itself")?,
                "twice" => room.answers().push(session.link(to.id())),
                _ => {}
            }
            room.answers().push(session.link(to.id()));
            if word == "busy" {
                to.send("sent by handle")?;
            }
            Ok(())
        });
    }
}

/// A world, and its room.
fn room(setup: Setup) -> (World, Room) {
    let room = Room::default();
    let known = room.clone();
    (World::new(setup, move |probe| known.open(probe)), room)
}

/// Two clients whose sessions are linked.
fn linked(setup: Setup) -> (World, Room, [Conn; 2]) {
    let (mut world, room) = room(setup);
    let conns = [(); 2].map(|()| {
        let conn = world.connect();
        world.run_for(1);
        conn
    });
    world.net().say(conns[1], &frame(b"link 0"));
    world.run_for(1);
    assert_eq!(*room.answers(), [Ok(())]);
    (world, room, conns)
}

fn finish(mut world: World, conns: impl IntoIterator<Item = Conn>) -> World {
    for conn in conns {
        world.net().leave(conn);
    }
    world.run_to_rest();
    world.assert_empty();
    world.log.assert_balanced(true);
    world
}

/// The packets that handlers were given, apart from those that ask for links.
fn packets(world: &World) -> Vec<Vec<u8>> {
    let lines = world.log.lines().into_iter();
    let packets = lines.filter_map(|(_, _, told)| match told {
        Callback::Packet(packet) if !packet.contains(&b' ') => Some(packet),
        _ => None,
    });
    packets.collect()
}

#[test]
fn packets_of_each_go_to_the_other_in_the_same_turn_without_a_callback() {
    let (mut world, _room, [a, b]) = linked(Setup::default());
    for (from, to) in [(a, b), (b, a)] {
        let said = [frame(b"one"), frame(b""), frame(&[7; 300])].concat();
        world.net().say(from, &said);
        let turns = world.metrics().turns;
        world.turn();
        assert_eq!(world.metrics().turns, turns + 1);
        assert_eq!(world.net().hear_all(to), said);
        assert_eq!(world.hears(from), Heard::Nothing);
    }
    assert_eq!(packets(&world), Vec::<Vec<u8>>::new());
    let metrics = world.metrics();
    assert_eq!((metrics.packets_in, metrics.packets_out, metrics.wakeups), (7, 6, 0));
    finish(world, [a, b]);
}

#[test]
fn what_was_received_with_the_packet_that_links_is_passed_on_behind_what_was_sent_before() {
    for word in ["early", "handle"] {
        let (mut world, room) = room(Setup::default());
        let conns = [(); 2].map(|()| world.connect());
        world.run_for(5);
        let ask = format!("{word} 0");
        world.net().say(conns[1], &[frame(ask.as_bytes()), frame(b"passed"), frame(b"on")].concat());
        world.run_for(5);
        assert_eq!(*room.answers(), [Ok(())], "{word}");
        let sent: &[u8] = if word == "early" { b"sent early" } else { b"sent by handle" };
        assert_eq!(world.net().hear_all(conns[0]), [frame(sent), frame(b"passed"), frame(b"on")].concat());
        assert_eq!(packets(&world), Vec::<Vec<u8>>::new(), "{word}");
        world.net().say(conns[0], &frame(b"back"));
        world.run_for(5);
        assert_eq!(world.net().hear_all(conns[1]), frame(b"back"), "{word}");
        finish(world, conns);
    }
}

/// The kinds of reasons for which sessions have ended, sorted.
fn ends(world: &World) -> Vec<CloseKind> {
    let mut kinds: Vec<_> = world.log.closes().into_iter().map(|(_, kind)| kind).collect();
    kinds.sort_by_key(|kind| *kind as usize);
    kinds
}

#[test]
fn a_full_outbox_keeps_the_other_from_being_read_until_it_has_drained_and_only_in_its_direction() {
    let limits = Limits::default().outbox_low(2_000).outbox_high(8_000).outbox_hard(20_000);
    let mut setup = Setup { limits, ..Setup::default() };
    (setup.sizes.up, setup.sizes.down) = (3_000, 1_000);
    let (mut world, _room, [a, b]) = linked(setup);
    let sent: Vec<u8> = (0..1_000_u32).flat_map(|number| frame(&number.to_be_bytes().repeat(25))).collect();
    let mut said = 0;
    for round in 0..100_u8 {
        said += world.net().say(a, &sent[said..]);
        world.net().say(b, &frame(&[round]));
        world.run_for(1);
        assert_eq!(world.net().hear_all(a), frame(&[round]), "the other direction goes on");
        assert!(world.metrics().buffered < 64 * 1024, "one outbox and one inbox");
    }
    assert!(said < 20_000, "a peer that sends to one that does not read is not read from: {said} bytes");
    let (mut heard, mut rounds) = (Vec::new(), 0);
    while heard.len() < sent.len() {
        heard.extend(world.net().hear_all(b));
        said += world.net().say(a, &sent[said..]);
        world.run_for(1);
        rounds += 1;
        assert!(rounds < 10_000, "it goes on when the outbox has drained: {} bytes came", heard.len());
    }
    assert_eq!(heard, sent);
    assert_eq!(world.log.count(&Callback::Drained), 0, "no callback tells of it");
    finish(world, [a, b]);
}

#[test]
fn an_outbox_that_is_full_when_the_link_begins_holds_the_partner() {
    let limits = Limits::default().outbox_low(2_000).outbox_high(8_000).outbox_hard(20_000);
    let mut setup = Setup { limits, ..Setup::default() };
    (setup.sizes.up, setup.sizes.down) = (30_000, 1_000);
    let (mut world, room) = room(setup);
    let conns = [(); 2].map(|()| world.connect());
    world.run_for(1);
    // One of them, the one that links or the other, has replies that its peer does not read.
    for full in [0, 1] {
        world.net().say(conns[full], &frame(&[1; 9_000]));
        world.run_for(1);
    }
    // As far as that its request is read.
    let mut heard = [Vec::new(), Vec::new()];
    let echo = frame(&[1; 9_000]);
    while heard[1].len() < echo.len() {
        heard[1].extend(world.net().hear_all(conns[1]));
        world.run_for(1);
    }
    world.net().say(conns[1], &[frame(b"link 0"), frame(&[2; 9_000])].concat());
    world.run_for(5);
    assert_eq!(*room.answers(), [Ok(())]);
    world.net().say(conns[0], &frame(b"the other way"));
    for _ in 0..100 {
        world.run_for(1);
        for (conn, heard) in conns.into_iter().zip(&mut heard) {
            heard.extend(world.net().hear_all(conn));
        }
    }
    assert_eq!(heard[0], [echo.clone(), frame(&[2; 9_000])].concat());
    assert_eq!(heard[1], [echo, frame(b"the other way")].concat());
    finish(world, conns);
}

/// What the sessions agree on goes through a mailbox that is not empty; that one of them is full does not wait there.
#[test]
fn an_outbox_that_is_full_holds_the_partner_also_while_the_mailbox_is_busy() {
    let limits =
        Limits::default().outbox_low(2_000).outbox_high(8_000).outbox_hard(20_000).read_budget(1_000);
    let mut setup = Setup { limits, ..Setup::default() };
    (setup.sizes.up, setup.sizes.down) = (100_000, 1_000);
    let (mut world, room) = room(setup);
    let conns = [(); 2].map(|()| world.connect());
    world.run_for(1);
    let echo = frame(&[1; 9_000]);
    world.net().say(conns[0], &echo);
    world.run_for(50);
    let passed = frame(&[2; 900]).repeat(80);
    let asked = [frame(b"busy 0"), passed.clone()].concat();
    assert_eq!(world.net().say(conns[1], &asked), asked.len());
    world.run_for(200);
    assert_eq!(*room.answers(), [Ok(())]);
    let queued = world.metrics().queued;
    assert!(queued < 20_000, "{queued} bytes are queued for a peer that does not read");
    let mut heard = Vec::new();
    for _ in 0..500 {
        heard.extend(world.net().hear_all(conns[0]));
        world.run_for(1);
    }
    let expected = [echo, frame(b"sent by handle"), passed].concat();
    let same = heard.iter().zip(&expected).take_while(|(one, other)| one == other).count();
    assert_eq!((heard.len(), same), (expected.len(), expected.len()), "{:?}", ends(&world));
    finish(world, conns);
}

#[test]
fn a_peer_that_ends_its_side_still_hears_the_other() {
    let (mut world, _room, [a, b]) = linked(Setup::default());
    world.net().say(a, &frame(b"the last"));
    world.net().end(a);
    world.run_for(1);
    assert_eq!(world.net().hear_all(b), frame(b"the last"));
    assert_eq!(world.hears(b), Heard::End);
    for answer in [&b"one"[..], b"two"] {
        world.net().say(b, &frame(answer));
        world.run_for(1);
        assert_eq!(world.net().hear_all(a), frame(answer));
    }
    assert_eq!((world.hears(a), ends(&world)), (Heard::Nothing, Vec::new()));
    world.net().end(b);
    world.run_for(1);
    assert_eq!(world.hears(a), Heard::End);
    assert_eq!(ends(&world), [CloseKind::PeerClosed; 2]);
    assert_eq!(world.log.count(&Callback::End), 0, "no callback tells of it");
    finish(world, []);
}

#[test]
fn peers_that_end_at_once_get_what_is_on_its_way() {
    let (mut world, _room, conns) = linked(Setup::default());
    for conn in conns {
        world.net().say(conn, &[frame(b"and"), frame(b"farewell")].concat());
        world.net().end(conn);
    }
    world.run_for(5);
    for conn in conns {
        assert_eq!(world.net().hear_all(conn), [frame(b"and"), frame(b"farewell")].concat());
        assert_eq!(world.hears(conn), Heard::End);
    }
    assert_eq!(ends(&world), [CloseKind::PeerClosed; 2]);
    finish(world, []);
}

#[test]
fn when_one_closes_or_is_reset_the_other_is_closed_in_order_and_told_why() {
    type Deed = fn(&mut World, &Room, Conn);
    let deeds: [(Deed, CloseKind); 5] = [
        (|world, _, a| world.net().reset(a), CloseKind::Io),
        (|_, room, _| room.sessions()[0].close().expect("it is open"), CloseKind::Local),
        (|_, room, _| room.sessions()[0].abort().expect("it is open"), CloseKind::Local),
        (|world, _, a| assert_eq!(world.net().say(a, &[0xff; 8]), 8), CloseKind::Frame),
        (
            |world, _, a| {
                world.net().say(a, b"\0\0\0\x09half");
                world.net().end(a);
            },
            CloseKind::Frame,
        ),
    ];
    for (number, (deed, kind)) in deeds.into_iter().enumerate() {
        let (mut world, room, [a, b]) = linked(Setup::default());
        world.net().say(a, &frame(b"before"));
        world.run_for(1);
        deed(&mut world, &room, a);
        world.run_for(1);
        assert_eq!(world.net().hear_all(b), frame(b"before"), "deed {number}");
        assert_eq!(world.hears(b), Heard::End, "deed {number}");
        let why = room.sessions()[1].id();
        let world = finish(world, [a, b]);
        let mut expected = vec![kind, CloseKind::LinkLost];
        expected.sort_by_key(|kind| *kind as usize);
        assert_eq!(ends(&world), expected, "deed {number}");
        let lost =
            world.log.lines().into_iter().find(|(_, _, told)| *told == Callback::Close(CloseKind::LinkLost));
        assert_eq!(lost.map(|(_, session, _)| session), Some(why), "deed {number}");
    }
}

#[test]
fn sessions_of_other_framings_are_linked_and_a_packet_without_a_frame_ends_both() {
    let mut others = OtherFramings::default();
    others.push(1, Separator::lines());
    let (mut world, room) = room(Setup { listeners: 2, others, ..Setup::default() });
    let [binary, lines] = [(); 2].map(|()| world.connect());
    world.run_for(1);
    world.net().say(lines, b"link 0\nfirst\n");
    world.run_for(1);
    assert_eq!(*room.answers(), [Ok(())]);
    assert_eq!(world.net().hear_all(binary), frame(b"first"));
    world.net().say(binary, &[frame(b"one"), frame(b"two")].concat());
    world.run_for(1);
    assert_eq!(world.net().hear_all(lines), b"one\ntwo\n");
    world.net().say(binary, &[frame(b"three"), frame(b"no\nline"), frame(b"lost")].concat());
    world.run_for(1);
    assert_eq!(world.net().hear_all(lines), b"three\n");
    assert_eq!((world.hears(lines), world.hears(binary)), (Heard::End, Heard::End));
    let world = finish(world, [binary, lines]);
    assert_eq!(ends(&world), [CloseKind::Send, CloseKind::LinkLost]);
}

#[test]
fn a_session_that_cannot_be_linked_is_told_so_and_remains() {
    let (mut world, room) = room(Setup { workers: 2, ..Setup::default() });
    let conns = [(); 2].map(|()| {
        let conn = world.connect();
        world.run_for(2);
        conn
    });
    for (ask, error) in
        [(&b"link 0"[..], LinkError::Elsewhere { other: room.id(0) }), (b"link 1", LinkError::Itself)]
    {
        world.net().say(conns[1], &[frame(ask), frame(b"still")].concat());
        world.run_for(2);
        assert_eq!(room.answers().pop(), Some(Err(error)));
        assert_eq!(world.net().hear_all(conns[1]), frame(b"still"));
    }
    finish(world, conns);
    let (mut world, room) = self::room(Setup::default());
    let conns = [(); 2].map(|()| world.connect());
    world.run_for(1);
    world.net().say(conns[1], &frame(b"twice 0"));
    world.run_for(1);
    assert_eq!(*room.answers(), [Ok(()), Err(LinkError::Linked { partner: room.id(0) })]);
    finish(world, conns);
}

#[test]
fn a_session_whose_partner_is_not_to_be_had_is_closed() {
    // By effect, and through the mailbox.
    for ask in [&b"link 0"[..], b"own 0"] {
        let (mut world, room) = room(Setup::default());
        let [gone, taken, takes, asks, late] = [(); 5].map(|()| world.connect());
        world.run_for(1);
        world.net().end(gone);
        world.net().say(takes, &frame(b"link 1"));
        world.run_for(1);
        world.net().say(asks, &[frame(ask), frame(b"lost")].concat());
        world.net().say(late, &frame(if ask == b"own 0" { b"own 1" } else { b"link 1" }));
        world.run_for(2);
        assert_eq!(*room.answers(), [Ok(()); 3]);
        for conn in [asks, late] {
            world.net().hear_all(conn);
            assert_eq!(world.hears(conn), Heard::End);
        }
        let lost = |number: usize| {
            let lines = world.log.lines();
            lines.contains(&(world.now() - 1, room.id(number), Callback::Closing(CloseKind::LinkLost)))
                || lines.iter().any(|(_, id, told)| {
                    *id == room.id(number) && *told == Callback::Closing(CloseKind::LinkLost)
                })
        };
        assert!(lost(3) && lost(4));
        world.net().say(taken, &frame(b"not concerned"));
        world.run_for(1);
        assert_eq!(world.net().hear_all(takes), frame(b"not concerned"));
        finish(world, [taken, takes, asks, late]);
    }
}

#[test]
fn a_shutdown_delivers_what_was_passed_on() {
    let mut setup = Setup::default();
    setup.sizes.down = 100;
    let (mut world, _room, [a, b]) = linked(setup);
    world.net().say(a, &frame(&[5; 1_000]));
    world.run_for(1);
    world.shut_down(Duration::from_secs(10));
    let mut heard = Vec::new();
    for _ in 0..50 {
        heard.extend(world.net().hear_all(b));
        world.run_for(1);
    }
    assert_eq!(heard, frame(&[5; 1_000]));
    for conn in [a, b] {
        world.net().leave(conn);
    }
    world.run_for(10);
    assert!(world.has_stopped());
    assert_eq!(ends(&world), [CloseKind::Shutdown; 2]);
}

#[test]
fn a_side_that_is_ended_by_the_handler_goes_out_behind_what_was_sent_and_the_peer_is_still_heard() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.packet = Box::new(|session, packet| {
            if packet != b"last" {
                return Ok(());
            }
            session.send("farewell")?;
            session.end();
            session.end();
            Ok(())
        });
    });
    let conn = world.connect();
    world.net().say(conn, &[frame(b"last"), frame(b"and")].concat());
    world.run_for(1);
    assert_eq!(world.net().hear_all(conn), frame(b"farewell"));
    assert_eq!(world.hears(conn), Heard::End);
    world.net().say(conn, &frame(b"more"));
    world.run_for(1);
    assert_eq!(packets(&world), [&b"last"[..], b"and", b"more"]);
    assert_eq!(ends(&world), []);
    let world = finish(world, [conn]);
    assert_eq!(ends(&world), [CloseKind::PeerClosed]);
}
