//! What subscribers to a server are told, and that nobody waits for them.

use std::{
    sync::mpsc::{RecvTimeoutError, TryRecvError},
    thread,
    time::Duration,
};

use framewire::{
    CloseKind, Event, Events, Failure, Handled, Limits, RefusalCause, Separator, Session, packet_fn,
};

use crate::common::{
    Client, On, PATIENCE, addr_of, hush, on_each_strategy, on_each_strategy_and_transport, until,
};
use crate::handlers::Scripted;

on_each_strategy_and_transport! {
    events_that_nobody_reads_hold_up_no_connection
    the_end_of_a_session_is_told_with_its_peer_and_its_reason
}

on_each_strategy! {
    a_panic_is_told_with_its_session_and_its_message
    a_slow_callback_is_told_with_its_session_and_its_name
    a_subscription_of_before_the_start_lasts_until_the_server_has_ended
    a_connection_that_is_refused_is_told_with_the_reason
}

/// The next event that is one of these.
fn next(events: &Events, is_one: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = events.recv_timeout(PATIENCE).expect("it comes");
        if is_one(&event) {
            return event;
        }
    }
}

fn events_that_nobody_reads_hold_up_no_connection(on: On) {
    let served = on.echo(Limits::default());
    let events = served.running.events(8);
    let mut bystander = served.connect();
    for _ in 0..200 {
        served.connect().assert_echo("hello and goodbye");
        bystander.assert_echo("still served");
    }
    served.until_counted("they have ended", |metrics| metrics.closed_total() == 200);
    until("the oldest have gone", || events.dropped() == 192);
    assert_eq!(events.try_iter().count(), 8);
    drop(bystander);
    served.finish();
}

fn the_end_of_a_session_is_told_with_its_peer_and_its_reason(on: On) {
    let served = on.echo(Limits::default());
    let events = served.running.events(100);
    let (mut client, session) = served.connect_known();
    let peer = served.running.sessions().expect("they answer").pop().expect("there is one").peer;
    served.running.close_with(session.id(), "kicked by\na test").expect("it is there");
    client.assert_end();
    drop(client);
    let end = next(&events, |event| matches!(event, Event::Closed { .. }));
    let Event::Closed { session: told, peer: whose, reason, .. } = &end else { unreachable!("{end}") };
    assert_eq!((*told, whose, reason.kind()), (session.id(), &peer, CloseKind::Handler));
    let line = format!("session {told} of {peer} has ended: handler: kicked by\\na test");
    assert_eq!(end.to_string(), line);
    served.finish();
}

fn a_panic_is_told_with_its_session_and_its_message(on: On) {
    hush();
    let handler = Scripted::<()>::answering(|_, (), _| panic!("{} {}", crate::common::ON_PURPOSE, 7));
    let served = on.serve(Limits::default(), handler);
    let events = served.running.events(100);
    let (mut client, session) = served.connect_known();
    client.send("boom");
    let told = next(&events, |event| matches!(event, Event::Panicked { .. }));
    let Event::Panicked { session: whose, callback, message, shard, .. } = &told else {
        unreachable!("{told}")
    };
    assert_eq!((*whose, *shard), (Some(session.id()), session.id().shard()));
    assert_eq!((*callback, message.as_str()), ("on_packet", "on purpose 7"));
    drop(client);
    let end = next(&events, |event| matches!(event, Event::Closed { .. }));
    assert!(end.to_string().ends_with("panic in on_packet: on purpose 7"), "{end}");
    served.finish();
}

fn a_slow_callback_is_told_with_its_session_and_its_name(on: On) {
    const LONG: Duration = Duration::from_millis(150);
    let handler = Scripted::<()>::answering(|session, (), packet| {
        if packet == b"work" {
            thread::sleep(LONG);
        }
        Ok(session.send(packet)?)
    });
    let served = on.serve(Limits::default(), handler);
    let events = served.running.events(1000);
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    bystander.assert_echo("hello");
    client.assert_echo("work");
    let is_it = |event: &Event| {
        matches!(event, Event::SlowCallback { session: Some(whose), took, .. }
            if *whose == session.id() && *took >= LONG)
    };
    let told = next(&events, is_it);
    let Event::SlowCallback { callback, shard, .. } = &told else { unreachable!("{told}") };
    assert_eq!((*callback, *shard), ("on_packet", session.id().shard()));
    drop((client, bystander));
    served.finish();
}

fn a_subscription_of_before_the_start_lasts_until_the_server_has_ended(on: On) {
    let server = on.bind().framing(framewire::LengthPrefix::u32_be());
    let events = server.handle().events(10);
    assert_eq!(events.try_recv().err(), Some(TryRecvError::Empty));
    let served = crate::common::Served::start(server, crate::common::echo());
    let mut client = served.connect();
    client.assert_echo("hello");
    client.end();
    drop(client);
    let end = next(&events, |event| matches!(event, Event::Closed { .. }));
    assert!(end.to_string().ends_with("has ended: the peer closed"), "{end}");
    let waiting = thread::spawn(move || (events.iter().count(), events));
    served.finish();
    let (more, events) = crate::common::join(waiting);
    assert_eq!((more, events.try_recv().err()), (0, Some(TryRecvError::Disconnected)));
    assert_eq!(events.recv_timeout(PATIENCE).err(), Some(RecvTimeoutError::Disconnected));
}

fn a_connection_that_is_refused_is_told_with_the_reason(on: On) {
    let handler = Scripted::<()>::echo().on_open(|_, ()| Err(Failure::because("nobody is welcome")));
    let served = on.serve(Limits::default(), handler);
    let events = served.running.events(10);
    let mut client = served.connect();
    client.assert_end();
    drop(client);
    let told = next(&events, |event| matches!(event, Event::Refused { .. }));
    let Event::Refused { cause, reason, .. } = &told else { unreachable!("{told}") };
    assert_eq!(
        (*cause, reason.as_ref().map(|reason| reason.kind())),
        (RefusalCause::Handler, Some(CloseKind::Handler))
    );
    assert!(told.to_string().ends_with("was refused: handler: handler: nobody is welcome"), "{told}");
    served.finish();
}

#[test]
fn a_server_that_never_starts_ends_its_subscriptions() {
    let server = On::SingleReactor.bind();
    let events = server.handle().events(10);
    drop(server.framing(Separator::lines()));
    assert_eq!(events.iter().count(), 0);
    let server = On::SingleReactor.bind().framing(Separator::lines()).limits(Limits::default().frame(0));
    let events = server.handle().events(10);
    let failed = server.spawn(packet_fn(|_: &mut Session<'_>, _: &[u8]| -> Handled { Ok(()) }));
    assert!(failed.is_err());
    assert_eq!(events.iter().count(), 0);
}

#[test]
fn a_reactor_tells_of_all_its_services_and_each_server_of_its_own() {
    let echo = || packet_fn(|session, packet| Ok(session.send(packet)?));
    let first = On::SingleReactor.bind().framing(framewire::LengthPrefix::u32_be());
    let second = On::SingleReactor.bind().framing(framewire::LengthPrefix::u32_be());
    let own = second.handle().events(10);
    let reactor = framewire::Reactor::new(framewire::SingleReactor::new());
    let running = reactor.service(first, echo()).service(second, echo()).spawn().expect("it starts");
    let all = running.events(10);
    for addr in running.local_addrs() {
        Client::connect(&addr_of(&addr)).expect("it listens").assert_echo("hello");
        next(&all, |event| matches!(event, Event::Closed { .. }));
    }
    running.stop(PATIENCE).expect("it stops");
    assert_eq!((all.iter().count(), own.iter().count()), (0, 1));
}
