//! What a server has counted.

use std::{sync::mpsc::channel, time::Duration};

use framewire::{CloseKind, Failure, LengthPrefix, Limits, Metrics, Rates, RefusalCause, Sample, SampleKind};

use crate::common::{
    ON_PURPOSE, On, PATIENCE, Served, echo, failure, hush, on_each_strategy, on_each_strategy_without_layers,
    until,
};
use crate::handlers::{Scripted, gate};

on_each_strategy! {
    a_snapshot_has_what_was_done_and_two_have_how_fast
    commands_that_wait_for_a_callback_that_blocks_are_seen
    a_closure_gets_the_metrics_until_the_server_has_ended
}

on_each_strategy_without_layers! {
    the_refused_are_counted_by_cause
}

fn a_snapshot_has_what_was_done_and_two_have_how_fast(on: On) {
    let served = Served::start(on.bind().framing(LengthPrefix::u32_be().max(1000)), echo());
    let before = served.metrics();
    assert_eq!((before.sessions_peak, before.opened, before.bytes_in), (0, 0, 0));
    assert!(before.shards > 0 && before.uptime > Duration::ZERO);
    let mut clients = [(); 3].map(|()| served.connect());
    for client in &mut clients {
        client.assert_echo("hello");
    }
    let [mut rude, second, third] = clients;
    rude.write(&1001_u32.to_be_bytes());
    rude.assert_end();
    drop(rude);
    served.until_counted("the end is counted", |metrics| metrics.closed(CloseKind::Frame) == 1);
    drop((second, third));
    until("the others have gone", || served.running.session_count() == 0);
    served.until_counted("all ends are counted", |metrics| metrics.closed_total() == 3);
    let after = served.metrics();
    let rates = after.since(&before);
    assert_eq!((after.sessions_peak, after.opened, after.accepted, after.frames_too_long), (3, 3, 3, 1));
    assert_eq!((after.packets_in, after.packets_out, after.refused_total()), (3, 3, 0));
    assert_eq!(rates.elapsed(), after.uptime - before.uptime);
    let per_second = 3.0 / rates.elapsed().as_secs_f64();
    assert!((rates.per_second(|metrics| metrics.packets_in) - per_second).abs() < 1e-6);
    assert!(after.busy > before.busy && after.slowest_turn <= after.busy, "{after:?}");
    assert!(rates.busy_share() > 0.0 && rates.busy_share() <= 1.0);
    let find = |name: &str| after.samples().find(|sample| sample.name() == name);
    let opened = find("framewire_opened_sessions_total");
    assert_eq!(
        opened.as_ref().map(|sample| (sample.kind(), sample.value())),
        Some((SampleKind::Counter, 3.0))
    );
    assert_eq!(find("framewire_peak_sessions").as_ref().map(Sample::value), Some(3.0));
    served.finish();
}

fn commands_that_wait_for_a_callback_that_blocks_are_seen(on: On) {
    let served = on.echo(Limits::default());
    let (client, session) = served.connect_known();
    let (gate, blocker) = gate();
    let shard = session.id().shard();
    served.running.execute(shard, move |_| blocker.block()).expect("it is there");
    gate.await_blocked();
    for _ in 0..10 {
        session.send("12345").expect("there is room");
    }
    // The shard cannot tell: its callback blocks.
    let metrics = served.metrics();
    assert_eq!((metrics.mailbox, metrics.mailbox_bytes), (10, 50));
    let (ran, runs) = channel();
    served.running.execute(shard, move |_| ran.send(()).expect("the test waits")).expect("it is there");
    gate.open();
    runs.recv().expect("it ran");
    served.until_counted("nothing waits", |metrics| (metrics.mailbox, metrics.mailbox_bytes) == (0, 0));
    drop(client);
    served.finish();
}

fn the_refused_are_counted_by_cause(on: On) {
    let handler = Scripted::<()>::echo().on_open(|_, ()| Err(Failure::because("nobody is welcome")));
    let served = on.serve(Limits::default(), handler);
    let mut client = served.connect();
    client.assert_end();
    drop(client);
    served.until_counted("it is counted", |metrics| metrics.refused(RefusalCause::Handler) == 1);
    assert_eq!((served.metrics().refused_total(), served.metrics().opened), (1, 0));
    served.finish();
}

fn a_closure_gets_the_metrics_until_the_server_has_ended(on: On) {
    hush();
    let mut served = on.echo(Limits::default());
    let (tell, told) = channel();
    let mut calls = 0;
    let report = move |metrics: &Metrics, rates: &Rates| {
        tell.send((metrics.clone(), rates.counted().packets_in)).expect("the test listens");
        calls += 1;
        if calls == 1 {
            panic!("{ON_PURPOSE}: it is called again all the same");
        }
    };
    served.running.on_metrics(Duration::from_millis(1), report).expect("a thread");
    served.connect().assert_echo("hello");
    let mut packets = 0;
    while packets < 1 {
        packets += told.recv_timeout(PATIENCE).expect("it is called again and again").1;
    }
    let handle = served.running.handle();
    served.finish();
    let (last, _) = told.iter().last().expect("a last call, when all had ended");
    assert_eq!((last.shards, last.closed_total(), last.packets_in), (0, 1, 1));
    assert_eq!(
        (last.sessions_peak, last.busy),
        (1, handle.metrics().busy),
        "what ended shards counted is kept"
    );
}

#[test]
fn metrics_cannot_be_asked_for_without_a_pause() {
    let mut served = On::SingleReactor.echo(Limits::default());
    let refused = served.running.on_metrics(Duration::ZERO, |_, _| ());
    assert!(failure(refused).starts_with("on_metrics: every 0ns is too often"));
    served.finish();
}

#[test]
fn a_closure_that_blocks_does_not_hold_up_a_stop() {
    let mut served = On::SingleReactor.echo(Limits::default());
    let (gate, blocker) = gate();
    served.running.on_metrics(Duration::from_millis(1), move |_, _| blocker.block()).expect("a thread");
    gate.await_blocked();
    served.running.shutdown(Duration::from_millis(1));
    let running = served.running;
    running.stop(Duration::from_millis(1)).expect("the server has ended");
    gate.open();
}
