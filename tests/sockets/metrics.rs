//! What a server has counted.

use std::{sync::mpsc::channel, time::Duration};

use framewire::{CloseKind, Failure, LengthPrefix, Limits, RefusalCause, Sample, SampleKind};

use crate::common::{On, Served, echo, on_each_strategy, on_each_strategy_without_layers, until};
use crate::handlers::{Scripted, gate};

on_each_strategy! {
    a_snapshot_has_what_was_done_and_two_have_how_fast
    commands_that_wait_for_a_callback_that_blocks_are_seen
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
