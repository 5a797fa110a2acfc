//! Sessions that are paused, by their outbox or by their handler: what waits is bounded, nothing is lost, and they go on in time.

use std::{sync::mpsc, thread, time::Duration};

use framewire::{CloseKind, Handled, Limits, Session, TimerId, WhileFull, packet_fn};

use crate::common::{
    On, PATIENCE, Served, frame, on_each_strategy, on_each_strategy_and_transport,
    on_each_strategy_uncompressed, until,
};
use crate::handlers::Scripted;

on_each_strategy_and_transport! {
    on_drained_paces_a_producer
    a_paused_session_waits_and_loses_nothing
    a_session_is_paused_and_resumed_by_handle
    a_subscriber_that_does_not_read_is_heard_if_the_server_says_so
}

on_each_strategy_uncompressed! {
    a_session_that_pauses_at_each_packet_does_not_pile_up_what_its_peer_sends
}

on_each_strategy! {
    a_handle_knows_that_an_outbox_has_emptied
}

const PRODUCED: u32 = 1000;

/// Sends a thousand numbered packets, no faster than they are taken.
fn produce(session: &mut Session<'_>, next: &mut Option<u32>) -> Handled {
    while let Some(number) = next.filter(|number| *number < PRODUCED) {
        let mut packet = vec![b'.'; 10_000];
        packet[..4].copy_from_slice(&number.to_be_bytes());
        session.send(&packet)?;
        *next = Some(number + 1);
        if session.stats().queued > 200_000 {
            break;
        }
    }
    Ok(())
}

fn producer() -> Scripted<Option<u32>> {
    let begin = |session: &mut Session<'_>, next: &mut Option<u32>, packet: &[u8]| {
        if packet != b"go" {
            return Ok(session.send(packet)?);
        }
        *next = Some(0);
        produce(session, next)
    };
    Scripted::answering(begin).on_drained(produce)
}

fn on_drained_paces_a_producer(on: On) {
    let limits = Limits::default().outbox_high(100_000).outbox_low(10_000).outbox_hard(300_000);
    let served = on.serve(limits, producer());
    let mut bystander = served.connect();
    let mut client = served.connect();
    client.send("go");
    for number in 0..PRODUCED {
        let packet = client.recv();
        assert_eq!((packet.len(), &packet[..4]), (10_000, &number.to_be_bytes()[..]));
    }
    assert_eq!(served.metrics().sends_refused, 0);
    for client in [&mut client, &mut bystander] {
        client.assert_echo("still served");
    }
    drop((client, bystander));
    served.finish();
}

fn a_subscriber_that_does_not_read_is_heard_if_the_server_says_so(on: On) {
    const PART: usize = 100_000;
    const PARTS: usize = 200;
    let (heard, all_heard) = mpsc::channel();
    let note = move |_: &mut Session<'_>, (): &mut (), packet: &[u8]| {
        heard.send(packet.to_vec())?;
        Ok(())
    };
    let limits = Limits::default().outbox_high(200_000).outbox_low(10_000).outbox_hard(64 << 20);
    let served = on.serve(limits.while_full(WhileFull::KeepReading), Scripted::answering(note));
    let (mut client, handle) = served.known(Served::connect_narrow);
    // More than the kernel and the outbox up to its high mark take.
    (0..PARTS).for_each(|_| handle.send(vec![7; PART]).expect("there is room"));
    served.until_counted("it is full", |metrics| metrics.queued > 200_000);
    client.send("unsubscribe");
    assert_eq!(all_heard.recv_timeout(PATIENCE).expect("it is read from"), b"unsubscribe");
    for _ in 0..PARTS {
        assert_eq!(client.recv(), vec![7; PART]);
    }
    drop(client);
    served.finish();
}

/// Echoes, and takes a nap when it is told to.
fn dozing() -> Scripted<()> {
    let doze = |session: &mut Session<'_>, (): &mut (), packet: &[u8]| {
        session.send(packet)?;
        if packet == b"doze" {
            session.pause();
            session.set_timer(TimerId(0), Duration::from_millis(5))?;
        }
        Ok(())
    };
    Scripted::answering(doze).on_timer(|session, (), _| {
        session.send("awake")?;
        session.resume();
        Ok(())
    })
}

fn a_paused_session_waits_and_loses_nothing(on: On) {
    let served = on.serve(Limits::default(), dozing());
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    // All in one piece, so that what follows the pause was already received; the end of the stream as well.
    let wire: Vec<u8> = (0..200u32)
        .flat_map(|number| if number % 20 == 7 { frame(b"doze") } else { frame(&number.to_be_bytes()) })
        .collect();
    client.write(&wire);
    client.end();
    for number in 0..200u32 {
        if number % 20 == 7 {
            assert_eq!(client.recv_text(), "doze");
            assert_eq!(client.recv_text(), "awake", "nothing is handed out meanwhile");
        } else {
            assert_eq!(client.recv(), number.to_be_bytes());
        }
    }
    client.assert_end();
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::PeerClosed);
    bystander.assert_echo("still served");
    drop((client, bystander));
    served.finish();
}

fn a_session_is_paused_and_resumed_by_handle(on: On) {
    let served = on.echo(Limits::default());
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.assert_echo("before");
    assert_eq!(session.pause(), Ok(()));
    assert_eq!(session.send("paused"), Ok(()));
    assert_eq!(client.recv_text(), "paused", "a paused session still sends");
    for number in 0..10 {
        client.send([number]);
    }
    bystander.assert_echo("served meanwhile");
    bystander.assert_echo("and again");
    until("the rest of it is counted", || served.metrics().packets_in == 3);
    assert_eq!(session.resume(), Ok(()));
    for number in 0..10 {
        assert_eq!(client.recv(), [number]);
    }
    drop((client, bystander));
    served.finish();
}

const PACKETS: u32 = 400_000;

/// Takes one packet at a time, and the next one a little later.
fn sluggish() -> Scripted<u32> {
    let take = |session: &mut Session<'_>, next: &mut u32, packet: &[u8]| {
        assert_eq!(packet, next.to_be_bytes());
        *next += 1;
        session.pause();
        Ok(session.set_timer(TimerId(0), Duration::ZERO)?)
    };
    Scripted::answering(take).on_timer(|session, next, _| {
        session.resume();
        // A busy shard: meanwhile more of the flood comes.
        thread::sleep(Duration::from_micros(300));
        if *next == PACKETS { Ok(session.send("all")?) } else { Ok(()) }
    })
}

fn a_session_that_pauses_at_each_packet_does_not_pile_up_what_its_peer_sends(on: On) {
    // All of them would take long: the bound shows within the first hundreds.
    let served = on.serve(Limits::default().frame(100), sluggish());
    let (mut flood, session) = served.connect_known();
    let stream: Vec<u8> = (0..PACKETS).flat_map(|number| frame(&number.to_be_bytes())).collect();
    let writing = thread::spawn(move || {
        flood.try_write(&stream);
        flood
    });
    let mut most = 0;
    until("some hundred packets were taken", || {
        most = most.max(served.metrics().buffered);
        served.metrics().packets_in >= 600
    });
    assert!(most <= 96 * 1024, "{most} bytes were buffered: more than one read of frames that wait");
    session.abort().expect("it is open");
    drop(writing.join().expect("the writer ends"));
    served.finish();
}

fn a_handle_knows_that_an_outbox_has_emptied(on: On) {
    let (sender, handles) = mpsc::channel();
    let introduce = packet_fn(move |session: &mut Session<'_>, _packet: &[u8]| {
        session.send([7; 50_000])?;
        Ok(sender.send(session.handle())?)
    });
    let limits = Limits::default().outbox_low(1_000).outbox_high(60_000).outbox_hard(64_000);
    let served = on.serve(limits, introduce);
    let mut client = served.connect();
    client.send("who are you");
    let handle = handles.recv_timeout(PATIENCE).expect("it introduces itself");
    assert_eq!(client.recv().len(), 50_000);
    until("the handle has room", || handle.send([1; 20_000]) == Ok(()));
    assert_eq!(client.recv().len(), 20_000);
    drop((client, handle));
    served.finish();
}
