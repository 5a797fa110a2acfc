//! How connections end: by the peer, by the network, by the handler; and that no reply is lost by it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
    mpsc::channel,
};

use framewire::{CloseKind, Failure, Handled, Limits, Session, Then, packet_fn};

use crate::common::{
    Client, On, PATIENCE, Served, frame, on_each_strategy, on_each_strategy_and_transport,
    on_each_strategy_without_layers, until,
};
use crate::handlers::Scripted;

on_each_strategy_and_transport! {
    a_reply_that_another_thread_computes_reaches_a_peer_that_has_ended_its_side
    what_was_sent_before_a_half_close_is_answered_in_full
    the_last_reply_of_a_graceful_close_survives_input_that_nobody_reads
    a_handler_that_refuses_a_session_may_say_why
    an_error_of_the_handler_ends_the_session_after_what_was_sent
    requests_of_a_peer_that_leaves_before_its_replies_are_all_handled
}

on_each_strategy! {
    an_abort_reaches_the_peer_as_a_reset
}

on_each_strategy_without_layers! {
    a_reset_in_the_middle_of_a_frame_ends_one_session
}
fn a_reply_that_another_thread_computes_reaches_a_peer_that_has_ended_its_side(on: On) {
    let (asked, questions) = channel();
    let ended = Arc::<AtomicUsize>::default();
    let counted = ended.clone();
    let delegate = move |session: &mut Session<'_>, (): &mut (), packet: &[u8]| {
        Ok(asked.send((session.handle(), packet.to_vec()))?)
    };
    let handler = Scripted::answering(delegate).on_end(move |_, ()| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(Then::Stay)
    });
    let served = on.serve(Limits::default(), handler);
    let mut client = served.connect();
    client.send("question");
    client.end();
    until("its end is known", || ended.load(Ordering::Relaxed) == 1);
    let (session, question) = questions.recv_timeout(PATIENCE).expect("it was asked before its end");
    assert_eq!(session.send([question.as_slice(), b" answered"].concat()), Ok(()));
    assert_eq!(session.close(), Ok(()));
    assert_eq!(client.recv_text(), "question answered");
    client.assert_end();
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Local);
    drop((client, session, questions));
    served.finish();
}

/// Answers the number `n` (four bytes) with as many bytes, each of them `n % 251`.
fn amplify(session: &mut Session<'_>, packet: &[u8]) -> Handled {
    let number = u32::from_be_bytes(packet.try_into()?);
    Ok(session.send(vec![(number % 251) as u8; number as usize])?)
}

fn what_was_sent_before_a_half_close_is_answered_in_full(on: On) {
    let served = Served::start(
        on.bind().framing(framewire::LengthPrefix::u32_be()).send_buffer(16 * 1024),
        packet_fn(amplify),
    );
    let mut bystander = served.connect();
    // From what the kernel takes at once to far more than the outbox holds.
    for (requests, size) in [(0u32, 0u32), (1, 10), (1, 100_000), (40, 10_000), (400, 10_000), (7, 900_000)] {
        let (mut client, session) = served.known(Served::connect_narrow);
        let sizes: Vec<u32> = (0..requests).map(|number| size + number).collect();
        let wire: Vec<u8> = sizes.iter().flat_map(|size| frame(&size.to_be_bytes())).collect();
        client.write(&wire);
        client.end();
        // Only now does it read.
        for size in sizes {
            let reply = client.recv();
            assert_eq!(reply.len(), size as usize);
            assert!(reply.iter().all(|byte| *byte == (size % 251) as u8), "reply of {size} is mangled");
        }
        client.assert_end();
        assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::PeerClosed);
        bystander.send(4u32.to_be_bytes());
        assert_eq!(bystander.recv(), [4; 4]);
    }
    drop(bystander);
    served.finish();
}

fn the_last_reply_of_a_graceful_close_survives_input_that_nobody_reads(on: On) {
    let served = on.serve(
        Limits::default(),
        packet_fn(|session, packet| {
            session.send(packet)?;
            if packet.starts_with(b"last") {
                session.close();
            }
            Ok(())
        }),
    );
    let mut bystander = served.connect();
    let last = [b"last".as_slice(), &[b'.'; 50_000]].concat();
    let garbage = [0xff; 30_000];
    for _ in 0..100 {
        let mut client = served.connect();
        client.send(&last);
        client.write(&garbage);
        assert_eq!(client.recv(), last);
        client.assert_end();
    }
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

/// Echoes, and fails when it is told to.
fn fail_on_demand(session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
    session.send(packet)?;
    if packet == b"fail" { Err(Failure::because("told to fail")) } else { Ok(()) }
}

/// Refuses all but the first session of each shard.
fn moody() -> Scripted<()> {
    Scripted::answering(fail_on_demand).on_open(|session, ()| {
        // The first of a shard is welcome, as is everybody on a thread of its own.
        if session.id().to_string().ends_with("0#0") {
            return Ok(());
        }
        session.send("go away")?;
        Err(Failure::because("not today"))
    })
}

fn a_handler_that_refuses_a_session_may_say_why(on: On) {
    let served = on.serve(Limits::default(), moody());
    let mut welcome: Vec<Client> = (0..2).map(|_| served.connect()).collect();
    if on.strategy() == On::SingleReactor {
        let mut refused = welcome.remove(1);
        refused.send("hello?");
        assert_eq!(refused.recv(), b"go away");
        refused.assert_end();
        until("it is counted", || served.metrics().refused_total() == 1);
    }
    for client in &mut welcome {
        client.assert_echo("welcome");
    }
    if on == On::WorkerPool {
        let mut refused = served.connect();
        assert_eq!(refused.recv(), b"go away");
        refused.assert_end();
    }
    drop(welcome);
    served.finish();
}

fn an_error_of_the_handler_ends_the_session_after_what_was_sent(on: On) {
    let served = on.serve(Limits::default(), Scripted::answering(fail_on_demand));
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.write(&[frame(b"one"), frame(b"fail"), frame(b"never seen")].concat());
    assert_eq!(client.read_to_end(), [frame(b"one"), frame(b"fail")].concat());
    drop(client);
    let ending = served.journal.await_ending(session.id());
    assert_eq!(ending, (CloseKind::Handler, "handler: told to fail".to_owned()));
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

fn a_reset_in_the_middle_of_a_frame_ends_one_session(on: On) {
    let served = on.echo(Limits::default());
    let mut bystander = served.connect();
    let mut sent = 0;
    for cut in [1, 4, 7] {
        let (mut client, session) = served.connect_known();
        client.assert_echo("a whole one");
        client.write(&frame(b"not whole")[..cut]);
        sent += frame(b"a whole one").len() + cut;
        until("the piece was read", || served.metrics().bytes_in == sent as u64);
        client.reset();
        assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Io);
        bystander.assert_echo("still served");
        sent += frame(b"still served").len();
    }
    drop(bystander);
    served.finish();
}

fn an_abort_reaches_the_peer_as_a_reset(on: On) {
    let handler = packet_fn(|session: &mut Session<'_>, packet: &[u8]| {
        session.send(packet)?;
        if packet == b"abort" {
            session.abort();
        }
        Ok(())
    });
    let served = on.serve(Limits::default(), handler);
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.send("abort");
    expect_reset(&mut client);
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Local);

    let (mut client, session) = served.connect_known();
    client.assert_echo("well so far");
    session.abort().expect("it is open");
    expect_reset(&mut client);
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Local);
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

fn expect_reset(client: &mut Client) {
    assert_eq!(client.read_to_any_end(), (Vec::new(), true), "a reset, and nothing before it");
}

/// It sends, and is gone with the replies unread: writing to it fails, and nothing says that it did not mean its requests.
fn requests_of_a_peer_that_leaves_before_its_replies_are_all_handled(on: On) {
    const REQUESTS: u32 = 1_500;
    let handled = Arc::<Mutex<Vec<u32>>>::default();
    let log = handled.clone();
    let served = on.serve(
        Limits::default(),
        packet_fn(move |session: &mut Session<'_>, packet: &[u8]| {
            let number = u32::from_be_bytes(packet.try_into()?);
            log.lock().expect("nobody panics").push(number);
            // Far more in all than kernels and outboxes hold.
            Ok(session.send([7; 16 * 1024])?)
        }),
    );
    for ends in [false, true] {
        let (mut client, session) = served.known(Served::connect_narrow);
        let wire: Vec<u8> = (0..REQUESTS).flat_map(|number| frame(&number.to_be_bytes())).collect();
        client.write(&wire);
        // Below 64 KiB it would be read from again.
        until("the outbox is full", || served.metrics().buffered > 64 * 1024);
        if ends {
            client.end();
        }
        drop(client);
        let (kind, text) = served.journal.await_ending(session.id());
        assert_eq!(kind, CloseKind::Io, "{text}");
        let handled = std::mem::take(&mut *handled.lock().expect("nobody panics"));
        assert!(handled.iter().copied().eq(0..REQUESTS), "{} of {REQUESTS}", handled.len());
    }
    served.finish();
}
