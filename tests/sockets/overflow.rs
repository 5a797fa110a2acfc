//! Packets for which a session has no room: what becomes of them is the sender's choice.

use framewire::{Channel, CloseKind, Limits, Overflow, Session, packet_fn};

use crate::common::{Client, On, Served, on_each_strategy_and_transport, until};

on_each_strategy_and_transport! {
    what_is_sent_at_once_beyond_the_room_is_dropped_replaced_or_refused
    a_session_is_closed_where_its_packets_must_not_be_lost
    a_stalled_member_of_a_channel_misses_what_is_old_and_the_others_miss_nothing
}

/// A packet that begins with this number.
fn numbered(number: u32, size: usize) -> Vec<u8> {
    let mut packet = vec![b'.'; size];
    packet[..4].copy_from_slice(&number.to_be_bytes());
    packet
}

fn number(packet: &[u8]) -> u32 {
    packet.first_chunk().map_or(u32::MAX, |number| u32::from_be_bytes(*number))
}

/// Sends a hundred packets of 10,000 bytes at once, and then one that is never lost.
fn serve(on: On) -> Served {
    let limits = Limits::default().outbox_high(50_000).outbox_low(1_000).outbox_hard(100_000);
    on.serve(
        limits,
        packet_fn(|session: &mut Session<'_>, asked: &[u8]| {
            for number in 0..100 {
                let overflow = match asked {
                    b"drop" => Overflow::DropOldest,
                    b"latest" => Overflow::Latest(u64::from(number % 2)),
                    b"refuse" => Overflow::Refuse,
                    b"close" => Overflow::Close,
                    _ => return Ok(session.send(asked)?),
                };
                let _ = session.send_as(numbered(number, 10_000), overflow); // as its policy says
            }
            Ok(session.send_as("end", Overflow::Refuse)?)
        }),
    )
}

fn numbers_to_the_end(client: &mut Client) -> Vec<u32> {
    let mut numbers = Vec::new();
    loop {
        let packet = client.recv();
        if packet == b"end" {
            return numbers;
        }
        assert_eq!(packet, numbered(number(&packet), 10_000), "it is whole");
        numbers.push(number(&packet));
    }
}

fn what_is_sent_at_once_beyond_the_room_is_dropped_replaced_or_refused(on: On) {
    let served = serve(on);
    let mut client = served.connect();
    // One is under way, and three more have room below the high-water mark.
    client.send("drop");
    assert_eq!(numbers_to_the_end(&mut client), [0, 97, 98, 99]);
    client.send("latest");
    assert_eq!(numbers_to_the_end(&mut client), [98, 99]);
    client.send("refuse");
    assert_eq!(numbers_to_the_end(&mut client), (0..9).collect::<Vec<u32>>());
    client.assert_echo("still served");
    until("it is counted", || served.metrics().overflow_refused == 91);
    let metrics = served.metrics();
    assert_eq!((metrics.overflow_dropped, metrics.overflow_replaced), (96, 98));
    assert_eq!(metrics.overflow_closed, 0);
    drop(client);
    served.finish();
}

fn a_session_is_closed_where_its_packets_must_not_be_lost(on: On) {
    let served = serve(on);
    let (mut client, session) = served.connect_known();
    client.send("close");
    assert_eq!(client.read_to_end().len(), 9 * 10_004, "what had room is delivered");
    drop(client);
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Send);
    until("it is counted", || served.metrics().overflow_closed == 1);
    served.finish();
}

fn a_stalled_member_of_a_channel_misses_what_is_old_and_the_others_miss_nothing(on: On) {
    const PUBLISHED: u32 = 1_000;
    let served = serve(on);
    let room = Channel::new().overflow(Overflow::DropOldest);
    let mut members: Vec<Client> = Vec::new();
    for _ in 0..3 {
        let (client, handle) = served.connect_known();
        assert_eq!(room.join(&handle), Ok(()));
        members.push(client);
    }
    let (stalled, others) = members.split_first_mut().expect("three");
    for number in 0..PUBLISHED {
        assert_eq!(room.publish(numbered(number, 30_000)), Ok(3));
        for client in &mut *others {
            assert_eq!(client.recv(), numbered(number, 30_000));
        }
    }
    let (mut count, mut last) = (0, None);
    while last != Some(PUBLISHED - 1) {
        let packet = stalled.recv();
        assert!(last.is_none_or(|last| last < number(&packet)), "in order, and none twice");
        assert_eq!(packet, numbered(number(&packet), 30_000), "it is whole");
        (count, last) = (count + 1, Some(number(&packet)));
    }
    assert!(count < PUBLISHED, "the network does not take 30 MB");
    until("it is counted", || served.metrics().overflow_dropped == u64::from(PUBLISHED - count));
    until("the turn that wrote the last packet is over", || served.metrics().shared == 0);
    assert_eq!(served.metrics().closed_total(), 0);
    drop(members);
    served.finish();
}
