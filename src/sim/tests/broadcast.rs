//! One packet for many sessions: who gets it, in which order, and who waits for it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::{
    BroadcastError, Channel, Left, SessionHandle, SessionId, SessionInfo,
    contained::Contained,
    error::CloseKind,
    framing::LengthPrefix,
    id::ShardId,
    limits::Limits,
    runtime::Posted,
    shard::Recipients,
    sim::{Callback, Conn, Setup, World, frame},
};

type Handles = Arc<Mutex<Vec<SessionHandle>>>;

impl World {
    pub(super) fn broadcast(&self, packet: &[u8]) -> Result<usize, BroadcastError> {
        self.fan_out(packet, &Recipients::All)
    }

    pub(super) fn broadcast_where(
        &self,
        packet: &[u8],
        which: impl Fn(&SessionInfo) -> bool + Send + Sync + 'static,
    ) -> Result<usize, BroadcastError> {
        self.fan_out(packet, &Recipients::Where(Arc::new(Contained::new(Box::new(which)))))
    }

    fn fan_out(&self, packet: &[u8], to: &Recipients) -> Result<usize, BroadcastError> {
        let mut posted = Posted::default();
        self.registry.fan_out(&Bytes::copy_from_slice(packet), to, &mut posted);
        posted.outcome()
    }
}

/// Limits with this budget.
pub(super) fn budget(sessions: usize, bytes: usize) -> Setup {
    Setup { limits: Limits::default().fanout_budget(sessions, bytes), ..Setup::default() }
}

/// Echoes, whose handles are kept in the order in which they open, and so many clients of them.
pub(super) fn with_handles(setup: Setup, clients: usize) -> (World, Vec<Conn>, Vec<SessionHandle>) {
    let handles = Handles::default();
    let mut world = World::new(setup, |probe| {
        let handles = handles.clone();
        probe.open = Box::new(move |session, ()| {
            handles.lock().unwrap_or_else(PoisonError::into_inner).push(session.handle());
            Ok(())
        });
    });
    let conns: Vec<_> = (0..clients).map(|_| world.connect()).collect();
    world.run_for(2);
    let handles = handles.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(handles.len(), clients);
    (world, conns, handles)
}

pub(super) fn heard(world: &World, conns: &[Conn]) -> Vec<Vec<u8>> {
    conns.iter().map(|conn| world.net().hear_all(*conn)).collect()
}

#[test]
fn packets_of_one_thread_to_one_session_arrive_in_order_however_they_are_sent() {
    for (workers, reuse_port, forks) in [(0, false, 0), (3, false, 0), (3, true, 0), (0, false, 30)] {
        for places in [1, 2, 7, 4_096] {
            let setup = Setup { workers, reuse_port, forks, ..budget(places, 1 << 20) };
            let (mut world, conns, handles) = with_handles(setup, 20);
            for round in 0..5_u8 {
                let sends =
                    |kind| handles.iter().for_each(|handle| assert_eq!(handle.send([kind, round]), Ok(())));
                sends(1);
                assert_eq!(world.broadcast(&[2, round]), Ok(1 + workers.max(if forks > 0 { 20 } else { 0 })));
                sends(3);
                assert!(world.broadcast_where(&[4, round], |_| true).is_ok());
            }
            world.run_for(10);
            let all: Vec<u8> =
                (0..5).flat_map(|round| (1..=4).flat_map(move |kind| frame(&[kind, round]))).collect();
            assert!(
                heard(&world, &conns).iter().all(|heard| *heard == all),
                "{workers} workers, {places} places"
            );
            conns.iter().for_each(|conn| world.net().end(*conn));
            world.run_for(10);
            assert_eq!((world.metrics().sessions, world.metrics().packets_out), (0, 20 * 20));
        }
    }
}

#[test]
fn a_turn_sends_no_more_of_a_broadcast_than_its_budget_and_serves_the_other_sessions() {
    // By their number, and by their bytes: the packet that uses up the rest of them is still sent.
    for (setup, per_turn) in [(budget(10, 1 << 20), 10), (budget(4_096, 1_000), 2), (budget(4_096, 1), 1)] {
        let (mut world, conns, _) = with_handles(setup, 100);
        assert_eq!(world.broadcast(&[7; 600]), Ok(1));
        for turn in 1..=100 / per_turn {
            let asks = conns[turn % 100];
            world.net().say(asks, &frame(b"now"));
            world.turn();
            assert_eq!(world.metrics().packets_out as usize, turn * (per_turn + 1));
            let mine = world.net().hear_all(asks);
            assert!(mine.windows(7).any(|part| part == frame(b"now")), "its reply does not wait");
        }
        assert_eq!(world.metrics().mailbox, 0);
        world.run_for(1);
        assert_eq!(world.metrics().packets_out as usize, 100 + 100 / per_turn);
    }
}

#[test]
fn two_broadcasts_share_the_budget_of_a_turn() {
    let (mut world, _conns, _) = with_handles(budget(15, 1 << 20), 10);
    assert_eq!((world.broadcast(b"one"), world.broadcast_where(b"two", |_| true)), (Ok(1), Ok(1)));
    for sent in [15, 20, 20] {
        world.turn();
        assert_eq!(world.metrics().packets_out, sent);
    }
}

#[test]
fn what_a_callback_sends_to_another_session_does_not_overtake_a_broadcast() {
    let last = Arc::new(Mutex::new(None::<SessionId>));
    let mut world = World::new(budget(1, 1 << 20), |probe| {
        let (opened, asked) = (last.clone(), last.clone());
        probe.open = Box::new(move |session, ()| {
            *opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.id());
            Ok(())
        });
        probe.packet = Box::new(move |session, packet| {
            let to = asked.lock().unwrap_or_else(PoisonError::into_inner).expect("it is open");
            Ok(session.send_to(to, packet)?)
        });
    });
    let conns: Vec<_> = (0..10).map(|_| world.connect()).collect();
    world.run_for(2);
    assert_eq!(world.broadcast(b"before"), Ok(1));
    world.turn();
    world.net().say(conns[0], &frame(b"behind"));
    let expected = [frame(b"before"), frame(b"behind")].concat();
    assert_eq!(world.expect(conns[9], expected.len()), expected);
}

#[test]
fn what_a_callback_sends_in_the_middle_of_a_broadcast_does_not_overtake_it() {
    let last = Arc::new(Mutex::new(None::<SessionId>));
    let limits = Limits::default().outbox_low(2_000).outbox_high(8_000).outbox_hard(20_000);
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.down = 1_000;
    let mut world = World::new(setup, |probe| {
        let (opened, asked) = (last.clone(), last.clone());
        probe.open = Box::new(move |session, ()| {
            *opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.id());
            Ok(())
        });
        probe.packet = Box::new(|session, _| Ok(session.send([0; 9_000])?));
        probe.drained = Box::new(move |session, ()| {
            let to = asked.lock().unwrap_or_else(PoisonError::into_inner).expect("it is open");
            Ok(session.send_to(to, b"drained")?)
        });
    });
    let (first, second) = (world.connect(), world.connect());
    world.run_for(2);
    world.net().say(first, &frame(b"go"));
    world.run_for(2);
    // Its outbox is short again when it is written to: the broadcast visits the first session before the second.
    let mut expected = Vec::new();
    for number in 0..30 {
        world.net().hear_all(first);
        let before = world.log.count(&Callback::Drained);
        assert_eq!(world.broadcast(&[number]), Ok(1));
        world.turn();
        expected.extend(frame(&[number]));
        if world.log.count(&Callback::Drained) > before {
            expected.extend(frame(b"drained"));
        }
    }
    world.run_for(2);
    assert_eq!(world.log.count(&Callback::Drained), 1);
    assert_eq!(world.net().hear_all(second), expected);
}

#[test]
fn sessions_that_close_during_a_broadcast_are_left_out_and_the_others_get_it_once() {
    let (mut world, conns, handles) = with_handles(budget(5, 1 << 20), 40);
    assert_eq!(world.broadcast(b"x"), Ok(1));
    world.turn();
    // Before their turn, after it, and in every way.
    for (at, conn) in conns.iter().enumerate().filter(|(at, _)| at % 4 == 0) {
        match at % 3 {
            0 => world.net().reset(*conn),
            1 => world.net().end(*conn),
            _ => assert_eq!(handles[at].close(), Ok(())),
        }
    }
    // They take the places of those that have gone.
    world.turn();
    let late: Vec<_> = (0..10).map(|_| world.connect()).collect();
    world.run_for(10);
    for (at, conn) in conns.iter().enumerate().filter(|(at, _)| at % 4 != 0) {
        assert_eq!(world.net().hear_all(*conn), frame(b"x"), "{at}");
    }
    for conn in late {
        let heard = world.net().hear_all(conn);
        assert!(heard.is_empty() || heard == frame(b"x"), "at most once");
    }
    conns.iter().for_each(|conn| world.net().end(*conn));
    world.abort();
    world.run_to_rest();
    world.assert_gone();
}

#[test]
fn a_session_that_does_not_read_is_closed_and_delays_no_other() {
    let limits =
        Limits::default().outbox_low(1_000).outbox_high(2_000).outbox_hard(10_000).fanout_budget(3, 1 << 20);
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.down = 1_000;
    let (mut world, conns, _) = with_handles(setup, 10);
    let (slow, quick) = conns.split_first().expect("10");
    for round in 0..20_u8 {
        assert_eq!(world.broadcast(&[round; 700]), Ok(1));
        for conn in quick {
            assert_eq!(world.expect(*conn, 704), frame(&[round; 700]));
        }
    }
    world.run_for(1);
    assert_eq!(world.log.closes().len(), 0, "it is still flushed, as far as it reads");
    assert_eq!(world.log.count(&Callback::Closing(CloseKind::Send)), 1);
    let metrics = world.metrics();
    assert_eq!(
        (metrics.sends_refused, metrics.packets_out),
        (1, 9 * 20 + 15),
        "704 bytes are written, 9,856 wait"
    );
    let all: Vec<u8> = (0..15).flat_map(|round| frame(&[round; 700])).collect();
    assert_eq!(world.expect(*slow, all.len()), all, "what it was sent before still arrives");
}

#[test]
fn a_full_mailbox_is_named_and_the_other_shards_have_the_packet() {
    let limits = Limits::default().mailbox_commands(1);
    let setup = Setup { workers: 3, limits, ..Setup::default() };
    let (mut world, conns, _) = with_handles(setup, 12);
    let two = ShardId(2);
    assert_eq!(
        world
            .registry
            .ask(two, crate::shard::Command::ClosePeer(([1, 2, 3, 4], 5).into(), Contained::new(None))),
        crate::runtime::PostOutcome::Posted
    );
    assert_eq!(world.broadcast(b"x"), Err(BroadcastError::MailboxFull { full: vec![two], took: 3 }));
    world.run_for(1);
    let got = |heard: &[Vec<u8>]| heard.iter().filter(|heard| **heard == frame(b"x")).count();
    assert_eq!(got(&heard(&world, &conns)), 8);
    assert_eq!(world.broadcast_where(b"x", move |session| session.id.shard() == two), Ok(4));
    world.run_for(1);
    let rest = heard(&world, &conns);
    assert_eq!((got(&rest), rest.iter().filter(|heard| heard.is_empty()).count()), (4, 8));
}

#[test]
fn the_bytes_of_a_broadcast_count_in_each_mailbox() {
    let setup = Setup { limits: Limits::default().mailbox_bytes(100), ..Setup::default() };
    let (mut world, conns, _) = with_handles(setup, 2);
    assert_eq!((world.broadcast(&[0; 60]), world.broadcast(&[1; 40])), (Ok(1), Ok(1)));
    let full = Err(BroadcastError::MailboxFull { full: vec![ShardId::ACCEPTOR], took: 0 });
    assert_eq!(world.broadcast(&[2]), full);
    world.run_for(1);
    assert!(heard(&world, &conns).iter().all(|heard| *heard == [frame(&[0; 60]), frame(&[1; 40])].concat()));
    assert_eq!(world.broadcast(&[3; 101]), full);
}

#[test]
fn each_copy_of_the_list_of_members_counts_once_in_the_mailbox() {
    let (mut world, conns, handles) = with_handles(Setup::default(), 10);
    let room = Channel::new();
    handles.iter().for_each(|handle| assert_eq!(room.join(handle), Ok(())));
    // The first list is the channel's own, and a change while nothing is on its way needs no other.
    let mut expected = 0;
    for (leaving, listed) in [(None, 0), (None, 0), (Some(0), 9 * 8), (None, 0), (Some(1), 8 * 8)] {
        leaving.iter().for_each(|at: &usize| assert!(room.leave(&handles[*at])));
        assert!(room.publish("five!").is_ok());
        expected += 5 + listed;
        assert_eq!(world.metrics().mailbox_bytes, expected);
    }
    world.run_for(2);
    assert_eq!(world.metrics().mailbox_bytes, 0);
    assert!(room.leave(&handles[2]));
    assert_eq!((room.publish("five!"), world.metrics().mailbox_bytes), (Ok(7), 5));
    world.run_for(2);
    let got = heard(&world, &conns).iter().map(|heard| heard.len() / 9).collect::<Vec<_>>();
    assert_eq!(got, [2, 4, 5, 6, 6, 6, 6, 6, 6, 6]);
}

#[test]
fn a_predicate_sees_each_session_and_its_panic_ends_the_broadcast_on_its_shard_alone() {
    let (mut world, conns, handles) = with_handles(Setup { workers: 2, ..budget(2, 1 << 20) }, 10);
    let chosen: Vec<_> = handles.iter().step_by(2).map(SessionHandle::id).collect();
    assert_eq!(world.broadcast_where(b"x", move |session| chosen.contains(&session.id)), Ok(3));
    world.run_for(1);
    assert_eq!(heard(&world, &conns).iter().filter(|heard| **heard == frame(b"x")).count(), 5);
    let bad = handles[0].id().shard();
    let panics = move |session: &SessionInfo| {
        if session.id.shard() == bad {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        true
    };
    assert_eq!(world.broadcast_where(b"y", panics), Ok(3));
    world.run_for(1);
    assert_eq!(heard(&world, &conns).iter().filter(|heard| **heard == frame(b"y")).count(), 5);
    assert_eq!((world.metrics().panics, world.metrics().sessions), (1, 10), "no session is closed for it");
}

#[test]
fn a_session_whose_framing_cannot_write_a_broadcast_is_left_out() {
    let mut world = World::new(Setup::default(), |probe| {
        let mut opened = 0;
        probe.open = Box::new(move |session, ()| {
            opened += 1;
            if opened % 2 == 0 {
                session.set_framing(LengthPrefix::u8());
            }
            Ok(())
        });
    });
    let conns: Vec<_> = (0..6).map(|_| world.connect()).collect();
    world.run_for(1);
    for packet in [&[5; 256][..], &[6; 3]] {
        assert_eq!(world.broadcast(packet), Ok(1));
    }
    world.run_for(1);
    let heard = heard(&world, &conns);
    assert_eq!(
        heard.iter().filter(|heard| **heard == [frame(&[5; 256]), frame(&[6; 3])].concat()).count(),
        3
    );
    assert_eq!(heard.iter().filter(|heard| **heard == [3, 6, 6, 6]).count(), 3);
    assert_eq!((world.metrics().sends_refused, world.metrics().sessions), (3, 6));
}

#[test]
fn an_abort_does_not_wait_for_broadcasts() {
    let (mut world, _conns, _) = with_handles(budget(1, 1 << 20), 50);
    for _ in 0..1_000 {
        assert_eq!(world.broadcast(b"x"), Ok(1));
    }
    world.turn();
    world.abort();
    world.run_to_rest();
    world.assert_gone();
    assert!(world.metrics().packets_out <= 64, "as many as are merged, to one session");
}

#[test]
fn a_broadcast_before_a_shutdown_still_reaches_all() {
    let (mut world, conns, _) = with_handles(Setup { workers: 2, ..budget(3, 1 << 20) }, 50);
    assert_eq!(world.broadcast(b"good-bye"), Ok(3));
    world.shut_down(std::time::Duration::from_secs(1));
    world.run_for(10);
    for conn in &conns {
        assert_eq!(world.net().hear_all(*conn), frame(b"good-bye"));
        world.net().end(*conn);
    }
    world.run_to_rest();
    world.assert_gone();
}

#[test]
fn members_that_close_while_a_packet_is_published_leave_and_the_others_get_it_once_in_order() {
    for (workers, forks) in [(0, 0), (3, 0), (0, 30)] {
        let (mut world, conns, handles) = with_handles(Setup { workers, forks, ..budget(2, 1 << 20) }, 20);
        let (room, left) = (Channel::new(), Arc::new(Mutex::new(Vec::new())));
        for handle in &handles {
            let left = left.clone();
            let on_leave = move |_, how| left.lock().unwrap_or_else(PoisonError::into_inner).push(how);
            assert_eq!(room.join_with(handle, on_leave), Ok(()));
        }
        assert_eq!(room.publish("one"), Ok(20));
        world.step();
        assert!(room.kick(&handles[7]), "it gets what was published before");
        world.net().reset(conns[0]);
        world.net().reset(conns[19]);
        assert_eq!(room.publish("two"), Ok(19));
        world.run_for(10);
        // Which client is whose is not known in a pool.
        let all = heard(&world, &conns[1..19]);
        let both = [frame(b"one"), frame(b"two")].concat();
        let kicked = all.iter().filter(|heard| **heard != both).collect::<Vec<_>>();
        assert!(kicked.is_empty() || kicked == [&frame(b"one")], "{kicked:?}");
        let rest = 18 - kicked.len();
        assert_eq!((room.len(), room.publish("three")), (rest, Ok(rest)));
        world.abort();
        world.run_to_rest();
        world.assert_gone();
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(room.is_empty() && left.len() == 20);
        left.retain(|how| *how != Left::Closed);
        assert_eq!(*left, [Left::Kicked], "that one was told of once");
    }
}

/// The bytes of a packet, with a destructor that panics.
struct Owner;

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        b"x"
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("on purpose"));
    }
}

#[test]
fn a_packet_whose_owner_panics_when_it_is_dropped_is_sent_and_counted() {
    let (mut world, conns, _) = with_handles(budget(3, 1 << 20), 5);
    let mut posted = Posted::default();
    world.registry.fan_out(&Bytes::from_owner(Owner), &Recipients::All, &mut posted);
    assert_eq!(posted.outcome(), Ok(1));
    world.run_for(1);
    assert!(heard(&world, &conns).iter().all(|heard| *heard == frame(b"x")));
    assert_eq!((world.metrics().panics, world.metrics().sessions), (1, 5));
    // One that no shard has taken when the server ends.
    world.registry.fan_out(&Bytes::from_owner(Owner), &Recipients::All, &mut Posted::default());
    world.abort();
    world.run_to_rest();
    world.assert_gone();
    assert_eq!(world.metrics().panics, 2);
}
