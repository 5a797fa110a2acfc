//! Links and policies of sessions over UDP, whose packets are datagrams whole.

use std::sync::{Arc, Mutex, PoisonError};

use super::datagrams::{ms, peer, setup, with};
use crate::{
    Channel, Overflow,
    dial::Dial,
    error::{CloseKind, SendError},
    id::SessionId,
    limits::Limits,
    session::SessionHandle,
    sim::{Callback, Probe, World},
};

type Handles = Arc<Mutex<Vec<SessionHandle>>>;

/// Lists the sessions in the order in which they are opened. A packet `link` links its session to the first of them; all
/// others come back.
fn listing(handles: &Handles) -> impl Fn(&mut Probe) + use<> {
    let handles = handles.clone();
    move |probe| {
        let (opened, known) = (handles.clone(), handles.clone());
        probe.open = Box::new(move |session, ()| {
            opened.lock().unwrap_or_else(PoisonError::into_inner).push(session.handle());
            Ok(())
        });
        probe.packet = Box::new(move |session, packet| {
            if packet != b"link" {
                return Ok(session.send(packet)?);
            }
            let first: SessionId = known.lock().unwrap_or_else(PoisonError::into_inner)[0].id();
            Ok(session.link(first)?)
        });
    }
}

fn handle(handles: &Handles, number: usize) -> SessionHandle {
    handles.lock().unwrap_or_else(PoisonError::into_inner)[number].clone()
}

/// Peers 1 and 2, whose sessions are linked.
fn linked(limits: Limits) -> (World, Handles) {
    let handles = Handles::default();
    let mut world = with(limits, listing(&handles));
    world.throw(peer(1), &[b"here"]);
    world.throw(peer(2), &[b"here", b"link"]);
    world.run_to_rest();
    (1..=2).for_each(|number| assert_eq!(world.caught(peer(number)), [b"here"]));
    (world, handles)
}

#[test]
fn datagrams_of_linked_peers_go_to_each_other_one_by_one() {
    let (mut world, handles) = linked(Limits::default());
    world.throw(peer(1), &[b"one", b"", b"three"]);
    world.throw(peer(2), &[b"back"]);
    world.run_to_rest();
    assert_eq!(world.caught(peer(2)), [&b"one"[..], b"", b"three"]);
    assert_eq!(world.caught(peer(1)), [b"back"]);
    let told = world.log.lines().into_iter().filter(|(_, _, told)| matches!(told, Callback::Packet(_)));
    assert_eq!(told.count(), 3, "those before the link");
    assert_eq!(handle(&handles, 0).close(), Ok(()));
    world.run_to_rest();
    let kinds: Vec<CloseKind> = world.log.closes().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [CloseKind::Local, CloseKind::LinkLost], "the end of one is that of the other");
    world.assert_empty();
}

#[test]
fn a_partner_whose_socket_takes_nothing_loses_datagrams_and_no_memory() {
    let limits = Limits::default().outbox_low(1_000).outbox_high(2_000).outbox_hard(10_000);
    let (mut world, _handles) = linked(limits);
    let socket = world.listeners()[0];
    world.net().jam(socket, true);
    for number in 0..100 {
        world.throw(peer(1), &[&[number; 100]]);
        world.run_for(1);
    }
    let metrics = world.metrics();
    assert!(metrics.buffered <= 20_000, "{metrics:?}");
    assert!(metrics.datagrams_missed > 50, "what came while the partner was full: {metrics:?}");
    world.net().jam(socket, false);
    world.run_to_rest();
    let got = world.caught(peer(2));
    assert!(got.iter().all(|datagram| datagram.len() == 100), "each is whole");
    assert!(got.windows(2).all(|pair| pair[0][0] < pair[1][0]), "and in order");
    world.throw(peer(1), &[b"again"]);
    world.run_to_rest();
    assert_eq!(world.caught(peer(2)), [b"again"]);
    assert_eq!(world.metrics().sessions, 2);
}

#[test]
fn a_peer_that_is_dialled_can_be_linked_as_in_a_relay() {
    let mut world = World::new(setup(Limits::default()), |probe| {
        let front = Arc::new(Mutex::new(None));
        probe.open = Box::new(move |session, ()| {
            let mut front = front.lock().unwrap_or_else(PoisonError::into_inner);
            match *front {
                None => {
                    *front = Some(session.id());
                    session.connect(Dial::to_udp(peer(9)))?;
                }
                Some(front) => session.link(front)?,
            }
            Ok(())
        });
        probe.packet = Box::new(|_, _| Ok(()));
    });
    world.throw(peer(1), &[b"begin"]);
    world.run_to_rest();
    world.throw(peer(1), &[b"question"]);
    world.run_to_rest();
    assert_eq!(world.caught(peer(9)), [b"question"]);
    world.throw(peer(9), &[b"answer"]);
    world.run_to_rest();
    assert_eq!(world.caught(peer(1)), [b"answer"]);
    assert_eq!(world.metrics().opened, 2);
}

/// Packets of 100 bytes that are sent while the socket takes nothing.
const SENT: u16 = 300;

/// Returns which of them the peer gets, and how many sends were refused.
fn overflowing(overflow: Overflow) -> (World, Vec<u16>, usize) {
    let limits =
        Limits::default().outbox_packets(10).outbox_low(4_000).outbox_high(8_000).outbox_hard(20_000);
    let refused = Arc::new(Mutex::new(0));
    let counted = refused.clone();
    let mut world = with(limits, move |probe| {
        let counted = counted.clone();
        probe.packet = Box::new(move |session, packet| {
            if packet != b"fill" {
                return Ok(session.send(packet)?);
            }
            for number in 0..SENT {
                let mut datagram = [7; 100];
                datagram[..2].copy_from_slice(&number.to_be_bytes());
                match session.send_as(datagram, overflow) {
                    Ok(()) => {}
                    Err(SendError::Full { .. } | SendError::Closed) => {
                        *counted.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                    }
                    Err(other) => return Err(other.into()),
                }
            }
            Ok(())
        });
    });
    world.throw(peer(2), &[b"here"]);
    world.run_for(1);
    let socket = world.listeners()[0];
    world.net().jam(socket, true);
    world.throw(peer(1), &[b"fill"]);
    world.run_for(10);
    world.net().jam(socket, false);
    world.run_for(10);
    let got = world.caught(peer(1)).into_iter().map(|datagram| {
        assert_eq!(datagram.len(), 100, "whole");
        u16::from_be_bytes([datagram[0], datagram[1]])
    });
    let got: Vec<u16> = got.collect();
    assert!(got.is_sorted(), "in order: {got:?}");
    assert_eq!((world.metrics().buffered, world.metrics().datagrams_unsent), (0, 0));
    let refused = *refused.lock().unwrap_or_else(PoisonError::into_inner);
    (world, got, refused)
}

#[test]
fn what_finds_no_room_is_dropped_refused_or_replaced_as_over_tcp() {
    let all = usize::from(SENT);
    let (world, got, refused) = overflowing(Overflow::Refuse);
    assert_eq!(got, (0..got.len() as u16).collect::<Vec<_>>(), "the first ones");
    assert!(got.len() > 100 && got.len() + refused == all, "{} and {refused}", got.len());
    assert_eq!((world.metrics().overflow_refused as usize, world.metrics().sessions), (refused, 2));

    let (world, got, refused) = overflowing(Overflow::DropOldest);
    assert!(got.ends_with(&(SENT - 10..SENT).collect::<Vec<_>>()), "the last ones: {got:?}");
    let dropped = world.metrics().overflow_dropped as usize;
    assert!(dropped > 0 && got.len() + dropped == all && refused == 0, "{} and {dropped}", got.len());

    let (world, got, refused) = overflowing(Overflow::Latest(1));
    assert_eq!((got.last(), refused), (Some(&(SENT - 1)), 0));
    assert_eq!(got.len() + world.metrics().overflow_replaced as usize, all);

    let (world, _, refused) = overflowing(Overflow::Close);
    assert!(refused > 0);
    assert_eq!((world.metrics().overflow_closed, world.metrics().sessions), (1, 1), "the other stays");
}

#[test]
fn members_of_a_channel_leave_it_when_their_peers_fall_silent() {
    let handles = Handles::default();
    let limits = Limits::default().idle_timeout(ms(1_000)).max_age(ms(5_000));
    let mut world = with(limits, listing(&handles));
    let channel = Channel::new();
    (1..=2).for_each(|number| world.throw(peer(number), &[b"here"]));
    world.run_for(1);
    (0..2).for_each(|number| channel.join(&handle(&handles, number)).expect("it is open"));
    world.run_for(800);
    world.throw(peer(2), &[b"still here"]);
    world.run_for(400);
    assert_eq!((channel.len(), channel.publish("to who is left")), (1, Ok(1)));
    world.run_for(1);
    assert_eq!(world.caught(peer(1)), [b"here"]);
    assert_eq!(world.caught(peer(2)), [&b"here"[..], b"still here", b"to who is left"]);
    for round in 0..10 {
        world.throw(peer(2), &[&[round]]);
        world.run_for(500);
    }
    let kinds: Vec<CloseKind> = world.log.closes().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds[..2], [CloseKind::Idle, CloseKind::MaxAge]);
    world.run_to_rest();
    assert_eq!(channel.len(), 0);
    world.assert_empty();
}
