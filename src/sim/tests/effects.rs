//! What sessions and shards ask of other sessions: sends and closes by id, the shard's timers, jobs with its states.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    ShardContext,
    contained::Contained,
    error::{CloseKind, SendError, TicketError},
    id::{SessionId, ShardId},
    limits::Limits,
    session::{SessionHandle, TimerId},
    shard::{Command, HandlerJob, Job},
    sim::{Callback, Heard, Probe, Setup, World, frame},
    sync::SendTicket,
};

/// The sessions of all shards, in the order in which they were opened.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Vec<SessionHandle>>>);

impl Room {
    fn lock(&self) -> MutexGuard<'_, Vec<SessionHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids(&self) -> Vec<SessionId> {
        self.lock().iter().map(SessionHandle::id).collect()
    }
}

/// A world whose sessions pass what they are sent on to all of the room.
fn passing(setup: Setup) -> (World, Room) {
    let room = Room::default();
    let known = room.clone();
    let world = World::new(setup, move |probe| {
        let (known, others) = (known.clone(), known.clone());
        probe.open = Box::new(move |session, ()| {
            known.lock().push(session.handle());
            Ok(())
        });
        probe.packet = Box::new(move |session, packet| {
            for other in others.ids() {
                session.send_to(other, packet)?;
            }
            Ok(())
        });
    });
    (world, room)
}

#[test]
fn a_packet_for_another_session_of_the_thread_is_written_in_the_same_turn_without_a_wake_up() {
    let (mut world, _room) = passing(Setup::default());
    let conns = [(); 3].map(|()| world.connect());
    world.run_for(5);
    let before = world.metrics();
    world.net().say(conns[0], &[frame(b"one"), frame(b"two")].concat());
    world.turn();
    for conn in conns {
        assert_eq!(world.net().hear_all(conn), [frame(b"one"), frame(b"two")].concat());
    }
    let after = world.metrics();
    assert_eq!((after.wakeups, after.turns), (before.wakeups, before.turns + 1));
    assert_eq!(after.packets_out - before.packets_out, 6);
    conns.into_iter().for_each(|conn| world.net().leave(conn));
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn packets_between_the_shards_of_a_pool_arrive_whole_and_in_order() {
    let (mut world, _room) = passing(Setup { workers: 3, ..Setup::default() });
    let conns: Vec<_> = (0..9).map(|_| world.connect()).collect();
    world.run_for(5);
    let said: Vec<u8> = (0..50u8).flat_map(|number| frame(&[number; 20])).collect();
    world.net().say(conns[4], &said);
    for conn in conns {
        assert_eq!(world.expect(conn, said.len()), said);
        world.net().leave(conn);
    }
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_packet_does_not_overtake_one_that_was_sent_through_a_handle_before() {
    let mut world = World::new(Setup::default(), |probe| {
        let mut first: Option<SessionHandle> = None;
        let mut known = None;
        probe.open = Box::new(move |session, ()| {
            let first = first.get_or_insert_with(|| session.handle());
            if first.id() != session.id() {
                // Through the mailbox, past it, through the mailbox.
                first.send("1")?;
                session.send_to(first.id(), "2")?;
                first.send("3")?;
                session.send_to(first.id(), "4")?;
            }
            Ok(())
        });
        probe.packet = Box::new(move |session, packet| {
            let first = *known.get_or_insert(session.id());
            Ok(session.send_to(first, packet)?)
        });
    });
    let first = world.connect();
    world.run_for(5);
    let _second = world.connect();
    let expected: Vec<u8> = ["1", "2", "3", "4"].iter().flat_map(|text| frame(text.as_bytes())).collect();
    assert_eq!(world.expect(first, expected.len()), expected);
}

#[test]
fn a_session_that_is_closed_by_another_gets_what_was_sent_to_it_before() {
    for workers in [0, 2] {
        let room = Room::default();
        let known = room.clone();
        let mut world = World::new(Setup { workers, ..Setup::default() }, move |probe| {
            let (known, others) = (known.clone(), known.clone());
            probe.open = Box::new(move |session, ()| {
                known.lock().push(session.handle());
                Ok(())
            });
            probe.packet = Box::new(move |session, packet| {
                let me = session.id();
                for other in others.ids().into_iter().filter(|other| *other != me) {
                    session.send_to(other, packet)?;
                    session.close_session(other)?;
                    session.send_to(other, "after the end")?;
                }
                session.send("done")?;
                Ok(session.close_session(me)?)
            });
        });
        let conns: Vec<_> = (0..4).map(|_| world.connect()).collect();
        world.run_for(5);
        world.net().say(conns[0], &frame(b"out"));
        world.run_for(5);
        assert_eq!(world.net().hear_all(conns[0]), frame(b"done"));
        for conn in &conns {
            let heard = world.net().hear_all(*conn);
            assert!(heard.is_empty() || heard == frame(b"out"), "{heard:?}");
            assert_eq!(world.hears(*conn), Heard::End);
            world.net().leave(*conn);
        }
        world.run_to_rest();
        assert!(world.log.closes().iter().all(|(_, kind)| *kind == CloseKind::Local));
        assert_eq!(world.log.closes().len(), 4);
        world.assert_empty();
    }
}

#[test]
fn a_session_whose_peer_does_not_read_is_closed_by_the_packets_of_others_and_they_go_on() {
    let limits = Limits::default().outbox_low(1_000).outbox_high(2_000).outbox_hard(10_000);
    let mut setup = Setup { limits, ..Setup::default() };
    setup.sizes.down = 1_000;
    let (mut world, _room) = passing(setup);
    let (slow, quick) = (world.connect(), world.connect());
    world.run_for(5);
    for round in 0..40u8 {
        world.net().say(quick, &frame(&[round; 700]));
        assert_eq!(world.expect(quick, 704), frame(&[round; 700]));
    }
    assert_eq!(world.log.closes().len(), 0, "its outbox is still flushed, as far as it reads");
    world.net().hear_all(slow);
    world.net().leave(slow);
    world.run_for(10_000);
    let kinds: Vec<_> = world.log.closes().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [CloseKind::Send]);
    world.net().leave(quick);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_refusal_tells_the_limit_that_applied() {
    let limits = Limits::default().outbox_low(1_000).outbox_high(2_000).outbox_hard(10_000);
    let room = Room::default();
    let tickets = Arc::<Mutex<Vec<SendTicket>>>::default();
    let (known, kept) = (room.clone(), tickets.clone());
    let mut world = World::new(Setup { limits, ..Setup::default() }, move |probe| {
        let (known, others, tickets) = (known.clone(), known.clone(), kept.clone());
        probe.open = Box::new(move |session, ()| {
            known.lock().push(session.handle());
            Ok(())
        });
        probe.packet = Box::new(move |session, _| {
            let to = others.lock()[0].clone();
            for _ in 0..3 {
                session.send_to(to.id(), [1; 4_996])?;
            }
            assert_eq!(to.send([2; 10_001]), Err(SendError::Full { queued: 0, limit: 10_000 }));
            let ticket = to.send_tracked([2; 9_000])?;
            tickets.lock().unwrap_or_else(PoisonError::into_inner).push(ticket);
            Ok(())
        });
    });
    let (receiver, sender) = (world.connect(), world.connect());
    world.run_for(5);
    world.net().say(sender, &frame(b"go"));
    assert_eq!(world.expect(receiver, 15_000).len(), 15_000);
    let outcome = tickets.lock().unwrap_or_else(PoisonError::into_inner)[0].outcome();
    // The handle allowed it before the others were in the outbox, and there twice as much is allowed.
    assert_eq!(outcome, Some(Err(TicketError::Refused(SendError::Full { queued: 15_000, limit: 20_000 }))));
    assert_eq!((world.metrics().sends_refused, world.log.closes().len()), (1, 0));
}

#[test]
fn a_session_is_not_closed_because_another_is_gone_with_its_shard() {
    let (mut world, _room) = passing(Setup { forks: 10, ..Setup::default() });
    let (stays, goes) = (world.connect(), world.connect());
    world.run_for(5);
    world.net().leave(goes);
    world.run_for(5);
    assert_eq!(world.shards(), 2, "the acceptor's, and the one that stays");
    world.net().say(stays, &frame(b"hello"));
    assert_eq!(world.expect(stays, 9), frame(b"hello"));
    assert_eq!(world.log.closes().len(), 1);
    world.net().leave(stays);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn packets_for_sessions_that_are_gone_go_nowhere() {
    let (mut world, room) = passing(Setup::default());
    let (stays, goes) = (world.connect(), world.connect());
    world.run_for(5);
    world.net().leave(goes);
    world.run_for(5);
    // Its slot is another's now.
    let newcomer = world.connect();
    world.run_for(5);
    room.lock().pop();
    world.net().say(stays, &frame(b"hello"));
    assert_eq!(world.expect(stays, 9), frame(b"hello"));
    world.run_for(5);
    assert_eq!(world.net().hear_all(newcomer), b"");
}

#[test]
fn a_callback_may_send_no_more_to_others_than_a_mailbox_takes() {
    let limits = Limits::default().mailbox_commands(100);
    let mut world = World::new(Setup { limits, ..Setup::default() }, |probe| {
        let mut first = None;
        probe.packet = Box::new(move |session, _| {
            let first = *first.get_or_insert(session.id());
            if first != session.id() {
                let sent = (0..200).take_while(|_| session.send_to(first, "x").is_ok()).count();
                assert_eq!(sent, 100);
                session.send("told")?;
            }
            Ok(())
        });
    });
    let (first, second) = (world.connect(), world.connect());
    world.run_for(5);
    world.net().say(first, &frame(b"here"));
    world.run_for(5);
    world.net().say(second, &frame(b"go"));
    assert_eq!(world.expect(second, 8), frame(b"told"));
    assert_eq!(world.expect(first, 500).len(), 500);
}

/// Ticks every 50 ms, and tells each session of it.
fn ticking(probe: &mut Probe) {
    const TICK: TimerId = TimerId(7);
    let every = Duration::from_millis(50);
    probe.start = Box::new(move |shard, _| shard.set_timer(TICK, every).expect("it is the first"));
    probe.shard_timer = Box::new(move |shard, timer| {
        shard.set_timer(TimerId(timer), every).expect("it was taken out");
        shard.each(|session, state| {
            assert_eq!(session.id(), *state, "the state of another session");
            session.send("tick").expect("there is room");
        });
    });
}

#[test]
fn a_shard_has_timers_of_its_own_that_reach_each_of_its_sessions() {
    for workers in [0, 2] {
        let mut world = World::new(Setup { workers, ..Setup::default() }, ticking);
        world.run_until(10);
        let conns: Vec<_> = (0..4).map(|_| world.connect()).collect();
        world.run_until(149);
        world.net().end(conns[3]);
        world.run_until(201);
        let heard: Vec<_> = conns.iter().map(|conn| world.net().hear_all(*conn).len() / 8).collect();
        assert_eq!(heard, [4, 4, 4, 2], "at 50, 100, 150 and 200; the last one left after two");
        world.shut_down(Duration::from_millis(100));
        conns.iter().for_each(|conn| world.net().leave(*conn));
        world.run_to_rest();
        assert!(world.has_stopped());
        world.assert_empty();
    }
}

#[test]
fn timers_of_a_shard_are_moved_cancelled_and_limited() {
    let limits = Limits::default().session_timers(2);
    let due = Arc::new(Mutex::new(Vec::new()));
    let noted = due.clone();
    let mut world = World::new(Setup { limits, ..Setup::default() }, move |probe| {
        let after = Duration::from_millis;
        let noted = noted.clone();
        probe.start = Box::new(move |shard, _| {
            assert_eq!(shard.set_timer(TimerId(1), after(10)), Ok(()));
            assert_eq!(shard.set_timer(TimerId(2), after(20)), Ok(()));
            assert!(shard.set_timer(TimerId(3), after(30)).is_err(), "two are the limit");
            assert_eq!(shard.set_timer(TimerId(1), after(40)), Ok(()), "it is moved");
            assert!(shard.cancel_timer(TimerId(2)) && !shard.cancel_timer(TimerId(2)));
            assert_eq!(shard.set_timer(TimerId(4), after(50)), Ok(()));
        });
        probe.shard_timer = Box::new(move |_, timer| {
            noted.lock().unwrap_or_else(PoisonError::into_inner).push(timer);
        });
    });
    world.run_until(45);
    assert_eq!(*due.lock().unwrap_or_else(PoisonError::into_inner), [1]);
    world.run_until(100);
    assert_eq!(*due.lock().unwrap_or_else(PoisonError::into_inner), [1, 4]);
}

#[test]
fn a_panic_in_a_timer_of_the_shard_is_counted_and_the_shard_goes_on() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.start = Box::new(|shard, _| {
            shard.set_timer(TimerId(1), Duration::from_millis(10)).expect("it is the first");
        });
        probe.shard_timer = Box::new(|shard, _| {
            shard.each(|session, _| session.send("before").expect("there is room"));
            panic!("on purpose");
        });
    });
    let conn = world.connect();
    world.run_until(20);
    world.net().say(conn, &frame(b"still served"));
    let expected = [frame(b"before"), frame(b"still served")].concat();
    assert_eq!(world.expect(conn, expected.len()), expected);
    assert_eq!(world.metrics().panics, 1);
}

#[test]
fn a_job_reaches_the_handler_and_the_states_of_its_sessions() {
    let mut world = World::new(Setup { workers: 2, ..Setup::default() }, |_| ());
    let conns: Vec<_> = (0..4).map(|_| world.connect()).collect();
    world.run_for(5);
    for shard in [1, 2] {
        let job: HandlerJob<Probe> = Box::new(move |probe, context: &mut ShardContext<'_, SessionId>| {
            assert_eq!(context.id(), ShardId::new(shard));
            let ids: Vec<_> = context.ids().collect();
            assert_eq!(ids.len(), 2);
            for id in ids {
                let state = context.with(id, |session, state| {
                    session.send("from a job").expect("there is room");
                    *state
                });
                assert_eq!(state, Some(id));
            }
            // The handler is there beside its sessions.
            probe.packet = Box::new(|session, _| Ok(session.send("changed")?));
        });
        world.post(shard as usize, Command::Execute(Contained::new(Job::WithHandler(Box::new(job)))));
    }
    for conn in &conns {
        assert_eq!(world.expect(*conn, 14), frame(b"from a job"));
        world.net().say(*conn, &frame(b"?"));
        assert_eq!(world.expect(*conn, 11), frame(b"changed"));
        world.net().leave(*conn);
    }
    world.run_to_rest();
    let metrics = world.metrics();
    assert_eq!((metrics.packets_in, metrics.packets_out), (4, 8), "wherever they were sent");
    assert_eq!(world.metrics().panics, 0);
    assert_eq!(world.log.count(&Callback::End), 4);
    world.assert_empty();
}

#[test]
fn what_a_callback_has_asked_of_others_is_done_though_it_panics() {
    let (mut world, room) = {
        let room = Room::default();
        let known = room.clone();
        let world = World::new(Setup::default(), move |probe| {
            let (known, others) = (known.clone(), known.clone());
            probe.open = Box::new(move |session, ()| {
                known.lock().push(session.handle());
                Ok(())
            });
            probe.packet = Box::new(move |session, packet| {
                let me = session.id();
                for other in others.ids().into_iter().filter(|other| *other != me) {
                    session.send_to(other, packet)?;
                    session.close_session(other)?;
                }
                std::panic::resume_unwind(Box::new("on purpose"));
            });
        });
        (world, room)
    };
    let (panics, other) = (world.connect(), world.connect());
    world.run_for(5);
    assert_eq!(room.lock().len(), 2);
    world.net().say(panics, &frame(b"last words"));
    world.run_for(5);
    assert_eq!(world.net().hear_all(other), frame(b"last words"));
    for conn in [panics, other] {
        assert_eq!(world.hears(conn), Heard::End);
        world.net().leave(conn);
    }
    world.run_to_rest();
    let kinds: Vec<_> = world.log.closes().into_iter().map(|(_, kind)| kind).collect();
    assert!(kinds.contains(&CloseKind::Panicked) && kinds.contains(&CloseKind::Local), "{kinds:?}");
    world.assert_empty();
}

#[test]
fn a_timer_of_a_shard_that_is_set_again_at_once_leaves_time_for_sessions() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.start = Box::new(|shard, _| {
            shard.set_timer(TimerId(1), Duration::ZERO).expect("it is the first");
        });
        probe.shard_timer = Box::new(|shard, timer| {
            shard.set_timer(TimerId(timer), Duration::ZERO).expect("it was taken out");
            shard.each(|session, _| drop(session.send("tick")));
        });
    });
    let conn = world.connect();
    (0..5).for_each(|_| world.turn());
    world.net().hear_all(conn);
    let before = world.metrics();
    world.net().say(conn, &frame(b"hello"));
    (0..5).for_each(|_| world.turn());
    let heard = world.net().hear_all(conn);
    assert!(heard.windows(9).any(|window| window == frame(b"hello")), "it was served between the ticks");
    let after = world.metrics();
    assert_eq!(
        (after.turns - before.turns, after.packets_out - before.packets_out),
        (5, 6),
        "a tick each turn"
    );
    world.shut_down(Duration::from_millis(100));
    world.net().leave(conn);
    for _ in 0..100 {
        if !world.has_stopped() {
            world.turn();
        }
    }
    assert!(world.has_stopped(), "timers do not hold up the end");
}
