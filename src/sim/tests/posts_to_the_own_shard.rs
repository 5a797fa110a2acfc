//! What callbacks send to many sessions of their own shard: without its mailbox, in order, within the turn's budget.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use crate::{
    Channel, SessionHandle, SessionId,
    id::ShardId,
    limits::Limits,
    runtime::{Posted, ShardRegistry},
    session::{Session, TimerId},
    shard::Recipients,
    sim::{Call, Conn, Setup, SimPlatform, World, frame, tests::broadcast::budget},
};

type Packet = dyn Fn(&mut Session<'_>, &Room, &[u8]) + Send + Sync;

/// What the callbacks know of each other's sessions.
#[derive(Clone, Default)]
struct Room {
    channel: Channel,
    handles: Arc<Mutex<Vec<SessionHandle>>>,
    registry: Arc<OnceLock<Arc<ShardRegistry<SimPlatform>>>>,
}

impl Room {
    fn handles(&self) -> Vec<SessionHandle> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn broadcast(&self, packet: &[u8]) {
        let mut posted = Posted::default();
        let registry = self.registry.get().expect("it runs");
        registry.fan_out(&Bytes::copy_from_slice(packet), &Recipients::All, &mut posted);
        assert!(posted.outcome().is_ok());
    }

    /// Commands that wait in the mailbox of the only shard.
    fn posted(&self) -> usize {
        self.registry.get().and_then(|it| it.member(ShardId(0))).map_or(0, |it| it.mailbox.queued())
    }
}

/// Sessions that are all in one channel, and what they do with a packet.
fn all_in_a_room(
    setup: Setup,
    clients: usize,
    packet: impl Fn(&mut Session<'_>, &Room, &[u8]) + Send + Sync + 'static,
) -> (World, Vec<Conn>, Room) {
    let (room, packet): (Room, Arc<Packet>) = (Room::default(), Arc::new(packet));
    let (known, heard, timed) = (room.clone(), room.clone(), room.clone());
    let mut world = World::new(setup, move |probe| {
        let (known, heard, timed) = (known.clone(), heard.clone(), timed.clone());
        probe.open = Box::new(move |session, ()| {
            let handle = session.handle();
            known.channel.join(&handle)?;
            known.handles.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
            Ok(())
        });
        let said = packet.clone();
        probe.packet = Box::new(move |session, packet| {
            said(session, &heard, packet);
            Ok(())
        });
        let due = packet.clone();
        probe.timer = Box::new(move |session, timer| {
            due(session, &timed, &[timer as u8]);
            Ok(())
        });
    });
    assert!(room.registry.set(world.registry.clone()).is_ok());
    let conns: Vec<_> = (0..clients).map(|_| world.connect()).collect();
    world.run_for(2);
    assert_eq!(room.handles().len(), clients);
    (world, conns, room)
}

/// Sends to all others by every way there is, and in between to all at once.
fn send_by_all_ways(session: &mut Session<'_>, room: &Room, packet: &[u8]) {
    let others: Vec<SessionHandle> =
        room.handles().into_iter().filter(|other| other.id() != session.id()).collect();
    let ids: Vec<SessionId> = others.iter().map(SessionHandle::id).collect();
    let mut step = 0;
    let mut next = || {
        step += 1;
        [packet, &[step]].concat()
    };
    for _ in 0..2 {
        let direct = next();
        ids.iter().for_each(|id| assert_eq!(session.send_to(*id, &direct), Ok(())));
        assert_eq!(room.channel.publish(next()), Ok(others.len() + 1));
        let direct = next();
        ids.iter().for_each(|id| assert_eq!(session.send_to(*id, &direct), Ok(())));
        let by_handle = next();
        others.iter().for_each(|other| assert_eq!(other.send(&by_handle), Ok(())));
        room.broadcast(&next());
        assert_eq!(room.channel.publish_except(session.id(), next()), Ok(others.len()));
        assert_eq!(room.channel.publish_tracked(next()).map(|ticket| ticket.len()), Ok(others.len() + 1));
    }
}

const STEPS: u8 = 14;

#[test]
fn what_a_callback_sends_by_different_ways_reaches_each_receiver_in_that_order() {
    for (workers, reuse_port, forks) in [(0, false, 0), (3, false, 0), (3, true, 0), (0, false, 30)] {
        for places in [1, 3, 7, 4_096] {
            let setup = Setup { workers, reuse_port, forks, ..budget(places, 1 << 20) };
            let (mut world, conns, _) = all_in_a_room(setup, 8, send_by_all_ways);
            // Packets of one read, of the next turn while the first ones are on their way, and of a third.
            world.net().say(conns[3], &[frame(&[1]), frame(&[2])].concat());
            world.step();
            world.net().say(conns[3], &frame(&[3]));
            world.run_for(20);
            world.net().say(conns[3], &frame(&[4]));
            world.run_for(20);
            let all: Vec<u8> =
                (1..=4).flat_map(|said| (1..=STEPS).flat_map(move |step| frame(&[said, step]))).collect();
            for (at, conn) in conns.iter().enumerate().filter(|(at, _)| *at != 3) {
                let heard = world.net().hear_all(*conn);
                assert_eq!(heard, all, "{at} of {workers} workers, {places} places");
            }
            world.abort();
            world.run_to_rest();
            world.assert_gone();
        }
    }
}

#[test]
fn what_is_sent_to_many_from_a_callback_takes_no_mailbox_and_is_written_in_the_same_turn() {
    let send = |_: &mut Session<'_>, room: &Room, packet: &[u8]| {
        assert_eq!(room.channel.publish(packet), Ok(50));
        room.broadcast(packet);
        assert_eq!(room.posted(), 0, "there is none in the mailbox");
    };
    let (mut world, conns, room) = all_in_a_room(Setup::default(), 50, send);
    let wakeups = world.metrics().wakeups;
    world.net().say(conns[7], &frame(b"said"));
    world.turn();
    assert_eq!((room.posted(), world.metrics().wakeups), (0, wakeups));
    for conn in conns {
        assert_eq!(world.net().hear_all(conn), frame(b"said").repeat(2));
    }
}

#[test]
fn what_packets_of_one_read_publish_is_written_to_each_member_at_once() {
    let publish = |_: &mut Session<'_>, room: &Room, packet: &[u8]| {
        assert_eq!(room.channel.publish(packet), Ok(50));
    };
    let (mut world, conns, _) = all_in_a_room(Setup::default(), 50, publish);
    let before = world.net().calls.of(Call::Send);
    let said: Vec<u8> = (0..8).flat_map(|number| frame(&[number])).collect();
    world.net().say(conns[7], &said);
    world.turn();
    assert_eq!(world.net().calls.of(Call::Send) - before, 50);
    conns.iter().for_each(|conn| assert_eq!(world.net().hear_all(*conn), said));
}

#[test]
fn a_timer_that_publishes_is_heard_though_nothing_else_happens() {
    let publish = |session: &mut Session<'_>, room: &Room, packet: &[u8]| match packet {
        [0] => assert_eq!(session.set_timer(TimerId(9), std::time::Duration::from_millis(20)), Ok(())),
        packet => assert_eq!(room.channel.publish(packet), Ok(5)),
    };
    let (mut world, conns, _) = all_in_a_room(Setup::default(), 5, publish);
    world.net().say(conns[0], &frame(&[0]));
    world.run_for(19);
    assert_eq!(world.net().hear_all(conns[1]), b"");
    world.run_for(4);
    conns.iter().for_each(|conn| assert_eq!(world.net().hear_all(*conn), frame(&[9])));
}

#[test]
fn a_publish_of_a_callback_takes_no_more_of_a_turn_than_its_budget() {
    let publish = |_: &mut Session<'_>, room: &Room, packet: &[u8]| {
        assert_eq!(room.channel.publish(packet), Ok(100));
    };
    let (mut world, conns, _) = all_in_a_room(budget(10, 1 << 20), 100, publish);
    world.net().say(conns[7], &frame(b"said"));
    for turn in 1..=10 {
        world.turn();
        assert_eq!(world.metrics().packets_out, turn * 10);
    }
    assert!(conns.iter().all(|conn| world.net().hear_all(*conn) == frame(b"said")));
}

#[test]
fn a_callback_that_publishes_more_than_a_mailbox_takes_is_refused_the_rest_and_loses_nothing_else() {
    const MOST: usize = 5;
    let publish = |_: &mut Session<'_>, room: &Room, packet: &[u8]| {
        let took = (0..20).filter(|_| room.channel.publish(packet).is_ok()).count();
        assert_eq!(took, 2 * MOST, "as much without the mailbox as within it");
    };
    let setup = Setup { limits: Limits::default().mailbox_commands(MOST), ..Setup::default() };
    let (mut world, conns, _) = all_in_a_room(setup, 4, publish);
    world.net().say(conns[0], &frame(b"x"));
    world.run_for(5);
    assert!(conns.iter().all(|conn| world.net().hear_all(*conn) == frame(b"x").repeat(2 * MOST)));
}
