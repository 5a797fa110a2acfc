//! Channels while a packet is on its way to their members: who gets what, and what is told of it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    Channel, Left, Outcome, SendError, SessionHandle, SessionId, TicketError,
    error::CloseKind,
    limits::Limits,
    sim::{
        Conn, Setup, World, frame,
        tests::broadcast::{budget, with_handles},
    },
};

/// What is done between two turns of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Join,
    Leave,
    Kick,
    Close,
    Publish,
}

const STEPS: [Step; 5] = [Step::Join, Step::Leave, Step::Kick, Step::Close, Step::Publish];
/// The sessions that these concern; the others stay members.
const JOINS: usize = 7;
const LEAVES: usize = 2;
const KICKED: usize = 3;
const CLOSES: usize = 4;

type Tellings = Arc<Mutex<Vec<(SessionId, Left)>>>;

/// Publishes to seven of eight sessions, one in each turn, and does these steps meanwhile.
fn publish_and_do(steps: [Step; 3]) {
    let (mut world, conns, handles) = with_handles(budget(1, 1 << 20), 8);
    let (room, told) = (Channel::new(), Tellings::default());
    let on_leave = || {
        let told = told.clone();
        move |id, how| told.lock().unwrap_or_else(PoisonError::into_inner).push((id, how))
    };
    let mut members: Vec<usize> = (0..JOINS).collect();
    members.iter().for_each(|at| assert_eq!(room.join_with(&handles[*at], on_leave()), Ok(())));
    let mut owed = vec![Vec::new(); 8];
    let mut expected = Vec::new();
    let mut publish = |members: &[usize], packet: &str| {
        assert!(room.publish(packet).is_ok_and(|count| count >= members.len()), "{steps:?}");
        members.iter().for_each(|at| owed[*at].extend(frame(packet.as_bytes())));
    };
    publish(&members, "before");
    for (number, step) in steps.into_iter().enumerate() {
        world.turn();
        let mut remove = |at: usize, how: Left| {
            let was_member = members.contains(&at);
            members.retain(|member| *member != at);
            expected.extend(was_member.then_some((handles[at].id(), how)));
            was_member
        };
        match step {
            Step::Join => {
                let is_new = !members.contains(&JOINS);
                assert_eq!(room.join_with(&handles[JOINS], on_leave()).is_ok(), is_new, "{steps:?}");
                members.extend(is_new.then_some(JOINS));
            }
            Step::Leave => assert_eq!(room.leave(&handles[LEAVES]), remove(LEAVES, Left::Left), "{steps:?}"),
            Step::Kick => {
                assert_eq!(room.kick(handles[KICKED].id()), remove(KICKED, Left::Kicked), "{steps:?}")
            }
            Step::Close => {
                assert_eq!(handles[CLOSES].close(), Ok(()));
                remove(CLOSES, Left::Closed);
            }
            Step::Publish => publish(&members, &format!("meanwhile {number}")),
        }
    }
    world.run_for(50);
    publish(&members, "after");
    world.run_for(50);
    for (conn, owed) in conns.iter().zip(&owed) {
        assert_eq!(world.net().hear_all(*conn), *owed, "{steps:?}");
    }
    let ids = |mut ids: Vec<SessionId>| {
        ids.sort_unstable();
        ids
    };
    let here = members.iter().map(|at| handles[*at].id()).collect();
    let found = room.members().iter().map(SessionHandle::id).collect();
    assert_eq!(ids(found), ids(here), "{steps:?}");
    let sorted = |mut told: Vec<(SessionId, Left)>| {
        told.sort_by_key(|(id, _)| *id);
        told
    };
    let so_far = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(sorted(so_far), sorted(expected.clone()), "{steps:?}");
    world.abort();
    world.run_to_rest();
    world.assert_gone();
    expected.extend(members.iter().map(|at| (handles[*at].id(), Left::Closed)));
    let all = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(sorted(all), sorted(expected), "{steps:?}: each is told of once");
}

#[test]
fn whatever_members_do_during_a_publication_each_gets_what_was_published_while_it_was_one() {
    for first in STEPS {
        for second in STEPS {
            for third in STEPS {
                publish_and_do([first, second, third]);
            }
        }
    }
}

fn told_of(outcomes: &[(SessionId, Option<Outcome>)], id: SessionId) -> Option<Outcome> {
    outcomes.iter().find(|(member, _)| *member == id).and_then(|(_, outcome)| outcome.clone())
}

#[test]
fn what_became_of_a_packet_is_told_of_each_member() {
    let limits =
        Limits::default().fanout_budget(1, 1 << 20).outbox_low(800).outbox_high(900).outbox_hard(1_000);
    for workers in [0, 2] {
        let mut setup = Setup { limits: limits.clone(), workers, ..Setup::default() };
        setup.sizes.down = 2_000;
        let (mut world, conns, handles) = with_handles(setup, 5);
        let room = Channel::new();
        handles.iter().for_each(|handle| assert_eq!(room.join(handle), Ok(())));
        // More than its peer takes before it reads, and as much as its outbox holds.
        for len in [996, 996, 900] {
            assert_eq!(handles[1].send(vec![7; len]), Ok(()));
            world.run_for(2);
        }
        assert_eq!(handles[2].abort(), Ok(()));
        let ticket = room.publish_tracked(vec![1; 120]).expect("bytes are their payload");
        assert_eq!((ticket.len(), ticket.pending(), room.len()), (5, 5, 5));
        world.run_for(20);
        assert_eq!(ticket.pending(), 0);
        let outcomes = ticket.outcomes();
        for at in [0, 3, 4] {
            assert_eq!(told_of(&outcomes, handles[at].id()), Some(Ok(())));
        }
        let full = told_of(&outcomes, handles[1].id());
        assert!(
            matches!(full, Some(Err(TicketError::Refused(SendError::Full { limit: 1_000, .. })))),
            "{full:?}"
        );
        assert!(handles[1].is_open(), "it stays");
        let closed = Some(Err(TicketError::Closed(CloseKind::Local)));
        assert_eq!(told_of(&outcomes, handles[2].id()), closed);
        assert_eq!(ticket.wait().len(), 5);
        world.abort();
        world.run_to_rest();
        world.assert_gone();
        drop(conns);
    }
}

#[test]
fn a_server_that_ends_while_a_packet_is_published_leaves_no_member_undecided() {
    let ends: [fn(&mut World, &[Conn]); 3] = [
        |world, _| world.abort(),
        |world, conns| conns.iter().for_each(|conn| world.net().reset(*conn)),
        |world, _| world.shut_down(std::time::Duration::ZERO),
    ];
    for (workers, forks) in [(0, 0), (2, 0), (0, 6)] {
        for end in ends {
            let (mut world, conns, handles) = with_handles(Setup { workers, forks, ..budget(4, 1 << 20) }, 6);
            let room = Channel::new();
            handles.iter().for_each(|handle| assert_eq!(room.join(handle), Ok(())));
            let tickets: Vec<_> =
                (0..2).map(|_| room.publish_tracked("x").expect("a text is its payload")).collect();
            world.step();
            end(&mut world, &conns);
            world.run_for(100);
            world.abort();
            world.run_to_rest();
            world.assert_gone();
            for ticket in tickets {
                assert_eq!((ticket.len(), ticket.pending()), (6, 0));
                for (_, outcome) in ticket.wait() {
                    assert!(matches!(outcome, Ok(()) | Err(TicketError::Closed(_))), "{outcome:?}");
                }
            }
        }
    }
}
