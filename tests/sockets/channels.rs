//! Channels: who is in them, who hears what is published, and how members leave.

use std::sync::{
    Arc, Barrier, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
    mpsc::channel,
};
use std::thread;

use crate::common::{Client, ON_PURPOSE, On, PATIENCE, Served, hush, on_each_strategy_and_transport, until};
use framewire::{
    BroadcastError, Channel, Channels, CloseKind, JoinError, Left, LengthPrefix, Limits, SendError,
    SessionHandle, SessionId, TicketError,
};

on_each_strategy_and_transport! {
    members_hear_what_is_published_in_order_and_others_do_not
    a_publisher_is_left_out_only_of_the_packet_for_which_it_asked
    members_that_close_leave_by_themselves
    a_kick_may_use_the_channel_in_its_callback
    a_publication_that_is_tracked_tells_of_each_member
    sessions_of_two_servers_are_members_beside_each_other
    a_member_that_does_not_read_is_closed_and_delays_no_other
}

fn serve(on: On) -> Served {
    on.echo(Limits::default().fanout_budget(2, 1 << 20))
}

fn members(served: &Served, channel: &Channel, count: usize) -> Vec<(Client, SessionHandle)> {
    let join = |_| {
        let (client, session) = served.connect_known();
        channel.join(&session).expect("it is open");
        (client, session)
    };
    (0..count).map(join).collect()
}

fn members_hear_what_is_published_in_order_and_others_do_not(on: On) {
    let (served, channel) = (serve(on), Channel::new());
    let mut members = members(&served, &channel, 7);
    let (mut stranger, _) = served.connect_known();
    assert_eq!(channel.join(&members[3].1), Err(JoinError::AlreadyMember));
    for number in 0..50 {
        assert_eq!(channel.publish(format_args!("to all {number}")), Ok(7));
        members[2].1.send(format_args!("to one {number}")).expect("it is open");
    }
    assert!(channel.leave(&members[6].1) && !channel.leave(&members[6].1));
    assert_eq!(channel.publish("the rest"), Ok(6));
    for (at, (client, _)) in members.iter_mut().enumerate() {
        for number in 0..50 {
            assert_eq!(client.recv_text(), format!("to all {number}"));
            if at == 2 {
                assert_eq!(client.recv_text(), format!("to one {number}"));
            }
        }
        if at < 6 {
            assert_eq!(client.recv_text(), "the rest");
        }
    }
    for client in [&mut stranger, &mut members[6].0] {
        client.send("echo");
        assert_eq!(client.recv_text(), "echo", "and nothing before");
    }
    drop((members, stranger));
    served.finish();
}

fn a_publisher_is_left_out_only_of_the_packet_for_which_it_asked(on: On) {
    let (served, channel) = (serve(on), Channel::new());
    let mut members = members(&served, &channel, 4);
    let (stranger, outside) = served.connect_known();
    assert_eq!(channel.publish_except(&members[1].1, "not for 1"), Ok(3));
    assert_eq!(channel.publish("for all"), Ok(4));
    assert_eq!(channel.publish_except(&outside, "from outside"), Ok(4));
    for (at, (client, _)) in members.iter_mut().enumerate() {
        if at != 1 {
            assert_eq!(client.recv_text(), "not for 1");
        }
        assert_eq!((client.recv_text().as_str(), client.recv_text().as_str()), ("for all", "from outside"));
    }
    drop((members, stranger));
    served.finish();
}

fn members_that_close_leave_by_themselves(on: On) {
    let (served, one, other) = (serve(on), Channel::new(), Channel::new());
    let (told, tellings) = channel();
    let mut clients = Vec::new();
    for _ in 0..6 {
        let (client, session) = served.connect_known();
        for channel in [&one, &other] {
            let told = told.clone();
            let report = move |id, how| told.send((id, how)).expect("the test goes on");
            channel.join_with(&session, report).expect("it is open");
        }
        clients.push((client, session));
    }
    // In every way: by its peer, by us, with a reset.
    drop(clients.remove(0));
    clients[0].1.close().expect("it is open");
    clients[1].1.abort().expect("it is open");
    let mut left: Vec<(SessionId, Left)> =
        (0..6).map(|_| tellings.recv_timeout(PATIENCE).expect("they leave")).collect();
    assert!(left.iter().all(|(_, how)| *how == Left::Closed));
    left.sort_by_key(|(id, _)| *id);
    left.dedup();
    assert_eq!((left.len(), one.len(), other.len()), (3, 3, 3), "each was told of once by each channel");
    until("both are closed", || !clients[0].1.is_open() && !clients[1].1.is_open());
    assert_eq!(one.join(&clients[0].1), Err(JoinError::Closed));
    assert_eq!(one.publish("x"), Ok(3));
    drop(clients);
    until("all have left", || one.is_empty() && other.is_empty());
    assert_eq!(one.publish("x"), Ok(0));
    served.finish();
    assert_eq!(tellings.try_iter().count(), 6);
}

fn a_kick_may_use_the_channel_in_its_callback(on: On) {
    let (served, room) = (serve(on), Channel::new());
    let (mut client, session) = served.connect_known();
    let (mut other, witness) = served.connect_known();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (channel, again, log) = (room.clone(), session.clone(), seen.clone());
    let on_leave = move |id, how| {
        log.lock().unwrap_or_else(PoisonError::into_inner).push((id, how, channel.len()));
        assert!(!channel.kick(&again) && !channel.has(&again), "it has left");
        channel.publish(format_args!("kicked: {how:?}")).expect("there is room");
        channel.join(&again).expect("it may come back");
        assert!(channel.leave(&again) && channel.join(&again).is_ok() && channel.kick(again.id()));
        channel.join(&again).expect("it may come back again");
    };
    room.join(&witness).expect("it is open");
    room.join_with(&session, on_leave).expect("it is open");
    assert!(room.kick(&session));
    assert_eq!(other.recv_text(), "kicked: Kicked");
    assert_eq!(*seen.lock().unwrap_or_else(PoisonError::into_inner), [(session.id(), Left::Kicked, 1)]);
    assert_eq!((room.len(), room.publish("back")), (2, Ok(2)));
    assert_eq!((client.recv_text().as_str(), other.recv_text().as_str()), ("back", "back"));
    drop((client, other));
    served.finish();
}

fn a_publication_that_is_tracked_tells_of_each_member(on: On) {
    let server = on.bind().limits(crate::common::patient().outbox_hard(16 << 20)).send_buffer(16 * 1024);
    let (served, channel) = (Served::echo(server), Channel::new());
    let mut quick = members(&served, &channel, 3);
    let (mut slow, session) = served.known(Served::connect_narrow);
    channel.join(&session).expect("it is open");
    assert_eq!(session.send(vec![7; 1 << 20]), Ok(()), "more than a pair of small kernel buffers takes");
    let ticket = channel.publish_tracked("news").expect("a text is its payload");
    for (client, _) in &mut quick {
        assert_eq!(client.recv_text(), "news");
    }
    until("the others are decided", || ticket.pending() == 1);
    let short = std::time::Duration::from_millis(20);
    for (member, outcome) in ticket.wait_timeout(short) {
        let expected = if member == session.id() { Err(TicketError::TimedOut(short)) } else { Ok(()) };
        assert_eq!(outcome, expected);
    }
    assert_eq!(slow.recv().len(), 1 << 20);
    assert_eq!(slow.recv_text(), "news");
    assert!(ticket.wait_timeout(PATIENCE).iter().all(|(_, outcome)| outcome.is_ok()));

    assert_eq!(session.send(vec![7; 1 << 20]), Ok(()));
    let ticket = channel.publish_tracked("more").expect("a text is its payload");
    slow.reset();
    let told = ticket.wait_timeout(PATIENCE);
    let of_slow: Vec<_> = told.iter().filter(|(member, _)| *member == session.id()).collect();
    // Over a Unix socket there are no resets.
    assert!(
        matches!(of_slow[..], [(_, Err(TicketError::Closed(CloseKind::Io | CloseKind::PeerClosed)))]),
        "{told:?}"
    );
    assert_eq!((told.len(), told.iter().filter(|(_, outcome)| outcome.is_ok()).count()), (4, 3));
    drop(quick);
    served.finish();
}

fn sessions_of_two_servers_are_members_beside_each_other(on: On) {
    let (one, other, channel) = (serve(on), serve(on), Channel::new());
    let mut here = members(&one, &channel, 3);
    let mut there = members(&other, &channel, 3);
    let ids: Vec<SessionId> = here.iter().map(|(_, session)| session.id()).collect();
    assert!(there.iter().all(|(_, session)| !ids.contains(&session.id())), "ids of two servers differ");
    assert_eq!((channel.len(), channel.publish("all")), (6, Ok(6)));
    assert!(channel.kick(&here[0].1));
    assert_eq!(channel.publish_except(&here[1].1, "some"), Ok(4));
    for (at, (client, _)) in here.iter_mut().chain(&mut there).enumerate() {
        assert_eq!(client.recv_text(), "all");
        if at > 1 {
            assert_eq!(client.recv_text(), "some", "{at}");
        }
    }
    drop((here, there));
    one.finish();
    other.finish();
}

fn a_member_that_does_not_read_is_closed_and_delays_no_other(on: On) {
    const PACKETS: usize = 200;
    let limits = Limits::default().outbox_low(1 << 14).outbox_high(1 << 16).outbox_hard(1 << 20);
    let (served, channel) = (on.echo(limits), Channel::new());
    let (stuck, session) = served.known(Served::connect_narrow);
    channel.join(&session).expect("it is open");
    let mut quick = members(&served, &channel, 3);
    let packet = vec![7; 64 * 1024];
    for _ in 0..PACKETS {
        assert!(channel.publish(&packet[..]).is_ok());
        for (client, _) in &mut quick {
            assert_eq!(client.recv().len(), packet.len());
        }
    }
    until("it has left", || channel.len() == 3);
    drop((stuck, quick));
    until("all have ended", || served.journal.closed() == 4);
    assert_eq!(served.journal.ended_by(CloseKind::Send), 1);
    served.finish();
}

#[test]
fn a_channel_has_no_more_members_than_it_may() {
    let served = serve(On::SingleReactor);
    let room = Channel::new().max_members(2);
    let mut some = members(&served, &room, 2);
    let (client, session) = served.connect_known();
    let told = Arc::new(AtomicUsize::new(0));
    let on_leave = |told: &Arc<AtomicUsize>| {
        let told = told.clone();
        move |_, _| {
            told.fetch_add(1, Ordering::Relaxed);
        }
    };
    let full = room.join_with(&session, on_leave(&told));
    assert_eq!(
        full.map_err(|error| error.to_string()),
        Err("the channel has 2 members, its limit".to_owned())
    );
    assert_eq!(Arc::strong_count(&told), 1, "what is not needed is dropped");
    assert!(room.leave(&some[0].1));
    room.join_with(&session, on_leave(&told)).expect("there is room");
    assert!(room.clone() == room && room != Channel::new());
    let mut members = room.members();
    members.sort_by_key(SessionHandle::id);
    assert_eq!(members, [some.remove(1).1, session]);
    drop((client, some, members));
    served.finish();
    assert_eq!((told.load(Ordering::Relaxed), room.len()), (1, 0));
}

#[test]
fn a_channel_by_name_lives_as_long_as_it_has_members() {
    let (served, rooms) = (serve(On::SingleReactor), Channels::new());
    let (mut client, session) = served.connect_known();
    rooms.get("lobby").join(&session).expect("it is open");
    assert_eq!(rooms.clone().find("lobby").map(|room| room.publish("x")), Some(Ok(1)));
    assert_eq!((client.recv_text().as_str(), rooms.len()), ("x", 1));
    drop(client);
    served.finish();
    assert!(rooms.is_empty());
}

#[test]
fn a_panic_in_what_a_member_leaves_behind_is_counted_and_closes_nothing() {
    hush();
    let (served, room) = (serve(On::SingleReactor), Channel::new());
    let (client, session) = served.connect_known();
    room.join_with(&session, |_, _| panic!("{ON_PURPOSE}")).expect("it is open");
    drop(client);
    served.until_counted("the panic", |metrics| metrics.panics == 1);
    assert_eq!(room.len(), 0);
    let mut next = served.connect();
    next.send("on");
    assert_eq!(next.recv_text(), "on");
    drop(next);
    served.finish();
}

#[test]
fn a_full_mailbox_is_named_when_a_packet_is_published() {
    let server = On::SingleReactor.bind().framing(LengthPrefix::u32_be());
    let served = Served::start(server.limits(Limits::default().mailbox_bytes(100)), crate::common::echo());
    let room = Channel::new();
    let mut some = members(&served, &room, 2);
    let shards = vec![some[0].1.id().shard()];
    match room.publish([0; 101]) {
        Err(BroadcastError::MailboxFull { full, took, .. }) => assert_eq!((full, took), (shards, 0)),
        other => panic!("{other:?}"),
    }
    for (_, outcome) in room.publish_tracked([0; 101]).expect("bytes are their payload").wait() {
        assert!(matches!(outcome, Err(TicketError::Refused(SendError::MailboxFull { .. }))), "{outcome:?}");
    }
    assert_eq!(room.publish([1; 100]), Ok(2));
    assert!(some.iter_mut().all(|(client, _)| client.recv() == [1; 100]));
    drop(some);
    served.finish();
}

#[test]
fn joins_leaves_kicks_and_closes_of_many_threads_tell_of_each_membership_once() {
    const ROUNDS: usize = 300;
    let served = serve(On::WorkerPool);
    for _ in 0..5 {
        let room = Channel::new();
        let (client, session) = served.connect_known();
        let (joined, left, begin) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)), Barrier::new(5));
        thread::scope(|scope| {
            for thread in 0..4 {
                let (room, session, left, joined, begin) = (&room, &session, &left, &joined, &begin);
                scope.spawn(move || {
                    begin.wait();
                    for round in 0..ROUNDS {
                        let left = left.clone();
                        let on_leave = move |_, _| {
                            left.fetch_add(1, Ordering::Relaxed);
                        };
                        if room.join_with(session, on_leave).is_ok() {
                            joined.fetch_add(1, Ordering::Relaxed);
                        }
                        match (thread + round) % 3 {
                            0 => drop(room.leave(session)),
                            1 => drop(room.kick(session)),
                            _ => drop(room.publish("x")),
                        }
                    }
                });
            }
            begin.wait();
            until("some have joined", || joined.load(Ordering::Relaxed) > 20);
            drop(client);
        });
        until("it has left for ever", || room.is_empty() && !session.is_open());
        until("all are told of", || left.load(Ordering::Relaxed) == joined.load(Ordering::Relaxed));
    }
    served.finish();
}
